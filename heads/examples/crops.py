"""Views that are cut of stored whole frames while a head is trained: one stored copy serves every crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from reelbank.heads.examples.arrays import FRAME_PX, ArrayTap, Draw
from reelbank.store.corner_crops import CORNERS, CornerCrop, corner_crop, corner_of

ORIGINAL = "original"
DRAWN = (ORIGINAL, *CORNERS)
"""The views that whole frames alone are trained in."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """How the views of clips are cut of whole frames (short side 256 px, in 256 x 341).

    Attributes:
        views: their names, by number; the first is the central crop of evaluation.
        boxes: (N, 4) where the frame lies in what is stored: top, left, height, width in px.
        clip_ids, seed: what `corner-any-I` depends on.
        is_flow: pictures of x and y flow, whose x changes its sign where a view is mirrored.
    """

    views: tuple[str, ...]
    boxes: NDArray[np.int64]
    clip_ids: Sequence[str]
    seed: int
    is_flow: bool

    def of(self, values: Tensor, draw: Draw) -> Tensor:
        """Frames (B, T, 256, 341, 3) or (B, T, C, 256, 341) uint8 -> (B, T, C, 224, 224) float32, 0 to 255."""
        if values.shape[-1] == 3:
            values = values.movedim(-1, -3)
        made = values.new_empty((*values.shape[:3], FRAME_PX, FRAME_PX), dtype=torch.float32)
        for i, (clip, view) in enumerate(zip(draw.clips.tolist(), draw.views.tolist(), strict=True)):
            top, left, height, width = self.boxes[clip].tolist()
            frames = values[i, ..., top : top + height, left : left + width]
            made[i] = self._cut(frames, self._where(clip, view, height, width))
        return made

    def _where(self, clip: int, view: int, height: int, width: int) -> CornerCrop:
        name = corner_of(self.views[view], self.clip_ids[clip], self.seed)
        if name != ORIGINAL:
            return corner_crop(name, height, width)
        top, left = round((height - FRAME_PX) / 2), round((width - FRAME_PX) / 2)
        return CornerCrop(top_px=top, left_px=left, side_px=FRAME_PX, mirrored=False)

    def _cut(self, frames: Tensor, where: CornerCrop) -> Tensor:
        """(T, C, H, W) -> (T, C, 224, 224) float32."""
        if where.mirrored:
            frames = frames.flip(-1)
        cut = frames[..., where.top_px : where.top_px + where.side_px, where.left_px : where.left_px + where.side_px]
        pixels = cut.float()
        if where.side_px != FRAME_PX:
            pixels = interpolate(pixels, size=(FRAME_PX, FRAME_PX), mode="bilinear", antialias=True)
        if where.mirrored and self.is_flow:
            pixels[:, 0] = 255 - pixels[:, 0]
        return pixels


def crop_of(tap: ArrayTap, views: tuple[str, ...], clip_ids: Sequence[str], seed: int) -> Crop:
    """How `views` are cut of the whole frames of `tap`."""
    return Crop(
        views=views,
        boxes=tap.store.clips.arrays["frame_box"][tap.rows],
        clip_ids=clip_ids,
        seed=seed,
        is_flow=tap.input.values == "gray",
    )
