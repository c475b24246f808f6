"""How the study of first-person actions is judged (SYSTEMS.md section 2): one accuracy, and that within opposites.

Two protocols (SYSTEMS.md 0.5). Published, with --select-on reported-set: the store's split, whose test part is one
user, the epoch of the best accuracy there, intervals over its videos. By default each user is left out once, and epochs
are chosen on users of the training part.
"""

from __future__ import annotations

import numpy as np

from reelbank.heads.judging.opposites import WITHIN_PAIR, pairs
from reelbank.heads.recipes.measures import Array, Clips, Guesser, Measure, Training
from reelbank.heads.recipes.study import Column, Part, Selection, Study

COIN = "coin"


def told_apart(clips: Clips) -> Array:
    """1 where the true class is more probable than its opposite, 0 where not, NaN for a class without one."""
    return clips.numbers(WITHIN_PAIR) if WITHIN_PAIR in clips.columns else np.full(len(clips), np.nan)


def _toss(clips: Clips, training: Training) -> Clips:
    return clips.but(**{WITHIN_PAIR: np.where(np.isnan(told_apart(clips)), np.nan, 0.5)})


def about_pairs(training: Training) -> tuple[str, ...]:
    """Which classes are opposites, in a sentence."""
    names = sorted(set(training.labels.tolist()) - {""})
    found = pairs(names)
    if not found:
        return (
            "No two classes are opposites by their names (open and close, take and put): there is nothing to tell.",
        )
    listed = ", ".join(f"{one} / {other}" for one, other in found)
    count = "1 pair" if len(found) == 1 else f"{len(found)} pairs"
    return (
        "Within pairs: of clips whose class has an opposite, the share in which it is more probable than that one, "
        f"whatever else is; a coin has 50. By their names {count} of {len(names)} classes: {listed}.",
    )


EGOCENTRIC = Study(
    name="egocentric",
    parts=(Part(name="test", split="test", said="the users left out", what="clips of a user left out of training"),),
    columns=(
        Column(
            key="accuracy",
            head="acc. %",
            part="test",
            metric="accuracy",
            scale=100,
            digits=2,
            least_digits=2,
            beats="majority_class",
        ),
        Column(
            key="pair_accuracy",
            head="within pairs %",
            part="test",
            metric="pair_accuracy",
            scale=100,
            digits=2,
            beats=COIN,
        ),
    ),
    selection=Selection(
        validation="val_accuracy",
        column="accuracy",
        protocol=(
            "validation and test are the same videos of one user; the epoch and the best row are those of the highest "
            "accuracy there. The numbers are too good for a user whom nobody has seen, and intervals over these videos "
            "say nothing about other users."
        ),
        protocol_options={"folds": 0, "keep": "best-accuracy"},
        protocol_by_clip=True,
    ),
    baselines={"majority_class": "most frequent class", "uniform_random_class": "random class", COIN: "coin"},
    measures={
        "pair_accuracy": Measure(
            title="accuracy within pairs", higher_is_better=True, per_clip=told_apart, is_hit=True
        ),
    },
    guessers={COIN: Guesser(title="a coin", guess=_toss)},
    by_class={"majority_class": "most frequent class"},
    folds="groups",
    captions={
        "validation.png": "Accuracy per epoch (figures 8 and 16) of the training clips as they were trained on, and of "
        "the clips that choose the epoch; vertical lines: epochs after which the rate is reduced",
        "loss.png": "Loss per epoch (figures 9 and 16), that of training with the further losses of a row; vertical "
        "lines: epochs after which the rate is reduced",
        "motion.png": "Loss of motion segmentation per epoch on the training clips (figure 19), as it counts in the "
        "whole",
        "classes.png": "Accuracy by class",
    },
    notes=(
        "The publication trains in one of 40 crops of each clip, drawn anew in every epoch: stores made with "
        "`featurize --views corners` and --train-views draw do the same; else a clip is read in its evaluation view.",
        "One video of the publication's 116 is 0.86 points, and a mean of three runs near 65 has a 95 % interval of "
        "8.7 points to either side from the videos alone: large gaps can be compared, tenths cannot.",
    ),
    tells=about_pairs,
)
