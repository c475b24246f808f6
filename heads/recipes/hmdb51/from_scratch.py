"""Three CNN + LSTM networks trained from scratch on stored frames, in four variants each (SYSTEMS.md 3.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.hmdb51.settings import SHARED, SPLITS
from reelbank.heads.recipes.hmdb51.study import HMDB51
from reelbank.heads.recipes.recipe import Published, Recipe, RecipeRow

CLIPS = 30 * 51
"""The reduced set: about 30 clips of each of the 51 classes, drawn class by class."""
BALANCED: Mapping[str, Any] = {"class_weights": "balanced"}
AUGMENTED: Mapping[str, Any] = {**BALANCED, "pixel_augment": ("flip", "crop", "brightness")}
DROPOUT = ("dropout=0.3",)
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any], tuple[str, ...], tuple[str, str, str]]] = {
    "plain": ("plain", {}, (), ("fastest loss, lowest accuracy", "stable", "stable, best")),
    "weights": ("class weights", BALANCED, (), ("jumps, judged unreliable", "clearly better, chosen", "worse")),
    "augmented": ("class weights, augmentation", AUGMENTED, (), ("worse, unstable", "worse", "worse")),
    "dropout": (
        "class weights, dropout 0.3", BALANCED, DROPOUT,
        ("better than augmentation", "weakest of the three", "similar to model 1"),
    ),
}  # fmt: skip
"""{in names of rows: (in words, settings, options of the head, what the publication says of models 1 to 3)}."""
FIRST_TRIAL = Published(values={"accuracy": 7.0}, outcome="about 7 %")


def _row(model: int, variant: str, split: str, name: str = "", published: Published | None = None) -> RecipeRow:
    said, settings, options, outcomes = VARIANTS[variant]
    rule, split_said = SPLITS[split]
    own = Published(outcome=outcomes[model - 1]) if split == "random" else Published()
    return RecipeRow(
        name=name or f"model-{model}-{variant}-{split}",
        cells={"model": str(model), "variant": said, "split": split_said},
        options={"split_by": rule, "head_option": (f"net={model}", *options), **settings},
        stores="matching",
        published=published or own,
    )


FROM_SCRATCH = Recipe(
    name="hmdb51/from-scratch",
    study=HMDB51,
    title="Three CNN + LSTM networks from scratch: plain, class weights, augmentation, dropout",
    text=(
        "16 frames around the middle of each clip at 112 px; a CNN per frame, an LSTM over them, its last step. The "
        "publication prints no number but that of its first trial; what it says of each run stands beside ours."
    ),
    features="about 30 clips of each class of HMDB51, 16 frames of each",
    options={**SHARED, "head": "cnn-lstm", "stage": "1", "train_clips": CLIPS},
    rows=(
        _row(1, "plain", "random", name="first-trial", published=FIRST_TRIAL),
        *(_row(model, variant, split) for split in SPLITS for variant in VARIANTS for model in (1, 2, 3)),
    ),
    corners=("first-trial", "model-2-weights-random", "model-3-augmented-films", "model-2-dropout-films"),
    notes=("The publication does not say which network its first trial was; ours is that of model 1, plain.",),
)
RECIPES = (FROM_SCRATCH,)
