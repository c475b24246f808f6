"""Calories from video (SYSTEMS.md section 1; the results are those of its section 1.17).

Batch 4, lr 1e-4, weight decay 1e-5, 1000 bins over 0 to 1000 kcal/h, sigma 5, no early stop: a row's epochs are those
it is published with, the stop epochs where its run stopped early.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.recipe import Published, Recipe, Row, Step

DINOV2 = "DINOv2 ViT-S/14, CLS tokens of the last four blocks, 90 frames read as 160 steps (--segments)"
CLIP = "CLIP ViT-B/32 image embeddings of 90 frames"

BASE: Mapping[str, Any] = {
    "batch": 4,
    "lr": 1e-4,
    "weight_decay": 1e-5,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "sigma": 5.0,
    "early_stop_epochs": 0,
}
MEAN: Mapping[str, Any] = {"head": "mlp"}
CONV: Mapping[str, Any] = {"head": "conv-aggregation"}
RADAM: Mapping[str, Any] = {"optimizer": "radam"}
RMSPROP: Mapping[str, Any] = {"optimizer": "rmsprop", "alpha": 0.99, "momentum": 0.9}
STEP20: Mapping[str, Any] = {"schedule": "step", "step_epochs": 20, "factor": 0.5}
ALL_AUGMENTATIONS = ("dropout=0.1", "noise=0.1", "scaling=0.1", "shift=2")
SECOND_TRIAL = ("dropout=0.05", "noise=0.02", "scaling=0.1", "shift=2")


def plateau(factor: float, patience: int) -> dict[str, Any]:
    """Reduce the rate by `factor` after `patience` epochs without a lower validation loss."""
    return {"schedule": "plateau", "factor": factor, "patience_epochs": patience}


def _numbers(*values: float | None) -> Published:
    """The seven numbers of a table's row, in its order."""
    names = ("accuracy", "mae_known", "spc_known", "nll_known", "mae_unknown", "spc_unknown", "nll_unknown")
    given: dict[str, Any] = dict(zip(names, values, strict=True))
    return Published(**given)


def _curve(outcome: str) -> Published:
    return Published(outcome=outcome)


def _row_31(loss: str, epochs: int, published: Published) -> Row:
    return Row(
        name=f"{loss}-{epochs}",
        cells={"loss": loss.upper(), "epochs": str(epochs)},
        options={"loss": loss, "epochs": epochs},
        published=published,
    )


TABLE_31 = Recipe(
    name="calories/table-3.1",
    title="Three losses, mean over time, 200 and 700 epochs",
    text="The two-block evaluator on the mean over time, for each loss on the softened calorie bins.",
    features=DINOV2,
    options={**BASE, **MEAN},
    rows=(
        _row_31("kld", 200, _numbers(22, 181, 0.234, 6.68, 206, 0.04, 10.46)),
        _row_31("kld", 700, _numbers(33, 154, 0.239, 6.52, 256, 0.04, 11.23)),
        _row_31("jsd", 200, _numbers(21, 194, 0.211, 8.47, 206, 0.08, 12.20)),
        _row_31("jsd", 700, _numbers(30, 169, 0.151, 10.31, 263, 0.12, 13.21)),
        _row_31("ce", 200, _numbers(23, 179, 0.234, 6.68, 211, 0.03, 10.45)),
        _row_31("ce", 700, _numbers(34, 148, 0.242, 6.53, 256, 0.04, 11.21)),
    ),
    notes=("KLD and CE have the same gradient: their rows differ by run-to-run noise alone.",),
)


def _row_32(name: str, loss: str, schedule: str, epochs: int, options: Mapping[str, Any], published: Published) -> Row:
    return Row(
        name=name,
        cells={"loss": loss.upper(), "schedule": schedule, "epochs": str(epochs)},
        options={"loss": loss, "epochs": epochs, **options},
        published=published,
    )


_ROWS_32 = (
    _row_32("kld", "kld", "none", 200, {}, _numbers(28, 160, 0.234, 6.66, 194, 0.09, 12.27)),
    _row_32(
        "kld-p5", "kld", "plateau(0.5, 5)", 88, plateau(0.5, 5), _numbers(14, 203, 0.230, 6.76, 204, 0.03, 10.094)
    ),
    _row_32(
        "kld-p10", "kld", "plateau(0.5, 10)", 167, plateau(0.5, 10), _numbers(25, 162, 0.233, 6.67, 215, 0.08, 11.87)
    ),
    _row_32(
        "kld-p15", "kld", "plateau(0.5, 15)", 173, plateau(0.5, 15), _numbers(29, 155, 0.233, 6.73, 228, 0.09, 12.63)
    ),
    _row_32("jsd", "jsd", "none", 200, {}, _numbers(21, 183, 0.153, 9.89, 220, 0.127, 15.08)),
    _row_32("jsd-300", "jsd", "none", 300, {}, _numbers(26, 178, 0.113, 11.44, 218, 0.117, 16.38)),
    _row_32(
        "jsd-p15", "jsd", "plateau(0.5, 15)", 159, plateau(0.5, 15), _numbers(20, 172, 0.183, 9.19, 218, 0.123, 14.43)
    ),
    _row_32(
        "jsd-p50", "jsd", "plateau(0.5, 50)", 223, plateau(0.5, 50), _numbers(27, 160, 0.171, 10.40, 211, 0.102, 13.19)
    ),
    _row_32("ce", "ce", "none", 200, {}, _numbers(26, 164, 0.233, 6.63, 241, 0.08, 11.89)),
    _row_32(
        "ce-p15", "ce", "plateau(0.75, 15)", 187, plateau(0.75, 15), _numbers(28, 162, 0.228, 6.41, 218, 0.09, 11.71)
    ),
    _row_32(
        "ce-lr2e-4", "ce", "wd 1e-6, lr 2e-4, plateau(0.75, 15)", 98,
        {**plateau(0.75, 15), "weight_decay": 1e-6, "lr": 2e-4}, _numbers(27, 166, 0.233, 6.72, 211, 0.08, 11.95),
    ),
)  # fmt: skip

TABLE_32 = Recipe(
    name="calories/table-3.2",
    title="Convolutional aggregation: three losses, schedules",
    text="Three temporal convolutions before the evaluator, with and without a plateau schedule.",
    features=DINOV2,
    options={**BASE, **CONV},
    rows=_ROWS_32,
)


def _row_33(name: str, label: str, options: Mapping[str, Any], published: Published) -> Row:
    return Row(name=name, cells={"optimiser": label}, options=options, published=published)


TABLE_33 = Recipe(
    name="calories/table-3.3",
    title="Adam, RAdam and RMSprop, with and without aggregation",
    text="KLD, 200 epochs, constant learning rate.",
    features=DINOV2,
    options={**BASE, "loss": "kld", "epochs": 200},
    rows=(
        _row_33("adam", "Adam", {**MEAN, "optimizer": "adam"}, _numbers(22, 181, 0.234, 6.68, 206, 0.04, 10.46)),
        _row_33(
            "adam-agg", "Adam + aggregation", {**CONV, "optimizer": "adam"},
            _numbers(28, 160, 0.234, 6.66, 194, 0.09, 12.27),
        ),
        _row_33("radam", "RAdam", {**MEAN, **RADAM}, _numbers(23, 187, 0.233, 6.67, 211, 0.04, 10.51)),
        _row_33(
            "radam-agg", "RAdam + aggregation", {**CONV, **RADAM}, _numbers(29, 155, 0.234, 6.34, 191, 0.08, 12.15)
        ),
        _row_33("rmsprop", "RMSprop", {**MEAN, **RMSPROP}, _numbers(22, 198, 0.236, 6.65, 201, 0.03, 10.44)),
        _row_33(
            "rmsprop-agg", "RMSprop + aggregation", {**CONV, **RMSPROP},
            _numbers(26, 179, 0.242, 10.58, 227, 0.03, 12.76),
        ),
    ),
    notes=("The loss curves are those of the published figures 3.36 to 3.39 (RAdam, RMSprop).",),
)  # fmt: skip


def _pairs(*pairs: tuple[float, float] | None) -> tuple[Published, ...]:
    return tuple(
        Published(outcome="overfit") if pair is None else Published(mae_known=pair[0], mae_unknown=pair[1])
        for pair in pairs
    )


TABLE_34 = Recipe(
    name="calories/table-3.4-stepwise",
    title="RAdam tuned one group at a time",
    text=(
        "RAdam, aggregation, KLD, 200 epochs: learning rate, weight decay, betas, then epsilon. After each group the "
        "value that selects best, and does not overfit, is kept for the next."
    ),
    features=DINOV2,
    options={**BASE, **CONV, **RADAM, "loss": "kld", "epochs": 200},
    steps=(
        Step(field="lr", values=(1e-3, 1e-4, 1e-5), published=_pairs(None, (155, 191), (220, 238))),
        Step(field="weight_decay", values=(1e-4, 1e-5, 1e-6), published=_pairs((172, 213), (155, 191), (153, 190))),
        Step(
            field="betas",
            values=((0.85, 0.995), (0.9, 0.999), (0.98, 0.9995)),
            published=_pairs((172, 199), (153, 190), (160, 242)),
        ),
        Step(field="eps", values=(1e-7, 1e-8, 1e-9), published=_pairs((154, 206), (153, 190), (149, 200))),
    ),
    notes=(
        "The publication keeps the value with the lowest error on the unknown test set. Here the validation error "
        "chooses, unless --select-on reported-set asks for the published protocol.",
        "The loss curves are those of the published figures 3.40 to 3.47.",
    ),
)


def _figure(
    figure: str, loss: str, epochs: int, settings: str, options: Mapping[str, Any], published: Published
) -> Row:
    return Row(
        name=f"fig-{figure}",
        cells={"figure": figure, "loss": loss.upper(), "epochs": str(epochs), "settings": settings},
        options={"loss": loss, "epochs": epochs, **options},
        published=published,
    )


_FEATURE_AUG = {**MEAN, "augment": ALL_AUGMENTATIONS, **plateau(0.5, 5)}
_VIDEO_AUG = {**MEAN, "train_views": "all"}

FIGURES_CLIP = Recipe(
    name="calories/figures-3.1-3.14",
    title="CLIP features: losses, step schedule, feature and video augmentation, aggregation",
    text="Runs that are published as curves only. The rows with video augmentation need a store with four views.",
    features=CLIP,
    options=BASE,
    rows=(
        _figure("3.1", "kld", 200, "mean", MEAN, _curve("overfit")),
        _figure("3.2", "kld", 200, "mean, step20", {**MEAN, **STEP20}, _curve("overfit solved, underfit")),
        _figure(
            "3.3", "kld", 200, "mean, step20, wd 1e-4", {**MEAN, **STEP20, "weight_decay": 1e-4},
            _curve("overfit solved, underfit"),
        ),
        _figure("3.4", "jsd", 200, "mean", MEAN, _curve("overfit after 40 epochs")),
        _figure("3.5", "ce", 200, "mean", MEAN, _curve("overfit")),
        _figure("3.6", "kld", 200, "mean, feature aug, plateau(0.5, 5)", _FEATURE_AUG, _curve("does not learn enough")),
        _figure(
            "3.7", "kld", 200, "mean, feature aug, plateau(0.5, 5), wd 1e-4", {**_FEATURE_AUG, "weight_decay": 1e-4},
            _curve("does not learn enough"),
        ),
        _figure(
            "3.8", "kld", 200, "mean, video aug, plateau(0.5, 5), wd 1e-5", {**_VIDEO_AUG, **plateau(0.5, 5)},
            _curve("no significant gain"),
        ),
        _figure(
            "3.9", "kld", 200, "mean, video aug, plateau(0.5, 5), wd 1e-4",
            {**_VIDEO_AUG, **plateau(0.5, 5), "weight_decay": 1e-4}, _curve("no significant gain"),
        ),
        _figure(
            "3.10", "kld", 200, "mean, video aug, plateau(0.5, 5), wd 1e-3",
            {**_VIDEO_AUG, **plateau(0.5, 5), "weight_decay": 1e-3}, _curve("no significant gain"),
        ),
        _figure(
            "3.11", "kld", 200, "mean, video aug, wd 1e-3", {**_VIDEO_AUG, "weight_decay": 1e-3},
            _curve("no significant gain"),
        ),
        _figure("3.12", "kld", 200, "aggregation", CONV, _curve("strong overfit")),
        _figure("3.13", "jsd", 200, "aggregation", CONV, _curve("strong overfit")),
        _figure("3.14", "ce", 200, "aggregation", CONV, _curve("strong overfit")),
    ),
)  # fmt: skip


def _dinov2_figures() -> tuple[Row, ...]:
    """3.15 to 3.20 are the rows of table 3.1, 3.21 to 3.35 those of table 3.2 and four runs of 700 epochs."""
    rows = [
        _figure(figure, row.options["loss"], row.options["epochs"], "mean", MEAN, row.published)
        for figure, row in zip(("3.15", "3.16", "3.17", "3.18", "3.19", "3.20"), TABLE_31.rows, strict=True)
    ]
    long_run = {**CONV, "epochs": 700}
    by_name = {row.name: row for row in _ROWS_32}
    order: tuple[tuple[str, Row | tuple[str, str, Mapping[str, Any]]], ...] = (
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
        if isinstance(entry, Row):
            schedule = entry.cells["schedule"]
            settings = "aggregation" if schedule == "none" else f"aggregation, {schedule}"
            options = {**CONV, **entry.options}
            rows.append(_figure(figure, options["loss"], options["epochs"], settings, options, entry.published))
        else:
            loss, settings, long_options = entry
            rows.append(_figure(figure, loss, 700, settings, long_options, _curve("overfit")))
    return tuple(rows)


FIGURES_DINOV2 = Recipe(
    name="calories/figures-3.15-3.35",
    title="DINOv2 features: all runs shown as curves, with those of 700 epochs",
    text="Mean over time and aggregation for each loss; the runs of tables 3.1 and 3.2 and four longer ones.",
    features=DINOV2,
    options=BASE,
    rows=_dinov2_figures(),
    notes=(
        "Which schedule belongs to which of the figures 3.24 to 3.35 is our reading: they are taken in the order of "
        "table 3.2. Figure 3.33 is captioned with a schedule but stands before that section: read as the plain run.",
    ),
)

FIGURES_AUGMENTED = Recipe(
    name="calories/figures-3.48-3.49",
    title="Feature augmentation on the best RAdam",
    text="Aggregation, KLD, RAdam with the values that table 3.4 ends with, and four copies of each training clip.",
    features=DINOV2,
    options={**BASE, **CONV, **RADAM, "weight_decay": 1e-6},
    rows=(
        _figure(
            "3.48", "kld", 200, "noise 0.1, dropout 0.1, scaling, shift", {"augment": ALL_AUGMENTATIONS},
            _curve("overfit"),
        ),
        _figure(
            "3.49", "kld", 200, "noise 0.02, dropout 0.05, scaling, shift", {"augment": SECOND_TRIAL},
            _curve("overfit"),
        ),
    ),
)  # fmt: skip

KMEANS = Recipe(
    name="calories/kmeans",
    title="k-means: the cluster as the calorie value",
    text=(
        "1000 clusters of the mean, normalised vectors, random_state 123, n_init 30, at most 2000 iterations; three "
        "readings of a cluster as a calorie value."
    ),
    features=DINOV2,
    kind="kmeans",
    rows=(
        Row(
            name="cluster_id",
            cells={"reading": "number of the cluster (what the published value equals)"},
            published=Published(mae_known=303.42),
        ),
        Row(name="cluster_mean_label", cells={"reading": "mean label of the cluster's training clips"}),
        Row(name="nearest_train", cells={"reading": "label of the nearest training clip"}),
    ),
    notes=("The published value is that of a random bin: the number of a cluster says nothing about calories.",),
)

RECIPES = (
    TABLE_31, TABLE_32, TABLE_33, TABLE_34, FIGURES_CLIP, FIGURES_DINOV2, FIGURES_AUGMENTED, KMEANS,
)  # fmt: skip
