"""What a sweep is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reelbank.heads.config import TrainConfig, stage_settings
from reelbank.heads.errors import TrainingError
from reelbank.store.accepted import Many
from reelbank.store.options import MAX_CPUS, Flat, check_options, option

EXECUTOR_NAMES = ("auto", "processes", "stacked")
SWEEP_METRICS = ("auto", "val_accuracy", "val_loss", "val_mae")


@dataclass(frozen=True, kw_only=True)
class MembersConfig:
    """How often and with what the members of a sweep, or the rows of a recipe, are trained."""

    repeats: int = option(
        1,
        "--repeats",
        "trainings per combination, with seeds SEED, SEED+1, ...",
        least=1,
        most=10_000,
        group="Sweeps and repeats",
    )
    executor: str = option(
        "auto",
        "--executor",
        "processes: one-thread processes, bit-equal to training alone; stacked: all members in one step; "
        "auto: stacked on a GPU, else processes",
        choices=EXECUTOR_NAMES,
    )
    workers: int = option(0, "--workers", "processes of a sweep; 0: one per core", least=0, most=MAX_CPUS)

    def __post_init__(self) -> None:
        check_options(self, TrainingError)

    def seeds(self, first: int) -> range:
        """The seeds of the repeats, from that of the configuration."""
        return range(first, first + self.repeats)


@dataclass(frozen=True, kw_only=True)
class SweepConfig(Flat):
    """A training, the fields of it that vary, and how often each combination is trained.

    `SweepConfig.of(store=(path,), sweep=("lr=1e-3,1e-4",))` takes the fields of all parts by their names.

    Attributes:
        train: what members share; `train.run` is of the sweep.
    """

    train: TrainConfig
    sweep: Many[str] = option(
        (),
        "--sweep",
        "FIELD=A,B,C: train one member per value; several make a grid of all combinations",
        multiple=True,
        group="Sweeps and repeats",
    )
    stepwise: bool = option(
        False, "--stepwise", "tune the --sweep fields one at a time, in the order given, and keep the winner of each"
    )
    sweep_by: str = option(
        "auto",
        "--sweep-by",
        "what chooses the winner, always on the validation clips; auto: val_loss, or where a swept field changes the "
        "loss itself, val_mae with a target and val_accuracy without",
        choices=SWEEP_METRICS,
    )
    members: MembersConfig = MembersConfig()

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        if self.stepwise and not self.sweep:
            raise TrainingError("--stepwise tunes the fields of --sweep FIELD=A,B,C; give at least one")

    @classmethod
    def of(cls, **values: Any) -> SweepConfig:
        """A configuration from the fields of its parts; the settings of a head's stage hold for those not given.

        Raises TypeError for a name that is none.
        """
        return super().of(**{**stage_settings(values), **values})

    def identity(self) -> dict[str, Any]:
        """What a resumed sweep must share: values, repeats and the way of training may change."""
        return self.train.identity()
