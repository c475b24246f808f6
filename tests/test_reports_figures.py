"""Figures: something is drawn, random weights are said, names from data are only text."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from probe_stores import clustered_store

from reelbank.heads.probes import exploration_figures
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.probe import probe
from reelbank.heads.reports import figures as pictures
from reelbank.heads.reports.confusion import confusion_matrix
from reelbank.heads.reports.drawing import bin_edges, figures_as, files_of, name_texts, outside_text, png, takes_part
from reelbank.heads.reports.figures import Heading
from reelbank.heads.reports.learning_curves import learning_curves
from reelbank.heads.reports.run_page import rate_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WARNING = "random weights: not a pretrained network"
AWKWARD = ["_hidden", "cost $x_{1$", "動作", "a" * 80, "<b>", "%s {0}", ""]


def _points(num_classes: int) -> tuple[np.ndarray, list[str], list[str]]:
    random = np.random.default_rng(0)
    names = (AWKWARD + [f"class {i}" for i in range(num_classes)])[:num_classes]
    labels = [names[i % num_classes] for i in range(150)]
    splits = ["unknown" if i % 5 == 0 else ("train", "test")[i % 2] for i in range(150)]
    return random.normal(size=(150, 2)), labels, splits


def _all(heading: Heading) -> dict[str, Callable[[], Figure]]:
    points, labels, splits = _points(9)
    values = np.where(np.arange(150) % 7 == 0, np.nan, np.arange(150.0))
    epochs = [
        {"fold": None, "epoch": e, "train_loss": 1 / e, "val_loss": 2 / e, "val_accuracy": 0.1 * e, "val_mae": 9 - e}
        | {"best": e < 5}
        for e in range(1, 8)
    ]
    pair = values, values * 0.5
    return {
        "scatter_by_class": lambda: pictures.scatter_by_class(points, labels, splits, title="t", heading=heading),
        "scatter_by_value": lambda: pictures.scatter_by_value(
            points, values, splits, value_name="kcal", title="t", heading=heading
        ),
        "cluster_sizes": lambda: pictures.cluster_sizes(
            np.array([5, 0, 9]), np.array([0.5, np.nan, 1.0]), majority_share=0.4, heading=heading
        ),
        "confusion_matrix": lambda: pictures.confusion_matrix(
            np.arange(49).reshape(7, 7), AWKWARD, title="t", heading=heading
        ),
        "learning_curves": lambda: pictures.learning_curves(epochs, heading=heading),
        "predicted_vs_true": lambda: pictures.predicted_vs_true(
            {"test": pair, "unknown": (values[:2], values[:2])}, target_name="$k", unit="kcal/h", heading=heading
        ),
        "class_counts": lambda: pictures.class_counts(labels, splits, heading=heading),
        "target_distribution": lambda: pictures.target_distribution(values, splits, name="kcal", heading=heading),
    }


NAMES = sorted(_all(Heading(source="s", count="n = 1")))


def _pixels(content: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("name", NAMES)
def test_figure_is_drawn_and_says_random_weights(name: str) -> None:
    figures = _all(Heading(source="toy.zarr · $x", count="n = 150 clips", warning=WARNING))
    figure = figures[name]()
    texts = [str(part) for part in (figure.get_suptitle(), figure.get_supxlabel())]
    assert "toy.zarr" in texts[0] and "n = 150 clips" in texts[0]
    assert texts[1] == WARNING
    pixels = _pixels(pictures.png(figure))
    assert (pixels.std(axis=2) > 20).mean() > 0.001
    assert (pixels[[0, -1]] == 255).all() and (pixels[:, [0, -1]] == 255).all()  # nothing is cut at the border
    red = (abs(pixels - np.array([176, 0, 32])).sum(axis=2) < 12).sum()
    assert red > 100


def test_set_matches_the_public_figures() -> None:
    modules = (pictures.__name__, confusion_matrix.__module__, learning_curves.__module__)
    drawn = {name for name, one in vars(pictures).items() if getattr(one, "__module__", "") in modules}
    assert set(NAMES) == {name for name in drawn if not name.startswith("_")}


@pytest.mark.parametrize("num_classes", [1, 8, 60, 90])
def test_legend_of_many_classes_stays_inside_the_picture(num_classes: int) -> None:
    points, labels, splits = _points(num_classes)
    figure = pictures.scatter_by_class(points, labels, splits, title="t", heading=Heading(source="s", count="n"))
    pictures.png(figure)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    width, height = figure.bbox.width, figure.bbox.height
    beside, below = figure.axes[0].get_window_extent().x1 - 1, figure.axes[0].get_window_extent().y0 + 1
    assert box.y1 <= below if num_classes > 20 else box.x0 >= beside
    assert box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1
    shown = [text.get_text() for text in legend.get_texts()]
    assert len(shown) == min(num_classes, 64) + (num_classes > 64) + 1


def test_same_figure_gives_the_same_bytes() -> None:
    heading = Heading(source="s", count="n")
    assert pictures.png(_all(heading)["class_counts"]()) == pictures.png(_all(heading)["class_counts"]())


def test_empty_learning_curve_and_single_epoch_are_drawn() -> None:
    rows = [{"fold": None, "epoch": 1, "train_loss": 1.0, "val_loss": None, "val_accuracy": None, "best": True}]
    assert pictures.png(pictures.learning_curves(rows, heading=Heading(source="s", count="n")))


def _curves(epochs: list[dict[str, Any]], **more: Any) -> dict[str, dict[str, tuple[Any, Any]]]:
    """{axis: {line: (x, y)}} of the panels, lines by their names in the legend."""
    figure = pictures.learning_curves(epochs, heading=Heading(source="s", count="n"), **more)
    assert pictures.png(figure)
    return {
        axes.get_ylabel(): {str(line.get_label()): line.get_data() for line in axes.lines}
        for axes in figure.axes
        if axes.axison
    }


def test_further_losses_and_rates_of_groups_have_panels_of_their_own() -> None:
    epochs = [
        {"fold": None, "epoch": e, "train_loss": 44.0 / e, "val_loss": 2.0 / e, "val_accuracy": 0.1 * e, "best": e < 3}
        | {"train_accuracy": 0.2 * e, "losses": {"labels": 1.0 / e, "motion": 40.0 / e, "dynamic": 3.0 / e}}
        | {"learning_rates": {"head": 1e-3 / e, "flow": 1e-5 / e}}
        for e in (1, 2, 3, 4)
    ]
    drawn = _curves(epochs)
    assert len(drawn) == 5
    # What is trained on is compared with validation in the loss that both have.
    assert list(drawn["loss of the labels"]["train"][1]) == [1.0 / e for e in (1, 2, 3, 4)]
    assert list(drawn["accuracy"]["train"][1]) == [0.2 * e for e in (1, 2, 3, 4)]
    assert drawn["accuracy"]["best epoch"][0] == [2]
    assert [name.split("\n")[0] for name in drawn if "further" in name] == [
        "further loss motion",
        "further loss dynamic",
    ]
    assert list(drawn["learning rate"]["flow"][1]) == [1e-5 / e for e in (1, 2, 3, 4)]


def test_steps_of_the_schedule_are_lines_after_their_epochs_while_few() -> None:
    epochs = [{"fold": None, "epoch": e, "train_loss": 1.0, "val_loss": 1.0, "best": False} for e in range(1, 41)]
    assert _curves(epochs, steps=(10, 25, 80))["loss"]["rate steps"][0] == [10.5, 10.5]
    figure = pictures.learning_curves(epochs, heading=Heading(source="s", count="n"), steps=(10, 25, 80))
    assert [line.get_xdata()[0] for line in figure.axes[0].lines[2:]] == [10.5, 25.5]  # type: ignore[index]
    assert "rate steps" not in _curves(epochs, steps=range(1, 41))["loss"]


def test_rates_of_every_batch_are_drawn_where_a_schedule_steps_per_batch() -> None:
    epochs = [
        {
            "fold": fold,
            "epoch": e,
            "train_loss": 1.0,
            "val_loss": 1.0,
            "best": False,
            "batch_learning_rates": [1e-4 * e, 2e-4 * e],
            "learning_rates": {"head": 1e-4, "conv": 1e-5},
        }
        for fold in (0, 1)
        for e in (1, 2)
    ]
    drawn = _curves(epochs)
    x, y = drawn["learning rate"]["of each batch"]
    assert list(x) == [0.25, 0.75, 1.25, 1.75]
    assert list(y) == [1e-4, 2e-4, 2e-4, 4e-4]
    assert list(drawn["learning rate"]) == ["of each batch"], "in the place of those at the beginning of each epoch"


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ({"schedule": "multistep", "milestones": [30, 80], "step_epochs": 20}, [30, 80]),
        ({"schedule": "step", "milestones": [30, 80], "step_epochs": 20}, [20, 40, 60]),
        ({"schedule": "plateau", "milestones": [30, 80], "step_epochs": 20}, []),
        ({"schedule": "multistep", "milestones": "30"}, []),
        ({"schedule": "step", "step_epochs": 0}, []),
    ],
)
def test_steps_of_a_run_are_those_of_its_schedule(asked: dict[str, Any], steps: list[int]) -> None:
    assert rate_steps(asked)[:3] == steps


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        (["a", "b"], ["a", "b"]),
        (["a" * 40], ["a" * 25 + "…"]),  # alone it keeps its beginning
        (
            ["playing the long, long thing 1", "playing the long, long thing 2"],
            ["playing …ong, long thing 1", "playing …ong, long thing 2"],
        ),
        (["x" * 20 + "middle " + str(i) + "y" * 20 for i in range(3)], None),
        (["same" * 10, "same" * 10], None),
    ],
)
def test_names_that_are_shortened_stay_apart(names: list[str], texts: list[str] | None) -> None:
    found = name_texts(names)
    assert len(set(found)) == len(names)
    assert all(len(text) <= 26 for text in found)
    if texts is not None:
        assert found == texts


@pytest.mark.parametrize("num_classes", [30, 31, 101])
def test_confusion_of_many_classes_shows_those_with_mistakes(num_classes: int) -> None:
    draw = np.random.default_rng(0)
    counts = np.diag(draw.integers(1, 9, num_classes))
    confused = [num_classes - 1, 4, num_classes // 2]
    for true, predicted in zip(confused, [*confused[1:], confused[0]], strict=True):
        counts[true, predicted] = 3
    names = [f"class number {i:03d}" for i in range(num_classes)]
    figure = pictures.confusion_matrix(counts, names, title="t", heading=Heading(source="s", count="n"))
    axes = figure.axes[0]
    shown = [tick.get_text() for tick in axes.get_yticklabels()]
    assert shown == [tick.get_text() for tick in axes.get_xticklabels()]
    cells = {tuple(map(round, text.get_position())): int(text.get_text()) for text in axes.texts}
    written = [value for value in np.asarray(axes.images[0].get_array()).ravel() if value > 0]
    assert len(written) - len(cells) == (num_classes > 99)  # hundreds of others have no room, only a colour
    for true, predicted in zip(confused, [*confused[1:], confused[0]], strict=True):
        assert cells[shown.index(names[predicted]), shown.index(names[true])] == 3
    if num_classes == 30:
        assert shown == names
    else:
        assert shown[-1] == f"({num_classes - 30} others)" and len(shown) == 31
        assert f"the 30 of {num_classes} classes" in figure.get_suptitle()
        others = [i for i in range(num_classes) if names[i] not in shown]
        assert cells.get((30, 30), 0) == (0 if num_classes > 99 else counts[np.ix_(others, others)].sum())


def test_confusion_in_percent_is_of_the_true_class() -> None:
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 1, 3]])
    figure = pictures.confusion_matrix(
        counts, ["a", "b", "c"], title="t", heading=Heading(source="s", count="n"), normalised=True
    )
    cells = {tuple(map(round, text.get_position())): text.get_text() for text in figure.axes[0].texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (0, 2): "33", (1, 2): "17", (2, 2): "50"}
    assert "percent of the true class" in figure.axes[0].get_xlabel()


@pytest.mark.parametrize(
    ("splits", "part", "said"),
    [
        (["train", "val", "test"], [1, 1, 1], ""),
        (["train", "unknown", "unused", ""], [1, 0, 0, 0], "split (none), unknown, unused"),
        (["all", "all", "unknown"], [1, 1, 0], "split unknown"),
        (["train", "a", "b", "c", "d"], [1, 0, 0, 0, 0], "split a, b, c, ..."),
    ],
)
def test_clips_that_take_no_part_are_hollow_and_named(splits: list[str], part: list[int], said: str) -> None:
    assert takes_part(splits).tolist() == [bool(one) for one in part]
    assert outside_text(splits) == said
    points = np.random.default_rng(0).normal(size=(len(splits), 2))
    figure = pictures.scatter_by_class(
        points, [f"c{i}" for i in range(len(splits))], splits, title="t", heading=Heading(source="s", count="n"),
        numbered=True,
    )  # fmt: skip
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[len(splits) :] == ([f"hollow: {said}"] if said else [])
    known = [text for text, one in zip(sorted(legend[: len(splits)]), part, strict=True) if one]
    assert [text.split()[0] for text in known] == [str(i) for i in range(sum(part))]


@pytest.mark.parametrize(("kind", "magic"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_are_written_in_another_format_too(kind: str, magic: bytes, tmp_path: Path) -> None:
    figures = _all(Heading(source="toy.zarr · $x", count="n = 150 clips", warning=WARNING))
    plain = png(figures["confusion_matrix"]())
    assert files_of("a.png", plain) == {"a.png": plain}
    with figures_as(kind):
        first, second = (files_of("a.png", png(figures["confusion_matrix"]())) for _ in range(2))
    assert first == second  # no date, no names that are drawn
    assert set(first) == {"a.png", f"a.{kind}"}
    assert first["a.png"] == plain
    assert first[f"a.{kind}"].startswith(magic)
    clustered_store(tmp_path / "toy.zarr", num_clips=24)
    result = probe(ProbeConfig(store=tmp_path / "toy.zarr", knn=3, figures=kind, out=tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == set(result.results["files"]) and f"knn-confusion.{kind}" in names
    assert {path.name for path in result.pictures} == {name for name in names if name.endswith((".png", f".{kind}"))}


@pytest.mark.parametrize(
    "values", [[], [3.0], [5.0, 5.0], [1e16, 1e16 + 2], [-1e300, 1e300], [0.0, 1e-320], [1.0, 2.0]]
)
def test_a_histogram_of_any_numbers_is_drawn(values: list[float]) -> None:
    """numpy refuses ranges that hold fewer floats than bins."""
    edges = bin_edges(np.array(values), 30)
    assert len(edges) >= 2 and all(a < b for a, b in itertools.pairwise(edges))
    assert not values or edges[0] <= min(values) <= max(values) <= edges[-1]
    heading = Heading(source="s", count="n")
    png(pictures.target_distribution(np.array(values), ["train"] * len(values), name="kcal", heading=heading))


def test_legends_have_no_entry_for_what_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A split all of whose clips are of classes past those that are shown."""
    monkeypatch.setattr(pictures, "MAX_CLASSES", 1)
    monkeypatch.setattr(exploration_figures, "MAX_CLASSES", 1)
    labels, splits = ["a", "a", "b"], ["train", "val", "test"]
    heading = Heading(source="s", count="n")
    values = np.arange(3.0)
    for figure in (
        pictures.class_counts(labels, splits, heading=heading),
        exploration_figures.class_means(values, np.array(labels), np.array(splits), name="kcal", heading=heading),
    ):
        assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["train", "val"]
