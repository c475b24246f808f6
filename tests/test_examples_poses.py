"""Keypoints and boxes as vectors: where a person is and how large does not count, and what is absent is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from remembered import write_store

from reelbank.cli import main
from reelbank.extract import FeaturizeConfig, extract_as, featurize
from reelbank.extract.errors import ExtractionError
from reelbank.heads import ProbeConfig, TrainConfig, TrainingError, predict, predict_videos, probe, train_head
from reelbank.heads.examples.clips import load_table, open_sources
from reelbank.heads.examples.features import load_features
from reelbank.heads.examples.poses import box_vectors, pose_vectors, present_points
from reelbank.heads.examples.vectors import reading_of
from reelbank.store import SpecMismatch

Floats = npt.NDArray[np.float64]
SEEDS = range(6)


def drawn(seed: int, *shape: int) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """Points (*shape, 2), which of them are present and their scores (*shape)."""
    random = np.random.default_rng(seed)
    return random.uniform(-50, 400, (*shape, 2)), random.random(shape) > 0.3, random.uniform(0.1, 1, shape)


@pytest.mark.parametrize("seed", SEEDS)
def test_pose_does_not_change_with_place_and_size(seed: int) -> None:
    points, present, scores = drawn(seed, 3, 4, 17)
    vectors = pose_vectors(points, present, scores)
    assert vectors.shape == (3, 4, 51)
    random = np.random.default_rng(seed)
    moved = points * random.uniform(0.1, 9, (3, 4, 1, 1)) + random.uniform(-900, 900, (3, 4, 1, 2))
    np.testing.assert_allclose(pose_vectors(moved, present, scores), vectors, atol=1e-6)
    places = vectors.reshape(3, 4, 17, 3)
    assert np.abs(places[..., :2]).max() <= 0.5
    # One side of the box is filled, and proportions are kept: mirroring is another pose.
    assert np.allclose(np.ptp(np.where(present[..., None], places[..., :2], 0), axis=2).max(axis=-1), 1, atol=1e-6)
    assert not np.allclose(pose_vectors(points * (-1, 1), present, scores), vectors)


@pytest.mark.parametrize("seed", SEEDS)
def test_absent_points_are_zero_and_do_not_count(seed: int) -> None:
    points, present, scores = drawn(seed, 5, 17)
    vectors = pose_vectors(points, present, scores)
    anywhere = np.where(present[..., None], points, 1e6 * np.ones_like(points))
    np.testing.assert_array_equal(pose_vectors(anywhere, present, scores), vectors)
    unknown = np.where(present[..., None], points, np.nan)
    np.testing.assert_array_equal(pose_vectors(unknown, present, scores), vectors)
    assert (vectors.reshape(5, 17, 3)[~present] == 0).all()
    np.testing.assert_allclose(vectors.reshape(5, 17, 3)[present][:, 2], scores[present], rtol=1e-6)
    assert set(pose_vectors(points, present).reshape(5, 17, 3)[..., 2].ravel()) == {0.0, 1.0}
    assert pose_vectors(points, present, scores * 40).reshape(5, 17, 3)[..., 2].max() == 1  # logits


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(np.full((1, 5, 2), 71.3, np.float32), id="all points at one place"),
        pytest.param(
            np.float32(3e6) + np.arange(10, dtype=np.float32).reshape(1, 5, 2) / 1e3, id="rounding of float32"
        ),
        pytest.param(np.full((1, 5, 2), np.nan), id="nothing there"),
    ],
)
def test_box_without_area_gives_no_places(points: Floats) -> None:
    present = present_points(points)
    vectors = pose_vectors(points, present).reshape(5, 3)
    assert (vectors[:, :2] == 0).all() and (vectors[:, 2] == present[0]).all()


def test_line_of_points_is_no_degenerate_pose() -> None:
    points = np.array([[[5.0, 1], [5, 3], [5, 9]]])
    assert pose_vectors(points, present_points(points))[0].tolist() == pytest.approx(
        [0, -0.5, 1, 0, -0.25, 1, 0, 0.5, 1]
    )


def test_presence_scores_and_zero_say_what_is_there() -> None:
    points = np.array([[0.0, 0], [0, 7], [3, 3], [np.inf, 1]])
    assert present_points(points).tolist() == [False, True, True, False]
    assert present_points(points, np.array([True, True, False, True])).tolist() == [True, True, False, False]
    assert present_points(points, None, np.array([1, -0.5, np.nan, 1])).tolist() == [False, False, False, False]


def walk(steps: int = 6) -> Floats:
    """Corners (1, T, 4) of a box that goes to the right and grows."""
    t = np.arange(steps)
    return np.stack([10 + 8.0 * t, 20 + 0 * t, 30 + 9.0 * t, 80 + 3.0 * t], axis=-1)[None]


@pytest.mark.parametrize("seed", SEEDS)
def test_box_keeps_its_way_and_loses_its_place(seed: int) -> None:
    corners, valid = walk(), np.ones((1, 6), bool)
    vectors = box_vectors(corners, valid)
    random = np.random.default_rng(seed)
    moved = corners * random.uniform(0.1, 9) + np.tile(random.uniform(-900, 900, 2), 2)
    np.testing.assert_allclose(box_vectors(moved, valid), vectors, atol=1e-5)
    assert (np.diff(vectors[0, :, 0]) > 0).all() and np.ptp(vectors[0, :, 3]) > 0.1
    assert vectors[0, :, :2].mean(axis=0) == pytest.approx([0, 0], abs=1e-6)


def test_box_that_is_absent_or_padded_does_not_count() -> None:
    corners, valid = walk(), np.array([[True] * 5 + [False]])
    corners[0, 2], corners[0, 5] = 0, [5, 5, 1, 1]  # no person; what lies behind the clip is not looked at
    vectors = box_vectors(corners, valid)
    assert (vectors[0, [2, 5]] == 0).all() and (vectors[0, [0, 1, 3, 4], 4] == 1).all()
    only = box_vectors(np.delete(corners, [2, 5], axis=1), np.ones((1, 4), bool))
    np.testing.assert_allclose(only[0], vectors[0, [0, 1, 3, 4]], atol=1e-6)
    assert (box_vectors(corners * 0, valid) == 0).all()
    with pytest.raises(ValueError, match="x1 < x0"):
        box_vectors(corners, np.ones((1, 6), bool))


# --- through the commands --------------------------------------------------------------------------

CLIPS = 24


@pytest.fixture(scope="module")
def poses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stores of people who raise a hand or bend, anywhere and of any size; in c3 nobody is there."""
    folder = tmp_path_factory.mktemp("poses")
    random = np.random.default_rng(0)
    rows = []
    for i in range(CLIPS):
        label, frames = ("raise", "bend")[i % 2], []
        size, place = random.uniform(30, 200), random.uniform(0, 300, 2)
        for t in range(5):
            head = (0.5, 0.0) if label == "raise" else (0.5 + 0.1 * t, 0.1 * t)
            hand = (0.8, 0.4 - 0.1 * t) if label == "raise" else (0.8, 0.6)
            body = np.array([head, (0.7, 0.2), (0.3, 0.2), hand, (0.4, 0.5), (0.6, 1)]) + random.normal(0, 0.01, (6, 2))
            scores = (random.random(6) > 0.1) * (i != 3)
            points = np.zeros((17, 3))
            points[[0, 5, 6, 9, 12, 15]] = np.column_stack([place + size * body, scores])
            frames.append({"keypoints": points.tolist()})
        content = {"layout": "coco17", "rate_fps": 25, "frames": frames}
        (folder / f"{i}.json").write_text(json.dumps(content))
        split = "train" if i < 12 else "val" if i < 16 else "test"
        rows.append({"clip_id": f"c{i}", "annotations": f"{i}.json", "label": label, "split": split})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for name, taps in {"pose": (), "few": ("keypoints",)}.items():
        out = str(folder / f"{name}.zarr")
        featurize(
            FeaturizeConfig(
                manifest=folder / "manifest.csv", model=("pose",), sampling=("all",), tap=taps, out=out, workers=1
            )
        )
    return folder


def trained(store: Path, run: Path, **options: Any) -> dict[str, Any]:
    defaults = {"epochs": 25, "lr": 1e-3, "device": "cpu", "report": False}
    train_head(TrainConfig.of(store=(store,), run=run, **defaults | options))
    results: dict[str, Any] = json.loads((run / "results.json").read_text())
    return results


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tap": ("keypoints", "box"), "pool": "mean+std"},
        {"head": "attentive", "segments": "segments:3:stride=1", "augment": ("noise",)},
        {"normalize": "l2", "head": "linear", "lr": 3e-2},
        {"folds": 3, "epochs": 10},
    ],
    ids=str,
)
def test_head_learns_from_poses_and_the_run_says_how_they_were_read(
    poses: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    results = trained(poses / "pose.zarr", tmp_path / "run", **options)
    assert results["splits"]["test"]["metrics"]["accuracy"]["value"] > 0.8
    notes = " ".join(results["notes"])
    assert "Tap 'keypoints' is read as 75 numbers per step: x, y and confidence of each point" in notes
    assert "Tap 'keypoints' has nothing present in 1 of 24 clips" in notes
    assert ("Tap 'box' is read as 5 numbers per step" in notes) == ("tap" in options)
    (stored,) = json.loads((tmp_path / "run" / "config.json").read_text())["stores"]
    assert stored["readings"]["keypoints"] == {"rule": "pose", "beside": ["presence"]}
    found = predict(tmp_path / "run", poses / "pose.zarr", split="test")
    with (tmp_path / "run" / "predictions.csv").open() as file:
        expected = {row["clip_id"]: float(row["probability"]) for row in csv.DictReader(file) if row["split"] == "test"}
    if "folds" not in options and found.probability is not None:
        assert dict(zip(found.clip_ids.tolist(), found.probability, strict=True)) == pytest.approx(expected, abs=1e-5)


def test_predict_wants_what_training_read_beside_the_tap(poses: Path, tmp_path: Path) -> None:
    trained(poses / "pose.zarr", tmp_path / "run", epochs=1)
    with pytest.raises(SpecMismatch, match=r"taps\[presence\]: the run '\(25,\) bool', the store None"):
        predict(tmp_path / "run", poses / "few.zarr")
    with pytest.raises(ExtractionError, match=r"pose reads annotations, not videos; .* pass --store"):
        predict_videos(tmp_path / "run", [poses / "0.json"], extract=extract_as)
    # Without `presence` a point at 0, 0 is absent, and a head of such a store does not look at it where it is there.
    trained(poses / "few.zarr", tmp_path / "few", epochs=1)
    one, other = (predict(tmp_path / "few", poses / f"{name}.zarr") for name in ("few", "pose"))
    np.testing.assert_array_equal(one.probabilities["label"], other.probabilities["label"])


def test_run_of_an_earlier_version_reads_boxes_as_stored(poses: Path, tmp_path: Path) -> None:
    store = open_sources((poses / "pose.zarr",), ("box",))[0].store
    for readings, size in ((None, 5), ([{}], 4)):
        table = load_table(open_sources((store.path,), ("box",), readings))
        features = load_features(table, needs_steps=True)
        assert features.sizes == {"box": size}
    np.testing.assert_array_equal(features.arrays["box"][4], store.read("box", int(table.rows[0][4]))[0])


@pytest.mark.parametrize(("tap", "level"), [("keypoints", "clip"), ("keypoints", "step"), ("box", "clip")])
@pytest.mark.parametrize("normalize", ["l2", "zscore"])
def test_probe_sees_poses(poses: Path, tmp_path: Path, tap: str, level: str, normalize: str) -> None:
    config = ProbeConfig(
        store=poses / "pose.zarr", tap=tap, kmeans=2, knn=3, level=level, normalize=normalize, out=tmp_path / "p"
    )
    found = probe(config).results
    assert found["num_dimensions"] == (75 if tap == "keypoints" else 5)
    assert any(note.startswith(f"Tap '{tap}' is read as") for note in found["notes"])
    assert any("has nothing present in " in note for note in found["notes"])
    if tap == "keypoints":
        least = 0.8 if level == "clip" else 0.65  # the first steps of both classes are alike
        assert found["analyses"]["knn"]["metrics"]["accuracy"]["value"] > least


@pytest.mark.parametrize("command", [["train-head"], ["probe", "--knn", "3"]], ids=lambda words: words[0])
def test_other_taps_are_refused_with_those_that_can_be_read(poses: Path, command: list[str]) -> None:
    words = [*command, "--store", str(poses / "pose.zarr"), "--tap", "presence"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code != 0
    assert "box, keypoints" in result.output


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("keypoints", (17, 2), 51),
        ("keypoints", (17, 3), 51),
        ("coco-keypoints", (2, 17, 3), 102),
        ("bbox", (4,), 5),
        ("boxes", (3, 4), 15),
        ("pose", (24, 3), None),  # rotations of joints, as body models have them
        ("keypoints", (17, 4), None),
        ("keypoints", (34,), 34),
        ("box", (6,), 6),
    ],
)
def test_arrays_of_other_programs_are_read_by_name_and_shape(
    tmp_path: Path, name: str, shape: tuple[int, ...], size: int | None
) -> None:
    random = np.random.default_rng(0)
    arrays = [np.sort(random.uniform(1, 90, (3, *shape)), axis=-1).astype(np.float32) for _ in range(4)]
    store = write_store(tmp_path / "s.zarr", {name: arrays}, [{"clip_id": f"c{i}", "label": "a"} for i in range(4)])
    if size is None:
        assert reading_of(store, name) is None
        with pytest.raises(TrainingError, match="keypoints"):
            open_sources((store.path,), ())
        return
    features = load_features(load_table(open_sources((store.path,), ())), needs_steps=False)
    assert features.sizes == {name: size}
    assert features.arrays[name].isfinite().all()


def test_boxes_that_are_no_corners_are_refused(tmp_path: Path) -> None:
    arrays = [np.tile(np.array([[200, 90, 30, 60]], np.float32), (3, 1))] * 2  # x, y, width, height
    write_store(tmp_path / "s.zarr", {"box": arrays}, [{"clip_id": f"c{i}", "label": "a"} for i in range(2)])
    with pytest.raises(TrainingError, match=r"tap 'box' of .*s.zarr: some have x1 < x0 .* expected corners"):
        load_features(load_table(open_sources((tmp_path / "s.zarr",), ())), needs_steps=False)
