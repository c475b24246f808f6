"""What the frame net reads, holds and trains (SYSTEMS.md 5.2), as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.models.plans import Group, HeadPlan, Input, Rest, Stage

NAME = "frame-net"
BACKBONE = "googlenet"
FRAMES = "frames"
POSITIONS: Mapping[str, tuple[float, ...]] = {
    "all": (0.0, 0.25, 0.5, 0.75, 1.0),
    "first": (0.0,),
    "front": (0.25,),
    "last": (1.0,),
    "middle": (0.5,),
    "rear": (0.75,),
}
"""{option `position`: shares of the clip at which its frames lie}."""
OPTIONS: Mapping[str, Any] = {"position": "middle", "weights": "pretrained"}
SETTINGS: Mapping[str, Any] = {
    "optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0, "batch": 32, "epochs": 15, "schedule": "none",
    "early_stop_epochs": 0, "keep": "last",
}  # fmt: skip
PICTURES = (("frames:squash224", "rgb"), ("frames*", "rgb"))


def frames_input(position: str) -> Input:
    """Frames at the positions that `position` names. Raises TrainingError for another name."""
    if position not in POSITIONS:
        raise TrainingError(f"--head-option position={position} is not one of {', '.join(sorted(POSITIONS))}")
    return Input(
        name=FRAMES,
        about="RGB frames",
        taps=PICTURES,
        values="pixels",
        positions=POSITIONS[position],
        shape=(3, 224, 224),
        needs_shape=True,
    )


def plan(options: Mapping[str, Any]) -> HeadPlan:
    """Of `frame-net` with these options."""
    return HeadPlan(
        inputs=(frames_input(options["position"]),),
        rests=(Rest(backbone=BACKBONE, module="net", input=FRAMES),),
        aside=("classifiers",),
        stages=(
            Stage(
                name="1",
                groups=(Group(name="all", tensors=("*",)),),
                may_start_from=((NAME, ""),),
                settings=SETTINGS,
            ),
        ),
        cam={FRAMES: "net.inception5b"},
    )
