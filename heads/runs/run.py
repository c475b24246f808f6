"""A training run: one directory that says what was trained, on what, and how good it is beside trivial guesses.

`train_head(config)` makes it, `reelbank.heads.reports.html.write_run_report(run_dir)` draws it. The files:

`config.json`  (written first)
    format_version 1 · config: every field of its parts · stores: [{path, backbone, weights, weights_are_random,
    spec, spec_digest, taps: [names used]}] · weights_are_random (any store) · warning ("" or the sentence that every
    report must show) · labels: [class names, sorted] or null · bins: null or {target, unit, num_bins, low, high,
    sigma_bins, labels} · num_parameters · counts (as in results.json) · notes [sentences] ·
    plugins: [{kind, name, target, distribution, version, sha256, files}] of the code from outside

`metrics.jsonl`  (one JSON object per epoch, flushed; a resumed run continues it)
    fold (int, null without --folds) · epoch (from 1) · learning_rate · train_loss · val_loss (null without
    validation rows) · val_accuracy, val_mae (null where the head has no such output) · seconds · best (bool: so far)

`best.safetensors`, `last.safetensors`  (with --folds K: `fold-0/`, ... `fold-<K-1>/` hold one pair each)
    best: the predictor. Tensors `head.*`, `normalisation.<tap>.mean|scale` and, in the header under `reelbank`, JSON:
    head, its options and sizes, labels, bins, pool, normalize, view, store specs. last: what --resume needs.

`predictions.csv`  (one row per evaluated clip; with --folds each clip once, by the model that never saw its group)
    clip_id, split ("val" | "test" | "unknown"), fold ("" without folds), group, label, predicted, probability,
    correct ("1" | "0" | ""), and with a target: target, predicted_target (empty where unknown), both in target units

`predictions-best-epoch.csv`  (with --keep last only)
    the same columns, predicted with the weights of the best epoch, which this run does not keep

`confusion.json`  (absent without a class output)
    {split: {labels: [names of rows and columns], counts: [[true x predicted]]}}

`results.json`  (written last: a run without it is not finished)
    format_version · run (name) · weights_are_random · warning · shuffled_labels (bool)
    selection: {select_on, criterion, sentence}
    reported: "test" | "val"   (the split the verdict speaks of; with --folds "test" is the pooled out-of-fold rows)
    counts: {clips, train, val, test, unknown, classes, groups (null: no group column), left_out: [{reason, count}]}
            (with --folds train and val are those of fold 0)
    splits: {split: {num_clips, num_groups,
                     metrics:   {name: {value, low, high, higher_is_better, unit}},   value null = undefined
                     baselines: {baseline: {metric: value}}}}
        class metrics:  accuracy, top5_accuracy, macro_f1 (fractions)
        target metrics: mae (target unit), mae_bins (bins), spc_values, spc_bins, nll (nats; nll_mean: over bins)
        baselines: majority_class, uniform_random_class; constant_median, class_mean_oracle, uniform_random_bin,
                   random_training_label, label_marginal
    folds: [] or [{fold, best_epoch, epochs_run, stopped_early, overfit, train, val, test, metrics: {name: value}}]
    at_best_epoch: null or, with --keep last, {splits, folds: [{fold, metrics}]} as above, of the best epoch's weights
    training: {seconds, epochs_run, best_epoch, stopped_early, num_parameters, overfit}  (of fold 0 with --folds)
    notes: [sentences] · verdict (sentences) · target_name, target_unit (null without target)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.events import Event, Progress
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.prepared import Prepared, prepare
from reelbank.heads.examples.splits import Partition
from reelbank.heads.judging.evaluation import (
    Predictions,
    confusion,
    random_weights_warning,
    require_metrics,
    summary_text,
)
from reelbank.heads.runs.checkpoints import Predictor, load_progress, save_progress, saved_epoch
from reelbank.heads.runs.directory import (
    EpochLog,
    log_line,
    name_of_run,
    open_directory,
    read_json,
    write_json,
    write_predictions,
)
from reelbank.heads.runs.plugins import plugins_of, refuse_changed_plugins, try_out
from reelbank.heads.runs.results import FORMAT_VERSION, Trained, at_best_epoch, by_split, counts, results_of
from reelbank.heads.runs.watching import resumable
from reelbank.heads.training.job import count_parameters, make_job
from reelbank.heads.training.trainer import EpochRecord, Trainer, cpu_threads, probabilities


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run.

    Attributes:
        directory: where its files lie.
        results: the content of results.json.
    """

    directory: Path
    results: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """What a person should take away, in sentences."""
        return str(self.results["verdict"])

    @property
    def warning(self) -> str:
        """The sentence that must stand wherever a number of this run is shown; empty for trained backbones."""
        return str(self.results["warning"])

    @property
    def has_failures(self) -> bool:
        """Never: a run that cannot be trained raises. Sweeps and recipes have it, too."""
        return False

    def metric(self, name: str, split: str | None = None) -> float | None:
        """Metric `name` of `split` (default: the reported one); None if undefined."""
        entry = self.results["splits"][split or self.results["reported"]]["metrics"]
        if name not in entry:
            raise TrainingError(f"this run has no metric {name!r} there; it has {', '.join(sorted(entry))}")
        value: float | None = entry[name]["value"]
        return value

    def text(self) -> str:
        """The run for a terminal: warnings, numbers beside their baselines, notes, and where the files are."""
        return summary_text(self.directory, self.results)


def train_head(config: TrainConfig, progress: Progress | None = None) -> RunResult:
    """Trains a head as `config` says and writes a run directory.

    Args:
        config: what to train; `--resume` continues a stopped run to the same numbers.
        progress: called with an Event after every epoch and stage.

    Raises:
        TrainingError: whatever does not fit, before anything is written where that is possible; a loss that is no
            longer finite.
        StoreError: a path that is no store.
    """
    return train_with(config, FeatureCache(), progress)


def train_with(config: TrainConfig, cache: FeatureCache, progress: Progress | None = None) -> RunResult:
    """`train_head` with features that other trainings share."""
    with cpu_threads(config.run.threads):
        prepared = prepare(config, progress, cache)
        require_metrics(prepared)
        try_out(prepared)
        directory = open_directory(config.run, name_of_run(config), config)
        start_run(directory, prepared)
        started = time.perf_counter()
        with resumable(directory):
            trained = _train_all(directory, prepared, progress)
            return finish_run(directory, prepared, trained, time.perf_counter() - started, progress)


def finish_run(
    directory: Path, prepared: Prepared, trained: Sequence[Trained], seconds: float, progress: Progress | None = None
) -> RunResult:
    """Judges the trained partitions of a run and writes everything that is written last."""
    results = results_of(directory.name, prepared, trained, seconds)
    _tell(progress, "evaluate", results["verdict"])
    splits = by_split([(one.partition, one.predictions) for one in trained])
    write_predictions(directory / "predictions.csv", prepared, splits.values())
    if best := at_best_epoch(trained):
        write_predictions(directory / "predictions-best-epoch.csv", prepared, best.values())
    tables = {name: table for name, part in splits.items() if (table := confusion(prepared, part))}
    if tables:
        write_json(directory / "confusion.json", tables)
    write_json(directory / "results.json", results)
    if prepared.config.run.report:
        from reelbank.heads.reports.html import write_run_report

        write_run_report(directory)
        _tell(progress, "report", f"report in {directory}")
    return RunResult(directory=directory, results=results)


def _tell(progress: Progress | None, stage: str, message: str) -> None:
    if progress is not None:
        progress(Event(stage=stage, done=1, total=1, message=message))


def start_run(directory: Path, prepared: Prepared) -> None:
    """config.json, or for a resumed run the check that its data are still the same."""
    path = directory / "config.json"
    digest = prepared.data_digest()
    plugins = plugins_of(prepared.config)
    if prepared.config.run.resume and read_json(path)["data_digest"] != digest:
        raise TrainingError(
            f"--resume: the stores of {directory} have changed (clips, labels or features); start another run"
        )
    if prepared.config.run.resume:
        stored = read_json(path).get("plugins", [])
        refuse_changed_plugins(f"--resume: {directory} was trained with", stored, plugins)
    write_json(
        path,
        {
            "format_version": FORMAT_VERSION,
            "config": prepared.config.to_json(),
            "stores": prepared.table.describe(),
            "weights_are_random": prepared.table.weights_are_random,
            "warning": random_weights_warning(prepared),
            "labels": None if prepared.labels is None else list(prepared.labels),
            "bins": None if prepared.bins is None else prepared.bins.to_json(),
            "num_parameters": count_parameters(prepared),
            "counts": counts(prepared),
            "data_digest": digest,
            "notes": list(prepared.notes),
            "plugins": plugins,
        },
    )


def fold_folder(directory: Path, partition: Partition) -> Path:
    """Where the checkpoints of one partition lie."""
    return directory if partition.fold is None else directory / f"fold-{partition.fold}"


def _train_all(directory: Path, prepared: Prepared, progress: Progress | None) -> list[Trained]:
    config = prepared.config
    log = EpochLog(directory / "metrics.jsonl")
    folders = [fold_folder(directory, partition) for partition in prepared.partitions]
    kept = {
        partition.fold: saved_epoch(folder / "last.safetensors") if config.run.resume else 0
        for partition, folder in zip(prepared.partitions, folders, strict=True)
    }
    log.keep(kept)
    total = config.optimizer.epochs * len(folders)
    trained = []
    try:
        for done, (partition, folder) in enumerate(zip(prepared.partitions, folders, strict=True)):
            folder.mkdir(exist_ok=True)
            trainer = Trainer(make_job(prepared, partition))
            if kept[partition.fold]:
                load_progress(folder / "last.safetensors", trainer)
            _train_one(trainer, folder, log, progress, done=done * config.optimizer.epochs, total=total)
            trained.append(keep_trained(prepared, partition, trainer, folder))
            trainer.state.best_weights.clear()
    finally:
        log.close()
    return trained


def _train_one(
    trainer: Trainer, folder: Path, log: EpochLog, progress: Progress | None, *, done: int, total: int
) -> None:
    """Epochs with their log lines; a checkpoint every so often and after the last one."""
    config, fold = trainer.job.config, trainer.job.fold
    checkpoint = folder / "last.safetensors"
    moment = saved = time.perf_counter()

    def after_epoch(record: EpochRecord) -> None:
        nonlocal moment, saved
        now = time.perf_counter()
        log.append({"fold": fold, **log_line(record), "seconds": round(now - moment, 4)})
        moment = now
        if trainer.state.finished or now - saved >= config.run.checkpoint_seconds:
            save_progress(checkpoint, trainer)
            saved = now
        if progress is not None:
            values = {"train_loss": record.train_loss, "val_loss": record.val_loss}
            progress(Event(stage="train", done=done + record.epoch, total=total, values=values))

    trainer.train(after_epoch)


def keep_trained(prepared: Prepared, partition: Partition, trainer: Trainer, folder: Path) -> Trained:
    """Writes the predictor that the run keeps and predicts the reported clips, once."""
    trainer.use_kept_weights()
    job = trainer.job
    Predictor(
        head_name=job.config.head.name,
        options=job.config.head.options,
        shape=job.shape,
        labels=prepared.labels,
        bins=prepared.bins,
        pool=job.config.features.pool,
        segments=None if (rule := job.config.features.segment_rule()) is None else rule.text,
        estimate=job.config.head.estimate,
        unit_steps=prepared.features.unit_steps,
        normalization=job.resident.normalization,
        sources=tuple({"spec": entry["spec"], "keys": entry["keys"]} for entry in prepared.table.describe()),
        head=trainer.head,
    ).save(folder / "best.safetensors")
    parts = {"val": partition.val, "test": partition.test, "unknown": partition.unknown}
    if partition.val_is_reported and len(partition.test):
        del parts["val"]  # it is the test part itself
    predictions = _predictions(trainer, partition, parts)
    best = None
    if job.config.optimizer.keep == "last":  # after the kept weights are saved and used: the head is not needed again
        best = predictions
        if trainer.state.best_epoch != trainer.state.epoch:
            trainer.head.load_state_dict(trainer.state.best_weights)
            best = _predictions(trainer, partition, parts)
    return Trained(partition=partition, state=trainer.state, predictions=predictions, at_best_epoch=best)


def _predictions(trainer: Trainer, partition: Partition, parts: Mapping[str, np.ndarray]) -> dict[str, Predictions]:
    """What the head as it is says of the clips of each part."""
    return {
        name: Predictions(
            split=name,
            rows=rows,
            folds=np.full(len(rows), -1 if partition.fold is None else partition.fold),
            probabilities=probabilities(trainer.head, trainer.job.resident, rows),
        )
        for name, rows in parts.items()
        if len(rows) or partition.fold is not None
    }
