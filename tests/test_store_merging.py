"""Merging and comparing stores: what is joined is byte-equal, what differs is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import reelbank.store
from reelbank import cli
from reelbank.store import SpecMismatch, Store, StoreError
from reelbank.store.agreement import Agreement, step_cosines
from reelbank.store.exchange.options import ExportConfig, ImportConfig
from reelbank.store.testing import write_store

WIDTH = 5


def features_of(name: str, steps: int = 4) -> NDArray[np.float16]:
    random = np.random.default_rng(sum(map(ord, name)))
    return random.normal(size=(steps, WIDTH)).astype(np.float16)


def made(
    path: Path, names: str, *, failed: str = "", changed: str = "", longer: str = "", split: str = "train",
    kcal: float | None = None, **more: Any,
) -> Store:  # fmt: skip
    """A store of the clips `names`, a letter each; `changed` have other features, `longer` two steps more."""
    arrays = [
        None if name in failed else features_of(name * 2 if name in changed else name, 6 if name in longer else 4)
        for name in names
    ]
    targets = {} if kcal is None else {"kcal": kcal}
    rows = [{"clip_id": name, "label": f"l{ord(name) % 2}", "group": name, "split": split, **targets} for name in names]
    return write_store(path, {"cls": arrays}, rows, **more)


# -- merge ---------------------------------------------------------------------------------------------------


def test_merged_store_has_the_bytes_of_its_parts(tmp_path: Path) -> None:
    parts = [
        made(tmp_path / "a.zarr", "abc"),
        made(tmp_path / "b.zarr", "de", kcal=3.0),
        made(tmp_path / "c.zarr", "f"),
    ]
    result = reelbank.store.merge(tmp_path / "m.zarr", [part.path for part in parts])
    merged = Store(tmp_path / "m.zarr")
    assert (result.num_clips, result.num_done, result.num_shared) == (6, 6, 0)
    assert merged.column("clip_id").tolist() == list("abcdef")
    row = 0
    for part in parts:
        for own in range(part.num_clips):
            np.testing.assert_array_equal(merged.read("cls", row), part.read("cls", own))
            np.testing.assert_array_equal(merged.mean("cls")[row], part.mean("cls")[own])
            np.testing.assert_array_equal(merged.std("cls")[row], part.std("cls")[own])
            np.testing.assert_array_equal(merged.step_seconds(row), part.step_seconds(own))
            row += 1
    np.testing.assert_array_equal(merged.checksums("cls"), np.concatenate([part.checksums("cls") for part in parts]))
    np.testing.assert_array_equal(merged.column("kcal"), [np.nan] * 3 + [3.0] * 2 + [np.nan])
    assert merged.spec == parts[0].spec
    assert [source["source"] for source in merged.provenance["sources"]] == ["a.zarr", "b.zarr", "c.zarr"]
    assert reelbank.store.verify(merged.path).problems == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr", "c.zarr", "m.zarr"]


def test_merged_store_opens_in_xarray(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")

    parts = [made(tmp_path / f"{names}.zarr", names, fixed_steps=4) for names in ("ab", "cd")]
    reelbank.store.merge(tmp_path / "m.zarr", [part.path for part in parts])
    dataset = xarray.open_zarr(tmp_path / "m.zarr", group="features", consolidated=False)
    assert dataset["cls"].shape == (4, 1, 4, WIDTH)
    np.testing.assert_array_equal(dataset["cls"].values[3, 0], features_of("d"))


def test_done_beats_failed_whichever_comes_first(tmp_path: Path) -> None:
    made(tmp_path / "a.zarr", "abc", failed="b")
    made(tmp_path / "b.zarr", "bad", failed="a")
    for order in (("a", "b"), ("b", "a")):
        out = tmp_path / f"{''.join(order)}.zarr"
        result = reelbank.store.merge(out, [tmp_path / f"{name}.zarr" for name in order])
        merged = Store(out)
        assert (result.num_clips, result.num_done, result.num_shared) == (4, 4, 2)
        for row, name in enumerate(merged.column("clip_id")):
            np.testing.assert_array_equal(merged.read("cls", row)[0], features_of(name))
        assert reelbank.store.verify(out).problems == ()


def test_imports_of_several_files_can_be_merged(tmp_path: Path) -> None:
    for names in ("ab", "cd"):
        made(tmp_path / f"{names}.zarr", names, backbone="dinov2")
        reelbank.store.export(tmp_path / f"{names}.zarr", tmp_path / f"{names}.h5", ExportConfig())
        reelbank.store.import_store(tmp_path / f"{names}.h5", tmp_path / f"i-{names}.zarr", ImportConfig())
    reelbank.store.merge(tmp_path / "m.zarr", [tmp_path / "i-ab.zarr", tmp_path / "i-cd.zarr"])
    merged = Store(tmp_path / "m.zarr")
    assert merged.spec.weights["source"] == "ab.h5, cd.h5"
    assert merged.column("clip_id").tolist() == list("abcd")
    assert reelbank.store.verify(merged.path).problems == ()


def test_failed_everywhere_keeps_its_reason_and_row(tmp_path: Path) -> None:
    paths = [made(tmp_path / f"{name}.zarr", f"{name}x", failed="x").path for name in "ab"]
    reelbank.store.merge(tmp_path / "m.zarr", paths)
    merged = Store(tmp_path / "m.zarr")
    assert merged.clips.counts() == {"done": 2, "failed": 1, "missing": 0, "left_manifest": 0}
    assert merged.clips.reason[1] == "no features given"


def test_contradictions_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    a = made(tmp_path / "a.zarr", "abc", kcal=1.0).path
    cases: tuple[tuple[dict[str, Any], type[StoreError], str], ...] = (
        ({"changed": "b"}, StoreError, "clip 'b' has other features of tap 'cls'"),
        ({"split": "test"}, StoreError, "clip 'a': split is 'train' in .* and 'test' in"),
        ({"kcal": 2.0}, StoreError, "clip 'a': kcal is 1 in .* and 2 in"),
        ({"sampling": "uniform:4"}, SpecMismatch, r"sampling: .*b3\.zarr 'uniform:4', .*a\.zarr 'all'"),
        ({"backbone": "toy"}, SpecMismatch, r"backbone: .*b4\.zarr 'toy', .*a\.zarr 'imported'"),
    )
    for number, (options, kind, message) in enumerate(cases):
        b = made(tmp_path / f"b{number}.zarr", "abc", **options).path
        with pytest.raises(kind, match=message):
            reelbank.store.merge(tmp_path / "m.zarr", [a, b])
        assert not list(tmp_path.glob("*m.zarr*"))
    with pytest.raises(StoreError, match="two stores or more, 1 given"):
        reelbank.store.merge(tmp_path / "m.zarr", [a])
    with pytest.raises(StoreError, match="a store is given twice"):
        reelbank.store.merge(tmp_path / "m.zarr", [a, a])
    with pytest.raises(StoreError, match="OUT is a new one"):
        reelbank.store.merge(a, [a, made(tmp_path / "z.zarr", "z").path], overwrite=True)
    assert Store(a).num_clips == 3


def test_bytes_that_do_not_match_their_checksum_are_not_merged(tmp_path: Path) -> None:
    a, b = (made(tmp_path / f"{names}.zarr", names).path for names in ("ab", "cd"))
    shard = next(path for path in (b / "features/cls/c").rglob("*") if path.is_file())
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=r"clip 'c' of .*cd\.zarr: .* do not match their crc32c"):
        reelbank.store.merge(tmp_path / "m.zarr", [a, b])
    assert not (tmp_path / "m.zarr").exists()


def test_views_and_other_columns_survive_a_merge(tmp_path: Path) -> None:
    """Clips that left the manifest stay out; a clip with fewer views keeps its own number."""
    from reelbank.store.files import only_writer
    from reelbank.store.spec import FeatureSpec, TapSpec
    from reelbank.store.staging import ClipStage
    from reelbank.store.testing import make_manifest
    from reelbank.store.writer import StoreWriter, clip_identity

    tap = TapSpec(name="map", dtype="float16", axes=("channel", "y"), shape=(3, 2), codec="zstd-1")
    spec = FeatureSpec(backbone="x", weights={"kind": "none"}, taps=(tap,), sampling="all", views=("original", "flip"))
    random = np.random.default_rng(0)
    for part, names in (("a", "ab"), ("b", "cd")):
        path = tmp_path / f"{part}.zarr"
        manifest = make_manifest(tmp_path, [{"clip_id": name, "camera": f"cam {name}"} for name in names])
        with only_writer(path):
            writer = StoreWriter.open_or_create(path, spec, fixed_steps=None, num_clips=2, provenance={})
            writer.sync_manifest(manifest)
            outcomes = []
            for row, clip in enumerate(manifest.clips):
                views = 2 - row
                stage = ClipStage(path, row, (tap,), views)
                for view in range(views):
                    stage.append(tap, np.maximum(random.normal(size=(40, 3, 2)), 0).astype(np.float16), view)
                identity = clip_identity(clip, spec.digest, "")
                outcomes.append(stage.finish(identity, {}, np.arange(40.0), np.arange(40), None, (7, row)))
            writer.commit(0, outcomes, {})
    with only_writer(tmp_path / "b.zarr"):
        left = make_manifest(tmp_path, [{"clip_id": "d", "camera": "cam d"}])
        StoreWriter(tmp_path / "b.zarr", spec).sync_manifest(left)
    result = reelbank.store.merge(tmp_path / "m.zarr", [tmp_path / "a.zarr", tmp_path / "b.zarr"])
    merged, a, b = (Store(tmp_path / f"{name}.zarr") for name in "mab")
    assert merged.column("camera").tolist() == ["cam a", "cam b", "cam d"]
    assert merged.clips.num_views.tolist() == [2, 1, 1]
    assert result.left_out == 1
    for row, (part, own) in enumerate(((a, 0), (a, 1), (b, 1))):
        np.testing.assert_array_equal(merged.read("map", row), part.read("map", own))
    assert reelbank.store.verify(merged.path).problems == ()
    assert StoreWriter(merged.path, spec).file_stats() == {0: (7, 0), 1: (7, 1), 2: (7, 1)}


# -- diff ----------------------------------------------------------------------------------------------------


def test_diff_of_equal_stores_is_empty(tmp_path: Path) -> None:
    a, b = (made(tmp_path / f"{name}.zarr", "abc", failed="c").path for name in "ab")
    found = reelbank.store.diff(a, b)
    assert found.equal
    assert (found.num_common, found.num_compared) == (3, 2)
    assert found.text().endswith("equal: 3 clips in both, 2 done in both")
    assert CliRunner().invoke(cli.main, ["store", "diff", str(a), str(b)]).exit_code == cli.OK


def test_diff_names_every_kind_of_difference(tmp_path: Path) -> None:
    a = made(tmp_path / "a.zarr", "abcdx", failed="d", kcal=1.0).path
    b = made(tmp_path / "b.zarr", "abcdy", changed="b", longer="c", split="test", sampling="uniform:4").path
    result = CliRunner().invoke(cli.main, ["store", "diff", str(a), str(b), "--json"])
    assert result.exit_code == cli.SOME_FAILED
    found = json.loads(result.stdout)
    assert found["equal"] is False
    assert found["spec"] == {"sampling": ["all", "uniform:4"]}
    assert (found["only_in_a"], found["only_in_b"]) == (["x"], ["y"])
    assert found["status"] == {"d": ["failed", "done"]}
    assert found["columns"] == {
        "kcal": [4, "a", 1.0, "(no such column)"],
        "split": [4, "a", "train", "test"],
    }
    assert found["steps"] == {"c": [4, 6]}
    ours, theirs = features_of("b"), features_of("bb")
    cosines = step_cosines(ours, theirs)
    tap = found["taps"]["cls"]
    assert tap["num_different_clips"] == 2
    assert tap["cosine_min"] == pytest.approx(cosines.min())
    assert tap["max_abs"] == pytest.approx(np.abs(ours.astype(float) - theirs.astype(float)).max())
    assert tap["cosine_median"] == pytest.approx(1.0)
    text = CliRunner().invoke(cli.main, ["store", "diff", str(a), str(b)]).stdout
    for words in (
        "sampling: a 'all', b 'uniform:4'", "1 only in a: 'x'", "'d' (a failed, b done)", "split differs in 4",
        "steps     1 clips differ, first 'c': a 4, b 6", "in 2 of 3 clips",
    ):  # fmt: skip
        assert words in text


def test_diff_of_other_dtypes_reads_every_step(tmp_path: Path) -> None:
    steps = [np.random.default_rng(i).normal(size=(300, WIDTH)).astype(np.float32) for i in range(3)]
    rows = [{"clip_id": name} for name in "abc"]
    write_store(tmp_path / "a.zarr", {"cls": steps}, rows)
    write_store(tmp_path / "b.zarr", {"cls": [array.astype(np.float16) for array in steps]}, rows, fixed_steps=300)
    found = reelbank.store.diff(tmp_path / "a.zarr", tmp_path / "b.zarr").taps["cls"]
    assert found["num_steps"] == 900
    assert 0.999_999 < found["cosine_min"] < 1
    expected = max(float(np.abs(array - array.astype(np.float16)).max()) for array in steps)
    assert found["max_abs"] == pytest.approx(expected, rel=1e-6)


def test_taps_that_cannot_be_compared_are_said(tmp_path: Path) -> None:
    rows = [{"clip_id": "a"}]
    write_store(
        tmp_path / "a.zarr", {"cls": [np.ones((2, 3), np.float16)], "pool": [np.ones((2, 2), np.float16)]}, rows
    )
    write_store(tmp_path / "b.zarr", {"cls": [np.ones((2, 4), np.float16)]}, rows)
    found = reelbank.store.diff(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert found.taps_apart == {"cls": "a (3,) per step, b (4,)", "pool": "only in a"}
    assert not found.equal
    assert "taps[pool].dtype" not in found.text()


def test_agreement_of_zeros() -> None:
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert step_cosines(zero, zero).tolist() == [1.0]
    assert step_cosines(zero, one).tolist() == [0.0]
    assert Agreement().cosine_median == 1.0
