"""Beyond the publication: a small head on frozen maps, beside the second stage of Ego-RNN on the same clips.

The head is `map-transformer`, below 3 million numbers, all of which are trained once; Ego-RNN trains 32 million in two
stages. What it reads beside the maps is added one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reelbank.heads.recipes.egocentric.figures import stage_1
from reelbank.heads.recipes.egocentric.settings import FEATURES, SHARED, STAGE_2, row
from reelbank.heads.recipes.egocentric.study import EGOCENTRIC
from reelbank.heads.recipes.recipe import Recipe, RecipeRow

FRAMES = 7
SMALL: Mapping[str, Any] = {
    "head": "map-transformer", "stage": "1", "optimizer": "adamw", "lr": 3e-4, "weight_decay": 0.05, "epochs": 60,
    "schedule": "multistep", "milestones": (40, 52), "factor": 0.2,
}  # fmt: skip


def _small(name: str, what: str, *options: str) -> RecipeRow:
    cells = {"stage": "1", "what": what, "frames": str(FRAMES)}
    return row(name, cells, SMALL, FRAMES, options=options, against=f"ego-rnn-{FRAMES}")


def _ego_rnn() -> RecipeRow:
    cells = {"stage": "2", "what": "Ego-RNN", "frames": str(FRAMES)}
    made = row(
        f"ego-rnn-{FRAMES}", cells, STAGE_2, FRAMES, starts_from=(f"stage-1-{FRAMES}",), against=f"stage-1-{FRAMES}"
    )
    return replace(made, reference=True)


BEYOND = Recipe(
    name="egocentric/beyond",
    study=EGOCENTRIC,
    title="A small transformer on frozen maps, motion maps and flow beside, against Ego-RNN",
    text=(
        "Attention over the places of layer3, with motion maps as a prior, and two transformer layers over the frames, "
        "with histograms of warp flow beside: paired clip by clip with the second stage of Ego-RNN. The table of runs "
        "has the seconds of each training."
    ),
    features=FEATURES,
    options=SHARED,
    rows=(
        stage_1(FRAMES, what="Ego-RNN"),
        _ego_rnn(),
        _small("maps", "transformer on layer3"),
        _small("maps-motion", "with motion maps as a prior", "motion=true"),
        _small("maps-flow", "with histograms of flow", "flow=true"),
        _small("maps-motion-flow", "with both", "motion=true", "flow=true"),
    ),
    proposed="maps-motion-flow",
    repeats=3,
)
RECIPES = (BEYOND,)
