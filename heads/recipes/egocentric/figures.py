"""Figures 7, 12 and 13, 21, 24 and 25: means of three runs."""

from __future__ import annotations

from dataclasses import replace

from reelbank.heads.recipes.egocentric.settings import (
    FEATURES,
    FLOW,
    JOINT,
    LATER_STAGE_1,
    LATER_STAGE_2,
    MEANS_NOTE,
    SHARED,
    STAGE_1,
    STAGE_2,
    accuracy,
    motion,
    row,
)
from reelbank.heads.recipes.egocentric.study import EGOCENTRIC
from reelbank.heads.recipes.recipe import Recipe, RecipeRow

NO_CAM = ("attention=none",)
LABELS = {"o-rnn": "O-RNN, without CAM", "ego-rnn": "Ego-RNN"}
FLOW_NOTE = (
    "The two streams read flow images, of which the network of flow runs its frozen part itself; where stores have "
    "other clips than each other, --join inner takes those in all."
)


def _alone(head: str, stage: int, frames: int, value: float, against: str = "") -> RecipeRow:
    before = (f"{head}-stage-1-{frames}",) if stage == 2 else ()
    return row(
        f"{head}-stage-{stage}-{frames}",
        {"configuration": LABELS[head], "stage": str(stage), "frames": str(frames)},
        STAGE_1 if stage == 1 else STAGE_2,
        frames,
        options=NO_CAM if head == "o-rnn" else (),
        starts_from=before,
        against=before[0] if before else against,
        published=value,
    )


def _joint(frames: int, value: float) -> RecipeRow:
    return row(
        f"two-stream-{frames}",
        {"configuration": "two streams, joint", "stage": "joint", "frames": str(frames)},
        JOINT,
        frames,
        starts_from=(f"ego-rnn-stage-2-{frames}", "flow-resnet34"),
        against=f"ego-rnn-stage-2-{frames}",
        published=value,
    )


def _flow() -> RecipeRow:
    cells = {"configuration": "flow-resnet34", "stage": "1", "frames": "5"}
    return row("flow-resnet34", cells, FLOW, published=46.26)


FIGURE_7 = Recipe(
    name="egocentric/figure-7",
    study=EGOCENTRIC,
    title="Ego-RNN with and without attention, flow, and both streams",
    text=(
        "ResNet-34, class activation attention and a ConvLSTM, trained in two stages; the same without attention; a "
        "ResNet-34 on five flow fields; both fused late and trained jointly."
    ),
    features=FEATURES,
    options=SHARED,
    rows=(
        _alone("o-rnn", 1, 7, 29.89),
        _alone("o-rnn", 1, 16, 27.87),
        _alone("o-rnn", 2, 7, 50.00),
        _alone("o-rnn", 2, 16, 50.57),
        _alone("ego-rnn", 1, 7, 41.38, against="o-rnn-stage-1-7"),
        _alone("ego-rnn", 1, 16, 46.84, against="o-rnn-stage-1-16"),
        _alone("ego-rnn", 2, 7, 58.91),
        _alone("ego-rnn", 2, 16, 65.52),
        _flow(),
        _joint(7, 57.76),
        _joint(16, 66.38),
    ),
    repeats=3,
    notes=(MEANS_NOTE, FLOW_NOTE),
)


def stage_1(frames: int, value: float | None = None, **cells: str) -> RecipeRow:
    """The stage that all with motion segmentation starts from: the branch takes no part in it."""
    name, cells = f"stage-1-{frames}", {"stage": "1", **cells, "frames": str(frames)}
    return row(name, cells, LATER_STAGE_1, frames, published=value)


def _with_motion(figure: str, loss: str, frames: int, value: float) -> RecipeRow:
    return row(
        f"{loss}-{frames}",
        {"stage": "2", "figure": figure, "loss": loss, "frames": str(frames)},
        STAGE_2,
        frames,
        options=motion("conv5", loss, "bw"),
        starts_from=(f"stage-1-{frames}",),
        against=f"stage-1-{frames}",
        published=value,
    )


FIGURE_12_13 = Recipe(
    name="egocentric/figure-12-13",
    study=EGOCENTRIC,
    title="Motion segmentation of 7x7 black and white maps: classes or regression",
    text="A second branch tells where something moves, from the last maps of ResNet-34. Both figures share stage 1.",
    features=FEATURES,
    options=SHARED,
    rows=(
        stage_1(7, 44.83, figure="12, 13", loss=""),
        stage_1(16, 50.86, figure="12, 13", loss=""),
        _with_motion("12", "binary", 7, 60.63),
        _with_motion("12", "binary", 16, 62.07),
        _with_motion("13", "regression", 7, 59.77),
        _with_motion("13", "regression", 16, 66.38),
    ),
    repeats=3,
    notes=(MEANS_NOTE,),
)
SIDES = {"conv5": 7, "conv4": 14, "conv3": 28}


def _resolution(level: str, target: str, loss: str, value: float) -> RecipeRow:
    side = SIDES[level]
    return row(
        f"{side}-{target}-{loss}",
        {"stage": "2", "size": f"{side}x{side}", "map": target, "layer": level, "loss": loss, "frames": "7"},
        LATER_STAGE_2,
        7,
        options=motion(level, loss, target),
        starts_from=("stage-1-7",),
        published=value,
    )


FRAMES_NOTE = (
    "Rows that train conv4 or conv3 read frames (`featurize --model frames`): maps of layer2 and before are larger "
    "than the pictures they are of."
)
FIGURE_21 = Recipe(
    name="egocentric/figure-21",
    study=EGOCENTRIC,
    title="Motion segmentation: size of the maps, black and white or gray, classes or regression",
    text=("One stage 1 for all; in stage 2 the branch is on maps of 7, 14 and 28 px, which are then trained, too."),
    features=FEATURES,
    options=SHARED,
    rows=(
        stage_1(7),
        _resolution("conv5", "bw", "binary", 56.47),
        _resolution("conv5", "bw", "regression", 62.07),
        _resolution("conv5", "gray", "regression", 61.21),
        _resolution("conv4", "bw", "binary", 63.22),
        _resolution("conv4", "gray", "regression", 69.25),
        _resolution("conv3", "bw", "binary", 54.60),
        _resolution("conv3", "gray", "regression", 52.30),
    ),
    repeats=3,
    notes=(MEANS_NOTE, FRAMES_NOTE, "56.47 is no mean of three runs on 116 videos: it is one of two, 131 of 232."),
)


def _discriminator(number: int, reach: str, alpha: float, value: float) -> RecipeRow:
    what = {"conv5": "trains conv5", "convlstm": "does not"}[reach]
    return row(
        f"configuration-{number}",
        {
            "stage": "2",
            "configuration": str(number),
            "alpha": f"{alpha:.1f}",
            "still frames train": what,
            "frames": "7",
        },
        LATER_STAGE_2,
        7,
        options=(*motion("conv5", "binary", "bw"), f"discriminator={reach}"),
        starts_from=("stage-1-7",),
        published=value,
        aux_weight=(f"dynamic={alpha:.1f}",),
    )


FIGURE_24 = Recipe(
    name="egocentric/figure-24",
    study=EGOCENTRIC,
    title="Static-dynamic discriminator: its weight, and what still sequences train",
    text=(
        "Beside motion segmentation the network tells a clip from one of its frames repeated; alpha weighs that loss. "
        "Gradients of the repeated frame reach conv5 in configuration 1 alone."
    ),
    features=FEATURES,
    options=SHARED,
    rows=(
        stage_1(7),
        _discriminator(1, "conv5", 1.0, 55.46),
        _discriminator(2, "convlstm", 1.0, 56.03),
        _discriminator(3, "convlstm", 0.5, 56.90),
        _discriminator(4, "convlstm", 0.1, 64.08),
    ),
    repeats=3,
    notes=(MEANS_NOTE,),
)


def _retold(one: RecipeRow, what: str, value: float | None = None, name: str = "", against: str = "") -> RecipeRow:
    """A row of another figure as this one has it; without a value only others start from it."""
    cells = {"what": what, "frames": str(one.options.get("steps", 5))}
    return replace(one, name=name or one.name, cells=cells, published=accuracy(value), against=against)


_OWN = {one.name: one for recipe in (FIGURE_7, FIGURE_12_13, FIGURE_21, FIGURE_24) for one in recipe.rows}
FIGURE_25 = Recipe(
    name="egocentric/figure-25",
    study=EGOCENTRIC,
    title="What was tried beside the two streams: representation flow, discriminator, gray maps of 14 px",
    text="The best of each idea with 7 frames, and the two streams as the baseline.",
    features=FEATURES,
    options=SHARED,
    rows=(
        _retold(_OWN["ego-rnn-stage-1-7"], "Ego-RNN, stage 1"),
        _retold(_OWN["ego-rnn-stage-2-7"], "Ego-RNN, stage 2"),
        _retold(_OWN["flow-resnet34"], "flow-resnet34"),
        row("o-rnn-stage-1-7", {"what": "O-RNN, stage 1", "frames": "7"}, LATER_STAGE_1, 7, options=NO_CAM),
        _retold(stage_1(7), "stage 1 before motion segmentation"),
        _retold(_OWN["two-stream-7"], "two streams (baseline)", 57.76),
        row(
            "representation-flow", {"what": "representation flow, without CAM", "frames": "7"}, LATER_STAGE_2, 7,
            options=(*NO_CAM, "repflow=true"), starts_from=("o-rnn-stage-1-7",), against="two-stream-7",
            published=51.72,
        ),
        _retold(_OWN["configuration-4"], "discriminator, alpha 0.1", 64.08, "discriminator", "two-stream-7"),
        _retold(_OWN["14-gray-regression"], "gray motion maps of 14x14", 69.25, "motion-14-gray", "two-stream-7"),
    ),
    repeats=3,
    notes=(
        MEANS_NOTE, FRAMES_NOTE, FLOW_NOTE,
        "Of the representation flow the publication prints this number and no settings: those of figure 21 are ours.",
    ),
)  # fmt: skip

RECIPES = (FIGURE_7, FIGURE_12_13, FIGURE_21, FIGURE_24, FIGURE_25)
