"""What the mid-fusion network reads, holds and trains (SYSTEMS.md 5.5), as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import flow_net_plan, frame_net_plan
from reelbank.heads.models.plans import Group, HeadPlan, Rest, Stage

NAME = "two-stream"
MAPS_TAP = "inception5b"
OPTIONS: Mapping[str, Any] = {
    "position": "middle", "clip": 0.0, "reduce_kernel": 1, "frozen_trunks": False, "weights": "pretrained",
}  # fmt: skip
KERNELS = (1, 3)
NEW = ("frame.reduce.*", "flow.conv3.*", "fuse.*", "fc1.*", "classifiers.*")
"""Tensors that neither of the networks has which it starts from."""
STARTS = ((frame_net_plan.NAME, ""), (flow_net_plan.NAME, ""))


def plan(options: Mapping[str, Any]) -> HeadPlan:
    """Of `two-stream` with these options. Raises TrainingError for values that it does not have."""
    flow_net_plan.check_clip(options["clip"])
    if options["reduce_kernel"] not in KERNELS:
        raise TrainingError(f"--head-option reduce_kernel={options['reduce_kernel']}: expected 1 or 3")
    is_frozen = options["frozen_trunks"]
    maps = ((frame_net_plan.BACKBONE, MAPS_TAP),) if is_frozen else ()
    whole = Stage(
        name="1", groups=(Group(name="all", tensors=("*",)),), starts_from=STARTS, settings=frame_net_plan.SETTINGS
    )
    frozen = Stage(
        name="frozen",
        groups=(Group(name="new", tensors=NEW),),
        evaluated=("frame.net",),
        starts_from=STARTS,
        settings=frame_net_plan.SETTINGS,
    )
    return HeadPlan(
        inputs=(
            frame_net_plan.frames_input(options["position"], taps=(*maps, *frame_net_plan.PICTURES)),
            flow_net_plan.FIELDS,
        ),
        rests=(Rest(backbone=frame_net_plan.BACKBONE, module="frame.net", input=frame_net_plan.FRAMES),),
        parts={"frame": frame_net_plan.NAME, "flow": flow_net_plan.NAME},
        kept_options=("clip",),
        stages=(frozen,) if is_frozen else (whole, frozen),
        cam={frame_net_plan.FRAMES: "fuse", flow_net_plan.FLOW: "fuse"},
    )
