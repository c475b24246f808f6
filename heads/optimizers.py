"""Optimisers and learning-rate schedules: their tables and options. No torch is loaded before one is used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from reelbank.heads.errors import TrainingError
from reelbank.store.accepted import Many
from reelbank.store.options import check_options, option

ONE, STACKED = "reelbank.heads.training.optimization", "reelbank.heads.training.stacked_optimizers"


@dataclass(frozen=True, kw_only=True)
class OptimizerRow:
    """A registered optimiser.

    Attributes:
        make: `module:function` that makes torch's optimiser of one model, (parameters, OptimizerConfig) -> Optimizer.
        update: `module:function` of one update of a stack of models, see `reelbank.heads.training.stacked_optimizers`.
        state: the tensors of its state, with torch's names.
    """

    make: str
    update: str
    state: tuple[str, ...]


MOMENTS = ("exp_avg", "exp_avg_sq")
OPTIMIZERS: Mapping[str, OptimizerRow] = {
    "adam": OptimizerRow(make=f"{ONE}:adam", update=f"{STACKED}:adam", state=MOMENTS),
    "adamw": OptimizerRow(make=f"{ONE}:adamw", update=f"{STACKED}:adamw", state=MOMENTS),
    "radam": OptimizerRow(make=f"{ONE}:radam", update=f"{STACKED}:radam", state=MOMENTS),
    "rmsprop": OptimizerRow(
        make=f"{ONE}:rmsprop", update=f"{STACKED}:rmsprop", state=("momentum_buffer", "square_avg")
    ),
    "sgd": OptimizerRow(make=f"{ONE}:sgd", update=f"{STACKED}:sgd", state=("momentum_buffer",)),
}

SCHEDULES: Mapping[str, str] = {
    "cyclic": f"{ONE}:cyclic",
    "multistep": f"{ONE}:multistep",
    "none": "",
    "plateau": f"{ONE}:plateau",
    "step": f"{ONE}:step",
}
"""Schedule -> `module:function` that makes it, (Optimizer, OptimizerConfig) -> LRScheduler; '' for a constant rate."""


PER_BATCH = frozenset({"cyclic"})
"""Schedules that make a step after every update; the others make one after every epoch."""
KEEPS = ("best", "best-accuracy", "last")

MAX_EPOCHS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How it is minimised: batches, the update, the schedule, the epochs, which weights are kept."""

    name: str = option(
        "adam", "--optimizer", "optimiser", choices=sorted(OPTIMIZERS), name="optimizer", group="Optimiser"
    )
    batch: int = option(32, "--batch", "clips per step", least=1, most=10_000_000)
    lr: float = option(1e-3, "--lr", "learning rate", above=0)
    group_lr: Many[str] = option(
        (), "--group-lr", "NAME=RATE: rate of one of the groups of tensors that a head is trained in", multiple=True
    )
    weight_decay: float = option(1e-5, "--weight-decay", "L2 added to the gradient (adamw: decoupled)", least=0)
    betas: tuple[float, float] = option((0.9, 0.999), "--betas", "B1:B2 of adam, adamw, radam")
    eps: float = option(1e-8, "--eps", "epsilon of adam, adamw, radam, rmsprop", above=0)
    momentum: float = option(0.9, "--momentum", "of sgd and rmsprop", least=0)
    alpha: float = option(0.99, "--alpha", "smoothing of rmsprop", above=0)
    schedule: str = option(
        "none",
        "--schedule",
        "learning-rate schedule, one step per epoch; cyclic: one per batch (triangular2)",
        choices=sorted(SCHEDULES),
        group="Schedule of the rate",
    )
    step_epochs: int = option(20, "--step-epochs", "step: epochs between reductions", least=1, most=MAX_EPOCHS)
    milestones: Many[int] = option(
        (), "--milestone", "multistep: last epoch(s) before a reduction", multiple=True, most=MAX_EPOCHS
    )
    factor: float = option(0.5, "--factor", "step, multistep, plateau: what the rate is multiplied by", above=0)
    max_lr: float = option(
        0.0,
        "--max-lr",
        "cyclic: the highest rate of the first cycle, whose height above --lr halves with each; 0: ten times --lr",
        least=0,
    )
    cycle_batches: int = option(
        5, "--cycle-batches", "cyclic: batches from the lowest rate to the highest", least=1, most=10_000_000
    )
    restart_each_epoch: bool = option(
        False,
        "--cycle-restart",
        "cyclic: every epoch begins with the first cycle; else cycles run on across epochs",
    )
    patience_epochs: int = option(
        10,
        "--patience",
        "plateau: epochs without a better validation loss before a reduction",
        least=0,
        most=MAX_EPOCHS,
    )
    epochs: int = option(100, "--epochs", "most epochs", least=1, most=MAX_EPOCHS, group="Epochs and seed")
    early_stop_epochs: int = option(
        20,
        "--early-stop",
        "stop after this many epochs without a better validation loss; 0: never",
        least=0,
        most=MAX_EPOCHS,
    )
    keep: str = option(
        "best",
        "--keep",
        "weights that are kept: of the epoch with the lowest validation loss, of the highest accuracy, or the last",
        choices=KEEPS,
    )

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        if self.milestones and min(self.milestones) < 1:
            raise TrainingError(f"--milestone {min(self.milestones)} must be 1 or more: the epochs are counted from 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise TrainingError(f"--betas {self.betas[0]}:{self.betas[1]} must both be in [0, 1)")
        if self.schedule == "multistep" and not self.milestones:
            raise TrainingError("--schedule multistep needs at least one --milestone (an epoch)")
        if self.schedule == "cyclic" and 0 < self.max_lr <= self.lr:
            raise TrainingError(f"--max-lr {self.max_lr:g} must be above --lr {self.lr:g}, from which the cycles rise")
        if self.restart_each_epoch and self.schedule != "cyclic":
            raise TrainingError(f"--cycle-restart is for --schedule cyclic, not for {self.schedule}")
        if any(rate <= 0 for rate in self.group_lrs.values()):
            raise TrainingError(f"--group-lr {' '.join(self.group_lr)}: rates must be above 0")
        if self.factor >= 1 and self.schedule not in ("cyclic", "none"):
            raise TrainingError(f"--factor {self.factor} must be below 1: the schedule multiplies the rate by it")

    @cached_property
    def group_lrs(self) -> dict[str, float]:
        """{group: rate} of `group_lr`. Raises TrainingError for what is no NAME=RATE."""
        return named_numbers(self.group_lr, "--group-lr")

    @property
    def watches(self) -> str:
        """What decides which epoch is the best: `loss` or `accuracy`."""
        return "accuracy" if self.keep == "best-accuracy" else "loss"


def named_numbers(texts: Sequence[str], flag: str) -> dict[str, float]:
    """{name: number} of texts NAME=NUMBER. Raises TrainingError naming the flag."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value) or value < 0 or name in found:
            raise TrainingError(f"{flag} {text!r} is not of the form NAME=NUMBER, each name once and no number below 0")
        found[name] = value
    return found
