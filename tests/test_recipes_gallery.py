"""The pictures of a recipe: which there are, and from what they are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from recipe_stores import calorie_store, run_calories, shorten

from reelbank.heads import TrainingError
from reelbank.heads.recipes import RECIPES, STUDIES, gallery
from reelbank.heads.recipes import run as recipe_run
from reelbank.heads.recipes.calories import kmeans as recipe_kmeans
from reelbank.heads.recipes.calories.study import CALORIES
from reelbank.heads.recipes.report import write_recipe_page
from reelbank.heads.reports.drawing import Heading
from reelbank.heads.reports.figures import scatter_by_class


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calorie_store(tmp_path_factory.mktemp("store") / "toy.zarr", views=False)


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_studies_name_pictures_that_there_are(name: str) -> None:
    (study,) = {id(recipe.study): recipe.study for recipe in RECIPES.values() if recipe.study.name == name}.values()
    assert study.captions
    assert set(study.captions) <= set(gallery.PICTURES)


def test_the_page_shows_every_picture(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = recipe_run.vector_map
    shorten(monkeypatch, pictures=True)
    monkeypatch.setattr(recipe_run, "vector_map", real)
    run_calories(store, tmp_path / "run", "figure-3.50")
    files = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert files == {name for name in gallery.PICTURES if name in CALORIES.captions}
    others = {"motion.png"}, {"confusion.png", "grad-cam.png", "rates.png"}
    assert set(gallery.PICTURES) - files == set.union(*others)  # of heads on arrays alone, and of studies of classes
    data = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert data["map"]["stores"] == [store.name]
    run = tmp_path / "run" / data["rows"][0]["runs"][0]
    constant = json.loads((run / "results.json").read_text())["splits"]["val"]["baselines"]["constant_median"]["mae"]
    # Of the clips that the curve is about.
    assert gallery.validation_guess(run, "constant_median", "mae") == constant
    html = (tmp_path / "run" / "report.html").read_text()
    assert html.count("<img") == len(files)
    assert "Figure 3.50" in html
    path = tmp_path / "run" / "recipe.json"
    path.write_text(json.dumps({**data, "format_version": 1}))
    with pytest.raises(TrainingError, match="has format 1, this version reads 3"):
        write_recipe_page(tmp_path / "run")


def test_two_rows_are_compared_on_every_part() -> None:
    random = np.random.default_rng(0)
    rows = {
        name: {said: (random.normal(size=9), random.normal(size=9)) for said in ("known", "unknown")}
        for name in ("adam", "radam")
    }
    figure = gallery.figures.compared(rows, limits=(-3, 3), name="kcal/h", heading=Heading(source="s", count=""))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["(a) adam, known", "(b) adam, unknown", "(c) radam, known", "(d) radam, unknown"]


def test_k_means_has_pictures_of_what_it_reads(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, pictures=True)
    monkeypatch.setattr(recipe_kmeans, "N_INIT", 2)
    run_calories(store, tmp_path / "run", "kmeans")
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {"classes.png", "distributions.png"}
    assert "QUICK" not in (tmp_path / "run" / "report.html").read_text()  # k-means has no short form


def test_classes_are_numbered_as_the_outputs_of_a_head() -> None:
    """Known classes from 0 in alphabetical order, those of split 'unknown' after them."""
    labels = ["run", "box", "aim", "run", "box", "zip"]
    splits = ["train", "train", "unknown", "test", "test", "unknown"]
    points = np.array([[0, 0], [4, 0], [8, 8], [2, 0], [4, 4], [9, 9]], dtype=float)
    figure = scatter_by_class(points, labels, splits, title="t", heading=Heading(source="s", count="n"), numbered=True)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:4] == ["0 box", "1 run", "2 aim", "3 zip"]
    numbers = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert numbers == {"0": (4, 2), "1": (1, 0), "2": (8, 8), "3": (9, 9)}
