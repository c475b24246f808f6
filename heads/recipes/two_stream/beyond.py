"""Beyond the publication: one change at a time, each row paired clip by clip with the one that lacks it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reelbank.heads.recipes.recipe import Recipe, RecipeRow
from reelbank.heads.recipes.two_stream.settings import (
    DOUBLE_SOFTMAX,
    FEATURES,
    SHARED,
    STILLS,
    STILLS_NOTE,
    row,
    stills,
)
from reelbank.heads.recipes.two_stream.study import TWO_STREAM

FLIPS = ("flip",)
CLIPPED_PX = 20.0
CLIP = (f"clip={CLIPPED_PX:g}",)
PUBLISHED = "mid-fusion-published"


def _row(name: str, head: str, model: str, what: str, **more: Any) -> RecipeRow:
    return row(name, head, {"model": model, "what": what}, **more)


BEYOND = Recipe(
    name="two-stream/beyond",
    study=TWO_STREAM,
    title="Cross-entropy on logits, five frames, clipped flow, flips, late fusion of calibrated logits",
    text=(
        "The published mid fusion, and beside it what a user may try: the loss on logits, the consensus of five frames "
        "(Temporal Segment Networks), flow cut at 20 px, mirrored clips whose flow changes its sign, and late fusion "
        "of both nets' logits, whose temperatures and weight are fitted on validation clips."
    ),
    features=FEATURES,
    options={**SHARED, "loss": "ce"},
    rows=(
        stills({"model": "still images", "what": "loss on logits"}),
        _row("frames-published", "frame-net", "frames", "published loss", starts_from=STILLS, loss=DOUBLE_SOFTMAX),
        _row("flow-published", "flow-net", "flow", "published loss", loss=DOUBLE_SOFTMAX),
        replace(
            _row(
                PUBLISHED,
                "two-stream",
                "mid fusion",
                "published loss",
                starts_from=("frames-published", "flow-published"),
                loss=DOUBLE_SOFTMAX,
            ),
            reference=True,
        ),
        _row("frames", "frame-net", "frames", "loss on logits", starts_from=STILLS, against="frames-published"),
        _row("flow", "flow-net", "flow", "loss on logits", against="flow-published"),
        _row(
            "mid-fusion", "two-stream", "mid fusion", "loss on logits", starts_from=("frames", "flow"),
            against=PUBLISHED,
        ),
        _row(
            "frames-5", "frame-net", "frames", "five frames", options=("position=all",), starts_from=STILLS,
            against="frames",
        ),
        _row("flow-clipped", "flow-net", "flow", "clipped at 20 px", options=CLIP, against="flow"),
        _row(
            "frames-flips", "frame-net", "frames", "five frames, flips", options=("position=all",), starts_from=STILLS,
            against="frames-5", pixel_augment=FLIPS,
        ),
        _row(
            "flow-flips", "flow-net", "flow", "clipped, flips", options=CLIP, against="flow-clipped",
            pixel_augment=FLIPS,
        ),
        _row(
            "late-fusion", "late-fusion", "late fusion", "five frames, clipped", stage="calibration", epochs=1,
            options=("position=all", *CLIP), starts_from=("frames-5", "flow-clipped"), against=PUBLISHED,
        ),
    ),
    proposed="late-fusion",
    repeats=1,
    notes=(
        STILLS_NOTE,
        "Flips teach a network that left and right are one: of classes that differ in them (the rendered set's) the "
        "rows with flips are worse by design.",
    ),
)  # fmt: skip
RECIPES = (BEYOND,)
