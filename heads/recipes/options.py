"""From a recipe's rows to configurations and back to words. The one place here that knows TrainConfig's fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.config import TrainConfig
from reelbank.heads.defaults import network, resolved
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.clips import read_table
from reelbank.heads.examples.splits import KNOWN_SPLITS
from reelbank.heads.recipes import refuse_decided
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.recipes.recipe import SEED_BLOCK, Published, Recipe, RecipeRow
from reelbank.heads.sweeps.grid import value_text
from reelbank.store.options import flat, options

QUICK_SHARE = 0.05  # of the epochs
QUICK_CLIPS = 64
QUICK_LEAST_EPOCHS = 2


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for beside the recipe, as plain values.

    Attributes:
        stores: in the order given.
        taps, view, normalize, label, segments: how vectors are read; no taps: each store's default.
        target: column asked for, `none` for none, '' for the store's first.
        select_on: `validation` or `reported-set`.
    """

    stores: tuple[Path, ...]
    taps: tuple[str, ...]
    view: int
    normalize: str
    label: str
    segments: str
    target: str
    select_on: str
    seed: int
    repeats: int
    quick: bool
    markdown: bool
    latex: bool

    @property
    def on_reported_sets(self) -> bool:
        """Whether the reported sets select, as publications do."""
        return self.select_on == "reported-set"


def asked_of(config: RecipeConfig) -> Asked:
    """The plain values of a configuration."""
    data, features = config.train.data, config.train.features
    rule = features.segment_rule()
    return Asked(
        stores=data.store,
        taps=features.tap,
        view=features.view,
        normalize=features.normalize,
        label=data.label,
        segments="" if rule is None else rule.text,
        target=data.target or "",
        select_on=data.select_on,
        seed=config.train.seed,
        repeats=config.members.repeats,
        quick=config.quick,
        markdown=config.markdown,
        latex=config.latex,
    )


def refuse_asked(config: RecipeConfig, chosen: Recipe) -> None:
    """An option that the recipe sets itself must not be asked for: one of the two would be ignored."""
    values = flat(config.train)
    asked = (name for name, one in options(TrainConfig).items() if values[name] != one.default)
    refuse_decided(chosen.name, asked)


def row_config(config: RecipeConfig, row: RecipeRow, chosen: Recipe) -> TrainConfig:
    """The training of one row with its first seed, without a run directory."""
    values = {**chosen.options, **row.options}
    if config.train.data.select_on == "reported-set":
        values |= chosen.study.selection.protocol_options
    if config.quick:
        values = quick_options(values, config.train)
    stores = config.train.data.store
    store = {"all": stores, "first": stores[:1], "last": stores[-1:]}[row.stores]
    taps = config.train.features.tap
    own: dict[str, Any] = {"report": False, "overwrite": False, "resume": False, "run": None, "tap": ()}
    seed = config.train.seed + SEED_BLOCK * row.seed_block
    made = config.train.but(**{**own, "store": store, "seed": seed, **values})
    if taps:
        made = made.but(tap=_taps_of(store, taps))
    made = made.but(folds=_count_groups(made, chosen.name)) if chosen.study.folds == "groups" else made
    return resolved(network(made))


def members(config: RecipeConfig, alone: TrainConfig, folder: Path) -> list[TrainConfig]:
    """One training per repeat, each with its seed and its directory below `folder`."""
    return [alone.but(seed=seed, run=folder / f"seed={seed}") for seed in config.members.seeds(alone.seed)]


def quick_options(values: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Options of the short form: a twentieth of the epochs, patience with them, at most 64 training clips."""
    epochs = values.get("epochs", config.optimizer.epochs)
    short = {**values, "epochs": max(QUICK_LEAST_EPOCHS, round(QUICK_SHARE * epochs))}
    for name in ("step_epochs", "patience_epochs", "early_stop_epochs"):
        if values.get(name):
            short[name] = max(1, round(QUICK_SHARE * values[name]))
    short["train_clips"] = min(config.features.train_clips or QUICK_CLIPS, QUICK_CLIPS)
    return short


def step_rows(chosen: Recipe, point: Mapping[str, Any], position: int) -> list[RecipeRow]:
    """The rows of one step of stepwise tuning, from the values kept so far."""
    step = chosen.steps[position]
    others = [
        f"{_short(other.field)} {cell(point[other.field])}"
        for other in chosen.steps
        if other.field != step.field and other.field in point
    ]
    return [
        RecipeRow(
            name=f"{position + 1}-{step.field}-{value_text(value).replace(':', '-')}",
            cells={"varied": _short(step.field), "value": cell(value), "others": ", ".join(others)},
            options={**point, step.field: value},
            published=published,
        )
        for value, published in zip(step.values, step.published or [Published()] * len(step.values), strict=True)
    ]


def _short(name: str) -> str:
    return {"weight_decay": "wd"}.get(name, name)


def cell(value: Any) -> str:
    """A value as published tables write it: 1e-4, (0.9, 0.999)."""
    if isinstance(value, tuple):
        return f"({', '.join(f'{part:g}' for part in value)})"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if abs(value) < 0.01 else f"{value:g}"


def _taps_of(store: Sequence[Path], taps: Sequence[str]) -> tuple[str, ...]:
    """Those of `taps` that `store` holds; a tap that none of them holds is refused where it is read."""
    import reelbank.store

    held = {name for path in store for name in reelbank.store.open(path).taps}
    return tuple(tap for tap in taps if tap in held) or tuple(taps)


def _count_groups(config: TrainConfig, name: str) -> int:
    """Folds that leave one group out at a time. Raises TrainingError for clips without a group."""
    table = read_table(config.data, config.features)
    groups = table.groups[np.isin(table.splits, KNOWN_SPLITS)]
    if empty := int((groups == "").sum()):
        raise TrainingError(
            f"--recipe {name} leaves one group out at a time, and {empty} of {len(groups)} clips have no group; fill "
            "the column 'group' of the manifest and run the same featurize command again"
        )
    if len(np.unique(groups)) < 2:
        raise TrainingError(
            f"--recipe {name} leaves one group out at a time, and all {len(groups)} clips are of one group"
        )
    return len(np.unique(groups))


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """What a row is trained with, in words: {what: text}, and `keep` and `folds` as they are."""
    data, features, objective, optimizer = config.data, config.features, config.objective, config.optimizer
    update = optimizer.name
    if optimizer.name in ("adam", "adamw", "radam"):
        update += f", betas {cell(optimizer.betas)}, eps {cell(optimizer.eps)}"
    elif optimizer.name == "rmsprop":
        update += f", alpha {optimizer.alpha:g}, momentum {optimizer.momentum:g}, eps {cell(optimizer.eps)}"
    else:
        update += f", momentum {optimizer.momentum:g}"
    times, stop = f"times {optimizer.factor:g}", optimizer.early_stop_epochs
    schedule = {
        "none": "constant rate",
        "step": f"{times} every {optimizer.step_epochs} epochs",
        "multistep": f"{times} after epochs {', '.join(map(str, optimizer.milestones))}",
        "plateau": f"{times} after {optimizer.patience_epochs} epochs without a lower validation loss",
    }[optimizer.schedule]
    target = f"{objective.bins} bins, sigma {objective.sigma:g}, {config.head.estimate}"
    predicts = [*(["classes"] if data.label != "none" else []), *([target] if data.target != "none" else [])]
    copies = [*features.augment, *(["stored views"] if features.train_views == "all" else [])]
    drawn = {"none": "every clip once", "class": "classes equally often", "group": "groups equally often"}
    return {
        "head": config.head.name,
        "predicts": "; ".join(predicts),
        "loss": objective.loss,
        "optimiser": update,
        "learning rate": cell(optimizer.lr),
        "schedule": schedule,
        "weight decay": cell(optimizer.weight_decay),
        "batch": str(optimizer.batch),
        "epochs asked": f"{optimizer.epochs}, {f'stop after {stop} without a better one' if stop else 'no early stop'}",
        "normalisation": features.normalize,
        "order of clips": drawn[features.balance],
        "augmentation": ", ".join(copies) or "none",
        "steps read": "each once" if (rule := features.segment_rule()) is None else rule.text,
        "keep": optimizer.keep,
        "folds": data.folds,
    }
