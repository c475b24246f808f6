"""Which frames of one clip a sampling takes.

Indices are 0-based positions in emission order and never leave the clip. All arithmetic is on the clip's own frames:
the caller adds the first index of the interval.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt

from reelbank.extract.inputs.sampling import (
    All,
    Consecutive,
    Every,
    First,
    Fps,
    Position,
    Random,
    Rule,
    Sampling,
    Uniform,
    Union,
    fixed_steps,
)

Indices = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]

PAST_END = ("error", "pad", "repeat")


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What a sampling took from one clip.

    Attributes:
        frame_index: (T,) positions in the clip's frames, in step order; may repeat.
        valid_steps: T. Under `pad` it is below the number asked for where the clip is shorter.
    """

    frame_index: Indices
    valid_steps: int


def choose(
    sampling: Sampling,
    times_seconds: Seconds,
    duration_seconds: float,
    *,
    clip_id: str,
    seed: int,
    past_end: str = "repeat",
    start_seconds: float | None = None,
) -> Choice:
    """Applies a sampling to the frames of one clip.

    Args:
        sampling: the rule.
        times_seconds: (N,) ascending times of the clip's frames.
        duration_seconds: length of the clip's interval, used by `fps` alone.
        clip_id: with the seed, decides random starts and frames.
        seed: of the whole extraction.
        past_end: what a clip with fewer frames than steps gives: `repeat` repeats frames (`uniform` by its
            formula, `random` evenly, `consecutive` by looping), `pad` gives each frame once and fewer steps,
            `error` raises.
        start_seconds: time of step 0 of `fps`; None is the first frame's.

    Raises:
        ValueError: the clip has no frames, or too few under `error`.
    """
    check_past_end(past_end)
    if isinstance(sampling, Union):
        chosen = [
            choose(
                part, times_seconds, duration_seconds, clip_id=clip_id, seed=seed, past_end=past_end,
                start_seconds=start_seconds,
            ).frame_index
            for part in sampling.parts
        ]  # fmt: skip
        together = np.unique(np.concatenate(chosen))
        return Choice(frame_index=together, valid_steps=len(together))
    num_frames = len(times_seconds)
    if num_frames == 0:
        raise ValueError(f"clip {clip_id!r} has no frames; correct start_seconds and end_seconds")
    asked = fixed_steps(sampling)
    if asked is not None and asked > num_frames and not isinstance(sampling, Position):
        if past_end == "error":
            raise ValueError(
                f"clip {clip_id!r}: {sampling} asks for {asked} frames, the clip has {num_frames}; "
                "take fewer steps or pass --past-end repeat (or pad)"
            )
        if past_end == "pad":
            return Choice(frame_index=np.arange(num_frames, dtype=np.int64), valid_steps=num_frames)
    start = float(times_seconds[0]) if start_seconds is None else start_seconds
    frame_index = _indices(sampling, times_seconds - start, duration_seconds, f"{seed}\0{clip_id}")
    return Choice(frame_index=frame_index, valid_steps=len(frame_index))


def _indices(sampling: Rule, offsets_seconds: Seconds, duration_seconds: float, key: str) -> Indices:
    num_frames = len(offsets_seconds)
    match sampling:
        case Uniform(num_steps=steps):
            spaced = np.linspace(0, num_frames - 1, steps, endpoint=not sampling.open)
            return np.floor(spaced).astype(np.int64)
        case Consecutive(num_steps=steps):
            return (_start(sampling, num_frames, key) + np.arange(steps, dtype=np.int64)) % num_frames
        case Position(positions=positions):
            exact = np.floor(np.asarray(positions, np.float64) * num_frames).astype(np.int64)
            return np.minimum(exact, num_frames - 1)
        case Random(num_steps=steps):
            times_each, once_more = divmod(steps, num_frames)
            taken = np.full(num_frames, times_each)
            taken[_shuffled(num_frames, key)[:once_more]] += 1
            return np.repeat(np.arange(num_frames, dtype=np.int64), taken)
        case Every(stride_frames=stride):
            return np.arange(0, num_frames, stride, dtype=np.int64)
        case First(num_steps=steps):
            return np.arange(min(steps, num_frames), dtype=np.int64)
        case All():
            return np.arange(num_frames, dtype=np.int64)
        case Fps(rate_fps=rate):
            steps = max(round(duration_seconds * rate), 1)
            return _nearest(offsets_seconds, np.arange(steps, dtype=np.float64) / rate)
    assert_never(sampling)


def _start(sampling: Consecutive, num_frames: int, key: str) -> int:
    last = num_frames - sampling.num_steps
    if last <= 0 or sampling.start == "zero":
        return 0
    if sampling.start == "centre":
        return last // 2
    # A 64-bit hash scaled to 0..last: the same on every platform and for every order of the clips.
    drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return (drawn * (last + 1)) >> 64


def _shuffled(num_frames: int, key: str) -> Indices:
    # By raw bits: numpy keeps those the same from version to version, its shuffles it need not.
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
    return np.argsort(np.random.PCG64(seed).random_raw(num_frames), kind="stable").astype(np.int64)


def _nearest(offsets_seconds: Seconds, wanted_seconds: Seconds) -> Indices:
    right = np.clip(np.searchsorted(offsets_seconds, wanted_seconds), 0, len(offsets_seconds) - 1)
    left = np.maximum(right - 1, 0)
    to_left = np.abs(wanted_seconds - offsets_seconds[left])
    to_right = np.abs(offsets_seconds[right] - wanted_seconds)
    # Times are sums of binary fractions: a tie within a nanosecond is a tie.
    return np.where(to_left <= to_right + 1e-9, left, right).astype(np.int64)


def check_past_end(past_end: str) -> None:
    """Raises ValueError unless it is one of PAST_END."""
    if past_end not in PAST_END:
        raise ValueError(f"{past_end = } is not one of {', '.join(PAST_END)}")
