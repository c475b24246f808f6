"""What fusion gives on the rendered set, without HMDB51 and trained weights: neither stream alone can name the class.

`reelbank manifest synth-hmdb51` renders 3 outlines x 4 directions of the whole picture. A frame tells the outline and
not the direction, so a frame net is right in one clip of four at best; flow tells the direction alone, so a flow net in
one of three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.recipe import Recipe, RecipeRow
from reelbank.heads.recipes.two_stream.settings import SHARED, row
from reelbank.heads.recipes.two_stream.study import TWO_STREAM

FRAMES: Mapping[str, Any] = {"lr": 1e-3, "epochs": 5}
FLOW: Mapping[str, Any] = {"epochs": 3}
FUSED: Mapping[str, Any] = {"epochs": 4}


def _fused(name: str, against: str) -> RecipeRow:
    cells = {"model": "two-stream", "less": against}
    return row(name, "two-stream", cells, starts_from=("frames", "flow"), against=against, **FUSED)


RENDERED = Recipe(
    name="two-stream/rendered",
    study=TWO_STREAM,
    title="Mid fusion on a rendered set that neither stream alone can name",
    text=(
        "Frame net, flow net and their mid fusion on clips whose class is outline x direction. The fusion is compared "
        "with each of the two, clip by clip, over subjects that training never saw."
    ),
    features="",
    options={**SHARED, "loss": "ce", "batch": 16},
    rows=(
        row("frames", "frame-net", {"model": "frames", "less": ""}, **FRAMES),
        row("flow", "flow-net", {"model": "flow", "less": ""}, **FLOW),
        _fused("two-stream", "frames"),
        _fused("two-stream-and-flow", "flow"),
    ),
    notes=("Best possible of frames alone 25 %, of flow alone 33.3 %; the last two rows are one training.",),
)
RECIPES = (RENDERED,)
