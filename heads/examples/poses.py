"""Poses and boxes of people as vectors that do not depend on where in the picture a person is, nor on how large.

Pure functions on arrays: B clips, T steps (padded ones hold anything finite), ... people (none or one axis), K points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

# A side below the rounding of its corners is that of one point.
_ROUNDING = 1e-6


def present_points(points: Floats, presence: Mask | None = None, scores: Floats | None = None) -> Mask:
    """Which points (..., K, 2) are there: (..., K).

    Args:
        presence: (..., K), what was stored of it. Without, a point at exactly 0, 0 is absent.
        scores: (..., K); a point whose score is not above 0 is absent.
    """
    there = np.isfinite(points).all(axis=-1)
    there &= (points != 0).any(axis=-1) if presence is None else presence
    if scores is not None:
        there &= scores > 0  # also False for NaN
    return there


def pose_vectors(points: Floats, present: Mask, scores: Floats | None = None) -> NDArray[np.float32]:
    """Each pose in the box around its present points: (..., K, 2) in px -> (..., K 3) float32.

    A present point becomes ((x - cx) / side, (y - cy) / side, confidence): (cx, cy) is the middle of the box, `side`
    its longer side, so x and y are in -0.5 .. 0.5 and the person keeps its proportions. Points of a box without area
    are all at 0, 0. An absent point is 0, 0, 0.

    Args:
        present: (..., K); other points are not looked at.
        scores: (..., K); the confidence is the score, at most 1. Without, it is 1.
    """
    at = present[..., None]
    exact = points.astype(np.float64)
    low = np.where(at, exact, np.inf).min(axis=-2, keepdims=True)  # (..., 1, 2)
    high = np.where(at, exact, -np.inf).max(axis=-2, keepdims=True)
    some = np.asarray(present.any(axis=-1))[..., None, None]
    low, high = np.where(some, low, 0.0), np.where(some, high, 0.0)
    side = _side(low, high)
    places = np.where(at, exact - (low + high) / 2, 0.0) / np.where(side > 0, side, np.inf)
    confidence = np.ones(present.shape) if scores is None else np.minimum(scores, 1.0)
    vectors = np.concatenate([places, np.where(present, confidence, 0.0)[..., None]], axis=-1)
    return vectors.reshape(*points.shape[:-2], -1).astype(np.float32)


def box_vectors(corners: Floats, valid: Mask, scores: Floats | None = None) -> NDArray[np.float32]:
    """Each box beside those of its clip: (B, T, ..., 4) x0, y0, x1, y1 in px -> (B, T, ..., 5) float32.

    (x, y, width, height, confidence): the middle of the box, from the mean middle over the clip, and its sides, all
    over the clip's mean longer side. So the way that a person goes counts, in units of the person, and where it begins
    does not. A box without area is absent: all 0.

    Args:
        valid: (B, T), which steps the clip has.
        scores: (B, T, ...); the confidence is the score, at most 1. Without, it is 1.

    Raises:
        ValueError: a corner x1, y1 that lies before x0, y0: then they are no corners.
    """
    exact = np.where(np.isfinite(corners).all(axis=-1, keepdims=True), corners, 0.0).astype(np.float64)
    low, high = exact[..., :2], exact[..., 2:]
    steps = valid.reshape(*valid.shape, *(1,) * (corners.ndim - 3))
    if ((high < low).any(axis=-1) & steps).any():
        raise ValueError("some have x1 < x0 or y1 < y0: expected corners x0, y0, x1, y1")
    side = _side(low, high)  # (B, T, ..., 1)
    present = (side > 0) & ((high - low) > 0).all(axis=-1, keepdims=True) & steps[..., None]
    if scores is not None:
        present &= (scores > 0)[..., None]
    counts = np.maximum(present.sum(axis=1, keepdims=True), 1)
    middle = (low + high) / 2
    origin = np.where(present, middle, 0.0).sum(axis=1, keepdims=True) / counts
    unit = np.where(present, side, 0.0).sum(axis=1, keepdims=True) / counts
    unit = np.where(unit > 0, unit, 1.0)
    confidence = np.ones(side.shape) if scores is None else np.minimum(scores, 1.0)[..., None]
    vectors = np.concatenate([(middle - origin) / unit, (high - low) / unit, confidence], axis=-1)
    return np.where(present, vectors, 0.0).astype(np.float32)


def _side(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """The longer side of each box (..., 1); 0 where it is lost in the rounding of its corners."""
    side = (high - low).max(axis=-1, keepdims=True)
    size = np.maximum(np.abs(low), np.abs(high)).max(axis=-1, keepdims=True)
    return np.where(side > _ROUNDING * size, side, 0.0)
