"""What the flow network reads, holds and trains (SYSTEMS.md 2.4), as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.models.plans import Group, HeadPlan, Input, Rest, Stage

STACK = 5
FLOW = "flow"
BACKBONE = "flow-resnet34"
CAM = "net.layer4"
OPTIONS: Mapping[str, Any] = {"weights": "pretrained", "segments": 1}
SETTINGS: Mapping[str, Any] = {
    "optimizer": "sgd", "lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "batch": 32, "epochs": 750,
    "schedule": "multistep", "milestones": (150, 300, 500), "factor": 0.5, "early_stop_epochs": 0,
    "keep": "best-accuracy",
}  # fmt: skip
FIELDS = Input(
    name=FLOW,
    about="flow images",
    taps=(("flow:images*", "flow-8bit"), ("warp-flow*", "flow-8bit"), ("flow*", "flow-8bit")),
    values="gray",
    stack_steps=STACK,
)


def plan(options: Mapping[str, Any]) -> HeadPlan:
    """Of `flow-resnet34`."""
    return HeadPlan(
        inputs=(FIELDS,),
        rests=(Rest(backbone=BACKBONE, module="net", input=FLOW),),
        cam={FLOW: CAM},
        stages=(Stage(name="1", groups=(Group(name="all", tensors=("*",)),), settings=SETTINGS),),
    )
