"""From a configuration to the trainings it asks for: clips, features, parts, labels.

`prepare` reads the stores once; `reelbank.heads.training.job` makes the trainings from it. Nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reelbank.heads.config import NO_RUN, TrainConfig
from reelbank.heads.defaults import resolved, sentence
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.array_features import SEGMENTS, Arrays, arrays_of
from reelbank.heads.examples.batches import ArrayBatches
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.copies import Copies, copies_of
from reelbank.heads.examples.features import NO_FEATURES, Features
from reelbank.heads.examples.label_sets import matrix
from reelbank.heads.examples.labelling import label_clips
from reelbank.heads.examples.resident import Resident
from reelbank.heads.examples.splits import Partition
from reelbank.heads.examples.targets import Bins, class_numbers
from reelbank.heads.models import HeadShape, build_head
from reelbank.heads.models.plans import HeadPlan
from reelbank.heads.models.start import CHECKPOINT, Start, begun_with, start_of
from reelbank.manifests.events import Progress
from reelbank.store.description import random_weights_warning
from reelbank.store.devices import unseen_gpu
from reelbank.store.files import regular


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What all trainings of a run share.

    Attributes:
        groups: `effective_groups` of the clips (N,).
        labels: class names in the order of the logits; None without a class output.
        bins: of the target; None without a target output.
        notes: sentences for the report.
        copies: more training rows of the same clips; None: each clip once.
        home: where the features lie in training; None: on `device`.
        arrays, start: of a head that reads arrays: what it reads, and what it begins with (in the first partition). Its
            `features` are none.
        begun: {fold: runs that its training begins with}.
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
    home: torch.device | None = None
    arrays: Arrays | None = None
    start: Start | None = None
    begun: Mapping[int | None, tuple[Path, ...]] = field(default_factory=dict)

    def start_of(self, partition: Partition) -> Start:
        """What the head begins with in `partition`; with folds each begins with its own fold of earlier runs."""
        config, runs = self.config.head, self.begun[partition.fold]
        if self.start is not None and runs == self.begun[self.partitions[0].fold]:
            return self.start
        assert config.plan is not None
        records = {name: source.store.spec.weights for source in self.table.sources for name in source.keys}
        named = [path for source in self.table.sources if (path := source.store.weights_asked) is not None]
        return start_of(
            config.plan, self.shape, records, config.options, runs, head_name=config.name, modules=self.modules,
            named=named,
        )  # fmt: skip

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
        if self.arrays is not None:
            return HeadShape(taps={}, outputs=outputs, num_steps=0, arrays=self.arrays.shapes)
        return HeadShape(taps=self.features.sizes, outputs=outputs, num_steps=self.features.mask.shape[1])

    def resident(self, train: np.ndarray) -> Resident | ArrayBatches:
        """The features for training on the device, with copies, normalised by the clips `train` (int64)."""
        if self.arrays is not None:
            return self.arrays.batches(
                self.device,
                evaluation_clips=self.config.optimizer.batch,
                segments=int(self.config.head.options.get(SEGMENTS, 1)),
                copies=self.copies,
                hold_as=self.cache.held,
            )
        home = self.home or self.device
        return self.cache.resident(self.features, self.table, self.copies, self.config, train, self.device, home)

    @cached_property
    def class_numbers(self) -> np.ndarray:
        """The class of every clip as a place in `labels`, int64 (N,); -1 for one that training never saw."""
        return class_numbers(self.table.labels.tolist(), self.labels or ())

    @cached_property
    def label_sets(self) -> np.ndarray | None:
        """Which clip has which of `labels`, bool (N, K), of no use where `table.labels` is empty; None where clips have
        one label.
        """
        if self.config.separator is None or self.labels is None:
            return None
        return matrix(self.table.labels.tolist(), self.labels, self.config.separator)

    @property
    def modules(self) -> frozenset[str]:
        """Names of the modules of the head."""
        with torch.random.fork_rng(devices=[]), torch.device("meta" if self.config.head.plugin is None else "cpu"):
            head = build_head(self.config.head.name, self.shape, self.config.head.options)
        return frozenset(name for name, _ in head.named_modules())

    @cached_property
    def num_parameters(self) -> int:
        """Trained parameters of the head; no memory is taken for them, but a plug-in's head is built and tried. 0 of a
        fitted head, of which nobody knows before.
        """
        if self.config.head.is_fitted:
            return 0
        with torch.random.fork_rng(devices=[]), torch.device("meta" if self.config.head.plugin is None else "cpu"):
            head = build_head(self.config.head.name, self.shape, self.config.head.options)
        stage = self.config.head.trained_stage
        return sum(
            parameter.numel()
            for name, parameter in head.named_parameters()
            if (parameter.requires_grad if stage is None else stage.group_of(name) is not None)
        )

    @cached_property
    def warning(self) -> str:
        """What every file, page and message of a run on an untrained backbone says; empty for a real one."""
        sources = self.table.sources
        named = [s.store.spec.backbone for s in sources if s.store.weights_are_random]
        return random_weights_warning([*named, *(() if self.start is None else self.start.random_backbones)])

    @property
    def weights_are_random(self) -> bool:
        """Whether any of the backbones was never trained."""
        return bool(self.warning)

    @cached_property
    def counts(self) -> dict[str, Any]:
        """Clips of each part and what is left out, as JSON types."""
        first = self.partitions[0]
        sizes = {name: len(getattr(first, name)) for name in ("train", "val", "test", "unknown")}
        if first.fold is not None:
            for name in ("test", "unknown"):
                sizes[name] = sum(len(getattr(part, name)) for part in self.partitions)
        groups = set(self.table.groups.tolist()) - {""}
        return {
            "clips": len(self.table),
            **sizes,
            "classes": 0 if self.labels is None else len(self.labels),
            "groups": len(groups) or None,
            "left_out": [{"reason": reason, "count": count} for reason, count in self.table.left_out],
        }

    @cached_property
    def description(self) -> dict[str, Any]:
        """What config.json says beside the format: the configuration, its stores, classes, bins, counts, notes."""
        return {
            "config": self.config.to_json(),
            "stores": self.table.describe(),
            "weights_are_random": self.weights_are_random,
            "warning": self.warning,
            "labels": None if self.labels is None else list(self.labels),
            "bins": None if self.bins is None else self.bins.to_json(),
            "num_parameters": self.num_parameters,
            "counts": self.counts,
            "data_digest": self.data_digest(),
            "notes": list(self.notes),
        }

    def data_digest(self) -> str:
        """sha256 over what the clips are and how they are labelled: a resumed run must find the same."""
        digest = hashlib.sha256()
        for store in (source.store for source in self.table.sources):
            digest.update(store.spec_digest.encode())
        for readings in (source.readings for source in self.table.sources if source.readings):
            digest.update(repr(sorted(readings.items())).encode())
        for column in (self.table.clip_ids, self.table.splits, self.table.labels, self.table.groups):
            digest.update("\x1f".join(column.tolist()).encode())
        if self.target_values is not None:
            digest.update(self.target_values.tobytes())
        for run in sorted({run for runs in self.begun.values() for run in runs}):
            with regular(run / CHECKPOINT).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
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
    said, config = sentence(config), resolved(config)
    device = torch.device(config.run.device_here)
    cache = cache or FeatureCache()
    table, parts = cache.clips(config)
    labelling = label_clips(config.data, config.objective, table, parts, separator=config.separator)
    plan, arrays = config.head.plan, None
    if plan is None:
        features = cache.features(table, config, progress)
    else:
        features, arrays = NO_FEATURES, arrays_of(table, plan, config.features, config.run.memory)
    views = features.views if arrays is None else arrays.views
    copies = copies_of(config.features, table.clip_ids, views, config.seed)
    notes = [*([said] if said else []), *parts.notes, *labelling.notes]
    if device.type == "cpu" and (unseen := unseen_gpu()):
        notes.append(f"{unseen[0].upper()}{unseen[1:]}.")
    if config.features.train_clips:
        notes.append(f"At most {config.features.train_clips} training clips were used (--train-clips).")
    if copies is not None:
        notes.append(copies.sentence(parts.partitions[0].train))
    home = None
    if arrays is None:
        needs_steps, made = config.head.needs_steps, len(copies.augmentations) if copies is not None else 0
        num_bytes = features.num_bytes(needs_steps=needs_steps, more_rows=made * len(table))
        home, note = cache.home(features, num_bytes, device)
        if note:
            notes.append(note)
    else:
        notes += arrays.notes()
    prepared = Prepared(
        config=config,
        table=table,
        features=features,
        groups=parts.groups,
        partitions=parts.partitions,
        labels=labelling.labels,
        bins=labelling.bins,
        notes=(*notes, *table.notes(), *features.notes(table)),
        device=device,
        cache=cache,
        copies=copies,
        home=home,
        arrays=arrays,
    )
    return prepared if plan is None else with_start(prepared, plan)


def with_start(prepared: Prepared, plan: HeadPlan) -> Prepared:
    """`prepared` with what its head begins with.

    Raises what `start_of` raises, and TrainingError for a run that is not given, or that trained what is reported here.
    """
    config, stage = prepared.config.head, prepared.config.head.trained_stage
    assert stage is not None
    if stage.starts_from and not config.init_from:
        wanted = " and ".join(f"a run of {head}{f', stage {name}' if name else ''}" for head, name in stage.starts_from)
        raise TrainingError(
            f"--stage {stage.name} of head {config.name!r} starts from {wanted}: give it as --init-from RUN, or "
            f"--init-from {NO_RUN} to start without"
        )
    begun = {}
    for partition in prepared.partitions:
        reported = partition.val if partition.val_is_reported or not len(partition.test) else partition.test
        clips = prepared.table.clip_ids[reported].tolist()
        begun[partition.fold] = tuple(begun_with(run, partition.fold, clips) for run in config.init_runs)
    prepared = replace(prepared, begun=begun)
    start = prepared.start_of(prepared.partitions[0])
    meant = {head: name for head, name in stage.starts_from if name}
    notes = [*prepared.notes, *_about_frames(prepared, plan)]
    for run, head, name in start.runs:
        aside = f"; this stage is meant to start from stage {meant[head]}" if name != meant.get(head, name) else ""
        notes.append(f"Starts from {run} ({head}, stage {name}{aside}).")
    return replace(prepared, start=start, notes=tuple(notes))


def _about_frames(prepared: Prepared, plan: HeadPlan) -> list[str]:
    """Why a head runs the frozen part of its backbone itself, where it reads frames."""
    said: list[str] = []
    stage = prepared.config.head.trained_stage
    for rest in plan.rests:
        first = f"{rest.module}.conv1.weight"  # of a network whose first layer is trained nothing could be stored
        if stage is not None and stage.group_of(first) is not None:
            continue
        read = prepared.shape.arrays[rest.input]
        wanted, tap = next(one for one in plan.inputs if one.name == rest.input).taps[0]
        if read.backbone == rest.backbone or not read.backbone.startswith("frames"):
            continue
        why = "maps of layer2 and before take more bytes than a frame of 224 x 224"
        if wanted == rest.backbone:
            why = f"a store of {wanted}/{tap} would spare that"
        said.append(f"Of stored frames {rest.backbone} is run inside the head, its frozen part too: {why}.")
    return said
