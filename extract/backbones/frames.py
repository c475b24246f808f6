"""The frames themselves: for systems that train the whole network, and for a look at the input.

Tap `rgb` uint8, channels last as decoders and pictures have it; seen as (3, H, W) it is torch's channels-last
memory format, which convolutions prefer.

`frames`            (224, 224, 3): short side 256, centre crop.
`frames:112`        (112, 112, 3): short side 112, so that the crop is the whole height of a landscape video.
`frames:256`        (256, 341, 3): short side 256, centre-cropped or zero-padded; one copy serves random crops. Where
                    the frame lies in it is `preprocess.valid_box`: an upright video fills less than the width.
`frames:squash224`  (224, 224, 3): the whole frame, squashed to a square as `flow` squashes it, so that a pixel of
                    the picture and one of the field are the same place.
`frames:squash112`  (112, 112, 3): the same, half as large.
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
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.store.spec import TapSpec

_PREPROCESS = {
    "": Preprocess(short_side_px=256, interpolation="bilinear", crop_px=224),
    "112": Preprocess(short_side_px=112, interpolation="bilinear", crop_px=112),
    "256": Preprocess(short_side_px=256, interpolation="bilinear", crop_px=(256, 341)),
    "squash112": Preprocess(squash_px=112, interpolation="bilinear"),
    "squash224": Preprocess(squash_px=224, interpolation="bilinear"),
}


def define(family: str, variant: str) -> Definition:
    """Frames of the size that `variant` names."""
    preprocess = _PREPROCESS[variant]
    height_px, width_px = preprocess.crop_size or preprocess.squash_size or (0, 0)
    rgb = TapSpec(name="rgb", dtype="uint8", axes=("height", "width", "channel"), shape=(height_px, width_px, 3))
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps=taps_by_name(rgb),
        default_taps=("rgb",),
        preprocess=preprocess,
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
