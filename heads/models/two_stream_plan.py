"""What the mid-fusion network reads, holds and trains (SYSTEMS.md 5.5), as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import flow_net_plan, frame_net_plan
from reelbank.heads.models.plans import Group, HeadPlan, Input, Rest, Stage

NAME = "two-stream"
FRAME_MAPS = ((frame_net_plan.BACKBONE, "inception5b"),)
READ_FLOW_MAPS = Input(
    name=flow_net_plan.FLOW,
    about="maps of flow fields",
    taps=((flow_net_plan.BACKBONE, "pool2"),),
    values="map",
    shape=(64, 56, 56),
    positions=(0.0,),
)
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
    frozen = Stage(
        name="frozen",
        groups=(Group(name="new", tensors=NEW),),
        evaluated=("frame.net",),
        starts_from=STARTS,
        settings=frame_net_plan.SETTINGS,
    )
    whole = Stage(
        name="1", groups=(Group(name="all", tensors=("*",)),), starts_from=STARTS, settings=frame_net_plan.SETTINGS
    )
    reads_maps = options["frozen_trunks"]
    frames = frame_net_plan.frames_input(options["position"])
    of_frames = Rest(backbone=frame_net_plan.BACKBONE, module="frame.net", input=frame_net_plan.FRAMES)
    of_flow = Rest(backbone=flow_net_plan.BACKBONE, module="flow.net", input=flow_net_plan.FLOW)
    return HeadPlan(
        inputs=(
            (
                replace(
                    frames, about="maps of frames", taps=FRAME_MAPS, values="map", shape=(1024, 7, 7), needs_shape=False
                ),
                READ_FLOW_MAPS,
            )
            if reads_maps
            else (frames, flow_net_plan.FIELDS)
        ),
        rests=(of_frames, of_flow) if reads_maps else (of_frames,),
        gives={} if reads_maps else {flow_net_plan.BACKBONE: "flow.net"},
        parts={"frame": frame_net_plan.NAME, "flow": flow_net_plan.NAME},
        kept_options=("clip",),
        stages=(frozen,) if reads_maps else (whole, frozen),
        cam={frame_net_plan.FRAMES: "fuse", flow_net_plan.FLOW: "fuse"},
    )
