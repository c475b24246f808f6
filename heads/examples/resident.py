"""Features where there is room for them, and what a head is called with for some of their rows.

They lie on the training device, or in the memory of the host if they do not fit: then each batch is gathered there and
moved. Normalisation is computed at the same place either way, so the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.copies import Copies
from reelbank.heads.examples.features import Features, load_features
from reelbank.heads.examples.normalization import Normalization
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.models.pooled import masked_mean, pooled_vector
from reelbank.store.description import readable
from reelbank.store.devices import free_bytes

HOST = torch.device("cpu")
FEATURES_SHARE = (
    0.5  # of a GPU's free memory that features may take: heads, their activations, evaluation need the rest
)
BLOCK_CLIPS = 64  # clips whose steps are held at once while pooled copies are made
EVALUATION_CLIPS = 1024  # clips per forward pass without gradients, for pooled vectors
EVALUATION_STEPS = 4096  # steps per forward pass without gradients, for sequences


@runtime_checkable
class IndexedHead(Protocol):
    """A head whose `forward(features, mask, step_index)` reads repeats of a stored step (B, S) by index."""

    takes_step_index: bool


@dataclass(frozen=True, kw_only=True)
class Resident:
    """Normalised features; batches are index gathers, given on the training device.

    `arrays` {key: (N, T, D)}: normalised float32 if pooled (T = 1), else as stored and normalised per batch.
    `step_index` (N, S): the steps that a batch reads of each clip, None: all of them; `mask` is then (N, S).
    Both lie on `home`, all else on the training device.
    """

    arrays: Mapping[str, Tensor]
    mask: Tensor
    normalization: Normalization
    step_index: Tensor | None = None
    copies: Copies | None = None

    @classmethod
    def load(
        cls, features: Features, normalization: Normalization, device: torch.device, home: torch.device | None = None
    ) -> Resident:
        """`features` for training on `device`; their arrays lie on `home`, by default there too."""
        home = home or device
        arrays = features.arrays
        if features.mask.shape[1] == 1 and not features.unit_steps:
            arrays = normalization.to(HOST).apply(arrays, features.mask)  # on the host: it takes twice their room
        return cls(
            arrays={key: array.to(home) for key, array in arrays.items()},
            mask=features.mask.to(device),
            normalization=normalization.to(device),
            step_index=None if features.step_index is None else features.step_index.to(home),
        )

    @property
    def home(self) -> torch.device:
        """Where `arrays` lie."""
        return next(iter(self.arrays.values())).device

    @property
    def index_device(self) -> torch.device:
        """Where `batch` reads the index: one that lies there makes it wait for nothing."""
        return HOST if self.copies is not None else self.home

    def batch(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Features {key: (B, T, D)} float32 and mask (B, T) of the rows at `index` (B,), which may lie anywhere."""
        return self._stored(index) if self.copies is None else self.copies.batch(self._stored, index, self._num_steps)

    def inputs(self, head: nn.Module, index: Tensor) -> tuple[Any, ...]:
        """What `head` is called with for the rows at `index`: those of `batch`, or each stored step once and an index.

        The latter where the head takes it, on a CPU (a GPU adds the gradients of repeated steps in any order) and
        unless features are augmented, which changes every repeat of a step by itself.
        """
        made = self.copies is not None and self.copies.augmentations
        if self.step_index is None or made or not isinstance(head, IndexedHead) or self.mask.device.type != "cpu":
            return self.batch(index)
        stored = {key: array[index] for key, array in self.arrays.items()}
        any_step = self.mask.new_ones(1).expand(len(index), next(iter(stored.values())).shape[1])
        return self.normalization.apply(stored, any_step), self.mask[index], self.step_index[index]

    def logits(self, head: nn.Module, index: Tensor) -> dict[str, Tensor]:
        """What `head` says of the rows at `index`: {output: (n, K)}."""
        found: dict[str, Tensor] = head(*self.inputs(head, index))
        return found

    @property
    def device(self) -> torch.device:
        """The training device."""
        return self.mask.device

    def _stored(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        mask, index = self.mask.index_select(0, moved(index, self.mask.device)), moved(index, self.home)
        if self.step_index is None:
            arrays = {key: array.index_select(0, index) for key, array in self.arrays.items()}
        else:
            clips, steps = index.unsqueeze(1), self.step_index.index_select(0, index)  # (B, 1), (B, S)
            arrays = {key: array[clips, steps] for key, array in self.arrays.items()}
        arrays = {key: moved(array, mask.device) for key, array in arrays.items()}
        return (arrays if mask.shape[1] == 1 else self.normalization.apply(arrays, mask)), mask

    @cached_property
    def _num_steps(self) -> list[int]:
        """Valid steps of every row."""
        counts: list[int] = self.mask.sum(dim=1).tolist()
        return counts

    def vectors(self) -> Tensor:
        """The pooled vectors (N, D) of all clips on `home`, taps side by side in sorted order; only where T = 1."""
        return self._vectors

    @cached_property
    def _vectors(self) -> Tensor:
        if len(self.arrays) == 1:  # no copy: a pooled clip has its one step
            (array,) = self.arrays.values()
            return array[:, 0]
        return pooled_vector(self.arrays, self.mask.to(self.home))

    @property
    def evaluation_clips(self) -> int:
        """Clips that a forward pass without gradients takes at once."""
        num_steps = self.mask.shape[1]
        return EVALUATION_CLIPS if num_steps == 1 else max(1, EVALUATION_STEPS // num_steps)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`, without a wait: the driver has read pageable memory of the host when the call returns."""
    return tensor if tensor.device == device else tensor.to(device, non_blocking=device.type != "cpu")


def home_of(num_bytes: int, device: torch.device) -> tuple[torch.device, str]:
    """Where features of `num_bytes` lie while `device` trains on them, and a sentence if they do not fit there."""
    free = None if device.type == "cpu" else free_bytes(str(device))
    if free is None or num_bytes <= FEATURES_SHARE * free:
        return device, ""
    return HOST, (
        f"The features take {readable(num_bytes)} and {device} has {readable(free)} free, {FEATURES_SHARE:.0%} of it "
        "for features: they stay in the memory of the host, and each batch is moved."
    )


def pooled_copies(
    copies: Copies, table: ClipTable, config: FeaturesConfig, normalization: Normalization, train: np.ndarray
) -> dict[str, Tensor]:
    """The augmented copies of the clips `train` as normalised means over time, {key: (N A, 1, D)}; others are 0."""
    made: dict[str, Tensor] = {}
    for start in range(0, len(train), BLOCK_CLIPS):
        clips = train[start : start + BLOCK_CLIPS]
        features = load_features(table.take(clips), needs_steps=True, view=config.view, segments=config.segment_rule())
        block = Resident.load(features, normalization, HOST)
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
