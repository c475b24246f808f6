"""What every figure shares: palette, heading, axes, names from data, and the way to PNG bytes.

Only matplotlib's object interface: no pyplot, no global state, safe in threads.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7A5C00", "#000000")
"""Okabe and Ito's colours; their yellow, too faint on white, is replaced by a dark brown."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "////", "....", "xxxx")
MAX_CLASSES = len(PALETTE) * len(MARKERS)
GREY = "#9a9a9a"
WARNING_COLOR = "#b00020"
DPI = 300
WIDTH_INCHES = 6.3
"""16 cm, the text width of a page: no figure is wider, so that no letter is shrunk there."""
LEAST_POINTS, TICK_POINTS, LABEL_POINTS = 7.0, 8.0, 9.0
_NAME_LENGTH = 26
_also: ContextVar[str] = ContextVar("figures", default="png")


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


class Drawn(bytes):
    """A figure as PNG.

    Attributes:
        also: {suffix: the same figure}, in the format of `figures_as`.
    """

    also: Mapping[str, bytes] = MappingProxyType({})


@contextmanager
def figures_as(kind: str) -> Iterator[None]:
    """Within it, `png` draws each figure as `kind` as well: `svg`, `pdf`, or `png` for no more."""
    token = _also.set(kind)
    try:
        yield
    finally:
        _also.reset(token)


def files_of(name: str, content: bytes) -> dict[str, bytes]:
    """{file name: content} of a picture `name`.png: the PNG, and what else it was drawn as."""
    also = content.also if isinstance(content, Drawn) else {}
    return {name: content, **{f"{name.removesuffix('.png')}.{suffix}": data for suffix, data in also.items()}}


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, without a date: the same figure gives the same bytes."""
    _letter(figure)
    drawn = Drawn(_png(figure))
    if (kind := _also.get()) != "png":
        drawn.also = {kind: _vector(figure, kind)}
    return drawn


def _letter(figure: Figure) -> None:
    """No letter below LEAST_POINTS, and those of axes no larger than what stands beside them."""
    from matplotlib.text import Text

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set_fontsize(min(LABEL_POINTS, axis.label.get_fontsize()))
            size = min((label.get_fontsize() for label in axis.get_ticklabels()), default=TICK_POINTS)
            axis.set_tick_params(labelsize=min(TICK_POINTS, size))
    for text in figure.findobj(Text):
        text.set_fontsize(max(LEAST_POINTS, text.get_fontsize()))


def style_of(place: int) -> tuple[str, str]:
    """(colour, marker) of class `place`: neighbours differ in both, and no two of MAX_CLASSES are alike."""
    return PALETTE[place % 8], MARKERS[(place + place // 8) % 8]


def _vector(figure: Figure, kind: str) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    # Without a salt of one's own the names in an SVG are drawn at random.
    with mpl.rc_context({"svg.hashsalt": "reelbank"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format=kind, metadata={{"svg": "Date", "pdf": "CreationDate"}[kind]: None})
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Class names may be in any script; a missing glyph is drawn as a box, which is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width_inches: float, height_inches: float, title: str, heading: Heading) -> Figure:
    """An empty figure with its heading, at most WIDTH_INCHES wide."""
    from matplotlib.figure import Figure

    width = min(width_inches, WIDTH_INCHES)
    # What is made narrower needs less height, but its letters as much as before.
    height = height_inches * max(0.65, width / width_inches)
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    subtitle = " · ".join(part for part in (heading.source, heading.count) if part)
    size = 10
    letters = int(0.95 * width * 72 / (0.58 * size))  # a letter is about 0.58 em wide
    figure.suptitle("\n".join([title, *map(plain, textwrap.wrap(subtitle, letters))]), fontsize=size)
    if heading.warning:
        # A bold letter is about 0.7 em wide: a longer line would lose its first words at the edge.
        letters = int(0.95 * width * 72 / (0.7 * 0.9 * size))
        text = "\n".join(textwrap.wrap(plain(heading.warning), letters))
        figure.supxlabel(text, fontsize=0.9 * size, color=WARNING_COLOR, fontweight="bold")
    return figure


def plain(text: str) -> str:
    """Text from data without its meaning as matplotlib markup: '$' would start a formula."""
    return text.replace("$", r"\$")


def name_text(text: str) -> str:
    """A name from data, short enough for a legend; a leading '_' would hide it there."""
    return name_texts([text])[0]


def name_texts(names: Sequence[str]) -> list[str]:
    """Each of `names` as `name_text`: those that would look alike keep their end instead, or get a number."""
    texts = [" ".join(str(name).split()) for name in names]
    short = [text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…" for text in texts]
    for shorten in (_with_end, None):
        seen = Counter(short)
        alike = [i for i, text in enumerate(short) if seen[text] > 1 and len(texts[i]) > _NAME_LENGTH]
        for number, i in enumerate(alike, start=1):
            short[i] = shorten(texts[i]) if shorten else f"{texts[i][: _NAME_LENGTH - 6]}… #{number}"
    return [plain(f" {text}" if text.startswith("_") else text) for text in short]


def _with_end(text: str) -> str:
    head = _NAME_LENGTH // 3
    return f"{text[:head]}…{text[head + 1 - _NAME_LENGTH :]}"


def takes_part(splits: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) whether each is trained on or tested: train, val or test; where there is none of them, all but unknown."""
    of_split = np.asarray(splits, dtype=str)
    is_part = np.isin(of_split, ("train", "val", "test"))
    return is_part if is_part.any() else of_split != "unknown"


def outside_text(splits: Sequence[str]) -> str:
    """The splits that take no part, in words: `split unknown, unused`; '' where all do."""
    names = np.unique(np.asarray(splits, dtype=str)[~takes_part(splits)]).tolist()
    said = [name_text(name) or "(none)" for name in names[:3]] + ["..."] * (len(names) > 3)
    return "split " + ", ".join(said) if said else ""


def split_order(splits: Sequence[str]) -> list[str]:
    known = [name for name in ("train", "val", "test", "unknown") if name in set(splits)]
    return [*known, *sorted(set(splits) - set(known))]


def cycle(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def point_size(count: int) -> float:
    """Marker area in square points: large for few rows, 4 for many."""
    return float(np.clip(9000 / max(count, 1), 4, 34))


def bin_edges(values: NDArray[np.floating], count: int) -> list[float]:
    """Ascending edges of `count` bins, or of as many as floats between the least and the largest value allow."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    edges = np.unique(np.linspace(low, high, count + 1))
    if len(edges) < 3:
        half = max(0.5, 2 * float(np.spacing(abs(low))))
        edges = np.array([low - half, high + half])
    return [float(edge) for edge in edges]


def density(
    axes: Axes, values: NDArray[np.floating], low: float, high: float, color: str, label: str, dash: str = "-"
) -> None:
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
    axes.plot(grid, density, color=color, linewidth=1.6, linestyle=dash, label=label)
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
