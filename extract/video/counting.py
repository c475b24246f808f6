"""Counting the frames of a video by decoding it: the order in which the decoder emits frames is the truth.

Damage in the middle ends nothing: what the decoder refuses is missing, what it reports is marked, and frames from the
next access point on are sound. Where a container has no timestamps, each frame has the time of its place in the
order; behind a missing frame the numbers of the packets tell the place, from the next access point on (`listing` knows
of packets that were not even read).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from reelbank.extract.errors import DecodeError
from reelbank.extract.video import access_points, listing, transport
from reelbank.extract.video.damage import MAX_REORDER_FRAMES, Report, Reports
from reelbank.extract.video.frame import SQUARE, orientation_of
from reelbank.extract.video.opening import AVI, GIF, MOV, MPEGTS, Limits
from reelbank.extract.video.scan import HDR_TRANSFERS, Examination, GopPlan, Positions, Seconds, VideoScan
from reelbank.extract.video.timeline import COUNTED, TimeLine, by_order_line, chunk_places, mean_rate, time_line
from reelbank.extract.video.truncation import Ending, ending

# Demuxers that give a part of a packet at the end of a file as if it were whole; the others flag it.
UNFLAGGED_FORMATS = (GIF, MPEGTS)
# Pictures one after another, without a container that says how long each is.
RAW_FORMATS = ("h264", "hevc")
# What is missing is noticed when it should come, and the flag is on the picture that a parser then finds whole: the
# picture that lacks data is that one, the next, or the one after it where its beginning is what is missing.
PARSED_FORMATS, FLAGGED_EARLY = ("mpeg", MPEGTS), 2
# A picture of MPEG-4 part 2 that is not coded has this size at most. What XviD writes for a frame that it holds back is
# smaller, and no picture.
NOT_CODED_CODEC, NOT_CODED_BYTES, PICTURE_START = "mpeg4", 12, b"\0\0\1\xb6"


@dataclass
class _Count:
    """What the decoder has emitted so far."""

    path: str
    stream: Any
    limits: Limits
    reports: Reports
    kept_bytes: int
    pts: list[int | None] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    corrupt: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    frames: list[Any] | None = field(default_factory=list)
    first: Any = None
    last: Any = None
    num_packets: int = 0
    num_before_last: int = 0
    chunks: list[tuple[int, int | None]] = field(default_factory=list)
    not_coded: set[int] = field(default_factory=set)

    def decode(self, packet: Any) -> None:
        """Takes the next packet, or None at the end."""
        number = self.num_packets
        if packet is not None:
            self.num_packets, self.num_before_last = number + 1, len(self.pts)
            self.chunks.append((number, packet.dts))
            if self.stream.codec_context.name == NOT_CODED_CODEC and packet.size <= NOT_CODED_BYTES:
                self.not_coded |= {number} if bytes(packet).startswith(PICTURE_START) else set()
        for frame in self.reports.decode(self.stream, packet, number):
            self._take(frame, self.reports.number_of(frame, number))

    def pass_over(self, gap: listing.Gap) -> None:
        """Counts packets that were listed and not read: each could have been a frame. Notes the strays."""
        missing = range(self.num_packets, self.num_packets + gap.num_missing)
        for number in (*gap.strays, *missing):
            self.reports.add(number, gap.why)
        self.num_packets += gap.num_missing

    def _take(self, frame: Any, number: int) -> None:
        self.first, self.last = self.first or frame, frame
        if frame.is_corrupt:
            self.corrupt.append(len(self.pts))
        self.starts.append(self.reports.shown(frame, number))
        self.pts.append(frame.pts)
        self.numbers.append(number)
        self.limits.check_frames(self.path, len(self.pts))
        self.limits.news()
        if self.frames is not None:
            self.kept_bytes -= sum(plane.buffer_size for plane in frame.planes)
            self.frames.append(frame)
            if self.kept_bytes < 0:
                self.frames = None

    def drop(self, index: int) -> None:
        """Forgets frames from `index` on."""
        del self.pts[index:]
        del self.numbers[index:]
        del self.starts[index:]

    def damaged(self) -> dict[int, str]:
        """{emission index: what damages the frame}."""
        if not self.reports.found:
            return {}
        spans = enumerate(zip(self.starts, self.numbers, strict=True))
        return {i: why for i, (start, number) in spans if (why := self.reports.between(start, number))}


def counted(path: str, container: Any, stream: Any, limits: Limits, kept_bytes: int) -> Examination:
    """Decodes a video from its first packet to its last.

    Raises:
        DecodeError: no frame, no rate, or past a limit.
    """
    is_transport, is_mov = container.format.name == MPEGTS, container.format.name == MOV
    of_transport = transport.ending(Path(path)) if is_transport else transport.Ending()
    end = Ending(missing_bytes=of_transport.missing_bytes) if is_transport else ending(Path(path))
    broken = _ends_early(end.missing_bytes)
    may_lack = stream.id in of_transport.unpadded or container.format.name in RAW_FORMATS
    last_pictures = transport.LastPictures() if may_lack else None
    context = stream.codec_context
    reports = Reports(context, length_bytes=access_points.nal_length_bytes(context.name, context.extradata))
    count = _Count(path, stream, limits, reports, kept_bytes)
    held: list[Any] = []  # flagged as corrupt: at the end of the file it is what a cut leaves
    try:
        with listing.listing(path, container, stream) as listed:
            for packet in container.demux(stream):
                if packet.size == 0 and packet.dts is None and packet.pts is None:
                    count.pass_over(listed.end())
                    reports.read(count.num_packets + len(held), packet)
                    break
                count.pass_over(listed.meet(count.num_packets + len(held), packet))
                reports.read(count.num_packets + len(held), packet)
                if packet.is_corrupt:
                    if container.format.name in PARSED_FORMATS:
                        for behind in range(1, FLAGGED_EARLY + 1):
                            reports.add(
                                count.num_packets + len(held) + behind, "a packet before it is flagged as corrupt"
                            )
                    held.append(packet)
                    continue
                for one in (*held, packet):
                    count.decode(one)
                    if last_pictures is not None:
                        last_pictures.add(one)
                held.clear()
    except av.FFmpegError as error:
        broken = f"packet {count.num_packets} cannot be read ({error.strerror})"
    if held:
        broken = broken or f"packet {count.num_packets} is cut off"
    elif last_pictures is not None and last_pictures.lack_data(stream, limits.news):
        broken = broken or f"packet {count.num_packets - 1} is cut off"
    elif is_mov:
        broken = broken or announced_more(container, stream, count.num_packets, end)
    elif not end.is_known and any(r.place >= count.num_packets - 1 for r in reports.found):
        broken = broken or f"packet {count.num_packets - 1} is cut off or damaged ({reports.found[-1].text})"
    if broken is None:
        count.decode(None)
    elif not held and container.format.name in UNFLAGGED_FORMATS:
        count.drop(count.num_before_last)  # what a broken file leaves in the decoder belongs after what is missing
    # What a cut leaves of the last picture is flagged.
    tail = [index for index in count.corrupt if index >= len(count.pts) - MAX_REORDER_FRAMES]
    if tail:
        broken = broken or f"frame {tail[0]} of {len(count.pts)} is cut off"
        count.drop(tail[0])
    if count.first is None or not count.pts:
        told = broken or (reports.found[0].text if reports.found else None)
        raise DecodeError(path, f"video stream {stream.index} has no frame{because(told)}")
    return _examination(count, container, stream, broken, end.is_known)


def _examination(count: _Count, container: Any, stream: Any, broken: str | None, end_known: bool) -> Examination:
    path, reports = count.path, count.reports
    is_avi = container.format.name == AVI
    line = None if is_avi else time_line(path, container, stream, count.pts)
    by_order = line is None or line.source == COUNTED
    lost = lost_frames(reports.found, count.numbers, by_order=by_order)
    damaged = count.damaged()
    if line is not None and not by_order:
        lost |= _gaps(line.seconds, count.numbers, reports.found)
    else:
        places, first = _places(count, broken), count.pts[0]
        if lost:
            late = _late(count, lost)
            places = np.arange(len(count.pts))
            if late is None:
                broken = broken or f"frame {min(lost)} is missing, and the container has no timestamps"
                count.drop(max(min(lost), 1))
                places = places[: len(count.pts)]
            else:
                places = places + np.maximum.accumulate(late)
                unsure = np.flatnonzero(late < 0).tolist()
                damaged |= dict.fromkeys(unsure, "its time is not known, a frame near it is missing")
        if is_avi:  # it has no timestamps: what FFmpeg reports as such counts chunks
            places, first = chunk_places(places, count.chunks, count.numbers), 0
        line = by_order_line(path, container, stream, places, first, is_told=is_avi)
    rate, tick = line.rate_fps, stream.time_base
    last_seconds = float(1 / rate) if by_order else float((count.last.duration or 0) * tick or 1 / rate)
    result = result_of(
        path, stream, count.first, line, last_seconds, broken, None, count.limits,
        damaged=damaged, lost=lost, num_errors=reports.num_errors, end_known=end_known,
    )  # fmt: skip
    return Examination(scan=result, frames=count.frames, frames_decoded=len(count.pts))


def lost_frames(found: Sequence[Report], numbers: Sequence[int], *, by_order: bool = False) -> dict[int, str]:
    """{emission index: why} where frames may be missing: those of packets that gave none, or before a packet.

    Where times follow from the order (`by_order`), what the decoder still held back when it should have had the packet
    counts too: it may have been shown behind it.
    """
    order, given = np.asarray(numbers, np.int64), set(numbers)
    lost: dict[int, str] = {}
    for report in found:
        if report.place not in given:
            behind, before = np.flatnonzero(order > report.place), np.flatnonzero(order < report.place)
            first = int(behind[0]) if len(behind) else len(order)
            last = int(before[-1]) + 1 if len(before) else 0
            begin = min(first, last)
            if by_order:
                begin = min(begin, max(report.num_shown, begin - MAX_REORDER_FRAMES))
            lost |= dict.fromkeys(range(begin, max(first, last) + 1), report.text)
    return lost


def _gaps(times: Seconds, numbers: Sequence[int], found: Sequence[Report]) -> dict[int, str]:
    """{emission index: why} where a report is next to a gap between times: a picture may have vanished in it."""
    if not found or len(times) < 3:
        return {}
    steps = np.diff(times)
    gaps = (np.flatnonzero(steps > 1.5 * np.median(steps)) + 1).tolist()
    return {
        index: report.text
        for index in gaps
        for report in found
        if numbers[index - 1] - 1 <= report.place <= numbers[index] + 1
    }


def _late(count: _Count, lost: Mapping[int, str]) -> Positions | None:
    """(N,) how many frames are missing before each, -1 where that is not known; None if packets are not frames.

    All frames of packets before an access point are shown before its own: if as many are shown as there are packets
    before it, and leading ones behind it, none is missing.
    """
    reports, first_lost = count.reports, min(lost)
    first_place = min(report.place for report in reports.found)
    if any(number < first_place for number in set(range(count.num_packets)) - set(count.numbers)):
        return None
    order = np.asarray(count.numbers, np.int64)
    late: Positions = np.full(len(order), -1, np.int64)
    late[:first_lost] = 0
    for start in reports.shown_starts:
        found = np.flatnonzero(order == start)
        if not len(found) or (index := int(found[0])) < first_lost:
            continue
        missing = start + int((order[:index] > start).sum()) - index
        if missing < 0:
            return None
        late[index : min((loss for loss in lost if loss > index), default=len(order))] = missing
    return late


def _places(count: _Count, broken: str | None) -> Positions:
    """(N,) place of each frame in the order, where nothing is lost: packets that say "as before" take one, too.

    Programs that record write such a packet of MPEG-4 part 2 for a frame that was dropped.
    """
    shown = sorted(set(count.numbers))
    if (
        broken is None
        and len(shown) == len(count.numbers)
        and count.not_coded.issuperset(set(range(shown[-1])) - set(shown))
    ):
        return np.asarray(shown, np.int64)
    return np.arange(len(count.numbers))


def result_of(
    path: str,
    stream: Any,
    first: Any,
    line: TimeLine,
    last_seconds: float,
    broken: str | None,
    gop_plan: GopPlan | None,
    limits: Limits,
    **more: Any,
) -> VideoScan:
    """The scan of a video whose first frame is `first`; `more` are further attributes of it."""
    limits.check_size(path, first.width, first.height)
    times = line.seconds
    duration = float(times[-1]) + last_seconds
    limits.check_duration(path, duration)
    if "f32" in first.format.name or "f16" in first.format.name:
        raise DecodeError(
            path,
            f"its pixels are floating-point numbers ({first.format.name}), and nothing says which is white; make a "
            "copy of integers (ffmpeg -i IN -pix_fmt gray16le or rgb48le OUT)",
        )
    try:
        orientation = orientation_of(first)
    except ValueError as error:
        raise DecodeError(path, str(error)) from error
    turned, aspect = orientation.quarter_turns % 2 != 0, stream.sample_aspect_ratio or SQUARE
    return VideoScan(
        path=path,
        num_frames=len(times),
        times_seconds=times,
        file_seconds=line.file_seconds,
        duration_seconds=duration,
        width_px=first.height if turned else first.width,
        height_px=first.width if turned else first.height,
        rate_fps=mean_rate(times, line.rate_fps),
        rotation_degrees=90 * orientation.quarter_turns,
        is_mirrored=orientation.is_mirrored,
        pixel_aspect=1 / aspect if turned else aspect,
        transfer=HDR_TRANSFERS.get(int(first.color_trc), "sdr"),
        broken=broken,
        stream_index=stream.index,
        codec=stream.codec_context.name,
        plan=gop_plan,
        time_source=line.source,
        **more,
    )


def because(broken: str | None) -> str:
    """A reason behind what it explains."""
    return "" if broken is None else f": {broken}"


def announced_more(container: Any, stream: Any, num_packets: int, end: Ending) -> str | None:
    """Why the file holds fewer frames than its structure announces, or None."""
    if container.format.name == MOV and len(stream.index_entries) > num_packets:
        return f"the container lists {len(stream.index_entries)} frames and holds {num_packets}"
    return _ends_early(end.missing_bytes)


def _ends_early(missing_bytes: int) -> str | None:
    return f"the file ends at least {missing_bytes} bytes early" if missing_bytes else None
