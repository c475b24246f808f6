"""The large gaps of the study on the rendered set, in an hour or two without a GPU: what order, stages and motion give.

`reelbank manifest synth-gtea61` renders two pairs of actions that differ in the order of their frames alone, so
frames in no order are a coin there. Settings are those of the publication with fewer epochs and smaller batches: of 160
clips 80 train, the others are of the user who is left out and of the one who chooses the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.egocentric.beyond import SMALL
from reelbank.heads.recipes.egocentric.settings import LATER_STAGE_1, SHARED, STAGE_2, motion, row
from reelbank.heads.recipes.egocentric.study import EGOCENTRIC
from reelbank.heads.recipes.recipe import Recipe

FIRST: Mapping[str, Any] = {**LATER_STAGE_1, "epochs": 5, "milestones": (4,)}
SECOND: Mapping[str, Any] = {**STAGE_2, "epochs": 4, "milestones": (3,)}
MAPS: Mapping[str, Any] = {**SMALL, "epochs": 30, "milestones": (22,)}

RENDERED = Recipe(
    name="egocentric/rendered",
    study=EGOCENTRIC,
    title="Order, the second stage and motion maps on the rendered set",
    text=(
        "The two stages of Ego-RNN on all stored frames, the second one without and with motion segmentation, and the "
        "small transformer on frozen maps, with its frames in no order and in theirs: each compared clip by clip with "
        "the row that lacks one thing."
    ),
    features="",
    options={**SHARED, "batch": 8},
    rows=(
        row("stage-1", {"stage": "1", "what": "Ego-RNN"}, FIRST),
        row("stage-2", {"stage": "2", "what": "Ego-RNN"}, SECOND, starts_from=("stage-1",), against="stage-1"),
        row(
            "motion",
            {"stage": "2", "what": "with motion segmentation"},
            SECOND,
            options=motion("conv5", "binary", "bw"),
            starts_from=("stage-1",),
            against="stage-2",
        ),
        row(
            "maps-unordered",
            {"stage": "1", "what": "transformer on layer3, frames in no order"},
            MAPS,
            options=("order=false",),
        ),
        row("maps", {"stage": "1", "what": "transformer on layer3"}, MAPS, against="maps-unordered"),
        row(
            "maps-motion-flow",
            {"stage": "1", "what": "with motion maps and histograms of flow"},
            MAPS,
            options=("motion=true", "flow=true"),
            against="stage-2",
        ),
    ),
    repeats=3,
    notes=(
        "Sample with uniform:7, whose frames are those of the same clip played backwards too. Of uniform:7:open, which "
        "leaves the end out, frames in no order tell where a clip begins, and are no coin.",
    ),
)
RECIPES = (RENDERED,)
