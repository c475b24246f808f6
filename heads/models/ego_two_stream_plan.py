"""What the two-stream network reads, holds and trains (SYSTEMS.md 2.5), as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import ego_rnn_plan, flow_resnet34_plan
from reelbank.heads.models.plans import Group, HeadPlan, Rest, Stage

FUSIONS = ("average", "features", "logits")
OPTIONS: Mapping[str, Any] = {
    "fuse": "features", "attention": "cam", "attended": "prebn", "pooled": "cell", "all_of_conv5": False,
    "motion": "none", "motion_loss": "binary", "motion_target": "bw", "pixelwise": False, "discriminator": "none",
    "weights": "pretrained", "segments": 1,
}  # fmt: skip
SETTINGS: Mapping[str, Any] = {
    "optimizer": "sgd", "lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "batch": 32, "epochs": 250,
    "schedule": "step", "step_epochs": 1, "factor": 0.99, "early_stop_epochs": 0, "keep": "best-accuracy",
}  # fmt: skip
FROZEN_FLOW = tuple(f"flow.net.{name}" for name in ("conv1", "bn1", "layer1", "layer2", "layer3"))
FLOW_SHARE = 0.01
"""The rate of the flow network's conv5, of the run's."""


def plan(options: Mapping[str, Any]) -> HeadPlan:
    """Of `ego-two-stream` with these options."""
    if options["fuse"] not in FUSIONS:
        raise TrainingError(f"--head-option fuse={options['fuse']} is not one of {', '.join(FUSIONS)}")
    whole = {**ego_rnn_plan.OPTIONS, **{name: value for name, value in options.items() if name != "fuse"}}
    ego_rnn_plan.check_options("ego-two-stream", whole)
    patterns = [f"rgb.{pattern}" for pattern in ego_rnn_plan.trained_in_stage_2(whole)]
    absent = [f"rgb.{name}.*" for name in ("motion", "discriminator") if whole[name] == "none"]
    rgb = [pattern for pattern in patterns if pattern not in (*absent, "rgb.flow.*")]
    if options["fuse"] == "features":
        rgb.remove("rgb.classifiers.*")
    fused = () if options["fuse"] == "average" else ("classifiers.*",)
    flow = ("flow.net.layer4.*",) if options["fuse"] == "features" else ("flow.net.layer4.*", "flow.classifiers.*")
    fields = flow_resnet34_plan.FIELDS
    fields = replace(fields, taps=((flow_resnet34_plan.BACKBONE, "layer3"), *fields.taps))
    targets, further = ego_rnn_plan.further_losses(whole)
    return HeadPlan(
        inputs=(ego_rnn_plan.frames_input(whole), fields, *targets),
        auxiliary=further,
        rests=(
            Rest(backbone="resnet34", module="rgb.net", input="frames"),
            Rest(backbone=flow_resnet34_plan.BACKBONE, module="flow.net", input=flow_resnet34_plan.FLOW),
        ),
        kept_options=ego_rnn_plan.NETWORK,
        cam=_cam(options["fuse"]),
        parts={"rgb": "ego-rnn", "flow": "flow-resnet34"},
        stages=(
            Stage(
                name="joint",
                groups=(
                    Group(name="rgb", tensors=(*fused, *rgb)),
                    Group(name="flow", tensors=flow, lr_factor=FLOW_SHARE),
                    *ego_rnn_plan.bias_of_evidence(whole, "rgb."),
                ),
                evaluated=("rgb.net", *FROZEN_FLOW),
                starts_from=(("ego-rnn", "2"), ("flow-resnet34", "")),
                settings=SETTINGS,
            ),
        ),
    )


def _cam(fuse: str) -> Mapping[str, str]:
    """None of the mean of probabilities: what this fusion gives is no logit of a class but its log probability."""
    if fuse == "average":
        return {}
    return {"frames": f"rgb.{ego_rnn_plan.CAM}", flow_resnet34_plan.FLOW: f"flow.{flow_resnet34_plan.CAM}"}
