"""What a notebook shows of a store, a manifest, a run: a title and a few facts, as HTML.

Colours, fonts and sizes are the notebook's own, so that it reads in light and in dark; nothing is loaded from
elsewhere. This lies in `manifests` because all stages show something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

MAX_CHARACTERS = 300
"""Of one cell: a card is small whatever a stranger's file says."""
_RULE = "border-bottom:1px solid rgba(128,128,128,.3)"
_LEFT = "text-align:left;vertical-align:top;padding:.15em .8em .15em 0"


def card(kind: str, name: str, facts: Mapping[str, str]) -> str:
    """A title and a row per fact; all of it is escaped."""
    rows = "".join(
        f'<tr style="background:none"><th style="{_LEFT}">{_cell(what)}</th><td style="{_LEFT}">{_cell(text)}</td></tr>'
        for what, text in facts.items()
    )
    return f'<div><div style="{_RULE}"><b>{_cell(kind)}</b> {_cell(name)}</div><table>{rows}</table></div>'


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], more: str = "") -> str:
    """A table with a head, and a line under it; all of it is escaped."""
    lines = [("th", head), *(("td", row) for row in rows)]
    body = "".join(
        '<tr style="background:none">' + "".join(f'<{tag} style="{_LEFT}">{_cell(cell)}</{tag}>' for cell in cells)
        + "</tr>"
        for tag, cells in lines
    )  # fmt: skip
    return f"<table>{body}</table>" + (f"<div>{_cell(more)}</div>" if more else "")


def _cell(text: str) -> str:
    short = text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"
    return escape(short)
