"""Every backbone that runs in seconds, through the whole pipeline: a resumed run gives the bits of a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline import assert_same_store, copy_set, run, store_of

import reelbank.store
from reelbank.extract import backbones
from reelbank.store import verify
from reelbank.testing.backbones import is_network

NEEDS_SECONDS_PER_FRAME = (
    "dinov3",
    "pose:keypoint-rcnn",
    "flow:raft",
    "flow:tvl1",
    "resnet34",
    "resnet50",
    "tv3d",
    "clip",
    "dinov2",
)
"""Networks whose features are compared batch by batch in the conformance test; here they would take minutes. One ResNet
stands for all."""
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


def _small_taps(model: str) -> tuple[str, ...]:
    """All taps but maps of a megabyte and more."""
    info = backbones.describe(model)
    return tuple(name for name, tap in info.taps.items() if len(tap.shape) < 3) or info.default_taps


def _clip_ids(folder: Path) -> list[str]:
    return [line.split(",")[0] for line in (folder / "manifest.csv").read_text().splitlines()[1:]]
