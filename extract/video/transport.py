"""Was a transport stream cut? It does not say how long it is, and a demuxer drops what is not whole without a word.

Three things tell, and only the last needs a decoder:

1. The file ends inside a packet of 188, 192 or 204 bytes.
2. A PES packet says its length (that of sound always does) and has fewer bytes.
3. The PES packet of a picture is of open length, as FFmpeg writes it. Its last transport packet is padded, unless
   the data happen to fill it (1 of 184). Without padding, the last picture of H.264 or HEVC is decoded with
   different bytes behind its data: a whole picture ends before them and stays the same. HEVC's decoder never
   flags a picture that lacks data, H.264's nearly always, those of other codecs do.

Not seen, because nothing in the file tells: a cut between two pictures, or in the tables and padding between
them. It is a shorter recording. Pictures that are shown late are decoded early, so the last times of such a file
may have a hole; so may those of a piece that was copied out packet by packet, and it is no cut file.
Not seen either: a picture that lacks its last few bytes and ends at the same place with all the bytes tried (2 of
2,483 HEVC pictures that lacked 1 to 15 bytes and were changed by that), and the second of two fields that are
pictures of their own.

Source: ITU-T H.222.0 (ISO/IEC 13818-1), 2.4.3.2 to 2.4.3.7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags

from reelbank.manifests.files import regular

_SYNC = 0x47
_PACKET_BYTES = 188
# (stride, bytes before the sync byte, bytes from the sync byte to the end): plain, with the time stamp of
# Blu-ray and camcorders, with the check bytes of broadcast.
_GRIDS = ((188, 0, 188), (192, 4, 188), (204, 0, 204))
_GRID_PACKETS = 8  # so many sync bytes in a row are no accident
# What is judged by the tail: the longest PES packet of known length has 64 KiB, and others lie between its parts.
_TAIL_BYTES = 2**22

# Their slices end where the entropy decoder says so: what stands behind the end changes nothing.
_SELF_ENDING_CODECS = ("h264", "hevc")
# Two are not enough: both may be so wrong that the decoder gives up at the same block.
_TAILS = tuple(bytes([value]) * 64 for value in (0x00, 0xFF, 0x55, 0xAA))
_KEPT_BYTES = 2**26


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the file ends, by its packets alone.

    Attributes:
        missing_bytes: of the last packet, or else of PES packets that say their length.
        unpadded: PIDs whose last PES packet is of open length and might go on.
    """

    missing_bytes: int = 0
    unpadded: frozenset[int] = frozenset()


def ending(path: Path) -> Ending:
    """Reads the end of a transport stream; one that ends in something else is not judged."""
    size = path.stat().st_size
    with regular(path).open("rb") as file:
        file.seek(max(size - _TAIL_BYTES, 0))
        data = file.read()
    for stride, lead_bytes, body_bytes in _GRIDS:
        last = _last_sync(data, stride, body_bytes)
        if last is None:
            continue
        rest = len(data) - last - body_bytes
        if rest and (rest <= lead_bytes or data[last + stride] == _SYNC):
            return Ending(missing_bytes=stride - rest)
        return _payloads_end(data, range(last % stride, last + 1, stride))
    return Ending()


def _last_sync(data: bytes, stride: int, body_bytes: int) -> int | None:
    """Offset of the last whole packet's sync byte; None where the file ends in no packets of this size."""
    end = len(data) - body_bytes
    for last in range(end, max(end - stride, -1), -1):
        syncs = data[last::-stride][:_GRID_PACKETS]
        if syncs.count(_SYNC) == len(syncs):
            return last
    return None


def _payloads_end(data: bytes, syncs: range) -> Ending:
    lacking: dict[int, int] = {}  # bytes that the last PES packet of a PID still lacks, where it says its length
    padded: dict[int, bool] = {}  # whether its last transport packet is padded, where it does not
    for sync in syncs:
        packet = data[sync : sync + _PACKET_BYTES]
        pid = int.from_bytes(packet[1:3], "big") & 0x1FFF
        if packet[0] != _SYNC or packet[1] & 0x80 or packet[3] & 0xC0 or not packet[3] & 0x10:
            continue  # damaged, scrambled or without payload
        start = 5 + packet[4] if packet[3] & 0x20 else 4
        payload = packet[start:]
        if packet[1] & 0x40:
            lacking.pop(pid, None)
            padded.pop(pid, None)
            if payload[:3] != b"\0\0\1":
                continue  # a table
            if length := int.from_bytes(payload[4:6], "big"):
                lacking[pid] = 6 + length
            else:
                padded[pid] = False
        if pid in lacking:
            lacking[pid] -= len(payload)
        elif pid in padded:
            padded[pid] = _is_padded(packet[4:start])
    unpadded = frozenset(pid for pid, is_padded in padded.items() if not is_padded)
    return Ending(missing_bytes=max([0, *lacking.values()]), unpadded=unpadded)


def _is_padded(field: bytes) -> bool:
    """Whether an adaptation field is longer than what its flags announce, or announces nothing."""
    if len(field) < 2 or not field[1]:
        return len(field) > 0
    flags, used = field[1], 2
    used += 6 * bool(flags & 0x10) + 6 * bool(flags & 0x08) + bool(flags & 0x04)  # two clocks, splice countdown
    for flag in (0x02, 0x01):  # private data and extension say their length
        if flags & flag:
            used += 1 + int.from_bytes(field[used : used + 1], "big")
    return len(field) > used


class LastPictures:
    """The packets of the last two groups of pictures: the decoder's state before the last picture."""

    def __init__(self) -> None:
        self._packets: list[Any] = []
        self._last_key, self._num_bytes = 0, 0

    def add(self, packet: Any) -> None:
        """Takes the next packet; those before the key frame before the last are forgotten, and all if too many."""
        if self._num_bytes > _KEPT_BYTES:
            self._packets, self._last_key, self._num_bytes = [], 0, 0
        if packet.is_keyframe:
            self._num_bytes -= sum(old.size for old in self._packets[: self._last_key])
            self._packets = self._packets[self._last_key :]
            self._last_key = len(self._packets)
        if self._packets or packet.is_keyframe:
            self._packets.append(packet)
            self._num_bytes += packet.size

    def lack_data(self, stream: Any, news: Callable[[], None] = lambda: None) -> bool:
        """Whether bytes behind the last picture change it, or it is none. False where that cannot be found out.

        `news` is called for every frame that is decoded on the way.
        """
        last = self._packets[-1] if self._packets else None
        if last is None or stream.codec_context.name not in _SELF_ENDING_CODECS:
            return False
        first, *others = (self._last_picture(stream, tail, news) for tail in _TAILS)
        return first is None or any(other is None or not np.array_equal(first, other) for other in others)

    def _last_picture(self, stream: Any, tail: bytes, news: Callable[[], None]) -> Any:
        """The last picture with `tail` behind its data; None where there is none."""
        context = av.CodecContext.create(stream.codec_context.name, "r")
        context.extradata = stream.codec_context.extradata
        context.thread_count = 1
        context.flags |= Flags.output_corrupt
        last = av.Packet(bytes(self._packets[-1]) + tail)
        # Raw streams have no times: the last picture is then the only one that has.
        last.pts = 0 if self._packets[-1].pts is None else self._packets[-1].pts
        last.dts = self._packets[-1].dts
        picture = None
        try:
            for packet in (*self._packets[:-1], last, None):
                for frame in context.decode(packet):
                    news()
                    if frame.pts == last.pts:
                        picture = frame.to_ndarray(format="rgb24")
        except av.FFmpegError:
            return None
        return picture
