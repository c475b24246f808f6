"""A store is plain Zarr, and the mapped reader gives the bytes that zarr-python gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import reelbank.store
from reelbank.store import SpecMismatch, StoreError
from reelbank.store.layout import column_array
from reelbank.store.spec import FeatureSpec, TapSpec, refuse_mismatch
from reelbank.store.testing import write_store

CASES = {
    "vector": ((6,), "float16"),
    "map": ((8, 3, 3), "float16"),
    "pixels": ((4, 5, 3), "uint8"),
    "points": ((17, 2), "float32"),
    "presence": ((17,), "bool"),
}


def random_clips(lengths: list[int], shape: tuple[int, ...], dtype: str, seed: int = 0) -> list[NDArray[Any]]:
    generator = np.random.default_rng(seed)
    return [(generator.random((n, *shape)) * 200).astype(dtype) for n in lengths]


def rows_of(n: int, **extra: Any) -> list[dict[str, Any]]:
    return [{"clip_id": f"clip {i}", "label": "ab"[i % 2], "group": f"g{i}", **extra} for i in range(n)]


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("kind", sorted(CASES))
def test_mapped_reader_equals_zarr_python(tmp_path: Path, kind: str, fixed: bool) -> None:
    shape, dtype = CASES[kind]
    lengths = [7] * 5 if fixed else [1, 300, 0, 129, 33]
    clips = random_clips(lengths, shape, dtype)
    store = write_store(tmp_path / "s.zarr", {kind: clips}, rows_of(5), fixed_steps=7 if fixed else None)
    array = zarr.open_array(tmp_path / "s.zarr" / "features" / kind, mode="r")
    features, mask = store.gather(kind, [4, 0, 3])
    for row, clip in enumerate(clips):
        np.testing.assert_array_equal(store.read(kind, row)[0], clip)
        np.testing.assert_array_equal(np.asarray(array[row, 0])[: len(clip)], clip)
        assert not np.asarray(array[row, 0])[len(clip) :].any()
    for i, row in enumerate([4, 0, 3]):
        np.testing.assert_array_equal(features[i][mask[i]], clips[row])
        assert mask[i].sum() == lengths[row]
        assert not features[i][~mask[i]].any()


def test_zstd_tap_reads_back_equal(tmp_path: Path) -> None:
    from reelbank.store.files import only_writer
    from reelbank.store.staging import ClipStage
    from reelbank.store.testing import make_manifest
    from reelbank.store.writer import StoreWriter, clip_identity

    tap = TapSpec(name="map", dtype="float16", axes=("channel", "y", "x"), shape=(16, 7, 7), codec="zstd-1")
    spec = FeatureSpec(backbone="x", weights={"kind": "none"}, taps=(tap,), sampling="uniform:3")
    (clip,) = random_clips([3], tap.shape, tap.dtype)
    path = tmp_path / "s.zarr"
    manifest = make_manifest(tmp_path, rows_of(1))
    with only_writer(path):
        writer = StoreWriter.open_or_create(path, spec, fixed_steps=3, num_clips=1, provenance={})
        writer.sync_manifest(manifest)
        stage = ClipStage(path, 0, (tap,))
        stage.append(tap, np.maximum(clip, 100))
        outcome = stage.finish(
            clip_identity(manifest.clips[0], spec.digest, ""), {}, np.zeros(3), np.arange(3), None, None
        )
        writer.commit(0, [outcome], {})
    store = reelbank.store.open(path)
    np.testing.assert_array_equal(store.read("map", 0)[0], np.maximum(clip, 100))
    array = np.asarray(zarr.open_array(path / "features" / "map", mode="r")[0, 0])
    np.testing.assert_array_equal(array, np.maximum(clip, 100))


def test_mean_and_std_are_those_of_the_valid_steps(tmp_path: Path) -> None:
    clips = random_clips([5, 40, 1], (6,), "float16")
    store = write_store(tmp_path / "s.zarr", {"cls": clips}, rows_of(3))
    for row, clip in enumerate(clips):
        np.testing.assert_allclose(store.mean("cls")[row], clip.astype(float).mean(0), rtol=1e-6)
        np.testing.assert_allclose(store.std("cls")[row], clip.astype(float).std(0), rtol=1e-6, atol=1e-6)


def test_columns_ledger_and_failed_clip(tmp_path: Path) -> None:
    clips: list[Any] = [*random_clips([4, 4], (3,), "float16"), None]
    store = write_store(tmp_path / "s.zarr", {"cls": clips}, rows_of(3, kcal=12.5, camera="front"))
    assert store.column("clip_id").tolist() == ["clip 0", "clip 1", "clip 2"]
    assert store.column("kcal").tolist() == [12.5] * 3
    assert store.column("camera").tolist() == ["front"] * 3
    assert store.target_names == ("kcal",)
    assert store.clips.counts() == {"done": 2, "failed": 1, "missing": 0, "left_manifest": 0}
    assert store.done_rows().tolist() == [0, 1]
    with pytest.raises(StoreError, match=r"clip 'clip 2' has no features .*: no features given"):
        store.read("cls", 2)
    with pytest.raises(StoreError, match="no tap 'pool' in this store; it holds cls"):
        store.read("pool", 0)
    with pytest.raises(StoreError, match="no manifest column 'age'; it has camera, clip_id"):
        store.column("age")


def test_plain_zarr_and_xarray_show_the_documented_layout(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")

    path = tmp_path / "s.zarr"
    clips = random_clips([16] * 3, (8,), "float16")
    write_store(path, {"cls": clips}, rows_of(3), fixed_steps=16)
    group = zarr.open_group(path, mode="r")
    assert group.attrs["num_clips"] == 3
    assert {"features", "manifest", "clips", "mean", "std", "checksums", "thumbnails"} <= set(group.keys())
    dataset = xarray.open_zarr(path, group="features", consolidated=False)
    assert dataset["cls"].dims == ("clip", "view", "step", "cls_channel")
    np.testing.assert_array_equal(dataset["cls"].values[1, 0], clips[1])
    tree = xarray.open_datatree(path, engine="zarr", consolidated=False)
    assert tree["clips"]["status"].values.tolist() == [1, 1, 1]
    assert tree["manifest"]["clip_id"].dims == ("clip",)
    tree.close()


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/b", "..", ".hidden", "clip", "ü % name"])
def test_column_array_never_leaves_its_folder(name: str) -> None:
    array = column_array(name)
    assert "/" not in array
    assert not array.startswith(".")
    assert array != "clip"


def test_opening_what_is_no_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        reelbank.store.open(tmp_path / "absent.zarr")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(StoreError, match=r"holds no zarr\.json"):
        reelbank.store.open(tmp_path / "folder.zarr")
    zarr.create_group(tmp_path / "foreign.zarr")
    with pytest.raises(StoreError, match="not one that reelbank wrote"):
        reelbank.store.open(tmp_path / "foreign.zarr")


def test_another_spec_is_refused_with_the_differing_fields(tmp_path: Path) -> None:
    clips = random_clips([4], (3,), "float16")
    write_store(tmp_path / "s.zarr", {"cls": clips}, rows_of(1), sampling="uniform:4")
    with pytest.raises(SpecMismatch, match=r"sampling: stored 'uniform:4', asked 'all'"):
        write_store(tmp_path / "s.zarr", {"cls": clips}, rows_of(1), sampling="all")


def test_a_null_field_of_a_later_version_leaves_the_spec_the_same() -> None:
    """A store of before that field must go on, and two specs that differ always have a difference to name."""
    tap = TapSpec(name="cls", dtype="float16", axes=("channel",), shape=(3,))
    before = FeatureSpec(
        backbone="x", weights={"kind": "none"}, taps=(tap,), sampling="all", preprocess={"crop_px": 224}
    )  # fmt: skip
    after = replace(before, preprocess={"crop_px": 224, "fit_px": None})
    assert before.digest == after.digest
    refuse_mismatch("x.zarr", before, after)
    with pytest.raises(SpecMismatch, match="fit_px: stored None, asked 8"):
        refuse_mismatch("x.zarr", before, replace(before, preprocess={"crop_px": 224, "fit_px": 8}))


def test_spec_survives_json() -> None:
    tap = TapSpec(name="cls", dtype="float16", axes=("channel",), shape=(3,))
    spec = FeatureSpec(backbone="x", weights={"kind": "random", "seed": 3}, taps=(tap,), sampling="all")
    assert FeatureSpec.from_json(spec.to_json()) == spec
    assert FeatureSpec.from_json(spec.to_json()).digest == spec.digest


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_never_enter_a_store(tmp_path: Path, bad: float) -> None:
    (clip,) = random_clips([4], (3,), "float16")
    clip[2, 1] = bad
    with pytest.raises(StoreError, match="1 values of tap 'cls' are NaN or Inf in float16"):
        write_store(tmp_path / "s.zarr", {"cls": [clip]}, rows_of(1))
