"""May decoding start at this packet? Read from its NAL units.

A container's keyframe flag is a hint: H.264 intra-refresh streams flag pictures that are whole only some
frames later. Here a start is an IDR picture, a recovery point that is exact at once, or an IRAP picture.

Sources: ITU-T H.264 (7.3.1, 7.4.1, D.1.8 recovery point SEI) and H.265 (7.3.1.2, table 7-1); ISO/IEC 14496-15
for the length prefix; ITU-T H.264 annex B for start codes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_H264_SLICE, _H264_IDR, _H264_SEI = 1, 5, 6
_HEVC_LAST_SLICE, _HEVC_FIRST_IRAP, _HEVC_LAST_IRAP = 31, 16, 21
_RECOVERY_POINT = 6
_START_CODE = re.compile(b"\0\0\1")


def nal_length_bytes(codec: str, extradata: bytes | None) -> int | None:
    """Size of the length prefix from an avcC or hvcC record; None where there is no such record."""
    if not extradata or extradata[0] != 1:
        return None
    match codec:
        case "h264" if len(extradata) > 4:
            return (extradata[4] & 3) + 1
        case "hevc" if len(extradata) > 21:
            return (extradata[21] & 3) + 1
    return None


def starts_h264(packet: bytes | memoryview, length_bytes: int | None) -> bool:
    """Whether an H.264 packet holds an IDR picture, or a recovery point with recovery_frame_cnt 0."""
    for nal in _nals(packet, length_bytes):
        kind = nal[0] & 31
        if kind == _H264_IDR:
            return True
        if kind == _H264_SLICE:
            return False
        if kind == _H264_SEI and _recovers_at_once(bytes(nal[1:])):
            return True
    return False


def is_idr(packet: bytes | memoryview, length_bytes: int | None) -> bool:
    """Whether an H.264 packet holds an IDR picture: nothing that is decoded later refers to what came before it."""
    kinds = (nal[0] & 31 for nal in _nals(packet, length_bytes))
    return next((kind == _H264_IDR for kind in kinds if kind in (_H264_SLICE, _H264_IDR)), False)


def starts_hevc(packet: bytes | memoryview, length_bytes: int | None) -> tuple[bool, int]:
    """Whether an HEVC packet holds an IRAP picture (BLA, IDR, CRA), and the temporal sub-layer of its picture."""
    for nal in _nals(packet, length_bytes):
        kind = (nal[0] >> 1) & 63
        if kind <= _HEVC_LAST_SLICE and len(nal) > 1:
            return _HEVC_FIRST_IRAP <= kind <= _HEVC_LAST_IRAP, (nal[1] & 7) - 1
    return False, 0


def _nals(packet: bytes | memoryview, length_bytes: int | None) -> Iterator[memoryview]:
    """NAL units behind their lengths, or behind start codes where there is no length prefix."""
    view = memoryview(packet)
    if length_bytes is None:
        starts = [found.end() for found in _START_CODE.finditer(view)]
        yield from (view[start:end] for start, end in itertools.pairwise([*starts, len(view)]) if start < end)
        return
    offset = 0
    while offset + length_bytes < len(view):
        length = int.from_bytes(view[offset : offset + length_bytes], "big")
        offset += length_bytes
        if length == 0:
            continue
        yield view[offset : offset + length]
        offset += length


def _recovers_at_once(sei: bytes) -> bool:
    sei = sei.replace(b"\0\0\3", b"\0\0")  # emulation prevention
    offset = 0
    while offset + 2 < len(sei):
        kind = size = 0
        for _ in range(2):
            value = 0
            while offset < len(sei) and sei[offset] == 0xFF:
                value, offset = value + 255, offset + 1
            if offset >= len(sei):
                return False
            value, offset = value + sei[offset], offset + 1
            kind, size = size, value
        if kind == _RECOVERY_POINT and offset < len(sei):
            return sei[offset] & 0x80 != 0  # ue(v): a leading 1 bit is the value 0
        offset += size
    return False
