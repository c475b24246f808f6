"""The network of `flow-net`: two convolutions, each with ReLU and max-pool, on eight flow fields."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from reelbank.extract.backbones.flow import estimator, field_of, one_opencv_thread
from reelbank.extract.backbones.network import Architecture

CHANNELS = 16
MAPS = (64, 56, 56)
"""What it makes of 224 px."""


class FlowTrunk(nn.Module):
    """Fields (B, 16, 224, 224) in px -> (B, 64, 56, 56).

    Its buffer `clip_px`, at which displacements are cut, is kept with its weights: whoever reads them cuts alike.
    """

    def __init__(self, channels: int = CHANNELS, clip_px: float = math.inf) -> None:
        super().__init__()
        self.register_buffer("clip_px", torch.tensor(clip_px))
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, MAPS[0], kernel_size=3, padding=1)
        self.relu2 = nn.ReLU(inplace=True)
        self.pool2 = nn.MaxPool2d(2)

    def forward(self, fields: Tensor) -> Tensor:
        """See the class."""
        bound: Tensor = self.get_buffer("clip_px")
        first = self.pool1(self.relu1(self.conv1(fields.clamp(-bound, bound))))
        maps: Tensor = self.pool2(self.relu2(self.conv2(first)))
        return maps


def fields_of(frames: Tensor) -> Tensor:
    """Gray frames (B, 9, H, W) uint8 -> the fields between them as channels (B, 16, H, W), as `flow` stores them."""
    pairs = frames.shape[1] - 1
    size = (len(frames), 2 * pairs, *frames.shape[2:])
    if frames.is_meta:
        return torch.empty(size, device=frames.device)
    estimate = estimator("")
    made = np.empty((len(frames), pairs, 2, *frames.shape[2:]), np.float16)
    with one_opencv_thread():
        for fields, clip in zip(made, frames.cpu().numpy(), strict=True):
            for place in range(pairs):
                fields[place] = field_of(estimate, clip[place], clip[place + 1])
    return torch.from_numpy(made.astype(np.float32)).view(size).to(frames.device)


ARCHITECTURE = Architecture(
    text="OpticalFlowNet, convolutions",
    create=FlowTrunk,
    convert=lambda state: state,
    run=lambda module, fields, taps: {"pool2": module(fields)},
    # Fields are in px, and networks divide by 255 first.
    mean=(0.0,),
    std=(1 / 255,),
    channels=fields_of,
)
