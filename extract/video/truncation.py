"""Does a container end before it says it does? Read from the outer structure alone, without a demuxer.

Frame counts in headers are no help: intact AVI files are off by one or two, Matroska has none. The sizes of
the outermost elements are: whoever cuts a file leaves them as they were. GIF ends in a trailer. FLV is a row of
tags with their sizes, so a cut between two tags is not seen: nothing tells it from a shorter recording.
Transport streams have a module of their own (`transport`).

Sources: Matroska and EBML, RFC 9559 and RFC 8794; RIFF and AVI, Microsoft's AVI RIFF File Reference;
ISO base media boxes, ISO/IEC 14496-12; CompuServe's GIF89a specification; Adobe Flash Video File Format
Specification 10.1, annex E.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from reelbank.manifests.files import regular

_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_EBML_SEGMENT = b"\x18\x53\x80\x67"
_FLV_TAGS = (8, 9, 18)  # sound, picture, script data


def missing_bytes(path: Path) -> int:
    """How many bytes an AVI, Matroska, fragmented MP4, GIF or FLV announces past the file's end, at least.

    0 for an intact file and for every other format. An MP4 that is not fragmented is not judged here: its
    sample table says exactly which frames there are.
    """
    size = path.stat().st_size
    with regular(path).open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            end = _avi_frames_end(file, size)
        elif head[:4] == _EBML_HEADER:
            end = _segment_end(file)
        elif head[4:8] == b"ftyp":
            end = _fragments_end(file, size)
        elif head[:6] in (b"GIF87a", b"GIF89a"):
            end = _gif_end(file)
        elif head[:3] == b"FLV":
            end = _tags_end(file, size)
        else:
            end = 0
    return max(end - size, 0)


def _avi_frames_end(file: BinaryIO, size: int) -> int:
    """End of the last `movi` list: an index that is cut off behind it costs no frame."""
    offset, frames_end = 0, 0
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
                frames_end = inner + 8 + length
            inner += 8 + length + length % 2
        if riff_end <= offset + 12:
            break
        offset = riff_end + riff_end % 2
    return frames_end


def _segment_end(file: BinaryIO) -> int:
    """End of the first Matroska segment; 0 where its size is unknown, as in a live recording."""
    file.seek(4)
    header_length = _vint(file)
    if header_length is None:
        return 0
    file.seek(header_length, 1)
    while (name := file.read(4)) and name != _EBML_SEGMENT:
        if name[0] != 0xEC:  # only Void may stand between header and segment
            return 0
        file.seek(-3, 1)
        length = _vint(file)
        if length is None:
            return 0
        file.seek(length, 1)
    length = _vint(file) if name else None
    return 0 if length is None else file.tell() + length


def _vint(file: BinaryIO) -> int | None:
    """A variable-length size of EBML; None for the reserved value "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    num_bytes = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> num_bytes)]) + file.read(num_bytes - 1), "big")
    return None if value == (1 << (7 * num_bytes)) - 1 else value


def _fragments_end(file: BinaryIO, size: int) -> int:
    """End of the last top-level box of a fragmented file, or of its header where that is cut; else 0."""
    offset, fragmented = 0, False
    while offset < size:
        file.seek(offset)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if len(head) < 8 or (length == 1 and len(head) < 16):
            return size + 1 if fragmented else 0
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        fragmented = fragmented or head[4:8] == b"moof"
        if length < 8:  # 0: the box reaches to the end of the file
            return 0
        offset += length
    return offset if fragmented else 0


def _gif_end(file: BinaryIO) -> int:
    """End of a GIF's trailer, or of what is needed next where the file ends before; 0 where a block is unknown."""
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
                return 0
        while (length := file.read(1)) and length[0]:
            file.seek(length[0], 1)
    return file.tell() + 1


def _color_table_bytes(file: BinaryIO) -> int:
    """Reads the flags that tell whether a colour table follows, and how long it is."""
    flags = int.from_bytes(file.read(1), "big")
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _tags_end(file: BinaryIO, size: int) -> int:
    """End of the last FLV tag and of the repeated size behind it; 0 where something else stands among the tags."""
    file.seek(5)
    offset = int.from_bytes(file.read(4), "big") + 4
    while offset < size:
        file.seek(offset)
        head = file.read(4)
        if head[0] & 0x1F not in _FLV_TAGS:
            return 0
        offset += 11 + 4 + int.from_bytes(head[1:], "big")
    return offset
