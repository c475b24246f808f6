"""What the clips are labelled with: which classes and which bins of a target, and whether that can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reelbank.heads.config import DataConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.label_sets import combined_note, labels_in, names_in
from reelbank.heads.examples.splits import Partition, Parts
from reelbank.heads.examples.targets import DEFAULT_RANGES, Bins, make_bins
from reelbank.heads.losses import LOSSES
from reelbank.heads.objective_config import ObjectiveConfig

LARGEST_TARGET = 1e30


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


def label_clips(
    data: DataConfig, objective: ObjectiveConfig, table: ClipTable, parts: Parts, *, separator: str | None = None
) -> Labelling:
    """Decides the outputs from what the training clips have.

    Args:
        separator: of several labels of one clip, see `TrainConfig.separator`.

    Raises TrainingError for labels and targets that cannot be trained or judged; the message says what to change.
    """
    target = asked_target(data.target, tuple(table.targets))
    if target is not None and LOSSES.row(objective.loss).independent:
        raise TrainingError(
            f"--loss {objective.loss} is a loss of labels and would be that of target {target!r}; pass --class-loss "
            f"{objective.loss} to train both, or --target none"
        )
    if target is not None:
        _require_targets(objective, table, target, parts.eligible)
    # With folds every known clip trains some fold: one vocabulary, so that the predictions can be pooled.
    trained = parts.trained
    notes = _untrained_classes(table, parts.partitions, separator)
    has_classes = _has_classes(data, table, trained, separator, has_target=target is not None, notes=notes)
    labels = None
    if has_classes:
        names = names_in(table.labels[trained].tolist(), separator)
        labels = vocabulary(sorted(names), least=2 if separator is None else 1)
        notes += _label_notes(table.labels[trained].tolist(), labels, data.label_separator, separator)
    _require_usable_parts(table, parts, None if labels is None else set(labels), target, separator)
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


def _label_notes(cells: list[str], labels: tuple[str, ...], usual: str, separator: str | None) -> list[str]:
    """How the cells were read where they hold several labels, or look as if they did."""
    if separator is None:
        return combined_note(labels, usual, "if they are several labels of one clip, train them so with --loss bce")
    everywhere = set(labels).intersection(*(labels_in(cell, separator) for cell in cells))
    if len(everywhere) == len(labels):
        raise TrainingError(
            f"every training clip has the same labels ({', '.join(map(repr, sorted(labels)[:5]))}): nothing to learn; "
            f"a clip that has none of them has {separator!r} alone as its label"
        )
    several = sum(len(labels_in(cell, separator)) > 1 for cell in cells)
    hint = "" if several else "; another separator is given by --label-separator"
    return [
        f"{several} of {len(cells)} training clips have several labels ({separator!r} between them){hint}. Each label "
        "is judged by itself, and predicted where its probability is 0.5 or more."
    ]


def vocabulary(labels: Sequence[str], *, least: int = 2) -> tuple[str, ...]:
    """The classes of a training part, sorted. Raises TrainingError for fewer than `least`."""
    names = tuple(sorted(set(labels)))
    if len(names) < least:
        found = f"only {names[0]!r}" if names and names[0] else "no label"
        raise TrainingError(
            f"a class output needs at least {least} class{'es' if least > 1 else ''} in the training part, found "
            f"{found}; check the manifest's label column, or train on a target alone with --label none"
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
    if (largest := float(np.abs(values).max(initial=0.0))) > LARGEST_TARGET:
        raise TrainingError(
            f"target {target!r} reaches {largest:g} in the training clips; heads compute with float32, and read values "
            f"up to {LARGEST_TARGET:g}: give it in another unit, or pass --target none"
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
    config: DataConfig,
    table: ClipTable,
    trained: np.ndarray,
    separator: str | None,
    *,
    has_target: bool,
    notes: list[str],
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
            f"{empty} of {len(labels)} training clips have no label; label them"
            + (
                ", or train on a target with --label none"
                if separator is None
                else f" ({separator!r} alone: none of them)"
            )
        )
    return True


def _untrained_classes(table: ClipTable, partitions: tuple[Partition, ...], separator: str | None) -> list[str]:
    """With folds, a class whose clips all share few groups may be missing in the training part of a fold."""
    notes = []
    for part in partitions if len(partitions) > 1 else ():
        tested, trained = (names_in(table.labels[rows].tolist(), separator) for rows in (part.test, part.train))
        missing = sorted(tested - trained)
        if missing:
            names = ", ".join(map(repr, missing[:5]))
            notes.append(f"Fold {part.fold} is tested on {len(missing)} classes it never trains on ({names}).")
    return notes


def _require_usable_parts(
    table: ClipTable, parts: Parts, known: set[str] | None, target: str | None, separator: str | None
) -> None:
    """Raises TrainingError for a part that cannot be judged: no class that training knows, no target to select by."""
    values = None if target is None else table.targets[target]
    for part in parts.partitions:
        for name, rows in (("split 'test'", part.test), ("the validation part", part.val)):
            given = table.labels[rows]
            given = given[given != ""]
            named = names_in(given.tolist(), separator)
            if known is not None and named and known.isdisjoint(named):
                raise TrainingError(
                    f"none of the {len(rows)} clips of {name} has a class that training knows (the first: "
                    f"{str(given[0])!r}); clips of other classes belong to split 'unknown', or pass --label none"
                )
        if len(part.val) and values is not None and not np.isfinite(values[part.val]).any():
            raise TrainingError(
                f"none of the {len(part.val)} validation clips has a target {target!r}: nothing can choose the "
                "best epoch; fill the column, leave those clips out of split 'val', or pass --target none"
            )
        if len(part.val) and target is None and known is not None and not (table.labels[part.val] != "").any():
            raise TrainingError(
                f"none of the {len(part.val)} validation clips has a label: nothing can choose the best epoch; "
                "check the manifest's split and label columns"
            )
