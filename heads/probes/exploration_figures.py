"""The pictures of an exploration: classes, the target, sizes of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from reelbank.heads.probes.exploration import SIZES
from reelbank.heads.reports.drawing import (
    GREY,
    MARKERS,
    MAX_CLASSES,
    PALETTE,
    Heading,
    clean_axes,
    cycle,
    name_text,
    name_texts,
    new_figure,
    png,
    split_order,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from reelbank.heads.probes.exploration import Exploration

_BOX_PANELS = ("duration_seconds", "num_frames", "width_px", "height_px")
_FEWEST_PERCENT = 3.0
"""Slices of a pie below this share carry no text of their own; the list beside it names them all."""


def draw_exploration(found: Exploration, heading: Heading) -> dict[str, bytes]:
    """{file name: PNG} of every picture that the columns allow."""
    from reelbank.heads.examples.targets import UNITS
    from reelbank.heads.reports import figures as pictures

    figures: dict[str, Figure] = {}
    target_name = UNITS.get(found.target_name, found.target_name)
    splits = found.splits.tolist()
    labels = np.where(found.labels == "", "(no label)", found.labels)
    has_labels = bool((found.labels != "").any())
    if has_labels:
        figures["class-counts.png"] = pictures.class_counts(labels.tolist(), splits, heading=heading)
    if found.target is not None and found.has_target:
        figures["target-distribution.png"] = pictures.target_distribution(
            found.target, splits, name=target_name, heading=heading
        )
        if has_labels:
            figures["target-by-class.png"] = class_means(
                found.target, labels, found.splits, name=target_name, heading=heading
            )
        figures["target-ranges.png"] = ranges_pie(*found.ranges(), name=target_name, heading=heading)
    panels = {SIZES[name]: found.sizes[name] for name in _BOX_PANELS if np.isfinite(found.sizes[name]).any()}
    if panels:
        figures["clip-sizes.png"] = size_boxes(panels, found.splits, heading=heading)
    if has_labels and np.isfinite(found.sizes["duration_seconds"]).any():
        figures["class-durations.png"] = class_boxes(
            found.sizes["duration_seconds"], labels, name=SIZES["duration_seconds"], heading=heading
        )
    return {name: png(figure) for name, figure in figures.items()}


def class_means(
    values: NDArray[np.float64], labels: NDArray[np.str_], splits: NDArray[np.str_], *, name: str, heading: Heading
) -> Figure:
    """Mean of a target per class and split with one standard deviation, classes from the highest mean down.

    Past 64 classes only the commonest.
    """
    finite = np.isfinite(values)
    shown, left_out = _commonest(labels[finite])
    shown.sort(key=lambda label: float(values[finite & (labels == label)].mean()))
    title = f"{name_text(name)} per class: mean and standard deviation" + (left_out and f" ({left_out})")
    figure = new_figure(8.0, 2.1 + 0.24 * len(shown), title, heading)
    axes = figure.subplots()
    names = split_order(splits[finite & np.isin(labels, shown)].tolist())
    # Splits of one class stand below each other, within 0.6 of the distance between classes.
    distance = min(0.2, 0.6 / max(len(names), 1))
    present = [[name for name in names if (finite & (splits == name) & (labels == label)).any()] for label in shown]
    for place, (color, split) in enumerate(zip(cycle(len(names)), names, strict=True)):
        parts = [
            (y + distance * ((len(there) - 1) / 2 - there.index(split)), values[finite & (splits == split) & of_class])
            for y, (there, of_class) in enumerate(zip(present, (labels == label for label in shown), strict=True))
            if split in there
        ]
        axes.errorbar(
            [part.mean() for _, part in parts],
            [y for y, _ in parts],
            xerr=[part.std() for _, part in parts],
            fmt=MARKERS[place % 8],
            markersize=3.5,
            elinewidth=1.1,
            capsize=1.8,
            color=color,
            label=name_text(split) or "(none)",
        )
    _class_axis(axes, shown)
    axes.set(xlabel=name_text(name))
    axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(names))
    return figure


def ranges_pie(edges: NDArray[np.float64], counts: NDArray[np.int64], *, name: str, heading: Heading) -> Figure:
    """Share of the clips in each range of a target, from the lowest (light) to the highest (dark)."""
    from matplotlib import colormaps

    figure = new_figure(8.0, 5.0, f"Clips by range of {name_text(name)}", heading)
    axes = figure.subplots()
    shades = colormaps["viridis_r"](np.linspace(0.05, 0.95, len(counts)))
    filled = counts > 0
    total = int(counts.sum())
    wedges, _, *percents = axes.pie(
        counts[filled],
        colors=shades[filled].tolist(),
        startangle=90,
        counterclock=False,
        autopct=lambda share: f"{share:.0f} %" if share >= _FEWEST_PERCENT else "",
        pctdistance=0.8,
        wedgeprops={"linewidth": 1, "edgecolor": "white", "width": 0.45},
        textprops={"fontsize": 9},
    )
    for text, shade in zip(percents[0], shades[filled], strict=True):
        text.set_color("white" if shade[:3] @ (0.299, 0.587, 0.114) < 0.55 else "black")
    parts = zip(edges[:-1][filled], edges[1:][filled], counts[filled], strict=True)
    axes.legend(
        wedges,
        [f"{low:g} to {high:g}: {count} ({100 * count / total:.1f} %)" for low, high, count in parts],
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        fontsize=9,
        frameon=False,
        title=name_text(name),
    )
    return figure


def size_boxes(panels: dict[str, NDArray[np.float64]], splits: NDArray[np.str_], *, heading: Heading) -> Figure:
    """Box plots of several sizes, one box per split: median, quartiles, whiskers of 1.5 IQR, points beyond."""
    names = split_order(splits.tolist())
    figure = new_figure(2.6 * len(panels) + 0.6, 4.2, "Sizes of the clips", heading)
    for axes, (title, values) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True):
        parts = [values[(splits == split) & np.isfinite(values)] for split in names]
        ticks = [f"{name_text(split) or '(none)'}\nn = {len(part)}" for split, part in zip(names, parts, strict=True)]
        _boxes(axes, parts, cycle(len(names)), vertical=True)
        axes.set_xticks(range(len(names)), ticks, fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.1)
        clean_axes(axes)
    return figure


def class_boxes(values: NDArray[np.float64], labels: NDArray[np.str_], *, name: str, heading: Heading) -> Figure:
    """One box per class, from the highest median down; past 64 classes only the commonest."""
    finite = np.isfinite(values)
    shown, left_out = _commonest(labels[finite])
    shown.sort(key=lambda label: float(np.median(values[finite & (labels == label)])))
    title = f"{name[0].upper()}{name[1:]} per class" + (left_out and f" ({left_out})")
    figure = new_figure(8.0, 2.0 + 0.22 * len(shown), title, heading)
    axes = figure.subplots()
    _boxes(axes, [values[finite & (labels == label)] for label in shown], [PALETTE[0]] * len(shown), vertical=False)
    _class_axis(axes, shown)
    axes.set(xlabel=name)
    return figure


def _commonest(labels: NDArray[np.str_]) -> tuple[list[str], str]:
    """Class names that fit a picture, and a phrase where that are not all."""
    names, counts = np.unique(labels, return_counts=True)
    shown = names[np.argsort(-counts, kind="stable")[:MAX_CLASSES]].tolist()
    return shown, f"{len(shown)} commonest of {len(names)}" if len(shown) < len(names) else ""


def _boxes(axes: Axes, parts: Sequence[NDArray[np.float64]], colors: Sequence[str], *, vertical: bool) -> None:
    drawn = axes.boxplot(
        parts,
        positions=range(len(parts)),
        orientation="vertical" if vertical else "horizontal",
        widths=0.55,
        patch_artist=True,
        manage_ticks=False,
        flierprops={"marker": ".", "markersize": 3, "markerfacecolor": GREY, "markeredgecolor": "none"},
        medianprops={"color": "black", "linewidth": 1.3},
    )
    for box, color in zip(drawn["boxes"], colors, strict=True):
        box.set(facecolor=color, alpha=0.6, linewidth=0.8)


def _class_axis(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), name_texts(labels), fontsize=8)
    axes.set(ylim=(-0.7, len(labels) - 0.3))
    clean_axes(axes)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
