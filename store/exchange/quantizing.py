"""Features as int8, one scale and offset per channel: half the bytes of float16, with a loss that is measured.

x is stored as q = round((x - offset) / scale), -127 <= q <= 127, and read as q * scale + offset. Per channel, offset is
the middle of its range over the whole store and scale a 254th of it. The range and not the greatest magnitude, because
features after a ReLU have one sign: half of a symmetric range would stay unused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.spec import TapSpec

LEVELS = 254


@dataclass(frozen=True, kw_only=True)
class Channels:
    """How the channels of a tap are written. A channel is an index of the axis `channel`, else of the first axis.

    Attributes:
        scale, offset: (C,) float32.
        axis: which axis of one step (*axes) the channels are.
    """

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    axis: int

    def encode(self, features: NDArray[Any]) -> NDArray[np.int8]:
        """(n, *axes) of any float dtype -> int8."""
        scale, offset = self._along(features.ndim)
        levels = np.rint((features.astype(np.float32) - offset) / scale)
        result: NDArray[np.int8] = np.clip(levels, -127, 127).astype(np.int8)
        return result

    def decode(self, levels: NDArray[np.int8]) -> NDArray[np.float32]:
        """The features (n, *axes) float32 that `levels` stand for."""
        scale, offset = self._along(levels.ndim)
        return levels.astype(np.float32) * scale + offset

    def _along(self, dimensions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        shape = [1] * dimensions
        shape[1 + self.axis] = len(self.scale)
        return self.scale.reshape(shape), self.offset.reshape(shape)


def channel_axis(tap: TapSpec) -> int:
    """Which axis of one step holds the channels. Raises StoreError for a tap that int8 cannot hold."""
    if not tap.dtype.startswith("float") or not tap.shape:
        raise StoreError(f"tap {tap.name!r} is {tap.shape} {tap.dtype} per step; int8 per channel is for float taps")
    return tap.axes.index("channel") if "channel" in tap.axes else 0


def fit_channels(tap: TapSpec, blocks: Iterable[NDArray[Any]]) -> Channels:
    """Scale and offset from the range of every channel over `blocks` (n, *axes)."""
    axis = channel_axis(tap)
    low = np.full(tap.shape[axis], np.inf, dtype=np.float32)
    high = -low
    others = tuple(i for i in range(1 + len(tap.shape)) if i != 1 + axis)
    for block in blocks:
        if len(block):
            low = np.minimum(low, block.min(axis=others).astype(np.float32))
            high = np.maximum(high, block.max(axis=others).astype(np.float32))
    low, high = (np.where(np.isfinite(low), edge, 0).astype(np.float32) for edge in (low, high))
    spread = (high - low) / LEVELS
    # A channel that never changes is its offset; any scale above 0 keeps it.
    scale = np.where(spread > 0, spread, 1).astype(np.float32)
    return Channels(scale=scale, offset=((high + low) / 2).astype(np.float32), axis=axis)
