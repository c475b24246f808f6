"""Stores of another version: what is absent is its fill value, what is unknown stays (the rule in store/layout.py).

`store_v1` is a file of an earlier version, see fixtures/make_store_v1.py; every test works on a copy of it.
"""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result

import reelbank.store
from reelbank import cli
from reelbank.heads import TrainConfig, train_head
from reelbank.heads.probes.rows import load_rows
from reelbank.manifests.rendered import synth
from reelbank.store import FeatureSpec, Store, StoreError, diff, growing, layout, merge, verify
from reelbank.store.description import describe
from reelbank.store.exchange.options import ExportConfig, ImportConfig
from reelbank.store.exchange.table import clip_columns, ledger_names, manifest_of
from reelbank.store.layout import COLUMNS, LEDGER, ClipArray
from reelbank.store.staging import RECORD, ClipStage, folder_of, stage_failure, staged_rows
from reelbank.store.sums import read_summed, write_summed
from reelbank.store.testing import make_manifest
from reelbank.store.writer import StoreWriter, clip_identity

FIXTURE = Path(__file__).parent / "fixtures" / "store_v1.tar.xz"
TAP = "hof"
OPTIONAL = [f"clips/{name}" for name, kind in LEDGER.items() if not kind.essential]
OPTIONAL += [f"manifest/{name}" for name, kind in COLUMNS.items() if not kind.essential] + ["thumbnails/rgb"]
ESSENTIAL = [f"clips/{name}" for name, kind in LEDGER.items() if kind.essential]
ESSENTIAL += [f"manifest/{name}" for name, kind in COLUMNS.items() if kind.essential]
ESSENTIAL += [f"{folder}/{TAP}" for folder in ("features", "checksums", "mean", "std")]
UNKNOWN: Mapping[str, tuple[Any, Any, tuple[int, ...]]] = {
    "clips/later_seconds": ("float32", np.nan, ()),
    "clips/language": (str, "", ()),
    "clips/sound_box": ("int16", -7, (3,)),
    "manifest/weight": ("float64", 1.0, ()),
    "manifest/take": ("int32", 0, ()),
    "audio/loudness": ("uint8", 9, (2,)),
}
"""{array of a later version: (dtype, fill value, sizes after the clip axis)}; `weight` is a listed manifest column."""


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fixture")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "store_v1"


@pytest.fixture
def path(packed: Path, tmp_path: Path) -> Path:
    """A store of an earlier version; three clips to a unit, the last unit holds two.

    Arrays that came after it was written are made: each test takes away or adds what it is about.
    """
    store = shutil.copytree(packed, tmp_path / "old.zarr")
    root = root_of(store)
    spec, geometry = FeatureSpec.from_json(root["spec"]), layout.Geometry.from_json(root["geometry"])
    growing.make_absent(store, layout.definitions(spec, geometry))
    growing.grow_axes(store, layout.definitions(spec, geometry), {"clip": root["num_clips"]})
    return store


def remove(store: Path, name: str) -> None:
    """Makes the store one of a version that had no array `name`."""
    shutil.rmtree(store / name)
    folder, _, column = name.partition("/")
    if folder == "manifest":
        edit(store, columns={k: v for k, v in root_of(store)["columns"].items() if v != column})


def root_of(store: Path) -> dict[str, Any]:
    return dict(read_summed(store / "zarr.json")["attributes"])


def edit(store: Path, **attributes: Any) -> None:
    layout.write_root(store, root_of(store) | attributes)


def add_unknown(store: Path) -> None:
    """Makes the store one of a later version: more arrays, attributes and fields than this one knows."""
    group = zarr.open_group(store, mode="r+")
    count = root_of(store)["num_clips"]
    for name, (dtype, fill, tail) in UNKNOWN.items():
        array = group.create_array(
            name, shape=(count, *tail), chunks=(3, *tail), dtype=dtype, fill_value=fill,
            dimension_names=("clip", "part")[: 1 + len(tail)], attributes={"unit": "of later"},
        )  # fmt: skip
        array[:] = values_of(name, count)
    root = root_of(store)
    later = {"audio_rate_hz": None}
    spec = root["spec"] | later | {"taps": [tap | later for tap in root["spec"]["taps"]]}
    columns = root["columns"] | {"weight": "weight", "take": "take"}
    edit(store, columns=columns, spec=spec, geometry=root["geometry"] | {"stripes": 1}, mood={"of": "later"})


def values_of(name: str, count: int) -> Any:
    """What the later version wrote, never a fill value."""
    dtype, _, tail = UNKNOWN[name]
    numbers = np.arange(20, 20 + count)
    return (
        numbers.astype(str) if dtype is str else np.broadcast_to(numbers.reshape(-1, *[1] * len(tail)), (count, *tail))
    )


def stored(store: Path, name: str) -> Any:
    return np.asarray(zarr.open_array(store / name, mode="r")[:])


def value_of(store: Store, name: str, row: int = 0) -> Any:
    """What a reader gets of the array `name` for one row."""
    folder, _, own = name.partition("/")
    if folder == "manifest":
        return np.asarray(store.column(own)[row])
    if folder == "thumbnails":
        return store.thumbnail(row)
    if LEDGER[own].axis == "step":
        return getattr(store, own)(row)
    return np.asarray(getattr(store.clips, own)[row])


def fill_of(name: str) -> Any:
    folder, _, own = name.partition("/")
    return 0 if folder == "thumbnails" else ({"clips": LEDGER, "manifest": COLUMNS}[folder])[own].fill


def extend(store: Path, **ledger: Any) -> Store:
    """What featurize does to a store: two new clips, `broken` once more; the last unit is filled and one is begun."""
    before = Store(store)
    writer = StoreWriter(store, before.spec)
    table = clip_columns(before, np.flatnonzero(before.clips.in_manifest == 1))
    old = manifest_of({name: values for name, values in table.items() if name != "manifest/weight"}, ("kcal",))
    given = [{"clip_id": f"new {i}", "kcal": 5.0, "group": "n", "camera": "top"} for i in range(2)]
    manifest = replace(old, clips=(*old.clips, *make_manifest(store.parent, given).clips))
    rows = writer.sync_manifest(manifest).tolist()
    todo: dict[int, list[Any]] = {}
    for row, clip in zip(rows, manifest.clips, strict=True):
        if clip.clip_id not in ("broken", "new 0", "new 1"):
            continue
        stage = ClipStage(store, row, before.spec.taps)
        stage.append(before.spec.taps[0], np.full((3, 200), row, np.float16))
        identity = clip_identity(clip, before.spec.digest, "")
        times, frames, picture = np.arange(3) / 5, np.arange(3), np.full(layout.THUMBNAIL_SHAPE, 7, np.uint8)
        known = {"num_frames": 8, "frame_box": [0, 0, 4, 4], "rate_fps": 5.0}
        outcome = stage.finish(identity, known | ledger, times, frames, picture, None)
        todo.setdefault(writer.geometry.unit_of(row), []).append(outcome)
    for unit, outcomes in todo.items():
        writer.commit(unit, outcomes, {})
    return Store(store)


def look_through(
    store: Path, tmp_path: Path, *, form: str = "hdf5", absent: Mapping[str, str] | None = None
) -> None:  # fmt: skip
    """What only reads a store: info, verify, train-head, probe, diff and export."""
    found, described = verify(store), describe(store)
    assert found.problems == ()
    assert found.absent == described.absent
    assert json.dumps(described.to_json(), allow_nan=False)
    for name, fill in (absent or {}).items():
        assert f"{name} is not stored and reads as {fill}" in found.text()
        assert f"{name} (read as {fill})" in described.text()
    train_head(TrainConfig.of(store=(store,), label="none", epochs=1, report=False, run=tmp_path / "run"))
    rows = load_rows(
        Store(store), tap=TAP, level="clip", view=0, normalize="none", label_column="label", target_column=None
    )
    assert len(rows.vectors) == len(Store(store).done_rows())
    assert diff(store, store).equal
    reelbank.store.export(store, tmp_path / "export", ExportConfig(format=form))


def pass_on(store: Path, tmp_path: Path, *, apart: tuple[str, ...] = ()) -> None:
    """Import of that export, and merge; columns that an exchange may change stand in `apart`."""
    reelbank.store.import_store(tmp_path / "export", tmp_path / "back.zarr", ImportConfig())
    assert_same(store, tmp_path / "back.zarr", apart)
    shutil.copytree(store, tmp_path / "other.zarr")
    merge(tmp_path / "merged.zarr", [store, tmp_path / "other.zarr"])
    assert_same(store, tmp_path / "merged.zarr", ())
    assert diff(store, tmp_path / "merged.zarr").spec == {}
    a, b = Store(store), Store(tmp_path / "merged.zarr")
    np.testing.assert_array_equal(a.clips.frame_box[a.clips.in_manifest == 1], b.clips.frame_box)


def assert_same(store: Path, other: Path, apart: tuple[str, ...]) -> None:
    """Same clips with the same columns, ledger and features."""
    found = diff(store, other)
    assert (found.only_in_a, found.only_in_b, found.steps, found.status) == ((), (), {}, {})
    assert [name for name in found.columns if name not in apart] == []
    assert found.taps[TAP]["num_different_clips"] == 0
    assert verify(other).problems == ()
    a, b = Store(store), Store(other)
    order = [a.column("clip_id").tolist().index(clip) for clip in b.column("clip_id")]
    for name in ledger_names():
        if name != "reason":  # an import finds a reason where none is stored
            np.testing.assert_array_equal(getattr(a.clips, name)[order], getattr(b.clips, name), err_msg=name)


# -- stores of an earlier version ----------------------------------------------------------------------------


def test_store_of_an_earlier_version_is_whole(path: Path, tmp_path: Path) -> None:
    store = Store(path)
    assert (store.num_clips, store.geometry.unit_clips) == (8, 3)
    assert store.clips.counts() == {"done": 6, "failed": 1, "missing": 0, "left_manifest": 1}
    assert (store.absent, store.unknown, store.unknown_attributes) == ({}, (), ())
    assert store.spec.digest == store.spec_digest
    look_through(path, tmp_path)


def test_store_as_it_was_written_lacks_what_came_later(packed: Path, tmp_path: Path) -> None:
    path = shutil.copytree(packed, tmp_path / "raw.zarr")
    younger = {f"clips/{name}" for name in LEDGER if not (path / "clips" / name).is_dir()}
    absent = Store(path).absent
    assert set(absent) == younger
    look_through(path, tmp_path, absent=absent)
    assert extend(path).absent == {}


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_absent_array_is_its_fill_value(path: Path, tmp_path: Path, name: str) -> None:
    before = value_of(Store(path), name)
    remove(path, name)
    store = Store(path)
    np.testing.assert_array_equal(value_of(store, name), np.full_like(before, fill_of(name)))
    shown = "NaN" if fill_of(name) != fill_of(name) else repr(fill_of(name))
    assert store.absent == {name: shown}
    look_through(path, tmp_path, absent={name: shown})


def test_absent_arrays_are_made_where_the_store_grows(path: Path, tmp_path: Path) -> None:
    before = {name: value_of(Store(path), name) for name in OPTIONAL}
    for name in OPTIONAL:
        remove(path, name)
    look_through(path, tmp_path)
    pass_on(path, tmp_path)
    after = extend(path)
    assert after.absent == {}
    assert after.clips.counts() == {"done": 9, "failed": 0, "missing": 0, "left_manifest": 1}
    for name in OPTIONAL:
        np.testing.assert_array_equal(value_of(after, name), np.full_like(before[name], fill_of(name)), err_msg=name)
        assert read_summed(path / name / "zarr.json")["shape"][0] == 10
    assert after.clips.num_frames.tolist() == [0] * 7 + [8] * 3
    assert after.clips.frame_box[9].tolist() == [0, 0, 4, 4]
    assert after.step_seconds(9).tolist() == [0, 0.2, 0.4]
    assert after.thumbnail(9).min() == 7
    assert verify(path).problems == ()


@pytest.mark.parametrize("name", ESSENTIAL)
def test_an_absent_essential_array_is_named(path: Path, tmp_path: Path, name: str) -> None:
    remove(path, name)
    with pytest.raises(StoreError, match=rf"{path / name} is not there and nothing can stand for it"):
        StoreWriter(path, Store(path).spec)
    assert [problem.tap for problem in verify(path).problems if not problem.clip] == [f"{name}/zarr.json"]
    with pytest.raises(StoreError, match=str(path / name)):
        train_head(TrainConfig.of(store=(path,), epochs=1, head="conv-aggregation", report=False, run=tmp_path / "run"))
        diff(path, shutil.copytree(path, tmp_path / "other.zarr"))


@pytest.mark.parametrize("name", [name for name, kind in COLUMNS.items() if kind.essential])
def test_an_essential_column_that_is_not_listed_is_named(path: Path, name: str) -> None:
    """Or a writer would take every clip for a new one."""
    edit(path, columns={column: array for column, array in root_of(path)["columns"].items() if column != name})
    for use in (lambda: StoreWriter(path, Store(path).spec), lambda: Store(path).column(name)):
        with pytest.raises(StoreError, match=rf"manifest/{name} is not there"):
            use()


@pytest.mark.parametrize("name", layout.ESSENTIAL_ATTRIBUTES)
def test_an_absent_essential_attribute_is_named(path: Path, name: str) -> None:
    layout.write_root(path, {key: value for key, value in root_of(path).items() if key != name})
    with pytest.raises(StoreError, match=rf"not one that reelbank wrote|no attribute '{name}'"):
        Store(path)


def test_other_absent_attributes_are_their_defaults(path: Path) -> None:
    layout.write_root(path, {k: v for k, v in root_of(path).items() if k not in layout.OTHER_ATTRIBUTES})
    assert verify(path).problems == ()
    assert describe(path).spec_digest == Store(path).spec.digest
    assert set(layout.OTHER_ATTRIBUTES) <= set(root_of(extend(path).path))


def test_a_column_that_the_store_lists_and_has_not_is_a_problem_and_reads_as_fill(path: Path) -> None:
    """The list is written after the arrays, so this is damage, not an earlier version."""
    shutil.rmtree(path / "manifest/kcal")
    shutil.rmtree(path / "manifest/camera")
    assert [problem.tap for problem in verify(path).problems] == [
        "manifest/camera/zarr.json",
        "manifest/kcal/zarr.json",
    ]
    assert np.isnan(Store(path).column("kcal")).all() and set(Store(path).column("camera")) == {""}


# -- stores of a later version -------------------------------------------------------------------------------


def test_what_a_later_version_added_is_ignored_and_kept(path: Path, tmp_path: Path) -> None:
    add_unknown(path)
    unlisted = tuple(sorted(name for name in UNKNOWN if name not in ("manifest/weight", "manifest/take")))
    assert (Store(path).unknown, Store(path).unknown_attributes) == (unlisted, ("mood",))
    assert "clips/later_seconds, " in describe(path).text() and "attribute mood" in describe(path).text()
    spec = root_of(path)["spec"]
    record = path / "commits/00000002.json"
    write_summed(record, read_summed(record) | {"machine": "of later"})
    after = extend(path)
    assert after.num_clips == 10
    assert read_summed(record)["machine"] == "of later"
    redone = after.column("clip_id").tolist().index("broken")
    for name, (dtype, fill, tail) in UNKNOWN.items():
        values = stored(path, name)
        assert values.shape == (10, *tail), name
        expected = values_of(name, 10).astype(dtype if dtype is not str else object)
        expected[8:] = fill
        if name.startswith("clips/"):
            expected[redone] = fill
        np.testing.assert_array_equal(values, expected, err_msg=name)
        assert read_summed(path / name / "zarr.json")["attributes"] == {"unit": "of later"}
    root = root_of(path)
    assert (root["spec"], root["mood"], root["geometry"]["stripes"]) == (spec, {"of": "later"}, 1)
    assert root["columns"]["weight"] == "weight"
    assert verify(path).problems == ()


def test_a_clip_that_a_later_version_staged_is_taken_over(path: Path) -> None:
    outcome = stage_failure(path, 3, {"clip_id": "x"}, {"reason": "why"}, None)
    file = folder_of(path, 3) / RECORD
    write_summed(file, read_summed(file) | {"machine": "of later"})
    assert staged_rows(path, ()) == ({3: outcome}, [])


def test_a_text_column_of_the_manifest_takes_the_place_of_one_of_other_dtype(path: Path) -> None:
    add_unknown(path)
    store = Store(path)
    table = clip_columns(store, np.arange(8)) | {"manifest/take": np.array([*"abcdefgh"], dtype=object)}
    StoreWriter(path, store.spec).sync_manifest(manifest_of(table, ("kcal",)))
    assert "".join(Store(path).column("take")) == "abcdefgh"


def test_the_table_of_an_earlier_export_is_filled(path: Path) -> None:
    table = clip_columns(Store(path), np.arange(8))
    for name, kind in COLUMNS.items():
        without = {key: values for key, values in table.items() if key != f"manifest/{name}"}
        if kind.essential:
            with pytest.raises(StoreError, match=f"no manifest column '{name}'"):
                manifest_of(without, ("kcal",))
        else:
            assert {getattr(clip, name) for clip in manifest_of(without, ("kcal",)).clips} <= {"", None}


def test_every_use_of_a_later_store_works(path: Path, tmp_path: Path) -> None:
    """An export has no dtypes for columns that are neither text nor target: they come back as text or not at all."""
    add_unknown(path)
    look_through(path, tmp_path, form="npy")
    pass_on(path, tmp_path, apart=("take", "weight"))


def test_an_array_that_ends_early_is_its_fill_value_past_its_end(path: Path, packed: Path) -> None:
    """So it is after a writer that did not know it has appended rows."""
    # Files of thumbnails know no length; of what came later the store holds fill values alone.
    names = [name for name in OPTIONAL if not name.startswith("thumbnails") and (packed / name).is_dir()]
    for name in names:
        meta = read_summed(path / name / "zarr.json")
        write_summed(path / name / "zarr.json", meta | {"shape": [2, *meta["shape"][1:]]})
    store = Store(path)
    for name in names:
        kept, past = value_of(store, name, 1), value_of(store, name, 4)
        np.testing.assert_array_equal(past, np.full_like(past, fill_of(name)), err_msg=name)
        # A clip that is done has no reason; every other value of this clip is none of fill.
        assert name == "clips/reason" or not np.array_equal(kept, past, equal_nan=kept.dtype.kind == "f"), name
    assert verify(path).problems == ()
    StoreWriter(path, store.spec).sync_manifest(manifest_of(clip_columns(store, np.arange(8)), store.target_names))
    assert {read_summed(path / name / "zarr.json")["shape"][0] for name in names} == {8}


def test_merge_carries_what_all_stores_have_alike_and_names_the_rest(path: Path, tmp_path: Path) -> None:
    add_unknown(path)
    other = shutil.copytree(path, tmp_path / "other.zarr")
    extend(other)
    shutil.rmtree(other / "clips/language")
    group = zarr.open_group(other, mode="r+")
    values = np.asarray(group["clips/sound_box"][:]).astype("int32")
    del group["clips/sound_box"]
    group.create_array("clips/sound_box", data=values, fill_value=-7, dimension_names=("clip", "part"))
    result = merge(tmp_path / "m.zarr", [path, other])
    assert result.notes == (
        "audio/loudness is left out: this version does not know it",
        "clips/language is left out: of the stores only old.zarr have it so",
        "clips/sound_box is left out: the stores have it with different dtypes, fill values or axes",
        "root attribute 'mood' is left out: this version does not know it",
    )
    assert all(note in result.text() for note in result.notes)
    merged = Store(tmp_path / "m.zarr")
    assert merged.unknown == ("clips/later_seconds",)
    names = merged.column("clip_id").tolist()
    # `broken` is taken from the second store, where it was done again: what was said of it before is gone.
    seconds, kept = stored(merged.path, "clips/later_seconds"), stored(path, "clips/later_seconds")
    old = Store(path).column("clip_id").tolist()
    expected = [kept[old.index(n)] if n in old and n != "broken" else np.nan for n in names]
    np.testing.assert_array_equal(seconds, expected)
    assert seconds.dtype == "float32"
    np.testing.assert_array_equal(merged.column("take"), [20 + old.index(n) if n in old else 0 for n in names])
    np.testing.assert_array_equal(merged.column("weight"), [20 + old.index(n) if n in old else 1 for n in names])
    assert verify(merged.path).problems == ()


def test_export_and_import_name_what_they_leave_out(path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    add_unknown(path)
    result = reelbank.store.export(path, tmp_path / "a.h5", ExportConfig())
    unlisted = ("audio/loudness", "clips/language", "clips/later_seconds", "clips/sound_box", "manifest/take")
    assert result.notes == tuple(f"{name} is left out: this version does not know it" for name in unlisted)
    with monkeypatch.context() as later:
        later.setitem(LEDGER, "later_seconds", ClipArray(dtype="float32", fill=np.nan, about="of the sound"))
        for form in ("hdf5", "npy", "safetensors"):
            reelbank.store.export(path, tmp_path / form, ExportConfig(format=form))
    for form in ("hdf5", "npy", "safetensors"):
        imported = reelbank.store.import_store(tmp_path / form, tmp_path / f"{form}.zarr", ImportConfig())
        assert imported.notes == ("ledger/later_seconds is left out: this version does not know it",)
        assert verify(tmp_path / f"{form}.zarr").problems == ()


@pytest.mark.parametrize(
    ("version", "way"), [(2, "install a later reelbank, or let"), (0, "carry it over by its own `store export`")]
)
def test_another_format_version_is_refused_with_a_way_out(version: int, way: str, path: Path) -> None:
    edit(path, format_version=version)
    with pytest.raises(StoreError, match=f"has format version {version}; this reelbank reads version 1: {way}"):
        Store(path)


@pytest.mark.parametrize("where", ["the spec", "tap 'hof' of the spec"])
def test_a_later_field_of_the_spec_is_ignored_where_null_and_refused_where_not(path: Path, where: str) -> None:
    for value in (None, 16000):
        spec = root_of(path)["spec"]
        (spec["taps"][0] if "tap" in where else spec)["audio_rate_hz"] = value
        edit(path, spec=spec)
        if value is None:
            assert verify(path).problems == () and Store(path).spec.digest == Store(path).spec_digest
        else:
            with pytest.raises(StoreError, match=f"^{where} has fields this version does not know: audio_rate_hz"):
                Store(path)


# -- a new row of the table, and the commands ----------------------------------------------------------------


def test_a_new_ledger_array_is_one_row_of_the_table(path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(LEDGER, "later_seconds", ClipArray(dtype="float32", fill=np.nan, about="of the sound"))
    assert np.isnan(Store(path).clips.later_seconds).all()
    assert Store(path).absent == {"clips/later_seconds": "NaN"}
    look_through(path, tmp_path)
    after = extend(path, later_seconds=1.5)
    assert after.absent == {}
    np.testing.assert_array_equal(after.clips.later_seconds, [np.nan] * 7 + [1.5] * 3)
    assert stored(path, "clips/later_seconds").dtype == "float32"
    grown = tmp_path / "grown"
    grown.mkdir()
    look_through(path, grown, form="safetensors")
    pass_on(path, grown)
    merged = Store(grown / "merged.zarr")
    np.testing.assert_array_equal(merged.clips.later_seconds, [np.nan] * 6 + [1.5] * 3)


def test_commands_go_on_with_a_store_of_both_kinds(path: Path, tmp_path: Path) -> None:
    """Everything optional is absent, everything of a later version is there."""
    for name in OPTIONAL:
        remove(path, name)
    add_unknown(path)
    synth.render(tmp_path / "made", clips=2, classes=("grow", "left"), width_px=64, height_px=48, num_frames=(32, 32))
    (tmp_path / "videos").mkdir()
    shutil.copy2(tmp_path / "made/videos/clip_00001.mp4", tmp_path / "videos/new.mp4")
    (tmp_path / "videos/broken.mp4").write_text("no video\n")
    store = Store(path)
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("clip_id", "video", "split", "label", "group", "kcal"))
        for clip, split, kcal in zip(*map(store.column, ("clip_id", "split", "kcal")), strict=True):
            if clip != "gone":
                table.writerow((clip, f"videos/{clip}.mp4", split, "grow", clip, kcal))
        table.writerow(("new", "videos/new.mp4", "train", "left", "new", 300))
    done = (
        f"featurize --manifest {tmp_path}/manifest.csv --model flow:dis --sampling uniform:3 --workers 1 --out {path}"
    )
    result = call(done)
    assert result.exit_code == cli.SOME_FAILED, result.output
    after = Store(path)
    assert after.clips.counts() == {"done": 7, "failed": 1, "missing": 0, "left_manifest": 1}
    assert after.absent == {}
    assert after.clips.width_px.tolist() == [0] * 8 + [64]
    assert after.column("label").tolist() == ["grow"] * 6 + [""] + ["grow", "left"]
    shutil.copy2(tmp_path / "made/videos/clip_00002.mp4", tmp_path / "videos/broken.mp4")
    for line in (f"store retry {path} --workers 1", f"store info {path}", f"store verify {path}"):
        assert call(line).exit_code == cli.OK, line
    assert Store(path).clips.counts()["done"] == 8
    for name, (_, _, tail) in UNKNOWN.items():
        assert stored(path, name).shape == (9, *tail)
        np.testing.assert_array_equal(stored(path, name)[:6], values_of(name, 6))
    run = f"--run {tmp_path / 'run'}"
    assert call(f"train-head --store {path} --epochs 1 --no-report {run}").exit_code == cli.OK
    assert call(f"predict --store {path} {run}").exit_code == cli.OK
    assert call(f"probe --store {path} --knn 1 --out {tmp_path / 'probe'}").exit_code == cli.OK


def call(line: str) -> Result:
    return CliRunner().invoke(cli.main, line.split())
