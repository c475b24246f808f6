"""Which pixels move, the camera's own motion not counted, as the targets of motion segmentation.

`motion-map`: a pixel of the 224x224 frame moves if its flow of `warp_flow` is at least 1 px per native frame, below
which improved trajectories drop a point as camera motion (Wang and Schmid 2013). `motion-map:dis` takes DIS for
Farneback's flow. `motion-map:images` reads maps that were made before (gray images, white moves) after the
evaluation transform of the frames: short side 256 bilinear, centre crop 224; values are gray / 255.

Taps, of the 224x224 map with values in [0, 1]:
`grid28` (28, 28) float16: means of its 8x8 blocks; `gray_grid` makes the 14 and 7 grids of it. Exact for `motion-map`,
whose means are 64ths; gray maps are rounded to float16 (2.5e-4).
`bits7`, `bits14`, `bits28` (s, s) bool: pixel (floor(224 i / s), floor(224 j / s)) of the map is at least 0.5. One
stray pixel decides: that is what nearest-neighbour downsampling does.
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
from reelbank.extract.backbones.flow import GRAY_PAIR, METHODS, Estimate, estimator
from reelbank.extract.backbones.flow_taps import SIZE_PX
from reelbank.extract.backbones.warp_flow import CAMERA, compensated
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.store.spec import TapSpec

MOVING_PX = 1.0
SIZES = (7, 14, 28)

_GRID = 28


def define(family: str, variant: str) -> Definition:
    """Maps made from flow by the method that `variant` names, or `images`."""
    images = variant == "images"
    axes = ("height", "width")
    grid = TapSpec(name="grid28", dtype="float16", axes=axes, shape=(_GRID, _GRID), codec="zstd-1")
    bits = [TapSpec(name=f"bits{s}", dtype="bool", axes=axes, shape=(s, s), codec="zstd-1") for s in SIZES]
    crop = Preprocess(short_side_px=256, interpolation="bilinear", crop_px=SIZE_PX, color="gray")
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps=taps_by_name(grid, *bits),
        default_taps=("grid28", *(tap.name for tap in bits)),
        preprocess=crop if images else GRAY_PAIR,
        step_frames=(0,) if images else (0, 1),
        source="motion_maps" if images else "video",
    )
    return Definition(info=info, make=functools.partial(_make, info, variant))


def _make(info: BackboneInfo, variant: str, options: BuildOptions) -> Backbone:
    if variant == "images":
        return _MotionMap(info=info, source="motion map images", estimate=None)
    source = f"OpenCV {METHODS[variant]}; {CAMERA}; moving from {MOVING_PX:g} px"
    return _MotionMap(info=info, source=source, estimate=estimator(variant))


@dataclass(frozen=True, kw_only=True)
class _MotionMap(Described):
    """`estimate` is None where the frames are maps already."""

    source: str
    estimate: Estimate | None
    module: None = None
    device: str = "cpu"

    @property
    def weights(self) -> dict[str, Any]:
        return {"kind": "none", "source": self.source}

    def forward(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Motion maps of gray pairs (B, 2, H, W), or of maps (B, H, W), uint8."""
        wanted = self.wanted_taps(frames, taps)
        maps = self._maps(frames)
        values: dict[str, npt.NDArray[Any]] = {}
        for tap in wanted:
            size = self.taps[tap].shape[0]
            value = _block_means(maps, size).astype(np.float16) if tap == "grid28" else nearest_bits(maps, size)
            values[tap] = self.checked(tap, value, len(frames))
        return values

    def _maps(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, 224, 224) in [0, 1]."""
        if self.estimate is None:
            return np.asarray(frames / 255, np.float32)
        fields, _ = compensated(self.estimate, frames)
        return np.asarray(np.hypot(fields[:, 0], fields[:, 1]) >= MOVING_PX, np.float32)


def gray_grid(grid28: npt.NDArray[Any], size: int) -> npt.NDArray[np.float32]:
    """The gray target of another size, made of tap `grid28`: means of its 2x2 or 4x4 blocks.

    Args:
        grid28: (..., 28, 28).
        size: one of SIZES.

    Returns:
        (..., size, size) float32.

    Raises:
        ValueError: another shape or size.
    """
    if size not in SIZES:
        raise ValueError(f"{size = } is not one of {', '.join(map(str, SIZES))}")
    if grid28.shape[-2:] != (_GRID, _GRID):
        raise ValueError(f"{grid28.shape = }, expected (..., {_GRID}, {_GRID})")
    return _block_means(grid28, size)


def nearest_bits(maps: npt.NDArray[Any], size: int) -> npt.NDArray[np.bool_]:
    """Targets (..., size, size) of maps (..., H, W) with values in [0, 1]: nearest source pixel, at least 0.5."""
    height, width = maps.shape[-2:]
    rows, columns = (np.arange(size) * side // size for side in (height, width))
    return np.asarray(maps[..., rows[:, None], columns] >= 0.5)


def _block_means(maps: npt.NDArray[Any], size: int) -> npt.NDArray[np.float32]:
    """Means (..., size, size) of the equal blocks of maps (..., S, S), in float64: no order of summing shows."""
    side = maps.shape[-1] // size
    blocks = maps.astype(np.float64).reshape(*maps.shape[:-2], size, side, size, side)
    return np.asarray(blocks.mean(axis=(-3, -1)), np.float32)
