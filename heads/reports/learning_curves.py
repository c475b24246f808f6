"""Learning curves: a panel for each number that a training writes down of its epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.reports.drawing import (
    DASHES,
    GREY,
    PALETTE,
    Heading,
    clean_axes,
    integer_ticks,
    name_text,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = tuple[str, Mapping[str, tuple[str, ...]]]
"""What its axis says, and {line: path to its value in a row}."""
TRAIN, VALIDATION = "train", "validation"
RATES = "learning rate"
BATCH_RATES = ("batch_learning_rates",)
LABELS = "labels"
"""The loss of the labels among those of a head that has further ones."""
MOST_STEPS = 12
"""Steps of a schedule that are marked; of more the lines would cover the curves."""


def learning_curves(epochs: Sequence[Mapping[str, Any]], *, heading: Heading, steps: Sequence[int] = ()) -> Figure:
    """Each number per epoch, one thin line per fold; a dot marks each fold's best epoch.

    Where the schedule steps per batch the rate is drawn of every batch, those of epoch e from e - 1 to e.
    Of a head with further losses each has a panel, and the first is of the labels alone, as in validation.

    Args:
        epochs: rows of `metrics.jsonl` (see `reelbank.heads.runs.run`).
        steps: epochs after which the schedule changes the rate, marked by vertical lines.
    """
    panels = list(_panels(epochs))
    columns = len(panels) if len(panels) < 4 else 2
    rows = -(-len(panels) // columns)
    figure = new_figure(4.6 * columns + 0.6, 4.4 if rows == 1 else 3.6 * rows + 0.6, "Learning curves", heading)
    last = max((row["epoch"] for row in epochs), default=1)
    shown = [step for step in steps if step < last]
    for number, axes in enumerate(np.ravel(figure.subplots(rows, columns))):
        if number >= len(panels):
            axes.set_axis_off()
            continue
        name, series = panels[number]
        for place, (label, path) in enumerate(series.items()):
            color = PALETTE[3] if label == VALIDATION else PALETTE[place % len(PALETTE)]
            draw = _draw_batches if path == BATCH_RATES else _draw
            draw(axes, epochs, label, path, color)
        for step in shown if len(shown) <= MOST_STEPS else []:
            said = "rate steps" if step == shown[0] and number == len(panels) - 1 else None
            axes.axvline(step + 0.5, color=GREY, linestyle=":", linewidth=1, zorder=0, label=said)
        if name == RATES and BATCH_RATES not in series.values():
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=name)
        if last == 1:
            axes.set_xticks([1])
        else:
            integer_ticks(axes.xaxis)
        axes.legend(fontsize=8, facecolor="white", edgecolor="none", framealpha=0.8)
        clean_axes(axes)
    return figure


def _panels(epochs: Sequence[Mapping[str, Any]]) -> Iterator[Panel]:
    losses = list(dict.fromkeys(name for row in epochs for name in row.get("losses") or {}))
    rates = list(dict.fromkeys(name for row in epochs for name in row.get("learning_rates") or {}))
    further = [name for name in losses if name != LABELS]
    own = ("losses", LABELS) if further and LABELS in losses else ("train_loss",)
    yield "loss of the labels" if len(own) > 1 else "loss", {TRAIN: own, VALIDATION: ("val_loss",)}
    accuracies = {TRAIN: ("train_accuracy",), VALIDATION: ("val_accuracy",)}
    known = {line: path for line, path in accuracies.items() if any(_value(row, path) is not None for row in epochs)}
    if known:
        yield "accuracy", known
    if any(row.get("val_mae") is not None for row in epochs):
        yield "mean absolute error\n(target units)", {VALIDATION: ("val_mae",)}
    for name in further:
        yield f"further loss {name_text(name)}\n(with its weight)", {TRAIN: ("losses", name)}
    if any(row.get(BATCH_RATES[0]) for row in epochs):
        yield RATES, {"of each batch": BATCH_RATES}
    elif len(rates) > 1:
        yield RATES, {name_text(name): ("learning_rates", name) for name in rates}


def _value(row: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = row
    for name in path:
        found = (found or {}).get(name)
    return found


def _draw(axes: Axes, epochs: Sequence[Mapping[str, Any]], label: str, path: Sequence[str], color: str) -> None:
    """The line of each fold; the first is in the legend."""
    folds = sorted({-1 if row.get("fold") is None else int(row["fold"]) for row in epochs})
    for fold in folds:
        rows = [row for row in epochs if (-1 if row.get("fold") is None else int(row["fold"])) == fold]
        points = [(row["epoch"], _value(row, path)) for row in rows if _value(row, path) is not None]
        if not points:
            continue
        x, y = zip(*points, strict=True)
        single = fold == folds[0]
        axes.plot(x, y, color=color, label=label if single else None, **_line(label, len(folds), len(points)))
        best = [row for row in rows if row.get("best")]
        if label == VALIDATION and best and _value(best[-1], path) is not None:
            axes.plot(
                best[-1]["epoch"],
                _value(best[-1], path),
                "o",
                color=color,
                markeredgecolor="black",
                markersize=6,
                label="best epoch" if single else None,
            )


def _draw_batches(axes: Axes, epochs: Sequence[Mapping[str, Any]], label: str, path: Sequence[str], color: str) -> None:
    """The values of every batch, of the first fold: the schedule is the same in all but for their number."""
    fold = epochs[0].get("fold")
    points = [
        (row["epoch"] - 1 + (place + 0.5) / len(values), value)
        for row in epochs
        if row.get("fold") == fold
        for values in [_value(row, path) or []]
        for place, value in enumerate(values)
    ]
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=color, label=label, linewidth=1.2)


def _line(label: str, num_folds: int, num_points: int) -> dict[str, Any]:
    style: dict[str, Any] = {"linestyle": DASHES[label == TRAIN]}
    style |= {"linewidth": 1.6 if num_folds == 1 else 0.9, "alpha": 1 if num_folds == 1 else 0.7}
    return style | ({"marker": "."} if num_points == 1 else {})
