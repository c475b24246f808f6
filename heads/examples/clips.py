"""The clips of one or several stores that a training can use, and what the manifest says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reelbank.store
from reelbank.heads.config import DataConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.vectors import AS_STORED, Reading, VectorTap, readable_taps, reading_of
from reelbank.heads.features_config import FeaturesConfig
from reelbank.store import Store


@dataclass(frozen=True, kw_only=True)
class StoreSource:
    """One store and the taps read from it.

    Attributes:
        keys: {name the head sees: tap}; the tap itself, or `backbone/tap` with several stores.
        readings: {name the head sees: how vectors are made of its tap}; of those that are not read as stored.
        as_arrays: whether a head reads the taps as they are, not as vectors.
    """

    store: Store
    keys: Mapping[str, str]
    readings: Mapping[str, Reading] = field(default_factory=dict)
    as_arrays: bool = False

    def vectors(self) -> dict[str, VectorTap]:
        """{name the head sees: its tap as vectors}; none of a store that is read as arrays."""
        if self.as_arrays:
            return {}
        return {
            key: VectorTap(store=self.store, tap=tap, reading=self.readings.get(key, AS_STORED))
            for key, tap in self.keys.items()
        }


@dataclass(frozen=True, kw_only=True)
class ClipTable:
    """The usable clips, one position per clip.

    Attributes:
        clip_ids, splits, labels, groups: str arrays (N,); empty text where the manifest says nothing.
        targets: {column: float64 (N,)}, NaN where empty.
        rows: for each source, the row of each clip in that store, int64 (N,).
        left_out: (reason, number of clips) of clips that have no features here.
    """

    sources: tuple[StoreSource, ...]
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
        """Sentences for the report: how taps become vectors, clips that are left out, clips without a group."""
        notes = [tap.sentence for source in self.sources for tap in source.vectors().values() if tap.sentence]
        notes += [f"{count} clips are left out: {reason}." for reason, count in self.left_out]
        if found := self.sources[0].store.contradictions(self.rows[0], self.labels.tolist()):
            notes.append(f"{found}.")
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
                "readings": {key: reading.to_json() for key, reading in source.readings.items()},
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


def open_sources(
    paths: Sequence[Path | Store], taps: Sequence[str], readings: Sequence[Mapping[str, Reading]] | None = None
) -> tuple[StoreSource, ...]:
    """Opens the stores and finds the taps; without `taps` each store gives its first.

    Args:
        paths: of the stores; one that is open already is taken as it is.
        readings: `StoreSource.readings` of each store, where a trained head says how it reads; None: by the taps.

    Raises:
        TrainingError: a tap that no store holds or of which no vectors can be made, or a store that holds none of the
            taps.
        StoreError: a path that is no store.
    """
    stores = [one if isinstance(one, Store) else reelbank.store.open(one) for one in paths]
    held = sorted({name for store in stores for name in store.taps})
    if missing := [tap for tap in taps if tap not in held]:
        raise TrainingError(f"--tap {missing[0]}: no store holds it; there are {', '.join(held)}")
    sources: list[StoreSource] = []
    for store in stores:
        names = [tap for tap in taps if tap in store.taps] if taps else [store.default_tap]
        if not names:
            raise TrainingError(
                f"{store.path} holds none of the taps {', '.join(taps)}; it holds {', '.join(sorted(store.taps))}"
            )
        keys = {f"{store.spec.backbone}/{name}" if len(stores) > 1 else name: name for name in names}
        if readings is not None:
            sources.append(StoreSource(store=store, keys=keys, readings=readings[len(sources)]))
            continue
        found = {key: _reading(store, name) for key, name in keys.items()}
        own = {key: reading for key, reading in found.items() if reading != AS_STORED}
        sources.append(StoreSource(store=store, keys=keys, readings=own))
    counts = Counter(key for source in sources for key in source.keys)
    if doubled := [key for key, count in counts.items() if count > 1]:
        raise TrainingError(f"{doubled[0]!r} comes from more than one store; give each backbone and tap once")
    return tuple(sources)


def _reading(store: Store, tap: str) -> Reading:
    reading = reading_of(store, tap)
    if reading is None:
        raise TrainingError(
            f"tap {tap!r} of {store.path} is {store.taps[tap].shape} {store.taps[tap].dtype} per step; heads read "
            "float vectors (D,), keypoints (a tap of that name, points of 2 or 3 numbers) and boxes; "
            f"taps here that can be read: {readable_taps(store)}"
        )
    return reading


def load_table(
    sources: Sequence[StoreSource], *, label_column: str = "label", join: str = "error", view: int = 0
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


def _table_of(source: StoreSource, label_column: str, view: int) -> ClipTable:
    store = source.store
    clips = store.clips
    done = store.done_rows()
    usable = done[clips.num_views[done] > view]
    present = clips.in_manifest == 1
    left_out = Counter({f"failed: {reason}": count for reason, count in clips.failures().items()})
    left_out["not extracted yet"] = int((present & (clips.status == 0)).sum())
    left_out["no longer in the manifest"] = int((~present).sum())
    left_out[f"view {view} is not stored"] = len(done) - len(usable)
    empty = np.full(store.num_clips, "", dtype=str)
    labels = empty if label_column == "none" else text_column(store, label_column)
    return ClipTable(
        sources=(source,),
        clip_ids=text_column(store, "clip_id")[usable],
        splits=text_column(store, "split")[usable],
        labels=labels[usable],
        groups=text_column(store, "group")[usable],
        targets={name: store.column(name)[usable] for name in store.target_names},
        rows=(usable,),
        left_out=tuple(sorted((reason, count) for reason, count in left_out.items() if count)),
    )


def text_column(store: Store, name: str) -> NDArray[np.str_]:
    """A text column of the manifest, one value per row of the store. Raises TrainingError for a numeric one."""
    values = store.column(name)
    if values.dtype.kind == "f":
        raise TrainingError(f"--label {name}: this column is numeric; pass it as --target {name}")
    return values.astype(str)


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
