"""The confusion matrix, of few classes or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reelbank.heads.reports.drawing import LEAST_POINTS, WIDTH_INCHES, Heading, name_texts, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MAX_MATRIX_CLASSES = 30
MOST_NAMED = 15  # more names need smaller letters
_MATRIX_POINTS = 280
"""Width of a matrix in a figure, about."""


def confusion_matrix(
    counts: NDArray[np.integer], labels: Sequence[str], *, title: str, heading: Heading, normalised: bool = False
) -> Figure:
    """True classes as rows, predicted as columns (K, K); colour is the share of the row, text the count.

    With `normalised` the text is the share, too, in percent of the true class's clips. Of more than 30 classes those
    that take part in the most mistakes are shown, and the others together.
    """
    if len(labels) > MAX_MATRIX_CLASSES:
        title += f": the {MAX_MATRIX_CLASSES} of {len(labels)} classes with most mistakes"
        counts, labels = _with_others(np.asarray(counts), labels)
    num = len(labels)
    figure = new_figure(WIDTH_INCHES, 5.2 if num <= 6 else 6.1, title, heading)
    axes = figure.subplots()
    table = np.asarray(counts, dtype=np.float64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, label="share of the true class", shrink=0.7, fraction=0.04, pad=0.02)
    names, size = name_texts(labels), 8 if num <= 15 else LEAST_POINTS
    axes.set_xticks(range(num), names, rotation=90 if num > 6 else 30, fontsize=size)
    if num <= 6:
        for tick in axes.get_xticklabels():
            tick.set_horizontalalignment("right")
    axes.set_yticks(range(num), names, fontsize=size)
    texts = np.round(100 * shares) if normalised else table
    most_digits = int(_MATRIX_POINTS / num / (0.62 * size))
    left_out = " (larger counts have no room: their colour says the share)" if texts.max() >= 10**most_digits else ""
    left_out = left_out.replace("counts", "shares") if normalised else left_out
    percent = ", in percent of the true class" if normalised else ""
    axes.set(xlabel=f"predicted{percent}{left_out}", ylabel="true")
    for row, column in zip(*np.nonzero(table), strict=True):
        text = f"{texts[row, column]:.0f}"
        if len(text) > most_digits:
            continue  # its colour says the share; beside its neighbours it could not be read
        color = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
    return figure


def confusion_panels(tables: Mapping[str, tuple[NDArray[np.integer], Sequence[str]]], *, heading: Heading) -> Figure:
    """A small matrix per row {row: (counts, labels)}: true classes as rows, colour the share of the row.

    Of more than 30 classes those that take part in the most mistakes are shown, and the others together.
    """
    columns = min(2, len(tables))
    lines = -(-len(tables) // columns)
    figure = new_figure(
        4.4 * columns + 0.6, 4.4 * lines + 0.6, "Confusion, rows true, share of the true class", heading
    )
    panels = np.ravel(figure.subplots(lines, columns, squeeze=False))
    for axes, (name, (counts, labels)) in zip(panels, tables.items(), strict=False):
        if len(labels) > MAX_MATRIX_CLASSES:
            counts, labels = _with_others(np.asarray(counts), labels)
        table = np.asarray(counts, dtype=np.float64)
        axes.imshow(table / np.maximum(table.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        right = table.trace() / max(table.sum(), 1)
        axes.set_title(f"{name_texts([name])[0]}: {100 * right:.1f} % of {table.sum():.0f} clips", fontsize=8)
        size = 7 if len(labels) <= MOST_NAMED else LEAST_POINTS
        axes.set_xticks(range(len(labels)), name_texts(labels), rotation=90, fontsize=size)
        axes.set_yticks(range(len(labels)), name_texts(labels), fontsize=size)
    for axes in panels[len(tables) :]:
        axes.set_visible(False)
    return figure


def _with_others(counts: NDArray[np.integer], labels: Sequence[str]) -> tuple[NDArray[np.integer], list[str]]:
    """The table of the classes with most mistakes, in their order, and of all others in a last row and column."""
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:MAX_MATRIX_CLASSES])
    place = np.full(len(labels), len(shown))
    place[shown] = np.arange(len(shown))
    table = np.zeros((len(shown) + 1, len(shown) + 1), dtype=counts.dtype)
    np.add.at(table, (place[:, None], place[None, :]), counts)
    return table, [*(labels[i] for i in shown), f"({len(labels) - len(shown)} others)"]
