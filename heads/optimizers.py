"""The tables of optimisers and learning-rate schedules. No torch is loaded before one is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    "multistep": f"{ONE}:multistep",
    "none": "",
    "plateau": f"{ONE}:plateau",
    "step": f"{ONE}:step",
}
"""Schedule -> `module:function` that makes it, (Optimizer, OptimizerConfig) -> LRScheduler; '' for a constant rate."""
