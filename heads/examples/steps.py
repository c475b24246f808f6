"""Which stored steps of a clip a head reads: spread over it, at shares of it, its first ones, the nearest to others.

Frames are counted from the first of the clip. A store says which frame of the video each step is of; which of them is
the clip's first follows from its sampling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.heads.errors import TrainingError
from reelbank.store import Store

WHOLE = ("all", "every", "first", "uniform")
"""Samplings whose first step is the first frame of the clip."""
FIVE_POSITIONS = "--sampling position:0,0.25,0.5,0.75,1"

Steps = NDArray[np.int64]


def spread_frames(num_frames: int, count: int) -> Steps:
    """`count` of N frames: floor(linspace(1, N, count, endpoint excluded)), counted from 0 (SYSTEMS.md 2.2)."""
    return np.floor(np.linspace(1, num_frames, count, endpoint=False)).astype(np.int64) - 1


def position_frames(num_frames: int, positions: Sequence[float]) -> Steps:
    """Of N frames those at these shares: floor(p N), but at most N - 1 (SYSTEMS.md 5.7)."""
    frames: Steps = np.minimum(np.floor(np.asarray(positions) * num_frames).astype(np.int64), num_frames - 1)
    return frames


def spread_steps(store: Store, rows: NDArray[np.int64], clip_ids: NDArray[Any], count: int) -> list[Steps]:
    """The stored steps of `count` frames spread over each clip. Raises TrainingError where one is not stored."""
    sampling = store.spec.sampling
    lists = []
    for row, clip_id in zip(rows.tolist(), clip_ids.tolist(), strict=True):
        num_frames = int(store.clips.num_frames[row])
        stored = _stored_frames(store, row)
        if stored is None:
            raise TrainingError(
                f"--steps {count} spreads frames over the clip, and {store.path} holds {sampling}, which need not "
                f"begin at its first; featurize with --sampling uniform:{count}:open, or leave --steps out"
            )
        wanted = spread_frames(num_frames, count)
        places, lacking = _places(stored, wanted)
        if lacking.size:
            raise TrainingError(
                f"--steps {count} reads frame {int(lacking[0])} of clip {clip_id!r}, which {store.path} does not hold "
                f"(sampling {sampling}); featurize with --sampling uniform:{count}:open, or with uniform:7:open+"
                "uniform:16:open for both"
            )
        lists.append(places)
    return lists


def position_steps(
    store: Store, rows: NDArray[np.int64], clip_ids: NDArray[Any], positions: Sequence[float]
) -> list[Steps]:
    """The stored steps at shares of each clip, in their order. Raises TrainingError where one is not stored."""
    sampling = store.spec.sampling
    lists = []
    for row, clip_id in zip(rows.tolist(), clip_ids.tolist(), strict=True):
        num_frames = int(store.clips.num_frames[row])
        stored = _stored_frames(store, row)
        if stored is None:
            raise TrainingError(
                f"the head reads the frame at {positions[0]:g} of each clip, and {store.path} holds {sampling}, which "
                f"does not say where in clip {clip_id!r} its steps lie; featurize with {FIVE_POSITIONS}"
            )
        wanted = position_frames(num_frames, positions)
        places, lacking = _places(stored, wanted)
        if lacking.size:
            share = positions[wanted.tolist().index(int(lacking[0]))]
            raise TrainingError(
                f"the head reads the frame at {share:g} of clip {clip_id!r}, frame {int(lacking[0])} of {num_frames}, "
                f"which {store.path} does not hold (sampling {sampling}); featurize with {FIVE_POSITIONS}"
            )
        lists.append(places)
    return lists


def first_steps(store: Store, rows: NDArray[np.int64], clip_ids: NDArray[Any], count: int) -> None:
    """Raises TrainingError unless the first `count` steps of each clip are its first frames, or all that it has."""
    for row, clip_id in zip(rows.tolist(), clip_ids.tolist(), strict=True):
        stored = _stored_frames(store, row)
        wanted = np.arange(min(count, int(store.clips.num_frames[row])))
        if stored is None or not np.array_equal(stored[:count], wanted):
            raise TrainingError(
                f"the head reads the first {count} steps of each clip, and {store.path} does not hold them of clip "
                f"{clip_id!r}, or not once each (sampling {store.spec.sampling}); featurize with --sampling "
                f"first:{count}"
            )


def own_steps(store: Store, rows: NDArray[np.int64]) -> list[Steps]:
    """All steps of each clip but those at its end that repeat the one before, as no frame comes after."""
    counts = store.num_steps[rows] - repeated_steps(store, rows)
    return [np.arange(count) for count in counts.tolist()]


def repeated_steps(store: Store, rows: NDArray[np.int64]) -> Steps:
    """(N,) steps at the end of each clip that repeat the one before; 0 where that is not known."""
    counts: Steps = np.maximum(store.clips.arrays["repeated_steps"][rows], 0).astype(np.int64)
    return counts


def nearest_steps(
    store: Store, rows: NDArray[np.int64], frames: Sequence[NDArray[np.int64]]
) -> tuple[list[Steps], int]:
    """For each frame the stored step of the nearest one, of two the later; and how many are of another frame."""
    lists, moved = [], 0
    for row, wanted in zip(rows.tolist(), frames, strict=True):
        stored = store.frame_index(row)
        later = np.minimum(np.searchsorted(stored, wanted), len(stored) - 1)
        before = np.maximum(later - 1, 0)
        nearer = np.abs(stored[before] - wanted) < np.abs(stored[later] - wanted)
        places = np.where(nearer, before, later)
        moved += int((stored[places] != wanted).sum())
        lists.append(places.astype(np.int64))
    return lists, moved


def _stored_frames(store: Store, row: int) -> Steps | None:
    """(T,) the frame of each step, counted from the clip's first; None where the sampling does not say which that is.

    Of a union the first of the frames of all its rules is stored.
    """
    num_frames = int(store.clips.num_frames[row])
    starts = [_start(rule, num_frames) for rule in re.split(r"\+(?![0-9])", store.spec.sampling)]
    known = [start for start in starts if start is not None]
    if not known or (len(known) < len(starts) and min(known) > 0):
        return None
    frames = store.frame_index(row)
    stored: Steps = frames - frames.min() + min(known)
    return stored


def _start(rule: str, num_frames: int) -> int | None:
    """The earliest frame that a rule takes of a clip of N frames; None where that is drawn or not known."""
    name, _, rest = rule.partition(":")
    if name in WHOLE:
        return 0
    if name == "position":
        return int(position_frames(num_frames, [float(share) for share in rest.split(",")]).min())
    if name == "consecutive":
        count, _, start = rest.partition(":")
        return {"zero": 0, "centre": max(num_frames - int(count), 0) // 2}.get(start)
    return None


def _places(stored: Steps, wanted: Steps) -> tuple[Steps, Steps]:
    """(the step that holds each of `wanted`, those of `wanted` that none holds)."""
    order = np.argsort(stored, kind="stable")
    places = order[np.minimum(np.searchsorted(stored[order], wanted), len(stored) - 1)]
    return places, wanted[stored[places] != wanted]
