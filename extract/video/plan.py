"""Which frames a video has, when they are shown, and from where each can be decoded.

Container metadata is a hint. Where a container gives one unique timestamp per packet, a walk over the packets
(demuxing, no decoding) gives times, keyframes and a `GopPlan`. Everything else (AVI, MPEG-4 part 2, missing
timestamps) is counted by decoding: the order in which the decoder emits frames is the truth.

A file that ends early keeps the frames before the break and says so in `VideoScan.broken`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from reelbank.extract.errors import DecodeError
from reelbank.extract.video import access_points, transport
from reelbank.extract.video.opening import AVI, GIF, MATROSKA, MOV, MPEGTS, Limits, open_video
from reelbank.extract.video.scan import NO_TIMESTAMP, Examination, Positions, Seconds
from reelbank.extract.video.scan import GopPlan as GopPlan
from reelbank.extract.video.scan import VideoScan as VideoScan
from reelbank.extract.video.truncation import missing_bytes

PLAN_FORMATS = (MATROSKA, MOV)
# One packet = one shown frame. Not so for VP8 (hidden reference frames are packets) and MPEG-4 part 2
# (packed B-frames).
PLAN_CODECS = ("av1", "h264", "hevc", "libdav1d", "vp9")
# Decoders that drop a non-reference frame by its header alone. VP9 and AV1 carry entropy state through it.
SKIP_CODECS = ("h264", "hevc")
# Demuxers that give a part of a packet at the end of a file as if it were whole; the others flag it.
UNFLAGGED_FORMATS = (GIF, MPEGTS)

KEPT_BYTES = 64 * 2**20
# The largest reorder depth of H.264 and HEVC: without decode timestamps, so many frames before a break may
# lack an earlier neighbour.
_MAX_REORDER_FRAMES = 16


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
    with container:
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
    return _counted(name, container, stream, limits, kept_bytes)


def _walk(path: str, container: Any, stream: Any, limits: Limits, kept_bytes: int) -> _Walk:
    walk, codec = _Walk(), stream.codec_context.name
    length_bytes = access_points.nal_length_bytes(codec, stream.codec_context.extradata)
    bytes_read = 0
    try:
        for packet in container.demux(stream):
            if packet.size == 0 and packet.dts is None and packet.pts is None:
                continue  # the end of the stream
            if packet.is_corrupt:
                walk.broken = f"packet {len(walk.pts)} is cut off"
                break
            walk.pts.append(packet.pts)
            walk.dts.append(packet.dts)
            walk.shown.append(not packet.is_discard)
            walk.durations.append(packet.duration or 0)
            walk.starts.append(_is_start(walk, packet, codec, length_bytes))
            limits.check_frames(path, len(walk.pts))
            bytes_read += packet.size
            if walk.packets is not None:
                walk.packets.append(packet)
                if bytes_read > kept_bytes:
                    walk.packets = None
            if walk.first_frame is None and not walk.drained:
                _decode_first(path, stream, packet, walk)
    except av.FFmpegError as error:
        walk.broken = f"packet {len(walk.pts)} cannot be read ({error.strerror})"
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
    """The first shown frame: the container alone does not tell rotation, and a decoder must exist."""
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
    if not any(walk.shown):
        raise DecodeError(path, f"video stream {stream.index} has no frame{_because(walk.broken)}")
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
    broken = walk.broken or _announced_more(Path(path), container, stream, len(pts))
    if broken is not None:
        keep = _before_break(emitted, dts)
        if keep == 0:
            raise DecodeError(path, f"no whole frame: {broken}")
        position_of, emitted = position_of[:keep], emitted[:keep]
    base = stream.time_base
    times = (emitted - emitted[0]) * float(base)
    rate = _rate(path, stream, times)
    last_seconds = walk.durations[int(position_of[-1])] * float(base) or float(1 / rate)
    gop_plan = GopPlan(
        pts=pts,
        dts=dts,
        starts=np.asarray(walk.starts, np.bool_),
        position_of=position_of,
        skip_nonref=stream.codec_context.name in SKIP_CODECS and not walk.has_sublayers,
    )
    result = _result(path, stream, walk.first_frame, times, last_seconds, rate, broken, gop_plan, limits)
    return Examination(scan=result, packets=walk.packets, frames_decoded=walk.frames_decoded)


def _announced_more(path: Path, container: Any, stream: Any, num_packets: int) -> str | None:
    """Why the file holds fewer frames than its structure announces, or None."""
    if container.format.name == MOV and len(stream.index_entries) > num_packets:
        return f"the container lists {len(stream.index_entries)} frames and holds {num_packets}"
    missing = missing_bytes(path)
    return f"the file ends at least {missing} bytes early" if missing else None


def _before_break(emitted: Positions, dts: Positions) -> int:
    """How many frames surely come before any that is missing: no frame is shown before it is decoded."""
    if dts[-1] == NO_TIMESTAMP:
        return max(len(emitted) - _MAX_REORDER_FRAMES, 0)
    return int(np.searchsorted(emitted, dts[-1], side="right"))


def _counted(path: str, container: Any, stream: Any, limits: Limits, kept_bytes: int) -> Examination:
    ending = transport.ending(Path(path)) if container.format.name == MPEGTS else None
    missing = ending.missing_bytes if ending else missing_bytes(Path(path))
    broken = f"the file ends at least {missing} bytes early" if missing else None
    last_pictures = transport.LastPictures() if ending and stream.id in ending.unpadded else None
    pts: list[int | None] = []
    corrupt: list[int] = []
    frames: list[Any] | None = []
    bytes_kept, num_packets, num_before_last, first, last = 0, 0, 0, None, None
    try:
        for packet in container.demux(stream):
            is_end = packet.size == 0 and packet.dts is None and packet.pts is None
            if is_end and container.format.name == MOV:
                broken = broken or _announced_more(Path(path), container, stream, num_packets)
            if packet.is_corrupt and not is_end:
                broken = broken or f"packet {num_packets} is cut off"
            elif is_end and last_pictures is not None and last_pictures.lack_data(stream):
                broken = broken or f"packet {num_packets - 1} is cut off"
            # What a broken file leaves in the decoder might belong after frames that are missing.
            if broken is not None and (is_end or packet.is_corrupt):
                num_before_last = num_before_last if is_end else len(pts)
                break
            if not is_end:
                num_packets, num_before_last = num_packets + 1, len(pts)
                if last_pictures is not None:
                    last_pictures.add(packet)
            for frame in stream.decode(packet):
                first, last = first or frame, frame
                if frame.is_corrupt:
                    corrupt.append(len(pts))
                pts.append(frame.pts)
                limits.check_frames(path, len(pts))
                bytes_kept += sum(plane.buffer_size for plane in frame.planes)
                if frames is not None:
                    frames.append(frame)
                    if bytes_kept > kept_bytes:
                        frames = None
    except av.FFmpegError as error:
        broken = f"packet {num_packets - 1} cannot be decoded ({error.strerror})"
    if broken is not None and container.format.name in UNFLAGGED_FORMATS:
        del pts[num_before_last:]
    # What a cut leaves of the last picture is flagged.
    tail = [index for index in corrupt if index >= len(pts) - _MAX_REORDER_FRAMES]
    if tail:
        broken = broken or f"frame {tail[0]} of {len(pts)} is cut off"
        del pts[tail[0] :]
    if first is None or last is None or not pts:
        raise DecodeError(path, f"video stream {stream.index} has no frame{_because(broken)}")
    times, rate, last_seconds = _counted_times(path, container, stream, pts, last)
    result = _result(path, stream, first, times, last_seconds, rate, broken, None, limits)
    return Examination(scan=result, frames=frames, frames_decoded=len(pts))


def _counted_times(
    path: str, container: Any, stream: Any, pts: Sequence[int | None], last: Any
) -> tuple[Seconds, Fraction, float]:
    """Times in emission order, mean rate, and how long the last frame lasts.

    AVI has no timestamps; what FFmpeg reports there counts packets.
    """
    known = [value for value in pts if value is not None]
    ascending = len(known) == len(pts) and all(a < b for a, b in itertools.pairwise(known))
    if ascending and container.format.name != AVI:
        times: Seconds = np.asarray(known, np.float64) - known[0]
        times *= float(stream.time_base)
        rate = _rate(path, stream, times)
        return times, rate, float((last.duration or 0) * stream.time_base or 1 / rate)
    rate = _rate(path, stream, np.zeros(len(pts)))
    return np.arange(len(pts)) / float(rate), rate, float(1 / rate)


def _rate(path: str, stream: Any, times_seconds: Seconds) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate:
            return Fraction(rate)
    if times_seconds[-1] > 0:
        mean = Fraction((len(times_seconds) - 1) / float(times_seconds[-1]))
        return mean.limit_denominator(1001)
    if len(times_seconds) == 1:
        return Fraction(1)
    raise DecodeError(path, "the container gives neither a frame rate nor usable timestamps")


def _result(
    path: str,
    stream: Any,
    first: Any,
    times: Seconds,
    last_seconds: float,
    rate: Fraction,
    broken: str | None,
    gop_plan: GopPlan | None,
    limits: Limits,
) -> VideoScan:
    limits.check_size(path, first.width, first.height)
    duration = float(times[-1]) + last_seconds
    limits.check_duration(path, duration)
    turned = first.rotation % 180 != 0
    return VideoScan(
        path=path,
        num_frames=len(times),
        times_seconds=times,
        duration_seconds=duration,
        width_px=first.height if turned else first.width,
        height_px=first.width if turned else first.height,
        rate_fps=rate,
        rotation_degrees=first.rotation,
        broken=broken,
        stream_index=stream.index,
        codec=stream.codec_context.name,
        plan=gop_plan,
    )


def _because(broken: str | None) -> str:
    return "" if broken is None else f": {broken}"
