"""Stored views of clips beside the original: what the augmentation of videos did, as pictures.

A view can only be shown from a store that holds the frames themselves (backbone `frames`): features of a changed frame
do not give it back, and the thumbnail of a clip is of its original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.reports.drawing import Heading, name_text, new_figure
from reelbank.store.layout import DONE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from reelbank.store.reader import Store
    from reelbank.store.spec import TapSpec

MOST_CLIPS, MOST_VIEWS = 4, 8
PICTURE_INCHES = 2.1


@dataclass(frozen=True, kw_only=True)
class StoredViews:
    """The middle step of some clips, in every view.

    Attributes:
        tap: what was read.
        clip_ids, labels, groups: of the clips, (n,) str arrays.
        steps: the step of each clip that is shown.
        names: of the views, the original first.
        frames: for each clip {view: (H, W, 3) uint8}; a clip that lacks a view lacks its entry.
        num_stored: views of the store, of which the first are shown.
    """

    tap: str
    clip_ids: NDArray[Any]
    labels: NDArray[Any]
    groups: NDArray[Any]
    steps: tuple[int, ...]
    names: tuple[str, ...]
    frames: tuple[Mapping[str, NDArray[np.uint8]], ...]
    num_stored: int
    target_name: str = ""

    def __len__(self) -> int:
        return len(self.clip_ids)

    def to_json(self) -> dict[str, Any]:
        """{tap, views, clips: [{clip_id, step, unchanged: views that equal the original}]}."""
        return {
            "tap": self.tap,
            "views": list(self.names),
            "clips": [
                {"clip_id": str(clip), "step": step, "unchanged": unchanged(frames)}
                for clip, step, frames in zip(self.clip_ids, self.steps, self.frames, strict=True)
            ],
        }

    def notes(self) -> list[str]:
        """What the pictures leave out."""
        if self.num_stored <= len(self.names):
            return []
        return [f"The first {len(self.names)} of {self.num_stored} stored views are drawn."]


def unchanged(frames: Mapping[str, NDArray[np.uint8]]) -> list[str]:
    """The views that came out as the original: a flip that was not drawn is one."""
    (_, original), *others = frames.items()
    return [name for name, pixels in others if np.array_equal(pixels, original)]


def sentence(found: Mapping[str, Any]) -> str:
    """What was drawn, from `StoredViews.to_json`."""
    clips = found["clips"]
    same = sum(len(clip["unchanged"]) for clip in clips)
    text = f"Stored views of {len(clips)} clip{'s' if len(clips) > 1 else ''}: {', '.join(found['views'][1:])}."
    return text + (f" {same} of them equal the original: nothing was drawn to change." if same else "")


def stored_views(store: Store, *, tap: str | None, clip_ids: Sequence[str]) -> StoredViews:
    """The middle step of clips in every view.

    Args:
        tap: a tap of frames; None takes the store's first.
        clip_ids: clips to show; none: the first that have other views than the original.

    Raises:
        ValueError: a store without frames or without views, or a clip that is not there or has none.
    """
    name = _picture_tap(store, tap)
    if len(store.spec.views) < 2:
        raise ValueError(
            f"--views: {store.path} holds the view 'original' only; featurize its clips with --views augment into "
            "another store"
        )
    rows = [_row_of(store, clip) for clip in clip_ids] or _first_rows(store)
    names = store.spec.views[:MOST_VIEWS]
    steps = tuple(int(store.num_steps[row]) // 2 for row in rows)
    frames = []
    for row, step in zip(rows, steps, strict=True):
        read = store.read(name, row)
        frames.append({view: np.asarray(read[i, step]) for i, view in enumerate(names[: len(read)])})
    return StoredViews(
        tap=name,
        clip_ids=store.column("clip_id")[rows].astype(str),
        labels=store.column("label")[rows].astype(str),
        groups=store.column("group")[rows].astype(str),
        steps=steps,
        names=names,
        frames=tuple(frames),
        num_stored=len(store.spec.views),
    )


def _is_picture(tap: TapSpec) -> bool:
    return tap.dtype == "uint8" and len(tap.shape) == 3 and tap.shape[-1] == 3


def _picture_tap(store: Store, asked: str | None) -> str:
    found = [name for name, tap in store.taps.items() if _is_picture(tap)]
    if asked is None and found:
        return found[0]
    if asked in found:
        return asked
    what = f"tap {asked!r} of {store.path} is" if asked in store.taps else f"{store.path} holds"
    raise ValueError(
        f"--views draws stored frames, and {what} features (taps {', '.join(sorted(store.taps))}): what a view looks "
        "like cannot be had back from them. featurize --model frames --views augment makes a store of frames"
    )


def _row_of(store: Store, clip_id: str) -> int:
    found = np.flatnonzero(store.column("clip_id").astype(str) == clip_id)
    if not len(found):
        raise ValueError(f"--clip {clip_id!r}: {store.path} has no such clip")
    row = int(found[0])
    if store.clips.status[row] != DONE:
        raise ValueError(f"--clip {clip_id!r} has no frames in {store.path}")
    if int(store.clips.num_views[row]) < 2:
        raise ValueError(
            f"--clip {clip_id!r} has the view 'original' only: views are stored for split {store.spec.view_split!r}"
        )
    return row


def _first_rows(store: Store) -> list[int]:
    rows = store.done_rows()
    chosen: list[int] = rows[store.clips.num_views[rows] > 1][:MOST_CLIPS].tolist()
    if not chosen:
        raise ValueError(f"--views: no clip of {store.path} has other views; {store.spec.view_split!r} is their split")
    return chosen


def draw_views(found: StoredViews, heading: Heading) -> Figure:
    """A line for each clip, a column for each view, the original first."""
    count = len(found.names)
    figure = new_figure(
        PICTURE_INCHES * count + 0.4, PICTURE_INCHES * len(found) + 1.2, "Stored views beside the original", heading
    )
    grid = figure.subplots(len(found), count, squeeze=False)
    for line, clip, step, frames in zip(grid, found.clip_ids, found.steps, found.frames, strict=True):
        same = unchanged(frames)
        for axes, view in zip(line, found.names, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            if view not in frames:
                axes.set_axis_off()
                continue
            axes.imshow(frames[view])
            said = " (as original)" if view in same else ""
            axes.set_title(f"{name_text(view)}{said}", fontsize=9)
        line[0].set_ylabel(f"{name_text(str(clip))}, step {step}", fontsize=8)
    return figure
