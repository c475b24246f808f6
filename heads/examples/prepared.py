"""From a configuration to the trainings it asks for: clips, features, parts, labels.

`prepare` reads the stores once; `reelbank.heads.training.job` makes the trainings from it. Nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from reelbank.heads.config import DataConfig, ObjectiveConfig, TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.events import Progress
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.clips import ClipTable, Features
from reelbank.heads.examples.copies import Copies, copies_of
from reelbank.heads.examples.splits import Partition, thinned
from reelbank.heads.examples.targets import DEFAULT_RANGES, Bins, make_bins, vocabulary
from reelbank.heads.models import HeadShape
from reelbank.store.devices import resolve_device


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What all trainings of a run share.

    Attributes:
        groups: `effective_groups` of the clips (N,).
        labels: class names in the order of the logits; None without a class output.
        bins: of the target; None without a target output.
        notes: sentences for the report.
        copies: more training rows of the same clips; None: each clip once.
    """

    config: TrainConfig
    table: ClipTable
    features: Features
    groups: np.ndarray
    partitions: tuple[Partition, ...]
    labels: tuple[str, ...] | None
    bins: Bins | None
    notes: tuple[str, ...]
    device: torch.device
    cache: FeatureCache
    copies: Copies | None = None

    @property
    def target_values(self) -> np.ndarray | None:
        """The target of every clip, float64 (N,), NaN where empty; None without a target output."""
        return None if self.bins is None else self.table.targets[self.bins.target]

    @property
    def shape(self) -> HeadShape:
        """The sizes of the head."""
        outputs = {}
        if self.labels is not None:
            outputs["label"] = len(self.labels)
        if self.bins is not None:
            outputs["target"] = self.bins.num_bins
        return HeadShape(taps=self.features.sizes, outputs=outputs, num_steps=self.features.mask.shape[1])

    def data_digest(self) -> str:
        """sha256 over what the clips are and how they are labelled: a resumed run must find the same."""
        digest = hashlib.sha256()
        for store in (source.store for source in self.table.sources):
            digest.update(store.spec_digest.encode())
        for column in (self.table.clip_ids, self.table.splits, self.table.labels, self.table.groups):
            digest.update("\x1f".join(column.tolist()).encode())
        if self.target_values is not None:
            digest.update(self.target_values.tobytes())
        return digest.hexdigest()


def prepare(config: TrainConfig, progress: Progress | None = None, cache: FeatureCache | None = None) -> Prepared:
    """Reads the stores of `config` and decides parts, classes and bins.

    Args:
        config: what to train.
        progress: called while features are read.
        cache: where trainings of one process or one sweep keep what they share.

    Raises:
        DeviceError: a device that is not here.
        TrainingError: whatever in the stores does not fit the configuration; the message says what to change.
        StoreError: a path that is no store, or a column it does not hold.
    """
    device = torch.device(resolve_device(config.run.device))
    cache = cache or FeatureCache()
    table = cache.table(config.data, config.features)
    groups, partitions = cache.parts(config)
    target = _target_name(config.data, table)
    if target is not None:
        _require_targets(
            config.objective, table, target, np.unique(np.concatenate([part.train for part in partitions]))
        )
    if config.features.train_clips:
        partitions = tuple(
            replace(part, train=thinned(part.train, table.labels, config.features.train_clips, config.seed))
            for part in partitions
        )
    # With folds every known clip trains some fold: one vocabulary, so that the predictions can be pooled.
    trained = np.unique(np.concatenate([part.train for part in partitions]))
    notes = list(dict.fromkeys(note for part in partitions for note in part.notes))
    bins = None
    if target is not None:
        bins = make_bins(
            target,
            table.targets[target][trained],
            num_bins=config.objective.bins,
            value_range=config.objective.range,
            sigma_bins=config.objective.sigma,
            labels=config.objective.target_labels,
        )
    notes += _untrained_classes(table, partitions)
    labels = _vocabulary(config.data, table, trained, has_target=target is not None, notes=notes)
    copies = copies_of(config.features, table, config.seed)
    features = cache.features(table, config, progress)
    if config.features.train_clips:
        notes.append(f"At most {config.features.train_clips} training clips were used (--train-clips).")
    if copies is not None:
        notes.append(copies.sentence(partitions[0].train))
    notes += _notes_about_clips(table)
    prepared = Prepared(
        config=config,
        table=table,
        features=features,
        groups=groups,
        partitions=partitions,
        labels=labels,
        bins=bins,
        notes=(),
        device=device,
        cache=cache,
        copies=copies,
    )
    _require_usable_parts(prepared)
    return replace(prepared, notes=tuple(notes))


def _target_name(config: DataConfig, table: ClipTable) -> str | None:
    if config.target == "none":
        return None
    if config.target is None:
        return next(iter(table.targets), None)
    if config.target not in table.targets:
        found = ", ".join(sorted(table.targets)) or "none"
        raise TrainingError(
            f"--target {config.target}: the store has no such target column; it has {found}. "
            "Name it with --target-columns when the store is made"
        )
    return config.target


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


def _vocabulary(
    config: DataConfig, table: ClipTable, trained: np.ndarray, *, has_target: bool, notes: list[str]
) -> tuple[str, ...] | None:
    if config.label == "none":
        if not has_target:
            raise TrainingError("--label none needs a target column, and the store has none")
        return None
    labels = table.labels[trained]
    empty = int((labels == "").sum())
    if empty == len(labels) and has_target:
        notes.append("No training clip has a label: only the target is trained.")
        return None
    if 0 < empty < len(labels):
        raise TrainingError(
            f"{empty} of {len(labels)} training clips have no label; label them, or train on a target with --label none"
        )
    return vocabulary(labels.tolist())


def _untrained_classes(table: ClipTable, partitions: tuple[Partition, ...]) -> list[str]:
    """With folds, a class whose clips all share few groups may be missing in the training part of a fold."""
    notes = []
    for part in partitions if len(partitions) > 1 else ():
        missing = sorted(set(table.labels[part.test].tolist()) - set(table.labels[part.train].tolist()))
        if missing:
            names = ", ".join(map(repr, missing[:5]))
            notes.append(f"Fold {part.fold} is tested on {len(missing)} classes it never trains on ({names}).")
    return notes


def _notes_about_clips(table: ClipTable) -> list[str]:
    notes = [f"{count} clips are left out: {reason}." for reason, count in table.left_out]
    ungrouped = int((table.groups == "").sum())
    if ungrouped == len(table):
        notes.append("The manifest has no groups: parts are cut and intervals drawn by clip.")
    elif ungrouped:
        notes.append(f"{ungrouped} of {len(table)} clips have no group; each counts as its own.")
    return notes


def _require_usable_parts(prepared: Prepared) -> None:
    """Raises TrainingError for a part that cannot be judged: no class that training knows, no target to select by."""
    bins, values = prepared.bins, prepared.target_values
    for part in prepared.partitions:
        for name, rows in (("split 'test'", part.test), ("the validation part", part.val)):
            labels = prepared.table.labels[rows]
            given = labels[labels != ""]
            if prepared.labels is not None and len(given) and not np.isin(given, prepared.labels).any():
                raise TrainingError(
                    f"none of the {len(rows)} clips of {name} has a class that training knows (the first: "
                    f"{str(given[0])!r}); clips of other classes belong to split 'unknown', or pass --label none"
                )
        if bins is not None and values is not None and not np.isfinite(values[part.val]).any():
            raise TrainingError(
                f"none of the {len(part.val)} validation clips has a target {bins.target!r}: nothing can choose the "
                "best epoch; fill the column, leave those clips out of split 'val', or pass --target none"
            )
        if bins is None and prepared.labels is not None and not (prepared.table.labels[part.val] != "").any():
            raise TrainingError(
                f"none of the {len(part.val)} validation clips has a label: nothing can choose the best epoch; "
                "check the manifest's split and label columns"
            )


def describe_sources(table: ClipTable) -> list[Mapping[str, Any]]:
    """One entry per store for config.json: where it is and what made its features."""
    return [
        {
            "path": str(source.store.path),
            "backbone": source.store.spec.backbone,
            "weights": dict(source.store.spec.weights),
            "weights_are_random": source.store.weights_are_random,
            "spec": source.store.spec.to_json(),
            "spec_digest": source.store.spec_digest,
            "taps": sorted(source.keys.values()),
            "keys": dict(source.keys),
        }
        for source in table.sources
    ]
