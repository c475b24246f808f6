"""Multi-scale corner crops: which square of a frame a view of that name is. Cut where frames are extracted, or later.

Temporal Segment Networks, Wang et al. 2016, arXiv:1608.00859, with the scales of Ego-RNN, Sudhakaran and Lanz 2018,
arXiv:1807.11794: of a frame whose short side is 256 px a square of int(256 s) px for s in {1, 0.875, 0.75, 0.65625} at
the centre or a corner, mirrored before or not.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np

SHORT_SIDE_PX = 256
SCALES = (1.0, 0.875, 0.75, 0.65625)
POSITIONS = ("bottom-left", "bottom-right", "centre", "top-left", "top-right")
CORNERS = tuple(  # in this order they are numbered
    f"corner-{scale:g}-{position}{flip}"
    for scale, position, flip in itertools.product(SCALES, POSITIONS, ("", "-flip"))
)
"""The 40 crops; at scale 1 a corner of a landscape frame is where its neighbour is, so 36 of them differ."""
ANY = "corner-any-"


@dataclass(frozen=True, kw_only=True)
class CornerCrop:
    """A square of a frame, in px of the frame after mirroring."""

    top_px: int
    left_px: int
    side_px: int
    mirrored: bool


def corner_of(view: str, clip_id: str, seed: int) -> str:
    """The crop that a view means: itself, or for `corner-any-I` the I-th of the clip's own order of all 40."""
    if not view.startswith(ANY):
        return view
    digest = hashlib.sha256(f"{clip_id}\0corners\0{seed}".encode()).digest()
    order = np.random.default_rng(int.from_bytes(digest[:8], "little")).permutation(len(CORNERS))
    return CORNERS[int(order[int(view.removeprefix(ANY)) - 1])]


def corner_crop(name: str, height_px: int, width_px: int) -> CornerCrop:
    """Where the crop `name`, one of CORNERS, lies in a frame of that size, whose short side is 256 px."""
    mirrored = name.endswith("-flip")
    _, scale, position = name.removesuffix("-flip").split("-", 2)
    side = int(SHORT_SIDE_PX * float(scale))
    free_y, free_x = height_px - side, width_px - side
    top = free_y if position.startswith("bottom") else 0 if position.startswith("top") else free_y // 2
    left = free_x if position.endswith("right") else 0 if position.endswith("left") else free_x // 2
    return CornerCrop(top_px=top, left_px=left, side_px=side, mirrored=mirrored)
