"""When frames are shown: what a file says of it, mended where single stamps are wrong, never a constant rate unsaid."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import code, picture
from hypothesis import given
from hypothesis import strategies as st
from pipeline import run, store_of, write_lines

import reelbank.store
from reelbank.extract.errors import DecodeError
from reelbank.extract.video.decode import Video
from reelbank.extract.video.timeline import chunk_places, longest_ascending, mean_rate, repaired

MS = Fraction(1, 1000)
# A phone in the dark: 30 frames in a second, then 5.
SECONDS = [i / 30 for i in range(60)] + [2 + i / 5 for i in range(40)]


def _write(path: Path, wrong: dict[int, int], codec: str = "libx264") -> None:
    """Grey levels tell the time; packet i has the stamp of packet wrong[i] (both swapped if each names the other)."""
    options = {"bf": "0", "preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {"cpu-used": "8"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", MS, MS
        packets = []
        for seconds in SECONDS:
            level = np.full((64, 64, 3), 20 + round(seconds * 20), np.uint8)
            frame = av.VideoFrame.from_ndarray(level, format="rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), MS
            packets += stream.encode(frame)
        packets += stream.encode()
        stamps = [packet.pts for packet in packets]
        for place, of in wrong.items():
            packets[place].pts = packets[place].dts = stamps[of]
        for packet in packets:
            container.mux(packet)


@pytest.mark.parametrize("suffix", ["mkv", "flv", "webm", "mp4"])
@pytest.mark.parametrize("wrong", [{3: 2}, {70: 69}, {30: 29, 31: 29}], ids=["fourth", "late", "twice"])
def test_one_repeated_stamp_leaves_the_others_as_they_are(suffix: str, wrong: dict[int, int], tmp_path: Path) -> None:
    """It made the whole clip one of a constant rate: frames of 7.4 s were stored as of 4.0 s."""
    path = tmp_path / f"a.{suffix}"
    try:
        _write(path, wrong, "libvpx" if suffix == "webm" else "libx264")
    except av.FFmpegError:
        pytest.skip("the muxer does not write such a file")
    with Video(path) as video:
        scan = video.scan()
        levels = {index: float(frame.rgb.mean()) for index, frame in video.frames(range(scan.num_frames))}
    assert scan.num_frames == len(SECONDS)
    right = np.array(SECONDS)
    sound = np.setdiff1d(np.arange(len(SECONDS)), [place for pair in wrong.items() for place in pair])
    np.testing.assert_allclose(scan.times_seconds[sound], right[sound], atol=0.003)
    np.testing.assert_allclose(scan.times_seconds, right, atol=0.21)
    assert (np.diff(scan.times_seconds) > 0).all()
    for index in (0, 59, 80, 99):
        assert levels[index] == pytest.approx(20 + 20 * right[index], abs=3)
    assert scan.time_source in ("repaired", "container")  # FFmpeg's muxers and demuxers mend some by themselves
    assert float(scan.rate_fps) == pytest.approx(99 / right[-1], rel=0.01)


def test_repaired_times_are_said_and_kept(tmp_path: Path) -> None:
    for name, wrong in (("good", {}), ("bad", {3: 2})):
        _write(tmp_path / f"{name}.mkv", wrong)
    rows = [f"{name},{name}.mkv,train,4,6" for name in ("good", "bad")]
    write_lines(tmp_path, "clip_id,video,split,start_seconds,end_seconds", rows)
    report = run(tmp_path, model=("frames:112",), sampling=("uniform:4",))
    store = reelbank.store.open(store_of(tmp_path, "frames:112"))
    assert store.clips.time_source.tolist() == ["container", "repaired"]
    np.testing.assert_array_equal(store.read("rgb", 0), store.read("rgb", 1))
    assert "1 of files whose times are repaired, or counted at a constant rate (clips/time_source)" in report.text()


def test_rate_is_the_mean_between_the_first_frame_and_the_last(tmp_path: Path) -> None:
    _write(tmp_path / "a.mkv", {})
    with Video(tmp_path / "a.mkv") as video:
        assert float(video.scan().rate_fps) == pytest.approx(99 / SECONDS[-1], rel=0.002)


@pytest.mark.parametrize(
    ("seconds", "nominal", "rate"),
    [([0, 0.04, 0.08], Fraction(25), 25), ([0, 1001 / 30000, 2002 / 30000], Fraction(30), Fraction(30000, 1001)),
     ([0, 0.04, 0.08], Fraction(60000), 25), ([0.0], Fraction(30), 30), ([0, 0.1, 0.3], Fraction(30), Fraction(20, 3))],
)  # fmt: skip
def test_mean_rate(seconds: list[float], nominal: Fraction, rate: Fraction) -> None:
    assert float(mean_rate(np.array(seconds), nominal)) == pytest.approx(float(rate), rel=1.1e-3)


@pytest.mark.parametrize(
    ("pts", "stamps", "source"),
    [
        ([0, 10, 20, 30], [0, 10, 20, 30], "container"),
        ([*range(0, 100, 10), 90, 110, 120], [*range(0, 100, 10), 100, 110, 120], "repaired"),
        ([*range(0, 100, 10), None, 110], [*range(0, 120, 10)], "repaired"),
        ([0, 10, 5000, *range(30, 300, 10)], [*range(0, 300, 10)], "repaired"),  # one that runs ahead
        ([0, 0, 0, 0], [], "counted"), ([None] * 4, [], "counted"), ([0, 20, 10, 40, 30], [], "counted"),
        ([5, *range(0, 200, 10)], [*range(-10, 200, 10)], "repaired"),
        ([*range(0, 400, 20), 380], [*range(0, 420, 20)], "repaired"),
        ([*range(0, 400, 20), None, None], [*range(0, 440, 20)], "repaired"),
        ([None, *range(0, 400, 20)], [*range(-20, 400, 20)], "repaired"),
    ],
)  # fmt: skip
def test_stamps_that_do_not_fit_lie_between_their_neighbours(
    pts: list[int | None], stamps: list[float], source: str
) -> None:
    found, said = repaired(pts)
    assert (found.tolist(), said) == (stamps, source)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ([*range(0, 1000, 33), 1056, 1023, *range(1089, 2000, 33)], None),  # two are exchanged
        ([*range(0, 1000, 33), 990, *range(1056, 2000, 33)], 1023),  # the second repeats the first
        ([*range(0, 1000, 33), 1056, *range(1056, 2000, 33)], 1023),  # the first has the stamp of the second
        ([*range(0, 1000, 33), 5, *range(1056, 2000, 33)], 1023),
    ],
)  # fmt: skip
def test_of_two_neighbours_the_one_is_wrong_that_makes_the_steps_uneven(wrong: list[int], right: int | None) -> None:
    stamps, source = repaired(wrong)
    assert source == "repaired"
    expected = sorted(wrong) if right is None else [*range(0, 1000, 33), right, *range(1056, 2000, 33)]
    np.testing.assert_allclose(stamps, expected, atol=1)


@given(st.lists(st.integers(-20, 20), max_size=14))
def test_longest_ascending_part(values: list[int]) -> None:
    places = longest_ascending(values)
    picked = [values[place] for place in places]
    assert all(a < b for a, b in itertools.pairwise(picked))
    assert places == sorted(places)
    best = [0] * len(values)
    for i, value in enumerate(values):
        best[i] = 1 + max((best[j] for j in range(i) if values[j] < value), default=0)
    assert len(places) == max(best, default=0)


def _stamped(path: Path, ticks: list[int], tick: Fraction = MS, codec: str = "libx264") -> None:
    """Frame i shows i as a bar code and has the stamp ticks[i]; in Matroska written over, as its muxer refuses some."""
    is_matroska, options = path.suffix == ".mkv", {"g": "400"}
    if codec == "libx264":
        options |= {"bf": "0", "tune": "zerolatency", "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = tick
        packets: list[av.Packet] = []
        for i in range(len(ticks)):
            frame = av.VideoFrame.from_ndarray(picture(i, 96, 64), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode()
        for i, packet in enumerate(packets):
            packet.time_base = tick
            packet.pts = packet.dts = 40 * i if is_matroska else ticks[i]
            packet.duration = 1
            container.mux(packet)
    if is_matroska:
        with av.open(str(path)) as container:
            blocks = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        data, start = bytearray(path.read_bytes()), 0
        for block, stamp in zip(blocks, ticks, strict=True):
            start = data.index(block, start)
            data[start - 3 : start - 1] = stamp.to_bytes(2, "big")
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "ticks", "tick"),
    [
        ("zero.mkv", [0] * 64, MS),
        ("zero.flv", [0] * 64, MS),
        ("tick.mp4", list(range(64)), Fraction(1, 3791)),  # 64 frames in 0.017 s
        ("falling.mkv", [*range(0, 1280, 40), *range(0, 1280, 40)], MS),
    ],
)
def test_stamps_that_tell_nothing_are_counted_or_refused(
    name: str, ticks: list[int], tick: Fraction, tmp_path: Path
) -> None:
    """Frames are never spread over nothing: the container's rate counts, if a camera can have it."""
    _stamped(tmp_path / name, ticks, tick)
    try:
        with Video(tmp_path / name) as video:
            scan = video.scan()
            shown = [code(frame.rgb) for _, frame in video.frames([0, 30, 63])]
    except DecodeError as error:
        assert name == "tick.mp4"
        assert "neither a frame rate nor usable timestamps" in str(error)
        return
    assert (scan.time_source, scan.num_frames, shown) == ("counted", 64, [0, 30, 63])
    np.testing.assert_allclose(scan.times_seconds, np.arange(64) / 25, atol=1e-6)


@pytest.mark.parametrize("wrong", [{30: 9000}, {30: 1240, 31: 1200}], ids=["ahead", "exchanged"])
@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_a_wrong_stamp_of_a_planned_video_moves_no_frame(codec: str, wrong: dict[int, int], tmp_path: Path) -> None:
    """A frame whose stamp runs ahead was shown as the last, and all others one too early."""
    path = tmp_path / "a.mkv"
    _stamped(path, [wrong.get(i, 40 * i) for i in range(64)], codec=codec)
    with Video(path) as video:
        scan = video.scan()
        shown = [code(frame.rgb) for _, frame in video.frames(range(64))]
    assert shown == list(range(64))
    np.testing.assert_allclose(scan.times_seconds, np.arange(64) / 25, atol=2e-3)
    assert scan.time_source == "repaired"


DROPPED = {10, 11, 12, 25}


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("mjpeg", "yuvj420p", {}),
        ("mpeg4", "yuv420p", {"g": "12"}),
        ("mpeg4", "yuv420p", {"g": "12", "bf": "2"}),
        ("ffv1", "yuv420p", {}),
        ("libx264", "yuv420p", {"x264-params": "keyint=12:bframes=0:threads=1"}),
        ("libx264", "yuv420p", {"x264-params": "keyint=12:b-adapt=0:bframes=3:threads=1"}),
    ],
    ids=["mjpeg", "mpeg4", "mpeg4-b", "ffv1", "h264", "h264-b"],
)
def test_frames_that_a_recorder_dropped_shift_no_later_one(
    codec: str, pix_fmt: str, options: dict[str, str], tmp_path: Path
) -> None:
    """An AVI then has empty chunks, or MPEG-4 its pictures that are not coded: they take their time, too."""
    path, kept = tmp_path / "a.avi", [i for i in range(40) if i not in DROPPED]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        stream.codec_context.thread_count = 1
        for i in kept:
            frame = av.VideoFrame.from_ndarray(picture(i, 96, 64), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with Video(path) as video:
        scan = video.scan()
        shown = [code(frame.rgb) for _, frame in video.frames(range(len(kept)))]
    assert shown == kept
    np.testing.assert_allclose(scan.times_seconds, np.array(kept) / 25)
    assert (scan.time_source, scan.broken) == ("container", None)
    assert float(scan.rate_fps) == pytest.approx(35 / (39 / 25))


@pytest.mark.parametrize(
    ("chunks", "numbers", "given", "places"),
    [
        ([(0, 0), (1, 1), (2, 2)], [0, 1, 2], [0, 1, 2], [0, 1, 2]),
        ([(0, 2), (1, 3), (2, 6), (3, 7)], [0, 1, 2, 3], [0, 1, 2, 3], [2, 3, 6, 7]),  # the first were dropped, too
        ([(0, 0), (2, 1), (3, 2), (4, 5)], [0, 2, 3, 4], [0, 2, 3, 4], [0, 2, 3, 6]),  # packet 1 was passed over
        ([(0, 0), (1, 1), (2, 2), (3, 5), (4, 6)], [0, 2, 1, 4, 3], [0, 1, 2, 3, 4], [0, 1, 4, 5, 6]),  # one is held
        ([(0, None), (1, None)], [0, 1], [0, 1], [0, 1]),
    ],
)
def test_places_in_an_index_with_empty_chunks(
    chunks: list[tuple[int, int | None]], numbers: list[int], given: list[int], places: list[int]
) -> None:
    assert chunk_places(np.array(given), chunks, numbers).tolist() == places


def test_pictures_of_mpeg4_that_are_not_coded_take_their_time(tmp_path: Path) -> None:
    path, kept = tmp_path / "a.avi", [i for i in range(40) if i not in DROPPED]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "400", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        packets = []
        for i in kept:
            frame = av.VideoFrame.from_ndarray(picture(i, 96, 64), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            packets += stream.encode(frame)
        coded = {packet.pts: packet for packet in packets + stream.encode()}
        for i in range(40):
            # A start code; P, no second has passed, a mark, 5 bits of time, a mark, not coded, stuffing.
            packet = coded.get(i) or av.Packet(b"\0\0\1\xb6" + (0b01_0_1_00000_1_0_01111 << 0).to_bytes(2, "big"))
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = i
            container.mux(packet)
    with Video(path) as video:
        scan = video.scan()
        shown = [code(frame.rgb) for _, frame in video.frames(range(scan.num_frames))]
    assert shown == kept
    np.testing.assert_allclose(scan.times_seconds, np.array(kept) / 25)


def test_stamps_one_tick_apart_are_no_times(tmp_path: Path) -> None:
    """128 frames in 0.13 s, as written with all packets at 0: a rate that no camera has is the container's instead."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "tune": "zerolatency"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        fine = Fraction(1, 90000)
        stream.time_base = stream.codec_context.time_base = fine
        for i in range(64):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, fine
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    try:
        with Video(path) as video:
            scan = video.scan()
    except DecodeError as error:
        assert "neither a frame rate nor usable timestamps" in str(error)
        return
    assert scan.time_source == "counted"
    assert float(scan.rate_fps) <= 2000
