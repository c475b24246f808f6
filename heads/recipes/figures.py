"""How the pictures of a recipe are drawn: curves of every row, distributions, numbers per class, calibration."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.reports.drawing import (
    DASHES,
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
_SETTING_LETTERS = 40  # of a line below a panel's title: more would leave the picture
_MARKS = (("D", PALETTE[3], 4), ("|", "black", 9), ("^", PALETTE[0], 4))
"""(marker, colour, size) of guessers, in their order."""


def curves(
    rows: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    *,
    key: str,
    name: str,
    settings: Mapping[str, str],
    keeps_last: Mapping[str, bool],
    guess: tuple[str, float] | None,
    heading: Heading,
    marks: Mapping[str, Sequence[int]] | None = None,
) -> Figure:
    """A panel per row: train and validation loss, or a metric of either, beside what a guesser has.

    A full dot marks the epoch whose weights the row keeps, a hollow one the lowest validation loss where it is another.

    Args:
        rows: {row: [lines of metrics.jsonl of each repeat and fold]}.
        key: `val_loss`, or the metric's name in metrics.jsonl; one of training alone begins with `train_`.
        name: of the axis.
        settings: {row: what it is trained with}, below its name.
        keeps_last: {row: whether the last epoch's weights are kept and not the best one's}.
        guess: (who, value) on the clips of the curve; None: not drawn.
        marks: {row: epochs after which its rate is reduced}, as vertical lines.
    """
    count = len(rows)
    columns = min(PER_LINE, count)
    lines = -(-count // columns)
    of_train = key if key.startswith("train_") else f"train_{key.removeprefix('val_')}"
    has_train = any(line.get(of_train) is not None for repeats in rows.values() for one in repeats for line in one)
    what = f"{name[:1].upper()}{name[1:]}"
    title = f"{what} on the {'training' if key == of_train else 'validation'} clips"
    if key == "val_loss" or (has_train and key != of_train):
        title = f"Training and validation {'loss' if key == 'val_loss' else name}"
    figure = new_figure(max(6.0, 3.1 * columns), 2.5 * lines + 1.0, title, heading)
    panels = np.ravel(figure.subplots(lines, columns, squeeze=False))
    series = {} if key == of_train else {"validation": (key, PALETTE[3])}
    if has_train:
        series = {"train": (of_train, PALETTE[0]), **series}
    named: dict[str, Any] = {}
    for axes, (row, repeats) in zip(panels, rows.items(), strict=False):
        for epochs in repeats:
            for label, (series_key, color) in series.items():
                points = [(line["epoch"], line[series_key]) for line in epochs if line.get(series_key) is not None]
                if points:
                    x, y = zip(*points, strict=True)
                    style = {"marker": "." if len(points) < 8 else "", "linestyle": DASHES[label == "train"]}
                    named[label] = axes.plot(x, y, color=color, linewidth=1.2, **style)[0]
            best = [line for line in epochs if line.get("best")][-1:]
            kept = epochs[-1:] if keeps_last[row] else best
            for label, marked, face in (("lowest loss", best, "white"), ("kept epoch", kept, PALETTE[3])):
                for line in marked if marked != kept or label == "kept epoch" else ():
                    if line.get(key) is not None:
                        named[label] = axes.plot(
                            line["epoch"], line[key], "o", color=face, markeredgecolor="black", markersize=4.5
                        )[0]
        for epoch in (marks or {}).get(row, ()):
            named["rate reduced"] = axes.axvline(epoch + 0.5, color=GREY, linewidth=0.8, zorder=0)
        if guess is not None:
            named[guess[0]] = axes.axhline(guess[1], color=GREY, linestyle="--", linewidth=1)
        said = "\n".join(textwrap.wrap(settings.get(row, ""), _SETTING_LETTERS, max_lines=3, placeholder=" …"))
        axes.set_title(name_text(row) + (f"\n{plain(said)}" if said else ""), fontsize=7.5)
        axes.tick_params(labelsize=7)
        integer_ticks(axes.xaxis)
        clean_axes(axes)
    for axes in panels[count:]:
        axes.set_visible(False)
    if count < len(panels):  # in a panel of curves it may lie on them
        panels[count].set_axis_off()
        panels[count].set_visible(True)
        panels[count].legend(list(named.values()), list(named), fontsize=8, frameon=False, loc="upper left")
    else:
        panels[0].legend(list(named.values()), list(named), fontsize=6, framealpha=0.8, edgecolor="none")
    for axes in panels[max(0, count - columns) : count]:
        axes.set_xlabel("epoch", fontsize=8)
    for axes in panels[:count:columns]:
        axes.set_ylabel("loss (nats)" if key == "val_loss" else name, fontsize=8)
    return figure


def distributions(
    parts: Mapping[str, Mapping[str, Any]], *, best: str, limits: tuple[float, float], name: str, heading: Heading
) -> Figure:
    """Densities of true and predicted values, one panel per part (Gaussian kernel, common axis).

    Args:
        parts: {what stands above the panel: {truth: (n,), best: (n,), others: [(n,), ...]}}.
        best: name of the chosen row.
        limits: of the axis, in target units.
    """
    figure = new_figure(5.2 * len(parts), 4.0, "Distribution of predicted and true values", heading)
    panels = np.ravel(figure.subplots(1, len(parts), squeeze=False))
    for axes, (said, values) in zip(panels, parts.items(), strict=True):
        _densities(axes, values["truth"], values["best"], best, limits)
        highest = axes.get_ylim()[1]
        drawn = [_outline(axes, other, limits) for other in values["others"]]
        if any(drawn):
            axes.plot([], [], color=GREY, linewidth=0.7, label="predicted, other rows")
        # A row that always says about the same has a peak that would flatten the curves that matter.
        axes.set(ylim=(0, min(max([highest, *(1.05 * peak for peak in drawn)]), OTHERS_HEIGHT * highest)))
        axes.set(xlim=limits, xlabel=name_text(name), ylabel="density")
        axes.set_title(plain(said), fontsize=10)
        axes.legend(fontsize=8, frameon=False)
        clean_axes(axes)
    return figure


def compared(
    rows: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    *,
    limits: tuple[float, float],
    name: str,
    heading: Heading,
) -> Figure:
    """Densities of true and predicted values: a line of panels for each row, a panel for each part, common axes.

    Args:
        rows: {row: {what stands above the panel: (truth (n,), predicted (n,))}}.
        limits: of the axis, in target units.
    """
    count = len(next(iter(rows.values())))
    figure = new_figure(5.2 * count, 3.3 * len(rows) + 0.6, "Distribution of predicted and true values", heading)
    grid = figure.subplots(len(rows), count, squeeze=False, sharex=True, sharey="col")
    for number, (line, (row, parts)) in enumerate(zip(grid, rows.items(), strict=True)):
        for letter, (axes, (said, (truth, predicted))) in enumerate(zip(line, parts.items(), strict=True)):
            _densities(axes, truth, predicted, row, limits)
            axes.set_title(f"({chr(ord('a') + number * count + letter)}) {name_text(row)}, {plain(said)}", fontsize=10)
            axes.set(xlim=limits)
            axes.legend(fontsize=8, frameon=False)
            clean_axes(axes)
    for axes in grid[-1]:
        axes.set_xlabel(name_text(name))
    for axes in grid[:, 0]:
        axes.set_ylabel("density")
    return figure


def _densities(axes: Any, truth: np.ndarray, predicted: np.ndarray, row: str, limits: tuple[float, float]) -> None:
    density(axes, truth, *limits, TRUE, f"true (n = {len(truth)})")
    density(axes, predicted, *limits, CHOSEN, f"predicted, {name_text(row)}", "--")


def _outline(axes: Any, values: np.ndarray, limits: tuple[float, float]) -> float:
    """Draws a thin density; its peak, 0 where the values do not spread."""
    from scipy.stats import gaussian_kde

    if len(values) < 3 or np.std(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return 0.0
    grid = np.linspace(*limits, 300)
    heights = gaussian_kde(values)(grid)
    axes.plot(grid, heights, color=GREY, linewidth=0.7, alpha=0.7, zorder=1)
    return float(heights.max())


def class_values(
    classes: Sequence[Mapping[str, Any]],
    *,
    best: str,
    title: str,
    guessers: Mapping[str, str],
    parts: Mapping[str, str],
    heading: Heading,
) -> Figure:
    """The judged number of each class: the chosen row as a bar, guessers as marks.

    Args:
        classes: of recipe.json.
        title: what the number is.
        guessers: {guesser: what to call it}.
        parts: {part: what its clips are}; classes of a later part carry stars.
    """
    stars = {part: "*" * number for number, part in enumerate(parts)}
    shown = sorted(classes, key=lambda entry: (len(stars[entry["part"]]), entry["label"]))[:MAX_CLASSES][::-1]
    figure = new_figure(8.6, 1.7 + 0.32 * len(shown), f"{title[:1].upper()}{title[1:]} by class", heading)
    axes = figure.subplots()
    places = np.arange(len(shown))
    handles: list[Any] = [
        axes.barh(places, [entry["ours"] for entry in shown], height=0.62, color=PALETTE[5], label=name_text(best))
    ]
    for (marker, color, size), (name, label) in zip(_MARKS, guessers.items(), strict=False):
        values = [entry["guesses"][name] for entry in shown]
        handles += axes.plot(values, places, marker, color=color, markersize=size, label=label)
    labels = [f"{name_text(e['label'] or 'no label')} ({e['clips']}) {stars[e['part']]}".rstrip() for e in shown]
    axes.set_yticks(places, labels, fontsize=8)
    said = "".join(f"; {stars[part]} {text}" for part, text in parts.items() if stars[part])
    axes.set(xlabel=f"{title}; in brackets clips{said}")
    axes.legend(
        handles=handles, fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(handles)
    )  # fmt: skip
    clean_axes(axes)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.grid(visible=False, axis="y")
    return figure


def batch_rates(rows: Mapping[str, Sequence[float]], *, heading: Heading) -> Figure:
    """The learning rate of every batch (from 1), a line for each row."""
    figure = new_figure(6.4, 3.4, "Learning rate of every batch", heading)
    axes = figure.subplots()
    for place, (row, rates) in enumerate(rows.items()):
        color, dash = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]
        axes.plot(range(1, len(rates) + 1), rates, linewidth=1.2, label=name_text(row), color=color, linestyle=dash)
    axes.set(xlabel="batch", ylabel="learning rate")
    integer_ticks(axes.xaxis)
    axes.legend(fontsize=8, frameon=False)
    clean_axes(axes)
    return figure


def calibration(parts: Mapping[str, np.ndarray], *, best: str, heading: Heading) -> Figure:
    """How often the truth lies in the lowest share p of the predicted distribution, against p: the diagonal is right.

    Args:
        parts: {part: (n,) mass of the prediction below the truth}.
    """
    figure = new_figure(5.4, 4.7, f"Calibration of the predicted distribution, {name_text(best)}", heading)
    axes = figure.subplots()
    levels = np.linspace(0, 1, 101)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="calibrated")
    styles = zip((PALETTE[0], PALETTE[3], PALETTE[2]), DASHES, strict=False)
    for (part, masses), (color, dash) in zip(parts.items(), styles, strict=False):
        share = (masses[None] <= levels[:, None]).mean(axis=1)
        axes.plot(levels, share, color=color, linewidth=1.6, linestyle=dash, label=f"{part} (n = {len(masses)})")
    axes.set(xlabel="share p of the predicted distribution", ylabel="clips whose true value lies in it", aspect="equal")
    axes.legend(fontsize=8, frameon=False)
    clean_axes(axes)
    return figure
