"""Beyond the publication: frozen features and small heads, judged on splits that no film crosses, and what a leak adds.

Rows of one split are paired clip by clip; those of different splits hold out other clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.hmdb51.settings import SHARED, SPLITS
from reelbank.heads.recipes.hmdb51.study import HMDB51
from reelbank.heads.recipes.recipe import Recipe, RecipeRow

HEADS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "linear": (
        "logistic regression on the mean",
        {"head": "linear", "lr": 1e-3, "weight_decay": 1e-4, "batch": 64, "epochs": 100},
    ),
    "attentive": (
        "attentive pooling over frames",
        {"head": "attentive", "lr": 3e-4, "weight_decay": 1e-4, "batch": 64, "epochs": 60},
    ),
}
RULES: Mapping[str, tuple[str, str]] = {
    "films": SPLITS["films"],
    "random": SPLITS["random"],
    **{f"official-{number}": (f"split_{number}", f"official split {number}") for number in (1, 2, 3)},
}


def _row(head: str, split: str) -> RecipeRow:
    said, settings = HEADS[head]
    rule, split_said = RULES[split]
    return RecipeRow(
        name=f"{head}-{split}",
        cells={"head": said, "split": split_said.removesuffix(", as published")},
        options={**settings, "split_by": rule},
        stores="all",
        against=f"linear-{split}" if head != "linear" else "",
    )


BEYOND = Recipe(
    name="hmdb51/beyond",
    study=HMDB51,
    title="Logistic regression and attentive pooling on any backbones: official splits, source films, the leaky split",
    text=(
        "The features of all given stores side by side: image, CLIP and video backbones. The random split stands "
        "beside the others to show how large its leak is."
    ),
    features="",
    options={**SHARED, "keep": "best", "early_stop_epochs": 15},
    rows=tuple(_row(head, split) for split in RULES for head in HEADS),
    notes=(
        "The official splits are columns split_1 to split_3 of the manifest (`reelbank manifest hmdb51`); rows of a "
        "store without them are not run.",
    ),
)
RECIPES = (BEYOND,)
