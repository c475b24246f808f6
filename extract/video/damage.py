"""Which frames are damaged: what FFmpeg reports while it reads and decodes, and what is predicted from that.

FFmpeg conceals damage and goes on. It says so by a flag on a packet or a frame, by an error, and most often only by
a line of its log at the level ERROR. A frame is damaged if anything was reported of its own packet, or of one
between it and the access point that it is decoded from. No intact clip at hand, of some 700 real and rendered ones,
makes FFmpeg report anything.

The log is one for the whole process: a process that decodes on two threads at once may take a report for the wrong
one of two videos. PyAV counts the lines; while it does, decoders must have no threads of their own, which would wait
for the interpreter lock (`opening.open_video` allows one).
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import av
import av.logging

from reelbank.extract.video import access_points

# The largest reorder depth of H.264 and HEVC.
MAX_REORDER_FRAMES = 16
UNNEEDED = -1
"""Instead of a packet's number: nothing that is wanted depends on it."""

# Decoding H.264 without CABAC, FFmpeg takes something over from a damaged picture into the next one, be it an IDR
# picture: in 2 of 100 damaged clips, until a new decoder or a second decode of that picture. Pictures that are dropped
# in between do not count, so the damage may lie some calls back.
_LEAKING_CODEC, _LEAKING_CALLS = "h264", 6

_lock = threading.Lock()
_before: list[tuple[Any, Any]] = []  # (level, whether repeated lines are skipped) as they were, per listener
_capture = av.logging.Capture(local=False)


@contextmanager
def listening() -> Iterator[None]:
    """Has FFmpeg's errors counted, and their texts kept."""
    with _lock:
        if not _before:
            _capture.__enter__()
        _before.append((av.logging.get_level(), av.logging.get_skip_repeated()))
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
    try:
        yield
    finally:
        with _lock:
            level, skips = _before[0]
            _before.pop()
            if not _before:
                _capture.__exit__(None, None, None)
                _capture.logs.clear()
                av.logging.set_level(level)
                av.logging.set_skip_repeated(skips)


@dataclass(frozen=True, order=True)
class Report:
    """Something that FFmpeg said.

    Attributes:
        place: number of the packet, in decode order; half a packet less for what may be missing before it.
        text: in FFmpeg's words.
        num_shown: frames that were emitted before.
    """

    place: float
    text: str = ""
    num_shown: int = 0


class Reports:
    """What is reported during one pass over a stream from some packet on, while `listening`.

    Attributes:
        found: every report, by place.
        num_errors: lines of the log and flags.
        num_shown: frames that were emitted.
        shown_starts: packets behind the first report that decoding could start at and whose frames were emitted.
        harmless: what lines of the log may say that do not count.
        doubtful: packets that decoding can start at, but that this decoder may have decoded wrong.
    """

    def __init__(self, context: Any, *, length_bytes: int | None = None) -> None:
        """Begins to count. `length_bytes` is that of `access_points.nal_length_bytes`."""
        self.harmless = ""
        self.found: list[Report] = []
        self.num_errors = 0
        self.num_shown = 0
        self._codec, self._length_bytes = context.name, length_bytes
        self.doubtful: set[int] = set()
        self._num_calls, self._last_bad_call = 0, -_LEAKING_CALLS
        self._starts: set[int] = set()
        self.shown_starts: list[int] = []
        self._count = _num_logged()

    def texts(self) -> list[str]:
        """The lines that were logged since the last call of anything here."""
        count = _num_logged()
        num_new, self._count = count - self._count, count
        if not num_new:
            return []
        lines = [f"[{who}] {text.strip()}" for level, who, text in _capture.logs if level == av.logging.ERROR]
        _capture.logs.clear()
        if len(lines) < num_new:  # someone else captures the log
            lines = ["an error that was captured elsewhere"]
        return [line for line in lines[-num_new:] if not self.harmless or self.harmless not in line]

    def skip(self) -> None:
        """Leaves out what was reported since the last call of anything here."""
        self._count = _num_logged()

    def read(self, number: int, packet: Any) -> None:
        """Takes what was reported while packet `number` was read."""
        self._take(number - 0.5)
        if packet.is_corrupt:
            self.add(number, "the packet is flagged as corrupt")

    def decode(self, stream: Any, packet: Any, number: int) -> list[Any]:
        """Frames that packet `number` gives (None: those that are left); none where the decoder refuses it."""
        frames: list[Any] = []
        num_errors, self._num_calls = self.num_errors, self._num_calls + 1
        if packet is not None:
            # A tuple of its own: PyAV finds it again by its address, and small numbers share one.
            packet.opaque = (number,)
            if self.found and packet.is_keyframe and self._is_start(packet):
                frames += self._start(stream, packet, number)
        try:
            frames += stream.decode(packet)
        except av.FFmpegError as error:
            if not self._take(number):
                self.add(number, f"the decoder refuses the packet ({error.strerror})")
        self._take(number)
        for frame in frames:
            if frame.is_corrupt:
                self.add(self.number_of(frame, number), "the decoder flags the frame as corrupt")
        if self.num_errors > num_errors:
            self._last_bad_call = self._num_calls
        return frames

    def _start(self, stream: Any, packet: Any, number: int) -> list[Any]:
        """Makes the decoder fit to start at a packet; frames that it still held."""
        if self._codec != _LEAKING_CODEC or self._num_calls - self._last_bad_call > _LEAKING_CALLS:
            self._starts.add(number)
            return []
        if not access_points.is_idr(memoryview(packet), self._length_bytes):
            self.doubtful.add(number)  # leading pictures may still need what the decoder holds
            return []
        held: list[Any] = []
        with suppress(av.FFmpegError):
            held = stream.decode(None)
        stream.codec_context.flush_buffers()
        with suppress(av.FFmpegError):
            stream.decode(packet)
        stream.codec_context.flush_buffers()
        self.skip()
        self._starts.add(number)
        return held

    def number_of(self, frame: Any, otherwise: int) -> int:
        """Number of the packet that a frame was made of."""
        return int(frame.opaque[0]) if frame.opaque else otherwise

    def shown(self, frame: Any, number: int) -> int:
        """To be called for every frame in the order of emission: the packet that the one of `number` is decoded from.

        What is `between` the two damages it. A frame may be flagged that is shown after those it was needed for: all of
        it is known `MAX_REORDER_FRAMES` later.
        """
        self.num_shown += 1
        if not self.found:
            return 0
        if frame.key_frame and number in self._starts:
            insort(self.shown_starts, number)
        nth = bisect_right(self.shown_starts, number) - 1
        return self.shown_starts[nth] if nth >= 0 else 0

    def between(self, first: int, last: int) -> str:
        """The last report of packets first..last, in words, or ''."""
        nth = bisect_right(self.found, Report(last, "\U0010ffff")) - 1
        return self.found[nth].text if nth >= 0 and self.found[nth].place >= first else ""

    def add(self, place: float, text: str) -> None:
        """Notes a report, unless it is of an unneeded packet."""
        if place <= UNNEEDED:
            return
        self.num_errors += 1
        insort(self.found, Report(place, text, self.num_shown))

    def _take(self, place: float) -> bool:
        texts = self.texts()
        if texts:
            self.add(place, texts[-1])
            self.num_errors += len(texts) - 1 if place > UNNEEDED else 0
        return bool(texts)

    def _is_start(self, packet: Any) -> bool:
        """Whether decoding may start at a packet that is flagged as a key frame."""
        match self._codec:
            case "h264":
                return access_points.starts_h264(memoryview(packet), self._length_bytes)
            case "hevc":
                return access_points.starts_hevc(memoryview(packet), self._length_bytes)[0]
        return True


def _num_logged() -> int:
    return int(av.logging.get_last_error()[0])
