"""Rows of small pictures, one column per step: what a head reads of a clip, or where it looks.

Everything is placed in inches: pictures touch no text, however many rows and columns there are.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.reports.drawing import DPI, WARNING_COLOR, WIDTH_INCHES, Heading, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MOST_COLUMNS = 8
_LARGEST = 1.5
"""Inches of a picture's side where there are few."""
_LEAST_WIDTH = 4.2
_GAP, _MARGIN = 0.05, 0.1
_LETTER = 0.58
"""Width of a letter in em, about; of a bold one 0.7."""


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """Pictures beside each other.

    Attributes:
        title: above them.
        pictures: RGB (H, W, 3) or gray (H, W), uint8, all of one size.
        under: a text below each; none: no texts.
    """

    title: str
    pictures: Sequence[NDArray[np.uint8]]
    under: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows under a title."""

    title: str
    rows: Sequence[PictureRow]


def columns_of(steps: int, most: int = MOST_COLUMNS) -> NDArray[np.int64]:
    """At most `most` places of `steps`, evenly spread, first and last among them."""
    return np.unique(np.round(np.linspace(0, steps - 1, min(steps, most))).astype(np.int64))


def picture_rows(title: str, blocks: Sequence[Block], *, heading: Heading, notes: Iterable[str] = ()) -> Figure:
    """The blocks below each other, then notes, then the warning of the heading."""
    from matplotlib.figure import Figure

    most = max(len(row.pictures) for block in blocks for row in block.rows)
    side = min(_LARGEST, (WIDTH_INCHES - 2 * _MARGIN + _GAP) / most - _GAP)
    width = max(_LEAST_WIDTH, most * (side + _GAP) - _GAP + 2 * _MARGIN)
    page = _Page(width=width)
    page.text(title, points=10)
    page.text(" · ".join(part for part in (heading.source, heading.count) if part), points=8)
    for block in blocks:
        page.top += 0.08
        page.text(block.title, points=9, weight="bold")
        for row in block.rows:
            page.text(row.title, points=8)
            page.pictures(row.pictures, side)
            page.texts_under(row.under, side)
    for note in notes:
        page.text(note, points=7, color="#444444")
    page.text(heading.warning, points=8, weight="bold", color=WARNING_COLOR)
    figure = Figure(figsize=(width, page.top + _MARGIN), dpi=DPI)
    page.draw(figure)
    return figure


@dataclass(kw_only=True)
class _Page:
    """What is placed where, from the top, before the height is known."""

    width: float
    top: float = _MARGIN
    texts: list[tuple[float, float, str, dict[str, Any]]] = field(default_factory=list)
    images: list[tuple[float, float, float, float, NDArray[np.uint8]]] = field(default_factory=list)

    def text(self, text: str, *, points: float, weight: str = "normal", color: str = "black") -> None:
        """Lines from the left margin, wrapped; nothing of an empty text."""
        em = points / 72 * (0.7 if weight == "bold" else _LETTER)
        for line in textwrap.wrap(text, int((self.width - 2 * _MARGIN) / em)):
            self.texts.append((_MARGIN, self.top, line, {"fontsize": points, "fontweight": weight, "color": color}))
            self.top += 1.3 * points / 72
        self.top += 0.03 if text else 0

    def pictures(self, pictures: Sequence[NDArray[np.uint8]], side: float) -> None:
        height = side * pictures[0].shape[0] / pictures[0].shape[1]
        for place, picture in enumerate(pictures):
            self.images.append((_MARGIN + place * (side + _GAP), self.top, side, height, picture))
        self.top += height + 0.07

    def texts_under(self, texts: Sequence[str], side: float) -> None:
        style = {"fontsize": 7, "color": "#444444", "ha": "center"}
        for place, text in enumerate(texts):
            self.texts.append((_MARGIN + place * (side + _GAP) + side / 2, self.top - 0.02, text, style))
        self.top += 0.14 if texts else 0

    def draw(self, figure: Figure) -> None:
        width, height = figure.get_size_inches()
        for left, top, text, style in self.texts:
            figure.text(left / width, 1 - top / height, plain(text), va="top", **style)
        for left, top, side, tall, picture in self.images:
            axes = figure.add_axes((left / width, 1 - (top + tall) / height, side / width, tall / height))
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect="auto")
            axes.set_axis_off()
