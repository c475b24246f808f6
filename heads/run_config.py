"""Where and with what a training run is made: the part of its config that changes no number."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from reelbank.heads.errors import TrainingError
from reelbank.store.accepted import MaybePath
from reelbank.store.devices import check_has_float64, resolve_device
from reelbank.store.options import MAX_CPUS, check_options, option

FIGURES = ("pdf", "png", "svg")
"""What pictures can be written as; a PNG is always there, for the page."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where and with what a run is made; nothing here changes a number."""

    directory: MaybePath = option(
        None,
        "--run",
        "run directory; default: runs/<store>-<head>-<loss>-<n>, the first n that is free",
        name="run",
        group="Run directory and machine",
    )
    overwrite: bool = option(False, "--overwrite", "replace the run in --run")
    resume: bool = option(False, "--resume", "continue the run in --run from its last checkpoint")
    device: str = option("auto", "--device", "auto | cpu | cuda[:N]")
    threads: int = option(
        1,
        "--threads",
        "CPU threads of a step; 1 is fastest for small batches and bit-reproducible",
        least=1,
        most=MAX_CPUS,
    )
    memory: float = option(
        0.0,
        "--memory",
        "GB of memory for arrays that heads read; larger stores are read again each epoch; 0: half of what is free",
        least=0,
    )
    checkpoint_seconds: float = option(
        10.0, "--checkpoint-seconds", "least time between two checkpoints for --resume", least=0
    )
    report: bool = option(True, "--report", "write report.html and figures at the end", group="Report")
    tensorboard: bool = option(
        False, "--tensorboard", "also write events for TensorBoard, below the run; needs reelbank[tensorboard]"
    )
    figures: str = option("png", "--figures", "png | svg | pdf: write the figures in that format too", FIGURES)

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        check_has_float64(self.device)
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise TrainingError("--tensorboard needs an extra that is not installed: pip install reelbank[tensorboard]")
        if self.resume and self.overwrite:
            raise TrainingError("--resume continues a run and --overwrite replaces it; give one of them")
        if (self.resume or self.overwrite) and self.directory is None:
            raise TrainingError("--resume and --overwrite need --run DIR: the run they speak of")

    @property
    def device_here(self) -> str:
        """The device that `device` means on this machine. Raises DeviceError for one that is not here."""
        return resolve_device(self.device)

    @property
    def given_directory(self) -> Path:
        """`directory` of a training that was given one, as every member of a sweep is."""
        assert self.directory is not None
        return self.directory
