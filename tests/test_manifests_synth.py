"""The rendered set: repeatable, disjoint, and with classes that only motion tells apart."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

from reelbank.manifests import ManifestError, read
from reelbank.manifests.events import Event
from reelbank.manifests.manifest import Manifest
from reelbank.manifests.rendered.motion import (
    KNOWN_MOTIONS,
    KNOWN_OUTLINES,
    MOTIONS,
    OUTLINES,
    PHASES,
    THERE_AND_BACK,
    UNKNOWN_MOTIONS,
    UNKNOWN_OUTLINES,
    draw,
)
from reelbank.manifests.rendered.synth import MIN_FRAMES, Planned, plan, render, split_sizes


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return render(tmp_path_factory.mktemp("synth"), clips=14, seed=3)


def _frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _hashes(folder: Path) -> dict[str, str]:
    files = [folder / "manifest.csv", *(folder / "videos").iterdir()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_gives_same_bytes_and_another_seed_does_not(rendered: Manifest, tmp_path: Path) -> None:
    events: list[Event] = []
    again = render(tmp_path / "again", clips=14, seed=3, progress=events.append)
    assert _hashes(again.root) == _hashes(rendered.root)
    assert again.digest() == rendered.digest()
    assert [event.done for event in events] == list(range(1, 15))
    assert events[-1].total == 14
    other = [one.clip for one in plan(clips=14, seed=4)]
    assert [clip.targets for clip in other] != [clip.targets for clip in rendered.clips]


def test_videos_decode_to_the_planned_frames(rendered: Manifest) -> None:
    for one, clip in list(zip(plan(clips=14, seed=3), rendered.clips, strict=True))[::4]:
        assert one.clip == clip
        frames = _frames(rendered.root / clip.video)
        assert len(frames) == one.num_frames >= MIN_FRAMES
        errors = [np.abs(frames[i].astype(int) - draw(one.scene, i)).mean() for i in (0, len(frames) - 1)]
        assert max(errors) < 6.0, clip  # H.264 at crf 18 with halved chroma; a wrong frame is 20 and more off


@pytest.mark.parametrize("clips", [1, 2, 3, 10, 40, 120, 1200])
def test_splits_share_no_subject_and_each_has_every_class(clips: int) -> None:
    planned = [one.clip for one in plan(clips=clips, seed=1)]
    assert len(planned) == clips
    assert len({clip.clip_id for clip in planned}) == clips
    subjects: dict[str, set[str]] = {}
    for clip in planned:
        subjects.setdefault(clip.group, set()).add(clip.split)
        assert clip.label in (UNKNOWN_MOTIONS if clip.split == "unknown" else KNOWN_MOTIONS)
        assert 0.0 <= clip.targets["kcal"] <= 1000.0
    assert all(len(splits) == 1 for splits in subjects.values())
    if clips >= 40:
        for split in ("train", "val", "test"):
            counts = Counter(clip.label for clip in planned if clip.split == split)
            assert set(counts) == set(KNOWN_MOTIONS)
            assert max(counts.values()) - min(counts.values()) <= 1
        assert {clip.label for clip in planned if clip.split == "unknown"} == set(UNKNOWN_MOTIONS)


@pytest.mark.parametrize("clips", range(1, 60))
def test_split_sizes_add_up_and_train_is_never_empty(clips: int) -> None:
    sizes = split_sizes(clips, num_classes=9)
    assert sum(sizes.values()) == clips
    assert sizes["train"] >= max(sizes.values())


@pytest.fixture(scope="module")
def many() -> list[Planned]:
    return [one for one in plan(clips=1000, seed=0, width_px=64, height_px=48) if one.clip.split != "unknown"]


def _grey(planned: Planned, index: int, step: int = 4) -> np.ndarray:
    return draw(planned.scene, index).astype(np.float64).mean(axis=2)[::step, ::step].ravel()


def _accuracy(features: np.ndarray, labels: list[str]) -> float:
    scaled = StandardScaler().fit_transform(features)
    return float(cross_val_score(LogisticRegression(C=0.01, max_iter=300), scaled, labels, cv=3).mean())


def test_one_frame_does_not_tell_the_class_and_two_do(many: list[Planned]) -> None:
    labels = [one.clip.label for one in many]
    chance = max(Counter(labels).values()) / len(labels)
    middle = [one.num_frames // 2 for one in many]
    single = np.stack([_grey(one, i) for one, i in zip(many, middle, strict=True)])
    # Pixel differences would need a flow to be read by a linear model: the sums of dI/dt * dI/dx, dI/dt * dI/dy,
    # dI/dt * (radial gradient) and |dI/dt| are the linear part of one.
    motion = np.stack([_motion(one, i) for one, i in zip(many, middle, strict=True)])
    # 900 clips: the standard error of a chance accuracy is 0.010.
    assert _accuracy(single, labels) < chance + 0.045
    assert _accuracy(motion, labels) > 3 * chance


def _motion(planned: Planned, index: int) -> np.ndarray:
    first, second = (draw(planned.scene, i).astype(np.float64).mean(axis=2) for i in (index, index + 1))
    change = second - first
    dy, dx = np.gradient((first + second) / 2)
    power = (dx**2 + dy**2).sum() + 1.0
    x, y = np.meshgrid(np.linspace(-1, 1, change.shape[1]), np.linspace(-1, 1, change.shape[0]))
    weight = np.abs(change) + 1e-9
    u, v = x - (weight * x).sum() / weight.sum(), y - (weight * y).sum() / weight.sum()
    sums = [(change * dx).sum(), (change * dy).sum(), (change * (u * dx + v * dy)).sum() * 4, (change**2).sum()]
    moved = np.array([*sums, np.abs(sums[0]), np.abs(sums[1])]) / power
    return np.concatenate([np.cbrt(moved), [np.log(np.abs(change).mean() + 1e-3)]])


@pytest.mark.parametrize("phase", range(len(PHASES)))
def test_phases_of_a_frame_are_uniform_in_every_class(many: list[Planned], phase: int) -> None:
    name = PHASES[phase]
    for motion in KNOWN_MOTIONS:
        values = np.sort([one.scene.phases(20)[name] for one in many if one.clip.label == motion])
        # Kolmogorov-Smirnov distance to the uniform; 1.9 / sqrt(n) is passed by chance once in 700 draws.
        steps = np.arange(1, len(values) + 1) / len(values)
        assert np.abs(values - steps).max() < 1.9 / np.sqrt(len(values)), motion


def test_kcal_grows_with_speed(many: list[Planned]) -> None:
    speed = [one.scene.speed for one in many]
    kcal = [one.clip.targets["kcal"] for one in many]
    assert np.corrcoef(speed, kcal)[0, 1] > 0.99
    assert all(one.scene.speed == 0 for one in many if one.clip.label == "static")


def test_static_camera_leaves_the_corner_still_and_a_shaking_one_does_not() -> None:
    still = plan(clips=9, seed=0)[0].scene
    shaking = plan(clips=9, seed=0, camera_shake_px=3.0)[0].scene
    assert still.motion == shaking.motion
    share = [np.mean([(draw(s, i) != draw(s, 0)).any(axis=2).mean() for i in (3, 6)]) for s in (still, shaking)]
    assert share[0] < 0.4 < share[1]


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_moves_what_its_row_says(motion: str) -> None:
    other = "left" if motion != "left" else "right"
    scene = next(one.scene for one in plan(clips=4, classes=[motion, other]) if one.scene.motion == motion)
    before, after = scene.phases(0), scene.phases(1)
    assert {name for name in PHASES if before[name] != after[name]} == set(MOTIONS[motion])


def test_tables_name_each_other() -> None:
    assert set(KNOWN_MOTIONS) | set(UNKNOWN_MOTIONS) == set(MOTIONS)
    assert not set(KNOWN_MOTIONS) & set(UNKNOWN_MOTIONS)
    assert set(KNOWN_OUTLINES) | set(UNKNOWN_OUTLINES) == set(OUTLINES)
    assert not set(KNOWN_OUTLINES) & set(UNKNOWN_OUTLINES)
    assert set(THERE_AND_BACK) <= set(MOTIONS)
    assert all(set(rates) <= set(PHASES) for rates in MOTIONS.values())


def test_render_keeps_a_set_that_is_there(rendered: Manifest) -> None:
    before = _hashes(rendered.root)
    with pytest.raises(ManifestError, match=r"manifest\.csv is there already; .*overwrite"):
        render(rendered.root, clips=1)
    assert _hashes(rendered.root) == before


def test_interrupted_render_leaves_the_old_set(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    before = _hashes(render(tmp_path, clips=2).root)
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path, clips=2, seed=1, overwrite=True, progress=stop)
    assert _hashes(tmp_path) == before
    made = render(tmp_path, clips=1, seed=1, overwrite=True)
    assert made.digest() == read(tmp_path / "manifest.csv").digest()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clips": 0}, "clips = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"width_px": 127}, "width_px = 127.*even"),
        ({"height_px": 16}, "height_px = 16"),
        ({"num_frames": (16, 40)}, r"num_frames = \(16, 40\).*32 or more"),
        ({"num_frames": (64, 40)}, "num_frames"),
        ({"rate_fps": 0}, "rate_fps = 0"),
        ({"camera_shake_px": -1.0}, "camera_shake_px"),
        ({"classes": ["left", "sideways"]}, r"\['sideways'\] are no motions; choose from bounce, clockwise"),
        ({"classes": ["left"]}, "two or more"),
        ({"classes": list(MOTIONS)}, "no motion for the unknown split"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_written(
    wrong: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=f"synth: .*{message}"):
        render(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
