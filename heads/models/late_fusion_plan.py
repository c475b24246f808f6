"""What late fusion reads, holds and fits, as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.models import flow_net_plan, frame_net_plan
from reelbank.heads.models.plans import Group, HeadPlan, Rest, Stage

NAME = "late-fusion"
FRAME, FLOW = "frame", "flow"
OPTIONS: Mapping[str, Any] = {"position": "middle", "clip": 0.0, "weights": "pretrained"}


def plan(options: Mapping[str, Any]) -> HeadPlan:
    """Of `late-fusion` with these options."""
    flow_net_plan.check_clip(options["clip"])
    return HeadPlan(
        inputs=(frame_net_plan.frames_input(options["position"]), flow_net_plan.FIELDS),
        rests=(Rest(backbone=frame_net_plan.BACKBONE, module=f"{FRAME}.net", input=frame_net_plan.FRAMES),),
        parts={FRAME: frame_net_plan.NAME, FLOW: flow_net_plan.NAME},
        kept_options=("position", "clip"),
        stages=(
            Stage(
                name="calibration",
                groups=(Group(name="fusion", tensors=("log_temperatures", "balance")),),
                evaluated=(FRAME, FLOW),
                starts_from=((frame_net_plan.NAME, ""), (flow_net_plan.NAME, "")),
                settings={"epochs": 1, "early_stop_epochs": 0, "keep": "last"},
            ),
        ),
        cam={frame_net_plan.FRAMES: f"{FRAME}.net.inception5b", flow_net_plan.FLOW: f"{FLOW}.net.relu2"},
    )
