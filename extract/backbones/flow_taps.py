"""The taps that every flow backbone has, made from fields of displacements (B, 2, H, W) in px.

`flow` (2, 224, 224) float16: dx (right is positive), then dy (down is positive), in px per native frame.

`flow-8bit` (2, 224, 224) uint8: the same in the convention of published flow images: cut at 20 px,
`round(255 * (v + 20) / 40)`, ties to even (Temporal Segment Networks, Wang et al. 2016, arXiv:1608.00859, whose
extraction tool others followed). Still is 128; mirroring the picture turns x images into 255 - x.
Read back as `(byte - 128) * 40 / 255`, so that still pixels are exactly still: at most 20 / 127.5 px off.

`hof` (200,), float16: a 4x4 grid of cells row by row, 12 values each, then 8 values of the whole frame.
  0..7   mean over the cell's pixels of the magnitude that points right, right-down, down, left-down, left,
         left-up, up, right-up; a direction in between is shared by its two neighbours;
  8      share of still pixels (magnitude below 0.25 px), the zero-motion bin;
  9..11  mean dx, mean dy, mean magnitude;
  192..  share of pixels with a magnitude in [0, .25), [.25, .5), [.5, 1), [1, 2), [2, 4), [4, 8), [8, 16), [16, inf).
Histograms of oriented flow: Learning Realistic Human Actions from Movies, Laptev et al. 2008; the magnitude
weights and shared bins: Human Detection Using Oriented Histograms of Flow and Appearance, Dalal et al. 2006.
Deviation from both: the histograms are not normalised per block, because speed itself is a cue.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.backbones.description import Described, taps_by_name, vector_tap
from reelbank.store.spec import TapSpec

SIZE_PX = 224
BOUND_PX = 20.0
"""Displacement that the ends of the 8-bit scale stand for."""
STILL = 128
"""The 8-bit level that is read as no motion."""
LEVELS_PER_PX = 255 / (2 * BOUND_PX)

_CELLS, _ORIENTATIONS, _CELL_VALUES = 4, 8, 12
_STILL_PX = 0.25
_MAGNITUDE_EDGES_PX = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_HOF_SIZE = _CELLS * _CELLS * _CELL_VALUES + len(_MAGNITUDE_EDGES_PX) + 1

Field = npt.NDArray[np.float32]


def field_tap() -> TapSpec:
    """Displacements in px as float16; noise fills their last bits: zstd-1 left 0.82 to 0.92 of the same clip."""
    return TapSpec(name="flow", dtype="float16", axes=("component", "height", "width"), shape=(2, SIZE_PX, SIZE_PX))


def image_tap(height_px: int = SIZE_PX, width_px: int = SIZE_PX) -> TapSpec:
    """Flow as gray images; they are smooth: zstd-1 left 0.16 to 0.22 of those of a hand-held clip."""
    axes = ("component", "height", "width")
    return TapSpec(name="flow-8bit", dtype="uint8", axes=axes, shape=(2, height_px, width_px), codec="zstd-1")


def flow_taps() -> dict[str, TapSpec]:
    """`hof`, `flow` and `flow-8bit`."""
    return taps_by_name(vector_tap("hof", _HOF_SIZE), field_tap(), image_tap())


def features(backbone: Described, fields: Field, wanted: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Those of the taps of `flow_taps` that are wanted, of fields (B, 2, H, W)."""
    values: dict[str, npt.NDArray[Any]] = {}
    if "flow" in wanted:
        values["flow"] = fields.astype(np.float16)
    if "flow-8bit" in wanted:
        values["flow-8bit"] = encode_8bit(fields)
    if "hof" in wanted:
        values["hof"] = np.array([histograms(field) for field in fields], np.float16).reshape(-1, _HOF_SIZE)
    return {tap: backbone.checked(tap, values[tap], len(fields)) for tap in wanted if tap in values}


def bounded(field: npt.NDArray[Any]) -> Field:
    """The field with no displacement longer than the image per axis: untextured regions may diverge."""
    return np.asarray(np.clip(np.nan_to_num(field), -SIZE_PX, SIZE_PX), np.float32)


def encode_8bit(field: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Displacements in px to gray levels, any shape; see the module's docstring."""
    cut = np.clip(field.astype(np.float64), -BOUND_PX, BOUND_PX)
    return np.rint((cut + BOUND_PX) * LEVELS_PER_PX).astype(np.uint8)


def decode_8bit(images: npt.NDArray[np.uint8]) -> Field:
    """Gray levels to displacements in px, any shape; 128 is 0."""
    return (images.astype(np.float32) - STILL) / np.float32(LEVELS_PER_PX)


def histograms(field: Field) -> npt.NDArray[np.float32]:
    """The `hof` vector (200,) of one flow field (2, H, W) in pixels; layout in the module's docstring."""
    dx, dy = field.astype(np.float64)
    magnitude = np.hypot(dx, dy)
    cell = _cell_index(*magnitude.shape)
    num_cells = _CELLS * _CELLS
    pixels = np.bincount(cell, minlength=num_cells)

    # Still pixels vote in no direction: the direction of noise says nothing.
    moving = np.where(magnitude < _STILL_PX, 0.0, magnitude)
    position = np.arctan2(dy, dx) * (_ORIENTATIONS / (2 * np.pi))  # 0 is right, 2 is down
    low = np.floor(position)
    share = position - low
    first = low.astype(np.int64) % _ORIENTATIONS
    bins = np.zeros(num_cells * _ORIENTATIONS)
    for index, weight in ((first, moving * (1 - share)), ((first + 1) % _ORIENTATIONS, moving * share)):
        bins += np.bincount(cell * _ORIENTATIONS + index.ravel(), weight.ravel(), minlength=len(bins))

    per_cell = [dx, dy, magnitude]
    means = [np.bincount(cell, values.ravel(), minlength=num_cells) / pixels for values in per_cell]
    still = np.bincount(cell, (magnitude < _STILL_PX).ravel(), minlength=num_cells) / pixels
    cells = np.column_stack([bins.reshape(num_cells, _ORIENTATIONS) / pixels[:, None], still, *means])
    speeds = np.bincount(
        np.searchsorted(_MAGNITUDE_EDGES_PX, magnitude.ravel(), side="right"),
        minlength=len(_MAGNITUDE_EDGES_PX) + 1,
    )
    return np.concatenate([cells.ravel(), speeds / magnitude.size]).astype(np.float32)


@functools.cache
def _cell_index(height: int, width: int) -> npt.NDArray[np.int64]:
    """Index of the grid cell of every pixel, raveled (H * W,)."""
    rows, columns = np.arange(height) * _CELLS // height, np.arange(width) * _CELLS // width
    return (rows[:, None] * _CELLS + columns[None, :]).ravel()
