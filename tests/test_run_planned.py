"""What `featurize` and `doctor --model` say of a store before anything is decoded: its bytes, and what takes fewer."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelbank.extract import backbones
from reelbank.extract.run.messages import ModelJob
from reelbank.extract.run.sizing import CROP_BYTES, FRAME_BYTES, expected_steps, plan_notes
from reelbank.manifests import Clip
from reelbank.store import FeatureSpec

EARLY = {"stem": 401_408, "layer1": 401_408, "layer2": 200_704}
"""Bytes of a float16 map of ResNet-34 (SYSTEMS.md 0.3), each above the crop that it is made of."""


def job_of(folder: Path, model: str, *taps: str, views: int = 1, sampling: str = "uniform:4") -> ModelJob:
    info = backbones.describe(model)
    spec = FeatureSpec(
        backbone=model,
        weights={"kind": "none"},
        taps=tuple(info.taps[name] for name in taps),
        sampling=sampling,
        views=tuple(f"view{i}" for i in range(views)),
    )
    return ModelJob(model=model, store=folder / "out.zarr", spec=spec, batch=1, device="cpu", state_file=None)


@pytest.mark.parametrize("model", ["resnet18", "resnet34"])
@pytest.mark.parametrize("tap", sorted(EARLY))
def test_maps_larger_than_their_frame_are_told_with_both_sizes(tmp_path: Path, model: str, tap: str) -> None:
    line, advice = plan_notes(job_of(tmp_path, model, tap), 3, 3)
    assert f"{tap} {EARLY[tap]:,} bytes per step x 4 steps: " in line
    assert f"{tap}: {EARLY[tap]:,} bytes per step, a uint8 frame takes {CROP_BYTES:,}: --model frames " in advice
    assert CROP_BYTES == 150_528
    _, advice = plan_notes(job_of(tmp_path, model, tap, views=9), 3, 3)
    assert f"{tap}: {9 * EARLY[tap]:,} bytes per step in all views, a uint8 frame takes {FRAME_BYTES:,}: --m" in advice
    assert "--model frames:256 " in advice


def test_maps_that_are_smaller_and_what_is_no_map_of_frames_need_no_advice(tmp_path: Path) -> None:
    for model, taps, views in (
        ("resnet34", ("layer3",), 1),
        ("resnet34", ("layer3", "layer4"), 1),  # together just the bytes of the crop
        ("resnet34", ("layer3",), 2),
        ("resnet34", ("pool",), 41),
        ("flow-resnet34", ("layer3", "layer4"), 41),  # frames are nothing that it could read
    ):
        assert len(plan_notes(job_of(tmp_path, model, *taps, views=views), 3, 3)) == 1, (model, taps, views)
    assert len(plan_notes(job_of(tmp_path, "resnet34", "layer3", views=3), 3, 3)) == 2
    assert plan_notes(job_of(tmp_path, "resnet34", "stem"), 0, 0) == []


def test_union_is_told_with_the_most_that_its_rules_give(tmp_path: Path) -> None:
    job = job_of(tmp_path, "frames", "rgb", sampling="uniform:7:open+uniform:16:open")
    counts = expected_steps(job.sampling, [Clip(clip_id="a", video="a.mp4")])
    assert counts == [23]
    (line,) = plan_notes(job, 2, 2, counts)
    assert f"rgb {CROP_BYTES:,} bytes per step x at most 23 steps: at most 6.9 MB for 2 clips" in line
    (line,) = plan_notes(job_of(tmp_path, "frames", "rgb"), 2, 2)
    assert f"rgb {CROP_BYTES:,} bytes per step x 4 steps: 1.2 MB for 2 clips" in line
