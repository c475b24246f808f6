"""What a run writes while it trains: a line per epoch, a checkpoint every so often and after the last epoch."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.examples.splits import Partition
from reelbank.heads.fitting.choosing import Chosen
from reelbank.heads.fitting.fitter import Fitter
from reelbank.heads.judging.evaluation import Predictions, number
from reelbank.heads.models.start import fingerprints
from reelbank.heads.runs.checkpoints import Predictor, load_progress, save_progress, saved_epoch
from reelbank.heads.runs.results import Trained
from reelbank.heads.runs.tensorboard import EpochEvents
from reelbank.heads.stored import PLACE, epoch_of
from reelbank.heads.training.refitting import refits, refitted
from reelbank.heads.training.trainer import EpochRecord, Trainer
from reelbank.manifests.events import Event, Progress
from reelbank.store.files import make_folder, reading, regular, sync, write_whole, writing


def fold_folder(directory: Path, partition: Partition) -> Path:
    """Where the checkpoints of one partition lie."""
    return directory if partition.fold is None else directory / f"fold-{partition.fold}"


class Recording:
    """The trainings of a run, one partition after the other.

    As a context manager it closes the log. A resumed run goes on after the epochs that its checkpoints have.
    """

    def __init__(self, directory: Path, prepared: Prepared, progress: Progress | None) -> None:
        self._prepared, self._config, self._progress = prepared, prepared.config, progress
        self._folders = {part.fold: fold_folder(directory, part) for part in prepared.partitions}
        resume = self._config.run.resume
        self._kept = {
            fold: saved_epoch(folder / "last.safetensors") if resume else 0 for fold, folder in self._folders.items()
        }
        self._log = EpochLog(directory / "metrics.jsonl", tensorboard=self._config.run.tensorboard)
        self._log.keep(self._kept)
        self._before = 0

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._log.close()

    def train(self, partition: Partition, trainer: Trainer | Fitter) -> Trained:
        """Trains one partition to its end and keeps what the run keeps of it."""
        fold = trainer.job.fold
        most = self._config.optimizer.epochs if isinstance(trainer, Trainer) else 1
        folder = self._folders[fold]
        make_folder(folder)
        checkpoint = folder / "last.safetensors"
        if self._kept[fold] and isinstance(trainer, Trainer):
            load_progress(checkpoint, trainer)
        moment = saved = time.perf_counter()
        total = most * len(self._folders)

        def after_epoch(record: EpochRecord) -> None:
            nonlocal moment, saved
            now = time.perf_counter()
            self._log.append({"fold": fold, **log_line(record), "seconds": round(now - moment, 4)})
            moment = now
            due = trainer.state.finished or now - saved >= self._config.run.checkpoint_seconds
            if due and isinstance(trainer, Trainer):
                self._log.flush()
                save_progress(checkpoint, trainer)
                saved = now
            if self._progress is not None:
                values = {"train_loss": record.train_loss, "val_loss": record.val_loss}
                self._progress(Event(stage="train", done=self._before + record.epoch, total=total, values=values))

        trainer.train(after_epoch)
        self._before += most
        final: Trainer | Fitter = trainer
        if isinstance(trainer, Trainer) and refits(self._config, partition):
            trainer.use_kept_weights()
            final = refitted(self._prepared, partition, trainer.state)
        return keep_trained(self._prepared, partition, trainer, final, folder)


class EpochLog:
    """metrics.jsonl: one line per epoch, on the disk as soon as it is written; events of the same where asked for."""

    def __init__(self, path: Path, *, tensorboard: bool = False) -> None:
        self._path = path
        self._events = EpochEvents(path.parent) if tensorboard else None
        self._file: FileIO | None = None

    def keep(self, epochs: Mapping[int | None, int]) -> None:
        """Drops the lines after the last checkpoint: {fold: epochs kept}; folds not named lose all."""
        if not self._path.exists():
            return
        kept = []
        with reading(self._path, TrainingError):
            lines = regular(self._path).read_text(encoding="utf-8").splitlines()
        for place, line in enumerate(lines, start=1):
            try:
                entry = epoch_of(self._path, place, line, PLACE)
            except TrainingError:
                if place == len(lines):  # that of a killed run may be cut
                    continue
                raise
            if entry["epoch"] <= epochs.get(entry["fold"], 0):
                kept.append(line + "\n")
        write_whole(self._path, "".join(kept))
        if self._events is not None:
            self._events.restart()
            for line in kept:
                self._events.add(json.loads(line))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Writes one line."""
        line = (json.dumps(entry, allow_nan=False) + "\n").encode()
        with writing(self._path):
            if self._file is None:
                self._file = self._path.open("ab", buffering=0)
            end = self._file.seek(0, os.SEEK_END)
            try:
                if (count := self._file.write(line)) != len(line):  # as much as fits is written without an error
                    self._file.write(line[count:])
            except OSError:
                self._file.truncate(end)
                raise
        if self._events is not None:
            self._events.add(entry)

    def flush(self) -> None:
        """Makes the lines durable: a checkpoint must not outlive the lines of its epochs."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            sync(self._path.parent)

    def close(self) -> None:
        """Closes the file and makes it durable."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None
        if self._events is not None:
            self._events.close()


def log_line(record: EpochRecord) -> dict[str, Any]:
    """The epoch as metrics.jsonl has it, less fold and seconds."""
    return {
        "epoch": record.epoch,
        "learning_rate": record.learning_rate,
        "train_loss": number(record.train_loss),
        "val_loss": number(record.val_loss),
        "val_accuracy": number(record.val_accuracy),
        "val_mae": number(record.val_mae),
        "best": record.best,
        **({} if math.isnan(record.train_accuracy) else {"train_accuracy": record.train_accuracy}),
        **({"losses": dict(record.losses)} if record.losses else {}),
        **({"learning_rates": dict(record.learning_rates)} if record.learning_rates else {}),
        **({"batch_learning_rates": list(record.batch_learning_rates)} if record.batch_learning_rates else {}),
    }


def keep_trained(
    prepared: Prepared, partition: Partition, trainer: Trainer | Fitter, final: Trainer | Fitter, folder: Path
) -> Trained:
    """Writes the predictor that the run keeps and predicts the reported clips, once.

    Args:
        trainer: it chose, and predicts the validation part.
        final: the same, or what was fitted once more to all that may be seen.
    """
    trainer.use_kept_weights()
    job = final.job
    Predictor(
        head_name=job.config.head.name,
        options=final.options,
        shape=job.shape,
        labels=prepared.labels,
        separator=prepared.config.separator,
        bins=prepared.bins,
        pool=job.config.features.pool,
        segments=None if (rule := job.config.features.segment_rule()) is None else rule.text,
        estimate=job.config.head.estimate,
        unit_steps=prepared.features.unit_steps,
        normalization=job.resident.normalization,
        sources=tuple(
            {name: entry[name] for name in ("spec", "keys", "readings")} for entry in prepared.table.describe()
        ),
        head=final.head,
        start=job.start,
        trained_on=fingerprints(prepared.table.clip_ids[_seen(partition)].tolist()) if prepared.start else "",
        stage="" if (stage := job.config.head.trained_stage) is None else stage.name,
        steps=job.config.features.steps,
    ).save(folder / "best.safetensors")
    parts = {"val": partition.val, "test": partition.test, "unknown": partition.unknown}
    if partition.val_is_reported and len(partition.test):
        del parts["val"]  # it is the test part itself
    if prepared.config.data.judge_train:
        parts["train"] = partition.train
    predictions = _predictions(final, partition, parts)
    if final is not trainer:
        predictions |= _predictions(trainer, partition, {"val": partition.val})
    best = None
    choices: Mapping[str, Chosen] = {}
    num_parameters = None
    if isinstance(trainer, Fitter):
        choices = trainer.choices
        num_parameters = sum(value.numel() for value in trainer.head.state_dict().values())
    elif final is trainer and job.config.optimizer.keep == "last":
        best = predictions  # after the kept weights are saved and used: the head is not needed again
        if trainer.state.best_epoch != trainer.state.epoch:
            trainer.use_weights(trainer.state.best_weights)
            best = _predictions(trainer, partition, parts)
    trainer.state.best_weights.clear()
    return Trained(
        partition=partition,
        state=trainer.state,
        predictions=predictions,
        at_best_epoch=best,
        choices=choices,
        num_parameters=num_parameters,
    )


def _seen(partition: Partition) -> np.ndarray:
    """Clips that trained or chose, less those that are reported all the same (as some protocols have it)."""
    if partition.val_is_reported or not len(partition.test):
        return partition.train
    return np.union1d(partition.train, partition.val)


def _predictions(
    trainer: Trainer | Fitter, partition: Partition, parts: Mapping[str, np.ndarray]
) -> dict[str, Predictions]:
    """What the head as it is says of the clips of each part."""
    return {
        name: Predictions(
            split=name,
            rows=rows,
            folds=np.full(len(rows), -1 if partition.fold is None else partition.fold),
            probabilities=trainer.probabilities(rows),
        )
        for name, rows in parts.items()
        if len(rows) or partition.fold is not None
    }
