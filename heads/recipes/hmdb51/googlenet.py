"""Features of a trained GoogLeNet: their mean and an MLP, and an LSTM over them (SYSTEMS.md 3.3, 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.hmdb51.settings import SHARED, SPLITS
from reelbank.heads.recipes.hmdb51.study import HMDB51
from reelbank.heads.recipes.recipe import Published, Recipe, RecipeRow

REPORTED = Published(
    values={"accuracy": 55.63, "loss": 1.6278, "macro_f1": 0.5522, "weighted_f1": 0.5437},
    outcome="395 of 710 clips; good: drink, shoot_bow, wave; confused: chew, laugh, smile",
)
ABANDONED = Published(outcome="abandoned after 5 epochs, out of memory")
MODELS: Mapping[str, tuple[str, Published]] = {
    "mean-mlp": ("mean over frames, MLP", REPORTED),
    "lstm": ("LSTM over frames, its last step", ABANDONED),
}


def _row(head: str, split: str) -> RecipeRow:
    model, published = MODELS[head]
    rule, said = SPLITS[split]
    options: dict[str, Any] = {"head": head, "split_by": rule}
    return RecipeRow(
        name=f"{head}-{split}",
        cells={"model": model, "split": said},
        options=options,
        published=published if split == "random" else Published(),
    )


GOOGLENET = Recipe(
    name="hmdb51/googlenet",
    study=HMDB51,
    title="Pooled GoogLeNet features: mean and MLP, LSTM, on the random split and by source film",
    text=(
        "The final model of the publication and the one that it gave up for lack of memory, which a store of features "
        "trains in a few MB; both once more on a split that no source film crosses."
    ),
    features="GoogLeNet's 1024-d features of 16 evenly spaced frames of 7,091 clips of HMDB51",
    shape=(16, 1024),
    options={**SHARED, "normalize": "none"},
    rows=tuple(_row(head, split) for split in SPLITS for head in MODELS),
)
RECIPES = (GOOGLENET,)
