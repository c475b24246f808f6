"""The figures of probes and training runs, made of plain arrays and a `Heading` that says what they are of.

Random weights are said on the picture itself, because a picture travels without its page. Colours are those
of Okabe and Ito (2008), which stay apart for colour-blind readers; classes past the eighth also change the
marker. `reelbank.heads.reports.drawing` holds what the figures share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.reports.confusion import confusion_matrix as confusion_matrix
from reelbank.heads.reports.drawing import (
    DASHES,
    GREY,
    HATCHES,
    MAX_CLASSES,
    PALETTE,
    WIDTH_INCHES,
    bin_edges,
    clean_axes,
    cycle,
    density,
    integer_ticks,
    map_axes,
    name_text,
    name_texts,
    new_figure,
    outside_text,
    point_size,
    split_order,
    style_of,
    takes_part,
)
from reelbank.heads.reports.drawing import Heading as Heading
from reelbank.heads.reports.drawing import png as png
from reelbank.heads.reports.learning_curves import learning_curves as learning_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_ROWS_BESIDE, _COLUMNS_BELOW = 20, 3
"""Classes in a legend beside the points; of more it stands below them."""


def scatter_by_class(
    coordinates: NDArray[np.floating],
    labels: Sequence[str],
    splits: Sequence[str],
    *,
    title: str,
    heading: Heading,
    numbered: bool = False,
    highlight: Sequence[str] = (),
) -> Figure:
    """Points (n, 2) coloured by class; clips that take no part in training and test hollow. Past 64 classes the rarest
    are grey, with `highlight` all but these, which then lie above the others.

    With `numbered` the number of each class stands at the median of its points and before its name: known classes from
    0 in alphabetical order, which is the order of a head's outputs where all are shown, then those that take no part.
    """
    from matplotlib.lines import Line2D

    names, counts = np.unique(np.asarray(labels, dtype=str), return_counts=True)
    unknown = ~takes_part(splits)
    known = set(np.asarray(labels, dtype=str)[~unknown].tolist())
    shown = sorted(highlight or names[np.argsort(-counts, kind="stable")[:MAX_CLASSES]])
    numbers = {name: i for i, name in enumerate(sorted(shown, key=lambda name: (name not in known, name)))}
    below = len(shown) > _ROWS_BESIDE
    rows_below = -(-(len(shown) + 2) // _COLUMNS_BELOW)
    figure = new_figure(WIDTH_INCHES, 5.2 + 0.16 * rows_below if below else 4.8, title, heading)
    axes = figure.subplots()
    of_class = np.asarray(labels, dtype=str)
    size = point_size(len(coordinates))
    handles: list[Line2D] = []
    texts = dict(zip(shown, name_texts(shown), strict=True))
    parts = [
        (
            f"{numbers[name]} {texts[name]}" if numbered else texts[name],
            of_class == name,
            *style_of(i),
        )
        for i, name in enumerate(sorted(shown, key=lambda name: numbers[name]) if numbered else shown)
    ]
    if others := len(names) - len(shown):
        text = f"{others} other {'class' if others == 1 else 'classes'}" if highlight else f"{others} rarer classes"
        parts.insert(0 if highlight else len(parts), (text, ~np.isin(of_class, shown), GREY, "."))
    is_below = bool(highlight) and len(shown) < len(names)
    for text, mask, color, marker in parts:
        for hollow in (False, True):
            points = coordinates[mask & (unknown == hollow)]
            face = "none" if hollow else color
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=size * (1.6 if hollow else 1),
                marker=marker,
                facecolors=face,
                edgecolors=color if hollow else "white",
                linewidths=0.9 if hollow else 0.25 * (size > 8),  # a white edge would eat a small mark
                alpha=0.9,
            )
        if numbered and color != GREY:
            _number_at(axes, coordinates[mask], text.partition(" ")[0])
        hollow = bool(unknown[mask].all())
        face = "none" if hollow else color
        handles.append(Line2D([], [], marker=marker, color=color, markerfacecolor=face, linestyle="", label=text))
    if is_below:  # drawn first, named last
        handles.append(handles.pop(0))
    if unknown.any():
        handles.append(
            Line2D(
                [],
                [],
                marker="o",
                color="#555555",
                markerfacecolor="none",
                linestyle="",
                label=f"hollow: {outside_text(splits)}",
            )
        )
    figure.legend(
        handles=handles,
        loc="outside lower center" if below else "outside right center",  # beside the title there is no room for it
        fontsize=7 if below else 8,
        ncols=_COLUMNS_BELOW if below else 1,
        frameon=False,
        handletextpad=0.2,
        columnspacing=0.8,
    )
    map_axes(axes)
    return figure


def _number_at(axes: Axes, points: NDArray[np.floating], text: str) -> None:
    """A class number at the median of its points, readable on any of them."""
    from matplotlib.patheffects import withStroke

    x, y = np.median(points, axis=0)
    axes.text(
        x, y, text, fontsize=9, fontweight="bold", ha="center", va="center", zorder=5,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )  # fmt: skip


def scatter_by_value(
    coordinates: NDArray[np.floating],
    values: NDArray[np.floating],
    splits: Sequence[str],
    *,
    value_name: str,
    title: str,
    heading: Heading,
) -> Figure:
    """Points (n, 2) coloured by a number with a colour bar; rows without a number are small and grey."""
    figure = new_figure(WIDTH_INCHES, 4.9, title, heading)
    axes = figure.subplots()
    known = np.isfinite(values)
    unknown = ~takes_part(splits)
    size = point_size(len(coordinates))
    axes.scatter(coordinates[~known, 0], coordinates[~known, 1], s=size / 2, color=GREY, alpha=0.5, linewidths=0)
    limits = {"vmin": values[known].min(), "vmax": values[known].max()} if known.any() else {}
    for hollow in (False, True):
        mask = known & (unknown == hollow)
        if not mask.any():
            continue
        marker = "D" if hollow else "o"
        label = outside_text(splits) if hollow else "known splits"
        drawn = axes.scatter(
            coordinates[mask, 0],
            coordinates[mask, 1],
            c=values[mask],
            s=size,
            marker=marker,
            cmap="viridis",
            linewidths=0.6 if hollow else 0,
            edgecolors="black" if hollow else "none",
            label=label,
            **limits,
        )
    if known.any():
        figure.colorbar(drawn, ax=axes, label=name_text(value_name), shrink=0.8)
    if unknown.any():
        axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, -0.07), ncols=2)
    map_axes(axes)
    return figure


def cluster_sizes(
    sizes: NDArray[np.integer], purities: NDArray[np.floating], *, majority_share: float, heading: Heading
) -> Figure:
    """Cluster sizes from the largest to the smallest, and how pure the clusters are.

    Args:
        sizes: (K,) rows of each cluster.
        purities: (K,) share of the commonest label in each cluster, in [0, 1]; NaN for an empty one.
        majority_share: share of the commonest label in all rows: what a cluster of random rows tends to.
    """
    figure = new_figure(10, 4.4, f"k-means: {len(sizes)} clusters, size and purity", heading)
    left, right = figure.subplots(1, 2)
    ordered = np.sort(sizes)[::-1]
    left.bar(np.arange(1, len(sizes) + 1), ordered, width=1.0 if len(sizes) > 40 else 0.8, color=PALETTE[0])
    left.set(xlabel="cluster, from the largest", ylabel="rows")
    integer_ticks(left.xaxis)
    integer_ticks(left.yaxis)
    filled = np.isfinite(purities)
    right.hist(
        purities[filled],
        bins=np.linspace(0, 1, 21).tolist(),
        weights=sizes[filled],
        color=PALETTE[2],
        edgecolor="white",
    )
    right.axvline(majority_share, color=PALETTE[3], linestyle="--", linewidth=1.5)
    right.annotate(
        f"commonest label of all rows: {majority_share:.2f}",
        (majority_share, 1.01),
        xycoords=("data", "axes fraction"),
        color=PALETTE[3],
        fontsize=8,
        ha="left" if majority_share < 0.5 else "right",
    )
    right.set(xlabel="share of the commonest label in the cluster", ylabel="rows in such clusters", xlim=(0, 1))
    for axes in (left, right):
        clean_axes(axes)
    return figure


def predicted_vs_true(
    groups: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
    *,
    target_name: str,
    unit: str,
    heading: Heading,
) -> Figure:
    """Predicted against true values, and both distributions, for each split on common axes.

    Args:
        groups: split -> (true (n,), predicted (n,)) in target units; pairs with a NaN are left out.
        unit: of the target; '' for none.
    """
    name = f"{target_name} ({unit})" if unit else target_name
    # One split: both panels side by side; several: one column each.
    columns, width = (2, 9.2) if len(groups) < 2 else (len(groups), 4.6 * len(groups))
    height = 4.4 if len(groups) < 2 else 7.6
    figure = new_figure(width, height, f"Predicted and true {name_text(name)}", heading)
    panels = np.ravel(figure.subplots(1 if len(groups) < 2 else 2, columns))
    everything = np.concatenate([np.concatenate(pair) for pair in groups.values()] or [np.zeros(1)])
    everything = everything[np.isfinite(everything)]
    low, high = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin
    for column, (split, (true, predicted)) in enumerate(groups.items()):
        keep = np.isfinite(true) & np.isfinite(predicted)
        true, predicted = true[keep], predicted[keep]
        top, bottom = panels[column], panels[column + max(1, len(groups))]
        top.plot([low, high], [low, high], color=GREY, linewidth=1, zorder=0)
        top.scatter(true, predicted, s=point_size(len(true)), color=PALETTE[0], alpha=0.6, linewidths=0)
        top.set(xlim=(low, high), ylim=(low, high), xlabel="true", ylabel="predicted", aspect="equal")
        top.set_title(f"{name_text(split)} (n = {len(true)})", fontsize=10)
        density(bottom, true, low, high, PALETTE[2], "true")
        density(bottom, predicted, low, high, PALETTE[3], "predicted", "--")
        bottom.set(xlim=(low, high), xlabel=name_text(name), ylabel="density")
        bottom.legend(fontsize=8, frameon=False)
        clean_axes(top)
        clean_axes(bottom)
    return figure


def class_counts(labels: Sequence[str], splits: Sequence[str], *, heading: Heading) -> Figure:
    """Clips of each class, stacked by split; past 64 classes only the commonest."""
    names, totals = np.unique(np.asarray(labels, dtype=str), return_counts=True)
    order = np.argsort(-totals, kind="stable")[:MAX_CLASSES][::-1]
    split_names = split_order(splits)
    title = "Clips per class and split" + (f" ({len(order)} commonest)" if len(order) < len(names) else "")
    figure = new_figure(8.0, 1.9 + 0.22 * len(order), title, heading)
    axes = figure.subplots()
    of_class, of_split = np.asarray(labels, dtype=str), np.asarray(splits, dtype=str)
    left = np.zeros(len(order))
    for place, split in enumerate(split_names):
        width = np.array([np.sum((of_class == names[i]) & (of_split == split)) for i in order])
        if not width.any():
            continue  # its clips are of classes that are not shown
        style: dict[str, Any] = {"color": PALETTE[place % 8], "hatch": HATCHES[place % 4], "edgecolor": "white"}
        name = name_text(split) or "(none)"
        axes.barh(range(len(order)), width, left=left, label=name, height=0.8, linewidth=0, **style)
        left += width
    axes.set_yticks(range(len(order)), name_texts([names[i] for i in order]), fontsize=8)
    axes.set(xlabel="clips", ylim=(-0.6, len(order) - 0.4))
    integer_ticks(axes.xaxis)
    axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(split_names))
    clean_axes(axes)
    return figure


def target_distribution(values: NDArray[np.floating], splits: Sequence[str], *, name: str, heading: Heading) -> Figure:
    """Histogram of a numeric target, one outline per split, on common bins; NaN rows are left out."""
    figure = new_figure(8.0, 4.2, f"Distribution of {name_text(name)}", heading)
    axes = figure.subplots()
    of_split = np.asarray(splits, dtype=str)
    finite = np.isfinite(values)
    edges = bin_edges(values[finite], 30)
    split_names = split_order(splits)
    for place, (color, split) in enumerate(zip(cycle(len(split_names)), split_names, strict=True)):
        part = values[finite & (of_split == split)]
        if not len(part):
            continue
        label = f"{name_text(split) or '(none)'} (n = {len(part)})"
        axes.hist(part, bins=edges, histtype="stepfilled", alpha=0.15, color=color)
        axes.hist(
            part, bins=edges, histtype="step", linewidth=1.6, color=color, linestyle=DASHES[place % 4], label=label
        )
    axes.set(xlabel=name_text(name), ylabel="clips")
    if finite.any():
        axes.legend(fontsize=8, frameon=False)
    clean_axes(axes)
    return figure
