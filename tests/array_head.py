"""A small head on maps, with stages and a loss beside, as a plug-in: `array_head:ROW`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from reelbank.heads.models import HeadRow, HeadShape
from reelbank.heads.models.plans import Auxiliary, Group, HeadPlan, Input, Stage

MAPS = Input(name="maps", about="maps", taps=(("*", "maps"), ("frames*", "rgb")), values="pixels")
MOVING = Input(name="moving", about="what moves", taps=(("*", "moving"),), values="target")
STACKS = Input(name="stacks", about="stacks", taps=(("*", "fields"),), values="gray", stack_steps=5)


class Head(nn.Module):
    """Convolution and batch norm, mean over steps and places, dropout, a linear layer."""

    def __init__(self, shape: HeadShape, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.name = "stacks" if options["stacks"] else "maps"
        channels = shape.arrays[self.name].shape[0]
        self.net = nn.Sequential(nn.Conv2d(channels, 6, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.dropout = nn.Dropout(0.1)
        self.classifiers = nn.ModuleDict({name: nn.Linear(6, size) for name, size in shape.outputs.items()})
        self.motion = nn.Conv2d(6, 1, 1) if options["motion"] else None

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values, mask = arrays[self.name], masks[self.name]
        maps = self.net(values.flatten(0, 1)).unflatten(0, values.shape[:2])  # (B, T, 6, H, W)
        weights = mask.unsqueeze(-1).float()
        vector = (maps.mean(dim=(3, 4)) * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        given = {name: linear(self.dropout(vector)) for name, linear in self.classifiers.items()}
        if self.training and self.motion is not None:
            given["motion"] = self.motion(maps.flatten(0, 1)).unflatten(0, values.shape[:2]).squeeze(2)
        return given

    def attention(self, frames: Tensor, mask: Tensor) -> Tensor:
        """The mean over channels of each place (B, T, H, W)."""
        return frames.mean(dim=2)


def squared(values: Tensor, target: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, T, H, W), target, mask (B, T) -> (B,)."""
    assert target is not None and mask is not None
    error = (values - target).square().sum(dim=(2, 3)) * mask
    return error.sum(dim=1) / mask.sum(dim=1)


def plan(options: Mapping[str, Any]) -> HeadPlan:
    first = STACKS if options["stacks"] else MAPS
    settings = {"epochs": 3, "lr": 0.02, "batch": 8, "weight_decay": 0.1, "keep": "best-accuracy"}
    head, conv = Group(name="head", tensors=("classifiers.*",)), Group(name="conv", tensors=("net.*",), lr_factor=0.1)
    motion = (Group(name="motion", tensors=("motion.*",), weight_decay=0.0),) if options["motion"] else ()
    return HeadPlan(
        inputs=(first, MOVING) if options["motion"] else (first,),
        cam={first.name: "net"},
        auxiliary=(Auxiliary(name="motion", loss="array_head:squared", target="moving"),) if options["motion"] else (),
        stages=(
            Stage(name="1", groups=(head, *motion), evaluated=("net",), settings=settings),
            Stage(
                name="2",
                groups=(head, conv, *motion),
                starts_from=(("array_head:ROW", "1"),),
                settings={**settings, "lr": 0.01},
            ),
        ),
    )


def plan_without_cam(options: Mapping[str, Any]) -> HeadPlan:
    return replace(plan(options), cam={})


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    return Head(shape, options)


ROW = HeadRow(
    target="array_head:build",
    plan="array_head:plan",
    summary="maps",
    options={"motion": False, "stacks": False},
)
WITHOUT_CAM = replace(ROW, plan="array_head:plan_without_cam")
