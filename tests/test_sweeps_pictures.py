"""The picture of a sweep: every number stands where its values are, the best is the brightest and the winner."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from planted import clips, prepared

from reelbank.heads.reports.drawing import PALETTE
from reelbank.heads.sweeps import report


def _results(
    fields: dict[str, list[str]], found: list[tuple[dict[str, str], float | None, float | None]], **more: Any
) -> dict[str, Any]:
    return {
        "fields": fields, "steps": [], "members": [{}] * 7, "warning": "",
        "selection": {"metric": "val_mae", "higher_is_better": False},
        "combinations": [{"values": values, "mean": mean, "deviation": spread} for values, mean, spread in found],
        **more,
    }  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Draws a sweep; the figure and what it was called."""
    titles: list[tuple[str, Any]] = []
    make = report.new_figure

    def noted(width: float, height: float, title: str, heading: Any) -> Any:
        titles.append((title, heading))
        return make(width, height, title, heading)

    monkeypatch.setattr(report, "new_figure", noted)
    monkeypatch.setattr(report, "png", lambda figure: figure)

    def draw(results: dict[str, Any], case: Any = None) -> tuple[Any, str, Any]:
        figure: Any = report.draw(results, case or prepared(clips(["a", "b"])))
        figure.draw_without_rendering()
        return figure, *titles[-1]

    return draw


GRID = {"lr": ["1", "2", "3"], "batch": ["4", "8"]}
FOUND: list[tuple[dict[str, str], float | None, float | None]] = [
    ({"lr": "3", "batch": "4"}, 0.125, None),
    ({"lr": "1", "batch": "8"}, 0.25, 0.5),
    ({"lr": "2", "batch": "4"}, 12345.678, 0.0),
    ({"lr": "1", "batch": "4"}, 4.0, None),
    ({"lr": "2", "batch": "8"}, None, None),
]


@pytest.mark.parametrize(("higher", "colours"), [(False, "viridis_r"), (True, "viridis")])
def test_two_fields_are_a_map_with_each_number_in_its_place(higher: bool, colours: str, drawn: Any) -> None:
    selection = {"metric": "val_mae", "higher_is_better": higher}
    figure, title, heading = drawn(_results(GRID, FOUND, selection=selection, warning="RANDOM"))
    axes, bar = figure.axes
    nan = math.nan
    np.testing.assert_array_equal(axes.images[0].get_array().filled(nan), [[4.0, 0.25], [12345.678, nan], [0.125, nan]])
    assert axes.images[0].get_cmap().name == colours  # the best is bright
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {
        (0, 0): "4", (1, 0): "0.25", (0, 1): "1.235e+04", (1, 1): "failed", (0, 2): "0.125", (1, 2): "failed",
    }  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "8"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "3"]
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("batch", "lr", "validation mean absolute error")
    assert (title, heading.count, heading.warning) == ("Sweep", "7 trainings, validation mean absolute error", "RANDOM")


@pytest.mark.parametrize("fields", [{"lr": ["1", "2"]}, {"lr": ["1"], "batch": ["4"], "head": ["$a$"]}, {}])
def test_other_sweeps_are_drawn_from_best_to_worst(fields: dict[str, list[str]], drawn: Any) -> None:
    one = {name: values[0] for name, values in fields.items()}
    other = {name: values[-1] for name, values in fields.items()}
    figure, title, _ = drawn(_results(fields, [(one, 0.5, 0.25), (other, 2.0, None), (other, 3.0, 0.0)]))
    (axes,) = figure.axes
    means, winner = axes.lines[0], axes.lines[-1]
    assert (means.get_xdata().tolist(), list(means.get_ydata())) == ([3.0, 2.0, 0.5], [0, 1, 2])  # the best on top
    (bars,) = (container for container in axes.containers if type(container).__name__ == "ErrorbarContainer")
    spans = [segment[:, 0].tolist() for segment in bars[2][0].get_segments()]
    assert spans == [[3.0, 3.0], [2.0, 2.0], [0.25, 0.75]]
    assert (list(winner.get_xdata()), list(winner.get_ydata())) == ([0.5], [2])
    assert (winner.get_label(), winner.get_color()) == ("winner", PALETTE[3])
    assert axes.get_legend() is not None
    labels = [label.get_text() for label in axes.get_yticklabels()]
    expected = ", ".join(f"{name}={value}" for name, value in one.items()).replace("$", r"\$") or "base"
    assert labels[-1] == expected
    assert (title, axes.get_xlabel()) == ("Sweep", "validation mean absolute error")


def test_stepwise_sweeps_and_failures_are_ranked_and_the_worst_are_left_out(
    drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, title, _ = drawn(_results(GRID, FOUND, steps=[{"field": "lr"}]))
    assert figure.axes[0].lines[0].get_xdata().tolist() == [4.0, 12345.678, 0.25, 0.125]  # none for what failed
    assert title == "Sweep (4 best)"
    assert report.MAX_DRAWN == 60
    monkeypatch.setattr(report, "MAX_DRAWN", 2)
    figure, title, _ = drawn(_results({"lr": []}, FOUND[:4]))
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0.25, 0.125]
    assert title == "Sweep (2 best)"


def test_picture_names_every_store(drawn: Any) -> None:
    stores = tuple(SimpleNamespace(store=SimpleNamespace(path=SimpleNamespace(name=name))) for name in ("a.zarr", "b"))
    table = SimpleNamespace(sources=stores)
    _, _, heading = drawn(_results({"lr": ["1"]}, [({"lr": "1"}, 1.0, None)]), SimpleNamespace(table=table))
    assert heading.source == "a.zarr + b"
