"""The interactive map of a probe: points that show their clip's thumbnail and names under the pointer."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.reports.drawing import GREY, MARKERS, MAX_CLASSES, style_of, takes_part
from reelbank.heads.reports.html import Script, thumbnail_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from reelbank.heads.probes.rows import ProbeRows
    from reelbank.store.reader import Store

MAX_POINTS = 20_000
"""Points on the interactive map; of more rows a seeded sample is shown, and the page says so."""

MAX_THUMBNAILS = 2_000
"""Points that carry a picture, on all maps of a page together: about 3 kB each in the page."""

_CHARACTERS = {
    "square": "■", "triangle": "▲", "diamond": "◆", "inverted_triangle": "▼", "plus": "✚", "x": "✖", "hex": "⬢",
}  # fmt: skip
_BOKEH_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "x", "hex")

# One string per field: bokeh escapes every @value, and leaves the image out where there is none.
_TOOLTIP = (
    '<div style="font:13px system-ui;color:#1b1f24;max-width:220px;overflow-wrap:anywhere">'
    '<img src="@thumbnail" width="144" height="108" style="display:@shown"><br>'
    "<b>@clip_id</b><br>@label · @split@more</div>"
)

_START = Script(
    text="""
"use strict";
(async () => {
  const canvases = (root) => [...root.querySelectorAll("*")].reduce(
    (sum, node) => sum + (node.tagName === "CANVAS") + (node.shadowRoot ? canvases(node.shadowRoot) : 0), 0);
  for (const place of document.querySelectorAll("[data-expected]")) {
    const item = JSON.parse(document.getElementById(`${place.id}-data`).textContent);
    await Bokeh.embed.embed_item(item, place.id);
    const settle = () => {
      const count = canvases(place);
      if (count === 0) { requestAnimationFrame(settle); return; }
      place.dataset.canvases = count;
      place.dataset.points = place.dataset.expected;
    };
    settle();
  }
})();
"""
)


@cache
def _bokeh() -> Script:
    from bokeh.resources import Resources

    # The core alone: widgets, tables, WebGL and MathJax would triple the page.
    return Script(text="\n".join(Resources(mode="inline", components=["bokeh"]).js_raw))


def scripts() -> tuple[Script, ...]:
    """What the page must run: bokeh itself, then the start of the map."""
    return _bokeh(), _START


def item(
    store: Store,
    rows: ProbeRows,
    coordinates: NDArray[np.floating],
    *,
    seed: int = 0,
    place: str = "scatter",
    most_thumbnails: int = MAX_THUMBNAILS,
) -> tuple[dict[str, Any], int]:
    """The map as bokeh JSON, and how many points it shows.

    Args:
        place: id of the element that it is shown in.
        most_thumbnails: points that carry a picture.
    """
    from bokeh.core.types import ID
    from bokeh.embed import json_item
    from bokeh.models import ColumnDataSource, HoverTool
    from bokeh.plotting import figure

    chosen = np.arange(len(rows))
    if len(rows) > MAX_POINTS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), MAX_POINTS, replace=False))
    if rows.highlight:  # what is drawn later lies above
        chosen = chosen[np.argsort(np.isin(rows.labels[chosen], rows.highlight), kind="stable")]
    source = ColumnDataSource(_columns(store, rows, coordinates, chosen, most_thumbnails))
    plot = figure(
        height=560,
        sizing_mode="stretch_width",
        tools="pan,wheel_zoom,box_zoom,reset",
        active_scroll=None,
        match_aspect=True,
        toolbar_location="above",
        output_backend="canvas",
    )
    plot.axis.visible = False
    plot.grid.visible = False
    size = float(np.clip(260 / np.sqrt(len(chosen)), 4, 9))
    plot.scatter(
        "x",
        "y",
        source=source,
        size=size,
        marker="marker",
        fill_color="color",
        line_color="color",
        fill_alpha="fill",
        line_width=1.2,
        name="points",
    )
    plot.add_tools(HoverTool(tooltips=_TOOLTIP, limit=1))
    # Through text and back: bokeh's encoder turns arrays into plain JSON.
    return json.loads(json.dumps(json_item(plot, ID(place)))), len(chosen)


def legend(labels: NDArray[np.str_], highlight: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """(class name, colour, mark as a character) of the map's classes, by name; past 64 the rarest are grey.

    Where some are highlighted the others are one entry.
    """
    styles = _styles(labels, highlight)
    names = sorted(highlight) if highlight else sorted(set(labels.tolist()))
    found = [(name, styles[name][0], _CHARACTERS.get(styles[name][1], "●")) for name in names]
    others = len(styles) - len(names)
    return [*found, *([(f"{others} other {'class' if others == 1 else 'classes'}", GREY, "●")] if others else [])]


def _styles(labels: NDArray[np.str_], highlight: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    names, counts = np.unique(labels, return_counts=True)
    shown = sorted(highlight or names[np.argsort(-counts, kind="stable")[:MAX_CLASSES]].tolist())
    styles = dict.fromkeys(names.tolist(), (GREY, "circle" if highlight else "dot"))
    for i, name in enumerate(shown):
        color, marker = style_of(i)
        styles[name] = color, _BOKEH_MARKERS[MARKERS.index(marker)]
    return styles


def _columns(
    store: Store,
    rows: ProbeRows,
    coordinates: NDArray[np.floating],
    chosen: NDArray[np.int64],
    most_thumbnails: int,
) -> dict[str, list[Any]]:
    styles = _styles(rows.labels, rows.highlight)
    labels = rows.labels[chosen].tolist()
    unknown = ~takes_part(rows.splits.tolist())[chosen]
    thumbnails = _thumbnails(store, rows.clip_rows[chosen], most_thumbnails)
    more = ["" if step < 0 else f" · step {step}" for step in rows.steps[chosen].tolist()]
    if rows.target is not None:
        values = rows.target[chosen].tolist()
        more = [
            text if value != value else f"{text} · {rows.target_name} {value:.4g}"
            for text, value in zip(more, values, strict=True)
        ]
    return {
        "x": np.round(coordinates[chosen, 0], 3).tolist(),
        "y": np.round(coordinates[chosen, 1], 3).tolist(),
        "clip_id": rows.clip_ids[chosen].tolist(),
        "label": [label or "(no label)" for label in labels],
        "split": [split or "(no split)" for split in rows.splits[chosen].tolist()],
        "more": more,
        "color": [styles[label][0] for label in labels],
        "marker": [styles[label][1] for label in labels],
        "fill": np.where(unknown, 0.0, 0.75).tolist(),
        "thumbnail": thumbnails,
        "shown": ["inline" if text else "none" for text in thumbnails],
    }


def _thumbnails(store: Store, clip_rows: NDArray[np.int64], most: int) -> list[str]:
    """One data URI per point, '' where the clip has no picture or the page's share is used up."""
    texts: dict[int, str] = {}
    carrying = set(np.linspace(0, len(clip_rows) - 1, min(len(clip_rows), most)).astype(int).tolist())
    result = []
    for place, row in enumerate(clip_rows.tolist()):
        if place not in carrying:
            result.append("")
            continue
        if row not in texts:
            texts[row] = thumbnail_source(store.thumbnail(row))
        result.append(texts[row])
    return result
