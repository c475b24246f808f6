"""Boxes around a pose, and the heatmaps of its keypoints: 56x56, one blurred point each.

The rules of the 2D pose sequence systems: the tight box of the present keypoints is enlarged by 10 %, made
square, mapped to 0..55 and rounded; each point is a value of 255 under a Gaussian filter of sigma 1, as
`scipy.ndimage.gaussian_filter` computes it (truncated at 4 sigma), which is what the tests compare with.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

SIZE = 56
PEAK = 255.0

BORDERS = ("constant", "nearest")
"""What the filter sees outside the map: zeros, or the border's values again (a corner point then sums to 288)."""

OUTSIDE = ("clip", "missing")
"""Points outside the box: moved to its border (predicted boxes), or not drawn."""

# Each side of the box times this: 10 % of the side, 5 % at each edge; or 10 % of the side at each edge.
_FACTORS = {"edge": 1.2, "side": 1.1}
ENLARGEMENTS = tuple(_FACTORS)

# A box around one point, or of none: a side of 0 px could not be mapped to 56.
_MIN_SIDE_PX = 1.0
_TRUNCATE = 4.0

_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


def pose_box(points: npt.NDArray[np.floating], presence: _Mask, *, enlarge: str = "side") -> _Floats:
    """The square box of each pose.

    Args:
        points: (N, K, 2) x, y in px.
        presence: (N, K); other points are not looked at.
        enlarge: one of ENLARGEMENTS.

    Returns:
        (N, 4) x0, y0, x1, y1 in px, at least 1 px wide; zeros where no point is present.
    """
    if enlarge not in _FACTORS:
        raise ValueError(f"{enlarge = } is not one of {', '.join(ENLARGEMENTS)}")
    at = presence[..., None]
    low = np.where(at, points, np.inf).min(axis=1).astype(np.float64)
    high = np.where(at, points, -np.inf).max(axis=1).astype(np.float64)
    some = np.asarray(presence.any(axis=1))
    low[~some] = high[~some] = 0.0
    return np.where(some[:, None], square(enlarged(np.hstack([low, high]), _FACTORS[enlarge])), 0.0)


def enlarged(boxes: npt.NDArray[np.floating], factor: float) -> _Floats:
    """Boxes (N, 4) with both sides times `factor` about the same centre."""
    center, size = _center_and_size(boxes)
    return np.hstack([center - size * (factor / 2), center + size * (factor / 2)])


def square(boxes: npt.NDArray[np.floating]) -> _Floats:
    """Boxes (N, 4) with the shorter side as long as the longer one, at least 1 px, about the same centre."""
    center, size = _center_and_size(boxes)
    half = np.maximum(size.max(axis=1, keepdims=True), _MIN_SIDE_PX) / 2
    return np.hstack([center - half, center + half])


def grid_positions(
    points: npt.NDArray[np.floating],
    presence: _Mask,
    boxes: npt.NDArray[np.floating],
    *,
    outside: str = "missing",
) -> tuple[npt.NDArray[np.int64], _Mask]:
    """Where the points lie on the 56x56 grid of their box.

    Args:
        points: (N, K, 2) x, y in px.
        presence: (N, K).
        boxes: (N, 4) x0, y0, x1, y1 in px; a box without area has no grid, so all its points are missing.
        outside: one of OUTSIDE.

    Returns:
        Positions (N, K, 2) column, row in 0..55, 0 for missing points; and which points are drawn (N, K).
    """
    if outside not in OUTSIDE:
        raise ValueError(f"{outside = } is not one of {', '.join(OUTSIDE)}")
    origin, size = boxes[:, None, :2].astype(np.float64), (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    has_area = np.asarray((size > 0).all(axis=1))
    side = np.where(has_area[:, None], size, 1.0)[:, None]
    positions = np.rint(np.where(presence[..., None], points - origin, 0.0) * ((SIZE - 1) / side))
    inside = ((positions >= 0) & (positions < SIZE)).all(axis=2)
    drawn = presence & has_area[:, None]
    if outside == "missing":
        drawn = drawn & inside
    bounded = np.clip(positions, 0, SIZE - 1).astype(np.int64)
    return np.where(drawn[..., None], bounded, 0), drawn


def render(
    positions: npt.NDArray[np.int64],
    drawn: _Mask,
    *,
    sigma: float = 1.0,
    border: str = "constant",
    peak: float = PEAK,
) -> npt.NDArray[np.float32]:
    """Heatmaps (N, K, 56, 56): `peak` at each position, blurred; all zero where a point is not drawn.

    The Gaussian is separable, so that a map is the outer product of two rows of a table.

    Args:
        positions: (N, K, 2) column, row in 0..55.
        drawn: (N, K).
        sigma: of the filter, in cells.
        border: one of BORDERS.
        peak: the value before the filter; away from borders a map sums to it.
    """
    if border not in BORDERS:
        raise ValueError(f"{border = } is not one of {', '.join(BORDERS)}")
    responses = _responses(float(sigma), border)
    columns = responses[positions[..., 0]]  # (N, K, 56)
    rows = responses[positions[..., 1]] * np.where(drawn, peak, 0.0)[..., None]
    # One rounding, of the product of two doubles: what casting scipy's result to float32 gives.
    maps = np.empty((*drawn.shape, SIZE, SIZE), np.float32)
    np.multiply(rows[..., :, None], columns[..., None, :], out=maps, casting="same_kind")
    return maps


@functools.lru_cache(maxsize=32)
def _responses(sigma: float, border: str) -> _Floats:
    """Row p: what the one-dimensional filter makes of a 1 at position p of 56."""
    if not sigma > 0:
        raise ValueError(f"{sigma = }, expected above 0 cells")
    radius = int(_TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / sigma**2 * offsets**2)
    weights /= weights.sum()
    table = np.zeros((SIZE, SIZE))
    for cell in range(SIZE):
        sources = cell + offsets
        if border == "nearest":
            sources = sources.clip(0, SIZE - 1)
        within = (sources >= 0) & (sources < SIZE)
        np.add.at(table[:, cell], sources[within], weights[within])
    table.flags.writeable = False
    return table


def _center_and_size(boxes: npt.NDArray[np.floating]) -> tuple[_Floats, _Floats]:
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return (low + high) / 2, high - low
