"""The rows a probe looks at: one vector per clip or per step, with what the manifest says about each."""

from __future__ import annotations

from dataclasses import dataclass
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
) -> ProbeRows:
    """Reads a store for a probe; see ProbeConfig for the arguments.

    Raises:
        ValueError: a tap without vectors, an unknown column or view, or no clip with features.
    """
    table = load_table((StoreSource(store=store, keys={tap: tap}),), label_column=label_column, view=view)
    target_name = asked_target(target_column, tuple(table.targets)) or ""
    notes = [f"{count} clips are left out: {reason}." for reason, count in table.left_out]
    spec = store.spec.tap(tap)
    reading = reading_of(store, tap)
    read = None if reading is None else VectorTap(store=store, tap=tap, reading=reading)
    vectors, clips, steps = _vectors(store, spec, read, table.rows[0], level, view, unit_steps=normalize == "l2")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        clip_id = table.clip_ids[clips[np.argmin(finite)]]
        raise ValueError(
            f"tap {tap!r} of clip {str(clip_id)!r} holds NaN or Inf; run `reelbank store verify {store.path.name}`"
        )
    if read is not None and read.sentence:
        notes.append(read.sentence)
        notes += empty_note(tap, np.asarray(~vectors.any(axis=1)), "clip" if level == "clip" else "step")
    elif not spec.is_vector:
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
    )


def standardized(vectors: NDArray[np.float32], train: NDArray[np.bool_]) -> tuple[NDArray[np.float32], str]:
    """`vectors` (R, D) minus the mean and over the standard deviation of the training rows; a constant dimension is 0.

    Beside them a sentence where the statistics are not those of the training rows.
    """
    source = vectors[train] if train.sum() > 1 else vectors
    mean, spread = source.mean(axis=0, dtype=np.float64), source.std(axis=0, dtype=np.float64)
    # Below the rounding of the stored fp16 values a spread is noise: it would be blown up to 1.
    spread[spread <= 1e-6 * np.maximum(np.abs(mean), 1e-6)] = np.inf
    note = "" if train.sum() > 1 else "No split 'train': the z-score uses the statistics of all rows."
    return ((vectors - mean) / spread).astype(np.float32), note


def _vectors(
    store: Store,
    spec: TapSpec,
    read: VectorTap | None,
    rows: NDArray[np.int64],
    level: str,
    view: int,
    *,
    unit_steps: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """(R, D) float32 with the place in `rows` and the step of each; `unit_steps`: of steps over their length."""
    from reelbank.heads.examples.features import unit_length

    if read is None:
        _require_map(store, spec)
    if level == "clip" and read is not None and read.is_stored and not unit_steps:
        return store.mean(spec.name, view)[rows].astype(np.float32), np.arange(len(rows)), np.full(len(rows), -1)
    space = tuple(axis for axis, name in enumerate(spec.axes, start=2) if name in SPATIAL_AXES)
    parts, steps = [], []
    for start in range(0, len(rows), _BLOCK_CLIPS):
        block = rows[start : start + _BLOCK_CLIPS]
        features, mask = store.gather(spec.name, block, view) if read is None else read.gather(block, view)
        pooled = features.mean(axis=space, dtype=np.float32) if read is None else features.astype(np.float32)
        pooled = pooled.reshape(*mask.shape, -1)  # (B, T, D)
        if unit_steps:
            pooled = unit_length(pooled)
        if level == "clip":
            parts.append((pooled * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None])
        else:
            parts.append(pooled[mask])
            steps.append(np.nonzero(mask)[1])
    vectors = np.concatenate(parts)
    if level == "clip":
        return vectors, np.arange(len(rows)), np.full(len(rows), -1)
    return vectors, np.repeat(np.arange(len(rows)), store.num_steps[rows]), np.concatenate(steps)


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
