"""Table 1, the cyclic rate, the position of the frame, Grad-CAM (SYSTEMS.md 5.6 to 5.9): single runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.judging.paired import PublishedPair
from reelbank.heads.recipes.recipe import Recipe, RecipeRow
from reelbank.heads.recipes.two_stream.settings import (
    DOUBLE_SOFTMAX,
    FEATURES,
    LOSS_NOTE,
    SHARED,
    STILLS,
    STILLS_NOTE,
    row,
    stills,
)
from reelbank.heads.recipes.two_stream.study import TWO_STREAM

PUBLISHED: Mapping[str, Any] = {**SHARED, "loss": DOUBLE_SOFTMAX}
TEST_CLIPS = 360
CLIPS, IMAGES = {"data": "clips"}, {"data": "still images"}


def networks(reported: Mapping[str, Mapping[str, float]]) -> tuple[RecipeRow, ...]:
    """The four trainings of table 1, with what is published of them."""
    return (
        stills({**IMAGES, "model": "frames"}, reported.get("stills")),
        row("frames", "frame-net", {**CLIPS, "model": "frames"}, starts_from=STILLS, published=reported.get("frames")),
        row("flow", "flow-net", {**CLIPS, "model": "flow"}, against="frames", published=reported.get("flow")),
        row(
            "two-stream",
            "two-stream",
            {**CLIPS, "model": "two-stream"},
            starts_from=("frames", "flow"),
            against="frames",
            published=reported.get("two-stream"),
        ),
    )


TABLE_1 = Recipe(
    name="two-stream/table-1",
    study=TWO_STREAM,
    title="Frame net, flow net and their mid fusion",
    text=(
        "GoogLeNet on the middle frame, begun on still images; a small network on eight flow fields; both fused in the "
        "middle, all of it trained on from the two."
    ),
    features=FEATURES,
    options=PUBLISHED,
    rows=networks(
        {
            "stills": {"train_accuracy": 98.779, "accuracy": 80.592, "train_loss": 1.631},
            "frames": {"train_accuracy": 80.291, "accuracy": 52.22, "train_loss": 1.815},
            "flow": {"train_accuracy": 51.323, "accuracy": 22.78, "train_loss": 2.127},
            "two-stream": {"train_accuracy": 97.354, "accuracy": 54.72, "train_loss": 1.646},
        }
    ),
    notes=(
        STILLS_NOTE,
        LOSS_NOTE,
        f"Published, two-stream less frames: {PublishedPair.of(0.5472, 0.5222, TEST_CLIPS).sentence(71)} The "
        "table alone does not show that fusion helps.",
    ),
)


def _frames(name: str, what: str, published: Mapping[str, float] | None = None, **more: Any) -> RecipeRow:
    return row(
        name, "frame-net", {**CLIPS, "rate": what}, starts_from=STILLS, published=published,
        against="" if name == "constant" else "constant", **more,
    )  # fmt: skip


CYCLIC_RATE: Mapping[str, Any] = {"schedule": "cyclic", "max_lr": 1e-3, "cycle_batches": 5}
CYCLIC = Recipe(
    name="two-stream/cyclic",
    study=TWO_STREAM,
    title="A cyclic learning rate for the frame net",
    text="From 1e-4 to 1e-3 and back in ten batches (triangular2), half as high with every cycle, on across epochs.",
    features=FEATURES,
    options=PUBLISHED,
    rows=(
        stills({**IMAGES, "rate": "constant"}),
        _frames("constant", "constant", {"train_accuracy": 80.29, "val_accuracy": 69.05, "accuracy": 52.23}),
        _frames("cyclic", "cyclic", {"train_accuracy": 90.6, "val_accuracy": 69.05, "accuracy": 55.28}, **CYCLIC_RATE),
        _frames("cyclic-restarted", "cyclic, anew in each epoch", **CYCLIC_RATE, restart_each_epoch=True),
    ),
    notes=(
        STILLS_NOTE,
        LOSS_NOTE,
        f"Published, cyclic less constant: {PublishedPair.of(0.5528, 0.5223, TEST_CLIPS).sentence()} None more on "
        "validation. The text describes the course of one "
        "epoch; the row that begins anew in each reads it so.",
    ),
)

POSITIONS: Mapping[str, tuple[str, float]] = {
    "middle": ("middle, N//2", 52.0),
    "first": ("first, 0", 42.0),
    "front": ("front, N//4", 48.0),
    "rear": ("rear, 3N//4", 48.2),
    "last": ("last, N-1", 42.0),
}


def _position(name: str) -> RecipeRow:
    what, accuracy = POSITIONS[name]
    return row(
        name, "frame-net", {**CLIPS, "frame": what}, options=(f"position={name}",), starts_from=STILLS,
        against="" if name == "middle" else "middle", published={"accuracy": accuracy},
    )  # fmt: skip


FRAME_POSITION = Recipe(
    name="two-stream/frame-position",
    study=TWO_STREAM,
    title="Which frame of a clip the frame net reads",
    text="The frame net trained and tested on one frame of each clip, five times: all from one store of five frames.",
    features=FEATURES,
    options=PUBLISHED,
    rows=(stills(IMAGES), *map(_position, POSITIONS)),
    notes=(STILLS_NOTE, LOSS_NOTE, "Store the five frames with --sampling position:0,0.25,0.5,0.75,1."),
)

GRAD_CAM = Recipe(
    name="two-stream/grad-cam",
    study=TWO_STREAM,
    title="Where the three networks look: Grad-CAM of two classes",
    text=(
        "The networks of table 1, and what speaks for each of two classes in a test clip of each, in the frame or in "
        "its fields."
    ),
    features=FEATURES,
    options=PUBLISHED,
    rows=networks({}),
    seen_classes=("clap", "climb"),
    notes=(STILLS_NOTE, "The publication names no classes; ours are clap and climb, where the store has them."),
)
RECIPES = (TABLE_1, CYCLIC, FRAME_POSITION, GRAD_CAM)
