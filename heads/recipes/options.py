"""From a recipe's rows to configurations and back to words. The one place here that knows TrainConfig's fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.splits import KNOWN_SPLITS
from reelbank.heads.recipes import refuse_decided
from reelbank.heads.recipes.recipe import SEED_BLOCK, Published, Recipe, Row
from reelbank.heads.sweeps.grid import value_text

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
    executor: str
    workers: int
    device: str

    @property
    def on_reported_sets(self) -> bool:
        """Whether the reported sets select, as publications do."""
        return self.select_on == "reported-set"


def asked_of(config: TrainConfig) -> Asked:
    """The plain values of a configuration."""
    rule = config.segment_rule()
    return Asked(
        stores=config.store,
        taps=config.tap,
        view=config.view,
        normalize=config.normalize,
        label=config.label,
        segments="" if rule is None else rule.text,
        target=config.target or "",
        select_on=config.select_on,
        seed=config.seed,
        repeats=config.repeats,
        quick=config.quick,
        markdown=config.markdown,
        latex=config.latex,
        executor=config.executor,
        workers=config.workers,
        device=config.device,
    )


def refuse_asked(config: TrainConfig, chosen: Recipe) -> None:
    """An option that the recipe sets itself must not be asked for: one of the two would be ignored."""
    asked = (item.name for item in fields(TrainConfig) if getattr(config, item.name) != item.default)
    refuse_decided(chosen.name, asked)


def row_config(config: TrainConfig, row: Row, chosen: Recipe) -> TrainConfig:
    """The training of one row with its first seed, without a run directory."""
    options = {**chosen.options, **row.options}
    if config.select_on == "reported-set":
        options |= chosen.study.selection.protocol_options
    if config.quick:
        options = quick_options(options, config)
    store = {"all": config.store, "first": config.store[:1], "last": config.store[-1:]}[row.stores]
    taps = config.tap
    alone = replace(
        config, recipe=None, quick=False, markdown=False, latex=False, report=False, overwrite=False, resume=False,
        repeats=1, run=None, store=store, tap=(), seed=config.seed + SEED_BLOCK * row.seed_block,
    )  # fmt: skip
    made = replace(alone, **options)
    if taps:
        made = replace(made, tap=_taps_of(store, taps))
    if chosen.study.folds == "groups":
        made = replace(made, folds=_count_groups(made, chosen.name))
    return made


def members(alone: TrainConfig, repeats: int, folder: Path) -> list[TrainConfig]:
    """One training per repeat, each with its seed and its directory below `folder`."""
    seeds = range(alone.seed, alone.seed + repeats)
    return [replace(alone, seed=seed, run=folder / f"seed={seed}") for seed in seeds]


def quick_options(options: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Options of the short form: a twentieth of the epochs, patience with them, at most 64 training clips."""
    epochs = options.get("epochs", config.epochs)
    short = {**options, "epochs": max(QUICK_LEAST_EPOCHS, round(QUICK_SHARE * epochs))}
    for name in ("step_epochs", "patience_epochs", "early_stop_epochs"):
        if options.get(name):
            short[name] = max(1, round(QUICK_SHARE * options[name]))
    short["train_clips"] = min(config.train_clips or QUICK_CLIPS, QUICK_CLIPS)
    return short


def step_rows(chosen: Recipe, point: Mapping[str, Any], position: int) -> list[Row]:
    """The rows of one step of stepwise tuning, from the values kept so far."""
    step = chosen.steps[position]
    others = [
        f"{_short(other.field)} {cell(point[other.field])}"
        for other in chosen.steps
        if other.field != step.field and other.field in point
    ]
    return [
        Row(
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
    table = FeatureCache().table(config)
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
    adaptive = config.optimizer in ("adam", "adamw", "radam")
    optimiser = config.optimizer
    if adaptive:
        optimiser += f", betas {cell(config.betas)}, eps {cell(config.eps)}"
    elif config.optimizer == "rmsprop":
        optimiser += f", alpha {config.alpha:g}, momentum {config.momentum:g}, eps {cell(config.eps)}"
    else:
        optimiser += f", momentum {config.momentum:g}"
    schedule = {
        "none": "constant rate",
        "step": f"times {config.factor:g} every {config.step_epochs} epochs",
        "multistep": f"times {config.factor:g} after epochs {', '.join(map(str, config.milestones))}",
        "plateau": f"times {config.factor:g} after {config.patience_epochs} epochs without a lower validation loss",
    }[config.schedule]
    stop = (
        f"stop after {config.early_stop_epochs} without a better one" if config.early_stop_epochs else "no early stop"
    )
    outputs = [
        *(["classes"] if config.label != "none" else []),
        *([f"{config.bins} bins, sigma {config.sigma:g}, {config.estimate}"] if config.target != "none" else []),
    ]
    return {
        "head": config.head,
        "predicts": "; ".join(outputs),
        "loss": config.loss,
        "optimiser": optimiser,
        "learning rate": cell(config.lr),
        "schedule": schedule,
        "weight decay": cell(config.weight_decay),
        "batch": str(config.batch),
        "epochs asked": f"{config.epochs}, {stop}",
        "normalisation": config.normalize,
        "order of clips": "every clip once" if config.balance == "none" else f"{config.balance}es equally often",
        "augmentation": ", ".join([*config.augment, *(["stored views"] if config.train_views == "all" else [])])
        or "none",
        "steps read": "each once" if (rule := config.segment_rule()) is None else rule.text,
        "keep": config.keep,
        "folds": config.folds,
    }
