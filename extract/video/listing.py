"""Which chunks of an AVI were passed over: behind a damaged one, FFmpeg's demuxer looks for the next without a word.

An AVI has no timestamps, so every later frame would have the time of the one before it. Its index, at the other end of
the file, says where each chunk is.

Source: Microsoft's AVI RIFF File Reference (`idx1`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reelbank.extract.video.opening import AVI

_CHUNK_HEAD_BYTES = 8
NOT_FOUND = "the container lists a chunk that is not where it should be"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What stands between two chunks that are where the index says.

    Attributes:
        strays: numbers of the packets between them.
        num_missing: chunks that the index lists between them, less the packets.
    """

    strays: tuple[int, ...] = ()
    num_missing: int = 0


class Listing:
    """The index of an AVI beside what its demuxer gives. Nothing is missed in an AVI without one, nor elsewhere."""

    def __init__(self, container: Any, stream: Any) -> None:
        """`container` was just opened: while it reads, the demuxer adds to the index what it finds."""
        entries = stream.index_entries if container.format.name == AVI else ()
        places = [entry.pos + _CHUNK_HEAD_BYTES for entry in entries]
        self._nth_of = {place: nth for nth, place in enumerate(places)}
        self._num_listed, self._next = len(places), 0
        self._strays: list[int] = []
        self._is_used = False

    def meet(self, number: int, packet: Any) -> Gap:
        """Takes the next packet; what is wrong between the last one that is listed and it, if it is listed itself."""
        if not self._nth_of:
            return Gap()
        nth = self._nth_of.get(packet.pos)
        if nth is None or nth < self._next:
            self._strays.append(number)
            return Gap()
        self._is_used = True
        return self._gap(nth)

    def end(self) -> Gap:
        """What is wrong behind the last packet that is listed."""
        return self._gap(self._num_listed) if self._is_used else Gap()

    def _gap(self, nth: int) -> Gap:
        num_listed, strays = nth - self._next, tuple(self._strays)
        self._strays.clear()
        self._next = nth + 1
        return Gap(strays=strays, num_missing=max(num_listed - len(strays), 0)) if num_listed else Gap()
