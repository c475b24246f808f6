"""From a recipe's rows to configurations and back to words. The one place here that knows TrainConfig's fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelbank.heads.config import NO_RUN, TrainConfig
from reelbank.heads.defaults import network, resolved
from reelbank.heads.recipes import refuse_decided
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.recipes.quick import quick_options, short_form
from reelbank.heads.recipes.recipe import SEED_BLOCK, Published, Recipe, RecipeRow, cell
from reelbank.heads.recipes.stores import GivenStores
from reelbank.heads.sweeps.grid import value_text
from reelbank.store.options import flat, options


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


def row_options(config: RecipeConfig, row: RecipeRow, chosen: Recipe) -> dict[str, Any]:
    """The TrainConfig fields that the recipe decides of a row."""
    values = {**chosen.options, **row.options}
    if config.train.data.select_on == "reported-set":
        values |= chosen.study.selection.protocol_options
    if config.train.data.folds:
        values = {name: value for name, value in values.items() if name != "judge_train"}
    if not config.quick:
        return values
    if chosen.reads_arrays:
        return short_form(chosen, config.members.repeats).options(values, config.train)
    return quick_options(values, config.train)


def row_config(config: RecipeConfig, row: RecipeRow, chosen: Recipe, given: GivenStores) -> TrainConfig:
    """The training of one row with its first seed, without a run directory.

    Raises TrainingError for stores that lack what its head reads, or clips without groups where these are left out.
    """
    values = row_options(config, row, chosen)
    store = given.read_by(row, values)
    own: dict[str, Any] = {"report": False, "overwrite": False, "resume": False, "run": None, "tap": ()}
    seed = config.train.seed + SEED_BLOCK * row.seed_block
    if row.stores in ("matching", "other-set"):
        values = {**values, "head_option": (*values.get("head_option", ()), *given.weights_option(values))}
    if row.starts_from:
        values["init_from"] = (NO_RUN,)
    made = config.train.but(**{**own, "store": store, "seed": seed, **values})
    if taps := given.taps_of(store):
        made = made.but(tap=taps)
    if chosen.study.folds == "groups" and "folds" not in values:
        made = made.but(folds=given.num_groups(made, chosen.name))
    return resolved(network(made))


def members(
    config: RecipeConfig, alone: TrainConfig, folder: Path, bases: Sequence[Sequence[Path]] = ()
) -> list[TrainConfig]:
    """One training per repeat, each with its seed and its directory below `folder`.

    Args:
        bases: runs that it starts from, of each row one per repeat: a repeat starts from that of the same place.
    """
    made = [alone.but(seed=seed, run=folder / f"seed={seed}") for seed in config.members.seeds(alone.seed)]
    if not bases:
        return made
    return [one.but(init_from=tuple(runs[place] for runs in bases)) for place, one in enumerate(made)]


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


def settings_of(config: TrainConfig, starts_from: Sequence[str] = ()) -> dict[str, Any]:
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
        "cyclic": f"cycles of {2 * optimizer.cycle_batches} batches"
        + (", begun again in each epoch" if optimizer.restart_each_epoch else ""),
    }[optimizer.schedule]
    target = f"{objective.bins} bins, sigma {objective.sigma:g}, {config.head.estimate}"
    predicts = [*(["classes"] if data.label != "none" else []), *([target] if data.target != "none" else [])]
    copies = [*features.augment, *(["stored views"] if features.train_views == "all" else [])]
    copies += ["a stored view of each clip, drawn in every epoch"] if features.train_views == "draw" else []
    copies += [f"{method} of pictures, drawn in every epoch" for method in features.pixel_augment]
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
        **_settings_of_stage(config, starts_from),
        "keep": optimizer.keep,
        "folds": data.folds,
    }


def _settings_of_stage(config: TrainConfig, starts_from: Sequence[str]) -> dict[str, str]:
    """What is said of a head on arrays: stage, options, weights of its losses, rates of its groups, frames."""
    stage, head = config.head.trained_stage, config.head
    if stage is None:
        return {}
    options = [text for text in head.head_option if not text.startswith("weights=")]
    begun = [text.partition("=")[2] for text in head.head_option if text.startswith("weights=")]
    return {
        "stage": stage.name,
        "starts from": ", ".join(starts_from) or "the backbone's weights",
        **({"weights of the backbone": Path(begun[0]).name} if begun else {}),
        "options of the head": ", ".join(options) or "none",
        "weights of further losses": ", ".join(head.aux_weight) or "1",
        "rates of groups": ", ".join(config.optimizer.group_lr) or "that of the head",
        "frames": str(config.features.steps or "all stored"),
        "stores read": ", ".join(path.name for path in config.data.store),
    }
