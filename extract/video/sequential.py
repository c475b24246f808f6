"""Decoding a file from its first packet on, where nothing shorter is sure to give the same frames.

A pass can be gone on with: frames that are wanted later cost what lies between, not the way from the start again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import av

from reelbank.extract.video.access_points import nal_length_bytes
from reelbank.extract.video.damage import MAX_REORDER_FRAMES, Reports


class _Emitted(NamedTuple):
    """A frame: its emission index, the packet that it is decoded from, and its own."""

    emission: int
    native: Any
    start: int
    number: int


class Pass:
    """One decoding of a file that was just opened.

    Attributes:
        reports: what FFmpeg said so far.
        num_emitted: frames that the decoder gave.
        error: why the file could not be read on, or None.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        """Decodes nothing yet."""
        context = stream.codec_context
        self.reports = Reports(context, length_bytes=nal_length_bytes(context.name, context.extradata))
        self.num_emitted = 0
        self.error: av.FFmpegError | None = None
        self._decoded = self._decode(container, stream)
        self._held: deque[_Emitted] = deque()
        self._last_number = 0

    def reaches(self, index: int) -> bool:
        """Whether the frame with this emission index is still to come."""
        return index >= (self._held[0].emission if self._held else self.num_emitted)

    def frames(
        self, keys: Sequence[int], key_of: Callable[[int, Any], int], news: Callable[[], None]
    ) -> Iterator[tuple[int, Any, str]]:
        """Frames by their keys, in the order of emission; ends early where one is not found.

        Args:
            keys: of the frames that are wanted.
            key_of: (emission index, frame) to key.
            news: called for each frame that is decoded.

        Yields:
            (place in `keys`, frame, what damages it). What is behind the last one stays for the next call.
        """
        self.reports.skip()  # what others had the decoder's library say since the last call
        for nth, key in enumerate(keys):
            while (found := self._take(key, key_of)) is None:
                if not self._advance():
                    found = self._take(key, key_of, is_end=True)
                    break
                news()
            if found is None:
                return
            yield nth, found.native, self.reports.between(found.start, found.number)

    def _take(self, key: int, key_of: Callable[[int, Any], int], *, is_end: bool = False) -> _Emitted | None:
        """Takes a frame out once all is known of it, and forgets those before it."""
        while self._held and key_of(self._held[0].emission, self._held[0].native) != key:
            self._held.popleft()
        if self._held and (is_end or self._last_number - self._held[0].number >= MAX_REORDER_FRAMES):
            return self._held.popleft()
        return None

    def _advance(self) -> bool:
        """Decodes one more frame; False at the end."""
        try:
            emitted = next(self._decoded, None)
        except av.FFmpegError as error:
            self.error, emitted = error, None
        if emitted is None:
            return False
        self._held.append(emitted)
        self.num_emitted += 1
        self._last_number = emitted.number
        return True

    def _decode(self, container: Any, stream: Any) -> Iterator[_Emitted]:
        reports, index = self.reports, 0
        for number, packet in enumerate(container.demux(stream)):
            reports.read(number, packet)
            is_end = packet.size == 0 and packet.dts is None and packet.pts is None
            for native in reports.decode(stream, None if is_end else packet, number):
                own = reports.number_of(native, number)
                yield _Emitted(index, native, reports.shown(native, own), own)
                index += 1
            if is_end:
                return
