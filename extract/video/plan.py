"""Which frames a video has, when they are shown, and from where each can be decoded.

Container metadata is a hint. Where a container gives one unique timestamp per packet, a walk over the packets
(demuxing, no decoding) gives times, keyframes and a `GopPlan`. Everything else (AVI, MPEG-4 part 2, missing
timestamps) is counted by decoding: the order in which the decoder emits frames is the truth.

A file that ends early keeps the frames before the break and says so in `VideoScan.broken`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from reelbank.extract.errors import DecodeError
from reelbank.extract.video import access_points
from reelbank.extract.video.counting import (
    announced_more,
    because,
    counted,
    lost_frames,
    result_of,
)
from reelbank.extract.video.damage import MAX_REORDER_FRAMES, Reports, listening
from reelbank.extract.video.opening import MATROSKA, MOV, Limits, open_video
from reelbank.extract.video.scan import NO_TIMESTAMP, Examination, Positions
from reelbank.extract.video.scan import GopPlan as GopPlan
from reelbank.extract.video.scan import VideoScan as VideoScan
from reelbank.extract.video.timeline import COUNTED, time_line
from reelbank.extract.video.truncation import ending

PLAN_FORMATS = (MATROSKA, MOV)
# One packet = one shown frame. Not so for VP8 (hidden reference frames are packets) and MPEG-4 part 2
# (packed B-frames).
PLAN_CODECS = ("av1", "h264", "hevc", "libdav1d", "vp9")
# Decoders that drop a non-reference frame by its header alone. VP9 and AV1 carry entropy state through it.
SKIP_CODECS = ("h264", "hevc")

KEPT_BYTES = 64 * 2**20


@dataclass
class _Walk:
    """What the packets say, in decode order."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    packets: list[Any] | None = field(default_factory=list)
    has_sublayers: bool = False
    first_frame: Any = None
    drained: bool = False
    frames_decoded: int = 0
    broken: str | None = None
    reports: Reports | None = None


def scan(
    path: str | Path, *, stream_index: int | None = None, count: bool = False, limits: Limits | None = None
) -> VideoScan:
    """Scans a video file.

    Args:
        path: a local file.
        stream_index: stream of the container; None is the best video stream (FFmpeg's choice: resolution,
            then bit rate).
        count: count by decoding whatever the container says.
        limits: of frame size, number of frames and duration.

    Raises:
        DecodeError: not a readable video, no video stream, no frame, or past a limit.
    """
    limits = limits or Limits()
    container, stream = open_video(path, stream_index=stream_index, limits=limits)
    with container, listening():
        examination = examine(path, container, stream, count=count, limits=limits, kept_bytes=0)
    if examination is None:
        return scan(path, stream_index=stream_index, count=True, limits=limits)
    return examination.scan


def examine(
    path: str | Path, container: Any, stream: Any, *, count: bool, limits: Limits, kept_bytes: int = KEPT_BYTES
) -> Examination | None:
    """Scans an open container from its first packet on.

    Returns:
        None where the packets do not tell: open the file anew and pass `count=True`.

    Raises:
        DecodeError: as `scan`.
    """
    name = str(path)
    if not count and container.format.name in PLAN_FORMATS and stream.codec_context.name in PLAN_CODECS:
        walk = _walk(name, container, stream, limits, kept_bytes)
        return _planned(name, container, stream, walk, limits)
    return counted(name, container, stream, limits, kept_bytes)


def _walk(path: str, container: Any, stream: Any, limits: Limits, kept_bytes: int) -> _Walk:
    walk, codec = _Walk(), stream.codec_context.name
    reports = walk.reports = Reports(stream.codec_context)
    length_bytes = access_points.nal_length_bytes(codec, stream.codec_context.extradata)
    bytes_read = num_whole = 0
    try:
        for packet in container.demux(stream):
            reports.read(len(walk.pts), packet)
            if packet.size == 0 and packet.dts is None and packet.pts is None:
                continue  # the end of the stream
            walk.pts.append(packet.pts)
            walk.dts.append(packet.dts)
            walk.shown.append(not packet.is_discard)
            walk.durations.append(packet.duration or 0)
            walk.starts.append(_is_start(walk, packet, codec, length_bytes))
            limits.check_frames(path, len(walk.pts))
            limits.news()
            bytes_read += packet.size
            if walk.packets is not None:
                walk.packets.append(packet)
                if bytes_read > kept_bytes:
                    walk.packets = None
            if packet.is_corrupt:
                continue
            num_whole = len(walk.pts)
            if walk.first_frame is None and not walk.drained:
                _decode_first(path, stream, packet, walk)
                reports.skip()  # what is wanted is decoded once more
    except av.FFmpegError as error:
        walk.broken = f"packet {len(walk.pts)} cannot be read ({error.strerror})"
    if num_whole < len(walk.pts):  # flagged as corrupt, and nothing follows
        walk.broken = walk.broken or f"packet {num_whole} is cut off"
        for column in (walk.pts, walk.dts, walk.starts, walk.shown, walk.durations, walk.packets or []):
            del column[num_whole:]
    stream.codec_context.flush_buffers()
    return walk


def _is_start(walk: _Walk, packet: Any, codec: str, length_bytes: int | None) -> bool:
    if codec == "hevc" and length_bytes is not None:
        start, sublayer = access_points.starts_hevc(memoryview(packet), length_bytes)
        walk.has_sublayers |= sublayer > 0
        return start and packet.is_keyframe
    if codec == "h264" and length_bytes is not None:
        return packet.is_keyframe and access_points.starts_h264(memoryview(packet), length_bytes)
    return bool(packet.is_keyframe) and codec not in SKIP_CODECS


def _decode_first(path: str, stream: Any, packet: Any, walk: _Walk) -> None:
    """The first shown frame: the container alone does not tell how it is turned, and a decoder must exist."""
    try:
        frames = stream.decode(packet)
        if not frames and walk.shown == [True]:
            frames, walk.drained = stream.decode(None), True
    except av.FFmpegError as error:
        raise DecodeError(path, f"the decoder {stream.codec_context.name} fails ({error.strerror})", 0) from error
    walk.frames_decoded += len(frames)
    if frames:
        walk.first_frame = frames[0]


def _planned(path: str, container: Any, stream: Any, walk: _Walk, limits: Limits) -> Examination | None:
    reports = walk.reports
    assert reports is not None
    if not any(walk.shown):
        raise DecodeError(path, f"video stream {stream.index} has no frame{because(walk.broken)}")
    usable = None not in walk.pts and walk.first_frame is not None and walk.starts[0]
    if not usable:
        return None
    pts = np.asarray(walk.pts, np.int64)
    dts = np.asarray([NO_TIMESTAMP if value is None else value for value in walk.dts], np.int64)
    shown = np.asarray(walk.shown, np.bool_)
    position_of = np.flatnonzero(shown)[np.argsort(pts[shown], kind="stable")]
    emitted = pts[position_of]
    # Leading pictures of the very first keyframe cannot be decoded: how many are emitted is the decoder's secret.
    if len(np.unique(pts)) < len(pts) or bool((pts < pts[0]).any()):
        return None
    # A stamp that is wrong would take its frame to another place than the decoder does.
    moved = np.abs(np.argsort(np.argsort(pts[shown], kind="stable"), kind="stable") - np.arange(shown.sum()))
    if int(moved.max()) > (MAX_REORDER_FRAMES if _reorders(stream.codec_context) else 0):
        return None
    end = ending(Path(path))
    broken = walk.broken or announced_more(container, stream, len(pts), end)
    if broken is not None:
        keep = _before_break(emitted, dts)
        if keep == 0:
            raise DecodeError(path, f"no whole frame: {broken}")
        position_of, emitted = position_of[:keep], emitted[:keep]
    line = time_line(path, container, stream, emitted)
    last_seconds = walk.durations[int(position_of[-1])] * float(stream.time_base) or float(1 / line.rate_fps)
    if line.source == COUNTED:
        last_seconds = float(1 / line.rate_fps)
    gop_plan = GopPlan(
        pts=pts,
        dts=dts,
        starts=np.asarray(walk.starts, np.bool_),
        position_of=position_of,
        skip_nonref=stream.codec_context.name in SKIP_CODECS and not walk.has_sublayers,
        reports=tuple(reports.found),
    )
    result = result_of(
        path, stream, walk.first_frame, line, last_seconds, broken, gop_plan, limits,
        lost=lost_frames(reports.found, position_of.tolist()), num_errors=reports.num_errors,
        end_known=end.is_known,
    )  # fmt: skip
    return Examination(scan=result, packets=walk.packets, frames_decoded=walk.frames_decoded)


def _reorders(context: Any) -> bool:
    """Whether frames may be shown in another order than that of their packets."""
    return context.name in SKIP_CODECS and bool(context.has_b_frames)


def _before_break(emitted: Positions, dts: Positions) -> int:
    """How many frames surely come before any that is missing: no frame is shown before it is decoded."""
    if dts[-1] == NO_TIMESTAMP:
        return max(len(emitted) - MAX_REORDER_FRAMES, 0)
    return int(np.searchsorted(emitted, dts[-1], side="right"))
