"""Motion segmentation: which pixels move, told from one frame's maps, as a second task beside the classes.

Joint Encoding of Appearance and Motion Features with Self-supervision for First Person Action Recognition, Planamente,
Bottino and Caputo 2020, arXiv:2002.03982. Sizes, losses and the regression beside the binary task: SYSTEMS.md 2.6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KINDS = ("binary", "regression")
TARGETS = ("bw", "gray")
SIZES = (7, 14, 28)
"""Pixels along a side of the maps that conv5, conv4 and conv3 of a ResNet give."""

CHANNELS = 100
_GRID = 28


class MotionHead(nn.Module):
    """Per frame: ReLU, a 1x1 convolution to 100 channels, then a dense layer over the whole map.

    (N, C, s, s) -> logits (N, 2, s, s), class 1 moves (`binary`), or values (N, s, s), linear (`regression`).
    """

    def __init__(self, channels: int, size: int, kind: str, pixelwise: bool = False) -> None:
        """Weights are Xavier-normal, biases zero.

        Args:
            channels: C of the maps it reads.
            size: s, pixels along a side.
            kind: one of KINDS.
            pixelwise: a second 1x1 convolution instead of the dense layer, which has 123 million parameters at 28x28.

        Raises:
            ValueError: another kind.
        """
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"motion head {kind!r} is not one of {', '.join(KINDS)}")
        self.size, self.kind = size, kind
        values = 2 if kind == "binary" else 1
        pixels = size * size
        self.reduce = nn.Conv2d(channels, CHANNELS, kernel_size=1)
        self.predict = (
            nn.Conv2d(CHANNELS, values, kernel_size=1)
            if pixelwise
            else nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * pixels, values * pixels))
        )
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_normal_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (N, C, s, s) -> (N, 2, s, s) or (N, s, s). Raises ValueError for maps of another size."""
        if features.shape[-2:] != (self.size, self.size):
            raise ValueError(f"{features.shape = }, expected (N, C, {self.size}, {self.size})")
        values: Tensor = self.predict(self.reduce(features.relu()))
        count = len(features)
        if self.kind == "binary":
            return values.reshape(count, 2, self.size, self.size)
        return values.reshape(count, self.size, self.size)


def pixel_cross_entropy(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy in nats of each clip: summed over pixels, mean over the clip's valid maps.

    With L the mean of these over the clips, clips of equal length T give L = 1/(B T) sum over b, t, j, the loss as it
    is published. Of clips of different lengths each clip counts the same there, not each map: a map of a short clip
    weighs more. To weigh maps alike, take the mean with each clip's number of valid maps as its weight.

    Args:
        logits: (B, T, 2, s, s), class 1 moves.
        target: (B, T, s, s) in [0, 1], the probability that a pixel moves; a bitmap has 0 and 1.
        mask: (B, T) bool, which maps are valid.

    Returns:
        (B,); 0 for a clip without valid maps.
    """
    still, moving = logits.log_softmax(dim=2).unbind(dim=2)  # each (B, T, s, s)
    return _mean_over_maps(-(target * moving + (1 - target) * still), mask)


def pixel_squared_error(values: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error of each clip: summed over pixels, mean over the clip's valid maps.

    What the mean over clips is, see `pixel_cross_entropy`.

    Args:
        values: (B, T, s, s).
        target: (B, T, s, s) in [0, 1].
        mask: (B, T) bool, which maps are valid.

    Returns:
        (B,); 0 for a clip without valid maps.
    """
    return _mean_over_maps((values - target).square(), mask)


def _mean_over_maps(losses: Tensor, mask: Tensor) -> Tensor:
    """(B, T, s, s), (B, T) -> (B,)."""
    if losses.shape[:2] != mask.shape:
        raise ValueError(f"{mask.shape = }, expected (B, T) = {tuple(losses.shape[:2])}")
    per_map = losses.sum(dim=(2, 3)).masked_fill(~mask, 0)
    return per_map.sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def motion_target(stored: Tensor, size: int, kind: str) -> Tensor:
    """What the head is to predict, from taps of the backbone `motion-map`.

    Args:
        stored: for `gray` the tap `grid28` (..., 28, 28) in [0, 1]; for `bw` the tap `bits<size>` (..., size, size)
            of bool.
        size: one of SIZES.
        kind: `gray`, the part of each block that moves, or `bw`, one pixel of it.

    Returns:
        (..., size, size) float32 (float64 from float64) in [0, 1]. Coarser grids are the exact means of the 2x2 or 4x4
        blocks of the finest.

    Raises:
        ValueError: another size, kind, shape or dtype.
    """
    if size not in SIZES:
        raise ValueError(f"{size = } is not one of {', '.join(map(str, SIZES))}")
    if kind not in TARGETS:
        raise ValueError(f"motion target {kind!r} is not one of {', '.join(TARGETS)}")
    is_bitmap = kind == "bw"
    side = size if is_bitmap else _GRID
    if stored.shape[-2:] != (side, side) or (stored.dtype == torch.bool) != is_bitmap:
        tap, wanted = (f"bits{size}", "bool") if is_bitmap else ("grid28", "floats")
        raise ValueError(
            f"{stored.shape = } of {stored.dtype}, expected (..., {side}, {side}) of {wanted} for {kind!r}; "
            f"read the tap {tap!r} of motion-map"
        )
    if is_bitmap:
        return stored.float()
    # What heads give is in float32, in which sums of 64ths are exact.
    values = stored.to(torch.promote_types(stored.dtype, torch.float32))
    block = _GRID // size
    return values.reshape(*stored.shape[:-2], size, block, size, block).mean(dim=(-3, -1))
