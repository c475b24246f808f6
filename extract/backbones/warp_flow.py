"""Optical flow without the motion of the camera; taps in `flow_taps`, and `homography`.

Action Recognition with Improved Trajectories, Wang and Schmid 2013: a homography is fitted to matches between the two
frames by RANSAC, the second frame is warped back by it, and flow is estimated between the first frame and the warped
one. `warp-flow` is Farneback's flow, `warp-flow:dis` DIS. Subtracting the homography's motion from the plain flow
was tried instead: no better on rendered slow pans, on rotations and zooms (and on every pan with DIS) it leaves at
least 3 times the motion in the background, and nearly all of it where a pan is faster than Farneback follows.

Deviations. Matches are corners tracked by pyramidal Lucas-Kanade and tracked back, in place of SURF and flow samples:
SURF is not in every OpenCV build. There is no person detector; instead the fit is the one of three (standing camera,
RANSAC at 1 px, RANSAC at 0.5 px) that leaves the smallest sum of residuals cut at 0.5 px, so that slow people before a
standing camera are not taken for the camera. Where the camera has uncovered nothing to compare with (the second frame
ends), there is no motion.

`homography` (3, 3) float32: takes a point (x, y, 1) in px of the first frame to the second; the last element is 1. It
is the identity where the camera stands, and where fewer than 30 matches agree on anything else.
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
from reelbank.extract.backbones.flow import GRAY_PAIR, METHODS, Estimate, Gray, estimator, field_of, one_opencv_thread
from reelbank.store.spec import TapSpec

CAMERA = (
    "camera 1: homography of corners tracked forth and back, RANSAC 1 and 0.5 px or none by residuals cut at 0.5 px, "
    "30 matches, second frame warped back cubically"
)

_MIN_MATCHES = 30
_FIT_TOLERANCES_PX = (1.0, 0.5)
_CUT_PX = 0.5
_MAX_CORNERS, _MIN_QUALITY, _CORNER_DISTANCE_PX = 600, 0.01, 5
_TRACK_WINDOW_PX, _TRACK_LEVELS = (15, 15), 3
_MAX_RETURN_PX = 0.5

_Points = npt.NDArray[np.float64]
Homography = npt.NDArray[np.float64]


def define(family: str, variant: str) -> Definition:
    """Camera-compensated flow by the method that `variant` names."""
    homography = TapSpec(name="homography", dtype="float32", axes=("row", "column"), shape=(3, 3))
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps=flow_taps.flow_taps() | taps_by_name(homography),
        default_taps=("hof",),
        preprocess=GRAY_PAIR,
        step_frames=(0, 1),
    )
    return Definition(info=info, make=functools.partial(_make, info, variant))


def _make(info: BackboneInfo, method: str, options: BuildOptions) -> Backbone:
    return _WarpFlow(info=info, method=METHODS[method], estimate=estimator(method))


@dataclass(frozen=True, kw_only=True)
class _WarpFlow(Described):
    method: str
    estimate: Estimate
    module: None = None
    device: str = "cpu"

    @property
    def weights(self) -> dict[str, Any]:
        return {"kind": "none", "source": f"OpenCV {self.method}; hof 1; {CAMERA}"}

    def forward(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Camera-compensated flow of gray pairs (B, 2, H, W) uint8."""
        wanted = self.wanted_taps(frames, taps)
        fields, homographies = compensated(self.estimate, frames)
        values = flow_taps.features(self, fields, wanted)
        if "homography" in wanted:
            values["homography"] = self.checked("homography", homographies.astype(np.float32), len(frames))
        return {tap: values[tap] for tap in wanted}


def compensated(estimate: Estimate, frames: npt.NDArray[np.uint8]) -> tuple[flow_taps.Field, Homography]:
    """Flow without camera motion of gray pairs (B, 2, H, W).

    Returns:
        Fields (B, 2, H, W) in px, and the homographies (B, 3, 3) that were taken out.
    """
    fields = np.zeros(frames.shape, np.float32)
    homographies = np.zeros((len(frames), 3, 3))
    with one_opencv_thread():
        for row, (before, after) in enumerate(frames):
            homographies[row] = camera_motion(before, after)
            fields[row] = field_of(estimate, before, _warped_back(before, after, homographies[row]))
    return fields, homographies


def camera_motion(before: Gray, after: Gray) -> Homography:
    """The homography (3, 3) that takes px of the first frame to px of the second, the identity if there is none."""
    import cv2

    library: Any = cv2  # its stubs do not know that no homography may be found
    standing = np.eye(3)
    old, new = _matches(before, after)
    if len(old) < _MIN_MATCHES:
        return standing
    best, least = standing, _cost(standing, old, new)
    for tolerance_px in _FIT_TOLERANCES_PX:
        # OpenCV seeds this search by a constant of its own: the same matches give the same bits.
        answer, _ = library.findHomography(old, new, cv2.RANSAC, tolerance_px)
        if answer is None:
            continue
        found = np.asarray(answer, np.float64)
        if np.count_nonzero(_residuals_px(found, old, new) < tolerance_px) < _MIN_MATCHES:
            continue
        cost = _cost(found, old, new)
        if cost < least:
            best, least = found, cost
    return best


def _matches(before: Gray, after: Gray) -> tuple[_Points, _Points]:
    """Points (M, 2) of the first frame and where they went: corners that are found back from there."""
    import cv2

    library: Any = cv2  # its stubs want arrays where None means: make them
    before, after = np.ascontiguousarray(before), np.ascontiguousarray(after)
    corners = library.goodFeaturesToTrack(before, _MAX_CORNERS, _MIN_QUALITY, _CORNER_DISTANCE_PX)
    if corners is None:
        return np.zeros((0, 2)), np.zeros((0, 2))
    track = functools.partial(
        library.calcOpticalFlowPyrLK, nextPts=None, winSize=_TRACK_WINDOW_PX, maxLevel=_TRACK_LEVELS
    )
    moved, found, _ = track(before, after, corners)
    back, found_back, _ = track(after, before, moved)
    returned = np.abs(back - corners).reshape(-1, 2).max(axis=1) < _MAX_RETURN_PX
    kept = (found.ravel() == 1) & (found_back.ravel() == 1) & returned
    old, new = (points.reshape(-1, 2)[kept].astype(np.float64) for points in (corners, moved))
    return old, new


def _cost(homography: Homography, old: _Points, new: _Points) -> float:
    return float(np.minimum(_residuals_px(homography, old, new), _CUT_PX).sum())


def _residuals_px(homography: Homography, old: _Points, new: _Points) -> npt.NDArray[np.float64]:
    """Distance (M,) of each match from where the homography puts it; inf for points that it puts behind the camera."""
    projected = np.column_stack([old, np.ones(len(old))]) @ homography.T
    before_camera = projected[:, 2] > 0
    scale = np.where(before_camera, projected[:, 2], 1.0)[:, None]
    distance = np.hypot(*(projected[:, :2] / scale - new).T)
    return np.where(before_camera, distance, np.inf)


def _warped_back(before: Gray, after: Gray, homography: Homography) -> Gray:
    """The second frame as the camera of the first would see it; the first frame where the second shows nothing."""
    import cv2

    if np.array_equal(homography, np.eye(3)):
        return after
    height, width = before.shape
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(after, homography, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    to = homography @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = to[0] / to[2], to[1] / to[2]
    seen = (to[2] > 0) & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    return np.where(seen.reshape(height, width), warped, before).astype(np.uint8)
