"""Three small CNNs per frame with an LSTM over them, trained from scratch on stored frames (SYSTEMS.md 3.5).

Frames are uint8 over 255 and of any size: the CNN ends in a global pool. Its output per frame goes through an LSTM of
256, whose output at the last frame, with dropout, is what a linear layer per output reads. Layers of the CNN have the
numbers that they were published with (`cnn.0`, `cnn.1`, `cnn.4`, ...).

Options:
    net: 1, three times convolution, ReLU and max-pool; 2, convolution, batch norm, LeakyReLU and max-pool; 3, the first
        three of these twice, max-pool and dropout.
    width: channels of the last convolutions; the blocks have a quarter, a half and all of it.
    dropout: on the LSTM's output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reelbank.heads.models import HeadShape
from reelbank.heads.models.cnn_lstm_plan import FRAMES
from reelbank.heads.models.layers.each_step import each_step
from reelbank.heads.models.lstm import at_last_step

HIDDEN = 256
BLOCK_DROPOUT = 0.3
SLOPE = 0.01
"""Of LeakyReLU; the publication says none, torch's default."""


class CNNLSTM(nn.Module):
    """The network; see the module."""

    def __init__(self, shape: HeadShape, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.cnn = cnn(options["net"], options["width"])
        self.lstm = nn.LSTM(options["width"], HIDDEN, batch_first=True)
        self.dropout = nn.Dropout(options["dropout"])
        self.classifiers = nn.ModuleDict({name: nn.Linear(HIDDEN, size) for name, size in shape.outputs.items()})

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{frames: (B, T, 3, H, W)}, {frames: mask (B, T)} -> {output: (B, K)}."""
        mask = masks[FRAMES]
        vectors = each_step(self.cnn, arrays[FRAMES], mask, training=self.training).flatten(2)  # (B, T, C)
        outputs, _ = self.lstm(vectors)
        last = self.dropout(at_last_step(outputs, mask))
        return {name: linear(last) for name, linear in self.classifiers.items()}


def cnn(net: int, width: int) -> nn.Sequential:
    """(B, 3, H, W) -> (B, width, 1, 1), of at least 8 x 8 px."""
    layers: list[nn.Module] = []
    before = 3
    for channels in (width // 4, width // 2, width):
        for _ in range(2 if net == 3 else 1):
            layers.append(nn.Conv2d(before, channels, kernel_size=3, padding=1))
            if net == 1:
                layers.append(nn.ReLU(inplace=True))
            else:
                layers += [nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE, inplace=True)]
            before = channels
        layers.append(nn.MaxPool2d(2))
        if net == 3:
            layers.append(nn.Dropout(BLOCK_DROPOUT))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return CNNLSTM(shape, options)
