"""Which frames of a video a clip's interval holds."""

from __future__ import annotations

import math

import numpy as np

from reelbank.extract.inputs.frame_choice import Seconds, check_past_end


def clip_frames(
    times_seconds: Seconds,
    duration_seconds: float,
    *,
    clip_id: str,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    past_end: str = "repeat",
) -> tuple[int, int]:
    """The frames with start <= t < end: (first, stop), so that the clip is `times_seconds[first:stop]`.

    Args:
        times_seconds: (N,) ascending times of the video's frames; the first may be later than 0.
        duration_seconds: time at which the last frame ends.
        clip_id: for the messages.
        start_seconds: start of the clip; None is the start of the video.
        end_seconds: end of the clip, itself not in it; None is the end of the video.
        past_end: under `error` an end more than one mean frame time after the video's end is refused;
            `repeat` and `pad` take the frames that there are.

    Raises:
        ValueError: no frame lies in the interval, or `past_end` is `error` and it is too long.
    """
    check_past_end(past_end)
    start = 0.0 if start_seconds is None else start_seconds
    end = math.inf if end_seconds is None else end_seconds
    if math.isnan(start) or math.isnan(end) or end <= start:
        raise ValueError(
            f"clip {clip_id!r}: the interval [{start:g}, {end:g}) s is empty; end_seconds must lie after start_seconds"
        )
    begin = float(times_seconds[0]) if len(times_seconds) else 0.0
    frame_seconds = (duration_seconds - begin) / max(len(times_seconds), 1)
    if past_end == "error" and end_seconds is not None and end > duration_seconds + frame_seconds:
        raise ValueError(
            f"clip {clip_id!r}: end_seconds={end:g} is past the video's {duration_seconds:.6g} s; "
            "shorten the clip or pass --past-end repeat"
        )
    low = -math.inf if start_seconds is None else start
    first, stop = (int(index) for index in np.searchsorted(times_seconds, (low, end), side="left"))
    if first == stop:
        later = f", of which the first is shown at {begin:.6g} s" if begin > 0 else ""
        raise ValueError(
            f"clip {clip_id!r}: no frame starts in [{start:g}, {end:g}) s of the video's "
            f"{duration_seconds:.6g} s and {len(times_seconds)} frames{later}; correct start_seconds and end_seconds"
        )
    return first, stop
