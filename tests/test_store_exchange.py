"""Export and import: what comes back is what was there, for every format, and strangers' files do no harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import reelbank.store
from reelbank import cli
from reelbank.store import Store, StoreError
from reelbank.store.agreement import step_cosines
from reelbank.store.exchange.options import ExportConfig, ImportConfig
from reelbank.store.exchange.table import clip_of, file_name
from reelbank.store.testing import write_store

IDS = ("a/b", "a%2Fb", "..", ".hidden", "ü x", "c.npy", "x" * 300, "reelbank", "int8/scale", "failed", "/etc/passwd")
FORMATS: dict[str, dict[str, Any]] = {
    "hdf5 groups": {"format": "hdf5"},
    "hdf5 array": {"format": "hdf5", "layout": "array"},
    "npy": {"format": "npy"},
    "npy video_features": {"format": "npy", "naming": "video_features"},
    "npy howto100m": {"format": "npy", "naming": "howto100m"},
    "safetensors": {"format": "safetensors"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of awkward clip ids, four kinds of tap, clips of many lengths and a failed one."""
    random = np.random.default_rng(0)
    lengths = [3, 1, 300, 0, 129, 7, 8, 9, 10, 0, 4]

    def clips(shape: tuple[int, ...], dtype: str) -> list[NDArray[Any] | None]:
        arrays: list[NDArray[Any] | None] = [(random.random((n, *shape)) * 200 - 50).astype(dtype) for n in lengths]
        arrays[IDS.index("failed")] = None
        return arrays

    taps = {"cls": clips((6,), "float16"), "map": clips((4, 2, 3), "float32")}
    random = np.random.default_rng(1)
    for name, dtype, shape in (("pixels", "uint8", (2, 2, 3)), ("presence", "bool", (5,))):
        taps[name] = [None if a is None else (random.random((len(a), *shape)) > 0.5).astype(dtype) for a in taps["cls"]]
    rows = [
        {"clip_id": name, "label": f"l{i % 2}", "split": ("train", "test")[i % 2], "group": f"g{i}", "camera": "front",
         "kcal": float("nan") if i == 3 else 10.0 * i, "video": f"videos/v{i}.mp4"}
        for i, name in enumerate(IDS)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("exchange") / "s.zarr"
    return write_store(path, taps, rows, backbone="dinov2", weights={"kind": "random", "seed": 1})


def same_store(a: Store, b: Store, *, taps: tuple[str, ...] | None = None) -> None:
    """Features, moments, checksums, ledger, times and manifest of two stores are equal."""
    for name in a.column_names:
        np.testing.assert_array_equal(a.column(name), b.column(name))
    for name in ("status", "reason", "num_steps", "num_frames", "duration_seconds", "rate_fps", "content_hash"):
        np.testing.assert_array_equal(getattr(a.clips, name), getattr(b.clips, name), err_msg=name)
    assert a.target_names == b.target_names
    for row in a.done_rows().tolist():
        np.testing.assert_array_equal(a.step_seconds(row), b.step_seconds(row))
        np.testing.assert_array_equal(a.frame_index(row), b.frame_index(row))
    for tap in taps or tuple(a.taps):
        assert a.taps[tap] == b.taps[tap]
        np.testing.assert_array_equal(a.checksums(tap), b.checksums(tap))
        for row in a.done_rows().tolist():
            np.testing.assert_array_equal(a.read(tap, row), b.read(tap, row))
        if a.taps[tap].is_vector:
            np.testing.assert_array_equal(a.mean(tap), b.mean(tap))
            np.testing.assert_array_equal(a.std(tap), b.std(tap))


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_export_then_import_gives_the_same_store(store: Store, tmp_path: Path, kind: str) -> None:
    config = ExportConfig(**FORMATS[kind])
    written = reelbank.store.export(store.path, tmp_path / "out", config)
    assert (written.num_clips, written.num_listed) == (10, 11)
    result = reelbank.store.import_store(tmp_path / "out", tmp_path / "back.zarr", ImportConfig())
    assert result.failures == {"no features given": 1}
    back = Store(tmp_path / "back.zarr")
    same_store(store, back, taps=("cls",) if config.naming == "howto100m" else None)
    assert reelbank.store.verify(back.path).problems == ()
    assert back.spec.weights["kind"] == "imported"
    assert back.weights_are_random
    assert (back.provenance["kind"], back.provenance["source"], len(back.provenance["sha256"])) == (
        "imported",
        "out",
        64,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.zarr", "out"]


@pytest.mark.parametrize("kind", ["hdf5 array", "npy", "safetensors"])
def test_int8_comes_back_within_half_a_level(store: Store, tmp_path: Path, kind: str) -> None:
    config = ExportConfig(**FORMATS[kind], dtype="int8", tap=("cls",))
    loss = reelbank.store.export(store.path, tmp_path / "out", config).losses["cls"]
    reelbank.store.import_store(tmp_path / "out", tmp_path / "back.zarr", ImportConfig())
    back = Store(tmp_path / "back.zarr")
    stored = np.concatenate([store.read("cls", row)[0] for row in store.done_rows()]).astype(np.float64)
    read = np.concatenate([back.read("cls", row)[0] for row in store.done_rows()]).astype(np.float64)
    level = (stored.max(axis=0) - stored.min(axis=0)) / 254
    assert (np.abs(stored - read) <= level / 2 + 0.07).all()  # 0.07: float16 near 150
    assert 0 < np.abs(stored - read).max() <= loss["max_abs"] + 0.07
    assert loss["cosine_min"] == pytest.approx(float(step_cosines(stored, read).min()), abs=1e-5)
    assert loss["num_steps"] == len(stored)
    assert back.spec.weights["int8"] == ["cls"]


def test_int8_of_a_tap_without_float_channels_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"tap 'pixels' is .* uint8 per step; int8 per channel is for float taps"):
        reelbank.store.export(store.path, tmp_path / "o", ExportConfig(dtype="int8", tap=("pixels",)))
    assert list(tmp_path.iterdir()) == []


def test_hdf5_layouts_are_what_h5py_users_expect(store: Store, tmp_path: Path) -> None:
    reelbank.store.export(store.path, tmp_path / "g.h5", ExportConfig())
    reelbank.store.export(store.path, tmp_path / "a.h5", ExportConfig(layout="array"))
    with h5py.File(tmp_path / "g.h5") as file:
        assert len(file["clips"]) == 10
        for group in file["clips"].values():
            row = IDS.index(group.attrs["clip_id"])
            assert (group.attrs["label"], group.attrs["split"]) == (f"l{row % 2}", ("train", "test")[row % 2])
            np.testing.assert_array_equal(group.attrs["kcal"], store.column("kcal")[row])
            np.testing.assert_array_equal(group["cls"][:], store.read("cls", row)[0])
            np.testing.assert_array_equal(group["step_seconds"][:], store.step_seconds(row))
        assert json.loads(file["reelbank"][()])["spec"]["backbone"] == "dinov2"
    with h5py.File(tmp_path / "a.h5") as file:
        names = file["manifest/clip_id"].asstr()[:].tolist()
        for row in store.done_rows().tolist():
            i = names.index(IDS[row])
            start, length = file["start"][i], file["length"][i]
            np.testing.assert_array_equal(file["features/map"][start : start + length], store.read("map", row)[0])


def test_npy_namings_are_those_of_the_field(store: Store, tmp_path: Path) -> None:
    one = {"format": "npy", "tap": ("cls",)}
    reelbank.store.export(store.path, tmp_path / "v", ExportConfig(**one, naming="video_features"))
    reelbank.store.export(store.path, tmp_path / "h", ExportConfig(**one, naming="howto100m"))
    assert {"v0_dinov2.npy", "v0_fps.npy", "v0_timestamps_ms.npy"} <= {path.name for path in (tmp_path / "v").iterdir()}
    assert np.load(tmp_path / "v/v0_fps.npy").shape == ()
    np.testing.assert_allclose(np.load(tmp_path / "v/v0_timestamps_ms.npy"), store.step_seconds(0) * 1000)
    np.testing.assert_array_equal(np.load(tmp_path / "h/v0.npy"), store.read("cls", 0)[0])


def test_safetensors_opens_with_its_own_library(store: Store, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    reelbank.store.export(store.path, tmp_path / "s.safetensors", ExportConfig(format="safetensors"))
    tensors = load_file(tmp_path / "s.safetensors")
    assert len(tensors) == 10 * 6
    for row in store.done_rows().tolist():
        np.testing.assert_array_equal(tensors[f"{IDS[row]}/cls"], store.read("cls", row)[0])


@pytest.mark.parametrize("clip_id", [*IDS, "%", "%2F", "a b", "é" * 90, "日本" * 60, "a\\b", "con", "~", "a\nb", "%-"])
def test_file_name_is_reversible_and_leads_nowhere(clip_id: str) -> None:
    name = file_name(clip_id)
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name.encode()) <= 200
    assert clip_of(name) == (clip_id if "%-" not in name else None)


def test_long_names_that_begin_alike_stay_apart() -> None:
    names = {file_name("é" * 150 + str(i)) for i in range(50)}
    assert len(names) == 50


def test_clips_of_one_video_are_refused_where_the_stem_is_the_name(tmp_path: Path) -> None:
    arrays = [np.zeros((2, 3), np.float16)] * 2
    rows = [{"clip_id": name, "video": f"{name}/take.mp4"} for name in "ab"]
    write_store(tmp_path / "s.zarr", {"cls": arrays}, rows)
    for naming in ("howto100m", "video_features"):
        with pytest.raises(StoreError, match=r"clips 'a' and 'b' would both be take.*use --naming clip_id"):
            reelbank.store.export(tmp_path / "s.zarr", tmp_path / "o", ExportConfig(format="npy", naming=naming))


def test_names_that_are_one_where_case_is_ignored_are_refused(tmp_path: Path) -> None:
    """macOS and Windows would write both clips to one file, and nobody would know."""
    arrays = [np.zeros((2, 3), np.float16)] * 2
    write_store(path := tmp_path / "c.zarr", {"cls": arrays}, [{"clip_id": name} for name in ("Clip_A", "clip_a")])
    with pytest.raises(StoreError, match=r"would both be clip_a.npy .*macOS and Windows.*; use --format hdf5"):
        reelbank.store.export(path, tmp_path / "o", ExportConfig(format="npy"))
    reelbank.store.export(path, tmp_path / "c.h5", ExportConfig())
    rows = [{"clip_id": name, "video": f"{name}/{video}.mp4"} for name, video in (("a", "Take"), ("b", "take"))]
    write_store(tmp_path / "s.zarr", {"cls": arrays}, rows)
    with pytest.raises(StoreError, match=r"would both be .*ignore case; use --naming clip_id"):
        reelbank.store.export(tmp_path / "s.zarr", tmp_path / "o", ExportConfig(format="npy", naming="howto100m"))


def test_nothing_is_replaced_unasked_and_nothing_foreign_at_all(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "o.h5"
    out.write_text("mine")
    with pytest.raises(StoreError, match="already there; choose another place or pass --overwrite"):
        reelbank.store.export(store.path, out, ExportConfig())
    assert out.read_text() == "mine"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/note.txt").write_text("mine")
    for overwrite, place in ((True, tmp_path / "folder"), (True, store.path), (True, store.path.parent)):
        with pytest.raises(StoreError, match="choose another place"):
            reelbank.store.export(store.path, place, ExportConfig(format="npy", overwrite=overwrite))
    assert (tmp_path / "folder/note.txt").read_text() == "mine"
    for _ in range(2):
        reelbank.store.export(store.path, tmp_path / "n", ExportConfig(format="npy", overwrite=True))
    with pytest.raises(StoreError, match="not a store"):
        reelbank.store.import_store(tmp_path / "n", tmp_path / "folder", ImportConfig(overwrite=True))
    with pytest.raises(StoreError, match="already there"):
        reelbank.store.import_store(tmp_path / "n", store.path, ImportConfig())


def test_failed_export_leaves_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "step_seconds", full)
    for options in FORMATS.values():
        with pytest.raises(OSError, match="the disk is full"):
            reelbank.store.export(store.path, tmp_path / "o", ExportConfig(**options))
    assert list(tmp_path.iterdir()) == []


# -- features from elsewhere ---------------------------------------------------------------------------------


def manifest_file(path: Path, names: list[str]) -> Path:
    lines = [f"{name},videos/{name}.mp4,train,x" for name in names]
    path.write_text("\n".join(["clip_id,video,split,label", *lines]) + "\n")
    return path


def foreign(kind: str, path: Path, arrays: dict[str, NDArray[Any]]) -> Path:
    """`arrays` as another program would have written them."""
    if kind == "npy":
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    elif kind == "video_features":
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}_clip.npy", array)
            np.save(path / f"{name}_fps.npy", 25.0)
            np.save(path / f"{name}_timestamps_ms.npy", np.arange(len(array)) * 40.0)
    elif kind == "suffixed npy":
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}_clip.npy", array)
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    elif kind == "hdf5 in a group":
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[f"all/{name}"] = array
    elif kind == "hdf5 groups":
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[f"{name}/clip"] = array
    else:
        from safetensors.numpy import save_file

        save_file(arrays, path)
    return path


FOREIGN = ("hdf5", "hdf5 groups", "hdf5 in a group", "npy", "safetensors", "suffixed npy", "video_features")


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_arrays_become_a_store_with_a_row_per_clip(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(0)
    arrays = {f"v_{i}": random.normal(size=(4 + i, 8)).astype(np.float32) for i in range(5)}
    arrays["v_9"] = arrays["v_0"]
    src = foreign(kind, tmp_path / "src", arrays)
    table = manifest_file(tmp_path / "m.csv", ["v_3", "v_0", "absent", "v_1"])
    tap = "clip"
    options = {} if "groups" in kind or kind == "video_features" else {"tap": (tap,)}
    result = reelbank.store.import_store(src, tmp_path / "s.zarr", ImportConfig(manifest=table, **options))
    assert (result.num_clips, result.num_done, result.failures) == (4, 3, {"no array in src": 1})
    assert result.num_unused == 3
    made = Store(tmp_path / "s.zarr")
    for row, name in ((0, "v_3"), (1, "v_0"), (3, "v_1")):
        np.testing.assert_array_equal(made.read(tap, row)[0], arrays[name].astype(np.float16))
    if kind == "video_features":
        np.testing.assert_allclose(made.step_seconds(0), np.arange(7) * 0.04)
        assert made.clips.rate_fps[0] == 25
    else:
        assert np.isnan(made.step_seconds(0)).all()
    assert reelbank.store.verify(made.path).problems == ()
    wide = ImportConfig(manifest=table, dtype="float32", **options)
    reelbank.store.import_store(src, tmp_path / "wide.zarr", wide)
    np.testing.assert_array_equal(Store(tmp_path / "wide.zarr").read(tap, 0)[0], arrays["v_3"])


@pytest.mark.parametrize("kind", ["hdf5", "npy", "safetensors"])
def test_unusable_arrays_fail_their_clip_with_a_reason(tmp_path: Path, kind: str) -> None:
    good = np.ones((3, 4), np.float32)
    nan, large, narrow = good.copy(), good * 1e6, good[:, :3]
    nan[1, 2] = np.nan
    arrays = {"a": good, "b": nan, "c": large, "d": np.ascontiguousarray(narrow), "e": good[0]}
    src = foreign(kind, tmp_path / "src", arrays)
    result = reelbank.store.import_store(src, tmp_path / "s.zarr", ImportConfig())
    made = Store(tmp_path / "s.zarr")
    reasons = dict(zip(made.column("clip_id"), made.clips.reason, strict=True))
    assert (reasons["a"], reasons["e"]) == ("", "")
    assert "NaN or Inf" in reasons["b"]
    assert "use --dtype float32" in reasons["c"]
    assert "steps of another shape: tap 'features' is (3,), expected (4,)" in reasons["d"]
    assert result.num_done == 2
    assert result.has_failures
    assert made.read("features", made.column("clip_id").tolist().index("e")).shape == (1, 1, 4)


def test_files_of_strangers_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((2, 3))
    for name, link in (("external", h5py.ExternalLink(str(secret), "/x")), ("soft", h5py.SoftLink("/b"))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["b"] = np.ones((2, 3))
            file["a"] = link
        with pytest.raises(StoreError, match="'a' is a link to somewhere else"):
            reelbank.store.import_store(tmp_path / f"{name}.h5", tmp_path / "s.zarr", ImportConfig())
    (tmp_path / "pickled").mkdir()
    np.save(tmp_path / "pickled/a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match=r"no \.npy file of numbers"):
        reelbank.store.import_store(tmp_path / "pickled", tmp_path / "s.zarr", ImportConfig())
    assert not (tmp_path / "s.zarr").exists()


def test_unreadable_file_fails_its_clip_only(tmp_path: Path) -> None:
    src = foreign("npy", tmp_path / "src", {"b": np.ones((2, 3)), "c": np.float64(3)})
    (src / "a.npy").write_bytes(b"\x93NUMPY\x01\x00")
    result = reelbank.store.import_store(src, tmp_path / "s.zarr", ImportConfig())
    made = Store(tmp_path / "s.zarr")
    assert (result.num_clips, result.num_done) == (3, 1)
    assert "a.npy is no .npy file of numbers" in made.clips.reason[0]
    assert made.clips.reason[2] == "a single number, expected an array (T, D)"


def test_export_that_names_files_outside_is_refused(store: Store, tmp_path: Path) -> None:
    reelbank.store.export(store.path, tmp_path / "o", ExportConfig(format="npy", tap=("cls",)))
    lines = (tmp_path / "o/clips.jsonl").read_text().splitlines()
    entry = json.loads(lines[0])
    entry["files"]["cls"] = "../../secret.npy"
    (tmp_path / "o/clips.jsonl").write_text("\n".join([json.dumps(entry), *lines[1:]]))
    with pytest.raises(StoreError, match="not in that folder"):
        reelbank.store.import_store(tmp_path / "o", tmp_path / "s.zarr", ImportConfig())


def test_what_cannot_be_imported_is_said(store: Store, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no features\n")
    (tmp_path / "empty").mkdir()
    many = foreign("npy", tmp_path / "many", {"a": np.ones((2, 3)), "b": np.ones((2, 3))})
    table = manifest_file(tmp_path / "m.csv", ["x", "y"])
    several = tmp_path / "several.h5"
    with h5py.File(several, "w") as file:
        for name in ("one", "two"):
            file[f"{name}/rgb"] = np.ones((2, 3))
            file[f"{name}/flow"] = np.ones((2, 3))
    whole = tmp_path / "whole.npy"
    np.save(whole, np.ones((2, 3), np.int64))
    ints = foreign("npy", tmp_path / "ints", {"a": np.ones((2, 3), np.int64)})
    for src, config, message in (
        (tmp_path / "absent", ImportConfig(), "nothing at"),
        (tmp_path / "text", ImportConfig(), "no HDF5 file, no safetensors file and no folder"),
        (whole, ImportConfig(), "imported as its folder"),
        (tmp_path / "empty", ImportConfig(), "holds no .npy file"),
        (many, ImportConfig(manifest=table), "no array of .* belongs to a clip .*: the arrays are called 'a', 'b'"),
        (several, ImportConfig(), "say which hold features with --tap: flow, rgb"),
        (several, ImportConfig(tap=("hof",)), "--tap hof: .* holds flow, rgb"),
        (ints, ImportConfig(), "'a' is int64; a store holds float16, float32, uint8 and bool"),
    ):
        with pytest.raises(StoreError, match=message):
            reelbank.store.import_store(src, tmp_path / "s.zarr", config)
    reelbank.store.export(store.path, tmp_path / "cut.h5", ExportConfig())
    data = (tmp_path / "cut.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError, match="damaged HDF5 file"):
        reelbank.store.import_store(tmp_path / "cut.h5", tmp_path / "s.zarr", ImportConfig())
    for layout, name in (("groups", "clips/a%2Fb/cls"), ("array", "features/cls"), ("array", "length")):
        reelbank.store.export(store.path, tmp_path / "holed.h5", ExportConfig(layout=layout, overwrite=True))
        with h5py.File(tmp_path / "holed.h5", "r+") as file:
            del file[name]
        with pytest.raises(StoreError, match="is damaged"):
            reelbank.store.import_store(tmp_path / "holed.h5", tmp_path / "s.zarr", ImportConfig())
    reelbank.store.export(store.path, tmp_path / "cut.st", ExportConfig(format="safetensors"))
    data = (tmp_path / "cut.st").read_bytes()
    (tmp_path / "cut.st").write_bytes(data[: len(data) - 50])
    with pytest.raises(StoreError, match="lies outside the file"):
        reelbank.store.import_store(tmp_path / "cut.st", tmp_path / "s.zarr", ImportConfig())
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("feature", "reference"),
    [("clip", "clip__v_GGSY1Qvo990_ViT-B_32_128_None_clip"), ("resnet", "resnet__cuda_v_GGSY1Qvo990_resnet34_64_None")],
)
def test_real_features_survive_float16_and_int8(data_root: Path, tmp_path: Path, feature: str, reference: str) -> None:
    """CLIP ViT-B/32 and ResNet-34 of a real video (355 frames), as video_features wrote them."""
    folder = data_root / "reference" / "video_features"
    with np.load(folder / f"{reference}.npz") as file:
        features = file["data"].astype(np.float32)
    timestamps = folder / "clip__v_GGSY1Qvo990_ViT-B_32_128_None_timestamps_ms.npz"
    with np.load(timestamps) as file:
        seconds = file["data"] / 1000
    (tmp_path / "src").mkdir()
    np.save(tmp_path / f"src/v_GGSY1Qvo990_{feature}.npy", features)
    np.save(tmp_path / "src/v_GGSY1Qvo990_timestamps_ms.npy", seconds * 1000)
    reelbank.store.import_store(tmp_path / "src", tmp_path / "half.zarr", ImportConfig())
    half = Store(tmp_path / "half.zarr")
    assert step_cosines(half.read(feature, 0)[0], features).min() >= 0.99999
    np.testing.assert_allclose(half.step_seconds(0), seconds, rtol=1e-12)
    reelbank.store.import_store(tmp_path / "src", tmp_path / "full.zarr", ImportConfig(dtype="float32"))
    np.testing.assert_array_equal(Store(tmp_path / "full.zarr").read(feature, 0)[0], features)
    written = reelbank.store.export(tmp_path / "full.zarr", tmp_path / "o.h5", ExportConfig(dtype="int8"))
    assert written.losses[feature]["cosine_min"] > 0.99999


def test_featurize_into_an_imported_store_shows_the_fields(synth_set: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "f.zarr", {"hof": [np.ones((2, 8), np.float16)]}, [{"clip_id": "a"}], backbone="flow:dis")
    reelbank.store.export(tmp_path / "f.zarr", tmp_path / "f.h5", ExportConfig())
    reelbank.store.import_store(tmp_path / "f.h5", tmp_path / "i.zarr", ImportConfig())
    line = f"featurize --manifest {synth_set / 'manifest.csv'} --model flow:dis --sampling uniform:2 --workers 1 --out "
    result = CliRunner().invoke(cli.main, [*line.split(), str(tmp_path / "i.zarr")])
    assert result.exit_code == cli.WRONG_USE
    assert "weights.kind: stored 'imported', asked 'none'" in result.output
    assert Store(tmp_path / "i.zarr").num_clips == 1
