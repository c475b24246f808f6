"""When frames are shown: what the file says, mended where single stamps are wrong, counted where they tell nothing.

The file's start is where players and annotation tools count from. MP4 and Matroska have a time line of their own, and 0
of it is the start, whatever begins later (HTML standard, "Offsets into the media resource"; Chromium and Firefox show
it). In the others, such as transport streams that begin at hours, it is the least start of their streams.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from reelbank.extract.errors import DecodeError
from reelbank.extract.video.scan import Positions, Seconds

CONTAINER, REPAIRED, COUNTED = "container", "repaired", "counted"

# No more of a file's stamps than this share are repaired; with more wrong ones nothing says which are right.
MOST_REPAIRED = 0.1
# Time bases of 1/60000 s and the like stand where a rate should, and stamps one tick apart are none: no camera does it.
MOST_FPS = 2000
SAME_RATE = 1e-3
# By less, picture and sound of most recordings begin apart: nobody is told.
LATE_SECONDS = 0.25
MICROSECOND = Fraction(1, 1_000_000)
# FFmpeg's names of the formats whose time line begins at 0.
FROM_ZERO = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeLine:
    """When each frame is shown.

    Attributes:
        seconds: (N,) ascending, in emission order, from the first frame.
        file_seconds: (N,) from the file's start, the nearest floats; None where `seconds` are the same.
        rate_fps: what the container calls its rate, else the mean.
        source: `container`, `repaired` or `counted`.
    """

    seconds: Seconds
    file_seconds: Seconds | None
    rate_fps: Fraction
    source: str


def time_line(path: str, container: Any, stream: Any, pts: Sequence[int | None] | Positions) -> TimeLine:
    """The line of frames with these stamps, in emission order.

    Raises:
        DecodeError: neither stamps nor a rate that a camera has.
    """
    stamps, source = repaired(pts)
    if source != COUNTED:
        seconds = (stamps - stamps[0]) * float(stream.time_base)
        if mean_rate(seconds, Fraction(1)) <= MOST_FPS:
            rate, late = rate_of(path, stream, seconds), _late_ticks(container, stream, stamps[0])
            # Divided, not multiplied: the nearest float, which is what a decimal number in a manifest is read as.
            tick = stream.time_base
            of_file = (stamps - stamps[0] + late) * tick.numerator / tick.denominator
            of_file = None if np.array_equal(of_file, seconds) else of_file
            return TimeLine(seconds=seconds, file_seconds=of_file, rate_fps=rate, source=source)
    return by_order_line(path, container, stream, np.arange(len(pts)), pts[0])


def by_order_line(
    path: str, container: Any, stream: Any, places: Positions, first: int | None, *, is_told: bool = False
) -> TimeLine:
    """The line of frames that follow each other at the container's rate.

    Args:
        path: for the message.
        container: open.
        stream: of the container.
        places: (N,) of each frame in the order.
        first: stamp of place 0, if it has one.
        is_told: whether the container itself says the places, as an AVI does.

    Raises:
        DecodeError: the container has no rate that a camera has.
    """
    rate = rate_of(path, stream, np.zeros(len(places)))
    skipped = max(int(places[0]), 0)
    start = 0.0 if first is None else _late_ticks(container, stream, first) * float(stream.time_base)
    return TimeLine(
        seconds=(places - skipped) / float(rate),
        file_seconds=places / float(rate) + start if skipped or start else None,
        rate_fps=rate,
        source=CONTAINER if is_told else COUNTED,
    )


def _late_ticks(container: Any, stream: Any, stamp: float) -> float:
    """Ticks from the file's start to a stamp; 0 where the file does not say when it starts, or the stamp is earlier."""
    if container.format.name in FROM_ZERO:
        return max(float(stamp), 0.0)
    if container.start_time is None:
        return 0.0
    ticks = Fraction(stamp) - container.start_time * MICROSECOND / stream.time_base
    # The start is rounded to microseconds: a whole number of ticks that is as near is meant.
    return max(float(round(ticks) if abs(round(ticks) - ticks) * stream.time_base <= MICROSECOND else ticks), 0.0)


def chunk_places(places: Positions, chunks: Sequence[tuple[int, int | None]], numbers: Sequence[int]) -> Positions:
    """Places in the index of an AVI, which counts empty chunks too: of a frame that was dropped when it was recorded.

    Args:
        places: (N,) of each frame among those that are not empty.
        chunks: (number of the packet, place of its chunk in the index), in decode order.
        numbers: (N,) of the packet that each frame was made of.
    """
    number, place = np.asarray([one for one in chunks if one[1] is not None], np.int64).reshape(-1, 2).T
    skipped = np.maximum(np.diff(place, prepend=0) - np.diff(number, prepend=0), 0).cumsum()
    if not skipped.any():
        return places
    # Behind an encoder that reorders, chunks are as late as it holds frames back.
    order = np.argsort(np.argsort(np.asarray(numbers, np.int64), kind="stable"), kind="stable")
    held = int((order - np.arange(len(order))).max(initial=0))
    found: Positions = places + skipped[np.maximum(np.searchsorted(number, places + held, side="right") - 1, 0)]
    return found


def repaired(pts: Sequence[int | None] | Positions) -> tuple[Seconds, str]:
    """Stamps that ascend, in ticks, and `container`, `repaired` or `counted` (the stamps tell nothing).

    Those that stand in the longest ascending sequence are kept; the others, and those that are not there, lie evenly
    between their neighbours, if they are a tenth at most; before the first and behind the last they lie at the median
    step. Where one of two neighbours is wrong, it is that one, or they are exchanged, whatever makes the steps around
    more even.
    """
    stamps = np.asarray(pts, np.float64)
    if not np.isnan(stamps).any() and (np.diff(stamps) > 0).all():
        return stamps, CONTAINER
    known = [(place, int(value)) for place, value in enumerate(pts) if value is not None]
    kept = longest_ascending([value for _, value in known])
    places = [known[i][0] for i in kept]
    if len(pts) - len(places) > MOST_REPAIRED * len(pts):
        return np.zeros(0), COUNTED
    order, values = np.arange(len(pts)), np.asarray([known[i][1] for i in kept], np.float64)
    step = float(np.median(np.diff(values) / np.diff(places)))
    beyond = np.minimum(order - places[0], 0) + np.maximum(order - places[-1], 0)
    stamps = np.interp(order, places, values) + beyond * step
    for wrong in np.setdiff1d(np.arange(1, len(pts) - 1), places).tolist():
        for left in (wrong - 1, wrong):
            _exchange(stamps, pts, left)
    return stamps, REPAIRED


def _exchange(stamps: Seconds, pts: Sequence[int | None] | Positions, left: int) -> None:
    """Takes what makes steps around the frames `left` and `left` + 1 even: as it is, one wrong, both exchanged."""
    first, last = max(left - 2, 0), min(left + 4, len(stamps))
    ours, theirs = pts[left], pts[left + 1]
    if ours is None or theirs is None or left == 0 or left + 2 == len(stamps):
        return
    before, behind = stamps[left - 1], stamps[left + 2]
    tried = [(ours, (ours + behind) / 2), ((before + theirs) / 2, theirs), (theirs, ours)]

    def unevenness(pair: tuple[float, float]) -> float:
        steps = np.diff(np.concatenate([stamps[first:left], pair, stamps[left + 2 : last]]))
        return float((np.diff(steps) ** 2).sum()) if (steps > 0).all() else np.inf

    best = min([(stamps[left], stamps[left + 1]), *tried], key=unevenness)
    stamps[left : left + 2] = best


def longest_ascending(values: Sequence[int]) -> list[int]:
    """Places of a longest strictly ascending part of `values`, in their order (patience sorting)."""
    ends: list[int] = []  # ends[k]: the least last value of an ascending part of k + 1
    places: list[int] = []
    before: list[int] = []
    for place, value in enumerate(values):
        k = bisect.bisect_left(ends, value)
        before.append(places[k - 1] if k else -1)
        if k == len(ends):
            ends.append(value)
            places.append(place)
        elif value < ends[k]:  # of two that are equal the first stands: who writes repeats what was
            ends[k], places[k] = value, place
    found = []
    place = places[-1] if places else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]


def rate_of(path: str, stream: Any, times_seconds: Seconds) -> Fraction:
    """The frame rate that the container gives, else the mean. Raises DecodeError where there is neither."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and rate <= MOST_FPS:
            return Fraction(rate)
    if times_seconds[-1] > 0:
        return mean_rate(times_seconds, Fraction(1))
    if len(times_seconds) == 1:
        return Fraction(1)
    raise DecodeError(path, "the container gives neither a frame rate nor usable timestamps")


def mean_rate(times_seconds: Seconds, nominal: Fraction) -> Fraction:
    """Frames per second between the first and the last; `nominal` where it is that, or there is no second frame."""
    span = float(times_seconds[-1] - times_seconds[0])
    if span <= 0:
        return nominal
    mean = (len(times_seconds) - 1) / span
    return nominal if abs(mean - nominal) <= SAME_RATE * nominal else Fraction(mean).limit_denominator(1_000_000)
