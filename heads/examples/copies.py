"""More training rows from the same clips: stored views and feature augmentation.

N clips become rows 0 .. N B - 1: row r is copy r // N of clip r % N. Copy 0 is the clip itself, then come the other
stored views, then one copy per augmentation. Validation and test read rows below N only. Labels belong to clips.
Statistics of the normalisation are those of the clips themselves, so that they do not depend on what is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reelbank.heads.augmentation import Augmentation
from reelbank.heads.examples.features import StoredView
from reelbank.heads.features_config import FeaturesConfig

Stored = Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which copies a training reads.

    Attributes:
        num_clips: N.
        views: the stored views after the first.
        augmentations: one copy each.
        clip_ids: (N,) str: what a copy is seeded by, with `seed`.
        draws: a clip is one row, in one of `views` that each epoch draws; otherwise every view is a row.
    """

    num_clips: int
    views: tuple[StoredView, ...]
    augmentations: tuple[Augmentation, ...]
    clip_ids: np.ndarray
    seed: int
    draws: bool = False

    @property
    def num_stored(self) -> int:
        """Rows below this one lie in the store: N (1 + views)."""
        return self.num_clips * (1 + len(self.views))

    def rows(self, clips: np.ndarray) -> np.ndarray:
        """The training rows of `clips`: themselves first, then copy by copy."""
        parts = [clips]
        for place, view in enumerate(() if self.draws else self.views, start=1):
            parts.append(place * self.num_clips + clips[view.has[clips]])
        for place in range(len(self.augmentations)):
            parts.append(self.num_stored + place * self.num_clips + clips)
        return np.concatenate(parts)

    def drawn(self, rows: Tensor) -> Tensor:
        """`rows` (n,) with each clip in one of the views that it has, from torch's global generator as it stands."""
        if not self.draws:
            return rows
        chances = torch.rand(len(rows), dtype=torch.float64)
        has = torch.from_numpy(np.stack([view.has for view in self.views], axis=1))  # (N, V)
        of_rows = has[rows % self.num_clips]
        number = (chances * of_rows.sum(dim=1)).long()  # which of those it has
        place = (of_rows.cumsum(dim=1) == (number + 1).unsqueeze(1)).int().argmax(dim=1)
        changed = (rows < self.num_clips) & of_rows.any(dim=1)
        return torch.where(changed, rows + (place + 1) * self.num_clips, rows)

    def batch(self, stored: Stored, index: Tensor, num_steps: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        """Features and mask of the rows at `index` (B,); an index on the host makes no GPU wait.

        Args:
            stored: reads normalised rows below `num_stored`.
            num_steps: valid steps of every clip.
        """
        arrays, mask = stored(torch.where(index >= self.num_stored, index % self.num_clips, index))
        for place, row in enumerate(index.tolist()):
            if row < self.num_stored:
                continue
            number, clip = divmod(row - self.num_stored, self.num_clips)
            for array in arrays.values():
                array[place, : num_steps[clip]] = self.copy(array[place, : num_steps[clip]], number, clip)
        return arrays, mask

    def copy(self, values: Tensor, number: int, clip: int) -> Tensor:
        """Augmentation `number` of the steps (T, D) of a clip."""
        return self.augmentations[number].copy_of(values, str(self.clip_ids[clip]), self.seed)

    def sentence(self, train: np.ndarray) -> str:
        """How many training rows there are, and of what."""
        if self.draws:
            made = f" and copies ({', '.join(a.text for a in self.augmentations)})" if self.augmentations else ""
            return f"Each epoch reads a training clip in one of {len(self.views)} stored views{made}."
        kinds = [f"stored view {view.number}" for view in self.views] + [a.text for a in self.augmentations]
        return f"{len(self.rows(train))} training rows: {len(train)} clips and their copies ({', '.join(kinds)})."


def copies_of(config: FeaturesConfig, clip_ids: np.ndarray, views: tuple[StoredView, ...], seed: int) -> Copies | None:
    """The copies that `config` asks for; None for none.

    Args:
        clip_ids: (N,) str.
        views: stored views that training reads beside its own, see `reelbank.heads.examples.features.other_views`.
    """
    made = config.augmentations
    if not views and not made:
        return None
    return Copies(
        num_clips=len(clip_ids), views=views, augmentations=made, clip_ids=clip_ids, seed=seed,
        draws=config.train_views == "draw",
    )  # fmt: skip


def draw_weights(labels: Mapping[str, np.ndarray], balance: str, clips: np.ndarray) -> np.ndarray | None:
    """How often each row of an epoch is drawn, float64 (n,), sum 1; None where each is taken once.

    Args:
        labels: {`class`, `group`: str (N,)}.
        clips: the clip of each training row (n,).
    """
    if balance == "none":
        return None
    _, numbers, counts = np.unique(labels[balance][clips], return_inverse=True, return_counts=True)
    weights: np.ndarray = 1.0 / counts[numbers]
    weights /= weights.sum()
    return weights
