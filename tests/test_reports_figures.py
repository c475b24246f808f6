"""Figures: something is drawn, random weights are said, names from data are only text."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from reelbank.heads.probes import exploration_figures
from reelbank.heads.reports import figures as pictures
from reelbank.heads.reports.drawing import unseen_classes
from reelbank.heads.reports.figures import Heading

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
    drawn = {name for name, one in vars(pictures).items() if getattr(one, "__module__", "") == pictures.__name__}
    assert set(NAMES) == {name for name in drawn if not name.startswith("_")}


@pytest.mark.parametrize("num_classes", [1, 8, 60, 90])
def test_legend_of_many_classes_stays_inside_the_picture(num_classes: int) -> None:
    points, labels, splits = _points(num_classes)
    figure = pictures.scatter_by_class(points, labels, splits, title="t", heading=Heading(source="s", count="n"))
    pictures.png(figure)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    width, height = figure.bbox.width, figure.bbox.height
    assert box.x0 >= figure.axes[0].get_window_extent().x1 - 1
    assert box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1
    shown = [text.get_text() for text in legend.get_texts()]
    assert len(shown) == min(num_classes, 64) + (num_classes > 64) + 1


def test_same_figure_gives_the_same_bytes() -> None:
    heading = Heading(source="s", count="n")
    assert pictures.png(_all(heading)["class_counts"]()) == pictures.png(_all(heading)["class_counts"]())


def test_empty_learning_curve_and_single_epoch_are_drawn() -> None:
    rows = [{"fold": None, "epoch": 1, "train_loss": 1.0, "val_loss": None, "val_accuracy": None, "best": True}]
    assert pictures.png(pictures.learning_curves(rows, heading=Heading(source="s", count="n")))


@pytest.mark.parametrize(
    ("splits", "hollow", "said"),
    [
        (["train", "test", "val", "train"], [], None),
        (["train", "test", "unused", "train"], [2], "hollow: unknown classes"),
        (["train", "test", "unknown", "train"], [2], "hollow: unknown split"),
        (["train", "unused", "unknown", "unused"], [2], "hollow: unknown split"),  # unused clips of classes that train
        (["train", "unused", "unknown", "train"], [2], "hollow: unknown split"),
    ],
)
def test_clips_of_classes_that_nothing_trains_are_hollow(
    splits: list[str], hollow: list[int], said: str | None
) -> None:
    labels = ["a", "a", "z", "a"]
    assert np.flatnonzero(unseen_classes(labels, splits)).tolist() == hollow
    figure = pictures.scatter_by_class(
        np.eye(4)[:, :2], labels, splits, title="t", heading=Heading(source="s", count="n"), numbered=True
    )
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["0 a", "1 z", *([said] if said else [])]


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
