"""How the study of HMDB51 is judged (SYSTEMS.md section 3): one held-out part, four numbers.

The publication splits 7,091 clips at random and reports the validation clips. Clips of one source film lie on both
sides then, so every experiment has a second split that keeps films whole. Protocols (SYSTEMS.md 0.5): by default
validation clips are cut from training, in whole groups; with --select-on reported-set all others train, as published.
"""

from __future__ import annotations

from reelbank.heads.recipes.study import Column, Part, Selection, Study

GUESS = "majority_class"

HMDB51 = Study(
    name="hmdb51",
    parts=(Part(name="test", split="test", said="the clips held out", what="clips that take no part in training"),),
    columns=(
        Column(
            key="accuracy",
            head="acc. %",
            part="test",
            metric="accuracy",
            scale=100,
            digits=2,
            least_digits=2,
            beats=GUESS,
        ),
        Column(key="loss", head="loss", part="test", metric="cross_entropy", digits=4, least_digits=4),
        Column(key="macro_f1", head="macro F1", part="test", metric="macro_f1", digits=4, least_digits=4),
        Column(key="weighted_f1", head="weighted F1", part="test", metric="weighted_f1", digits=4, least_digits=4),
    ),
    selection=Selection(
        validation="val_accuracy",
        column="accuracy",
        protocol=(
            "all clips but those held out train, for a fixed number of epochs, and the best row is that of the highest "
            "accuracy on the clips held out."
        ),
        protocol_options={"keep": "last"},
    ),
    baselines={GUESS: "most frequent class", "uniform_random_class": "random class"},
    by_class={GUESS: "most frequent class"},
    captions={
        "validation.png": "Accuracy per epoch of the training clips and of those that choose the epoch",
        "loss.png": "Loss per epoch",
        "confusion.png": "Confusion of the best row and of the first others on the clips held out",
        "classes.png": "Accuracy by class",
    },
    notes=(
        "Of HMDB51's 6,766 official names 85 % of a random tenth have a clip of the same film and class among the "
        "others (2,291 films by class; ten draws of `--split-by random:0.1`). Rows of the two splits hold out other "
        "clips, so they are not compared clip by clip, and the baselines are those of the first row's.",
    ),
)
