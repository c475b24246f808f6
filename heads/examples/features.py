"""The features of the clips of a table, read once and kept resident.

A pooled head reads the stored `mean` (and `std`): 1/T of the bytes of the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.vectors import VectorTap, empty_note
from reelbank.heads.features_config import FeaturesConfig
from reelbank.manifests.events import Event, Progress
from reelbank.store.indexing import SegmentRule

GATHER_ROWS = 256  # rows read from the store at once: bounds the extra memory while a tap is loaded


@dataclass(frozen=True, kw_only=True)
class StoredView:
    """A view that training reads beside its own; `has` (N,) bool says of which clips it is stored."""

    number: int
    has: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the clips of a table, on the CPU and not normalised.

    Attributes:
        arrays: {key: (N, T, D)} in the stored dtype, or float32 with T = 1 if pooled.
        mask: (N, T) bool, True where a step is valid; (N, S) where there is a `step_index`.
        means, variances: {key: (N, D) float64}: each clip's own over its steps, from which statistics of any
            part follow without reading the steps. The variance of a pooled `std` is 0.
        num_steps: (N,) int64, of the stored steps.
        step_index: (N, S) int64, the steps of `arrays` that a head reads, in order and with repeats; None: all, once.
        unit_steps: whether `arrays` are moments of steps that were divided by their length.
        views: further views, whose rows stand behind those of the clips.
    """

    arrays: Mapping[str, Tensor]
    mask: Tensor
    means: Mapping[str, NDArray[np.float64]]
    variances: Mapping[str, NDArray[np.float64]]
    num_steps: NDArray[np.int64]
    step_index: Tensor | None = None
    unit_steps: bool = False
    views: tuple[StoredView, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """{key: D}."""
        return {key: array.shape[2] for key, array in self.arrays.items()}

    def notes(self, table: ClipTable) -> list[str]:
        """Sentences for the report about clips of `table` without anything that their vectors could be made of."""
        notes = []
        for key, vectors in ((key, tap) for source in table.sources for key, tap in source.vectors().items()):
            if not vectors.is_stored:
                empty = ~(self.means[key].any(axis=1) | self.variances[key].any(axis=1))
                notes += empty_note(key, np.asarray(empty), "clip")
        return notes

    def num_bytes(self, *, needs_steps: bool, more_rows: int = 0) -> int:
        """What they take on a device, with `more_rows` of pooled copies; pooled taps lie there side by side, too."""
        stored = sum(array.nbytes for array in self.arrays.values())
        if needs_steps:
            return stored
        return (stored + more_rows * sum(self.sizes.values()) * 4) * (1 if len(self.arrays) == 1 else 2)


NO_FEATURES = Features(
    arrays={}, mask=torch.zeros(0, 0, dtype=torch.bool), means={}, variances={}, num_steps=np.zeros(0, dtype=np.int64)
)
"""Of a head that reads arrays, and of a training whose features are no longer needed."""


def other_views(config: FeaturesConfig, table: ClipTable) -> tuple[StoredView, ...]:
    """The views beside `config.view` that every store has of some clip; () where training reads one.

    Raises TrainingError if there are none.
    """
    if config.train_views == "one":
        return ()
    counts = np.min(
        [source.store.clips.num_views[rows] for source, rows in zip(table.sources, table.rows, strict=True)], axis=0
    )
    found = [StoredView(number=k, has=counts > k) for k in range(int(counts.max())) if k != config.view]
    if not found:
        held = "; ".join(f"{source.store.path} holds {', '.join(source.store.spec.views)}" for source in table.sources)
        raise TrainingError(
            f"video augmentation (--train-views {config.train_views}) trains on further stored views, and there are "
            f"none: {held}; make "
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
    """The features of `table` as `config` reads them, those of further views behind.

    Raises what `other_views` and `load_features` raise.
    """
    views = other_views(config, table)
    base = load_features(
        table,
        needs_steps=needs_steps,
        pool=config.pool,
        view=config.view,
        segments=config.segment_rule(),
        unit_steps=unit_steps,
        progress=progress,
    )
    return with_views(base, table, config, views, needs_steps=needs_steps) if views else base


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
        views=tuple(views),
    )


def load_features(
    table: ClipTable,
    *,
    needs_steps: bool,
    pool: str = "mean",
    view: int = 0,
    segments: SegmentRule | None = None,
    unit_steps: bool = False,
    progress: Progress | None = None,
) -> Features:
    """Reads the features of every clip of `table` into memory.

    Args:
        needs_steps: True reads all steps, False the stored moments.
        pool: `mean` or `mean+std` (side by side, 2 D), for heads without steps.
        segments: the steps are read as these segments, by index: nothing is held twice. Without steps the moments are
            those over the segments, weighted sums over the stored steps. Statistics for the normalisation stay those of
            the stored steps (SYSTEMS.md 1.3: over all rows).
        unit_steps: without `needs_steps`, the moments are those of the steps divided by their length, read for that.

    Raises:
        TrainingError: a clip whose features are not finite, or stores with different steps of one clip.
    """
    arrays: dict[str, Tensor] = {}
    means: dict[str, NDArray[np.float64]] = {}
    variances: dict[str, NDArray[np.float64]] = {}
    num_steps = table.sources[0].store.num_steps[table.rows[0]].astype(np.int64)
    total = sum(len(source.keys) for source in table.sources)
    for source, rows in zip(table.sources, table.rows, strict=True):
        for key, vectors in source.vectors().items():
            mean, std = _moments(vectors, rows, view)
            _refuse_not_finite(table, key, mean, std)
            if needs_steps:
                if (source.store.num_steps[rows] != num_steps).any():
                    raise TrainingError(
                        "the stores hold different numbers of steps of the same clips; a head that reads steps needs "
                        "one sampling: featurize both with the same --sampling, or use --head mlp"
                    )
                arrays[key] = _read_steps(vectors, rows, view)
                means[key], variances[key] = mean.astype(np.float64), std.astype(np.float64) ** 2
            else:
                vector = np.concatenate([mean, std], axis=1) if pool == "mean+std" else mean
                read = vector
                if segments is not None or unit_steps:
                    both = _read_moments(vectors, rows, view, segments, unit_steps)
                    read = np.concatenate(both, axis=1) if pool == "mean+std" else both[0]
                arrays[key] = torch.from_numpy(read).unsqueeze(1)
                means[key] = vector.astype(np.float64)
                variances[key] = np.zeros_like(means[key])
                variances[key][:, : std.shape[1]] = std.astype(np.float64) ** 2
            if progress is not None:
                progress(Event(stage="load", done=len(arrays), total=total, message=f"tap {key}: {len(rows)} clips"))
    index = None
    if not needs_steps:
        mask = torch.ones(len(table), 1) > 0
    elif segments is None:
        mask = torch.from_numpy(np.arange(int(num_steps.max())) < num_steps[:, None])
    else:
        index, mask = map(torch.from_numpy, segments.table(num_steps))
        if index.shape[1] <= int(num_steps.max()):  # taken out at once: nothing grows
            clips = torch.arange(len(index)).unsqueeze(1)
            arrays, index = {key: array[clips, index] for key, array in arrays.items()}, None
    return Features(
        arrays=arrays, mask=mask, means=means, variances=variances, num_steps=num_steps, step_index=index,
        unit_steps=unit_steps and not needs_steps,
    )  # fmt: skip


def unit_length(steps: NDArray[np.floating]) -> NDArray[np.floating]:
    """Each vector (..., D) over its length, as torch's `normalize` does it: `--normalize l2`; zeros stay zeros."""
    unit: NDArray[np.floating] = steps / np.maximum(
        np.linalg.norm(steps, axis=-1, keepdims=True), steps.dtype.type(1e-12)
    )
    return unit


def _refuse_not_finite(table: ClipTable, key: str, *moments: NDArray[np.float32]) -> None:
    bad = ~np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in moments])
    if bad.any():
        first = str(table.clip_ids[np.flatnonzero(bad)[0]])
        raise TrainingError(
            f"tap {key!r}: the features of {int(bad.sum())} clips are not finite (the first: {first!r}); "
            "check the store with `reelbank store verify`"
        )


def _moments(vectors: VectorTap, rows: NDArray[np.int64], view: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and population standard deviation (N, D) over the stored steps; kept in the store of what it stores."""
    if not vectors.is_stored:
        return _read_moments(vectors, rows, view, None, unit_steps=False)
    return vectors.store.mean(vectors.tap, view)[rows], vectors.store.std(vectors.tap, view)[rows]


def _read_steps(vectors: VectorTap, rows: NDArray[np.int64], view: int) -> Tensor:
    longest = int(vectors.store.num_steps[rows].max())
    out = np.zeros((len(rows), longest, vectors.size), dtype=vectors.dtype)
    for start in range(0, len(rows), GATHER_ROWS):
        part, _ = vectors.gather(rows[start : start + GATHER_ROWS], view)
        out[start : start + len(part), : part.shape[1]] = part
    return torch.from_numpy(out)


def _read_moments(
    vectors: VectorTap, rows: NDArray[np.int64], view: int, segments: SegmentRule | None, unit_steps: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and population standard deviation (N, D) over the steps that the segments read, repeats counted."""
    means = np.empty((len(rows), vectors.size), dtype=np.float32)
    stds = np.empty_like(means)
    steps = vectors.store.num_steps[rows]
    shares = {
        count: np.ones(count) if segments is None else segments.multiplicities(count)
        for count in np.unique(steps).tolist()
    }
    for start in range(0, len(rows), GATHER_ROWS):
        part, _ = vectors.gather(rows[start : start + GATHER_ROWS], view)
        for i, (array, count) in enumerate(zip(part, steps[start : start + GATHER_ROWS].tolist(), strict=True), start):
            weights = shares[count] / max(1, shares[count].sum())
            values = array[:count].astype(np.float64)
            if unit_steps:
                values = unit_length(values)
            mean = weights @ values
            means[i], stds[i] = mean, np.sqrt(weights @ (values - mean) ** 2)
    return means, stds
