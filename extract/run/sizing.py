"""What a store will take on disk, said before anything is decoded; and when frames would take less than features."""

from __future__ import annotations

import errno
import math
import shutil

import numpy as np

from reelbank.extract.errors import DiskFullError
from reelbank.extract.inputs.sampling import fixed_steps
from reelbank.extract.run.messages import ModelJob
from reelbank.store.description import readable
from reelbank.store.spec import TapSpec

CROP_BYTES, FRAME_BYTES = 224 * 224 * 3, 256 * 341 * 3
"""One uint8 frame of `frames`, which serves one view, and of `frames:256`, which serves all of them."""


def plan_notes(job: ModelJob, num_clips: int, num_viewed: int) -> list[str]:
    """Sentences for a person about the clips that a run will extract; none where there is nothing to do.

    Args:
        job: model, taps, views and sampling.
        num_clips: clips to extract.
        num_viewed: those of them that get every view.
    """
    if not num_clips:
        return []
    views, taps = len(job.spec.views), job.spec.taps
    step_bytes = sum(map(num_bytes, taps))
    steps = fixed_steps(job.sampling)
    each = ", ".join(f"{tap.name} {num_bytes(tap):,}" for tap in taps)
    line = f"{job.store}: {each} bytes per step" + (f" x {views} views" if views > 1 else "")
    if steps is not None:
        total = step_bytes * steps * (num_clips + num_viewed * (views - 1))
        line += f" x {steps} steps: {readable(total)} for {num_clips} clip{'s' * (num_clips != 1)}"
        line += " before compression" if any(tap.codec != "none" for tap in taps) else ""
        free = shutil.disk_usage(job.store.resolve().parent).free
        line += f"; the disk has only {readable(free)} free" if total > free else ""
    return [line, *([advice] if (advice := frames_advice(taps, views)) else [])]


LEAST_COMPRESSED = 0.05
"""Part of its bytes that a compressed tap takes at the very least; no feature compresses so well."""


def refuse_what_no_disk_holds(job: ModelJob, num_clips: int) -> None:
    """Raises DiskFullError where `num_clips` more clips, each of one view, cannot fit, whatever they hold."""
    steps = fixed_steps(job.sampling)
    if not steps:
        return
    each = sum(num_bytes(tap) * (1.0 if tap.codec == "none" else LEAST_COMPRESSED) for tap in job.spec.taps)
    needed, free = math.ceil(each * steps * num_clips), shutil.disk_usage(job.store.resolve().parent).free
    if needed > free:
        clips = f"{num_clips:,} clip{'s' * (num_clips != 1)}"
        raise DiskFullError(
            errno.ENOSPC,
            f"{job.store}: {steps:,} steps of each of {clips} take {readable(needed)} or more, and its disk has "
            f"{readable(free)} free; ask for fewer steps (--sampling), a part of the clips (--split, --clip) or a "
            "place on another disk (--out)",
        )


def frames_advice(taps: tuple[TapSpec, ...], views: int) -> str | None:
    """The sentence that recommends uint8 frames where they are smaller than the maps, or None.

    Maps of early layers are larger than the crop they came from, and are stored once per view; one frame of short
    side 256 serves every view.
    """
    maps = [tap for tap in taps if tap.axes == ("channel", "height", "width")]  # flow and heatmaps are no layers
    step_bytes = sum(map(num_bytes, maps)) * views
    model, frame_bytes = ("frames", CROP_BYTES) if views == 1 else ("frames:256", FRAME_BYTES)
    if step_bytes <= frame_bytes:
        return None
    names = ", ".join(tap.name for tap in maps)
    return (
        f"{names}: {step_bytes:,} bytes per step{' in all views' * (views > 1)}, a uint8 frame takes {frame_bytes:,}: "
        f"--model {model} stores less and keeps every layer trainable"
    )


def num_bytes(tap: TapSpec) -> int:
    """Bytes of one step, uncompressed."""
    return math.prod(tap.shape) * np.dtype(tap.dtype).itemsize
