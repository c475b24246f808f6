"""Clips of the same seconds of one video with different labels: each is an example of its own label alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What is asked of one clip; its interval is half-open, NaN or None where the video begins or ends."""

    clip_id: str
    video: str
    start_seconds: float | None
    end_seconds: float | None
    label: str

    @property
    def span(self) -> tuple[float, float]:
        """(start, end) in seconds, infinite where the manifest says nothing."""
        start, end = self.start_seconds, self.end_seconds
        return (
            -math.inf if start is None or math.isnan(start) else start,
            math.inf if end is None or math.isnan(end) else end,
        )

    def __str__(self) -> str:
        start, end = self.span
        where = f"{max(start, 0):g} s to {'the end' if math.isinf(end) else f'{end:g} s'}"
        return f"{self.clip_id!r} ({where}, {self.label!r})"


def contradictions(clips: Iterable[Labelled]) -> str:
    """One sentence: how many clips overlap one that begins no later, in the same video with another label; '' if none.

    Clips without a label or a video take no part.
    """
    by_video: dict[str, list[Labelled]] = defaultdict(list)
    for clip in clips:
        if clip.label and clip.video:
            by_video[clip.video].append(clip)
    count, example = 0, None
    for own in by_video.values():
        latest: list[Labelled] = []  # of each of two labels, the clip that ends last; those of a third end before them
        for clip in sorted(own, key=lambda clip: clip.span):
            other = next((before for before in latest if before.label != clip.label), None)
            if other is not None and other.span[1] > clip.span[0]:
                count += 1
                example = example or (other, clip)
            best: dict[str, Labelled] = {}
            for one in sorted([*latest, clip], key=lambda one: -one.span[1]):
                best.setdefault(one.label, one)
            latest = list(best.values())[:2]
    if example is None:
        return ""
    one, other = example
    return (
        f"{count} clip{'s overlap' if count != 1 else ' overlaps'} another of the same video that has another label, "
        f"such as {one} and {other} of {one.video}: each counts as an example of its own label alone"
    )
