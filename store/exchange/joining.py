"""Which array of a source is which clip's, and which of its steps lie in the clip's interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reelbank.store.errors import StoreError
from reelbank.store.exchange.import_arrays import ArraySource, Times
from reelbank.store.exchange.table import file_name

if TYPE_CHECKING:
    from reelbank.manifests import Clip, Manifest

MAX_NAMED = 3
CLIP, VIDEO = "clip", "video"
_SLACK_SECONDS = 1e-6
"""Less than any two frames are apart, more than the last bits of milliseconds divided by 1000."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a clip takes of an array.

    Attributes:
        name: the array; None where there is none.
        steps: (first, one past the last) that are taken; None: all.
        added_seconds: what its times lack, where they count from the clip's start.
        reason: why none is taken.
        untimed: whether that is because nothing says when its steps are.
    """

    name: str | None
    steps: tuple[int, int] | None = None
    added_seconds: float = 0.0
    reason: str = ""
    untimed: bool = False

    def taken(self, count: int) -> tuple[int, int]:
        """(first, one past the last) of an array of `count` steps."""
        return (0, count) if self.steps is None else self.steps

    def times(self, times: Times) -> Times:
        """The times of the steps that are taken, of those of the whole array."""
        first, last = self.steps or (0, None)
        seconds, frames = times.step_seconds, times.frame_index
        return replace(
            times,
            step_seconds=None if seconds is None else seconds[first:last] + self.added_seconds,
            frame_index=None if frames is None else frames[first:last],
        )


def shares(source: ArraySource, manifest: Manifest, array_of: str | None) -> tuple[list[Share], tuple[str, ...]]:
    """What each clip takes, and what to say of it.

    Args:
        source: arrays as (T, *axes).
        manifest: the clips, in order.
        array_of: `clip` or `video`, where it was said what an array holds; else what an array is called decides.

    Raises:
        StoreError: no array belongs to a clip; one could be that of two; every clip that is a part of a video would
            need times that are not there.
    """
    matched, exported = _joined(source, manifest), _exported(source)
    found = []
    whole = 0
    for clip, (name, called_by_clip) in zip(manifest.clips, matched, strict=True):
        is_cut = exported.get(clip.clip_id) == (clip.start_seconds, clip.end_seconds)
        if name is None or not _has_interval(clip) or is_cut:
            found.append(Share(name=name))
        elif array_of == CLIP or (array_of is None and called_by_clip and source.header is None):
            whole += array_of is None
            found.append(_own(source, clip, name))
        else:
            found.append(_cut(source, clip, name))
    if (untimed := [share for share in found if share.untimed]) and not any(share.steps for share in found):
        raise StoreError(untimed[0].reason)
    _refuse_doubled(source, manifest, found)
    note = f"{whole} arrays are called by clip id: each is taken whole as its clip; if they are of videos, "
    return found, (f"{note}pass --array-of video",) if whole else ()


def _has_interval(clip: Clip) -> bool:
    return clip.start_seconds is not None or clip.end_seconds is not None


def _exported(source: ArraySource) -> dict[str, tuple[float | None, float | None]]:
    """{clip id: its interval} of an export of reelbank, whose arrays are cut already; of another source nothing."""
    if source.header is None:
        return {}
    edges = (
        [None if math.isnan(edge) else edge for edge in source.columns[f"manifest/{name}"].astype(float).tolist()]
        for name in ("start_seconds", "end_seconds")
    )
    return dict(zip(source.columns["manifest/clip_id"].tolist(), zip(*edges, strict=True), strict=True))


def _own(source: ArraySource, clip: Clip, name: str) -> Share:
    """The whole array. Times that begin before the clip does count from the clip's start."""
    start = clip.start_seconds or 0.0
    seconds = _seconds(source, name)
    before = seconds is not None and bool(len(seconds)) and seconds[0] < start - _SLACK_SECONDS
    return Share(name=name, added_seconds=start if before else 0.0)


def _cut(source: ArraySource, clip: Clip, name: str) -> Share:
    start = clip.start_seconds or 0.0
    end = math.inf if clip.end_seconds is None else clip.end_seconds
    interval = f"{start:g} s to {'the end' if math.isinf(end) else f'{end:g} s'}"
    seconds = _seconds(source, name)
    if seconds is None:
        reason = (
            f"nothing says when the steps of the array are: clip {clip.clip_id!r} is {interval} of its video, and "
            f"{source.path.name} has no times for {name!r}; put {name}_timestamps_ms.npy (one per step) beside it, or "
            "timestamps_ms into its .npz, or pass --array-of clip if each array holds the steps of its clip alone"
        )
        return Share(name=name, reason=reason, untimed=True)
    counts = {source.shape(name, tap)[0][0] for tap in source.arrays[name]}
    if counts != {len(seconds)}:
        listed = ", ".join(map(str, sorted(counts)))
        return Share(name=name, reason=f"times of other steps: {len(seconds)} times for {listed} steps of {name!r}")
    if not (np.diff(seconds) >= 0).all():
        return Share(name=name, reason=f"times that do not ascend: those of the steps of {name!r}")
    first, last = (int(np.searchsorted(seconds, edge - _SLACK_SECONDS)) for edge in (start, end))
    if first == last:
        there = f"they are at {seconds[0]:g} to {seconds[-1]:g} s" if len(seconds) else "there is none"
        return Share(name=name, reason=f"no step in the interval: {interval} of {name!r}, {there}")
    return Share(name=name, steps=(first, last))


def _seconds(source: ArraySource, name: str) -> np.ndarray | None:
    seconds = source.times(name).step_seconds
    return None if seconds is None or not np.isfinite(seconds).all() else seconds


def _refuse_doubled(source: ArraySource, manifest: Manifest, found: list[Share]) -> None:
    """Raises StoreError where one array would be, whole, that of two clips."""
    owners: dict[str, str] = {}
    for clip, share in zip(manifest.clips, found, strict=True):
        if share.name is None or share.steps is not None or share.reason:
            continue
        if (other := owners.setdefault(share.name, clip.clip_id)) != clip.clip_id:
            raise StoreError(
                f"clips {other!r} and {clip.clip_id!r} are of one video, and {source.path} has one array "
                f"{share.name!r} for both; name the arrays by clip id, or give the clips intervals and the array times"
            )


Matched = list[tuple[str | None, bool]]
"""(the array of each clip, None where there is none; whether it is called by clip id and not by the video)."""


def _joined(source: ArraySource, manifest: Manifest) -> Matched:
    if source.header is not None:
        names: Matched = [(c.clip_id if c.clip_id in source.arrays else None, True) for c in manifest.clips]
    else:
        names = _matched(_lookup(list(source.arrays)), manifest, source)
        suffix = _common_suffix(list(source.arrays))
        # video_features' files without their timestamps: every one ends in `_clip`
        if suffix and not any(name for name, _ in names):
            lookup = {key.removesuffix(suffix): found for key, found in _lookup(list(source.arrays)).items()}
            names = _matched(lookup, manifest, source)
    if not any(name for name, _ in names) and len(manifest) and source.arrays:
        ours = ", ".join(repr(clip.clip_id) for clip in manifest.clips[:MAX_NAMED])
        theirs = ", ".join(map(repr, list(source.arrays)[:MAX_NAMED]))
        raise StoreError(
            f"no array of {source.path} belongs to a clip of {manifest.name}: the arrays are called {theirs}, the "
            f"clips {ours}; name the arrays by clip id or by the file stem of the video"
        )
    if not source.arrays:
        raise StoreError(f"{source.path} holds no array of a clip")
    return names


def _lookup(names: list[str]) -> dict[str, list[str]]:
    """{name, or its last part: the arrays called so}."""
    lookup: dict[str, list[str]] = {}
    for name in names:
        for key in dict.fromkeys((name, name.rpartition("/")[2])):
            lookup.setdefault(key, []).append(name)
    return lookup


def _common_suffix(names: list[str]) -> str:
    """`_word` if every name ends in it, else nothing."""
    endings = {name.rpartition("_")[2] for name in names}
    return f"_{endings.pop()}" if len(endings) == 1 and all("_" in name for name in names) else ""


def _matched(lookup: Mapping[str, list[str]], manifest: Manifest, source: ArraySource) -> Matched:
    names: Matched = []
    for clip in manifest.clips:
        video = Path(clip.video)
        by_video = [video.with_suffix("").as_posix(), video.stem] if clip.video else []
        key = next((key for key in (clip.clip_id, file_name(clip.clip_id), *by_video) if key in lookup), None)
        found = lookup[key] if key is not None else []
        if len(found) > 1:
            raise StoreError(
                f"clip {clip.clip_id!r}: {source.path} has {len(found)} arrays called {key!r} "
                f"({', '.join(found[:MAX_NAMED])}); name them by clip id"
            )
        names.append((found[0] if found else None, key is not None and key not in by_video))
    return names
