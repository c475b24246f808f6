"""What the map transformer reads and trains, as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.models.plans import Group, HeadPlan, Input, Stage

OPTIONS: Mapping[str, Any] = {
    "differences": True, "flow": False, "layers": 2, "motion": False, "order": True, "patches": False,
    "width": 192,
}  # fmt: skip
MAPS, MOTION, FLOW, PATCHES = "maps", "motion", "flow", "patches"
NUM_HEADS = 4
READ_MAPS = Input(
    name=MAPS,
    about="maps of a frozen backbone",
    taps=(
        ("resnet*", "layer3"),
        ("resnet*", "layer4"),
        ("lite*", "stage5"),
        ("lite*", "stage7"),
        ("googlenet*", "inception5b"),
        ("dinov2*", "patch"),
        ("dinov3*", "patch"),
    ),
    values="map",
    shape=(256, 14, 14),
)
READ_MOTION = Input(name=MOTION, about="motion maps", taps=(("motion-map*", "grid28"),), values="map", shape=(28, 28))
READ_FLOW = Input(
    name=FLOW,
    about="histograms of flow",
    taps=(("warp-flow*", "hof"), ("flow*", "hof"), ("raft*", "hof")),
    values="map",
    shape=(200,),
)
READ_PATCHES = Input(
    name=PATCHES,
    about="means of patch tokens",
    taps=(("dinov2*", "mean-patch"), ("dinov3*", "mean-patch")),
    values="map",
    shape=(384,),
)
SETTINGS: Mapping[str, Any] = {
    "optimizer": "adamw", "lr": 3e-4, "weight_decay": 0.05, "batch": 32, "epochs": 60, "schedule": "multistep",
    "milestones": (40, 52), "factor": 0.2, "early_stop_epochs": 0, "keep": "best-accuracy",
}  # fmt: skip


def plan(options: Mapping[str, Any]) -> HeadPlan:
    """Of `map-transformer` with these options. Raises TrainingError for values that no transformer can have."""
    if options["layers"] < 1:
        raise TrainingError(f"--head-option layers={options['layers']}: expected 1 or more")
    if options["width"] < NUM_HEADS or options["width"] % NUM_HEADS:
        raise TrainingError(f"--head-option width={options['width']}: expected a multiple of {NUM_HEADS}, its heads")
    return HeadPlan(
        inputs=(READ_MAPS, *(one for one in (READ_MOTION, READ_FLOW, READ_PATCHES) if options[one.name])),
        stages=(Stage(name="1", groups=(Group(name="head", tensors=("*",)),), settings=SETTINGS),),
    )
