"""What a head reads of one clip, as pictures: frames, maps, flow, and where things move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.reports.drawing import Heading
from reelbank.heads.reports.picture_rows import Block, PictureRow, columns_of, picture_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def input_strip(clip: str, rows: Sequence[PictureRow], *, heading: Heading) -> Figure:
    """The rows of `rows_of` of every input of a clip below each other."""
    return picture_rows("What the head reads of a clip", [Block(title=clip, rows=rows)], heading=heading)


def rows_of(title: str, values: NDArray[Any], under: Sequence[str] = ()) -> list[PictureRow]:
    """The steps of a clip as rows of pictures, at most eight of them.

    Args:
        values: one input of one clip: RGB (T, H, W, 3) uint8; x and y of flow (T, 2, H, W) uint8, a row each; maps of
            motion (T, s, s) in [0, 1]; maps of a network (T, C, H, W), whose mean over channels is drawn from its least
            to its greatest value in the clip.
        under: a text for each step.
    """
    chosen = columns_of(len(values))
    values, texts = values[chosen], [under[place] for place in chosen] if under else []
    if values.ndim == 3:
        gray = np.round(255 * np.clip(values.astype(np.float32), 0, 1)).astype(np.uint8)
        return [PictureRow(title=title, pictures=list(gray), under=texts)]
    if values.dtype == np.uint8 and values.shape[-1] == 3:
        return [PictureRow(title=title, pictures=list(values), under=texts)]
    if values.dtype == np.uint8 and values.shape[1] == 2:
        return [
            PictureRow(title=f"{title}, {axis}", pictures=list(values[:, place]), under=texts if place else [])
            for place, axis in enumerate("xy")
        ]
    mean = values.astype(np.float32).mean(axis=1)
    span = float(np.ptp(mean)) or 1.0
    gray = np.round(255 * (mean - mean.min()) / span).astype(np.uint8)
    return [PictureRow(title=f"{title}, mean over channels", pictures=list(gray), under=texts)]
