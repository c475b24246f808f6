"""Every backbone that runs in seconds, through the whole pipeline: a resumed run gives the bits of a whole one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipeline import assert_same_store, copy_set, run, store_of

import reelbank.store
from reelbank.extract import backbones
from reelbank.extract.run.steps import plan_steps
from reelbank.store import verify
from reelbank.testing.backbones import is_network

NEEDS_SECONDS_PER_FRAME = (
    "dinov3",
    "pose:keypoint-rcnn",
    "flow:raft",
    "flow:tvl1",
    "lite:",
    "resnet34",
    "resnet50",
    "tv3d",
    "clip",
    "dinov2",
)
"""Networks whose features are compared batch by batch in the conformance test; here they would take minutes. One ResNet
stands for all, and one EfficientNet-Lite."""
MODELS = [
    name
    for name in backbones.names()
    if backbones.describe(name).source == "video" and not name.startswith(NEEDS_SECONDS_PER_FRAME)
]


@pytest.mark.parametrize("model", MODELS)
def test_resumed_run_equals_a_whole_one(model: str, synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 3))
    options = {
        "model": (model,),
        "weights": "random",
        "sampling": ("uniform:3",),
        "tap": _small_taps(model),
        "batch": 4,
    }
    ids = _clip_ids(folder)
    run(folder, clip=(ids[1],), workers=1, **options)
    resumed = run(folder, workers=2, **options)
    assert resumed.stores[0].num_done_before == 1
    run(folder, out=str(tmp_path / "whole-{model}.zarr"), workers=1, **options)
    whole = tmp_path / f"whole-{store_of(tmp_path, model).name}"
    assert_same_store(store_of(folder, model), whole)
    assert verify(whole).problems == ()
    weights = reelbank.store.open(whole).spec.weights["kind"]
    assert weights == ("random" if is_network(model) else "none")


PAIRED = [name for name in backbones.names() if len(backbones.describe(name).step_frames) > 1]


@pytest.mark.parametrize("model", PAIRED)
def test_last_steps_that_have_no_later_frame_are_counted(model: str) -> None:
    info = backbones.describe(model)
    reach = max(info.step_frames)
    plan = plan_steps(info, np.arange(40, 80), 40, 80)
    assert (plan.num_repeated, len(plan.reads)) == (reach, 40 - reach)
    assert plan_steps(info, np.arange(40, 80 - reach), 40, 80).num_repeated == 0
    # A sampling that repeats frames repeats features, as it was asked to.
    assert plan_steps(info, np.array([40, 40, 41, 40, 41]), 40, 80).num_repeated == 0


def test_repeated_steps_are_in_the_ledger_and_in_the_last_lines(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    report = run(folder, model=("flow:dis", "motion-map"), sampling=("all",), workers=1)
    line = "2 whose last steps repeat the one before: each step reads several frames"
    assert report.text().count(line) == 2
    for model in ("flow:dis", "motion-map"):
        store = reelbank.store.open(store_of(folder, model))
        assert store.clips.repeated_steps.tolist() == [1, 1]
        features = store.read(next(iter(store.taps)), 0)[0]
        assert len(features) == store.clips.num_frames[0]  # as many as a store of pixels has
        np.testing.assert_array_equal(features[-1], features[-2])
    report = run(folder, out=str(tmp_path / "{model}.zarr"), workers=1)
    assert "repeat the one before" not in report.text()


def test_first_frames_of_a_short_clip_are_not_repeated(tmp_path: Path) -> None:
    """Nine frames have eight fields; a clip of eight or fewer has one step more than it has fields."""
    for frames in (12, 9, 8, 3):
        (tmp_path / f"{frames}").mkdir()
        for number in range(frames):
            noise = np.random.default_rng(number).integers(0, 256, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / f"{frames}" / f"{number:02}.png")
    rows = [f"{n},{n},train,a,25" for n in (12, 9, 8, 3)]
    (tmp_path / "manifest.csv").write_text("\n".join(["clip_id,video,split,label,rate_fps", *rows]) + "\n")
    run(tmp_path, sampling=("first:8",), workers=1)
    store = reelbank.store.open(store_of(tmp_path))
    assert store.num_steps.tolist() == [8, 8, 8, 3]
    assert store.clips.repeated_steps.tolist() == [0, 0, 1, 1]
    assert [store.frame_index(row).tolist() for row in range(4)] == [list(range(n)) for n in (8, 8, 8, 3)]


def _small_taps(model: str) -> tuple[str, ...]:
    """All taps but maps of a megabyte and more."""
    info = backbones.describe(model)
    return tuple(name for name, tap in info.taps.items() if len(tap.shape) < 3) or info.default_taps


def _clip_ids(folder: Path) -> list[str]:
    return [line.split(",")[0] for line in (folder / "manifest.csv").read_text().splitlines()[1:]]
