"""Backbone `colours`: how often each of 4 x 4 x 4 (`colours:8`: 8 x 8 x 8) colours occurs in a frame; no weights.

Colour Indexing, Swain and Ballard 1991, doi 10.1007/BF00130487.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.backbones import (
    Backbone,
    BackboneInfo,
    BackboneRow,
    BuildOptions,
    Definition,
    Described,
    Preprocess,
    TapSpec,
)

ROW = BackboneRow(
    target="reelbank_example.colours:define",
    summary="shares of 64 colours in a frame (`:8`: 512 colours); no weights",
    variants=("8",),
    libraries=(),
)


def define(family: str, variant: str) -> Definition:
    """The histogram with as many levels per channel as `variant` says, 4 without one."""
    levels = int(variant or 4)
    tap = TapSpec(name="histogram", dtype="float32", axes=("colour",), shape=(levels**3,))
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps={tap.name: tap},
        default_taps=(tap.name,),
        preprocess=Preprocess(short_side_px=64, interpolation="bilinear", crop_px=64),
    )
    return Definition(info=info, make=functools.partial(_make, info, levels))


def _make(info: BackboneInfo, levels: int, options: BuildOptions) -> Backbone:
    return _Histogram(info=info, levels=levels)


@dataclass(frozen=True, kw_only=True)
class _Histogram(Described):
    levels: int
    module: None = None
    device: str = "cpu"

    @property
    def weights(self) -> dict[str, Any]:
        return {"kind": "none"}

    def forward(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Shares of each colour in frames (B, H, W, 3) uint8."""
        wanted = self.wanted_taps(frames, taps)
        level = frames.astype(np.int64) * self.levels // 256
        number = (level[..., 0] * self.levels + level[..., 1]) * self.levels + level[..., 2]  # (B, H, W)
        counts = [np.bincount(one.ravel(), minlength=self.levels**3) for one in number]
        shares = (np.stack(counts) / number[0].size).astype(np.float32)
        return {tap: self.checked(tap, shares, len(frames)) for tap in wanted}
