"""The content of results.json: the trained partitions of a run, judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.heads.examples.overlap import fitted_rows, overlap
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.examples.splits import Partition
from reelbank.heads.fitting.choosing import Chosen
from reelbank.heads.fitting.telling import choice_entries, choice_sentences
from reelbank.heads.judging.evaluation import (
    Predictions,
    judge,
    plain_metrics,
    pooled,
    split_results,
)
from reelbank.heads.training.refitting import refits
from reelbank.heads.training.trainer import Progression

FORMAT_VERSION = 1
OVERFIT_RATIO = 1.05  # SYSTEMS.md 1.15: the final validation loss exceeds its minimum by more than 5 %


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What is written when a run has been trained.

    Attributes:
        results: the content of results.json.
        predictions: of each reported split; `best_epoch` with the best epoch's weights, empty where the run keeps them.
        confusions: {split: table}, the content of confusion.json.
    """

    results: dict[str, Any]
    predictions: Mapping[str, Predictions]
    best_epoch: Mapping[str, Predictions]
    confusions: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One partition after its training.

    Attributes:
        predictions: {split: predictions} with the weights that the run keeps.
        at_best_epoch: those with the weights of the best epoch, where the run keeps the last ones; else None.
        choices: {output: what inner validation chose} of a fitted head; `num_parameters`: numbers that it holds.
    """

    partition: Partition
    state: Progression
    predictions: Mapping[str, Predictions]
    at_best_epoch: Mapping[str, Predictions] | None = None
    choices: Mapping[str, Chosen] = field(default_factory=dict)
    num_parameters: int | None = None


def by_split(parts: Sequence[tuple[Partition, Mapping[str, Predictions]]]) -> dict[str, Predictions]:
    """The predictions that are reported; with folds pooled over them, and without their validation parts."""
    partition, predictions = parts[0]
    if partition.fold is None:
        return dict(predictions)
    splits = {name: pooled(name, [own[name] for _, own in parts]) for name in ("test", "unknown")}
    return {name: part for name, part in splits.items() if len(part.rows)}


def at_best_epoch(trained: Sequence[Trained]) -> dict[str, Predictions]:
    """`by_split` of the best epochs' weights; empty where the run keeps them."""
    best = [(one.partition, one.at_best_epoch) for one in trained if one.at_best_epoch is not None]
    return by_split(best) if best else {}


def finished(name: str, prepared: Prepared, trained: Sequence[Trained], seconds: float) -> Finished:
    """Judges the trained partitions of the run `name`, which took `seconds`."""
    config, first = prepared.config, trained[0]
    with_folds = first.partition.fold is not None
    predictions = by_split([(one.partition, one.predictions) for one in trained])
    best = at_best_epoch(trained)
    known = [np.concatenate([one.partition.train, one.partition.val, one.partition.test]) for one in trained]
    train = np.unique(np.concatenate(known)) if with_folds else first.partition.train
    judged = judge(prepared, predictions, train)
    best_splits = {split: split_results(prepared, part, train) for split, part in best.items()}
    tested, tested_best = (
        {part.fold: plain_metrics(prepared, own["test"]) for part, own in parts} if with_folds else {}
        for parts in (
            [(one.partition, one.predictions) for one in trained],
            [(one.partition, one.at_best_epoch) for one in trained if one.at_best_epoch is not None],
        )
    )
    choices = [(one.partition.fold, one.choices) for one in trained if one.choices]
    judged_clips = {
        split: overlap(
            prepared.groups,
            [
                (_fitted(one.partition, split, refit=refits(config, one.partition)), one.predictions[split].rows)
                for one in trained
                if split in one.predictions
            ],
        )
        for split in predictions
    }
    notes = [*choice_sentences(prepared, choices), *prepared.notes, *judged.notes]
    if with_folds:
        notes.append("The baselines know the labels of all folds, which makes them a little stronger than the heads.")
    results = {
        "format_version": FORMAT_VERSION,
        "run": name,
        "weights_are_random": prepared.weights_are_random,
        "warning": prepared.warning,
        "shuffled_labels": config.data.shuffle_labels,
        "selection": _selection(prepared, first.partition),
        "reported": judged.reported,
        "counts": prepared.counts,
        "splits": judged.splits,
        "group_overlap": {split: found.to_json() for split, found in judged_clips.items() if split != "train"},
        "folds": [_fold_entry(one, tested[one.partition.fold]) for one in trained] if with_folds else [],
        "at_best_epoch": {
            "splits": best_splits,
            "folds": [{"fold": fold, "metrics": metrics} for fold, metrics in tested_best.items()],
        }
        if best
        else None,
        "training": {
            "seconds": round(seconds, 3),
            "num_parameters": prepared.num_parameters if first.num_parameters is None else first.num_parameters,
            **_training_entry(first.state),
        },
        "choices": choice_entries(choices),
        "notes": list(dict.fromkeys(notes)),
        "verdict": judged.verdict,
        "target_name": None if prepared.bins is None else prepared.bins.target,
        "target_unit": None if prepared.bins is None else prepared.bins.unit,
    }
    return Finished(results=results, predictions=predictions, best_epoch=best, confusions=judged.confusions)


def _fitted(partition: Partition, split: str, *, refit: bool) -> NDArray[np.int64]:
    """The clips that the head which is judged on `split` was fitted to."""
    return partition.train if split == "val" else fitted_rows(partition, refit=refit)


def _selection(prepared: Prepared, partition: Partition) -> dict[str, str]:
    config = prepared.config
    if config.head.is_fitted:
        what = "Chosen by inner validation over groups and fitted to the clips of train"
        if refits(config, partition):
            sentence = f"{what} and val (whose own numbers are out of fold), test reported once."
        elif len(partition.test):
            sentence = f"{what} alone (--refit no), test reported once."
        else:
            sentence = f"{what} alone; the validation clips, which took no part in that, are reported."
        return {"select_on": config.data.select_on, "criterion": "lowest inner validation loss", "sentence": sentence}
    by = "accuracy" if config.optimizer.watches == "accuracy" else "loss"
    kept = "the last epoch's weights" if config.optimizer.keep == "last" else "the best epoch's weights"
    if config.data.select_on == "reported-set":
        sentence = (
            f"Selected on the reported set itself (--select-on reported-set), as some papers do: {kept} by the {by} "
            "there, so the numbers are too good for clips that nobody has seen."
        )
    elif not len(partition.test):
        sentence = (
            f"Only validation is reported: {kept} by the {by} of the very clips that are reported, so the numbers are "
            "somewhat too good."
        )
    else:
        sentence = f"Selected on validation, test reported once: {kept} by the validation {by}."
        if refits(config, partition):
            sentence += " Then trained anew on the clips of train and val for as many epochs (--refit)."
    criterion = "lowest validation loss" if by == "loss" else "highest validation accuracy"
    return {"select_on": config.data.select_on, "criterion": criterion, "sentence": sentence}


def _training_entry(state: Progression) -> dict[str, Any]:
    return {
        "epochs_run": state.epoch,
        "best_epoch": state.best_epoch,
        "stopped_early": state.stopped_early,
        "overfit": bool(state.last_loss > OVERFIT_RATIO * state.best_loss),
    }


def _fold_entry(one: Trained, metrics: Mapping[str, float | None]) -> dict[str, Any]:
    part = one.partition
    return {
        "fold": part.fold,
        **_training_entry(one.state),
        "train": len(part.train),
        "val": len(part.val),
        "test": len(part.test),
        "metrics": metrics,
    }
