"""What the authors propose and never ran: all that helped, together."""

from __future__ import annotations

from reelbank.heads.recipes.egocentric.figures import FLOW_NOTE, FRAMES_NOTE, stage_1
from reelbank.heads.recipes.egocentric.settings import FEATURES, FLOW, JOINT, LATER_STAGE_2, SHARED, motion, row
from reelbank.heads.recipes.egocentric.study import EGOCENTRIC
from reelbank.heads.recipes.recipe import Recipe, RecipeRow

ALPHA = ("dynamic=0.1",)
JOINT_WEIGHTS = ("motion=0", *ALPHA)
"""Squares that are summed over 196 pixels diverge within an epoch at the joint rate of 1e-2, which is for labels."""
BRANCHES = (*motion("conv4", "regression", "gray"), "discriminator=convlstm")


def _rgb(frames: int) -> RecipeRow:
    cells = {"stage": "2", "what": "gray motion maps of 14x14, discriminator", "frames": str(frames)}
    return row(
        f"rgb-{frames}", cells, LATER_STAGE_2, frames, options=BRANCHES, starts_from=(f"stage-1-{frames}",),
        aux_weight=ALPHA,
    )  # fmt: skip


def _both(frames: int) -> RecipeRow:
    return row(
        f"combined-{frames}",
        {"stage": "joint", "what": "with the flow stream", "frames": str(frames)},
        JOINT,
        frames,
        options=BRANCHES,
        starts_from=(f"rgb-{frames}", "flow-resnet34"),
        aux_weight=JOINT_WEIGHTS,
    )


COMBINED = Recipe(
    name="egocentric/combined",
    study=EGOCENTRIC,
    title="Two streams, gray motion maps of 14 px and the discriminator, 16 and 25 frames",
    text=(
        "The authors propose to join what helped and did not run it, so nothing is published. Settings are those that "
        "did best alone. In joint training the discriminator goes on and the loss of motion maps has no weight: at the "
        "published joint rate it diverges."
    ),
    features=FEATURES,
    options=SHARED,
    rows=(
        stage_1(16, what="Ego-RNN"),
        stage_1(25, what="Ego-RNN"),
        _rgb(16),
        _rgb(25),
        row("flow-resnet34", {"stage": "1", "what": "flow", "frames": "5"}, FLOW),
        _both(16),
        _both(25),
    ),
    repeats=3,
    notes=(FRAMES_NOTE, FLOW_NOTE),
)
RECIPES = (COMBINED,)
