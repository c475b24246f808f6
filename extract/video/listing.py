"""What was passed over in an AVI or FLV: behind a damaged chunk or tag, FFmpeg looks for the next without a word.

An AVI has no timestamps, so every later frame would have the time of the one before it. Its index, at the other end of
the file, says where each chunk is, or was before bytes were lost. An FLV has times, but a decoder goes on with a frame
that lacks its end, or without the one that was before.

Sources: Microsoft's AVI RIFF File Reference (`idx1`); Adobe Flash Video File Format Specification 10.1, annex E.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from reelbank.extract.errors import DecodeError
from reelbank.extract.video.opening import AVI, FLV
from reelbank.manifests.files import regular

_CHUNK_HEAD_BYTES = 8
_ENTRY_BYTES = 16
_TAG_HEAD_BYTES = 11
FLV_TAGS = (8, 9, 18)  # sound, picture, script data
# As far before its place an index is looked for.
_MOST_MISSING_BYTES = 64 * 2**20
SHIFTED = "the chunks before its frames do not follow each other: bytes are missing there, or too many"
TAG_DIFFERS = "a tag before it, or its own, is not as long as it says"
NOT_FOUND = "the container lists a chunk that is not where it should be"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What stands between two chunks that are where the index says.

    Attributes:
        strays: numbers of the packets between them.
        num_missing: chunks that the index lists between them, less the packets.
        why: what is wrong with the strays.
    """

    strays: tuple[int, ...] = ()
    num_missing: int = 0
    why: str = NOT_FOUND


class Listing:
    """The index of an AVI beside what its demuxer gives. Nothing is missed in an AVI without one, nor elsewhere."""

    def __init__(self, places: Sequence[int], cut: int = -1) -> None:
        """The data of each listed chunk begin at one of `places`; in or behind number `cut`, bytes are missing."""
        self._cut = cut
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
        gap = self._gap(nth)
        return replace(gap, strays=(*gap.strays, number)) if nth == self._cut else gap

    def end(self) -> Gap:
        """What is wrong behind the last packet that is listed."""
        return self._gap(self._num_listed) if self._is_used else Gap()

    def _gap(self, nth: int) -> Gap:
        num_listed, strays = nth - self._next, tuple(self._strays)
        self._strays.clear()
        self._next = nth + 1
        return Gap(strays=strays, num_missing=max(num_listed - len(strays), 0)) if num_listed else Gap()


class Tags:
    """The tags of an FLV, each of which says its size before and behind it: where the two differ, bytes are missing."""

    def __init__(self, file: BinaryIO) -> None:
        """Writers that leave out the size behind a tag do so from the first on: nothing is missed in their files."""
        self._file = file
        file.seek(5)
        self._next = int.from_bytes(file.read(4), "big") + 4
        self._is_used = self._behind(self._next) is not None

    def meet(self, number: int, packet: Any) -> Gap:
        """Takes the next packet; it is a stray if tags do not follow each other up to its end."""
        if not self._is_used or packet.pos is None:
            return Gap()
        place: int | None = self._next
        while place is not None and place < packet.pos:
            place = self._behind(place)
        behind = self._behind(packet.pos)
        self._next = behind or packet.pos
        return Gap() if place == packet.pos and behind else Gap(strays=(number,), why=TAG_DIFFERS)

    def end(self) -> Gap:
        """Whether something is missing at the end is told elsewhere (`truncation`)."""
        return Gap()

    def _behind(self, place: int) -> int | None:
        """Where the tag behind the one at `place` begins; None if that is no tag, or not of one size."""
        self._file.seek(place)
        head = self._file.read(_TAG_HEAD_BYTES)
        size = _TAG_HEAD_BYTES + int.from_bytes(head[1:4], "big")
        self._file.seek(place + size)
        is_tag = head[:1] != b"" and head[0] & 0x1F in FLV_TAGS and int.from_bytes(self._file.read(4), "big") == size
        return place + size + 4 if is_tag else None


@contextmanager
def listing(path: str, container: Any, stream: Any) -> Iterator[Listing | Tags]:
    """Of a container that was just opened: while it reads, the demuxer adds to the index what it finds.

    Raises:
        DecodeError: nothing says where the frames begin.
    """
    if container.format.name == FLV:
        with regular(Path(path)).open("rb") as file:
            yield Tags(file)
    elif container.format.name != AVI:
        yield Listing(())
    elif is_shifted(Path(path)):
        raise DecodeError(path, SHIFTED)
    elif (moved := moved_chunks(Path(path), stream.index)) is not None:
        yield Listing(*moved)
    else:
        yield Listing([entry.pos + _CHUNK_HEAD_BYTES for entry in stream.index_entries])


def moved_chunks(path: Path, stream_index: int) -> tuple[list[int], int] | None:
    """Where the data of each listed chunk of a stream begins in an AVI in which bytes are missing.

    Its index lies before its place, and FFmpeg does not find it. Chunks are where it says as
    far as they have the size that it says, and behind them as much earlier as the index itself.

    Returns:
        The places, and the number of the chunk in which bytes are missing, or behind it (-1: before all of them). None
        for an AVI that is as it says, that has no index, or has parts behind its first gigabyte.
    """
    with regular(path).open("rb") as file:
        frames = frames_list(file, path.stat().st_size)
        if frames is None or (place := moved_index(file, frames[1])) is None:
            return None
        file.seek(place + 4)
        table = file.read(int.from_bytes(file.read(4), "little"))
        start, missing = frames[0], frames[1] - place
        listed = [struct.unpack_from("<4s4xII", table, at) for at in range(0, len(table) - 15, _ENTRY_BYTES)]
        # Offsets count from the name of the list, or from the start of the file.
        base = start if listed and listed[0][1] < start else 0
        heads = [(name, base + offset, size) for name, offset, size in listed]
        first_moved = _first_moved(file, heads)
    ours = [(nth, at) for nth, (name, at, _) in enumerate(heads) if name[:2] == b"%02d" % stream_index]
    places = [at + _CHUNK_HEAD_BYTES - (0 if nth < first_moved else missing) for nth, at in ours]
    return places, sum(nth < first_moved for nth, _ in ours) - 1


def _first_moved(file: BinaryIO, heads: Sequence[tuple[bytes, int, int]]) -> int:
    """Number of the first listed chunk that is not where the index says."""
    for nth, (name, at, size) in enumerate(heads):
        file.seek(at)
        if file.read(_CHUNK_HEAD_BYTES) != name + size.to_bytes(4, "little"):
            return nth
    return len(heads)


def frames_list(file: BinaryIO, size: int) -> tuple[int, int] | None:
    """Where the last `movi` list of an AVI begins (its name) and ends, as it says itself; None without one."""
    offset, found = 0, None
    while offset + 12 <= size:  # one RIFF chunk per gigabyte (OpenDML)
        file.seek(offset)
        head = file.read(12)
        if head[:4] != b"RIFF":
            break
        riff_end = offset + 8 + int.from_bytes(head[4:8], "little")
        inner = offset + 12
        while inner + 12 <= min(riff_end, size):
            file.seek(inner)
            chunk = file.read(12)
            length = int.from_bytes(chunk[4:8], "little")
            if chunk[:4] == b"LIST" and chunk[8:12] == b"movi":
                found = inner + 8, inner + 8 + length
            inner += 8 + length + length % 2
        if riff_end <= offset + 12:
            break
        offset = riff_end + riff_end % 2
    return found


def is_shifted(path: Path) -> bool:
    """Whether an AVI says how large it is, and a walk over its chunks loses its way before the frames."""
    size = path.stat().st_size
    with regular(path).open("rb") as file:
        file.seek(4)
        return int.from_bytes(file.read(4), "little") > 0 and frames_list(file, size) is None


def moved_index(file: BinaryIO, frames_end: int) -> int | None:
    """Where the index lies that should lie at `frames_end`, if that is earlier and the file ends behind it."""
    begin = max(frames_end - _MOST_MISSING_BYTES, 0)
    file.seek(begin)
    tail = file.read(frames_end + _CHUNK_HEAD_BYTES - begin)
    place = tail.rfind(b"idx1")
    if place < 0 or begin + place >= frames_end:
        return None
    length = int.from_bytes(tail[place + 4 : place + 8], "little")
    file.seek(0, 2)
    fits = begin + place + _CHUNK_HEAD_BYTES + length <= file.tell()
    return begin + place if fits and length and length % _ENTRY_BYTES == 0 else None
