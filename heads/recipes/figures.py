"""The pictures of a recipe: curves of every row, distributions, errors per class, calibration."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.reports.drawing import (
    GREY,
    PALETTE,
    Heading,
    clean_axes,
    density,
    integer_ticks,
    name_text,
    new_figure,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PER_LINE = 3  # more would be shrunk on a page until nobody can read them
MAX_CLASSES = 60
TRUE, CHOSEN = PALETTE[2], PALETTE[3]
OTHERS_HEIGHT = 2.5
"""The density of other rows is cut at this many times the highest of what the picture is about."""
_SETTING_LETTERS = 50  # of a line below a panel's title


def curves(
    rows: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    *,
    kind: str,
    settings: Mapping[str, str],
    keeps_last: bool,
    constant: float | None,
    unit: str,
    heading: Heading,
) -> Figure:
    """A panel per row: train and validation loss, or the validation MAE beside a constant's.

    A dot marks the epoch whose weights the row keeps.

    Args:
        rows: {row: [lines of metrics.jsonl of each repeat]}.
        kind: `loss` or `mae`.
        settings: {row: what it is trained with}, below its name.
        keeps_last: whether the last epoch's weights are kept and not the best one's.
        constant: MAE of the constant predictor on the clips of the curve; None: not drawn.
        unit: of the MAE.
    """
    count = len(rows)
    columns = min(PER_LINE, count)
    lines = -(-count // columns)
    title = "Training and validation loss" if kind == "loss" else "Mean absolute error on the validation clips"
    figure = new_figure(max(6.0, 3.1 * columns), 2.5 * lines + 1.0, title, heading)
    panels = np.ravel(figure.subplots(lines, columns, squeeze=False))
    series = {"train": ("train_loss", PALETTE[0]), "validation": ("val_loss", PALETTE[3])}
    if kind == "mae":
        series = {"validation": ("val_mae", PALETTE[3])}
    for axes, (name, repeats) in zip(panels, rows.items(), strict=False):
        for number, epochs in enumerate(repeats):
            for label, (key, color) in series.items():
                points = [(line["epoch"], line[key]) for line in epochs if line.get(key) is not None]
                if points:
                    x, y = zip(*points, strict=True)
                    marker = "." if len(points) < 8 else ""
                    axes.plot(x, y, color=color, linewidth=1.2, marker=marker, label=None if number else label)
            key, color = series["validation"]
            kept = epochs[-1:] if keeps_last else [line for line in epochs if line.get("best")][-1:]
            for line in kept:
                if line.get(key) is not None:
                    axes.plot(
                        line["epoch"], line[key], "o", color=color, markeredgecolor="black", markersize=4.5,
                        label=None if number else "kept epoch",
                    )  # fmt: skip
        if constant is not None:
            axes.axhline(constant, color=GREY, linestyle="--", linewidth=1, label="constant predictor")
        said = "\n".join(textwrap.wrap(settings.get(name, ""), _SETTING_LETTERS)[:2])
        axes.set_title(name_text(name) + (f"\n{plain(said)}" if said else ""), fontsize=7.5)
        axes.tick_params(labelsize=7)
        integer_ticks(axes.xaxis)
        clean_axes(axes)
    for axes in panels[count:]:
        axes.set_visible(False)
    panels[0].legend(fontsize=7, frameon=False)
    for axes in panels[max(0, count - columns) : count]:
        axes.set_xlabel("epoch", fontsize=8)
    for axes in panels[:count:columns]:
        axes.set_ylabel("loss (nats)" if kind == "loss" else f"MAE ({unit})", fontsize=8)
    return figure


def distributions(
    parts: Mapping[str, Mapping[str, Any]], *, best: str, limits: tuple[float, float], name: str, heading: Heading
) -> Figure:
    """Densities of true and predicted values, one panel per test set (Gaussian kernel, common axis).

    Args:
        parts: {known, unknown: {truth: (n,), best: (n,), others: [(n,), ...]}}.
        best: name of the chosen row.
        limits: of the axis, in target units.
    """
    figure = new_figure(5.2 * len(parts), 4.0, "Distribution of predicted and true values", heading)
    for axes, (part, values) in zip(
        np.ravel(figure.subplots(1, len(parts), squeeze=False)), parts.items(), strict=True
    ):
        density(axes, values["truth"], *limits, TRUE, f"true (n = {len(values['truth'])})")
        density(axes, values["best"], *limits, CHOSEN, f"predicted, {name_text(best)}")
        highest = axes.get_ylim()[1]
        drawn = [_outline(axes, other, limits) for other in values["others"]]
        if any(drawn):
            axes.plot([], [], color=GREY, linewidth=0.7, label="predicted, other rows")
        # A row that always says about the same has a peak that would flatten the curves that matter.
        axes.set(ylim=(0, min(max([highest, *(1.05 * peak for peak in drawn)]), OTHERS_HEIGHT * highest)))
        axes.set(xlim=limits, xlabel=name_text(name), ylabel="density")
        axes.set_title(f"{part} activities", fontsize=10)
        axes.legend(fontsize=8, frameon=False)
        clean_axes(axes)
    return figure


def _outline(axes: Any, values: np.ndarray, limits: tuple[float, float]) -> float:
    """Draws a thin density; its peak, 0 where the values do not spread."""
    from scipy.stats import gaussian_kde

    if len(values) < 3 or np.std(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return 0.0
    grid = np.linspace(*limits, 300)
    heights = gaussian_kde(values)(grid)
    axes.plot(grid, heights, color=GREY, linewidth=0.7, alpha=0.7, zorder=1)
    return float(heights.max())


def class_errors(classes: Sequence[Mapping[str, Any]], *, best: str, unit: str, heading: Heading) -> Figure:
    """Mean absolute error of each class: the chosen row, the constant and the class-mean oracle."""
    shown = sorted(classes, key=lambda entry: (entry["split"] != "known", entry["label"]))[:MAX_CLASSES][::-1]
    figure = new_figure(8.6, 1.7 + 0.32 * len(shown), f"Mean absolute error by class ({unit})", heading)
    axes = figure.subplots()
    places = np.arange(len(shown))
    bars = axes.barh(places, [entry["ours"] for entry in shown], height=0.62, color=PALETTE[5], label=name_text(best))
    marks = [
        *axes.plot([e["constant"] for e in shown], places, "D", color=PALETTE[3], markersize=4, label="constant"),
        *axes.plot([e["oracle"] for e in shown], places, "|", color="black", markersize=9, label="class-mean oracle"),
    ]
    labels = [
        f"{name_text(e['label'] or 'no label')} ({e['clips']}){' *' if e['split'] == 'unknown' else ''}" for e in shown
    ]
    axes.set_yticks(places, labels, fontsize=8)
    axes.set(xlabel=f"mean absolute error ({unit}); * unknown activity, in brackets clips")
    axes.legend(
        handles=[bars, *marks], fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3
    )  # fmt: skip
    clean_axes(axes)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.grid(visible=False, axis="y")
    return figure


def calibration(parts: Mapping[str, np.ndarray], *, best: str, heading: Heading) -> Figure:
    """How often the truth lies in the lowest share p of the predicted distribution, against p: the diagonal is right.

    Args:
        parts: {known, unknown: (n,) mass of the prediction below the truth}.
    """
    figure = new_figure(5.4, 4.7, f"Calibration of the predicted distribution, {name_text(best)}", heading)
    axes = figure.subplots()
    levels = np.linspace(0, 1, 101)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="calibrated")
    for (part, masses), color in zip(parts.items(), (PALETTE[0], PALETTE[3]), strict=False):
        share = (masses[None] <= levels[:, None]).mean(axis=1)
        axes.plot(levels, share, color=color, linewidth=1.6, label=f"{part} (n = {len(masses)})")
    axes.set(xlabel="share p of the predicted distribution", ylabel="clips whose true value lies in it", aspect="equal")
    axes.legend(fontsize=8, frameon=False)
    clean_axes(axes)
    return figure
