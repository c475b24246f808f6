"""Whether arrays of two axes are (T, D) or (D, T). A guess is said; where there is no ground for one, it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.exchange.import_arrays import ArraySource, Stored

CHANNELS_FIRST, STEPS_FIRST = "DT", "TD"


@dataclass(frozen=True, kw_only=True)
class Turned:
    """An array (D, T) that is read as (T, D)."""

    array: Stored

    def describe(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        shape, dtype = self.array.describe()
        return (shape[::-1] if len(shape) == 2 else shape), dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        shape, _ = self.array.describe()
        if len(shape) != 2:
            return self.array.read(start, stop)
        return self.array.read(0, shape[0])[:, start:stop].T


def oriented(source: ArraySource, axes: str | None) -> tuple[ArraySource, tuple[str, ...]]:
    """The source with its arrays as (T, D), and a sentence for each tap where that was guessed or is in doubt.

    Args:
        source: arrays of another program; an export of reelbank is as it is.
        axes: `TD` or `DT` where it was said, else None.

    Raises:
        StoreError: the shapes speak for (D, T), but not clearly; `axes` for an export.
    """
    if source.header is not None:
        if axes is not None:
            raise StoreError(f"--axes {axes} is for arrays of other programs; {source.path} is an export of reelbank")
        return source, ()
    taps, notes = sorted({tap for own in source.arrays.values() for tap in own}), []
    turned = set()
    for tap in taps:
        first, note = (axes == CHANNELS_FIRST, "") if axes is not None else _guess(source, tap)
        notes += [f"tap {tap!r}: {note}"] if note else []
        turned |= {tap} if first else set()
    arrays = {
        name: {tap: Turned(array=array) if tap in turned else array for tap, array in own.items()}
        for name, own in source.arrays.items()
    }
    return replace(source, arrays=arrays), tuple(notes)


def _guess(source: ArraySource, tap: str) -> tuple[bool, str]:
    """(whether channels are first, what to say of it)."""
    shapes = _shapes(source, tap)
    if not shapes or any(len(shape) != 2 for shape in shapes.values()):
        return False, ""
    first, second = (Counter(shape[axis] for shape in shapes.values()) for axis in (0, 1))
    if len(first) > 1:  # steps differ from video to video, channels do not
        return False, ""
    channels = next(iter(first))
    by_times = _by_times(source, shapes)
    if by_times is not None:
        why = "as many times as the second axis is long"
        return by_times, f"arrays are (D, T) with {channels} channels ({why}): turned" if by_times else ""
    if len(second) > 1:
        if 2 * second.most_common(1)[0][1] > len(shapes):
            lengths = ", ".join(f"{count} x {channels} x {length}" for length, count in second.most_common(3))
            raise StoreError(
                f"{source.path}: all arrays of tap {tap!r} are {channels} long in the first axis, not in the second "
                f"({lengths}), as arrays (D, T) are; say which they are with --axes DT or --axes TD"
            )
        why = f"all {len(shapes)} agree on the first axis, the second varies"
        return True, f"arrays are (D, T) with {channels} channels ({why}): turned; if not, pass --axes TD"
    width = next(iter(second))
    if channels > width:
        return False, f"arrays are taken as {channels} steps of {width} channels; if they are (D, T), pass --axes DT"
    return False, ""


def _shapes(source: ArraySource, tap: str) -> Mapping[str, tuple[int, ...]]:
    found = {}
    for name, own in source.arrays.items():
        if tap in own:
            try:
                found[name] = own[tap].describe()[0]
            except StoreError:  # its clip will fail with this reason
                continue
    return {name: shape for name, shape in found.items() if shape}


def _by_times(source: ArraySource, shapes: Mapping[str, tuple[int, ...]]) -> bool | None:
    """What the numbers of times say where they are of one axis only; None where they do not."""
    votes = set()
    for name, (first, second) in shapes.items():
        try:
            seconds = source.times(name).step_seconds
        except StoreError:
            continue
        if seconds is not None and first != second and len(seconds) in (first, second):
            votes.add(len(seconds) == second)
    return votes.pop() if len(votes) == 1 else None
