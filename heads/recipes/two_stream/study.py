"""How the study of two-stream networks is judged (SYSTEMS.md section 5): training, validation and test clips."""

from __future__ import annotations

from reelbank.heads.recipes.study import Column, Part, Selection, Study

GUESS = "majority_class"

TWO_STREAM = Study(
    name="two-stream",
    parts=(
        Part(name="test", split="test", said="the test clips"),
        Part(name="train", split="train", said="the training clips", is_needed=False),
        Part(name="val", split="val", said="the validation clips", is_needed=False),
    ),
    columns=(
        Column(key="train_accuracy", head="train %", part="train", metric="accuracy", scale=100, digits=2),
        Column(key="val_accuracy", head="val %", part="val", metric="accuracy", scale=100, digits=2),
        Column(key="accuracy", head="test %", part="test", metric="accuracy", scale=100, digits=2, beats=GUESS),
        Column(key="train_loss", head="train loss", part="train", metric="ce_on_softmax", digits=3, least_digits=3),
    ),
    selection=Selection(
        validation="val_accuracy",
        column="accuracy",
        protocol="the best row is that of the highest test accuracy; the last weights are kept.",
        protocol_options={"keep": "last"},
    ),
    baselines={GUESS: "most frequent class", "uniform_random_class": "random class"},
    by_class={GUESS: "most frequent class"},
    captions={
        "validation.png": "Accuracy per epoch of the training clips and of the validation clips",
        "loss.png": "Loss per epoch",
        "rates.png": "Learning rate of every batch",
        "confusion.png": "Confusion of the best row and of the first others on the test clips",
        "grad-cam.png": "Grad-CAM of each network for two classes: what speaks for the class, before the softmax",
        "classes.png": "Accuracy by class",
    },
    notes=(
        "One of the publication's 360 test clips is 0.28 points, and a 95 % interval reaches about 5.2 points to "
        "either side.",
        "By official names about four of five clips of a random validation part have a training clip of the same film "
        "and class, and none of the test clips: a likely cause of 69.05 % on validation beside 52 % on test. `reelbank "
        "manifest hmdb51 --groups names --val-by group` cuts validation clips without it.",
    ),
)
