"""What one training needs: the features on its device, the labels, the rows; made from what is prepared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from reelbank.heads.config import TrainConfig
from reelbank.heads.examples.batches import ArrayBatches
from reelbank.heads.examples.copies import Copies, draw_weights
from reelbank.heads.examples.labelling import LARGEST_TARGET
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.examples.resident import Resident
from reelbank.heads.examples.splits import Partition
from reelbank.heads.examples.targets import balanced_weights, class_distributions
from reelbank.heads.models import HeadShape
from reelbank.heads.models.plans import Stage
from reelbank.heads.models.start import Start


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the clips are labelled with, on the training device.

    Attributes:
        classes: int64 (N,), -1 where there is no known class; None without a class output.
        class_weights: float32 (K,) or None.
        sets: float32 (N, K), 1 where a clip has a label, instead of `classes`; None where clips have one label.
        labelled: bool (N,), of which clips `sets` says something; with `sets`.
        values: float32 (N,) targets, NaN where empty; None without a target output.
        distributions: float32 (N, K) softened targets (zeros where empty).
        bin_values: float32 (K,).
        num_clips: N where training rows are copies of clips: row r has the labels of clip r % N; 0: rows are clips.
    """

    classes: Tensor | None = None
    class_weights: Tensor | None = None
    sets: Tensor | None = None
    labelled: Tensor | None = None
    values: Tensor | None = None
    distributions: Tensor | None = None
    bin_values: Tensor | None = None
    num_clips: int = 0

    def accuracy(self, logits: Mapping[str, Tensor], index: Tensor) -> Tensor:
        """Share of the clips at `index` whose class has the highest logit, scalar; NaN without a class output."""
        if self.classes is None:
            return torch.full((), math.nan, device=index.device)
        index = index % self.num_clips if self.num_clips else index
        return (logits["label"].detach().argmax(dim=1) == self.classes[index]).float().mean()

    _rows: dict[tuple[int, float], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def class_rows(self, num_classes: int, smoothing: float) -> Tensor:
        """Row k is the label distribution of class k, float32 (K, K); made once."""
        assert self.classes is not None
        key = (num_classes, smoothing)
        if key not in self._rows:
            numbers = torch.arange(num_classes, device=self.classes.device)
            self._rows[key] = class_distributions(numbers, num_classes, smoothing)
        return self._rows[key]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything one training needs; several jobs may share `resident`."""

    config: TrainConfig
    shape: HeadShape
    resident: Resident | ArrayBatches
    labels: Labels
    train: np.ndarray
    val: np.ndarray
    fold: int | None
    device: torch.device
    draw_weights: np.ndarray | None = None
    start: Start | None = None
    copies: Copies | None = None

    @property
    def stage(self) -> Stage | None:
        """What is trained; None: all of the head."""
        return self.config.head.trained_stage


def stream_seed(*path: int) -> int:
    """A seed for one purpose, from the run's seed and what it is for; streams do not overlap."""
    return int(np.random.SeedSequence(path).generate_state(1, np.uint64)[0] >> 1)


def make_job(prepared: Prepared, partition: Partition) -> Job:
    """The training of one partition of `prepared`."""
    labels = _labels_on_device(prepared, partition)
    rows = partition.train if prepared.copies is None else prepared.copies.rows(partition.train)
    names = {"class": prepared.table.labels, "group": prepared.groups}
    weights = draw_weights(names, prepared.config.features.balance, rows % len(prepared.table))
    return Job(
        config=prepared.config,
        shape=prepared.shape,
        resident=prepared.resident(partition.train),
        labels=labels,
        train=rows,
        val=partition.val,
        fold=partition.fold,
        device=prepared.device,
        draw_weights=weights,
        start=prepared.start_for(partition),
        copies=prepared.copies,
    )


def _labels_on_device(prepared: Prepared, partition: Partition) -> Labels:
    source = _label_source(prepared, partition)
    entries: dict[str, torch.Tensor] = {}
    if prepared.label_sets is not None:
        entries["sets"] = torch.from_numpy(prepared.label_sets[source].astype(np.float32))
        entries["labelled"] = torch.from_numpy(prepared.table.labels[source] != "")
    elif prepared.labels is not None:
        numbers = prepared.class_numbers[source]
        entries["classes"] = torch.from_numpy(numbers)
        if prepared.config.objective.class_weights == "balanced":
            weights = balanced_weights(numbers[partition.train], len(prepared.labels))
            entries["class_weights"] = torch.from_numpy(weights)
    if prepared.bins is not None:
        assert prepared.target_values is not None
        values = prepared.target_values[source]
        known = np.isfinite(values)
        distributions = np.zeros((len(values), prepared.bins.num_bins), dtype=np.float32)
        distributions[known] = prepared.bins.distributions(values[known])
        # A clip that is only judged may have any value.
        entries["values"] = torch.from_numpy(np.clip(values, -LARGEST_TARGET, LARGEST_TARGET).astype(np.float32))
        entries["distributions"] = torch.from_numpy(distributions)
        entries["bin_values"] = torch.from_numpy(prepared.bins.values().astype(np.float32))
    num_clips = 0 if prepared.copies is None else prepared.copies.num_clips
    return Labels(num_clips=num_clips, **{name: tensor.to(prepared.device) for name, tensor in entries.items()})


def _label_source(prepared: Prepared, partition: Partition) -> np.ndarray:
    """For each clip the clip whose labels it is trained with: itself, unless labels are shuffled."""
    source = np.arange(len(prepared.table))
    if prepared.config.data.shuffle_labels:
        random = np.random.default_rng(stream_seed(prepared.config.seed, partition.fold or 0, 1 << 40))
        source[partition.train] = random.permutation(partition.train)
        if not partition.val_is_reported:
            source[partition.val] = random.permutation(partition.val)
    return source
