"""What OpticalFlowNet reads and trains (SYSTEMS.md 5.4), as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.models.frame_net_plan import SETTINGS
from reelbank.heads.models.plans import Group, HeadPlan, Input, Stage

NAME = "flow-net"
BACKBONE = "flow-net"
FLOW = "flow"
STACK = 8
OPTIONS: Mapping[str, Any] = {"clip": 0.0}
FIELDS = Input(
    name=FLOW,
    about="flow fields",
    taps=(
        *(("flow", "flow"), ("flow:*", "flow"), ("warp-flow*", "flow")),
        *(("flow", "flow-8bit"), ("flow:*", "flow-8bit"), ("warp-flow*", "flow-8bit")),
    ),
    values="field",
    stack_steps=STACK,
    stack_at="first",
    fill_zeros=True,
    shape=(2, 224, 224),
    needs_shape=True,
)


def check_clip(clip: float) -> None:
    """Raises TrainingError for a displacement that cannot be a bound."""
    if not clip >= 0:
        raise TrainingError(f"--head-option clip={clip}: expected px of displacement, or 0 to cut none")


def plan(options: Mapping[str, Any]) -> HeadPlan:
    """Of `flow-net` with these options."""
    check_clip(options["clip"])
    return HeadPlan(
        inputs=(FIELDS,),
        aside=("fc1", "classifiers"),
        kept_options=("clip",),
        gives={BACKBONE: "net"},
        stages=(
            Stage(
                name="1",
                groups=(Group(name="all", tensors=("*",)),),
                may_start_from=((NAME, ""),),
                settings=SETTINGS,
            ),
        ),
        cam={FLOW: "net.relu2"},
    )
