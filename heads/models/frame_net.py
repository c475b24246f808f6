"""GoogLeNet on single frames, all of it trained, with a classifier of its own (SYSTEMS.md 5.2).

Going Deeper with Convolutions, Szegedy et al. 2014, arXiv:1409.4842, as torchvision has it (batch norm, no auxiliary
heads, inputs scaled by `transform_input`): the classifier of 1000 classes is replaced by one linear layer per output,
behind a dropout of 0.2. It is first trained on pictures, then, with --init-from, on frames of clips.

Options:
    position: which frame of a clip it reads: `first`, `front` (at a quarter), `middle`, `rear` (at three quarters),
        `last`; `all` reads these five, and their logits are averaged, in training too: the segmental consensus of
        Temporal Segment Networks, Wang et al. 2016, arXiv:1608.00859.
    weights: of GoogLeNet that it begins with: `pretrained`, `random` or a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reelbank.extract.backbones import googlenet
from reelbank.heads.models import HeadShape
from reelbank.heads.models.frame_net_plan import FRAMES
from reelbank.heads.models.layers.each_step import each_step
from reelbank.heads.models.pooled import masked_mean

WIDTH = 1024
DROPOUT = 0.2


class FrameNet(nn.Module):
    """The network; see the module."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.net = trunk()
        self.dropout = nn.Dropout(DROPOUT)
        self.classifiers = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in shape.outputs.items()})

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{frames: (B, T, 3, 224, 224)}, {frames: mask (B, T)} -> {output: (B, K)}, the mean over frames."""
        mask = masks[FRAMES]
        vectors = self.dropout(each_step(self._vector, arrays[FRAMES], mask, training=self.training))  # (B, T, 1024)
        return {name: masked_mean(linear(vectors), mask) for name, linear in self.classifiers.items()}

    def _vector(self, frames: Tensor) -> Tensor:
        return googlenet.rest(self.net, googlenet.last_maps(self.net, frames))


def trunk() -> Any:
    """GoogLeNet up to the average pool; its tensors mean nothing yet."""
    net: Any = googlenet.create()
    del net.fc, net.dropout
    return net


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return FrameNet(shape)
