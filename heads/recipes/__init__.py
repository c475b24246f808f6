"""The table of recipes: named experiments as data. No torch is loaded here.

A recipe is a list of rows; a row is what it overrides in TrainConfig, with the published result beside it. How rows are
judged and shown its study says (`reelbank.heads.recipes.study`). `reelbank.heads.recipes.run` trains the rows,
`reelbank.heads.recipes.judging` lays them beside the published table; neither knows a study by name.

A new study is a file (or a folder) of rows and one row in `STUDIES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from textwrap import fill
from typing import Any

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.recipes import calories, egocentric, hmdb51, two_stream
from reelbank.heads.recipes.quick import QUICK_PASSES
from reelbank.heads.recipes.recipe import SEED_BLOCK, Published, Recipe, RecipeRow, Step
from reelbank.store.options import options as options_of_config

__all__ = [
    "RECIPES",
    "STUDIES",
    "Published",
    "Recipe",
    "RecipeRow",
    "Step",
    "announcement",
    "detail_text",
    "listing",
    "listing_text",
    "recipe",
    "refuse_decided",
]

STUDIES: Mapping[str, tuple[Recipe, ...]] = {
    "calories": calories.RECIPES,
    "egocentric": egocentric.RECIPES,
    "hmdb51": hmdb51.RECIPES,
    "two-stream": two_stream.RECIPES,
}
"""{first part of the recipes' names: its recipes}."""

RECIPES: Mapping[str, Recipe] = {one.name: one for recipes in STUDIES.values() for one in recipes}


def recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises TrainingError listing those there are."""
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1, cutoff=0.5)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise TrainingError(f"--recipe {name!r}: no such recipe; there are {', '.join(sorted(RECIPES))}{guess}")
    return RECIPES[name]


def listing() -> dict[str, Any]:
    """Every recipe as JSON types."""
    return {name: RECIPES[name].to_json() for name in sorted(RECIPES)}


def listing_text() -> str:
    """Every recipe for a terminal, one line each."""
    width = max(map(len, RECIPES)) + 2
    return "\n".join(f"{name:<{width}}{one.num_rows:>3} rows  {one.title}" for name, one in sorted(RECIPES.items()))


def refuse_decided(name: str, asked: Iterable[str]) -> None:
    """Raises TrainingError if one of the TrainConfig fields `asked` is decided by the recipe itself, naming flags."""
    decided = recipe(name).fields.intersection(asked)
    flags = [one.flag for field, one in options_of_config(TrainConfig).items() if field in decided]
    if flags:
        raise TrainingError(
            f"--recipe {name} decides {', '.join(flags)} itself; leave it out, or train without --recipe"
        )


def announcement(name: str, *, repeats: int = 0, is_quick: bool = False, num_stores: int = 1) -> str:
    """What will be trained, in one line, before it begins; with more stores than it reads, which of them it reads.

    `repeats`: 0 for the recipe's own number.
    """
    chosen = recipe(name)
    repeats = repeats or chosen.repeats
    alone = chosen.steps or chosen.kind == "read" or all(row.stores == "first" for row in chosen.rows)
    if num_stores > 1 and alone:
        return f"{announcement(name, repeats=repeats, is_quick=is_quick)}. It reads the first store only"
    if chosen.kind == "read":
        return f"{name}: {chosen.num_rows} rows, nothing is trained"
    epochs = sum(_epochs(row.options, chosen) for row in chosen.rows)
    epochs += sum(_epochs({step.field: value}, chosen) for step in chosen.steps for value in step.values)
    times = f" x {repeats} repeats" if repeats > 1 else ""
    if chosen.reads_arrays:
        few = f"at most {QUICK_PASSES} clip-passes"
        if is_quick:
            return f"{name}: {len(chosen.trained_in_short)} of {chosen.num_rows} rows{times}, {few}"
        return (
            f"{name}: {chosen.num_rows} rows{times}, at most {epochs * repeats} epochs in all, of each fold where "
            f"groups are left out; --quick tries it with {few} and says how long the whole takes"
        )
    short = ", of which --quick takes a twentieth" if is_quick else "; --quick tries it with a twentieth of them"
    return f"{name}: {chosen.num_rows} rows{times}, at most {epochs * repeats} epochs in all{short}"


LINE_WIDTH = 100
"""Of what is shown of a recipe: narrower terminals are rare, and wider ones read long lines no better."""


def detail_text(name: str) -> str:
    """One recipe for a terminal: what it is, what all rows share, one line per row."""
    chosen = recipe(name)
    lines = [f"{name}: {chosen.title}", chosen.text]
    lines += [f"Features: {chosen.features}."] if chosen.features else []
    lines += [f"All rows: {_options_text(chosen.options)}"] if chosen.options else []
    bases = {row.name: f", starts from {' and '.join(row.starts_from)}" for row in chosen.rows if row.starts_from}
    seeds = {row.name: f", seed + {SEED_BLOCK * row.seed_block}" for row in chosen.rows if row.seed_block}
    named = [(row.name, ", ".join(row.cells.values()), row.options) for row in chosen.rows]
    named += [
        (f"{position}-{step.field}", str(value), {step.field: value})
        for position, step in enumerate(chosen.steps, start=1)
        for value in step.values
    ]
    width = max(len(row) for row, _, _ in named) + 2
    rows = [
        f"{row:<{width}}{what}  [{_options_text(options)}{seeds.get(row, '')}{bases.get(row, '')}]"
        for row, what, options in named
    ]
    told = [*map(_folded, lines), *(_folded(row, width) for row in rows), *map(_folded, chosen.notes)]
    return "\n".join([*told, _folded(announcement(name))])


def _folded(line: str, indent: int = 0) -> str:
    """A line of at most LINE_WIDTH letters and what is left of it below."""
    below = " " * indent
    return fill(line, LINE_WIDTH, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)


def _epochs(options: Mapping[str, Any], chosen: Recipe) -> int:
    return int({"epochs": options_of_config(TrainConfig)["epochs"].default, **chosen.options, **options}["epochs"])


def _options_text(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
