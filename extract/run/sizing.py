"""What a store will take on disk, said before anything is decoded; and when frames would take less than features."""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Iterable, Sequence
from typing import assert_never

from reelbank.extract import backbones
from reelbank.extract.errors import DiskFullError
from reelbank.extract.inputs.sampling import (
    MAX_STEPS,
    All,
    Consecutive,
    Every,
    First,
    Fps,
    Position,
    Random,
    Sampling,
    Uniform,
    Union,
    fixed_steps,
    most_steps,
)
from reelbank.extract.run.messages import ModelJob
from reelbank.manifests import Clip
from reelbank.store.description import readable
from reelbank.store.geometry import Geometry, stored_steps
from reelbank.store.spec import TapSpec

CROP_BYTES, FRAME_BYTES = 224 * 224 * 3, 256 * 341 * 3
"""One uint8 frame of `frames`, which serves one view, and of `frames:256`, which serves all of them."""
ASSUMED_FPS = 25.0
"""For sizes alone, where the manifest says no rate."""
NOTED_PADDING = 1.1


def expected_steps(sampling: Sampling, clips: Iterable[Clip]) -> list[int]:
    """About how many steps each clip will have whose start and end the manifest says; nothing is opened for it.

    Frames are counted by the clip's `rate_fps`, else by ASSUMED_FPS. Clips whose length is not known are there where
    the sampling itself says how many steps they have at most. Empty where every clip has the same number.
    """
    if fixed_steps(sampling) is not None:
        return []
    found: list[int] = []
    most = most_steps(sampling)
    for clip in clips:
        if clip.start_seconds is not None and clip.end_seconds is not None and clip.end_seconds > clip.start_seconds:
            found.append(_steps(sampling, clip.end_seconds - clip.start_seconds, _rate_fps(clip)))
        elif most is not None:
            found.append(most)
    return [min(count, MAX_STEPS) for count in found]


def _steps(sampling: Sampling, seconds: float, rate_fps: float) -> int:
    """Of a clip of this length; of a union as if its rules chose different frames."""
    num_frames = max(1, round(seconds * rate_fps))
    match sampling:
        case All():
            return num_frames
        case Every(stride_frames=stride):
            return -(-num_frames // stride)
        case First(num_steps=steps):
            return min(num_frames, steps)
        case Fps(rate_fps=rate):
            return max(1, round(seconds * rate))
        case Union(parts=parts):
            return min(num_frames, sum(_steps(part, seconds, rate_fps) for part in parts))
        case Uniform() | Consecutive() | Random():
            return sampling.num_steps
        case Position(positions=positions):
            return len(positions)
    assert_never(sampling)


def _rate_fps(clip: Clip) -> float:
    try:
        rate_fps = float(clip.text.get("rate_fps", ""))
    except ValueError:  # whoever opens the clip says so
        return ASSUMED_FPS
    return rate_fps if 0 < rate_fps < MAX_STEPS else ASSUMED_FPS


def plan_notes(
    job: ModelJob, num_clips: int, num_viewed: int, counts: Sequence[int] = (), geometry: Geometry | None = None
) -> list[str]:
    """Sentences for a person about the clips that a run will extract; none where there is nothing to do.

    Args:
        job: model, taps, views and sampling.
        num_clips: clips to extract.
        num_viewed: those of them that get every view.
        counts: expected steps of those of which they are known.
        geometry: how the store is cut.
    """
    if not num_clips:
        return []
    views, taps = len(job.spec.views), job.spec.taps
    step_bytes = sum(tap.step_bytes for tap in taps)
    steps = most_steps(job.sampling)
    at_most = "" if steps == fixed_steps(job.sampling) else "at most "
    each = ", ".join(f"{tap.name} {tap.step_bytes:,}" for tap in taps)
    line = f"{job.store}: {each} bytes per step" + (f" x {views} views" if views > 1 else "")
    if steps is not None:
        total = step_bytes * steps * (num_clips + num_viewed * (views - 1))
        line += f" x {at_most}{steps} steps: {at_most}{readable(total)} for {num_clips} clip{'s' * (num_clips != 1)}"
        line += " before compression" if any(tap.codec != "none" for tap in taps) else ""
        free = shutil.disk_usage(job.store.resolve().parent).free
        line += f"; the disk has only {readable(free)} free" if total > free else ""
    elif geometry is not None:
        line += _of_unlike_clips(job, num_clips, num_viewed, counts, geometry)
    reads_video = backbones.describe(job.model).source == "video"  # frames stand for nothing else
    return [line, *([advice] if reads_video and (advice := frames_advice(taps, views)) else [])]


LEAST_COMPRESSED = 0.05
"""Part of its bytes that a compressed tap takes at the very least; no feature compresses so well."""


def refuse_what_no_disk_holds(job: ModelJob, num_clips: int) -> None:
    """Raises DiskFullError where `num_clips` more clips, each of one view, cannot fit, whatever they hold."""
    steps = fixed_steps(job.sampling)
    if not steps:
        return
    each = sum(tap.step_bytes * (1.0 if tap.codec == "none" else LEAST_COMPRESSED) for tap in job.spec.taps)
    needed, free = math.ceil(each * steps * num_clips), shutil.disk_usage(job.store.resolve().parent).free
    if needed > free:
        clips = f"{num_clips:,} clip{'s' * (num_clips != 1)}"
        raise DiskFullError(
            errno.ENOSPC,
            f"{job.store}: {steps:,} steps of each of {clips} take {readable(needed)} or more, and its disk has "
            f"{readable(free)} free; ask for fewer steps (--sampling), a part of the clips (--split, --clip) or a "
            "place on another disk (--out)",
        )


def _of_unlike_clips(job: ModelJob, num_clips: int, num_viewed: int, counts: Sequence[int], geometry: Geometry) -> str:
    """What follows the bytes of a step where clips have as many steps as they have frames, or seconds."""
    free = shutil.disk_usage(job.store.resolve().parent).free
    if not counts:
        each = sum(tap.step_bytes for tap in job.spec.taps)
        return f"; how many steps clips have is seen when they are opened: {free // each:,} fit on the disk"
    # Clips whose length is not known are taken to be as long as the others.
    scale = (num_clips + num_viewed * (len(job.spec.views) - 1)) / len(counts)
    total = scale * sum(sum(counts) * tap.step_bytes for tap in job.spec.taps)
    stored = scale * sum(stored_steps(geometry, tap, n) * tap.step_bytes for tap in job.spec.taps for n in counts)
    line = f" x {min(counts)} to {max(counts)} steps, by the manifest's intervals: about {readable(total)} for "
    line += f"{num_clips} clip{'s' * (num_clips != 1)}"
    line += f", {readable(stored)} with the ends of their chunks" if stored > NOTED_PADDING * total else ""
    line += " before compression" if any(tap.codec != "none" for tap in job.spec.taps) else ""
    return line + (f"; the disk has only {readable(free)} free" if stored > free else "")


def frames_advice(taps: tuple[TapSpec, ...], views: int) -> str | None:
    """The sentence that recommends uint8 frames where they are smaller than the maps, or None.

    Maps of early layers are larger than the crop they came from, and are stored once per view; one frame of short
    side 256 serves every view.
    """
    maps = [tap for tap in taps if tap.axes == ("channel", "height", "width")]  # flow and heatmaps are no layers
    step_bytes = sum(tap.step_bytes for tap in maps) * views
    model, frame_bytes = ("frames", CROP_BYTES) if views == 1 else ("frames:256", FRAME_BYTES)
    if step_bytes <= frame_bytes:
        return None
    names = ", ".join(tap.name for tap in maps)
    return (
        f"{names}: {step_bytes:,} bytes per step{' in all views' * (views > 1)}, a uint8 frame takes {frame_bytes:,}: "
        f"--model {model} stores less and keeps every layer trainable"
    )
