"""Tables 3.1 to 3.4 of the calorie study, and its k-means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.calories.settings import (
    BASE,
    CONV,
    DINOV2,
    DINOV2_SHAPE,
    MEAN,
    RADAM,
    RMSPROP,
    SEEDS_NOTE,
    numbers,
    pairs,
    plateau,
    seeds,
)
from reelbank.heads.recipes.calories.study import CALORIES
from reelbank.heads.recipes.recipe import Published, Recipe, RecipeRow, Step

READER = "reelbank.heads.recipes.calories.kmeans:read_clusters"


def _row_31(loss: str, epochs: int, published: Published) -> RecipeRow:
    return RecipeRow(
        name=f"{loss}-{epochs}",
        cells={"loss": loss.upper(), "epochs": str(epochs)},
        options={"loss": loss, "epochs": epochs},
        published=published,
        seed_block=seeds(loss),
    )


TABLE_31 = Recipe(
    name="calories/table-3.1",
    study=CALORIES,
    title="Three losses, mean over time, 200 and 700 epochs",
    text="The two-block evaluator on the mean over time, for each loss on the softened calorie bins.",
    features=DINOV2,
    shape=DINOV2_SHAPE,
    options={**BASE, **MEAN},
    rows=(
        _row_31("kld", 200, numbers(22, 181, 0.234, 6.68, 206, 0.04, 10.46)),
        _row_31("kld", 700, numbers(33, 154, 0.239, 6.52, 256, 0.04, 11.23)),
        _row_31("jsd", 200, numbers(21, 194, 0.211, 8.47, 206, 0.08, 12.20)),
        _row_31("jsd", 700, numbers(30, 169, 0.151, 10.31, 263, 0.12, 13.21)),
        _row_31("ce", 200, numbers(23, 179, 0.234, 6.68, 211, 0.03, 10.45)),
        _row_31("ce", 700, numbers(34, 148, 0.242, 6.53, 256, 0.04, 11.21)),
    ),
    notes=(SEEDS_NOTE,),
)


def _row_32(
    name: str, loss: str, schedule: str, epochs: int, options: Mapping[str, Any], published: Published
) -> RecipeRow:
    return RecipeRow(
        name=name,
        cells={"loss": loss.upper(), "schedule": schedule, "epochs": str(epochs)},
        options={"loss": loss, "epochs": epochs, **options},
        published=published,
        seed_block=seeds(loss),
    )


ROWS_32 = (
    _row_32("kld", "kld", "none", 200, {}, numbers(28, 160, 0.234, 6.66, 194, 0.09, 12.27)),
    _row_32(
        "kld-p5", "kld", "plateau(0.5, 5)", 88, plateau(0.5, 5), numbers(14, 203, 0.230, 6.76, 204, 0.03, 10.094)
    ),
    _row_32(
        "kld-p10", "kld", "plateau(0.5, 10)", 167, plateau(0.5, 10), numbers(25, 162, 0.233, 6.67, 215, 0.08, 11.87)
    ),
    _row_32(
        "kld-p15", "kld", "plateau(0.5, 15)", 173, plateau(0.5, 15), numbers(29, 155, 0.233, 6.73, 228, 0.09, 12.63)
    ),
    _row_32("jsd", "jsd", "none", 200, {}, numbers(21, 183, 0.153, 9.89, 220, 0.127, 15.08)),
    _row_32("jsd-300", "jsd", "none", 300, {}, numbers(26, 178, 0.113, 11.44, 218, 0.117, 16.38)),
    _row_32(
        "jsd-p15", "jsd", "plateau(0.5, 15)", 159, plateau(0.5, 15), numbers(20, 172, 0.183, 9.19, 218, 0.123, 14.43)
    ),
    _row_32(
        "jsd-p50", "jsd", "plateau(0.5, 50)", 223, plateau(0.5, 50), numbers(27, 160, 0.171, 10.40, 211, 0.102, 13.19)
    ),
    _row_32("ce", "ce", "none", 200, {}, numbers(26, 164, 0.233, 6.63, 241, 0.08, 11.89)),
    _row_32(
        "ce-p15", "ce", "plateau(0.75, 15)", 187, plateau(0.75, 15), numbers(28, 162, 0.228, 6.41, 218, 0.09, 11.71)
    ),
    _row_32(
        "ce-lr2e-4", "ce", "wd 1e-6, lr 2e-4, plateau(0.75, 15)", 98,
        {**plateau(0.75, 15), "weight_decay": 1e-6, "lr": 2e-4}, numbers(27, 166, 0.233, 6.72, 211, 0.08, 11.95),
    ),
)  # fmt: skip

TABLE_32 = Recipe(
    name="calories/table-3.2",
    study=CALORIES,
    title="Convolutional aggregation: three losses, schedules",
    text="Three temporal convolutions before the evaluator, with and without a plateau schedule.",
    features=DINOV2,
    shape=DINOV2_SHAPE,
    options={**BASE, **CONV},
    rows=ROWS_32,
    notes=(SEEDS_NOTE,),
)


def _row_33(name: str, label: str, options: Mapping[str, Any], published: Published) -> RecipeRow:
    return RecipeRow(name=name, cells={"optimiser": label}, options=options, published=published)


TABLE_33 = Recipe(
    name="calories/table-3.3",
    study=CALORIES,
    title="Adam, RAdam and RMSprop, with and without aggregation",
    text="KLD, 200 epochs, constant learning rate.",
    features=DINOV2,
    shape=DINOV2_SHAPE,
    options={**BASE, "loss": "kld", "epochs": 200},
    rows=(
        _row_33("adam", "Adam", {**MEAN, "optimizer": "adam"}, numbers(22, 181, 0.234, 6.68, 206, 0.04, 10.46)),
        _row_33(
            "adam-agg", "Adam + aggregation", {**CONV, "optimizer": "adam"},
            numbers(28, 160, 0.234, 6.66, 194, 0.09, 12.27),
        ),
        _row_33("radam", "RAdam", {**MEAN, **RADAM}, numbers(23, 187, 0.233, 6.67, 211, 0.04, 10.51)),
        _row_33(
            "radam-agg", "RAdam + aggregation", {**CONV, **RADAM}, numbers(29, 155, 0.234, 6.34, 191, 0.08, 12.15)
        ),
        _row_33("rmsprop", "RMSprop", {**MEAN, **RMSPROP}, numbers(22, 198, 0.236, 6.65, 201, 0.03, 10.44)),
        _row_33(
            "rmsprop-agg", "RMSprop + aggregation", {**CONV, **RMSPROP},
            numbers(26, 179, 0.242, 10.58, 227, 0.03, 12.76),
        ),
    ),
    notes=("The loss curves are those of the published figures 3.36 to 3.39 (RAdam, RMSprop).",),
)  # fmt: skip


TABLE_34 = Recipe(
    name="calories/table-3.4-stepwise",
    study=CALORIES,
    title="RAdam tuned one group at a time",
    text=(
        "RAdam, aggregation, KLD, 200 epochs: learning rate, weight decay, betas, then epsilon. After each group the "
        "value that selects best, and does not overfit, is kept for the next."
    ),
    features=DINOV2,
    shape=DINOV2_SHAPE,
    options={**BASE, **CONV, **RADAM, "loss": "kld", "epochs": 200},
    steps=(
        Step(field="lr", values=(1e-3, 1e-4, 1e-5), published=pairs(None, (155, 191), (220, 238))),
        Step(field="weight_decay", values=(1e-4, 1e-5, 1e-6), published=pairs((172, 213), (155, 191), (153, 190))),
        Step(
            field="betas",
            values=((0.85, 0.995), (0.9, 0.999), (0.98, 0.9995)),
            published=pairs((172, 199), (153, 190), (160, 242)),
        ),
        Step(field="eps", values=(1e-7, 1e-8, 1e-9), published=pairs((154, 206), (153, 190), (149, 200))),
    ),
    notes=(
        "The publication keeps the value with the lowest error on the unknown test set. Here the validation error "
        "chooses, unless --select-on reported-set asks for the published protocol.",
        "The loss curves are those of the published figures 3.40 to 3.47.",
    ),
)


KMEANS = Recipe(
    name="calories/kmeans",
    study=CALORIES,
    title="k-means: the cluster as the calorie value",
    text=(
        "1000 clusters of the mean, normalised vectors, random_state 123, n_init 30, at most 2000 iterations; four "
        "readings of a cluster as a calorie value."
    ),
    features=DINOV2,
    shape=DINOV2_SHAPE,
    reader=READER,
    rows=(
        RecipeRow(
            name="cluster_id",
            cells={"reading": "number of the cluster"},
            published=Published(values={"mae_known": 303.42}),
        ),
        RecipeRow(name="shuffled_cluster_id", cells={"reading": "number of the cluster, drawn at random"}),
        RecipeRow(name="cluster_mean_label", cells={"reading": "mean label of the cluster's training clips"}),
        RecipeRow(name="nearest_train", cells={"reading": "label of the nearest training clip"}),
    ),
    notes=(
        "The published value is the expected error of a random bin: most likely the number of a cluster was read as "
        "its calories. That reading is not proven: k-means++ numbers dense clusters first, so that numbers as they are "
        "may do better than a random bin; with the numbers drawn at random they cannot.",
    ),
)

RECIPES = (TABLE_31, TABLE_32, TABLE_33, TABLE_34, KMEANS)
