"""OpticalFlowNet: two convolutions and two linear layers on eight flow fields (SYSTEMS.md 5.4).

Fields between the first nine frames are 16 channels, x0, y0, x1, y1, ..., in px of the 224 x 224 picture. As it was
published the dropout of 0.1 acts on the logits. It is trained from scratch.

Options:
    clip: px that displacements are cut at; 0: they are read as they are, as published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reelbank.extract.backbones.flow_trunk import MAPS, FlowTrunk
from reelbank.heads.models import HeadShape
from reelbank.heads.models.flow_net_plan import FLOW

WIDTH = 256
DROPOUT = 0.1


class FlowNet(nn.Module):
    """The network; see the module."""

    def __init__(self, shape: HeadShape, clip_px: float) -> None:
        super().__init__()
        self.net = FlowTrunk(shape.arrays[FLOW].shape[0], clip_px or math.inf)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(math.prod(MAPS), WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.classifiers = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in shape.outputs.items()})
        self.dropout = nn.Dropout(DROPOUT)
        self.softmax = nn.Softmax(dim=1)

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{flow: (B, 1, 16, 224, 224)} -> {output: (B, K)}."""
        hidden = self.relu(self.fc1(self.flatten(self.net(arrays[FLOW][:, 0]))))
        return {name: self.dropout(linear(hidden)) for name, linear in self.classifiers.items()}

    def probabilities(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `forward`, with the softmax that the published network ends in."""
        return {name: self.softmax(logits) for name, logits in self(arrays, masks).items()}


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return FlowNet(shape, options["clip"])
