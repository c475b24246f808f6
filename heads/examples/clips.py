"""The clips and features of one or several stores, loaded once and kept resident.

A pooled head reads the stored `mean` (and `std`): 1/T of the bytes of the steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import reelbank.store
from reelbank.heads.config import DataConfig, FeaturesConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.events import Event, Progress
from reelbank.store import Store
from reelbank.store.indexing import SegmentRule

GATHER_ROWS = 256  # rows read from the store at once: bounds the extra memory while a tap is loaded


@dataclass(frozen=True, kw_only=True)
class Source:
    """One store and the taps read from it.

    Attributes:
        keys: {name the head sees: tap}; the tap itself, or `backbone/tap` with several stores.
    """

    store: Store
    keys: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ClipTable:
    """The usable clips, one position per clip.

    Attributes:
        clip_ids, splits, labels, groups: str arrays (N,); empty text where the manifest says nothing.
        targets: {column: float64 (N,)}, NaN where empty.
        rows: for each source, the row of each clip in that store, int64 (N,).
        left_out: (reason, number of clips) of clips that have no features here.
    """

    sources: tuple[Source, ...]
    clip_ids: NDArray[Any]
    splits: NDArray[Any]
    labels: NDArray[Any]
    groups: NDArray[Any]
    targets: Mapping[str, NDArray[np.float64]]
    rows: tuple[NDArray[np.int64], ...]
    left_out: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def weights_are_random(self) -> bool:
        """Whether any of the backbones was never trained."""
        return any(source.store.weights_are_random for source in self.sources)

    def notes(self) -> list[str]:
        """Sentences for the report: clips that are left out, clips without a group."""
        notes = [f"{count} clips are left out: {reason}." for reason, count in self.left_out]
        ungrouped = int((self.groups == "").sum())
        if ungrouped == len(self):
            notes.append("The manifest has no groups: parts are cut and intervals drawn by clip.")
        elif ungrouped:
            notes.append(f"{ungrouped} of {len(self)} clips have no group; each counts as its own.")
        return notes

    def describe(self) -> list[Mapping[str, Any]]:
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
            for source in self.sources
        ]

    def take(self, positions: NDArray[np.int64]) -> ClipTable:
        """The same table with only the clips at `positions`, in that order."""
        return replace(
            self,
            clip_ids=self.clip_ids[positions],
            splits=self.splits[positions],
            labels=self.labels[positions],
            groups=self.groups[positions],
            targets={name: values[positions] for name, values in self.targets.items()},
            rows=tuple(rows[positions] for rows in self.rows),
        )


def read_table(data: DataConfig, features: FeaturesConfig) -> ClipTable:
    """The clips that a training can use. Raises what `open_sources` and `load_table` raise."""
    sources = open_sources(data.store, features.tap)
    return load_table(sources, label_column=data.label, join=data.join, view=features.view)


def open_sources(paths: Sequence[Path], taps: Sequence[str]) -> tuple[Source, ...]:
    """Opens the stores and finds the taps; without `taps` each store gives its first.

    Raises:
        TrainingError: a tap that no store holds or that is no vector, or a store that holds none of the taps.
        StoreError: a path that is no store.
    """
    stores = [reelbank.store.open(path) for path in paths]
    held = sorted({name for store in stores for name in store.taps})
    if missing := [tap for tap in taps if tap not in held]:
        raise TrainingError(f"--tap {missing[0]}: no store holds it; there are {', '.join(held)}")
    sources = []
    for store in stores:
        names = [tap for tap in taps if tap in store.taps] if taps else [store.default_tap]
        if not names:
            raise TrainingError(
                f"{store.path} holds none of the taps {', '.join(taps)}; it holds {', '.join(sorted(store.taps))}"
            )
        for name in names:
            if not store.taps[name].is_vector:
                vectors = ", ".join(sorted(n for n, tap in store.taps.items() if tap.is_vector)) or "none"
                raise TrainingError(
                    f"tap {name!r} of {store.path} is {store.taps[name].shape} {store.taps[name].dtype} per step; "
                    f"heads read float vectors (D,); vector taps here: {vectors}"
                )
        several = len(stores) > 1
        sources.append(Source(store=store, keys={f"{store.spec.backbone}/{n}" if several else n: n for n in names}))
    keys = Counter(key for source in sources for key in source.keys)
    if doubled := [key for key, count in keys.items() if count > 1]:
        raise TrainingError(f"{doubled[0]!r} comes from more than one store; give each backbone and tap once")
    return tuple(sources)


def load_table(
    sources: Sequence[Source], *, label_column: str = "label", join: str = "error", view: int = 0
) -> ClipTable:
    """The clips that every source has features of.

    Args:
        label_column: text column that gives the class; `none` leaves every label empty.
        join: what happens to clips that only some stores have: `error` or `inner`.
        view: the stored view that must exist.

    Raises:
        TrainingError: no usable clip, a missing column, stores that disagree on a clip.
    """
    tables = [_table_of(source, label_column, view) for source in sources]
    table = tables[0]
    for other in tables[1:]:
        table = _joined(table, other, join)
    if not len(table):
        reasons = "; ".join(f"{count} x {reason}" for reason, count in table.left_out) or "the store has no rows"
        raise TrainingError(f"{sources[0].store.path} holds features of no usable clip: {reasons}")
    return table


def _table_of(source: Source, label_column: str, view: int) -> ClipTable:
    store = source.store
    clips = store.clips
    done = store.done_rows()
    usable = done[clips.num_views[done] > view]
    present = clips.in_manifest == 1
    left_out = Counter({f"failed: {reason}": count for reason, count in clips.failures().items()})
    left_out["not extracted yet"] = int((present & (clips.status == 0)).sum())
    left_out["no longer in the manifest"] = int((~present).sum())
    left_out[f"view {view} is not stored"] = len(done) - len(usable)
    empty = np.full(store.num_clips, "", dtype=object)
    labels = empty if label_column == "none" else store.column(label_column)
    if labels.dtype.kind == "f":
        raise TrainingError(f"--label {label_column}: that column is numeric; use --target {label_column} --label none")
    return ClipTable(
        sources=(source,),
        clip_ids=store.column("clip_id")[usable].astype(str),
        splits=store.column("split")[usable].astype(str),
        labels=labels[usable].astype(str),
        groups=store.column("group")[usable].astype(str),
        targets={name: store.column(name)[usable] for name in store.target_names},
        rows=(usable,),
        left_out=tuple(sorted((reason, count) for reason, count in left_out.items() if count)),
    )


def _joined(a: ClipTable, b: ClipTable, join: str) -> ClipTable:
    common, in_a, in_b = np.intersect1d(a.clip_ids, b.clip_ids, return_indices=True)
    missing = len(a) + len(b) - 2 * len(common)
    if missing and join == "error":
        alone = np.setxor1d(a.clip_ids, b.clip_ids)
        raise TrainingError(
            f"{missing} clips have features in only one of {a.sources[-1].store.path} and {b.sources[0].store.path} "
            f"(first: {str(alone[0])!r}); featurize them, or use the common ones with --join inner"
        )
    order = np.argsort(in_a)  # the first store's order
    left, right = a.take(in_a[order]), b.take(in_b[order])
    for name in ("splits", "labels", "groups"):
        differ = np.flatnonzero(getattr(left, name) != getattr(right, name))
        if len(differ):
            i = int(differ[0])
            raise TrainingError(
                f"clip {str(left.clip_ids[i])!r}: the stores disagree on its {name[:-1]}, "
                f"{str(getattr(left, name)[i])!r} and {str(getattr(right, name)[i])!r}; "
                "featurize both from one manifest"
            )
    left_out = Counter(dict(a.left_out)) | Counter(dict(b.left_out))
    if missing:
        left_out["not in every store (--join inner)"] += missing
    return replace(
        left,
        sources=(*a.sources, *b.sources),
        targets={**right.targets, **left.targets},
        rows=(*left.rows, *right.rows),
        left_out=tuple(sorted(left_out.items())),
    )


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
    """

    arrays: Mapping[str, Tensor]
    mask: Tensor
    means: Mapping[str, NDArray[np.float64]]
    variances: Mapping[str, NDArray[np.float64]]
    num_steps: NDArray[np.int64]
    step_index: Tensor | None = None
    unit_steps: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """{key: D}."""
        return {key: array.shape[2] for key, array in self.arrays.items()}


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
        for key, tap in source.keys.items():
            mean = source.store.mean(tap, view)[rows]
            std = source.store.std(tap, view)[rows]
            _refuse_not_finite(table, key, mean, std)
            if needs_steps:
                if (source.store.num_steps[rows] != num_steps).any():
                    raise TrainingError(
                        "the stores hold different numbers of steps of the same clips; a head that reads steps needs "
                        "one sampling: featurize both with the same --sampling, or use --head mlp"
                    )
                arrays[key] = _read_steps(source.store, tap, rows, view)
                means[key], variances[key] = mean.astype(np.float64), std.astype(np.float64) ** 2
            else:
                vector = np.concatenate([mean, std], axis=1) if pool == "mean+std" else mean
                read = vector
                if segments is not None or unit_steps:
                    both = _read_moments(source.store, tap, rows, view, segments, unit_steps)
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


def _refuse_not_finite(table: ClipTable, key: str, *moments: NDArray[np.float32]) -> None:
    bad = ~np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in moments])
    if bad.any():
        first = str(table.clip_ids[np.flatnonzero(bad)[0]])
        raise TrainingError(
            f"tap {key!r}: the features of {int(bad.sum())} clips are not finite (the first: {first!r}); "
            "check the store with `reelbank store verify`"
        )


def _read_steps(store: Store, tap: str, rows: NDArray[np.int64], view: int) -> Tensor:
    spec = store.taps[tap]
    longest = int(store.num_steps[rows].max())
    out = np.zeros((len(rows), longest, *spec.shape), dtype=spec.dtype)
    for start in range(0, len(rows), GATHER_ROWS):
        part, _ = store.gather(tap, rows[start : start + GATHER_ROWS], view)
        out[start : start + len(part), : part.shape[1]] = part
    return torch.from_numpy(out)


def _read_moments(
    store: Store, tap: str, rows: NDArray[np.int64], view: int, segments: SegmentRule | None, unit_steps: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and population standard deviation (N, D) over the steps that the segments read, repeats counted."""
    dimension = store.taps[tap].shape[0]
    means = np.empty((len(rows), dimension), dtype=np.float32)
    stds = np.empty_like(means)
    steps = store.num_steps[rows]
    shares = {
        count: np.ones(count) if segments is None else segments.multiplicities(count)
        for count in np.unique(steps).tolist()
    }
    for start in range(0, len(rows), GATHER_ROWS):
        part, _ = store.gather(tap, rows[start : start + GATHER_ROWS], view)
        for i, (array, count) in enumerate(zip(part, steps[start : start + GATHER_ROWS].tolist(), strict=True), start):
            weights = shares[count] / max(1, shares[count].sum())
            values = array[:count].astype(np.float64)
            if unit_steps:
                values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)  # as torch's normalize
            mean = weights @ values
            means[i], stds[i] = mean, np.sqrt(weights @ (values - mean) ** 2)
    return means, stds
