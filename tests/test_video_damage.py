"""Damage in the middle of a file: what is reported fails what depends on it, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import av
import av.logging
import numpy as np
import pytest
from clips import MORE_CLIPS, Clip, picture, render, write
from PIL import Image

from reelbank.extract.errors import DecodeError
from reelbank.extract.video import access_points, truncation
from reelbank.extract.video.damage import listening
from reelbank.extract.video.decode import Video
from reelbank.extract.video.frame import Pixels
from reelbank.extract.video.listing import Listing
from reelbank.extract.video.opening import Limits
from reelbank.extract.video.scan import VideoScan
from reelbank.extract.video.stills import read_picture, scan_pictures

UNKNOWN_ENDS = (
    *("av1-obu", "dv", "flv1-flv", "h264-m2ts", "h264-raw", "h264-ts", "h264-ts-sound", "hevc-raw"),
    *("hevc-ts", "mjpeg-raw", "mpeg1-ps", "mpeg2-raw", "mpeg2-ts", "mpeg2-vob", "mpeg4-raw", "y4m"),
)
"""Rendered clips that do not say where they end."""


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def shown(path: Path, **options: bool) -> tuple[VideoScan, dict[float, Pixels], dict[int, str]]:
    """The scan, the frames by their time, and what damages those that are damaged."""
    with Video(path, **options) as video:
        scan = video.scan()
        found = list(video.frames(range(scan.num_frames)))
        pixels = {round(float(scan.times_seconds[index]), 6): frame.rgb for index, frame in found}
        return scan, pixels, {index: frame.damage for index, frame in found if frame.damage}


def with_packet(path: Path, target: Path, number: int, damaged: bytes) -> Path:
    """Copies a file with the bytes of one packet of its picture written over."""
    data, start = bytearray(path.read_bytes()), 0
    with av.open(str(path)) as container:
        for nth, packet in enumerate(container.demux(video=0)):
            start = data.index(bytes(packet), start)
            if nth == number:
                middle = start + packet.size // 2
                data[middle : middle + len(damaged)] = damaged
                break
            start += packet.size
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("name", MORE_CLIPS)
def test_intact_file_is_whole_and_nothing_is_reported(name: str, clip_folder: Path) -> None:
    with Video(render(clip_folder, name), kept_bytes=0) as video:
        scan = video.scan()
        scan.check_whole(None)
        scan.check_complete(0, scan.num_frames)
        half = scan.num_frames // 2
        assert len(list(video.frames([0, half, scan.num_frames - 1][: scan.num_frames]))) >= 1
        assert video.cost.errors == 0
        assert scan.end_known == (name not in UNKNOWN_ENDS)


def test_lost_packet_of_a_transport_stream_costs_what_depends_on_it(clip_folder: Path, tmp_path: Path) -> None:
    source = render(clip_folder, "h264-ts")
    data = source.read_bytes()
    whole = shown(source)[1]
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    pid = int.from_bytes(packets[len(packets) // 2][1:3], "big") & 0x1FFF
    inside = [n for n, p in enumerate(packets) if int.from_bytes(p[1:3], "big") & 0x5FFF == pid and n > 40]
    for number in random.Random(0).sample(inside, 6):
        path = tmp_path / "lost.ts"
        path.write_bytes(b"".join(packets[:number] + packets[number + 1 :]))
        scan, found, damaged = shown(path, keep_damaged=True)
        assert scan.num_errors
        assert damaged or scan.lost
        sound = [seconds for index, seconds in enumerate(found) if index not in damaged]
        assert len(sound) > len(whole) // 2
        for seconds in sound:
            np.testing.assert_array_equal(found[seconds], whole[seconds], err_msg=f"{seconds} s")


def test_joined_transport_streams_are_usable_on_both_sides(tmp_path: Path) -> None:
    for name, first in (("a.ts", 0), ("b.ts", 60)):
        write(tmp_path / name, Clip(suffix=".ts", options={"g": "12", "bf": "0"}))
        assert first >= 0
    path = tmp_path / "joined.mts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    scan, found, _ = shown(path, keep_damaged=True)
    assert (scan.num_frames, len(found), scan.broken) == (120, 120, None)
    with Video(path) as video:
        video.scan().check_complete(70, 110)
        assert len(list(video.frames(range(70, 110)))) == 40


@pytest.mark.parametrize("name", ["mpeg4-avi", "mpeg4-avi-b", "h264-avi"])
def test_lost_frame_of_an_avi_shifts_no_later_one(name: str, clip_folder: Path, tmp_path: Path) -> None:
    """An AVI has no timestamps: the frames behind a missing one keep their times."""
    source = render(clip_folder, name)
    whole, keys = shown(source)[1], []
    with av.open(str(source)) as container:
        keys = [nth for nth, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    data, places = bytearray(source.read_bytes()), []
    start = 0
    with av.open(str(source)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                start = data.index(bytes(packet), start)
                places.append(range(start, start + packet.size))
    place = places[9]
    data[place.start : place.stop] = bytes(len(place))
    path = tmp_path / "damaged.avi"
    path.write_bytes(data)
    scan, found, damaged = shown(path, keep_damaged=True)
    assert scan.broken is None
    later = [seconds for index, seconds in enumerate(found) if index not in damaged and seconds > keys[1] / 25]
    assert len(later) >= 60 - keys[1] - 13
    for seconds in later:
        np.testing.assert_array_equal(found[seconds], whole[seconds], err_msg=f"{seconds} s")
    if scan.num_frames < 60:
        with pytest.raises(DecodeError, match="frames before it are missing"):
            scan.check_complete(5, 15)
    else:
        assert damaged
    scan.check_complete(keys[2] + 3, scan.num_frames - 1)


def test_wanted_frame_that_depends_on_damage_fails_and_others_do_not(clip_folder: Path, tmp_path: Path) -> None:
    """Packet 15 is in the second group of pictures of 12; frames of the third are decoded from its own start."""
    source = render(clip_folder, "h264-no-b")
    whole, path = shown(source)[1], tmp_path / "damaged.mp4"
    for seed in range(50):  # until FFmpeg notices
        with_packet(source, path, 15, random.Random(seed).randbytes(150))
        with Video(path, keep_damaged=True) as video:
            if len(list(video.frames(range(60)))) == 60 and video.cost.errors:
                break
    for kept_bytes in (2**26, 0):
        with Video(path, kept_bytes=kept_bytes) as video:
            for wanted in ([3, 14], [24, 40]):
                for index, frame in video.frames(wanted):
                    np.testing.assert_array_equal(frame.rgb, whole[round(index / 25, 6)])
            for wanted in ([15], [20], [3, 18, 30]):
                with pytest.raises(DecodeError, match=r"frame \d+: damaged at 0\.\d+ s: .*--damaged keep"):
                    list(video.frames(wanted))
        with Video(path, kept_bytes=kept_bytes, keep_damaged=True) as video:
            found = {index: frame.damage for index, frame in video.frames(range(60))}
            assert {index for index, damage in found.items() if damage} == set(range(15, 24))
            assert video.cost.errors


def test_picture_after_a_damaged_one_is_decoded_as_if_it_were_the_first(clip_folder: Path, tmp_path: Path) -> None:
    """FFmpeg's H.264 decoder takes something over, without CABAC; what is sound must be equal to the pixel."""
    source = render(clip_folder, "h264-cavlc-avi")
    whole, reported, path = shown(source)[1], 0, tmp_path / "damaged.avi"
    for number in range(1, 60, 2):
        with_packet(source, path, number, random.Random(number).randbytes(60))
        scan, found, damaged = shown(path, keep_damaged=True)
        reported += scan.num_errors > 0
        for index, (seconds, rgb) in enumerate(found.items()):
            if index not in damaged and index > number:
                np.testing.assert_array_equal(rgb, whole[seconds], err_msg=f"packet {number}, {seconds} s")
    assert reported > 10


def test_what_another_video_reports_in_between_is_none_of_a_pass(clip_folder: Path, tmp_path: Path) -> None:
    source = render(clip_folder, "mpeg4-avi")
    damaged = with_packet(source, tmp_path / "damaged.avi", 20, random.Random(0).randbytes(60))
    with Video(source, kept_bytes=0) as video:
        assert len(list(video.frames([0, 1]))) == 2
        assert shown(damaged, keep_damaged=True)[0].num_errors
        assert [index for index, _ in video.frames(range(2, 60))] == list(range(2, 60))
        assert video.cost.opens == 2


def _given(video: Video, index: int) -> tuple[str, bytes]:
    """What damages a frame and its pixels, or why it is not given."""
    try:
        ((_, frame),) = video.frames([index])
    except DecodeError as error:
        return error.reason, b""
    return frame.damage, frame.rgb.tobytes()


def test_decoder_that_met_damage_is_not_gone_on_with(tmp_path: Path) -> None:
    """A frame is the same whether a damaged one was decoded before it or not."""
    path = tmp_path / "a.mp4"
    write(path, Clip(options={"x264-params": "keyint=2:min-keyint=2:bframes=0:cabac=0:no-deblock=1:threads=1"}))
    whole = path.read_bytes()
    for seed in range(8):
        data, draw = bytearray(whole), random.Random(seed)
        at = draw.randrange(len(data) // 4, len(data) * 3 // 4)
        data[at : at + 60] = draw.randbytes(60)
        path.write_bytes(data)
        with Video(path, keep_damaged=True) as video:
            scan = video.scan()
            for index in range(0, scan.num_frames, 3):
                with Video(path, keep_damaged=True, scan=scan) as alone:
                    assert _given(video, index) == _given(alone, index), f"seed {seed}, frame {index}"


def test_access_points_are_found_behind_start_codes() -> None:
    idr, sei, slice_ = b"\0\0\0\1\x65\x88", b"\0\0\1\x06\x06\x01\xc4\x80", b"\0\0\1\x41\x9a"
    assert access_points.starts_h264(b"\0\0\0\1\x09\xf0" + idr, None)
    assert access_points.starts_h264(sei + slice_, None)
    assert not access_points.starts_h264(slice_ + idr, None)
    assert access_points.is_idr(idr, None)
    assert not access_points.is_idr(sei + slice_, None)
    assert access_points.starts_hevc(b"\0\0\1\x26\x01\xaf", None) == (True, 0)
    assert access_points.starts_hevc(b"\0\0\1\x02\x01\xd0", None) == (False, 0)


def test_listening_leaves_the_log_as_it_was() -> None:
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    with listening(), listening():
        assert av.logging.get_level() == av.logging.ERROR
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


def _jpeg(path: Path, exif: bytes) -> bytes:
    Image.fromarray(picture(3, 96, 64)).save(path, exif=exif, quality=95)
    return path.read_bytes()


def test_jpeg_that_only_ffmpeg_finds_damaged_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    data, draw, refused = _jpeg(path, exif.tobytes()), random.Random(0), 0
    assert read_picture(path, 0, Limits()).damage == ""
    for _ in range(20):
        at = draw.randrange(1500, len(data) - 100)
        path.write_bytes(data[:at] + draw.randbytes(40) + data[at + 40 :])
        try:
            damaged = read_picture(path, 0, Limits()).damage
        except DecodeError:
            continue  # Pillow finds it, too
        if damaged:
            refused += 1
            with pytest.raises(DecodeError, match="damaged at 0 s"), Video(path) as video:
                list(video.frames([0]))
    assert refused > 5


def test_png_whose_sums_are_wrong_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(3, 96, 64)).save(path, compress_level=0)
    data = bytearray(path.read_bytes())
    assert read_picture(path, 0, Limits()).damage == ""
    data[-14] ^= 1  # the sum of the picture data
    path.write_bytes(data)
    with (
        pytest.raises(DecodeError, match=r"damaged at 0 s: the checksum of chunk b'IDAT' is wrong"),
        Video(path) as video,
    ):
        list(video.frames([0]))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_damaged_exif_data_are_a_reason_or_change_nothing(suffix: str, tmp_path: Path) -> None:
    exif, path, draw = Image.Exif(), tmp_path / f"a.{suffix}", random.Random(1)
    exif[0x0112], exif[0x010F] = 6, "a camera"
    Image.fromarray(picture(3, 96, 64)).save(path, exif=exif.tobytes())
    data = path.read_bytes()
    place = data.index(b"MM\0*") if b"MM\0*" in data else data.index(b"II*\0")
    for _ in range(40):
        damaged = bytearray(data)
        damaged[place + draw.randrange(30)] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            scan = scan_pictures(path, frame_pattern=None, rate_fps=None, limits=Limits())
            with Video(path, scan=scan) as video:
                assert len(list(video.frames([0]))) == 1
        except DecodeError as error:
            assert error.reason


def test_ends_that_are_said_are_looked_for(clip_folder: Path, tmp_path: Path) -> None:
    for name in MORE_CLIPS:
        source = render(clip_folder, name)
        assert truncation.ending(source) == truncation.Ending(is_known=name not in UNKNOWN_ENDS)
    ogg = render(clip_folder, "vp8-ogg").read_bytes()
    (tmp_path / "a.ogv").write_bytes(ogg[: ogg.rindex(b"OggS")])  # whole pages, the last one is missing
    assert truncation.ending(tmp_path / "a.ogv").missing_bytes > 0
    nothing = tmp_path / "a.bin"
    nothing.write_bytes(b"no video at all, but long enough to have a head")
    assert truncation.ending(nothing) == truncation.Ending()


@pytest.mark.parametrize("index", ["mfra", "sidx", ""])
def test_fragmented_mp4_is_whole_where_an_index_says_so(index: str, tmp_path: Path) -> None:
    """Without its last fragment it is a shorter recording, which only an index tells."""
    flags = {"mfra": "", "sidx": "+global_sidx+skip_trailer", "": "+skip_trailer"}[index]
    path = tmp_path / "a.mp4"
    movflags = f"frag_keyframe+empty_moov+default_base_moof{flags}"
    write(path, Clip(options={"g": "12"}, container_options={"movflags": movflags}))
    data = path.read_bytes()
    assert truncation.ending(path) == truncation.Ending(is_known=bool(index))
    if index == "sidx":
        last = data.rindex(b"moof") - 4
        path.write_bytes(data[:last])
        assert truncation.ending(path) == truncation.Ending(missing_bytes=len(data) - last, is_known=True)


def _size(length: int) -> bytes:
    return length.to_bytes(4, "little")


CHUNKS = {
    "zeroed": lambda data, one, _: data[: one.start] + bytes(len(one)) + data[one.stop :],
    "bad id": lambda data, one, _: data[: one.start - 8] + b"\xff\x7f\x12\x03" + data[one.start - 4 :],
    "bad size": lambda data, one, _: data[: one.start - 4] + _size(2**30) + data[one.start :],
    "no head": lambda data, one, _: data[: one.start - 8] + bytes(8) + data[one.start :],
    "swallows the next": lambda data, one, after: (
        data[: one.start - 4] + _size(after.stop - one.start) + data[one.start :]
    ),
}
"""{what is wrong with a chunk of an AVI: the file with it}."""


@pytest.mark.parametrize("way", CHUNKS)
@pytest.mark.parametrize("name", ["h264-avi", "h264-cavlc-avi", "mjpeg-avi", "mpeg4-avi", "mpeg4-avi-b"])
def test_chunk_that_an_avi_lists_is_missed(name: str, way: str, clip_folder: Path, tmp_path: Path) -> None:
    """FFmpeg looks for the next chunk without a word: later frames would have the times of those before them."""
    source = render(clip_folder, name)
    whole, data, places, start = shown(source)[1], source.read_bytes(), [], 0
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets:
        start = data.index(bytes(packet), start)
        places.append(range(start, start + packet.size))
    keys = [nth for nth, packet in enumerate(packets) if packet.is_keyframe]
    path = tmp_path / source.name
    for number in (*range(keys[1], keys[1] + 4), len(packets) - 2):
        path.write_bytes(CHUNKS[way](data, *places[number : number + 2]))
        scan, found, damaged = shown(path, keep_damaged=True)
        assert damaged or scan.lost
        sound = {seconds: rgb for index, (seconds, rgb) in enumerate(found.items()) if index not in damaged}
        for seconds, rgb in sound.items():
            np.testing.assert_array_equal(rgb, whole[seconds], err_msg=f"chunk {number}, {seconds} s")
        scan.check_complete(0, keys[1] - 4 if keys[1] > 4 else 0)
        if number < len(packets) - 2 and name != "mjpeg-avi":
            later = min(seconds for seconds in sound if seconds >= keys[-1] / 25 - 1e-6)
            assert later == pytest.approx(keys[-1] / 25, abs=1e-6)
            scan.check_complete(list(found).index(later), scan.num_frames - 1)
        with pytest.raises(DecodeError, match=r"damaged at|frames before it are missing"), Video(path) as video:
            scan.check_complete(0, scan.num_frames)
            list(video.frames(range(scan.num_frames)))


@pytest.mark.parametrize("name", ["h264-avi", "h264-cavlc-avi", "mjpeg-avi", "mpeg4-avi", "h264-flv", "flv1-flv"])
def test_bytes_cut_out_cost_only_what_depends_on_them(name: str, clip_folder: Path, tmp_path: Path) -> None:
    """FFmpeg finds the next chunk or tag without a word. Frames of an AVI had then the times of those before them."""
    source = render(clip_folder, name)
    whole, data = shown(source)[1], source.read_bytes()
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    draw, path, num_behind = random.Random(3), tmp_path / source.name, 0
    for num_bytes in (1, 2, 7, 100, 1500, len(data) // 8):
        number = draw.randrange(len(packets) // 3, len(packets) // 2)
        at = data.index(packets[number]) + draw.randrange(len(packets[number]))
        path.write_bytes(data[:at] + data[at + num_bytes :])
        scan, found, damaged = shown(path, keep_damaged=True)
        assert damaged or scan.lost
        assert min([*damaged, *scan.lost]) >= number - 5  # what comes before is as it was
        for index, (seconds, rgb) in enumerate(found.items()):
            if index not in damaged and index not in scan.lost:
                np.testing.assert_array_equal(rgb, whole[seconds], err_msg=f"{num_bytes} bytes at {at}, {seconds} s")
                num_behind += seconds > max(whole) * 0.8
    assert num_behind > 6


def test_avi_that_loses_its_way_before_the_frames_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    data = render(clip_folder, "mjpeg-avi").read_bytes()
    begin = data.index(b"movi")
    path = tmp_path / "a.avi"
    path.write_bytes(data[: begin - 12] + data[begin + 400 :])
    with pytest.raises(DecodeError, match="the chunks before its frames do not follow each other"):
        shown(path)
    path.write_bytes(data[:4] + bytes(4) + data[8:])  # a recording that was never closed does not say its size
    assert len(shown(path)[1]) == 30


def test_gap_between_listed_chunks_is_what_is_neither_read_nor_replaced() -> None:
    def gaps(*places: int, num_listed: int = 6, cut: int = -1) -> list[tuple[tuple[int, ...], int]]:
        listed = Listing([10 * nth + 8 for nth in range(num_listed)], cut)
        found = [listed.meet(nth, SimpleNamespace(pos=place + 8)) for nth, place in enumerate(places)]
        return [(gap.strays, gap.num_missing) for gap in (*found, listed.end())]

    none: tuple[tuple[int, ...], int] = ((), 0)
    assert gaps(0, 10, 20, 30, 40, 50) == [none] * 7
    assert gaps(0, 10, 40, 50) == [none, none, ((), 2), none, none]
    assert gaps(20, 30) == [((), 2), none, ((), 2)]
    assert gaps(0, 14, 20, 30, 40, 50) == [none, none, ((1,), 0), none, none, none, none]  # in the place of one
    assert gaps(0, 14, 40, 50) == [none, none, ((1,), 2), none, none]
    assert gaps(0, 4, 5, 10, 20, 30, 40, 50) == [none] * 9  # more than the index lists, and nothing is missing
    assert gaps(0, 10, 10, 14, 20, 30, 40, 50)[4] == none  # one that was there before
    assert gaps(0, 10, 14, 15) == [none] * 4 + [((2, 3), 2)]
    assert gaps(0, 14, 15, 16, 30, 40, 50)[4] == ((1, 2, 3), 0)
    assert gaps(3, 4, 5) == [none] * 4  # an index that fits nothing is none
    assert gaps(0, 10, 40, 50, cut=1) == [none, ((1,), 0), ((), 2), none, none]  # the second lost bytes, others follow
    assert gaps(0, 50, num_listed=0) == [none] * 3


@pytest.mark.parametrize("lost", [range(188), range(40 * 188)], ids=["packet", "40 packets"])
def test_lost_packet_costs_only_intervals_near_it(lost: range, tmp_path: Path) -> None:
    """Ten seconds with a key frame in each: those behind the damage are whole."""
    path = tmp_path / "a.ts"
    write(path, Clip(suffix=".ts", num_frames=250, options={"preset": "ultrafast", "g": "25"}))
    data, damaged = path.read_bytes(), tmp_path / "b.ts"
    at = next(
        at
        for at in range(len(data) * 4 // 10 // 188 * 188, len(data), 188)
        if data[at + 1] & 0x5F == 1 and data[at + 2] == 0
    )  # of the picture, and no first packet of one
    damaged.write_bytes(data[: at + lost.start] + data[at + lost.stop :])
    assert _usable_seconds(damaged) >= {0, 1, 2, 6, 7, 8, 9}
    damaged.write_bytes(data[:at] + data)
    assert _usable_seconds(damaged) >= {0, 1, 2, 7, 8, 9, 10, 11, 12}


def _usable_seconds(path: Path) -> set[int]:
    """Which intervals [n, n + 1) of whole seconds can be had."""
    usable = set()
    with Video(path) as video:
        scan = video.scan()
        for second in range(round(scan.duration_seconds)):
            first, stop = np.searchsorted(scan.times_seconds, [second - 1e-6, second + 1 - 1e-6]).tolist()
            try:
                scan.check_whole(second + 1)
                scan.check_complete(first, stop)
                if len(list(video.frames(range(first, stop)))):
                    usable.add(second)
            except DecodeError:
                continue
    return usable
