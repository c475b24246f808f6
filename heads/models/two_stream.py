"""Frames and flow, fused in the middle: GoogLeNet and the convolutions of OpticalFlowNet under one classifier
(SYSTEMS.md 5.5).

Maps of both are reduced to 128 x 7 x 7 and put side by side; a 1x1 convolution mixes them (Convolutional Two-Stream
Network Fusion for Video Action Recognition, Feichtenhofer et al. 2016, arXiv:1604.06573), max-pool and two linear
layers follow. It starts from a run of `frame-net` and one of `flow-net`, whose classifiers are left aside.

Options: `position` and `weights` as of `frame-net` (of several frames the maps are averaged before the fusion, which
needs one), `clip` as of `flow-net`, and
    reduce_kernel: of the convolution that reduces GoogLeNet's maps: 1, as the publication's text and its total have it,
        or 3, as the table of this branch there.
    frozen_trunks: it reads stored maps, `inception5b` of GoogLeNet and `pool2` of the backbone `flow-net`, both made
        with the weights of the runs that it starts from, in the place of frames and fields, and has the stage `frozen`
        alone: the reductions, the fusion and the classifier are trained. The same stage also reads frames and fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reelbank.extract.backbones import googlenet
from reelbank.extract.backbones.flow_trunk import MAPS, FlowTrunk
from reelbank.heads.models import HeadShape
from reelbank.heads.models.flow_net_plan import FLOW
from reelbank.heads.models.frame_net import WIDTH, trunk
from reelbank.heads.models.frame_net_plan import FRAMES
from reelbank.heads.models.layers.each_step import each_step
from reelbank.heads.models.pooled import masked_mean

REDUCED = 128
FUSED_PLACES = 9
"""Of 7 x 7 after the last pool."""
HIDDEN = 64


class FrameBranch(nn.Module):
    """Frames (B, T, 3, 224, 224), or maps (B, T, 1024, 7, 7) that a store holds -> (B, 128, 7, 7)."""

    def __init__(self, *, reads_maps: bool, kernel: int) -> None:
        super().__init__()
        self.reads_maps = reads_maps
        self.net = nn.Module() if reads_maps else trunk()
        if not reads_maps:
            del self.net.avgpool
        self.reduce = nn.Conv2d(WIDTH, REDUCED, kernel_size=kernel, padding=kernel // 2)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """See the class; the mean over the valid steps."""
        maps = frames
        if not self.reads_maps:
            # Batch norm that stays in evaluation sees padding without harm.
            training = self.net.training
            maps = each_step(lambda one: googlenet.last_maps(self.net, one), frames, mask, training=training)
        mean = masked_mean(maps.flatten(2), mask).reshape(len(mask), *maps.shape[2:])
        reduced: Tensor = self.reduce(mean)
        return reduced


class FlowBranch(nn.Module):
    """Fields (B, 16, 224, 224), or maps (B, 64, 56, 56) that a store holds -> (B, 128, 7, 7)."""

    def __init__(self, *, reads_maps: bool, channels: int, clip_px: float) -> None:
        super().__init__()
        self.reads_maps = reads_maps
        self.net = nn.Module() if reads_maps else FlowTrunk(channels, clip_px)
        self.conv3 = nn.Conv2d(MAPS[0], REDUCED, kernel_size=2, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=4)

    def forward(self, fields: Tensor) -> Tensor:
        """See the class."""
        maps = fields if self.reads_maps else self.net(fields)
        reduced: Tensor = self.pool(self.relu(self.conv3(maps)))
        return reduced


class TwoStream(nn.Module):
    """Both branches and what follows; see the module."""

    def __init__(self, shape: HeadShape, options: Mapping[str, Any]) -> None:
        super().__init__()
        fields, is_frozen = shape.arrays[FLOW], options["frozen_trunks"]
        self.frame = FrameBranch(reads_maps=is_frozen, kernel=options["reduce_kernel"])
        self.flow = FlowBranch(reads_maps=is_frozen, channels=fields.shape[0], clip_px=options["clip"] or math.inf)
        self.fuse = nn.Conv2d(2 * REDUCED, 2 * REDUCED, kernel_size=1)
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(2 * REDUCED * FUSED_PLACES, HIDDEN)
        self.classifiers = nn.ModuleDict({name: nn.Linear(HIDDEN, size) for name, size in shape.outputs.items()})

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{frames: (B, T, ...), flow: (B, 1, 16, 224, 224)}, {frames: mask (B, T)} -> {output: (B, K)}."""
        both = torch.cat([self.frame(arrays[FRAMES], masks[FRAMES]), self.flow(arrays[FLOW][:, 0])], dim=1)
        pooled = self.pool(F.relu(self.fuse(both)))  # not in place: the output of `fuse` is what Grad-CAM is taken of
        hidden = F.relu(self.fc1(self.flatten(pooled)))
        return {name: linear(hidden) for name, linear in self.classifiers.items()}


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return TwoStream(shape, options)
