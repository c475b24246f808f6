"""Frames of a video by emission index, pixel-equal to decoding it from its start to its end.

With a `GopPlan` only the groups of pictures are decoded that hold a wanted frame, and unwanted non-reference
frames in them are dropped undecoded. Every wanted frame is recognised by its timestamp; where the decoder
emits anything else than the plan says, the video is decoded sequentially instead.

One decoder thread: processes over clips use the cores better than threads in one decoder.

A wanted frame that is damaged, or predicted from damage, is an error, or marked where that is asked for (`damage` says
what is noticed). Damage that FFmpeg itself does not notice is not seen here, and neither is damage in packets that no
wanted frame needs. Turns and mirroring are undone as players do; non-square pixels where that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from reelbank.extract.errors import DecodeError, PlanMismatch
from reelbank.extract.video.access_points import is_idr, nal_length_bytes
from reelbank.extract.video.damage import MAX_REORDER_FRAMES, UNNEEDED, Reports, listening
from reelbank.extract.video.frame import SQUARE, Frame
from reelbank.extract.video.opening import Limits, open_video
from reelbank.extract.video.packets import FromFile, Kept, SeekMissed
from reelbank.extract.video.plan import KEPT_BYTES, examine
from reelbank.extract.video.scan import GopPlan, VideoScan
from reelbank.extract.video.sequential import Pass
from reelbank.extract.video.stills import is_pictures, read_pages, read_picture, scan_pictures

Indices = npt.NDArray[np.int64]

# Said of pictures that an open group of pictures would drop, where decoding starts at it.
OF_EARLIER_PICTURES = "mmco: unref short failure"


@dataclass(kw_only=True)
class Cost:
    """What one `Video` did.

    Attributes:
        opens: containers opened.
        frames_decoded: frames that decoders emitted; dropped non-reference frames are not among them.
        packets_decoded: packets given to decoders for frames that were asked for.
        fallbacks: plans that the decoder did not follow.
        errors: what FFmpeg reported of what was read and decoded.
        scan_errors: those among them that the scan met.
    """

    opens: int = 0
    frames_decoded: int = 0
    packets_decoded: int = 0
    fallbacks: int = 0
    errors: int = 0
    scan_errors: int = 0


class Video:
    """A video file, frame folder or still image: scanned at most once, frames by index.

    `with Video(path) as video: scan = video.scan(); for index, frame in video.frames(wanted): ...`

    A short video is read from disk once and, where it must be counted by decoding, decoded once: up to 64 MiB
    of packets or frames stay in memory until `close`. A longer one that must be counted is decoded once more for any
    number of calls whose frames come one after another.

    Attributes:
        path: as given.
        cost: what was done so far.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        scan: VideoScan | None = None,
        stream_index: int | None = None,
        count: bool = False,
        frame_pattern: str | None = None,
        rate_fps: Fraction | float | None = None,
        limits: Limits | None = None,
        kept_bytes: int = KEPT_BYTES,
        keep_damaged: bool = False,
        square_pixels: bool = False,
    ) -> None:
        """Opens nothing yet.

        Args:
            path: a local file or folder.
            scan: an earlier scan of the same unchanged file, which saves the walk.
            stream_index: stream of the container; None is the best video stream.
            count: count frames by decoding whatever the container says.
            frame_pattern: names of the frames of a folder (`scan_pictures`).
            rate_fps: rate of a folder.
            limits: of frame size, number of frames and duration; who is told that work goes on.
            kept_bytes: packets and, separately, frames to keep in memory.
            keep_damaged: give damaged frames with their `damage`; else they are errors.
            square_pixels: enlarge frames of a video whose pixels are not square to what players show.
        """
        self.path = str(path)
        self.cost = Cost()
        self._scan = scan
        self._failed: DecodeError | None = None
        self._stream_index = stream_index if scan is None else scan.stream_index
        self._count = count
        self._frame_pattern = frame_pattern
        self._rate_fps = rate_fps
        self._limits = limits or Limits()
        self._kept_bytes = kept_bytes
        self._keep_damaged = keep_damaged
        self._square_pixels = square_pixels
        self._container: Any = None
        self._stream: Any = None
        self._packets: list[Any] | None = None
        self._frames: list[Any] | None = None
        self._pass: Pass | None = None
        self._to_rgb = VideoReformatter()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and forgets what was kept; the scan stays."""
        self._packets = self._frames = self._stream = self._pass = None
        if self._container is not None:
            self._container.close()
            self._container = None

    @property
    def is_sequential(self) -> bool:
        """Whether a frame costs all before it, as far as that is known: it was scanned, and has no plan."""
        scan = self._scan
        return scan is not None and scan.stream_index >= 0 and scan.plan is None and self._frames is None

    def scan(self) -> VideoScan:
        """The scan, made at the first call.

        Raises:
            DecodeError: not a readable video, no frame, or past a limit.
        """
        if self._failed is not None:  # each clip of the file asks
            raise DecodeError(*self._failed.args) from self._failed
        if self._scan is None:
            try:
                self._scan = self._scan_pictures() if is_pictures(Path(self.path)) else self._scan_video()
            except DecodeError as error:
                self._failed = error
                raise
        return self._scan

    def _scan_pictures(self) -> VideoScan:
        return scan_pictures(
            Path(self.path), frame_pattern=self._frame_pattern, rate_fps=self._rate_fps, limits=self._limits
        )

    def _scan_video(self) -> VideoScan:
        for count in dict.fromkeys((self._count, True)):
            self._reopen()
            with listening():
                examination = examine(
                    self.path,
                    self._container,
                    self._stream,
                    count=count,
                    limits=self._limits,
                    kept_bytes=self._kept_bytes,
                )
            if examination is not None:
                break
        assert examination is not None  # counting always gives one
        self._packets, self._frames = examination.packets, examination.frames
        self.cost.frames_decoded += examination.frames_decoded
        self.cost.errors += examination.scan.num_errors
        self.cost.scan_errors += examination.scan.num_errors
        return examination.scan

    def frames(self, wanted: Sequence[int] | Indices) -> Iterator[tuple[int, Frame]]:
        """Exactly the wanted frames, in ascending order; may be called again.

        Args:
            wanted: ascending emission indices without repeats.

        Yields:
            (emission index, frame).

        Raises:
            ValueError: `wanted` is not strictly ascending in 0..N-1.
            DecodeError: a wanted frame is not delivered, or damaged; frames before it were yielded.
            PlanMismatch: the container lists frames that the decoder does not emit.
        """
        scan = self.scan()
        indices = np.asarray(wanted, np.int64)
        if indices.ndim != 1 or (np.diff(indices) <= 0).any():
            raise ValueError(f"wanted frames must be ascending without repeats, found {indices.shape = }")
        if len(indices) and not 0 <= indices[0] <= indices[-1] < scan.num_frames:
            raise ValueError(
                f"{self.path}: wanted frames {indices[0]}..{indices[-1]} are not all in 0..{scan.num_frames - 1}"
            )
        return self._frames_of(scan, indices)

    def _frames_of(self, scan: VideoScan, wanted: Indices) -> Iterator[tuple[int, Frame]]:
        if len(wanted) == 0:
            return
        if scan.pages:
            for index, frame in read_pages(scan, wanted.tolist(), self._limits):
                yield index, self._kept(index, frame)
        elif scan.pictures:
            for index in wanted.tolist():
                yield index, self._kept(index, read_picture(scan.pictures[index], index, self._limits))
        elif self._frames is not None:
            for index in wanted.tolist():
                yield index, self._checked(index, self._frames[index], scan.damaged.get(index, ""))
        else:
            with listening():
                if scan.plan is None:
                    yield from self._sequential(wanted, None)
                else:
                    yield from self._planned_or_sequential(scan.plan, wanted)

    def _planned_or_sequential(self, plan: GopPlan, wanted: Indices) -> Iterator[tuple[int, Frame]]:
        done = 0
        for may_seek in (True, False):
            try:
                for index, native in self._planned(plan, wanted[done:], may_seek):
                    done += 1
                    yield index, self._checked(index, native)
                break
            except SeekMissed:
                continue  # once more, reading from the start of the file
        if done < len(wanted):
            self.cost.fallbacks += 1
            yield from self._sequential(wanted[done:], plan)

    def _planned(self, plan: GopPlan, wanted: Indices, may_seek: bool) -> Iterator[tuple[int, Any]]:
        """Wanted frames by the plan; ends early where the decoder does not follow it."""
        source: Kept | FromFile
        if self._packets is not None:
            source = Kept(self._packets)
        else:
            self._reopen()
            source = FromFile(self._container, self._stream, plan, may_seek, self._limits.news)
        context = self._stream.codec_context
        length_bytes = nal_length_bytes(context.name, context.extradata)
        reports = Reports(context, length_bytes=length_bytes)
        for report in plan.reports:
            reports.add(report.place, report.text)
        context.flush_buffers()
        try:
            for first, last, indices in plan.segments(wanted):
                positions = plan.position_of[indices]
                remaining = list(zip(plan.pts[positions].tolist(), indices.tolist(), strict=True))[::-1]
                needed, skipping = set(positions.tolist()), False
                held: list[tuple[int, Any]] = []
                source.go_to(first)
                for position in range(first, last + 1):
                    packet = source.read(position)
                    if packet is None:
                        return
                    if plan.skip_nonref and skipping == (position in needed):
                        skipping = not skipping
                        context.skip_frame = "NONREF" if skipping else "DEFAULT"
                    self.cost.packets_decoded += 1
                    self._limits.news()
                    # Leading pictures of the first access point lack their references here, and no wanted frame needs
                    # them: what is said of them counts for none.
                    if position == first:
                        is_open = context.name == "h264" and not is_idr(memoryview(packet), length_bytes)
                        reports.harmless = OF_EARLIER_PICTURES if is_open else ""
                    number = position if plan.pts[position] >= plan.pts[first] else UNNEEDED
                    reports.skip()  # what is said while packets are read is in the plan
                    natives = reports.decode(self._stream, packet, number)
                    if natives:
                        held += self._matching(natives, remaining)
                    if held:
                        yield from _sound(plan, reports, held, position - MAX_REORDER_FRAMES)
                context.skip_frame = "DEFAULT"
                held += self._matching(reports.decode(self._stream, None, last), remaining)
                yield from _sound(plan, reports, held, last)
                context.flush_buffers()
                if remaining:
                    return
        except (av.FFmpegError, _Doubtful):
            return  # the sequential path says what is wrong
        finally:
            context.skip_frame = "DEFAULT"
            if reports.found:
                self._packets = None  # the decoder may keep something of the damage: the next call opens another

    def _matching(self, natives: Sequence[Any], remaining: list[tuple[int, int]]) -> Iterator[tuple[int, Any]]:
        """Those of the emitted frames that are wanted next; `remaining` is (pts, index), last first."""
        self.cost.frames_decoded += len(natives)
        for native in natives:
            if remaining and native.pts == remaining[-1][0]:
                yield remaining.pop()[1], native

    def _sequential(self, wanted: Indices, plan: GopPlan | None) -> Iterator[tuple[int, Frame]]:
        """Decodes from the start, or from where the last call ended; with a plan, recognises frames by timestamp."""
        going, known, nth = self._pass, self.scan().damaged, -1
        if plan is not None or going is None or not going.reaches(int(wanted[0])):
            self._reopen()
            going = Pass(self._container, self._stream)
        if plan is None:
            self._pass = going
            found = going.frames(wanted.tolist(), lambda index, _: index, self._news)
        else:
            keys = plan.pts[plan.position_of[wanted]].tolist()
            found = going.frames(keys, lambda _, native: native.pts, self._news)
        try:
            for nth, native, damage in found:
                index = int(wanted[nth])
                yield index, self._checked(index, native, known.get(index) or damage)
        finally:
            self.cost.errors += 0 if plan is None else going.reports.num_errors  # else the scan has counted them
        if nth + 1 == len(wanted):
            return
        self._pass, missing = None, int(wanted[nth + 1])
        if going.error is not None:
            reason = f"the file cannot be read behind {going.num_emitted} frames ({going.error.strerror})"
            raise DecodeError(self.path, reason, missing) from going.error
        reason = f"the decoder emits {going.num_emitted} frames, and not the one that was counted here"
        raise PlanMismatch(self.path, reason, missing)

    def _news(self) -> None:
        self.cost.frames_decoded += 1
        self._limits.news()

    def _checked(self, index: int, native: Any, damage: str = "") -> Frame:
        self._limits.check_size(self.path, native.width, native.height)
        frame = Frame(native, self._to_rgb, damage, self._aspect)
        self._limits.check_size(self.path, frame.width_px, frame.height_px)
        return self._kept(index, frame)

    @property
    def _aspect(self) -> Fraction:
        return self.scan().pixel_aspect if self._square_pixels else SQUARE

    def _kept(self, index: int, frame: Frame) -> Frame:
        if frame.damage and not self._keep_damaged:
            seconds = self.scan().from_file_start().times_seconds[index]
            reason = f"damaged at {seconds:.6g} s: {frame.damage}; --damaged keep stores it marked"
            raise DecodeError(self.path, reason, index)
        return frame

    def _reopen(self) -> None:
        self.close()
        self._container, self._stream = open_video(self.path, stream_index=self._stream_index, limits=self._limits)
        self.cost.opens += 1


def frames(scan: VideoScan, wanted: Sequence[int] | Indices) -> Iterator[tuple[int, Frame]]:
    """The wanted frames of a scanned video; see `Video.frames`."""
    with Video(scan.path, scan=scan) as video:
        yield from video.frames(wanted)


def _sound(plan: GopPlan, reports: Reports, held: list[tuple[int, Any]], last: int) -> Iterator[tuple[int, Any]]:
    """Takes frames of packets up to `last` out of `held`. Raises _Doubtful for one of which something was reported."""
    while held and int(plan.position_of[held[0][0]]) <= last:
        index, native = held.pop(0)
        start = plan.start_of(index) if reports.found else 0
        if reports.found and (start in reports.doubtful or reports.between(start, int(plan.position_of[index]))):
            raise _Doubtful
        yield index, native


class _Doubtful(Exception):
    """Something was reported of a wanted frame."""
