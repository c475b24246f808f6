"""A file that ends early is never a silently shorter clip.

What an encoder writes differs between CPUs, and so does what stands at a share of a file. Cuts are therefore made
at places that are looked up in the file: in a packet, in a picture, between two of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from clips import CLIPS, cut, render

from reelbank.extract.errors import DecodeError
from reelbank.extract.video import plan, transport
from reelbank.extract.video.decode import Video
from reelbank.extract.video.frame import Pixels
from reelbank.extract.video.scan import VideoScan
from reelbank.extract.video.truncation import missing_bytes

# Transport streams and FLV cannot tell a cut between two pictures from a shorter recording: they have their own tests.
CUT = (
    "av1",
    "gif",
    "h264",
    "h264-avi",
    "h264-faststart",
    "h264-fragmented",
    "h264-mkv",
    "h264-mkv-vfr",
    "hevc-mkv",
    "mpeg4-avi-b",
    "mpeg4-mp4-b",
    "vp8-altref",
    "vp9",
)
TRANSPORT = ("h264-m2ts", "h264-ts", "h264-ts-sound", "hevc-ts", "mpeg2-ts")
PADDING_PID = 0x1FFF


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def shown(path: Path) -> tuple[VideoScan, dict[float, Pixels]]:
    """The scan, and every frame that it counts by its time."""
    with Video(path) as video:
        scan = video.scan()
        found = video.frames(range(scan.num_frames))
        return scan, {float(scan.times_seconds[index]): frame.rgb for index, frame in found}


def scan_of_cut(path: Path, whole: dict[float, Pixels]) -> VideoScan | None:
    """The scan of a cut file, None where it is refused; its frames are those that the whole file has at their times."""
    try:
        scan, found = shown(path)
    except DecodeError as error:
        assert error.reason
        return None
    for seconds, rgb in found.items():
        np.testing.assert_array_equal(rgb, whole[seconds], err_msg=f"{path.name}, frame at {seconds} s")
    if scan.broken is None:
        scan.check_whole(None)
    else:
        assert list(found) == list(whole)[: len(found)]
        scan.check_whole(float(scan.times_seconds[-1]))
        for end_seconds in (None, 99.0):
            with pytest.raises(DecodeError, match=r"the clip reaches to .* are usable"):
                scan.check_whole(end_seconds)
    return scan


@pytest.mark.parametrize("name", CUT)
def test_cut_file_is_broken_or_whole_and_keeps_exact_frames(name: str, clip_folder: Path, tmp_path: Path) -> None:
    source = render(clip_folder, name)
    data, (_, whole) = source.read_bytes(), shown(source)
    places = packets_in(source)
    last_end = len(data) if source.suffix == ".gif" else places[-1].stop
    rng = random.Random(name)
    cuts = {place.start for place in rng.sample(places[1:], 3)}
    cuts |= {rng.randrange(place.start + 1, place.stop) for place in [*rng.sample(places, 3), places[-1]]}
    cuts |= {rng.randrange(1, places[1].start), places[-1].stop - 1, len(data) - 1}
    cuts |= {rng.randrange(1, len(data)) for _ in range(3)}
    for box in rng.choices(list(re.finditer(b"moof", data)), k=2) if name == "h264-fragmented" else ():
        cuts |= {box.start() - 3, box.start(), box.end() + 8}
    num_usable = 0
    for at in sorted(cuts):
        if data[at + 4 : at + 8] == b"moof":
            continue  # without its last fragments it is a shorter recording
        path = tmp_path / f"cut{at}{source.suffix}"
        cut(source, path, at)
        scan = scan_of_cut(path, whole)
        num_usable += scan is not None
        if scan is not None and scan.broken is None:
            assert at >= last_end, f"{at} of {len(data)} bytes are silently shorter"
            assert scan.num_frames == len(whole)
    # An MP4 whose index comes last is refused wherever it is cut.
    assert num_usable >= (0 if name in ("h264", "mpeg4-mp4-b") else 3)


def packets_in(path: Path) -> list[range]:
    """Where the packets of a video lie in its file, by their bytes."""
    data, places, start = path.read_bytes(), [], 0
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                start = data.index(bytes(packet), start)
                places.append(range(start, start + packet.size))
                start += packet.size
    return places


@dataclass(frozen=True)
class TransportPacket:
    """One packet of a transport stream: its bytes in the file, its PID, whether a payload begins in it."""

    place: range
    pid: int
    begins: bool


def transport_packets(path: Path) -> Iterator[TransportPacket]:
    stride, before_sync = (192, 4) if path.suffix == ".m2ts" else (188, 0)
    data = path.read_bytes()
    for start in range(0, len(data), stride):
        head = data[start + before_sync : start + before_sync + 4]
        pid = int.from_bytes(head[1:3], "big") & 0x1FFF
        assert head[0] == 0x47 and head[3] & 0x10
        yield TransportPacket(range(start, start + stride), pid, bool(head[1] & 0x40))


def going_on_at(packets: list[TransportPacket], number: int) -> set[int]:
    """PIDs whose payload has begun before a packet and goes on in it or behind it."""
    behind = {packet.pid: packet for packet in reversed(packets[number:]) if packet.pid != PADDING_PID}
    return {packet.pid for packet in packets[:number] if packet.pid in behind and not behind[packet.pid].begins}


def video_pid(path: Path) -> int:
    with av.open(str(path)) as container:
        return int(container.streams.video[0].id)


@pytest.mark.parametrize("name", TRANSPORT)
def test_transport_stream_cut_in_a_packet_is_broken(name: str, clip_folder: Path, tmp_path: Path) -> None:
    """Every place in a packet, of pictures, sound and tables."""
    source = render(clip_folder, name)
    packets, (_, whole) = list(transport_packets(source)), shown(source)
    rng, path = random.Random(name), tmp_path / f"cut{source.suffix}"
    for offset in range(1, len(packets[0].place)):
        packet = rng.choice(packets[8:])
        cut(source, path, packet.place.start + offset)
        assert transport.ending(path).missing_bytes == len(packet.place) - offset
    of_each_pid = [rng.choice([p for p in packets[8:] if p.pid == pid]) for pid in sorted({p.pid for p in packets[8:]})]
    last_begun = max(number for number, packet in enumerate(packets) if packet.begins)
    for packet in (*rng.sample(packets[1:], 12), *of_each_pid, packets[last_begun], packets[-1]):
        cut(source, path, rng.choice(packet.place[1:]))
        scan = scan_of_cut(path, whole)
        assert scan is None or scan.broken is not None, packet
        # The decoder gives the first frame when it has the packets of the second group at the latest.
        assert scan is not None or packet.place.start < packets[-1].place.stop // 2


@pytest.mark.parametrize("name", TRANSPORT)
def test_transport_stream_cut_in_a_payload_is_broken_or_lost_nothing(
    name: str, clip_folder: Path, tmp_path: Path
) -> None:
    """Between two packets, but inside a picture or a sound."""
    source = render(clip_folder, name)
    packets, (_, whole) = list(transport_packets(source)), shown(source)
    pid = video_pid(source)
    inside = [number for number in range(1, len(packets)) if going_on_at(packets, number)]
    # The last packet of a picture may hold nothing but a byte or two that no pixel depends on.
    hardest = [number for number in inside if number + 1 not in inside]
    rng, path = random.Random(name), tmp_path / f"cut{source.suffix}"
    num_broken = 0
    for number in {*rng.sample(inside, min(20, len(inside))), *rng.sample(hardest, min(15, len(hardest)))}:
        cut(source, path, packets[number].place.start)
        scan = scan_of_cut(path, whole)
        num_broken += scan is not None and scan.broken is not None
        if scan is not None and scan.broken is None:
            assert going_on_at(packets, number) == {pid}, f"the sound that packet {number} cuts is not missed"
            num_begun = sum(packet.begins for packet in packets[:number] if packet.pid == pid)
            assert scan.num_frames == num_begun, f"the picture that packet {number} cuts is silently missing"
    assert num_broken


@pytest.mark.parametrize("name", TRANSPORT)
def test_transport_stream_cut_between_pictures_is_a_shorter_recording(
    name: str, clip_folder: Path, tmp_path: Path
) -> None:
    """The limit of what a scan can see: every picture in the file is given, at its own time."""
    source = render(clip_folder, name)
    packets, (_, whole) = list(transport_packets(source)), shown(source)
    pid = video_pid(source)
    between = [number for number in range(1, len(packets)) if not going_on_at(packets, number)]
    path = tmp_path / f"cut{source.suffix}"
    for number in random.Random(name).sample(between, 10):
        num_begun = sum(packet.begins for packet in packets[:number] if packet.pid == pid)
        cut(source, path, packets[number].place.start)
        scan = scan_of_cut(path, whole)
        if num_begun:
            assert scan is not None
            assert (scan.broken, scan.num_frames) == (None, num_begun)


def test_transport_stream_with_check_bytes_is_whole_and_cut_in_them_is_broken(
    clip_folder: Path, tmp_path: Path
) -> None:
    source = render(clip_folder, "h264-ts")
    data, (_, whole) = source.read_bytes(), shown(source)
    path = tmp_path / "checked.ts"
    path.write_bytes(b"".join(data[at : at + 188] + bytes(range(16)) for at in range(0, len(data), 188)))
    scan = scan_of_cut(path, whole)
    assert scan is not None
    assert (scan.broken, scan.num_frames) == (None, len(whole))
    for num_bytes in (1, 15, 16, 203):
        cut(path, tmp_path / "cut.ts", path.stat().st_size - num_bytes)
        scan = scan_of_cut(tmp_path / "cut.ts", whole)
        assert scan is not None
        assert scan.broken == f"the file ends at least {num_bytes} bytes early"


@pytest.mark.parametrize("name", ["h264-ts", "hevc-ts"])
def test_every_whole_picture_needs_no_data_behind_it(name: str, clip_folder: Path) -> None:
    """One picture in 184 fills its last packet: it must not be taken for a cut one."""
    with av.open(str(render(clip_folder, name))) as container:
        stream = container.streams.video[0]
        pictures = transport.LastPictures()
        for packet in container.demux(stream):
            if packet.size:
                pictures.add(packet)
                assert not pictures.lack_data(stream), packet


def test_bytes_behind_a_transport_stream_are_no_cut(clip_folder: Path, tmp_path: Path) -> None:
    source = render(clip_folder, "h264-ts")
    for tail in (b"TAG", bytes(100), bytes(4096)):
        (tmp_path / "tail.ts").write_bytes(source.read_bytes() + tail)
        assert transport.ending(tmp_path / "tail.ts") == transport.Ending()


@pytest.mark.parametrize("says_size", [True, False])
def test_flv_cut_in_a_tag_is_broken_and_between_tags_if_its_size_is_said(
    says_size: bool, clip_folder: Path, tmp_path: Path
) -> None:
    source = render(clip_folder, "h264-flv")
    data, (_, whole) = source.read_bytes(), shown(source)
    if not says_size:
        data = data.replace(b"filesize", b"FILESIZE")
        source = tmp_path / "no-size.flv"
        source.write_bytes(data)
    tags, start = [], 13  # after the header and the size of the tag before the first
    while start < len(data):
        tags.append(range(start, start + 15 + int.from_bytes(data[start + 1 : start + 4], "big")))
        start = tags[-1].stop
    rng = random.Random(0)
    for tag in rng.sample(tags[1:], 12):
        for at in (tag.start + 1, rng.choice(tag[2:-4]), tag.stop - 4, tag.stop - 1):
            cut(source, tmp_path / "cut.flv", at)
            scan = scan_of_cut(tmp_path / "cut.flv", whole)
            assert scan is None or scan.broken is not None, at
    for tag in rng.sample(tags[20:], 4):
        cut(source, tmp_path / "cut.flv", tag.start)
        scan = scan_of_cut(tmp_path / "cut.flv", whole)
        assert scan is not None
        assert (scan.broken is None, scan.end_known) == (not says_size, says_size)


@pytest.mark.parametrize("name", CLIPS)
def test_intact_file_misses_nothing(name: str, clip_folder: Path) -> None:
    assert missing_bytes(render(clip_folder, name)) == 0


def test_matroska_of_unknown_size_is_whole(clip_folder: Path, tmp_path: Path) -> None:
    """A live recording writes the size "unknown"."""
    data = render(clip_folder, "h264-mkv").read_bytes()
    at = data.index(b"\x18\x53\x80\x67") + 4
    (tmp_path / "live.mkv").write_bytes(data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :])
    assert plan.scan(tmp_path / "live.mkv").broken is None


@pytest.mark.parametrize("name", ["h264-faststart", "mpeg4-avi-b"])
def test_damage_before_wanted_frame_fails_with_reason(name: str, clip_folder: Path, tmp_path: Path) -> None:
    """Frames before the damage are usable; wanting one behind it is an error that names it."""
    source = render(clip_folder, name)
    data, places = bytearray(source.read_bytes()), packets_in(source)
    for place in places[45:50]:  # whole packets: what half of one would be decoded to, its bytes decide
        data[place.start : place.stop] = bytes(len(place))
    path = tmp_path / f"damaged{source.suffix}"
    path.write_bytes(data)
    with Video(path) as video:
        scan = video.scan()
        assert len(list(video.frames([0, 1]))) == 2
        if scan.broken is None:
            with pytest.raises(DecodeError, match=r"frame \d+: (damaged at|frames before it are missing, at) \d"):
                scan.check_complete(0, scan.num_frames)
                list(video.frames(range(scan.num_frames)))
        else:
            with pytest.raises(DecodeError, match="cannot be decoded"):
                scan.check_whole(None)
