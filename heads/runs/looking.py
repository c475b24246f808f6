"""Where a head looks in the frames of a clip, and the pictures of these frames. No video is opened.

A way of telling where a head looks is a row of WAYS: the first that applies to a head is taken. One that needs no
method of the head, such as maps from gradients, is a further row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

import reelbank.store
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.arrays import ArrayTap, Draw
from reelbank.heads.examples.batches import steps_of
from reelbank.heads.examples.crops import DRAWN, Crop, crop_of
from reelbank.heads.examples.steps import nearest_steps
from reelbank.heads.models import HEADS
from reelbank.heads.models.plans import HeadPlan, Input
from reelbank.store import Store

FRAMES = "frames*"
"""Backbones whose stores hold pictures, in the tap RGB."""
RGB = "rgb"
THUMBNAIL_PX = 224


@runtime_checkable
class Attentive(Protocol):
    """A head that says where it looks."""

    def attention(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(B, T, h, w) of the input that is pictures (B, T, *shape) and its mask (B, T), as `forward` gets them.

        Raises TrainingError where it is not known.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of telling where a head looks.

    Attributes:
        applies: whether it can be asked of a head.
        maps: (head, {input: values}, {input: mask}, name of the input that is pictures) -> (B, T, h, w).
    """

    applies: Callable[[nn.Module], bool]
    maps: Callable[[Any, Mapping[str, Tensor], Mapping[str, Tensor], str], Tensor]


WAYS: Mapping[str, Way] = {
    "attention": Way(
        applies=lambda head: isinstance(head, Attentive),
        maps=lambda head, arrays, masks, name: head.attention(arrays[name], masks[name]),
    ),
}


def way_of(name: str, head: nn.Module, plan: HeadPlan | None) -> Way:
    """How head `name` is asked where it looks. Raises TrainingError for one of which nobody knows."""
    found = next((way for way in WAYS.values() if way.applies(head)), None)
    if found is None or plan is None or not any(one.values == "pixels" for one in plan.inputs):
        known = ", ".join(other for other, row in sorted(HEADS.items()) if row.has_attention)
        raise TrainingError(
            f"head {name!r} does not say where in a frame it looks; heads that do: {known}. --gradcam shows where the "
            "evidence for a class lies, by gradients, of any head that names a module for it"
        )
    return found


def pictured(plan: HeadPlan) -> str:
    """The input in whose frames a head looks."""
    return next(one.name for one in plan.inputs if one.values == "pixels")


def holds_pictures(tap: ArrayTap) -> bool:
    """Whether a tap holds RGB pictures."""
    spec = tap.store.taps[tap.tap]
    return spec.dtype == "uint8" and len(spec.shape) == 3 and spec.shape[-1] == 3


def pictures_of(tap: ArrayTap, crop: Crop | None, clip: int) -> NDArray[np.uint8]:
    """The frames of a clip (T, H, W, 3), as a head sees them in evaluation."""
    steps = steps_of(tap, clip, 0)
    if crop is None:
        return steps
    draw = Draw(clips=np.array([clip]), views=np.zeros(1, dtype=np.int64), starts=np.full(1, np.nan))
    cut = crop.of(torch.from_numpy(steps)[None], draw)[0]  # (T, 3, 224, 224)
    return cut.round().to(torch.uint8).movedim(1, -1).numpy()


@dataclass(frozen=True, kw_only=True)
class FrameStore:
    """A store whose frames are shown."""

    store: Store

    @classmethod
    def open(cls, path: Path) -> FrameStore:
        """Raises TrainingError for a store that holds no pictures, StoreError for what is none."""
        store = reelbank.store.open(path)
        if RGB not in store.taps or not fnmatchcase(store.spec.backbone, FRAMES):
            raise TrainingError(
                f"--frames {path} is {store.spec.backbone} with {', '.join(store.taps)}; pictures are in stores of "
                "`featurize --model frames`"
            )
        return cls(store=store)

    def pictures(self, clip_id: str, frames: NDArray[np.int64], share: float | None) -> tuple[NDArray[np.uint8], int]:
        """(pictures (T, H, W, 3), how many are of the nearest frame that is stored) of a clip.

        Args:
            frames: index of each frame in its video.
            share: of the short side that the head sees; None: not known.

        Raises TrainingError for a clip that has none.
        """
        rows = self.store.done_rows()
        own = rows[self.store.column("clip_id")[rows] == clip_id]
        if not len(own):
            raise TrainingError(f"--frames {self.store.path} has no frames of clip {clip_id!r}; featurize it there")
        lists, moved = nearest_steps(self.store, own, [frames])
        one = Input(name="frames", about="RGB frames", taps=((FRAMES, RGB),), values="pixels")
        index = lists[0][None]
        tap = ArrayTap(
            input=one, store=self.store, tap=RGB, rows=own, index=index, mask=np.ones(index.shape, dtype=bool)
        )
        if tap.is_whole_frame:
            return pictures_of(tap, crop_of(tap, DRAWN, [clip_id], self.store.spec.seed), 0), moved
        shown, kept = pictures_of(tap, None, 0), seen_share(self.store)
        if share is not None and kept is not None and share < kept:
            shown = _centre(shown, round(shown.shape[1] * share / kept))
        return shown, moved


def seen_share(store: Store) -> float | None:
    """Which share of the short side of a frame the square is that a backbone saw; None where that is not known."""
    how: Any = store.spec.preprocess
    short, crop = how.get("short_side_px"), how.get("crop_px")
    return crop / short if isinstance(short, int) and isinstance(crop, int) and short else None


def thumbnail_of(store: Store, row: int) -> NDArray[np.uint8] | None:
    """The part that a backbone saw of the picture that extraction kept of a clip, enlarged to THUMBNAIL_PX on its long
    side (H, W, 3); None where there is none.
    """
    picture = store.thumbnail(row)
    if not picture.any():
        return None
    width, height = (int(store.clips.arrays[name][row]) for name in ("width_px", "height_px"))
    share = seen_share(store)
    if share is None or not width or not height:
        return _enlarged(picture)
    # The whole frame is scaled to fit, on black.
    scale = min(picture.shape[0] / height, picture.shape[1] / width)
    return _enlarged(_centre(picture[None], round(min(width, height) * scale * share))[0])


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bilinear, so that heat over it is as smooth as over a frame."""
    factor = THUMBNAIL_PX / max(picture.shape[:2])
    size = [round(side * factor) for side in picture.shape[:2]]
    values = torch.from_numpy(picture).movedim(-1, 0)[None].float()
    return interpolate(values, size=size, mode="bilinear")[0].round().to(torch.uint8).movedim(0, -1).numpy()


def _centre(pictures: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The square in the middle (T, side, side, 3)."""
    top, left = (max(0, (size - side) // 2) for size in pictures.shape[1:3])
    return pictures[:, top : top + side, left : left + side]


def maps_of(
    way: Way, heads: Sequence[nn.Module], arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor], name: str
) -> NDArray[np.float32]:
    """Where the heads look on the mean, of one clip: (T, h, w) of its valid steps."""
    with torch.inference_mode():
        found = torch.stack([way.maps(head.eval(), arrays, masks, name)[0] for head in heads]).float().mean(dim=0)
    maps: NDArray[np.float32] = found[masks[name][0]].cpu().numpy()
    return maps
