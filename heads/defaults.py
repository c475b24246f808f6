"""What `auto` stands for: the head, what it reads of a clip's steps, and the value of its distributions."""

from __future__ import annotations

from reelbank.heads.config import HeadConfig, TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.losses import LOSSES
from reelbank.heads.optimizers import OptimizerConfig
from reelbank.store.options import flat, options

OF_NETWORKS = (
    *("class_loss", "label_smoothing", "loss", "reduction", "target_labels"),
    *("aggregation", "head_option", "trunk"),
    *("augment", "balance", "segments", "train_views"),
    "select_on",
)
"""Options beside those of the optimiser that only a network trained by gradients follows."""
ALSO_FITTED = ("--head-option", "--segments")
"""Those of them that a fitted head follows where it is named."""


def resolved(config: TrainConfig) -> TrainConfig:
    """`config` with every `auto` of head, pool, estimate and refit decided; the same if there is none.

    A head is chosen by inner validation unless something is asked for that only networks do: then it is the published
    evaluator, `mlp`, as it is with these options named.

    Raises TrainingError for such an option beside a head that is fitted.
    """
    name = config.head.name
    asked = asked_of_networks(config)
    if name == "auto" and asked:
        name = "mlp"
    elif config.head.is_fitted and (of_others := [flag for flag in asked if flag not in ALSO_FITTED]):
        raise TrainingError(
            f"{of_others[0]} is an option of networks, and head {name!r} is fitted without epochs; leave it out, or "
            "name a network (`reelbank heads`)"
        )
    fitted = HeadConfig(name=name).is_fitted
    pool, estimate = config.features.pool, config.head.estimate
    if pool == "auto":
        pool = "mean+std" if fitted else "mean"
    if estimate == "auto":
        estimate = "median" if fitted and config.data.target != "none" else "argmax"
    refit = config.data.refit
    if refit == "auto":
        refit = "yes" if fitted else "no"
    if (name, pool, estimate, refit) == (
        config.head.name, config.features.pool, config.head.estimate, config.data.refit
    ):  # fmt: skip
        return config
    return config.but(head=name, pool=pool, estimate=estimate, refit=refit)


def network(config: TrainConfig) -> TrainConfig:
    """`config` for a sweep or a recipe, which vary one head: `mlp` where none is named."""
    return config.but(head="mlp") if config.head.name == "auto" else config


def asked_of_networks(config: TrainConfig) -> list[str]:
    """The flags with values that only a network's training follows, in the order of the options."""
    values = flat(config)
    found = []
    for name, one in options(TrainConfig).items():
        of_networks = one.part is OptimizerConfig or name in OF_NETWORKS
        if of_networks and values[name] != one.default and not _asks_for_labels(name, values[name]):
            found.append(one.flag)
    return found


def _asks_for_labels(name: str, value: object) -> bool:
    """Whether this is a loss that says that clips have several labels, which every head can have."""
    return name in ("loss", "class_loss") and value != "auto" and LOSSES.row(str(value)).independent


def sentence(config: TrainConfig) -> str:
    """What a report says of a head that nobody named; empty for one that was chosen or named."""
    if config.head.name != "auto" or not (flags := asked_of_networks(config)):
        return ""
    return (
        f"Head: mlp, because {flags[0]} is an option of networks; without it --head auto chooses among predictors that "
        "small sets often prefer."
    )
