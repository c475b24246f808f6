"""The table of recipes as data, and what a study or a recipe may not say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reelbank.heads import TrainConfig
from reelbank.heads.recipes import RECIPES, STUDIES, listing, listing_text
from reelbank.heads.recipes.measures import Measure
from reelbank.heads.recipes.recipe import Published, Recipe, RecipeRow, Step
from reelbank.heads.recipes.study import Column, Part, Selection, Study
from reelbank.store.options import options as options_of_config

CORE = Path(__file__).resolve().parent.parent / "heads" / "recipes"


def test_recipes_are_named_after_their_study() -> None:
    for name, recipes in STUDIES.items():
        assert all(one.name.startswith(f"{name}/") and one.study.name == name for one in recipes)
    assert set(json.loads(json.dumps(listing()))) == set(RECIPES)
    assert len(listing_text().splitlines()) == len(RECIPES)


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: path.stem)
def test_the_core_knows_no_study(path: Path) -> None:
    text = path.read_text(encoding="utf-8").lower()
    if path.name == "__init__.py":  # the table of studies, one row each
        text = re.sub(r".*\bcalories\b.*\n", "", text)
    if path.name == "config.py":
        text = text.replace("calories/table-3.1", "")
    # `unknown` is a split of stores, `calories` an example in a docstring of the command's options.
    assert re.findall(r"kcal|calor|activit|\bknown activ|spearman|\bspc\b|dinov2|adam above", text) == []


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_row_is_a_training_that_can_be_asked_for(name: str) -> None:
    recipe, known = RECIPES[name], set(options_of_config(TrainConfig))
    config = TrainConfig.of(store=(Path("a"),))
    assert recipe.fields <= known
    for row in recipe.rows:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", row.name)
        assert row.published == Published() or row.cells
        config.but(**{**recipe.options, **row.options})
    for step in recipe.steps:
        assert len(step.published) == len(step.values)
        for value in step.values:
            config.but(**{**recipe.options, step.field: value})


def _study(**changed: Any) -> Study:
    given: dict[str, Any] = {
        "name": "s",
        "parts": (Part(name="test", split="test", said="the test set"),),
        "columns": (Column(key="a", head="a", part="test", metric="accuracy", beats="majority_class"),),
        "selection": Selection(validation="val_accuracy", column="a"),
    }
    return Study(**{**given, **changed})


def _column(**changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"key": "a", "head": "a", "part": "test", "metric": "accuracy"}
    return {"columns": (Column(**{**given, **changed}),)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (_column(part="val"), "no part 'val'; there are test"),
        (_column(metric="acuracy"), "no metric 'acuracy'; there are accuracy, ce_on_softmax, cross_entropy, macro_ap"),
        (_column(beats="coin"), "no guesser 'coin'; there are class_mean_oracle, constant_median, majority_class"),
        (_column(metric="nll", beats="constant_median"), "nll is no mean over clips"),
        (_column(group="S1", beats="majority_class"), "leave beats out"),
        ({"columns": _column()["columns"] * 2}, "two columns have the key 'a'"),
        ({"selection": Selection(validation="val_mea", column="a")}, "selection by 'val_mea'"),
        ({"selection": Selection(validation="val_mae", column="b")}, "column 'b', which it does not have"),
        ({"by_class": {"coin": "a coin"}}, "no guesser 'coin'"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _study(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"rows": (RecipeRow(name="r", cells={}, published=Published(values={"b": 1.0})),)},
            "of 'b', which is no column",
        ),
        (
            {"steps": (Step(field="lr", values=(1.0,), published=(Published(values={"c": 1.0}),)),)},
            "lr: published value of 'c'",
        ),
        ({"rows": (RecipeRow(name="r", cells={}), RecipeRow(name="r", cells={}))}, "two rows of one name"),
        ({"proposed": "x"}, "no row 'x'"),
        ({"compared": ("y",)}, "no row 'y'"),
    ],
)
def test_a_recipe_that_does_not_fit_its_study_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(name="s/r", study=_study(), title="t", text="t", features="", **changed)


def test_a_step_has_a_published_value_for_each_of_its_own() -> None:
    with pytest.raises(ValueError, match="2 values, 1 published"):
        Step(field="lr", values=(1.0, 2.0), published=(Published(),))


def test_a_measure_is_a_mean_over_clips_or_not() -> None:
    with pytest.raises(ValueError, match="give one of per_clip and whole"):
        Measure(title="m", higher_is_better=True)
