"""The cropped frames themselves: for systems that train the whole network, and for a look at the input.

Tap `rgb` (224, 224, 3) uint8, channels last as decoders and pictures have it; seen as (3, 224, 224) it is
torch's channels-last memory format, which convolutions prefer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneInfo,
    BuildOptions,
    Definition,
    Described,
    taps_by_name,
)
from reelbank.extract.preprocess import Preprocess
from reelbank.store.spec import TapSpec

_SIZE_PX = 224


def define(family: str, variant: str) -> Definition:
    """Frames of 224 px."""
    rgb = TapSpec(name="rgb", dtype="uint8", axes=("height", "width", "channel"), shape=(_SIZE_PX, _SIZE_PX, 3))
    info = BackboneInfo(
        name=family,
        taps=taps_by_name(rgb),
        default_taps=("rgb",),
        preprocess=Preprocess(short_side_px=256, interpolation="bilinear", crop_px=_SIZE_PX),
    )
    return Definition(info=info, make=functools.partial(_make, info))


def _make(info: BackboneInfo, options: BuildOptions) -> Backbone:
    return _Frames(info=info)


@dataclass(frozen=True, kw_only=True)
class _Frames(Described):
    module: None = None
    device: str = "cpu"

    @property
    def weights(self) -> dict[str, Any]:
        return {"kind": "none"}

    def forward(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """The frames (B, H, W, 3) uint8, copied: the caller may reuse its batch."""
        return {tap: self.checked(tap, frames.copy(), len(frames)) for tap in self.wanted_taps(frames, taps)}
