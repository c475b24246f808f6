"""Pictures and fields changed while a head is trained: mirrored, cut, lighter or darker (SYSTEMS.md 3.5, variant 3).

One draw per clip and epoch holds for all steps and all inputs of the clip, so that what two streams see stays the same
field of view. What moves in a field moves with it: x changes its sign where the picture is mirrored, and displacements
grow as the part that is cut out is enlarged. Evaluation sees clips as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.arrays import ArrayTap
from reelbank.heads.models.plans import RGB, Values

NUMBERS = 5
"""Uniform numbers in [0, 1) of a draw, whatever is asked for: mirrored, scale, top, left, brightness."""
MIRRORED_SHARE = 0.5
LEAST_SCALE = 0.8
MOST_BRIGHTER = 0.2
TOP_LEVEL = 255


@dataclass(frozen=True, kw_only=True)
class PixelAugment:
    """What is changed.

    Attributes:
        methods: of `flip` (with probability 1/2), `crop` (of a scale in [0.8, 1] of both sides, anywhere, enlarged to
            the whole again) and `brightness` (times a number in [0.8, 1.2], of pictures).
    """

    methods: frozenset[str]

    def of(self, pictures: Tensor, kind: Values, changes: NDArray[np.float64]) -> Tensor:
        """Pictures (B, T, C, H, W) float32 in 0 to 255, or fields in px, changed by draws (B, NUMBERS)."""
        made = torch.empty_like(pictures, memory_format=torch.contiguous_format)
        for place, drawn in enumerate(changes.tolist()):
            made[place] = self._changed(pictures[place], kind, drawn)
        return made

    def _changed(self, pictures: Tensor, kind: Values, drawn: Sequence[float]) -> Tensor:
        """Of one clip (T, C, H, W)."""
        mirrored, scale, top, left, brightness = drawn
        if "crop" in self.methods:
            pictures = _cut(pictures, kind, LEAST_SCALE + (1 - LEAST_SCALE) * scale, top, left)
        if "flip" in self.methods and mirrored < MIRRORED_SHARE:
            pictures = pictures.flip(-1)
            if kind not in RGB:  # flip has made a copy
                pictures[:, 0] = 2 * _still(kind) - pictures[:, 0]
        if "brightness" in self.methods and kind in RGB:
            pictures = (pictures * (1 + MOST_BRIGHTER * (2 * brightness - 1))).clamp(0, TOP_LEVEL)
        return pictures


def _cut(pictures: Tensor, kind: Values, scale: float, top: float, left: float) -> Tensor:
    """A part of (T, C, H, W) of this scale, enlarged to H x W; `top` and `left` are shares of the room that it has."""
    height, width = pictures.shape[-2:]
    rows, columns = max(1, round(scale * height)), max(1, round(scale * width))
    first_row, first_column = int(top * (height - rows + 1)), int(left * (width - columns + 1))
    part = pictures[..., first_row : first_row + rows, first_column : first_column + columns]
    whole = interpolate(part, size=(height, width), mode="bilinear", align_corners=False)
    if kind in RGB:
        return whole
    still = _still(kind)
    larger = whole.new_tensor([width / columns, height / rows]).view(2, 1, 1)
    moved = (whole - still) * larger + still
    return moved.clamp(0, TOP_LEVEL) if kind == "gray" else moved


def _still(kind: Values) -> float:
    """The value about which displacements lie: half of the scale of 8-bit pictures, of which 255 - x is the mirror."""
    return TOP_LEVEL / 2 if kind == "gray" else 0.0


def pixel_augment_of(methods: Iterable[str], taps: Mapping[str, ArrayTap]) -> PixelAugment | None:
    """What --pixel-augment asks for; None for nothing.

    Raises TrainingError for inputs that are no pictures and no fields, of which nothing can be cut or mirrored.
    """
    asked = frozenset(methods)
    if not asked:
        return None
    said = f"--pixel-augment {', '.join(sorted(asked))}"
    for tap in taps.values():
        if not _can_be_cut(tap):
            raise TrainingError(
                f"{said} changes pictures and flow, and of {tap.input.about} {tap.store.path} "
                f"({tap.store.spec.backbone}) holds {tap.tap}, in which nothing can be cut or mirrored; give a store "
                "of `featurize --model frames` or a flow tap, or leave the option out"
            )
    if asked == {"brightness"} and not any(tap.input.values in RGB for tap in taps.values()):
        raise TrainingError(f"{said} is for pictures, and the head reads none; leave it out, or pass flip or crop")
    return PixelAugment(methods=asked)


def _can_be_cut(tap: ArrayTap) -> bool:
    spec = tap.store.taps[tap.tap]
    if tap.input.values == "field":
        return len(spec.shape) == 3 and spec.shape[0] == 2
    is_picture = spec.dtype == "uint8" and len(spec.shape) == 3
    if tap.input.values == "gray":
        return is_picture and spec.shape[0] == 2
    return is_picture and tap.input.values in RGB and 3 in (spec.shape[0], spec.shape[-1])
