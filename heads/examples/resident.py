"""Features on the training device, and what a head is called with for some of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from reelbank.heads.config import FeaturesConfig
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.copies import Copies
from reelbank.heads.examples.features import Features, load_features
from reelbank.heads.examples.normalization import Normalization
from reelbank.heads.models.pooled import masked_mean, pooled_vector

BLOCK_CLIPS = 64  # clips whose steps are held at once while pooled copies are made
EVALUATION_CLIPS = 1024  # clips per forward pass without gradients, for pooled vectors
EVALUATION_STEPS = 4096  # steps per forward pass without gradients, for sequences


@runtime_checkable
class IndexedHead(Protocol):
    """A head whose `forward(features, mask, step_index)` reads repeats of a stored step (B, S) by index."""

    takes_step_index: bool


@dataclass(frozen=True, kw_only=True)
class Resident:
    """Normalised features on the training device; batches are index gathers.

    `arrays` {key: (N, T, D)}: normalised float32 if pooled (T = 1), else as stored and normalised per batch.
    `step_index` (N, S): the steps that a batch reads of each clip, None: all of them; `mask` is then (N, S).
    """

    arrays: Mapping[str, Tensor]
    mask: Tensor
    normalization: Normalization
    step_index: Tensor | None = None
    copies: Copies | None = None

    @classmethod
    def load(cls, features: Features, normalization: Normalization, device: torch.device) -> Resident:
        """Moves `features` to `device`."""
        mask, normalization = features.mask.to(device), normalization.to(device)
        arrays = {key: array.to(device) for key, array in features.arrays.items()}
        if mask.shape[1] == 1 and not features.unit_steps:
            arrays = normalization.apply(arrays, mask)
        index = None if features.step_index is None else features.step_index.to(device)
        return cls(arrays=arrays, mask=mask, normalization=normalization, step_index=index)

    def batch(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Features {key: (B, T, D)} float32 and mask (B, T) of the rows at `index` (B,)."""
        return self._stored(index) if self.copies is None else self.copies.batch(self._stored, index)

    def inputs(self, head: nn.Module, index: Tensor) -> tuple[Any, ...]:
        """What `head` is called with for the rows at `index`: those of `batch`, or each stored step once and an index.

        The latter where the head takes it, on a CPU (a GPU adds the gradients of repeated steps in any order) and
        unless features are augmented, which changes every repeat of a step by itself.
        """
        made = self.copies is not None and self.copies.augmentations
        if self.step_index is None or made or not isinstance(head, IndexedHead) or index.device.type != "cpu":
            return self.batch(index)
        stored = {key: array[index] for key, array in self.arrays.items()}
        any_step = self.mask.new_ones(1).expand(len(index), next(iter(stored.values())).shape[1])
        return self.normalization.apply(stored, any_step), self.mask[index], self.step_index[index]

    def _stored(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        mask = self.mask[index]
        if self.step_index is None:
            arrays = {key: array[index] for key, array in self.arrays.items()}
        else:
            clips, steps = index.unsqueeze(1), self.step_index[index]  # (B, 1), (B, S)
            arrays = {key: array[clips, steps] for key, array in self.arrays.items()}
        return (arrays if mask.shape[1] == 1 else self.normalization.apply(arrays, mask)), mask

    def vectors(self) -> Tensor:
        """The pooled vectors (N, D) of all clips, taps side by side in sorted order; only where T = 1."""
        if len(self.arrays) == 1:  # no copy: a pooled clip has its one step
            (array,) = self.arrays.values()
            return array[:, 0]
        return pooled_vector(self.arrays, self.mask)

    def evaluation_parts(self, index: Tensor) -> Iterator[Tensor]:
        """`index` cut into parts that fit a forward pass without gradients."""
        num_steps = self.mask.shape[1]
        size = EVALUATION_CLIPS if num_steps == 1 else max(1, EVALUATION_STEPS // num_steps)
        return iter(torch.split(index, size))


def pooled_copies(
    copies: Copies, table: ClipTable, config: FeaturesConfig, normalization: Normalization, train: np.ndarray
) -> dict[str, Tensor]:
    """The augmented copies of the clips `train` as normalised means over time, {key: (N A, 1, D)}; others are 0."""
    made: dict[str, Tensor] = {}
    for start in range(0, len(train), BLOCK_CLIPS):
        clips = train[start : start + BLOCK_CLIPS]
        features = load_features(table.take(clips), needs_steps=True, view=config.view, segments=config.segment_rule())
        block = Resident.load(features, normalization, torch.device("cpu"))
        arrays, mask = block.batch(torch.arange(len(clips)))
        for key, array in arrays.items():
            if key not in made:
                made[key] = torch.zeros(len(copies.augmentations) * copies.num_clips, 1, array.shape[2])
            for place, clip in enumerate(clips.tolist()):
                steps = array[place, : int(mask[place].sum())]
                for number in range(len(copies.augmentations)):
                    copy = copies.copy(steps, number, clip).unsqueeze(0)
                    valid = torch.ones(1, copy.shape[1], dtype=torch.bool)
                    made[key][number * copies.num_clips + clip, 0] = masked_mean(copy, valid)[0]
    return made
