"""A run as TensorBoard shows it, on request: event files below `<run>/tensorboard`.

The files there are a copy for watching; reelbank reads metrics.jsonl and results.json, which hold the same. While a run
trains, `tensorboard/` (with --folds K: `tensorboard/fold-0/`, ...) gets scalars of each epoch, `TAGS`. When it has
finished, `tensorboard/` gets its options as hyperparameters and every metric of every split as `<split>/<metric>` at
the step of the best epoch, and the folder of a fold the metrics of that fold.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelbank.heads.run_config import RunConfig
from reelbank.store.files import make_folder
from reelbank.store.options import options

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

    from reelbank.heads.config import TrainConfig

FOLDER = "tensorboard"
TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "val_accuracy": "accuracy/validation",
    "val_mae": "mae/validation",
    "learning_rate": "learning_rate",
}
"""{key of a line of metrics.jsonl: tag}."""
FLUSH_SECONDS = 5
"""How long an epoch may stay unseen."""


class EpochEvents:
    """The epochs of a run as events, written beside metrics.jsonl."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._fold: int | None = None
        self._writer: SummaryWriter | None = None

    def restart(self) -> None:
        """Removes what a run that is resumed has written: its kept epochs are written again."""
        if self._folder.is_dir():
            shutil.rmtree(self._folder)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Writes one line of metrics.jsonl."""
        if self._writer is None or self._fold != entry["fold"]:
            self.close()
            self._fold = entry["fold"]
            self._writer = _writer(fold_events(self._folder, self._fold))
        for key, tag in TAGS.items():
            if entry[key] is not None:
                self._writer.add_scalar(tag, entry[key], entry["epoch"])

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def fold_events(folder: Path, fold: int | None) -> Path:
    """Where the events of one partition lie."""
    return folder if fold is None else folder / f"fold-{fold}"


def write_outcome(directory: Path, config: TrainConfig, results: Mapping[str, Any]) -> None:
    """Adds what a finished run was asked for and what it found.

    Args:
        results: the content of results.json.
    """
    from torch.utils.tensorboard.summary import hparams

    folder = directory / FOLDER
    found = {
        f"{split}/{name}": metric["value"]
        for split, entry in results["splits"].items()
        for name, metric in entry["metrics"].items()
        if metric["value"] is not None
    }
    writer: Any = _writer(folder)
    for event in hparams(_hyperparameters(config), found):  # type: ignore[no-untyped-call]
        writer.file_writer.add_summary(event)
    for tag, value in found.items():
        writer.add_scalar(tag, value, results["training"]["best_epoch"])
    writer.close()
    for fold in results["folds"]:
        writer = _writer(fold_events(folder, fold["fold"]))
        for name, value in fold["metrics"].items():
            if value is not None:
                writer.add_scalar(f"test/{name}", value, fold["best_epoch"])
        writer.close()


def _hyperparameters(config: TrainConfig) -> dict[str, bool | float | str]:
    """The options that make numbers, as TensorBoard takes them: what is no number is text."""
    where = {name for name, one in options(type(config)).items() if one.part is RunConfig}
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in config.to_json().items()
        if name not in where
    }


def _writer(folder: Path) -> SummaryWriter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that TensorBoard would use where they are there
        from torch.utils.tensorboard import SummaryWriter

    make_folder(folder)
    return SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)
