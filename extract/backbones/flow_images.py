"""Flow that was computed before: pairs of gray images, x then y, as published data sets ship it.

`flow:images` crops 224x224 as evaluation does (short side 256, centre). Taps: `flow-8bit` (2, 224, 224) uint8, the
images themselves; `flow` (2, 224, 224) float16, the same read as px with 128 = 0 and bound 20 (`flow_taps`).
`flow:images-256` keeps what random crops need: tap `flow-8bit` (2, 256, 341), short side 256, centre-cropped or
zero-padded to 341; a store's `frame_box` says which part holds image.

Resizing changes where a displacement stands, not its value: px are those of the images as they were made, which is
how published training code reads them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.backbones import flow_taps
from reelbank.extract.backbones.description import (
    Backbone,
    BackboneInfo,
    BuildOptions,
    Definition,
    Described,
    taps_by_name,
)
from reelbank.extract.inputs.preprocess import Preprocess

_SHORT_SIDE_PX = 256
_WIDE_PX = 341


def define(family: str, variant: str) -> Definition:
    """`images` or `images-256`."""
    wide = variant == "images-256"
    size = (_SHORT_SIDE_PX, _WIDE_PX) if wide else (flow_taps.SIZE_PX, flow_taps.SIZE_PX)
    taps = (flow_taps.image_tap(*size),) if wide else (flow_taps.image_tap(), flow_taps.field_tap())
    info = BackboneInfo(
        name=f"{family}:{variant}",
        taps=taps_by_name(*taps),
        default_taps=("flow-8bit",),
        preprocess=Preprocess(short_side_px=_SHORT_SIDE_PX, interpolation="bilinear", crop_px=size, color="gray"),
        source="flow",
        payload_shape=(2, *size),
    )
    return Definition(info=info, make=functools.partial(_make, info))


def _make(info: BackboneInfo, options: BuildOptions) -> Backbone:
    return _FlowImages(info=info)


@dataclass(frozen=True, kw_only=True)
class _FlowImages(Described):
    module: None = None
    device: str = "cpu"

    @property
    def weights(self) -> dict[str, Any]:
        return {"kind": "none", "source": f"flow images, 128 = 0, bound {flow_taps.BOUND_PX:g} px"}

    def forward(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """The images (B, 2, H, W) uint8, copied: the caller may reuse its batch."""
        wanted = self.wanted_taps(frames, taps)
        values: dict[str, npt.NDArray[Any]] = {}
        for tap in wanted:
            value = frames.copy() if tap == "flow-8bit" else flow_taps.decode_8bit(frames).astype(np.float16)
            values[tap] = self.checked(tap, value, len(frames))
        return values
