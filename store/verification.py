"""Is a store whole? Every byte that a reader could get is checked against what was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.manifests.events import Event, Progress
from reelbank.store.arrays import open_array
from reelbank.store.errors import StoreError
from reelbank.store.growing import is_there
from reelbank.store.layout import definitions
from reelbank.store.reader import Store
from reelbank.store.shards import crc32c
from reelbank.store.spec import TapSpec
from reelbank.store.staging import moments


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: `clip` and `tap` name it, `what` says it."""

    clip: str
    tap: str
    what: str

    def __str__(self) -> str:
        return f"clip {self.clip!r}, tap {self.tap!r}: {self.what}" if self.clip else f"{self.tap}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found.

    Attributes:
        num_checked: (clip, tap, view) triples whose bytes were summed.
        counts: clips done, failed, missing and gone from the manifest.
        problems: empty for a sound store.
        absent: {array: its fill value} of arrays that may be absent and are; they read as fill.
    """

    num_checked: int
    counts: dict[str, int]
    problems: tuple[Problem, ...]
    absent: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON types."""
        return {**vars(self), "problems": [vars(problem) for problem in self.problems]}

    def text(self) -> str:
        """The findings, a line each."""
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.counts.items() if count)
        lines = [str(problem) for problem in self.problems]
        verdict = f"{len(lines)} problem{'s' * (len(lines) != 1)}" if lines else "sound"
        lines += [f"{name} is not stored and reads as {fill}" for name, fill in self.absent.items()]
        return "\n".join([*lines, f"{verdict}: {self.num_checked} features checked; clips: {counts or 'none'}"])


def verify(path: Path | str, progress: Progress | None = None) -> Verification:
    """Checks shapes, checksums, NaN and Inf, and mean and std of every clip that is done.

    Args:
        path: the store.
        progress: called with an Event: clips checked of clips to check.

    Raises:
        StoreError: if `path` is not a store at all.
    """
    store = Store(path)
    problems = _check_arrays(store)
    try:
        rows, names = store.done_rows(), store.column("clip_id")
    except (StoreError, ValueError, KeyError):
        if not problems:
            raise
        return Verification(num_checked=0, counts={}, problems=tuple(problems), absent=store.absent)
    checked = 0
    for done, row in enumerate(rows.tolist()):
        for tap in store.spec.taps:
            checked += int(store.clips.num_views[row])
            problems += [
                Problem(clip=str(names[row]), tap=tap.name, what=what) for what in _check_clip(store, tap, row)
            ]
        if progress is not None:
            progress(Event(stage="verify", done=done + 1, total=len(rows)))
    return Verification(
        num_checked=checked, counts=store.clips.counts(), problems=tuple(problems), absent=store.absent
    )  # fmt: skip


def _check_arrays(store: Store) -> list[Problem]:
    """Shapes as declared: a library that changed a feature's size must not go unseen."""
    problems = []
    known = [name for name in definitions(store.spec, store.geometry) if is_there(store.path / name)]
    for name in dict.fromkeys((*store.essential, *store.column_arrays.values(), *known)):
        try:
            shape = open_array(store.path / name).shape
        except (OSError, StoreError) as error:
            what = "cannot be opened" if is_there(store.path / name) else "is not there"
            problems.append(Problem(clip="", tap=name, what=f"{what}: {error}"))
            continue
        if shape[0] < store.num_clips and name in store.essential:
            problems.append(Problem(clip="", tap=name, what=f"{shape = }, the store has {store.num_clips} clips"))
    unreadable = {problem.tap for problem in problems}
    for tap in store.spec.taps:
        if f"features/{tap.name}" in unreadable:
            continue
        shape = open_array(store.path / "features" / tap.name).shape
        if shape[3:] != tap.shape:
            problems.append(Problem(clip="", tap=f"features/{tap.name}", what=f"{shape = }, declared {tap.shape}"))
    return problems


def _check_clip(store: Store, tap: TapSpec, row: int) -> list[str]:
    try:
        features = store.read(tap.name, row)
        stored = store.checksums(tap.name)[row]
    except (StoreError, OSError) as error:
        return [str(error)]
    found = []
    for view, array in enumerate(features):
        if crc32c(np.ascontiguousarray(array).tobytes()) != int(stored[view]):
            found.append(f"view {view}: the bytes do not match their crc32c")
            continue
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            found.append(f"view {view}: {bad} of {array.size} values are NaN or Inf")
        if tap.is_vector and all(is_there(store.path / kind / tap.name) for kind in ("mean", "std")):
            mean, std = moments(array)
            for kind, expected, actual in (
                ("mean", mean, store.mean(tap.name, view)[row]),
                ("std", std, store.std(tap.name, view)[row]),
            ):
                if not np.array_equal(expected, actual, equal_nan=True):
                    found.append(f"view {view}: {kind} is not that of the stored steps")
    return found
