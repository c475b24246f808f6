"""The rules for the end of further containers; `truncation` says what each goes by.

Every rule gives where a file must end at least, as a number of bytes, and its complement `~end` where the file does
not say where it ends: a cut may then be unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

_TAIL_BYTES = 1 << 20
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_BROADCAST = 1
_OGG_PAGE_BYTES, _OGG_LAST = 27, 4
_IVF_HEADER_BYTES, _IVF_FRAME_BYTES = 32, 12
_NUT_INDEX = bytes.fromhex("4e58dd672f23e64e")
_WTV_SECTOR_BYTES = 1 << 12
_REAL_HEADER_BYTES = 18
_Y4M_CHROMA = {  # (width and height of a chroma sample in pixels, chroma planes)
    "410": (4, 4, 2), "411": (4, 1, 2), "420": (2, 2, 2), "422": (2, 1, 2), "444alpha": (1, 1, 3), "444": (1, 1, 2),
    "mono": (1, 1, 0),
}  # fmt: skip
_PROGRAM_END = b"\0\0\1\xb9"
_DV_FRAME_BYTES = {False: 120_000, True: 144_000}  # 60 and 50 fields a second


def announced_end(file: BinaryIO, head: bytes, size: int) -> int:
    """Where a file with this `head` must end at least; ~0 for formats without a rule."""
    for magic, rule in _RULES.items():
        if head.startswith(magic):
            return rule(file, size)
    return ~0


def _ogg(file: BinaryIO, size: int) -> int:
    """The last page is whole and flagged as the last of its stream."""
    start = max(size - _TAIL_BYTES, 0)
    file.seek(start)
    tail = file.read()
    for page in reversed([found.start() for found in re.finditer(b"OggS\0", tail)]):
        lacing = tail[page + _OGG_PAGE_BYTES :][: tail[page + 26]] if page + 26 < len(tail) else b""
        end = start + page + _OGG_PAGE_BYTES + len(lacing) + sum(lacing)
        if page + _OGG_PAGE_BYTES > len(tail) or len(lacing) < tail[page + 26]:
            return size + 1
        return end if tail[page + 5] & _OGG_LAST else max(end, size) + 1
    return ~0


def _asf(file: BinaryIO, size: int) -> int:
    file.seek(0)
    head = file.read(_TAIL_BYTES)
    at = head.find(_ASF_PROPERTIES)
    flags = int.from_bytes(head[at + 88 : at + 92], "little") if at >= 0 else _ASF_BROADCAST
    offset = int.from_bytes(head[16:24], "little")  # the data follow the header
    file.seek(offset)
    data = file.read(24)
    if offset >= size:
        return offset + 1
    length = int.from_bytes(data[16:24], "little")
    return ~0 if flags & _ASF_BROADCAST or data[:16] != _ASF_DATA or length <= 50 else offset + length


def _ivf(file: BinaryIO, size: int) -> int:
    file.seek(24)
    told = int.from_bytes(file.read(4), "little")
    offset, num_frames, pts = _IVF_HEADER_BYTES, 0, 0
    while offset < size:
        file.seek(offset)
        frame = file.read(_IVF_FRAME_BYTES)
        if len(frame) < _IVF_FRAME_BYTES:
            return size + 1
        pts, num_frames = int.from_bytes(frame[4:], "little"), num_frames + 1
        offset += _IVF_FRAME_BYTES + int.from_bytes(frame[:4], "little")
    if told == num_frames:
        return offset
    # Some write the duration instead: it is then no less than the last time.
    return offset + 1 if told > num_frames and told > pts + 1 + pts // max(num_frames - 1, 1) else ~offset


def _keys(file: BinaryIO, offset: int, size: int) -> Iterator[int]:
    """Ends of the KLV triplets of an MXF file from `offset` on; the last one may lie behind the file's end."""
    while offset < size:
        file.seek(offset + 16)
        length = file.read(9)
        if not length:
            yield size + 1
            return
        num_bytes = length[0] & 0x7F if length[0] & 0x80 else 0
        value = int.from_bytes(length[1 : 1 + num_bytes], "big") if num_bytes else length[0]
        offset += 17 + num_bytes + value
        yield offset


def _mxf(file: BinaryIO, size: int) -> int:
    """The header partition says where the footer is; what follows it is whole."""
    file.seek(16)
    num_bytes = file.read(1)[0]
    file.seek(17 + (num_bytes & 0x7F if num_bytes & 0x80 else 0) + 24)
    footer = int.from_bytes(file.read(8), "big")
    if footer == 0:
        return ~max(_keys(file, 0, size), default=0)
    return max(_keys(file, footer, size), default=footer + 1)


def _nut(file: BinaryIO, size: int) -> int:
    """Its last bytes say where the index begins."""
    file.seek(max(size - 12, 0))
    behind = int.from_bytes(file.read(8), "big")
    file.seek(max(size - behind, 0))
    return size if file.read(8) == _NUT_INDEX else ~0


def _real(file: BinaryIO, size: int) -> int:
    """FFmpeg says 18 bytes too much; a demuxer flags the packet that lacks so few."""
    offset = 0
    while offset < size:
        file.seek(offset)
        head = file.read(8)
        length = int.from_bytes(head[4:], "big")
        if head[:4] == b"DATA":
            return offset + length - _REAL_HEADER_BYTES if length > _REAL_HEADER_BYTES else ~0
        if length < 8:
            return ~0
        offset += length
    return offset


def _wtv(file: BinaryIO, size: int) -> int:
    file.seek(0x5C)
    sectors = int.from_bytes(file.read(4), "little")
    return sectors * _WTV_SECTOR_BYTES if sectors else ~0


def _png(file: BinaryIO, size: int) -> int:
    offset = 8
    while offset < size:
        file.seek(offset)
        head = file.read(8)
        offset += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            return offset
    return max(offset, size + 1)


def _program_stream(file: BinaryIO, size: int) -> int:
    """Packs and packets from some pack near the end on: an end code ends them, or the file ends between two."""
    start = max(size - _TAIL_BYTES, 0)
    file.seek(start)
    data = file.read()
    if data.endswith(_PROGRAM_END):
        return size
    at = data.find(b"\0\0\1\xba")
    while 0 <= at < len(data):
        if data[at : at + 3] != b"\0\0\1"[: len(data) - at]:
            return ~0
        head = data[at : at + 14]
        if len(head) < 6:
            return ~(size + 1)
        if head[3] == 0xBA:
            second = head[4] >> 6 == 1  # MPEG-2 rather than MPEG-1
            at += 14 + (head[13] & 7 if len(head) == 14 else 0) if second else 12
        else:
            at += 6 + int.from_bytes(head[4:6], "big")
    return ~(start + at) if at >= 0 else ~0


def _obu(file: BinaryIO, size: int) -> int:
    """Units of AV1 one after another, each with its size."""
    offset = 0
    while offset < size:
        file.seek(offset)
        head = file.read(10)
        if not head[0] & 2:  # no size: it reaches to the end
            return ~size
        at, value = 1 + (head[0] >> 2 & 1), 0
        for shift in range(0, 57, 7):
            if at >= len(head):
                return ~(size + 1)
            value, at = value | (head[at] & 0x7F) << shift, at + 1
            if not head[at - 1] & 0x80:
                break
        offset += at + value
    return ~offset


def _yuv4mpeg(file: BinaryIO, size: int) -> int:
    """A line of text, then frames of one size, each behind a line of its own."""
    file.seek(0)
    head = file.readline(1024)
    frame = file.readline(1024)
    parts = {word[:1]: word[1:].decode("ascii", "replace") for word in head.split()[1:]}
    width, height = (int(parts.get(name, "")) if parts.get(name, "").isdecimal() else 0 for name in (b"W", b"H"))
    colours = parts.get(b"C", "420")
    samples = next((shares for name, shares in _Y4M_CHROMA.items() if colours.startswith(name)), None)
    if samples is None or not width or not height or frame != b"FRAME\n":
        return ~0
    across, down, planes = samples
    chroma = planes * -(-width // across) * -(-height // down)
    depth = re.search(r"p(1[0-6]|9)$|mono(1[0-6]|9)$", colours)
    frame_bytes = len(frame) + (width * height + chroma) * (2 if depth else 1)
    return ~(len(head) + -(-(size - len(head)) // frame_bytes) * frame_bytes)


def _mjpeg(file: BinaryIO, size: int) -> int:
    """JPEG pictures one after another: the last has its end marker, padding may follow."""
    file.seek(max(size - _TAIL_BYTES, 0))
    return ~size if file.read().rstrip(b"\0").endswith(b"\xff\xd9") else ~(size + 1)


def _sequence(file: BinaryIO, size: int) -> int:
    """Raw MPEG-1, 2 or 4 video may end in a code that says so."""
    file.seek(max(size - 4, 0))
    return size if file.read(4) in (b"\0\0\1\xb7", b"\0\0\1\xb1") else ~0


def _dv(file: BinaryIO, size: int) -> int:
    file.seek(3)
    frame_bytes = _DV_FRAME_BYTES[file.read(1)[0] & 0x80 != 0]
    return ~(-(-size // frame_bytes) * frame_bytes)


_RULES: dict[bytes, Callable[[BinaryIO, int], int]] = {
    b"OggS": _ogg,
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"): _asf,
    b"DKIF": _ivf,
    bytes.fromhex("060e2b34020501010d010201"): _mxf,
    b"nut/multimedia container\0"[:24]: _nut,
    b".RMF": _real,
    bytes.fromhex("b7d800203749da11a64e0007e95ead8d"): _wtv,
    b"\x89PNG\r\n\x1a\n": _png,
    b"\0\0\1\xb0": _sequence,
    b"\0\0\1\xb3": _sequence,
    b"\0\0\1\xba": _program_stream,
    b"\xff\xd8\xff": _mjpeg,
    b"\x12\0": _obu,
    b"\x1f\x07\0": _dv,
    b"YUV4MPEG2 ": _yuv4mpeg,
}
"""By the first bytes of the file."""
