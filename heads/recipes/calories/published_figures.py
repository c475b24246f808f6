"""The runs of the calorie study that are published as curves, and the two of figure 3.50."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.calories.published_tables import ROWS_32, TABLE_31
from reelbank.heads.recipes.calories.settings import (
    ALL_AUGMENTATIONS,
    BASE,
    CLIP,
    CLIP_SHAPE,
    CONV,
    DINOV2,
    DINOV2_SHAPE,
    MEAN,
    RADAM,
    SECOND_TRIAL,
    SEEDS_NOTE,
    STEP20,
    curve,
    numbers,
    pairs,
    plateau,
    seeds,
)
from reelbank.heads.recipes.calories.study import CALORIES
from reelbank.heads.recipes.recipe import Published, Recipe, RecipeRow


def _figure(
    figure: str, loss: str, epochs: int, settings: str, options: Mapping[str, Any], published: Published
) -> RecipeRow:
    return RecipeRow(
        name=f"fig-{figure}",
        cells={"figure": figure, "loss": loss.upper(), "epochs": str(epochs), "settings": settings},
        options={"loss": loss, "epochs": epochs, **options},
        published=published,
        seed_block=seeds(loss),
    )


_FEATURE_AUG = {**MEAN, "augment": ALL_AUGMENTATIONS, **plateau(0.5, 5)}
_VIDEO_AUG = {**MEAN, "train_views": "all"}

FIGURES_CLIP = Recipe(
    name="calories/figures-3.1-3.14",
    study=CALORIES,
    title="CLIP features: losses, step schedule, feature and video augmentation, aggregation",
    text="Runs that are published as curves only. The rows with video augmentation need a store with four views.",
    features=CLIP,
    shape=CLIP_SHAPE,
    options=BASE,
    rows=(
        _figure("3.1", "kld", 200, "mean", MEAN, curve("overfit")),
        _figure("3.2", "kld", 200, "mean, step20", {**MEAN, **STEP20}, curve("overfit solved, underfit")),
        _figure(
            "3.3", "kld", 200, "mean, step20, wd 1e-4", {**MEAN, **STEP20, "weight_decay": 1e-4},
            curve("overfit solved, underfit"),
        ),
        _figure("3.4", "jsd", 200, "mean", MEAN, curve("overfit after 40 epochs")),
        _figure("3.5", "ce", 200, "mean", MEAN, curve("overfit")),
        _figure("3.6", "kld", 200, "mean, feature aug, plateau(0.5, 5)", _FEATURE_AUG, curve("does not learn enough")),
        _figure(
            "3.7", "kld", 200, "mean, feature aug, plateau(0.5, 5), wd 1e-4", {**_FEATURE_AUG, "weight_decay": 1e-4},
            curve("does not learn enough"),
        ),
        _figure(
            "3.8", "kld", 200, "mean, video aug, plateau(0.5, 5), wd 1e-5", {**_VIDEO_AUG, **plateau(0.5, 5)},
            curve("no significant gain"),
        ),
        _figure(
            "3.9", "kld", 200, "mean, video aug, plateau(0.5, 5), wd 1e-4",
            {**_VIDEO_AUG, **plateau(0.5, 5), "weight_decay": 1e-4}, curve("no significant gain"),
        ),
        _figure(
            "3.10", "kld", 200, "mean, video aug, plateau(0.5, 5), wd 1e-3",
            {**_VIDEO_AUG, **plateau(0.5, 5), "weight_decay": 1e-3}, curve("no significant gain"),
        ),
        _figure(
            "3.11", "kld", 200, "mean, video aug, wd 1e-3", {**_VIDEO_AUG, "weight_decay": 1e-3},
            curve("no significant gain"),
        ),
        _figure("3.12", "kld", 200, "aggregation", CONV, curve("strong overfit")),
        _figure("3.13", "jsd", 200, "aggregation", CONV, curve("strong overfit")),
        _figure("3.14", "ce", 200, "aggregation", CONV, curve("strong overfit")),
    ),
)  # fmt: skip


def _dinov2_figures() -> tuple[RecipeRow, ...]:
    """3.15 to 3.20 are the rows of table 3.1, 3.21 to 3.35 those of table 3.2 and four runs of 700 epochs."""
    rows = [
        _figure(figure, row.options["loss"], row.options["epochs"], "mean", MEAN, row.published)
        for figure, row in zip(("3.15", "3.16", "3.17", "3.18", "3.19", "3.20"), TABLE_31.rows, strict=True)
    ]
    long_run = {**CONV, "epochs": 700}
    by_name = {row.name: row for row in ROWS_32}
    order: tuple[tuple[str, RecipeRow | tuple[str, str, Mapping[str, Any]]], ...] = (
        ("3.21", by_name["kld"]),
        ("3.22", ("kld", "aggregation", long_run)),
        ("3.23", ("kld", "aggregation, wd 1e-4", {**long_run, "weight_decay": 1e-4})),
        ("3.24", by_name["kld-p5"]),
        ("3.25", by_name["kld-p10"]),
        ("3.26", by_name["kld-p15"]),
        ("3.27", by_name["jsd"]),
        ("3.28", ("jsd", "aggregation", long_run)),
        ("3.29", by_name["jsd-300"]),
        ("3.30", by_name["jsd-p15"]),
        ("3.31", by_name["jsd-p50"]),
        ("3.32", by_name["ce"]),
        ("3.33", ("ce", "aggregation", long_run)),
        ("3.34", by_name["ce-p15"]),
        ("3.35", by_name["ce-lr2e-4"]),
    )
    for figure, entry in order:
        if isinstance(entry, RecipeRow):
            schedule = entry.cells["schedule"]
            settings = "aggregation" if schedule == "none" else f"aggregation, {schedule}"
            options = {**CONV, **entry.options}
            rows.append(_figure(figure, options["loss"], options["epochs"], settings, options, entry.published))
        else:
            loss, settings, long_options = entry
            rows.append(_figure(figure, loss, 700, settings, long_options, curve("overfit")))
    return tuple(rows)


FIGURES_DINOV2 = Recipe(
    name="calories/figures-3.15-3.35",
    study=CALORIES,
    title="DINOv2 features: all runs shown as curves, with those of 700 epochs",
    text="Mean over time and aggregation for each loss; the runs of tables 3.1 and 3.2 and four longer ones.",
    features=DINOV2,
    shape=DINOV2_SHAPE,
    options=BASE,
    rows=_dinov2_figures(),
    notes=(
        "Of the figures 3.24 to 3.35 the document states the schedule and the stop epoch of seven: 3.24, 3.25, 3.26, "
        "3.30, 3.31, 3.34, 3.35. 3.27, 3.28, 3.29 and 3.32 are captioned with their epochs alone: read as runs without "
        "a schedule. 3.33 is captioned with a schedule but stands before that section: read as the plain run.",
        SEEDS_NOTE,
    ),
)

FIGURES_AUGMENTED = Recipe(
    name="calories/figures-3.48-3.49",
    study=CALORIES,
    title="Feature augmentation on the best RAdam",
    text="Aggregation, KLD, RAdam with the values that table 3.4 ends with, and four copies of each training clip.",
    features=DINOV2,
    shape=DINOV2_SHAPE,
    options={**BASE, **CONV, **RADAM, "weight_decay": 1e-6},
    rows=(
        _figure(
            "3.48", "kld", 200, "noise 0.1, dropout 0.1, scaling, shift", {"augment": ALL_AUGMENTATIONS},
            curve("overfit"),
        ),
        _figure(
            "3.49", "kld", 200, "noise 0.02, dropout 0.05, scaling, shift", {"augment": SECOND_TRIAL},
            curve("overfit"),
        ),
    ),
)  # fmt: skip


def _panel(name: str, label: str, options: Mapping[str, Any], published: Published) -> RecipeRow:
    return RecipeRow(name=name, cells={"optimiser": label}, options=options, published=published)


FIGURE_350 = Recipe(
    name="calories/figure-3.50",
    study=CALORIES,
    title="Predicted and true calories: Adam without adjustments, the best RAdam",
    text="Aggregation, KLD, 200 epochs, with Adam as it is and with RAdam and the values that table 3.4 ends with.",
    features=DINOV2,
    shape=DINOV2_SHAPE,
    options={**BASE, **CONV, "loss": "kld", "epochs": 200},
    rows=(
        _panel("adam", "Adam", {"optimizer": "adam"}, numbers(28, 160, 0.234, 6.66, 194, 0.09, 12.27)),
        _panel("radam", "best RAdam", {**RADAM, "weight_decay": 1e-6}, pairs((153, 190))[0]),
    ),
    compared=("adam", "radam"),
    notes=(
        "The document does not say whether the run with Adam aggregates; read as with aggregation, so that the two "
        "differ in the optimiser and its weight decay alone.",
    ),
)

RECIPES = (FIGURES_CLIP, FIGURES_DINOV2, FIGURES_AUGMENTED, FIGURE_350)
