"""Steps that read something else than the video: flow images, motion maps, keypoints; each opened once."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipeline import run, store_of

import reelbank.store
from reelbank.manifests.rendered import synth

FRAMES = 12


def write_manifest(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def gray(value: int | np.ndarray, path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size[::-1], value, np.uint8) if isinstance(value, int) else value
    Image.fromarray(pixels).save(path)


@pytest.fixture
def gtea(tmp_path: Path) -> Path:
    """One clip as GTEA61 has it: RGB frames 1 to 12, flow 1 to 10, maps without numbers 1, 5 and 12."""
    for i in range(1, FRAMES + 1):
        gray(10 * i, tmp_path / "rgb" / f"rgb{i:04d}.png")
    for i in range(1, FRAMES - 1):
        gray(100 + i, tmp_path / "x" / f"flow_x_{i:05d}.png")
        gray(200 + i, tmp_path / "y" / f"flow_y_{i:05d}.png")
    for i in (2, 3, 4, 6, 7, 8, 9, 10, 11):
        bright = np.zeros((48, 64), np.uint8)
        bright[:, : 4 * i] = 255
        gray(bright, tmp_path / "maps" / f"map{i:04d}.png")
    row = {"clip_id": "a", "video": "rgb", "split": "train", "label": "x", "rate_fps": "15"}
    write_manifest(tmp_path, [row | {"flow_x": "x", "flow_y": "y", "motion_maps": "maps"}])
    return tmp_path


def features(folder: Path, model: str, tap: str, view: int = 0) -> np.ndarray:
    store = reelbank.store.open(store_of(folder, model))
    assert store.clips.status.tolist() == [1], store.clips.reason.tolist()
    found: np.ndarray = store.read(tap, 0)[view]
    return found


def test_flow_images_are_read_side_by_side(gtea: Path) -> None:
    run(gtea, model=("flow:images",), tap=("flow-8bit",), sampling=("all",))
    stored = features(gtea, "flow:images", "flow-8bit")
    assert stored.shape[:2] == (FRAMES - 2, 2)
    assert stored[:, 0].mean(axis=(1, 2)).tolist() == [100 + i for i in range(1, FRAMES - 1)]
    assert stored[:, 1].mean(axis=(1, 2)).tolist() == [200 + i for i in range(1, FRAMES - 1)]


def test_mirrored_flow_points_the_other_way(gtea: Path) -> None:
    run(gtea, model=("flow:images",), tap=("flow-8bit",), sampling=("all",), views="corner-1-centre-flip")
    mirrored = features(gtea, "flow:images", "flow-8bit", view=1)
    assert mirrored[:, 0].mean(axis=(1, 2)).tolist() == [255 - (100 + i) for i in range(1, FRAMES - 1)]
    assert mirrored[:, 1].mean(axis=(1, 2)).tolist() == [200 + i for i in range(1, FRAMES - 1)]


def test_missing_motion_maps_take_the_nearest_the_later_first(gtea: Path) -> None:
    run(gtea, model=("motion-map:images",), tap=("grid28",), sampling=("all",))
    grids = features(gtea, "motion-map:images", "grid28")
    assert len(grids) == FRAMES, "as many as there are frames"
    same = {1: 2, 5: 6, 12: 11}
    for number, nearest in same.items():
        np.testing.assert_array_equal(grids[number - 1], grids[nearest - 1])
    means = grids.mean(axis=(1, 2))
    assert (np.diff(means[[1, 2, 3, 5, 6, 7, 8, 9, 10]]) > 0).all()


def test_sources_of_one_clip_fail_alone(gtea: Path) -> None:
    (gtea / "y" / "flow_y_00003.png").write_bytes(b"no image")
    report = run(gtea, model=("flow:images", "frames"), sampling=("all",))
    assert report.has_failures
    flow = reelbank.store.open(store_of(gtea, "flow:images"))
    frames = reelbank.store.open(store_of(gtea, "frames"))
    assert (flow.clips.status.tolist(), frames.clips.status.tolist()) == ([2], [1])
    assert "not an image" in str(flow.clips.reason[0])


def test_a_changed_source_is_done_again_and_only_it(gtea: Path) -> None:
    models = ("flow:images", "frames")
    run(gtea, model=models, sampling=("all",))
    gray(77, gtea / "x" / "flow_x_00001.png")
    report = run(gtea, model=models, sampling=("all",))
    assert [store.num_extracted for store in report.stores] == [1, 0]


def test_keypoints_need_no_video(tmp_path: Path) -> None:
    keypoints = [[[10.0 + i, 20.0 + j, 1.0] for j in range(17)] for i in range(5)]
    data = {"layout": "coco17", "rate_fps": 30, "width_px": 100, "height_px": 80}
    (tmp_path / "a.json").write_text(json.dumps(data | {"frames": [{"keypoints": points} for points in keypoints]}))
    write_manifest(tmp_path, [{"clip_id": "a", "video": "", "split": "train", "label": "x", "annotations": "a.json"}])
    run(tmp_path, model=("pose",), sampling=("all",))
    stored = features(tmp_path, "pose", "keypoints")
    assert stored.shape == (5, 25, 2)
    assert stored[:, 0, 0].tolist() == [10.0 + i for i in range(5)]  # the nose
    assert not reelbank.store.verify(store_of(tmp_path, "pose")).problems


@pytest.mark.parametrize(
    ("model", "words"),
    [("flow:images", ("flow_x and flow_y", "flow images")), ("pose", ("no file", "k.json")), ("frames", ("no video",))],
)
def test_a_clip_without_the_source_is_a_row_with_its_reason(tmp_path: Path, model: str, words: tuple[str, ...]) -> None:
    row = {"clip_id": "a", "video": "", "split": "train", "label": "x", "annotations": "k.json", "flow_x": ""}
    other = row | {"clip_id": "b", "video": "v.mp4", "flow_x": "x"}
    write_manifest(tmp_path, [row | {"flow_y": ""}, other | {"flow_y": "y"}])
    run(tmp_path, model=(model,))
    store = reelbank.store.open(store_of(tmp_path, model))
    assert store.clips.status.tolist() == [2, 2]
    assert all(word in str(store.clips.reason[0]) for word in words), store.clips.reason[0]


@pytest.mark.parametrize(("model", "column"), [("flow:images", "flow_x and flow_y"), ("pose", "annotations")])
def test_a_source_that_no_clip_has_is_refused_before_anything_is_written(
    tmp_path: Path, model: str, column: str
) -> None:
    write_manifest(tmp_path, [{"clip_id": "a", "video": "v.mp4", "split": "train", "label": "x"}])
    with pytest.raises(ValueError, match=f"{model} reads the manifest's {column}: no clip"):
        run(tmp_path, model=("frames", model))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]


def test_views_of_keypoints_are_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, [{"clip_id": "a", "annotations": "a.json", "split": "train", "label": "x"}])
    with pytest.raises(ValueError, match="views need frames"):
        run(tmp_path, model=("pose",), views="flip")


def test_every_video_is_opened_once_whatever_mix_is_asked(tmp_path: Path) -> None:
    made = synth.render(tmp_path, clips=2)
    models = ("flow", "flow:dis", "frames", "resnet18", "motion-map")
    samplings = ("uniform:3", "flow=every:20", "frames=position:0.5", "motion-map=consecutive:2:centre")
    report = run(tmp_path, model=models, sampling=samplings, weights="random", views="flip")
    assert not report.has_failures
    assert report.tally.opens == len(made)
