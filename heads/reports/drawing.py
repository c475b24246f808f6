"""What every figure shares: palette, heading, axes, names from data, and the way to PNG bytes.

Only matplotlib's object interface: no pyplot, no global state, safe in threads.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7A5C00", "#000000")
"""Okabe and Ito's colours; their yellow, too faint on white, is replaced by a dark brown."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
MAX_CLASSES = len(PALETTE) * len(MARKERS)
GREY = "#9a9a9a"
WARNING_COLOR = "#b00020"
DPI = 130
_NAME_LENGTH = 26


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What a picture is of.

    Attributes:
        source: store (or run) and backbone, e.g. 'flow.zarr · flow · tap hof'.
        count: what n counts, e.g. 'n = 1200 clips'.
        warning: shown in red below the picture; '' for none.
    """

    source: str
    count: str
    warning: str = ""


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, without a date: the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Class names may be in any script; a missing glyph is drawn as a box, which is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width_inches: float, height_inches: float, title: str, heading: Heading) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), dpi=DPI, layout="constrained")
    subtitle = " · ".join(part for part in (heading.source, heading.count) if part)
    # A large figure is shrunk to the page: its title grows with it.
    size = 10 * max(1.0, width_inches / 9)
    letters = int(0.95 * width_inches * 72 / (0.58 * size))  # a letter is about 0.58 em wide
    figure.suptitle("\n".join([title, *map(plain, textwrap.wrap(subtitle, letters))]), fontsize=size)
    if heading.warning:
        # A bold letter is about 0.7 em wide: a longer line would lose its first words at the edge.
        letters = int(0.95 * width_inches * 72 / (0.7 * 0.9 * size))
        text = "\n".join(textwrap.wrap(plain(heading.warning), letters))
        figure.supxlabel(text, fontsize=0.9 * size, color=WARNING_COLOR, fontweight="bold")
    return figure


def plain(text: str) -> str:
    """Text from data without its meaning as matplotlib markup: '$' would start a formula."""
    return text.replace("$", r"\$")


def name_text(text: str) -> str:
    """A name from data, short enough for a legend; a leading '_' would hide it there."""
    text = " ".join(str(text).split())
    text = text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
    return plain(f" {text}" if text.startswith("_") else text)


def split_order(splits: Sequence[str]) -> list[str]:
    known = [name for name in ("train", "val", "test", "unknown") if name in set(splits)]
    return [*known, *sorted(set(splits) - set(known))]


def unseen_classes(labels: Sequence[str] | NDArray[Any], splits: Sequence[str] | NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are drawn hollow (R,): those of split 'unknown', and unused ones whose class only such splits have."""
    of_class, of_split = np.asarray(labels, dtype=str), np.asarray(splits, dtype=str)
    outside = np.isin(of_split, ("unknown", "unused"))
    unseen = outside & (of_class != "") & ~np.isin(of_class, of_class[~outside])
    hollow: NDArray[np.bool_] = unseen | (of_split == "unknown")
    return hollow


def cycle(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def point_size(count: int) -> float:
    """Marker area in square points: large for few rows, 4 for many."""
    return float(np.clip(9000 / max(count, 1), 4, 34))


def density(axes: Axes, values: NDArray[np.floating], low: float, high: float, color: str, label: str) -> None:
    """Gaussian kernel density (Scott's rule); a histogram where the values do not spread."""
    from scipy.stats import gaussian_kde

    if len(values) < 3 or np.std(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        axes.hist(
            values,
            bins=np.linspace(low, high, 60).tolist(),
            density=bool(len(values)),
            color=color,
            alpha=0.5,
            label=label,
        )
        return
    grid = np.linspace(low, high, 300)
    density = gaussian_kde(values)(grid)
    axes.plot(grid, density, color=color, linewidth=1.6, label=label)
    axes.fill_between(grid, density, color=color, alpha=0.15)


def map_axes(axes: Axes) -> None:
    """The axes of a map carry no unit: no ticks, the same scale on both."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    for side in axes.spines.values():
        side.set_color("#cccccc")


def integer_ticks(axis: Any) -> None:
    """Ticks of `axes.xaxis` or `axes.yaxis` at whole numbers only: it counts something."""
    axis.get_major_locator().set_params(integer=True)


def clean_axes(axes: Axes) -> None:
    """No frame above and right, faint lines behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
