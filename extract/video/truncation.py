"""Does a container end before it says it does? Read from the outer structure alone, without a demuxer.

Frame counts in headers are no help: intact AVI files are off by one or two, Matroska has none. What tells, and what
cannot be told (`Ending.is_known` is then False, the ledger and the summary of a run say so):

    AVI, Matroska, ASF, RealMedia  size of the element that holds the frames; not of a live recording without one
    MP4, MOV                       the sample table; fragmented: the index of fragments, or the sizes of a `sidx`
    GIF, PNG                       the trailer
    FLV                            the file's size in its script data; else only a cut inside a tag is seen
    Ogg                            the page that is flagged as the last
    MXF                            where the footer partition lies; not of a file that was never closed
    WTV                            the number of sectors
    IVF                            the number of frames; else only a cut inside a frame is seen
    NUT                            its index; it may be left out, then a cut may be unseen
    MPEG program stream            its end code, which may be left out; then only a cut inside a packet is seen
    transport stream               see `transport`: a cut between two pictures is not seen
    DV                             a whole number of frames; a cut between two frames is not seen
    raw MPEG-1, 2 and 4            the end code, which may be left out
    raw AV1, YUV4MPEG              sizes of what stands in them: a cut between two is not seen
    raw H.264, HEVC, MJPEG         a cut inside a picture; between two none is seen, and where pictures are shown in
                                   another order than stored the last times of a cut file may be wrong

Sources: Matroska and EBML, RFC 9559 and RFC 8794; RIFF and AVI, Microsoft's AVI RIFF File Reference; ISO base media
boxes, ISO/IEC 14496-12; CompuServe's GIF89a specification; Adobe Flash Video File Format Specification 10.1, annex E;
Microsoft's Advanced Systems Format Specification 1.20; Ogg, RFC 3533; PNG, ISO/IEC 15948; MXF, SMPTE ST 377-1;
MPEG program streams, ISO/IEC 13818-1; NUT's, IVF's, RealMedia's and WTV's as FFmpeg writes them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from reelbank.extract.video import endings, listing
from reelbank.manifests.files import regular

_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_EBML_SEGMENT = b"\x18\x53\x80\x67"
_FLV_HEAD_BYTES = 1 << 16
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"moof", b"styp", b"sidx")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What a file says of its end.

    Attributes:
        missing_bytes: that it announces behind its end, at least.
        is_known: whether it says where it ends at all.
    """

    missing_bytes: int = 0
    is_known: bool = False


def ending(path: Path) -> Ending:
    """Judges a file by its own words. An MP4 that is not fragmented is judged by its sample table elsewhere."""
    size = path.stat().st_size
    with regular(path).open("rb") as file:
        head = file.read(24)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            end = _avi_frames_end(file, size)
        elif head[:4] == _EBML_HEADER:
            end = _segment_end(file)
        elif head[4:8] in _MOV_BOXES:
            end = _fragments_end(file, size)
        elif head[:6] in (b"GIF87a", b"GIF89a"):
            end = _gif_end(file)
        elif head[:3] == b"FLV":
            end = _tags_end(file, size)
        else:
            end = endings.announced_end(file, head, size)
    known, end = (True, end) if end >= 0 else (False, ~end)
    return Ending(missing_bytes=max(end - size, 0), is_known=known)


def missing_bytes(path: Path) -> int:
    """How many bytes a file announces behind its end, at least; 0 for an intact one and where nothing is said."""
    return ending(path).missing_bytes


def _avi_frames_end(file: BinaryIO, size: int) -> int:
    """End of the last `movi` list. An index cut off behind it costs no frame; one before it is where they end."""
    frames = listing.frames_list(file, size)
    if frames is None:
        return ~0
    place = listing.moved_index(file, frames[1])
    return frames[1] if place is None else place


def _segment_end(file: BinaryIO) -> int:
    """End of the first Matroska segment; unknown where its size is, as in a live recording."""
    file.seek(4)
    header_length = _vint(file)
    if header_length is None:
        return ~0
    file.seek(header_length, 1)
    while (name := file.read(4)) and name != _EBML_SEGMENT:
        if name[0] != 0xEC:  # only Void may stand between header and segment
            return ~0
        file.seek(-3, 1)
        length = _vint(file)
        if length is None:
            return ~0
        file.seek(length, 1)
    length = _vint(file) if name else None
    return ~0 if length is None else file.tell() + length


def _vint(file: BinaryIO) -> int | None:
    """A variable-length size of EBML; None for the reserved value "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    num_bytes = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> num_bytes)]) + file.read(num_bytes - 1), "big")
    return None if value == (1 << (7 * num_bytes)) - 1 else value


def _fragments_end(file: BinaryIO, size: int) -> int:
    """End of the last top-level box of a fragmented file, or of its header where that is cut.

    It is known by the index of fragments (`mfra`) behind them, or by a `sidx` before them; else there may have been
    more. What is not fragmented is known by its sample table.
    """
    offset, fragmented, indexed, announced = 0, False, False, 0
    while offset < size:
        file.seek(offset)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if len(head) < 8 or (length == 1 and len(head) < 16):
            return size + 1 if fragmented else 0
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        kind = head[4:8]
        fragmented, indexed = fragmented or kind == b"moof", indexed or kind == b"mfra"
        if kind == b"sidx" and not announced:
            announced = offset + length + _referenced_bytes(file, offset)
        if length < 8:  # 0: the box reaches to the end of the file
            return ~0 if fragmented else 0
        offset += length
    if not fragmented:
        return 0
    return max(offset, announced) if indexed or announced else ~offset


def _referenced_bytes(file: BinaryIO, offset: int) -> int:
    """How much of the file the references of a `sidx` box are about."""
    file.seek(offset + 8)
    box = file.read(1 << 16)
    at = 4 + 8 + (8 if box[:1] == b"\0" else 16)
    gap = int.from_bytes(box[at - 4 : at] if box[:1] == b"\0" else box[at - 8 : at], "big")
    count = int.from_bytes(box[at + 2 : at + 4], "big")
    sizes = (int.from_bytes(box[i : i + 4], "big") & 0x7FFFFFFF for i in range(at + 4, at + 4 + 12 * count, 12))
    return gap + sum(sizes)


def _gif_end(file: BinaryIO) -> int:
    """End of a GIF's trailer, or of what is needed next where the file ends before; unknown where a block is."""
    file.seek(10)
    file.seek(13 + _color_table_bytes(file))
    while kind := file.read(1):
        match kind[0]:
            case 0x3B:
                return file.tell()
            case 0x21:  # an extension: its label
                file.seek(1, 1)
            case 0x2C:  # an image: its place and size, its colours, how its codes begin
                file.seek(8, 1)
                file.seek(_color_table_bytes(file) + 1, 1)
            case _:
                return ~0
        while (length := file.read(1)) and length[0]:
            file.seek(length[0], 1)
    return file.tell() + 1


def _color_table_bytes(file: BinaryIO) -> int:
    """Reads the flags that tell whether a colour table follows, and how long it is."""
    flags = int.from_bytes(file.read(1), "big")
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _tags_end(file: BinaryIO, size: int) -> int:
    """The size that the script data tell, else the end of the last FLV tag and of the repeated size behind it."""
    file.seek(5)
    offset = int.from_bytes(file.read(4), "big") + 4
    file.seek(offset)
    told = file.read(_FLV_HEAD_BYTES).partition(b"\0\x08filesize\0")[2][:8]
    announced = struct.unpack(">d", told)[0] if len(told) == 8 else 0.0
    if 0 < announced < 2**53:
        return int(announced)
    while offset < size:
        file.seek(offset)
        head = file.read(4)
        if head[0] & 0x1F not in listing.FLV_TAGS:
            return ~0
        offset += 11 + 4 + int.from_bytes(head[1:], "big")
    return ~offset
