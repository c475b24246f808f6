"""ResNet-34 on stacks of five flow fields, the motion stream of two-stream networks (SYSTEMS.md 2.4).

Two-Stream Convolutional Networks for Action Recognition in Videos, Simonyan and Zisserman 2014, arXiv:1406.2199, as the
public implementation of Ego-RNN has it: x1, y1, ..., x5, y5 of consecutive frames, the stem's weights the mean over
RGB, dropout 0.5, one linear layer per output. All of it is trained, so it reads the fields themselves.

Options:
    weights: of the backbone `flow-resnet34` that it begins with: `pretrained`, `random` or a file.
    segments: at how many starts a clip is evaluated, whose logits are averaged; 1: in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reelbank.extract.backbones import resnet
from reelbank.heads.models import HeadShape
from reelbank.heads.models.ego_rnn import BEFORE
from reelbank.heads.models.flow_resnet34_plan import FLOW, STACK

WIDTH = 512
DROPOUT = 0.5


class FlowResNet34(nn.Module):
    """The network from the stack of fields, or from the maps that the tap `layer3` of it holds."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.entry = "layer3" if shape.arrays[FLOW].tap == "layer3" else "flow"
        self.net = _network(self.entry)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifiers = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in shape.outputs.items()})

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{flow: (B, 1, 10, 224, 224)} -> {output: (B, K)}."""
        vector = self.dropout(self.vector(arrays))
        return {name: linear(vector) for name, linear in self.classifiers.items()}

    def vector(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """What the classifier reads, before its dropout (B, 512)."""
        net, value = self.net, arrays[FLOW][:, 0]
        if self.entry == "flow":
            value = net.maxpool(net.relu(net.bn1(net.conv1(value))))
            value = net.layer3(net.layer2(net.layer1(value)))
        pooled: Tensor = net.layer4(value).mean(dim=(2, 3))
        return pooled


def _network(entry: str) -> Any:
    """ResNet-34 with ten input channels and no classifier, without what lies before `entry`."""
    net: Any = resnet.create("resnet34")
    net.conv1 = nn.Conv2d(2 * STACK, 64, kernel_size=7, stride=2, padding=3, bias=False)
    del net.fc
    if entry == "layer3":
        for name in BEFORE["layer3"]:
            delattr(net, name)
    return net


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return FlowResNet34(shape)
