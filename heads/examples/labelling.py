"""What the clips are labelled with: which classes and which bins of a target, and whether that can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reelbank.heads.config import DataConfig, ObjectiveConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.splits import Partition, Parts
from reelbank.heads.examples.targets import DEFAULT_RANGES, Bins, make_bins


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """The outputs of a head.

    Attributes:
        labels: class names in the order of the logits; None without a class output.
        bins: of the target; None without a target output.
        notes: sentences for the report.
    """

    labels: tuple[str, ...] | None
    bins: Bins | None
    notes: tuple[str, ...]


def label_clips(data: DataConfig, objective: ObjectiveConfig, table: ClipTable, parts: Parts) -> Labelling:
    """Decides the outputs from what the training clips have.

    Raises TrainingError for labels and targets that cannot be trained or judged; the message says what to change.
    """
    target = asked_target(data.target, tuple(table.targets))
    if target is not None:
        _require_targets(objective, table, target, parts.eligible)
    # With folds every known clip trains some fold: one vocabulary, so that the predictions can be pooled.
    trained = parts.trained
    notes = _untrained_classes(table, parts.partitions)
    has_classes = _has_classes(data, table, trained, has_target=target is not None, notes=notes)
    labels = vocabulary(table.labels[trained].tolist()) if has_classes else None
    _require_usable_parts(table, parts, None if labels is None else set(labels), target)
    bins = None
    if target is not None:
        bins = make_bins(
            target,
            table.targets[target][trained],
            num_bins=objective.bins,
            value_range=objective.range,
            sigma_bins=objective.sigma,
            labels=objective.target_labels,
        )
    return Labelling(labels=labels, bins=bins, notes=tuple(notes))


def vocabulary(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes of a training part, sorted. Raises TrainingError for fewer than two."""
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        found = f"only {names[0]!r}" if names and names[0] else "no label"
        raise TrainingError(
            f"a class output needs at least 2 classes in the training part, found {found}; "
            "check the manifest's label column, or train on a target alone with --label none"
        )
    return names


def asked_target(asked: str | None, names: Sequence[str]) -> str | None:
    """The target column that is meant: the first of `names` where None was asked; None for 'none', or no `names`.

    Raises TrainingError that lists the columns where the one asked is not there.
    """
    if asked == "none":
        return None
    if asked is None:
        return next(iter(names), None)
    if asked not in names:
        raise TrainingError(
            f"--target {asked}: the store has no such target column; it has {', '.join(sorted(names)) or 'none'}. "
            "Name it with --target-columns when the store is made"
        )
    return asked


def _require_targets(config: ObjectiveConfig, table: ClipTable, target: str, trained: np.ndarray) -> None:
    """Before clips are drawn: `--quick` must not find another mistake than the whole run."""
    values = table.targets[target][trained]
    if absent := trained[~np.isfinite(values)].tolist():
        raise TrainingError(
            f"target {target!r} is empty or not finite in {len(absent)} of {len(trained)} training clips "
            f"({_some_ids(table, absent)}); in the manifest fill it in or set the split of these clips to 'unused', "
            "run the same featurize command again (what is done is not done twice), or pass --target none"
        )
    low, high = config.range or DEFAULT_RANGES.get(target, (-np.inf, np.inf))
    if outside := trained[(values < low) | (values > high)].tolist():
        raise TrainingError(
            f"target {target!r}: {len(outside)} of {len(trained)} training clips lie outside {low:g}:{high:g} "
            f"({_some_ids(table, outside)}; all go from {values.min():g} to {values.max():g}); widen it with "
            "--range LOW:HIGH, or correct the manifest and run the same featurize command again"
        )


def _some_ids(table: ClipTable, rows: list[int]) -> str:
    shown = ", ".join(map(repr, table.clip_ids[rows[:3]].tolist()))
    return shown + (", ..." if len(rows) > 3 else "")


def _has_classes(
    config: DataConfig, table: ClipTable, trained: np.ndarray, *, has_target: bool, notes: list[str]
) -> bool:
    """Whether the head has a class output."""
    if config.label == "none":
        if not has_target:
            raise TrainingError("--label none needs a target column, and the store has none")
        return False
    labels = table.labels[trained]
    empty = int((labels == "").sum())
    if empty == len(labels) and has_target:
        notes.append("No training clip has a label: only the target is trained.")
        return False
    if 0 < empty < len(labels):
        raise TrainingError(
            f"{empty} of {len(labels)} training clips have no label; label them, or train on a target with --label none"
        )
    return True


def _untrained_classes(table: ClipTable, partitions: tuple[Partition, ...]) -> list[str]:
    """With folds, a class whose clips all share few groups may be missing in the training part of a fold."""
    notes = []
    for part in partitions if len(partitions) > 1 else ():
        missing = sorted(set(table.labels[part.test].tolist()) - set(table.labels[part.train].tolist()))
        if missing:
            names = ", ".join(map(repr, missing[:5]))
            notes.append(f"Fold {part.fold} is tested on {len(missing)} classes it never trains on ({names}).")
    return notes


def _require_usable_parts(table: ClipTable, parts: Parts, known: set[str] | None, target: str | None) -> None:
    """Raises TrainingError for a part that cannot be judged: no class that training knows, no target to select by."""
    values = None if target is None else table.targets[target]
    for part in parts.partitions:
        for name, rows in (("split 'test'", part.test), ("the validation part", part.val)):
            given = table.labels[rows]
            given = given[given != ""]
            if known is not None and len(given) and known.isdisjoint(given.tolist()):
                raise TrainingError(
                    f"none of the {len(rows)} clips of {name} has a class that training knows (the first: "
                    f"{str(given[0])!r}); clips of other classes belong to split 'unknown', or pass --label none"
                )
        if values is not None and not np.isfinite(values[part.val]).any():
            raise TrainingError(
                f"none of the {len(part.val)} validation clips has a target {target!r}: nothing can choose the "
                "best epoch; fill the column, leave those clips out of split 'val', or pass --target none"
            )
        if target is None and known is not None and not (table.labels[part.val] != "").any():
            raise TrainingError(
                f"none of the {len(part.val)} validation clips has a label: nothing can choose the best epoch; "
                "check the manifest's split and label columns"
            )
