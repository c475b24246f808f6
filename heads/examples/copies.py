"""More training rows from the same clips: stored views and feature augmentation.

N clips become rows 0 .. N B - 1: row r is copy r // N of clip r % N. Copy 0 is the clip itself, then come the other
stored views, then one copy per augmentation. Validation and test read rows below N only. Labels belong to clips.
Statistics of the normalisation are those of the clips themselves, so that they do not depend on what is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from reelbank.heads import augmentation
from reelbank.heads.augmentation import Augmentation
from reelbank.heads.config import FeaturesConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.events import Progress
from reelbank.heads.examples.clips import ClipTable, Features, load_features

Stored = Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]


@dataclass(frozen=True, kw_only=True)
class StoredView:
    """A view that training reads beside its own; `has` (N,) bool says of which clips it is stored."""

    number: int
    has: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which copies a training reads.

    Attributes:
        num_clips: N.
        views: the stored views after the first.
        augmentations: one copy each.
        clip_ids: (N,) str: what a copy is seeded by, with `seed`.
    """

    num_clips: int
    views: tuple[StoredView, ...]
    augmentations: tuple[Augmentation, ...]
    clip_ids: np.ndarray
    seed: int

    @property
    def num_stored(self) -> int:
        """Rows below this one lie in the store: N (1 + views)."""
        return self.num_clips * (1 + len(self.views))

    def rows(self, clips: np.ndarray) -> np.ndarray:
        """The training rows of `clips`: themselves first, then copy by copy."""
        parts = [clips]
        for place, view in enumerate(self.views, start=1):
            parts.append(place * self.num_clips + clips[view.has[clips]])
        for place in range(len(self.augmentations)):
            parts.append(self.num_stored + place * self.num_clips + clips)
        return np.concatenate(parts)

    def batch(self, stored: Stored, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Features and mask of the rows at `index` (B,); `stored` reads normalised rows below `num_stored`."""
        made = index >= self.num_stored
        arrays, mask = stored(torch.where(made, index % self.num_clips, index))
        for place in made.nonzero().flatten().tolist():
            number, clip = divmod(int(index[place]) - self.num_stored, self.num_clips)
            steps = int(mask[place].sum())
            for array in arrays.values():
                array[place, :steps] = self.copy(array[place, :steps], number, clip)
        return arrays, mask

    def copy(self, values: Tensor, number: int, clip: int) -> Tensor:
        """Augmentation `number` of the steps (T, D) of a clip."""
        return self.augmentations[number].copy_of(values, str(self.clip_ids[clip]), self.seed)

    def sentence(self, train: np.ndarray) -> str:
        """How many training rows there are, and of what."""
        kinds = [f"stored view {view.number}" for view in self.views] + [a.text for a in self.augmentations]
        return f"{len(self.rows(train))} training rows: {len(train)} clips and their copies ({', '.join(kinds)})."


def copies_of(config: FeaturesConfig, table: ClipTable, seed: int) -> Copies | None:
    """The copies that `config` asks for; None for none.

    Raises:
        TrainingError: --train-views all where the stores hold one view only.
    """
    views = other_views(config, table) if config.train_views == "all" else ()
    made = augmentation.parse(config.augment)
    if not views and not made:
        return None
    return Copies(
        num_clips=len(table), views=views, augmentations=made, clip_ids=table.clip_ids, seed=seed
    )  # fmt: skip


def other_views(config: FeaturesConfig, table: ClipTable) -> tuple[StoredView, ...]:
    """The views beside `config.view` that every store has of some clip. Raises TrainingError if there are none."""
    counts = np.min(
        [source.store.clips.num_views[rows] for source, rows in zip(table.sources, table.rows, strict=True)], axis=0
    )
    found = [StoredView(number=k, has=counts > k) for k in range(int(counts.max())) if k != config.view]
    if not found:
        held = "; ".join(f"{source.store.path} holds {', '.join(source.store.spec.views)}" for source in table.sources)
        raise TrainingError(
            f"video augmentation (--train-views all) trains on further stored views, and there are none: {held}; make "
            "the store with `featurize --views augment`, which adds flip, rotation and jitter of the training clips"
        )
    return tuple(found)


def read_features(
    table: ClipTable,
    config: FeaturesConfig,
    *,
    needs_steps: bool,
    unit_steps: bool,
    progress: Progress | None = None,
) -> Features:
    """The features of `table` as `config` reads them, those of other views behind. Raises as `load_features` does."""
    base = load_features(
        table,
        needs_steps=needs_steps,
        pool=config.pool,
        view=config.view,
        segments=config.segment_rule(),
        unit_steps=unit_steps,
        progress=progress,
    )
    if config.train_views == "one":
        return base
    return with_views(base, table, config, other_views(config, table), needs_steps=needs_steps)


def with_views(
    base: Features, table: ClipTable, config: FeaturesConfig, views: Sequence[StoredView], *, needs_steps: bool
) -> Features:
    """`base` with the steps (or means) of other views behind it: arrays and mask have N (1 + views) rows."""
    arrays: dict[str, list[Tensor]] = {key: [array] for key, array in base.arrays.items()}
    for view in views:
        rows = np.flatnonzero(view.has)
        loaded = load_features(
            table.take(rows),
            needs_steps=needs_steps,
            pool=config.pool,
            view=view.number,
            segments=config.segment_rule(),
            unit_steps=base.unit_steps,
        )
        for key, array in loaded.arrays.items():
            whole = torch.zeros_like(base.arrays[key])
            whole[torch.from_numpy(rows), : array.shape[1]] = array
            arrays[key].append(whole)
    times = 1 + len(views)
    return replace(
        base,
        arrays={key: torch.cat(parts) for key, parts in arrays.items()},
        mask=base.mask.repeat(times, 1),
        step_index=None if base.step_index is None else base.step_index.repeat(times, 1),
    )


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
