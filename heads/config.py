"""What a training is asked for, in parts. The command's options are made from their fields; no torch is loaded here.

What may differ between trainings follows from the parts: a resumed run may have another `run`, members of a sweep may
differ in all but `data` and `run`, those of one stack in the numbers of `optimizer` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.losses import LOSSES
from reelbank.heads.models import HEADS, parse_options, plan_of
from reelbank.heads.models.plans import HeadPlan, Stage
from reelbank.heads.objective_config import PLUGIN, ObjectiveConfig, flagged
from reelbank.heads.optimizers import PER_BATCH, OptimizerConfig, named_numbers
from reelbank.heads.run_config import RunConfig
from reelbank.heads.split_rules import OWN, SplitRule, parse_split_rule
from reelbank.manifests.plugins import Plugin
from reelbank.store.accepted import Many, ManyPaths
from reelbank.store.options import MAX_SEED, Flat, check_options, option, options

HEAD_FLAGS = ("aggregation", "trunk")
"""Options of heads that are flags of their own; others are given as --head-option NAME=VALUE."""
LABEL_SEPARATOR = ";"
NO_RUN = "none"
ESTIMATES = ("argmax", "auto", "expectation", "median")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which clips of which stores are trained and judged, and what is predicted of them."""

    store: ManyPaths = option(
        MISSING, "--store", "store to train on; several are joined by clip_id", multiple=True, group="Data"
    )
    join: str = option(
        "error",
        "--join",
        "clips missing in one of several stores: refuse, or use only those in all",
        choices=("error", "inner"),
    )
    label: str = option("label", "--label", "text column with the class; 'none' trains on the target alone")
    label_separator: str = option(LABEL_SEPARATOR, "--label-separator", "with --loss bce: between labels of a clip")
    target: str | None = option(
        None,
        "--target",
        "numeric column to predict; default: the store's first target column if it has one; 'none': classes only",
    )
    folds: int = option(
        0,
        "--folds",
        "K: cross-validation over groups with K test parts; 0: the store's own splits",
        least=0,
        most=10_000,
        group="Splits and judging",
    )
    split_by: str = option(
        OWN,
        "--split-by",
        "what parts the clips: split, the store's own; another text column with train, val, test; random:SHARE[:test]: "
        "so many clips, drawn by class whatever their group, are val (or test); groups:SHARE[:test]: whole groups are",
    )
    select_on: str = option(
        "validation",
        "--select-on",
        "which clips choose the best epoch; 'reported-set' is what some papers do and is said in the report",
        choices=("reported-set", "validation"),
    )
    judge_clips: int = option(
        0,
        "--judge-clips",
        "judge at most this many clips of each part beside the training clips, drawn class by class; 0: all",
        least=0,
        most=100_000_000,
    )
    judge_train: bool = option(
        False, "--judge-train", "report the training clips, too, as they are read in evaluation; not with --folds"
    )
    refit: str = option(
        "auto",
        "--refit",
        "after selection fit once more to train and validation clips, if others are reported; auto: yes for auto and "
        "trees",
        choices=("auto", "no", "yes"),
    )
    shuffle_labels: bool = option(
        False, "--shuffle-labels", "control experiment: labels and targets of the training part are permuted"
    )
    metric: Many[str] = option(
        (), "--metric", "one more metric to report: a plug-in's name or module:attribute", multiple=True
    )

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        if not self.store:
            raise TrainingError("--store names no store; give at least one")
        if self.folds == 1:
            raise TrainingError("--folds 1 leaves nothing to train on; use 2 or more, or 0 for the store's own splits")
        if self.folds and self.judge_train:
            raise TrainingError(
                "--judge-train reports one training part, and with --folds there are several; leave one of them out"
            )
        rule = self.split_rule
        if self.folds and not rule.is_own:
            raise TrainingError(f"--split-by {self.split_by} with --folds {self.folds}: folds are parts of their own")
        if self.label == "none" and self.target == "none":
            raise TrainingError("--label none with --target none leaves nothing to predict; give one of them")

    @property
    def split_rule(self) -> SplitRule:
        """The rule of `split_by`. Raises TrainingError for one that there is not."""
        return parse_split_rule(self.split_by)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The network, its own options, and the value that its output stands for."""

    name: str = option(
        "auto",
        "--head",
        "head to train, see `reelbank heads`; a plug-in by its name or as module:function; auto: what inner validation "
        "prefers of trees and linear, and mlp where an option asks for a network's training",
        choices=sorted(HEADS),
        name="head",
        more=PLUGIN,
        group="Head",
    )
    head_option: Many[str] = option(
        (), "--head-option", "NAME=VALUE: an option of the head that is no flag (`reelbank heads`)", multiple=True
    )
    trunk: str = option(
        "separate",
        "--trunk",
        "hidden layers of mlp and conv-aggregation: one pair per output, or shared",
        choices=("separate", "shared"),
    )
    aggregation: str = option(
        "adaptive",
        "--aggregation",
        "end of conv-aggregation: mean over steps, or flatten (fixed number of steps)",
        choices=("adaptive", "flatten"),
    )
    stage: str = option(
        "auto",
        "--stage",
        "of a head that is trained in stages: which (`reelbank heads NAME`); it says what is trained, and with which "
        "settings where no option says it; auto: its first",
    )
    init_from: ManyPaths = option(
        (),
        "--init-from",
        "run(s) whose trained weights a stage begins with; 'none' begins a later stage without",
        multiple=True,
    )
    aux_weight: Many[str] = option(
        (),
        "--aux-weight",
        "NAME=W: weight of one of the head's further losses (`reelbank heads NAME`), beside that of the labels",
        multiple=True,
    )
    estimate: str = option(
        "auto",
        "--estimate",
        "the value that a predicted distribution over bins stands for: its highest bin, its mean or its median; auto: "
        "the median for auto and trees, else the highest bin",
        choices=ESTIMATES,
    )

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        if self.name not in HEADS:
            with flagged("--head"):
                HEADS.row(self.name)
        if self.head_option:
            parse_options(self.name, self.head_option, HEAD_FLAGS)
        if self.plan is not None:
            self.plan.stage(self.stage)
        elif self.stage != "auto" or self.init_from:
            flag = "--init-from" if self.init_from else "--stage"
            raise TrainingError(f"{flag} is for heads that are trained in stages, which head {self.name!r} is not")

    @cached_property
    def plan(self) -> HeadPlan | None:
        """What it reads, holds and trains, if it reads arrays; None of a head of vectors."""
        return plan_of(self.name, self.options)

    @cached_property
    def aux_weights(self) -> dict[str, float]:
        """{name: weight} of `aux_weight`. Raises TrainingError for what is no NAME=W."""
        return named_numbers(self.aux_weight, "--aux-weight")

    @property
    def trained_stage(self) -> Stage | None:
        """The stage that is trained; None of a head of vectors."""
        return None if self.plan is None else self.plan.stage(self.stage)

    @property
    def stage_settings(self) -> Mapping[str, Any]:
        """The settings of that stage; {} of a head of vectors."""
        return {} if self.trained_stage is None else self.trained_stage.settings

    @property
    def init_runs(self) -> tuple[Path, ...]:
        """The runs that `init_from` names."""
        return tuple(path for path in self.init_from if str(path) != NO_RUN)

    @property
    def plugin(self) -> Plugin | None:
        """Where the head comes from; None for this package."""
        return HEADS.plugin(self.name)

    @property
    def needs_steps(self) -> bool:
        """Whether the head reads every step, not one vector per clip."""
        return HEADS.row(self.name).needs_steps

    @property
    def is_fitted(self) -> bool:
        """Whether it is fitted in one go, without epochs."""
        return HEADS.row(self.name).is_fitted

    @property
    def options(self) -> dict[str, Any]:
        """The head's own options: the flags that its row names, and what --head-option gives."""
        flags = {name: getattr(self, name) for name in HEADS.row(self.name).options if name in HEAD_FLAGS}
        return flags | parse_options(self.name, self.head_option, HEAD_FLAGS)

    @property
    def can_be_stacked(self) -> bool:
        """Whether several can be trained in one pass, as members of a sweep are on a GPU."""
        row = HEADS.row(self.name)
        options = {**row.options, **self.options}
        return (
            row.can_be_stacked
            and not row.is_fitted
            and not row.plan
            and not any(options[name] == value for name, value in row.alone_with.items())
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Flat):
    """A head, the stores it is trained on, and how. Every field of its parts is a flag of `train-head`.

    `TrainConfig.of(store=(path,), lr=1e-4)` takes the fields of all parts by their names.

    Raises TrainingError (a ValueError) naming the flag whose value cannot be used.
    """

    data: DataConfig
    features: FeaturesConfig = FeaturesConfig()
    head: HeadConfig = HeadConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    seed: int = option(
        0,
        "--seed",
        "of the initial weights, the order of clips, splits and intervals",
        least=0,
        most=MAX_SEED,
        group="Epochs and seed",
    )
    run: RunConfig = RunConfig()

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        head, pool = self.head, self.features.pool
        # Not where the parts are made, which are defaults too: a package that takes the name of one of ours must not
        # stop a program that trains nothing.
        HEADS.row(head.name)
        for loss in self.objective.losses:
            LOSSES.row(loss)
        _refuse_one_label_options(self)
        _refuse_other_parts(self)
        if self.optimizer.watches == "accuracy" and (self.data.label == "none" or self.objective.independent):
            kind = "clips have several labels" if self.objective.independent else "no class is trained (--label none)"
            raise TrainingError(f"--keep {self.optimizer.keep}: {kind}, so no epoch has an accuracy; pass --keep best")
        if self.data.target == "none" and head.estimate not in ("argmax", "auto"):
            raise TrainingError(f"--estimate {head.estimate} reads the target's bins, and --target none has none")
        if pool == "mean+std" and head.needs_steps:
            raise TrainingError(f"--pool {pool} has no meaning for head {head.name!r}, which reads every step")
        if self.features.augment and not head.needs_steps and pool == "mean+std":
            raise TrainingError(
                f"--augment with head {head.name!r} makes its copies before the mean over time; it needs --pool mean"
            )

    @property
    def separator(self) -> str | None:
        """What stands between several labels of one clip; None where a clip has one."""
        return self.data.label_separator if self.objective.independent else None

    @property
    def can_be_stacked(self) -> bool:
        """Whether several of these can be trained in one pass: what a stack does not follow is trained by itself."""
        optimizer = self.optimizer
        alone = optimizer.schedule in PER_BATCH or optimizer.watches != "loss" or self.features.train_views == "draw"
        return self.head.can_be_stacked and self.data.refit != "yes" and not alone

    @classmethod
    def of(cls, **values: Any) -> TrainConfig:
        """A configuration from the fields of its parts; the settings of a head's stage hold for those not given.

        Raises TypeError for a name that is none.
        """
        return super().of(**{**stage_settings(values), **values})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrainConfig:
        """The configuration that `to_json` wrote. Raises TrainingError for unknown fields."""
        if unknown := sorted(set(data) - set(options(cls))):
            raise TrainingError(f"the configuration has fields this version does not know: {', '.join(unknown)}")
        return cls.of(**data)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share: all but `run`, where the stores lie and how many epochs there are."""
        free = {name for name, one in options(TrainConfig).items() if one.part is RunConfig} | {"epochs", "store"}
        return {name: value for name, value in self.to_json().items() if name not in free}


def stage_settings(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the stage that `values`, fields of TrainConfig, name with their head; {} for a head without."""
    own = {name: values[name] for name in ("head_option", "stage", "init_from") if name in values}
    if values.get("head", "auto") == "auto":
        return {}
    return HeadConfig(name=values["head"], **own).stage_settings


def _refuse_other_parts(config: TrainConfig) -> None:
    """Raises TrainingError for options that name what the head does not have, or that it cannot follow."""
    plan, stage = config.head.plan, config.head.trained_stage
    named = {
        "--aux-weight": (config.head.aux_weights, [] if plan is None else [one.name for one in plan.auxiliary]),
        "--group-lr": (config.optimizer.group_lrs, [] if stage is None else [group.name for group in stage.groups]),
    }
    for flag, (given, there) in named.items():
        if unknown := sorted(set(given) - set(there)):
            has = ", ".join(sorted(there)) or "none"
            raise TrainingError(f"{flag} {unknown[0]}: head {config.head.name!r} has {has} there")
    if plan is None:
        of_arrays = {"--steps": bool(config.features.steps), "--pixel-augment": bool(config.features.pixel_augment)}
        for flag in (flag for flag, is_given in of_arrays.items() if is_given):
            raise TrainingError(f"{flag} is for heads that read arrays, which head {config.head.name!r} does not")
        return
    features = config.features
    if features.steps and any(one.positions for one in plan.inputs):
        raise TrainingError(
            f"--steps has no meaning for head {config.head.name!r}, which reads frames at shares of the clip"
        )
    refused = {
        "--augment": bool(features.augment), "--segments": features.segment_rule() is not None,
        "--pool": features.pool not in ("auto", "mean"), "--normalize l2": features.normalize == "l2",
        "--refit": config.data.refit == "yes",
    }  # fmt: skip
    for flag in (flag for flag, is_given in refused.items() if is_given):
        raise TrainingError(f"{flag} has no meaning for head {config.head.name!r}, which reads arrays")


def _refuse_one_label_options(config: TrainConfig) -> None:
    """Raises TrainingError for an option that clips with several labels cannot have, or that only they have."""
    data, objective = config.data, config.objective
    if objective.independent:
        refused = {
            "--class-weights balanced": objective.class_weights != "none", "--label none": data.label == "none",
            "--label-smoothing": objective.label_smoothing != 0, "--label-separator ''": not data.label_separator,
            "--balance class": config.features.balance == "class",
        }  # fmt: skip
        for flag in (flag for flag, is_given in refused.items() if is_given):
            raise TrainingError(f"{flag} has no meaning where a clip has several labels (--loss or --class-loss bce)")
    elif data.label_separator != LABEL_SEPARATOR:
        raise TrainingError("--label-separator is for clips with several labels; it belongs to --loss bce")
    elif LOSSES.row(objective.loss).independent:
        raise TrainingError(f"--loss {objective.loss} is a loss of labels, not of a target; give it as --class-loss")
