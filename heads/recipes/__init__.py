"""The table of recipes: named experiments as data. No torch is loaded here.

A recipe is a list of rows; a row is what it overrides in TrainConfig, with the published result beside it.
`reelbank.heads.recipe_run` trains the rows, `reelbank.heads.recipe_report` lays them beside the published table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.recipes.beyond import RECIPES as BEYOND
from reelbank.heads.recipes.calories import RECIPES as CALORIES
from reelbank.heads.recipes.recipe import Published, Recipe, Row, Step

__all__ = ["RECIPES", "Published", "Recipe", "Row", "Step", "listing", "listing_text", "recipe"]

RECIPES: Mapping[str, Recipe] = {one.name: one for one in (*CALORIES, *BEYOND)}


def recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises TrainingError listing those there are."""
    if name not in RECIPES:
        raise TrainingError(f"--recipe {name!r}: no such recipe; there are {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


def listing() -> dict[str, Any]:
    """Every recipe as JSON types."""
    return {name: RECIPES[name].to_json() for name in sorted(RECIPES)}


def listing_text() -> str:
    """Every recipe for a terminal, one line each."""
    width = max(map(len, RECIPES)) + 2
    return "\n".join(f"{name:<{width}}{one.num_rows:>3} rows  {one.title}" for name, one in sorted(RECIPES.items()))
