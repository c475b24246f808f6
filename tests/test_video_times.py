"""When frames are shown: what a file says of it, mended where single stamps are wrong, never a constant rate unsaid."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline import run, store_of, write_lines

import reelbank.store
from reelbank.extract.errors import DecodeError
from reelbank.extract.video.counting import longest_ascending, mean_rate, repaired
from reelbank.extract.video.decode import Video

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
    assert "1 of files with times that do not fit among the others, repaired (clips/time_source)" in report.text()


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
        ([5, *range(0, 200, 10)], [], "counted"),  # the first is wrong: nothing says where the video begins
    ],
)  # fmt: skip
def test_stamps_that_do_not_fit_lie_between_their_neighbours(
    pts: list[int | None], stamps: list[float], source: str
) -> None:
    found, said = repaired(pts)
    assert (found.tolist(), said) == (stamps, source)


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
