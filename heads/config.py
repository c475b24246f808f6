"""What a training is asked for, in parts. The command's options are made from their fields; no torch is loaded here.

What may differ between trainings follows from the parts: a resumed run may have another `run`, members of a sweep may
differ in all but `data` and `run`, those of one stack in the numbers of `optimizer` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass
from functools import cached_property
from typing import Any

from reelbank.heads import augmentation
from reelbank.heads.augmentation import Augmentation
from reelbank.heads.errors import TrainingError
from reelbank.heads.losses import LOSSES
from reelbank.heads.models import HEADS, parse_options
from reelbank.heads.optimizers import OptimizerConfig
from reelbank.heads.run_config import RunConfig
from reelbank.manifests.plugins import Plugin
from reelbank.store.accepted import Many, ManyPaths
from reelbank.store.errors import StoreError
from reelbank.store.indexing import SegmentRule, parse_segments
from reelbank.store.options import MAX_SEED, Flat, check_options, option, options

PLUGIN = "PLUG-IN"
"""What stands in the help for the name of an installed package's row, or `module:attribute`."""
HEAD_FLAGS = ("aggregation", "trunk")
"""Options of heads that are flags of their own; others are given as --head-option NAME=VALUE."""
LABEL_SEPARATOR = ";"
ESTIMATES = ("argmax", "auto", "expectation", "median")


@contextmanager
def flagged(flag: str) -> Iterator[None]:
    """Puts the flag before what a table says of a name that it does not know."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{flag}: {error}") from None


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
    select_on: str = option(
        "validation",
        "--select-on",
        "which clips choose the best epoch; 'reported-set' is what some papers do and is said in the report",
        choices=("reported-set", "validation"),
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
        if self.label == "none" and self.target == "none":
            raise TrainingError("--label none with --target none leaves nothing to predict; give one of them")


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """How the features of a clip are read, and which training rows an epoch draws."""

    tap: Many[str] = option(
        (), "--tap", "tap(s) to read; default: the first tap of each store", multiple=True, group="Features"
    )
    view: int = option(0, "--view", "stored view to read; 0 is the evaluation view", least=0, most=10_000)
    pool: str = option(
        "auto",
        "--pool",
        "what heads without steps get of a clip's steps; auto: mean+std for auto and trees, else mean",
        choices=("auto", "mean", "mean+std"),
    )
    segments: str | None = option(
        None,
        "--segments",
        "read the stored steps as overlapping segments, by index: segments:16:starts=guard (90 steps give 160) or "
        "segments:16:stride=8; heads without steps get the mean over them; none, the default: every step once",
    )
    normalize: str = option(
        "zscore",
        "--normalize",
        "zscore by training rows | l2: each step over its length, before any mean | none",
        choices=("l2", "none", "zscore"),
    )
    train_views: str = option(
        "one",
        "--train-views",
        "all: every stored view of a training clip is a training row, beside --view; others keep to --view",
        choices=("all", "one"),
        group="Training clips",
    )
    augment: Many[str] = option(
        (),
        "--augment",
        "METHOD[=AMOUNT]: one more copy of each training clip; dropout (rate 0.1), noise (0.1), scaling (0.1), "
        "shift (2 steps)",
        multiple=True,
    )
    train_clips: int = option(
        0,
        "--train-clips",
        "train on at most this many clips, drawn class by class; 0: all",
        least=0,
        most=100_000_000,
    )
    balance: str = option(
        "none",
        "--balance",
        "draw the clips of an epoch with replacement, so that classes or groups are as frequent as each other",
        choices=("class", "group", "none"),
    )

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        self.segment_rule()
        _ = self.augmentations

    @cached_property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """What `augment` asks for. Raises TrainingError for a method or an amount that there is not."""
        return augmentation.parse(self.augment)

    def segment_rule(self) -> SegmentRule | None:
        """The rule of `segments`, None where every step is read once. Raises TrainingError for one it cannot read."""
        if self.segments in (None, "none"):
            return None
        try:
            return parse_segments(str(self.segments))
        except StoreError as error:
            raise TrainingError(f"--segments {error}") from None


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
        return not row.is_fitted and not any(options[name] == value for name, value in row.alone_with.items())


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised. Losses of two objectives cannot be compared."""

    loss: str = option(
        "ce",
        "--loss",
        "loss on the target's bins; without a target, on the classes; jsd-sum: jsd without its halves",
        choices=sorted(LOSSES),
        more=PLUGIN,
        group="Loss",
    )
    class_loss: str = option(
        "auto",
        "--class-loss",
        "loss on the classes; auto: ce beside a target, else --loss",
        choices=("auto", *sorted(LOSSES)),
        more=PLUGIN,
    )
    class_weights: str = option(
        "none",
        "--class-weights",
        "weights of the class loss; balanced: N / (K * clips of the class)",
        choices=("balanced", "none"),
    )
    label_smoothing: float = option(
        0.0, "--label-smoothing", "share of the class label spread over all classes, 0 to 1"
    )
    bins: int = option(
        1000, "--bins", "number of bins of the target", least=2, most=100_000, group="Bins of the target"
    )
    range: tuple[float, float] | None = option(
        None,
        "--range",
        "LOW:HIGH of the bins in target units; default: 0:1000 for kcal, else the training range",
    )
    sigma: float = option(5.0, "--sigma", "width of the softened target in bins (standard deviation)", above=0)
    target_labels: str = option(
        "soft",
        "--target-labels",
        "soft: Gaussian over bins that sums to 1; density: its raw density, less near the borders; hard: one bin",
        choices=("density", "hard", "soft"),
    )
    reduction: str = option("sum", "--reduction", "of the target's loss over its bins", choices=("mean", "sum"))

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        for flag, name in (("--loss", self.loss), ("--class-loss", self.class_loss)):
            if name not in (*LOSSES, "auto"):
                with flagged(flag):
                    LOSSES.row(name)
        if self.range is not None and not self.range[0] < self.range[1]:
            raise TrainingError(f"--range {self.range[0]}:{self.range[1]}: LOW must be below HIGH")
        if not 0 <= self.label_smoothing < 1:
            raise TrainingError(f"--label-smoothing {self.label_smoothing} must be in [0, 1)")

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses that are named, sorted."""
        return tuple(sorted({self.loss, self.class_loss} - {"auto"}))

    @property
    def independent(self) -> bool:
        """Whether the classes are judged each by itself: clips may have several labels."""
        return LOSSES.row(self.loss if self.class_loss == "auto" else self.class_loss).independent

    @property
    def plugins(self) -> dict[str, Plugin]:
        """{loss: where it comes from} of those that are not of this package."""
        return {name: plugin for name in self.losses if (plugin := LOSSES.plugin(name)) is not None}


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
