"""Optical flow of native frame pairs, and histograms of it that need no weights.

`flow`: Two-Frame Motion Estimation Based on Polynomial Expansion, Farnebäck 2003. `flow:dis`: Fast Optical
Flow using Dense Inverse Search, Kroeger et al. 2016, arXiv:1603.03590 (OpenCV's medium preset).
One step is the pair (i, i + 1); frames are gray, squashed to 224x224, so displacements are in pixels of
that square per native frame.

Taps: `flow` (2, 224, 224): dx (right is positive), then dy (down is positive). `hof` (200,), float16:
a 4x4 grid of cells row by row, 12 values each, then 8 values of the whole frame.
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
from collections.abc import Callable, Sequence
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
    vector_tap,
)
from reelbank.extract.preprocess import Preprocess
from reelbank.store.spec import TapSpec

_SIZE_PX = 224
_CELLS, _ORIENTATIONS, _CELL_VALUES = 4, 8, 12
_STILL_PX = 0.25
_MAGNITUDE_EDGES_PX = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_HOF_SIZE = _CELLS * _CELLS * _CELL_VALUES + len(_MAGNITUDE_EDGES_PX) + 1

_Gray = npt.NDArray[np.uint8]
_Field = npt.NDArray[np.float32]

_METHODS = {
    "": "Farneback pyr_scale=0.5 levels=3 winsize=15 iterations=3 poly_n=5 poly_sigma=1.2 flags=0",
    "dis": "DIS medium",
}


def define(family: str, variant: str) -> Definition:
    """Flow by the method that `variant` names."""
    field = TapSpec(name="flow", dtype="float16", axes=("component", "height", "width"), shape=(2, _SIZE_PX, _SIZE_PX))
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps=taps_by_name(vector_tap("hof", _HOF_SIZE), field),
        default_taps=("hof",),
        preprocess=Preprocess(squash_px=_SIZE_PX, interpolation="bilinear", color="gray"),
        step_frames=(0, 1),
    )
    return Definition(info=info, make=functools.partial(_make, info, variant))


def _make(info: BackboneInfo, variant: str, options: BuildOptions) -> Backbone:
    return _Flow(info=info, method=_METHODS[variant], estimate=_dis() if variant == "dis" else _farneback)


@dataclass(frozen=True, kw_only=True)
class _Flow(Described):
    method: str
    estimate: Callable[[_Gray, _Gray], _Field]
    module: None = None
    device: str = "cpu"

    @property
    def weights(self) -> dict[str, Any]:
        return {"kind": "none", "source": f"OpenCV {self.method}; hof 1"}

    def forward(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Flow of gray pairs (B, 2, H, W) uint8."""
        import cv2

        wanted = self.wanted_taps(frames, taps)
        num_threads = cv2.getNumThreads()
        # DIS cuts the image into as many stripes as there are threads, and its result depends on the cut.
        cv2.setNumThreads(1)
        try:
            fields = np.stack([self._field(*pair) for pair in frames]) if len(frames) else _NO_FIELDS
        finally:
            cv2.setNumThreads(num_threads)
        values = {}
        if "flow" in wanted:
            values["flow"] = fields.astype(np.float16)
        if "hof" in wanted:
            values["hof"] = np.array([histograms(field) for field in fields], np.float16).reshape(-1, _HOF_SIZE)
        return {tap: self.checked(tap, values[tap], len(frames)) for tap in wanted}

    def _field(self, before: _Gray, after: _Gray) -> _Field:
        """Flow (2, H, W) float32. No displacement is longer than the image: untextured regions may diverge."""
        field = self.estimate(np.ascontiguousarray(before), np.ascontiguousarray(after))  # (H, W, 2)
        bounded = np.clip(np.nan_to_num(field), -_SIZE_PX, _SIZE_PX)
        return np.ascontiguousarray(bounded.transpose(2, 0, 1), dtype=np.float32)


_NO_FIELDS: _Field = np.zeros((0, 2, _SIZE_PX, _SIZE_PX), np.float32)


def histograms(field: _Field) -> npt.NDArray[np.float32]:
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


def _farneback(before: _Gray, after: _Gray) -> _Field:
    import cv2

    start: Any = None
    return np.asarray(cv2.calcOpticalFlowFarneback(before, after, start, 0.5, 3, 15, 3, 5, 1.2, 0), np.float32)


def _dis() -> Callable[[_Gray, _Gray], _Field]:
    import cv2

    library: Any = cv2  # its stubs lack DIS
    estimator = library.DISOpticalFlow_create(library.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def estimate(before: _Gray, after: _Gray) -> _Field:
        return np.asarray(estimator.calc(before, after, None), np.float32)

    return estimate
