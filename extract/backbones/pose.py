"""Annotated poses as features: keypoints, their box, and heatmaps drawn from them. No weights.

Taps, per annotated frame; the slots are those of `keypoints.SLOTS`:
  `keypoints` (25, 2) float32: x, y in px of the annotated picture; 0, 0 where a point is absent.
  `presence`  (25,) bool: which points are annotated, inside the box or not.
  `box`       (4,) float32: the square box that the heatmaps show, x0, y0, x1, y1 in px; zeros if there is none.
  `heatmaps`  (25, 56, 56) float16: `reelbank.extract.inputs.heatmaps`, value 255 under sigma 1, borders constant; all
              zero for absent points.

`pose`            the box is drawn around the present points (sides times 1.1, made square), for pretraining;
                  rounding puts no point outside of it.
`pose:given-box`  the box is the annotated one, made square without being enlarged: a pose estimator's
                  prediction, for finetuning. Points outside are drawn on its border; a frame without a box has
                  keypoints, but no heatmaps.
`pose:keypoint-rcnn` estimates poses from video; see `keypoint_rcnn`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.backbones import keypoint_rcnn
from reelbank.extract.backbones.description import (
    Backbone,
    BackboneInfo,
    BuildOptions,
    Definition,
    Described,
    taps_by_name,
)
from reelbank.extract.inputs import heatmaps
from reelbank.extract.inputs.keypoints import NUM_SLOTS
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.store.spec import TapSpec

_PAYLOAD_SHAPE = (NUM_SLOTS + 2, 3)
_OUTSIDE = {"": "missing", "given-box": "clip"}


def define(family: str, variant: str) -> Definition:
    """Poses from annotations, or from video by the network that `variant` names."""
    name = f"{family}:{variant}" if variant else family
    if variant == "keypoint-rcnn":
        return keypoint_rcnn.define(name, pose_taps())
    info = BackboneInfo(
        name=name,
        taps=pose_taps(),
        default_taps=("keypoints", "presence", "box"),
        preprocess=Preprocess(),
        source="annotations",
        payload_shape=_PAYLOAD_SHAPE,
        payload_dtype="float32",
    )
    return Definition(info=info, make=functools.partial(_make, info, variant))


def pose_taps() -> dict[str, TapSpec]:
    """The taps of every source of poses. Heatmaps are mostly zeros, so that zstd-1 pays for them."""
    size = heatmaps.SIZE
    return taps_by_name(
        TapSpec(name="keypoints", dtype="float32", axes=("slot", "xy"), shape=(NUM_SLOTS, 2)),
        TapSpec(name="presence", dtype="bool", axes=("slot",), shape=(NUM_SLOTS,)),
        TapSpec(name="box", dtype="float32", axes=("corner",), shape=(4,)),
        TapSpec(
            name="heatmaps",
            dtype="float16",
            axes=("slot", "height", "width"),
            shape=(NUM_SLOTS, size, size),
            codec="zstd-1",
        ),
    )


def _make(info: BackboneInfo, variant: str, options: BuildOptions) -> Backbone:
    return _Pose(info=info, outside=_OUTSIDE[variant])


@dataclass(frozen=True, kw_only=True)
class _Pose(Described):
    outside: str
    module: None = None
    device: str = "cpu"

    @property
    def weights(self) -> dict[str, Any]:
        return {"kind": "none", "source": "boxes and heatmaps 1"}

    def forward(
        self, frames: npt.NDArray[np.float32], taps: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Poses of annotated frames (B, 27, 3) float32: 25 points x, y, presence, then the corners of a box."""
        wanted = self.wanted_taps(frames, taps)
        presence = frames[:, :NUM_SLOTS, 2] > 0
        points = np.where(presence[..., None], frames[:, :NUM_SLOTS, :2], np.float32(0))
        boxes = heatmaps.pose_box(points, presence) if self.outside == "missing" else _given_boxes(frames)
        values: dict[str, npt.NDArray[Any]] = {
            "keypoints": points,
            "presence": presence,
            "box": boxes.astype(np.float32),
        }
        if "heatmaps" in wanted:
            positions, drawn = heatmaps.grid_positions(points, presence, boxes, outside=self.outside)
            values["heatmaps"] = heatmaps.render(positions, drawn).astype(np.float16)
        return {tap: self.checked(tap, values[tap], len(frames)) for tap in wanted}


def _given_boxes(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The annotated boxes (B, 4), square; zeros where there is none."""
    boxes = frames[:, NUM_SLOTS:, :2].reshape(-1, 4)
    some = np.asarray(np.isfinite(boxes).all(axis=1))
    return np.where(some[:, None], heatmaps.square(np.where(some[:, None], boxes, 0.0)), 0.0)
