"""The rows a probe looks at: one vector per clip or per step, with what the manifest says about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reelbank.heads.config import LABEL_SEPARATOR
from reelbank.heads.examples.clips import StoreSource, load_table
from reelbank.heads.examples.label_sets import combined_note
from reelbank.heads.examples.labelling import asked_target
from reelbank.heads.examples.splits import effective_groups
from reelbank.heads.examples.vectors import VectorTap, empty_note, reading_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reelbank.store.reader import Store
    from reelbank.store.spec import TapSpec

SPATIAL_AXES = frozenset({"height", "patch", "width", "x", "y"})
"""Axes of a map over which it is averaged, so that its channels become the vector."""

_BLOCK_CLIPS = 64
_BLOCK_NUMBERS = 16_000_000
"""Numbers of one block, padding counted: 64 MB in float32. A longer clip is a block of its own."""


@dataclass(frozen=True, kw_only=True)
class ProbeRows:
    """Vectors and their labels; R rows, clips or steps.

    Attributes:
        vectors: (R, D) float32, normalised.
        clip_rows: (R,) int64, row of the store each vector belongs to.
        steps: (R,) int64, step of the clip; -1 where a row is a whole clip.
        clip_ids, labels, splits, groups: (R,) str arrays; groups never cut (the clip itself where it has none).
        target: (R,) float64 in target units, NaN where unknown; None where the store has no target.
        target_name: column of `target`; '' for none.
        notes: sentences for the report.
        highlight: classes that maps show in colour, the others gray; () for all.
    """

    vectors: NDArray[np.float32]
    clip_rows: NDArray[np.int64]
    steps: NDArray[np.int64]
    clip_ids: NDArray[np.str_]
    labels: NDArray[np.str_]
    splits: NDArray[np.str_]
    groups: NDArray[np.str_]
    target: NDArray[np.float64] | None
    target_name: str
    notes: tuple[str, ...]
    highlight: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def num_clips(self) -> int:
        """Clips the rows come from."""
        return len(np.unique(self.clip_rows))


def default_store(folder: Path) -> Path:
    """The only *.zarr of `folder`. Raises ValueError that lists them where there is none or more than one."""
    found = sorted(path.name for path in folder.glob("*.zarr") if path.is_dir())
    if len(found) == 1:
        return folder / found[0]
    if not found:
        raise ValueError(
            "no store asked and no *.zarr found in this folder; make one with "
            "`featurize --model M`, or pass --store STORE"
        )
    raise ValueError(
        f"no store asked and {len(found)} found in this folder: {', '.join(found)}; pass --store with one of them"
    )


def load_rows(
    store: Store,
    *,
    tap: str,
    level: str,
    view: int,
    normalize: str,
    label_column: str,
    target_column: str | None,
    highlight: Sequence[str] = (),
) -> ProbeRows:
    """Reads a store for a probe; see ProbeConfig for the arguments.

    Raises:
        ValueError: a tap without vectors, an unknown column or view, no clip with features, or none of a highlighted
            class.
    """
    table = load_table((StoreSource(store=store, keys={tap: tap}),), label_column=label_column, view=view)
    target_name = asked_target(target_column, tuple(table.targets)) or ""
    notes = [f"{count} clips are left out: {reason}." for reason, count in table.left_out]
    read = vector_tap(store, tap)
    vectors, clips, steps = _vectors(store, tap, read, table.rows[0], level, view, unit_steps=normalize == "l2")
    require_finite(store, tap, vectors, table.clip_ids[clips])
    if read is not None and read.sentence:
        notes.append(read.sentence)
        notes += empty_note(tap, np.asarray(~vectors.any(axis=1)), "clip" if level == "clip" else "step")
    elif read is None:
        spec = store.spec.tap(tap)
        notes.append(f"Tap {tap!r} is a map {spec.axes} {spec.shape}: each was averaged over space first.")
    notes += combined_note(table.labels.tolist(), LABEL_SEPARATOR, "`train-head --loss bce` takes them apart")
    splits = table.splits[clips]
    note = ""
    if normalize == "zscore":
        vectors, note = standardized(vectors, splits == "train")
    if len(vectors) > 1 and not np.ptp(vectors, axis=0).any():
        notes.append(
            f"All {len(vectors)} rows are equal (--normalize {normalize}): nothing but their order tells them apart."
        )
    groups = effective_groups(table.groups.tolist(), table.clip_ids.tolist())
    return ProbeRows(
        vectors=vectors,
        clip_rows=table.rows[0][clips],
        steps=steps,
        clip_ids=table.clip_ids[clips],
        labels=table.labels[clips],
        splits=splits,
        groups=groups[clips],
        target=table.targets[target_name][clips] if target_name else None,
        target_name=target_name,
        notes=(*notes, *([note] if note else [])),
        highlight=_highlighted(highlight, table.labels[clips]),
    )


def _highlighted(wanted: Sequence[str], labels: NDArray[np.str_]) -> tuple[str, ...]:
    """Each class once. Raises ValueError with the names most like one that no row has."""
    known = sorted(set(labels.tolist()) - {""})
    for name in wanted:
        if name not in known:
            near = get_close_matches(name, known, 3, 0.4) or known[:3]
            said = (
                f"the nearest of {len(known)} classes are {', '.join(map(repr, near))}" if known else "none has a label"
            )
            raise ValueError(f"--highlight {name!r}: no row is of that class; {said}")
    return tuple(dict.fromkeys(wanted))


def standardized(vectors: NDArray[np.float32], train: NDArray[np.bool_]) -> tuple[NDArray[np.float32], str]:
    """`vectors` (R, D) minus the mean and over the standard deviation of the training rows; a constant dimension is 0.

    Beside them a sentence where the statistics are not those of the training rows.
    """
    source = vectors[train] if train.sum() > 1 else vectors
    mean, spread = source.mean(axis=0, dtype=np.float64), source.std(axis=0, dtype=np.float64)
    note = "" if train.sum() > 1 else "No split 'train': the z-score uses the statistics of all rows."
    return ((vectors - mean) / without_noise(spread, mean)).astype(np.float32), note


def without_noise(spread: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is divided by: `spread` (D,), infinite where it is below the rounding of stored fp16 values of that mean.

    Such a spread is noise, which would be blown up to 1.
    """
    return np.where(spread <= 1e-6 * np.maximum(np.abs(mean), 1e-6), np.inf, spread)


def require_finite(store: Store, tap: str, vectors: NDArray[np.float32], clip_ids: NDArray[np.str_]) -> None:
    """Raises ValueError naming the clip of the first of `vectors` (R, D) that holds NaN or Inf."""
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"tap {tap!r} of clip {str(clip_ids[np.argmin(finite)])!r} holds NaN or Inf; "
            f"run `reelbank store verify {store.path.name}`"
        )


def vector_tap(store: Store, tap: str) -> VectorTap | None:
    """How the vectors of `tap` are read; None for a map, which is averaged over space.

    Raises:
        ValueError: a tap that is neither, or that the store has not.
    """
    spec = store.spec.tap(tap)
    reading = reading_of(store, tap)
    if reading is None:
        _require_map(store, spec)
        return None
    return VectorTap(store=store, tap=tap, reading=reading)


def vector_blocks(
    store: Store,
    tap: str,
    read: VectorTap | None,
    rows: NDArray[np.int64],
    level: str,
    view: int,
    *,
    unit_steps: bool,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
    """The vectors of `rows` in blocks of bounded size, read once and in order.

    Args:
        read: of `vector_tap`.
        rows: (N,) of the store, ascending; all have features.
        level: `clip` or `step`, what a vector is of.
        unit_steps: steps are divided by their length, before any mean.

    Yields:
        vectors (R, D) float32, the place in `rows` (R,) and the step (R,) of each; -1 where it is of a whole clip.
    """
    if level == "clip" and read is not None and read.is_stored and not unit_steps:
        for places in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows // store.geometry.unit_clips)) + 1):
            if len(places):
                first, last = int(rows[places[0]]), int(rows[places[-1]])
                means = store.means(tap, first, last + 1, view)[rows[places] - first]
                yield means.astype(np.float32), places, np.full(len(places), -1)
        return
    from reelbank.heads.examples.features import unit_length

    spec = store.spec.tap(tap)
    space = tuple(axis for axis, name in enumerate(spec.axes, start=2) if name in SPATIAL_AXES)
    for start, stop in _cuts(store.num_steps[rows], int(np.prod(spec.shape))):
        block = rows[start:stop]
        features, mask = store.gather(tap, block, view) if read is None else read.gather(block, view)
        pooled = features.mean(axis=space, dtype=np.float32) if read is None else features.astype(np.float32)
        pooled = pooled.reshape(*mask.shape, -1)  # (B, T, D)
        if unit_steps:
            pooled = unit_length(pooled)
        if level == "clip":
            means = (pooled * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None]
            yield means, np.arange(start, stop), np.full(len(block), -1)
        else:
            clips, steps = np.nonzero(mask)
            yield pooled[mask], start + clips, steps


def _cuts(num_steps: NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of clips that are read at once: as many as fit when padded to the longest of them."""
    start = longest = 0
    for i, steps in enumerate(num_steps.tolist()):
        longest = max(longest, steps)
        if i > start and (i - start == _BLOCK_CLIPS or (i + 1 - start) * longest * size > _BLOCK_NUMBERS):
            yield start, i
            start, longest = i, steps
    if start < len(num_steps):
        yield start, len(num_steps)


def _vectors(
    store: Store,
    tap: str,
    read: VectorTap | None,
    rows: NDArray[np.int64],
    level: str,
    view: int,
    *,
    unit_steps: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """What `vector_blocks` yields, as three arrays."""
    blocks = list(vector_blocks(store, tap, read, rows, level, view, unit_steps=unit_steps))
    vectors, places, steps = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return vectors, places, steps


def _require_map(store: Store, spec: TapSpec) -> None:
    """Raises ValueError unless `spec`, of which no rule makes vectors, is a float map."""
    if spec.dtype.startswith("float") and SPATIAL_AXES & set(spec.axes):
        return
    usable = sorted(
        tap.name
        for tap in store.spec.taps
        if reading_of(store, tap.name) is not None or (tap.dtype.startswith("float") and SPATIAL_AXES & set(tap.axes))
    )
    have = f"taps that can be probed: {', '.join(usable)}" if usable else "this store has no tap that can be probed"
    raise ValueError(
        f"tap {spec.name!r} is {spec.dtype} with axes {spec.axes}: a probe needs vectors, keypoints, boxes, or float "
        f"maps to average over space; {have}"
    )
