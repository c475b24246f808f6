"""What a Jupyter notebook shows: a few facts of a store, a manifest or a run, and how far a long call is.

Colours, fonts and sizes are the notebook's own, so that it reads in light and in dark; nothing is loaded from
elsewhere, and no widgets are needed: a saved notebook keeps what was shown. This lies in `manifests` because all
stages show something.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from html import escape
from typing import Any, ParamSpec, TypeVar

from reelbank.manifests.events import Event, Pace, Progress

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

MAX_CHARACTERS = 1000
"""Of one cell: a card is small whatever a stranger's file says."""
MAX_NOTES = 20
UPDATE_SECONDS = 0.2
"""Least time between two states of a bar: each is a message to the browser."""
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


def with_bar(description: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A decorator of a long call with an argument `progress`: where none is given, a notebook shows a bar.

    Elsewhere nothing is shown, and a notebook shows none for `progress=lambda event: None`.
    """

    def decorate(call: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        signature = inspect.signature(call)

        @wraps(call)
        def told(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            if not in_notebook():
                return call(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            if bound.arguments.get("progress") is not None:
                return call(*args, **kwargs)
            with notebook_bar(description) as show:
                bound.arguments["progress"] = show
                return call(*bound.args, **bound.kwargs)

        return told

    return decorate


def in_notebook() -> bool:
    """Whether this process is the kernel of a Jupyter notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


@contextmanager
def notebook_bar(description: str) -> Iterator[Progress]:
    """A bar under the cell, with the notes of the call below it. Gives what is called with each Event."""
    from IPython.display import display

    bar = _Bar(description)
    handle: Any = display(bar.bundle(), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def show(event: Event) -> None:
        if bar.takes(event):
            handle.update(bar.bundle(), raw=True)

    ended = "stopped"
    try:
        yield show
        ended = "done"
    finally:
        bar.ended = ended
        handle.update(bar.bundle(), raw=True)


class _Bar:
    """The state of a bar, and how it looks."""

    def __init__(self, description: str) -> None:
        self._description, self._event, self._notes = description, Event(stage="", done=0, total=0), list[str]()
        self._begun, self._told, self._left, self._pace = time.monotonic(), 0.0, "", Pace()
        self.ended = ""

    def takes(self, event: Event) -> bool:
        """Keeps what is new; whether it is to be shown now."""
        now = time.monotonic()
        self._event, self._left = event, self._pace.left(event.done, event.total, now)
        if event.note:
            self._notes.append(event.note)
        due = bool(event.note) or now - self._told >= UPDATE_SECONDS
        self._told = now if due else self._told
        return due

    def bundle(self) -> dict[str, Any]:
        """What is shown, as text and as HTML."""
        event = self._event
        count = f"{event.done:g} of {event.total:g}" if event.total else ""
        if self.ended:
            said = [self.ended, f"{time.monotonic() - self._begun:.1f} s"]
        else:
            values = ", ".join(f"{name} {value:.3g}" for name, value in event.values.items())
            said = [count, self._left, event.message or values]
        line = f"{self._description}: {', '.join(one for one in said if one) or 'begins'}"
        hidden = len(self._notes) - MAX_NOTES
        notes = [*self._notes[:MAX_NOTES], *([f"and {hidden} more notes"] if hidden > 0 else [])]
        share = f'value="{event.done:g}" max="{event.total:g}"' if event.total else ""
        shown = "" if self.ended else f"<progress {share}></progress> "
        html = f"<div>{shown}{_cell(line)}{''.join(f'<div>{_cell(note)}</div>' for note in notes)}</div>"
        return {"text/plain": "\n".join([line, *notes]), "text/html": html}
