"""OpticalFlowNet: two convolutions and two linear layers on eight flow fields (SYSTEMS.md 5.4).

Fields between the first nine frames are 16 channels, x0, y0, x1, y1, ..., in px of the 224 x 224 picture. As it was
published the dropout of 0.1 acts on the logits. It is trained from scratch.

Options:
    clip: px that displacements are cut at; 0: they are read as they are, as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reelbank.heads.models import HeadShape
from reelbank.heads.models.flow_net_plan import FLOW, NAME
from reelbank.heads.models.frame_net import refuse_other_size

WIDTH = 256
DROPOUT = 0.1
MAPS = (64, 56, 56)
"""What the convolutions make of 224 px."""


class FlowTrunk(nn.Module):
    """The convolutions: fields (B, 16, 224, 224) -> (B, 64, 56, 56)."""

    def __init__(self, channels: int, clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, MAPS[0], kernel_size=3, padding=1)
        self.relu2 = nn.ReLU(inplace=True)
        self.pool2 = nn.MaxPool2d(2)

    def maps(self, fields: Tensor) -> Tensor:
        """What the second pool gives."""
        if self.clip:
            fields = fields.clamp(-self.clip, self.clip)
        found: Tensor = self.pool2(self.relu2(self.conv2(self.pool1(self.relu1(self.conv1(fields))))))
        return found


class FlowNet(FlowTrunk):
    """The whole network; see the module."""

    def __init__(self, shape: HeadShape, clip: float) -> None:
        refuse_other_size(NAME, shape.arrays[FLOW])
        super().__init__(shape.arrays[FLOW].shape[0], clip)
        channels, height, width = MAPS
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(channels * height * width, WIDTH)
        self.relu3 = nn.ReLU(inplace=True)
        self.classifiers = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in shape.outputs.items()})
        self.dropout = nn.Dropout(DROPOUT)
        self.softmax = nn.Softmax(dim=1)

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{flow: (B, 1, 16, 224, 224)} -> {output: (B, K)}."""
        hidden = self.relu3(self.fc1(self.flatten(self.maps(arrays[FLOW][:, 0]))))
        return {name: self.dropout(linear(hidden)) for name, linear in self.classifiers.items()}

    def probabilities(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `forward`, with the softmax that the published network ends in."""
        return {name: self.softmax(logits) for name, logits in self(arrays, masks).items()}


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return FlowNet(shape, options["clip"])
