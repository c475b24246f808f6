"""What a long call shows in a notebook; elsewhere nothing, and never where the caller listens itself."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import MAX_NOTES, in_notebook, with_bar


@with_bar("work")
def work(events: list[Event], progress: Progress | None = None) -> bool:
    """Tells the events, if somebody listens."""
    for event in events:
        if event.message == "fails":
            raise ValueError("it fails")
        if progress is not None:
            progress(event)
    return progress is not None


class Cell:
    """Stands in for what a notebook shows under a cell."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []

    def display(self, bundle: dict[str, Any], *, raw: bool, display_id: bool) -> Cell:
        assert raw and display_id
        self.shown.append(bundle)
        return self

    def update(self, bundle: dict[str, Any], *, raw: bool) -> None:
        self.shown.append(bundle)

    @property
    def lines(self) -> list[str]:
        return [bundle["text/plain"].partition(" s\n")[0].partition(", 0.")[0] for bundle in self.shown]


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """A kernel, and updates that are never too soon."""
    cell, ipython, display = Cell(), ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    display.display = cell.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("reelbank.manifests.notebooks.UPDATE_SECONDS", 0.0)
    return cell


def event(done: int, **other: Any) -> Event:
    return Event(stage="work", done=done, total=12, **other)


def test_outside_of_a_notebook_nothing_is_shown() -> None:
    assert not in_notebook()
    assert work([event(1)]) is False


def test_a_notebook_shows_how_far_a_call_is_and_keeps_its_notes(cell: Cell) -> None:
    assert in_notebook()
    assert work([event(3, message="a.mp4"), event(4, values={"val_loss": 0.25}), event(12, note="b <failed>")])
    assert cell.lines == [
        "work: begins", "work: 3 of 12, a.mp4", "work: 4 of 12, val_loss 0.25", "work: 12 of 12\nb <failed>",
        "work: done",
    ]  # fmt: skip
    assert '<progress value="3" max="12"></progress>' in cell.shown[1]["text/html"]
    assert "<progress" not in cell.shown[-1]["text/html"]
    assert cell.shown[-1]["text/plain"].endswith(" s\nb <failed>")
    assert "<div>b &lt;failed&gt;</div>" in cell.shown[-1]["text/html"]


def test_a_call_that_fails_is_said_to_have_stopped(cell: Cell) -> None:
    with pytest.raises(ValueError, match="it fails"):
        work([event(3), event(4, message="fails")])
    assert cell.lines[-1] == "work: stopped"


@pytest.mark.parametrize("keyword", [True, False])
def test_a_caller_that_listens_is_not_overheard(cell: Cell, keyword: bool) -> None:
    heard: list[Event] = []
    assert work([event(3)], progress=heard.append) if keyword else work([event(3)], heard.append)
    assert (len(heard), cell.shown) == (1, [])


def test_of_many_notes_some_are_shown_and_all_counted(cell: Cell) -> None:
    work([event(1, note=f"note {i}") for i in range(MAX_NOTES + 5)])
    assert cell.shown[-1]["text/plain"].splitlines()[-1] == "and 5 more notes"


def test_a_quick_call_does_not_flood_the_browser(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reelbank.manifests.notebooks.UPDATE_SECONDS", 60.0)
    work([event(i) for i in range(12)])
    assert len(cell.shown) <= 3
