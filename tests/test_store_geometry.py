"""How stores of clips of unlike lengths are cut: little of what is stored is padding, and a store keeps its cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pipeline import copy_set, run, store_of

import reelbank.store
from reelbank.extract.inputs.sampling import parse
from reelbank.extract.run.sizing import expected_steps
from reelbank.manifests import Clip
from reelbank.store import FeatureSpec, Store, StoreError, TapSpec, layout
from reelbank.store.geometry import Geometry, stored_steps
from reelbank.store.layout import plan_geometry
from reelbank.store.shards import read_grid
from reelbank.store.testing import write_store

VECTOR = TapSpec(name="cls", dtype="float16", axes=("channel",), shape=(1536,))
MAP = TapSpec(name="map", dtype="uint8", axes=("y", "x", "rgb"), shape=(224, 224, 3))
SMALL = TapSpec(name="small", dtype="uint8", axes=("y", "x"), shape=(7, 7))


def spec_of(*taps: TapSpec) -> FeatureSpec:
    return FeatureSpec(backbone="frames", weights={"kind": "none"}, taps=taps, sampling="all")


@pytest.mark.parametrize(
    ("taps", "counts", "most"),
    [
        ((MAP,), (), 1.1),  # nothing known: 46 MB of frames were stored as 136 MB
        ((VECTOR,), (), 2.0),
        ((VECTOR,), (11,) * 40, 1.1),
        ((VECTOR,), (31,) * 40, 1.1),
        ((VECTOR, MAP), (3, 5, 9, 14, 30), 1.3),
        ((VECTOR,), tuple(range(5, 60)), 1.3),
        ((SMALL,), (7, 7, 8), 1.2),
        ((VECTOR, SMALL), (1_000_000,), 1.1),
    ],
)
def test_little_of_what_is_stored_is_padding(taps: tuple[TapSpec, ...], counts: tuple[int, ...], most: float) -> None:
    geometry = plan_geometry(spec_of(*taps), None, 40, counts)
    assert geometry.chunk_steps is not None
    there = counts or (11, 20, 40)
    valid = stored = 0
    for tap in taps:
        assert geometry.shard_steps % geometry.chunk_steps[tap.name] == 0
        size = int(np.prod(tap.shape)) * np.dtype(tap.dtype).itemsize
        valid += size * sum(there)
        stored += size * sum(stored_steps(geometry, tap, count) for count in there)
    assert stored <= most * valid
    assert plan_geometry(spec_of(*taps), 16, 40).chunk_steps is None  # nothing to choose


def test_steps_that_the_manifest_lets_expect() -> None:
    clips = [
        Clip(clip_id=str(i), video="v.mp4", start_seconds=start, end_seconds=end, text=text)
        for i, (start, end, text) in enumerate(
            [(0.0, 2.0, {}), (1.0, 2.0, {"rate_fps": "50"}), (0.0, 2.0, {"rate_fps": "?"}), (3.0, None, {})]
        )
    ]
    for rule, found in (("all", [50, 50, 50]), ("every:4", [13, 13, 13]), ("fps:3", [6, 3, 6]), ("uniform:4", [])):
        assert expected_steps(parse(rule), clips) == found


def test_steps_of_a_union_are_at_most_those_of_its_rules() -> None:
    # 50, 10 and an unknown number of frames
    clips = [Clip(clip_id=str(end), video="v.mp4", start_seconds=0.0, end_seconds=end) for end in (2.0, 0.4, None)]
    for rule, found in (
        ("uniform:7+uniform:16", [23, 10, 23]),
        ("consecutive:3+position:0,1+random:4", [9, 9, 9]),
        ("every:5+fps:4", [18, 4]),
        ("first:12", [12, 10, 12]),
        ("all+uniform:9", [50, 10]),
    ):
        assert expected_steps(parse(rule), clips) == found


def with_intervals(folder: Path, ends: tuple[float, ...]) -> None:
    header, *rows = (folder / "manifest.csv").read_text().splitlines()
    videos = [row.split(",")[header.split(",").index("video")] for row in rows]
    lines = [f"c{i},{videos[0]},train,0,{end}" for i, end in enumerate(ends)]
    (folder / "manifest.csv").write_text("\n".join(["clip_id,video,split,start_seconds,end_seconds", *lines]) + "\n")


def test_store_is_cut_by_the_manifest_announced_and_keeps_its_cut(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 1))
    with_intervals(folder, (0.2, 0.2, 0.3))
    options = {"model": ("frames",), "sampling": ("fps:20",), "workers": 1}
    told: list[str] = []
    run_told(folder, told, **options)
    store = Store(store_of(folder, "frames"))
    folder_of_tap = store.path / "features" / next(iter(store.taps))
    cut = read_grid(folder_of_tap)[0].chunk
    assert store.clips.num_steps.tolist() == [4, 4, 6]
    assert store.geometry.shard_steps == 6  # of the longest clip that the manifest names
    assert "x 4 to 6 steps, by the manifest's intervals: about 2.1 MB for 3 clips" in " ".join(filter(None, told))
    stored = sum(file.stat().st_size for file in (store.path / "features").rglob("*") if file.is_file())
    assert stored < 1.2 * 14 * 224 * 224 * 3
    with_intervals(folder, (0.2, 0.2, 0.3, 0.8))
    run(folder, **options)
    grown = Store(store.path)
    assert grown.clips.num_steps.tolist() == [4, 4, 6, 16]
    assert read_grid(folder_of_tap)[0].chunk == cut
    assert grown.geometry == store.geometry
    assert reelbank.store.verify(store.path).problems == ()


def run_told(folder: Path, told: list[str], **options: object) -> None:
    from reelbank.extract import FeaturizeConfig, featurize

    settings = {"manifest": folder / "manifest.csv", "out": str(folder / "{model}.zarr"), **options}
    featurize(FeaturizeConfig(**settings), lambda event: told.append(event.note))  # type: ignore[arg-type]


def test_store_without_the_field_is_cut_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of an earlier version: its geometry says nothing of chunks."""
    arrays = [np.ones((n, *MAP.shape), np.uint8) for n in (2, 40)]

    def earlier(*args: object) -> Geometry:
        return replace(plan_geometry(spec_of(MAP), None, 2), chunk_steps=None)

    with monkeypatch.context() as patch:
        patch.setattr(layout, "plan_geometry", earlier)
        write_store(tmp_path / "s.zarr", {"map": arrays}, [{"clip_id": name} for name in "ab"])
    root = layout.read_root(tmp_path / "s.zarr")
    geometry = {name: value for name, value in root["geometry"].items() if name != "chunk_steps"}
    layout.write_root(tmp_path / "s.zarr", root | {"geometry": geometry})
    made = layout.definitions(spec_of(MAP), Geometry.from_json(geometry))["features/map"]
    assert read_grid(tmp_path / "s.zarr/features/map")[0].chunk == made.chunks
    assert made.chunks[2] == 32
    np.testing.assert_array_equal(Store(tmp_path / "s.zarr").read("map", 1)[0], arrays[1])
    assert reelbank.store.verify(tmp_path / "s.zarr").problems == ()


@pytest.mark.parametrize("chunks", [{"map": 0}, {"map": 7}, {"other": 1}, {"map": "x"}, 3])
def test_chunks_that_cut_nothing_are_refused(tmp_path: Path, chunks: object) -> None:
    write_store(tmp_path / "s.zarr", {"map": [np.ones((2, *MAP.shape), np.uint8)]}, [{"clip_id": "a"}])
    root = layout.read_root(tmp_path / "s.zarr")
    layout.write_root(tmp_path / "s.zarr", root | {"geometry": root["geometry"] | {"chunk_steps": chunks}})
    with pytest.raises(StoreError, match="chunk_steps"):
        Store(tmp_path / "s.zarr")
