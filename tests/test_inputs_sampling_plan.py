"""The clip plan: which frames a video has and when, what must be decoded for a frame, and where a broken file ends."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from clips import CLIPS, Clip, picture, write

from reelbank.extract.errors import DecodeError
from reelbank.extract.video import counting, listing, packets, plan, timeline
from reelbank.extract.video.damage import Reports
from reelbank.extract.video.decode import Video
from reelbank.extract.video.opening import Limits
from reelbank.extract.video.scan import NO_TIMESTAMP, Examination, GopPlan, VideoScan
from reelbank.extract.video.truncation import Ending


def _gop(pts: list[int], starts: list[int], hidden: tuple[int, ...] = ()) -> GopPlan:
    """Packets with these timestamps in decode order; decoding may start at the packets `starts`."""
    shown = [i for i in range(len(pts)) if i not in hidden]
    return GopPlan(
        pts=np.array(pts),
        dts=np.arange(len(pts)),
        starts=np.isin(np.arange(len(pts)), starts),
        position_of=np.array(sorted(shown, key=lambda i: pts[i])),
        skip_nonref=False,
    )


def _segments(one: GopPlan, wanted: list[int]) -> list[tuple[int, int, list[int]]]:
    return [(first, last, indices.tolist()) for first, last, indices in one.segments(np.array(wanted, dtype=np.int64))]


def test_a_frame_needs_its_group_from_the_keyframe_on() -> None:
    closed = _gop([0, 2, 1, 3, 5, 4], starts=[0, 3])  # two closed groups of three packets
    assert _segments(closed, [0]) == [(0, 0, [0])]
    assert _segments(closed, [1]) == [(0, 2, [1])]  # shown second, decoded third
    assert _segments(closed, [2]) == [(0, 1, [2])]
    assert _segments(closed, [3]) == [(3, 3, [3])]
    assert _segments(closed, [4, 5]) == [(3, 5, [4, 5])]
    assert _segments(closed, []) == []


def test_groups_that_touch_are_read_in_one_run_and_others_are_skipped() -> None:
    groups = _gop(list(range(12)), starts=[0, 3, 6, 9])
    assert _segments(groups, [0, 7]) == [(0, 0, [0]), (6, 7, [7])]
    assert _segments(groups, [2, 3]) == [(0, 3, [2, 3])]  # the last packet of one, the first of the next
    assert _segments(groups, [1, 3]) == [(0, 1, [1]), (3, 3, [3])]
    assert _segments(groups, [0, 1, 2, 8, 11]) == [(0, 2, [0, 1, 2]), (6, 11, [8, 11])]


def test_leading_pictures_need_the_group_before() -> None:
    # decode order: I0 P3 | I6 with the leading pictures 4, 5, then 7
    opened = _gop([0, 3, 6, 4, 5, 7], starts=[0, 2])
    assert _segments(opened, [2]) == [(0, 3, [2])]  # pts 4: shown before keyframe 6, may refer to 3
    assert _segments(opened, [4]) == [(2, 2, [4])]  # the keyframe itself
    assert _segments(opened, [5]) == [(2, 5, [5])]  # after it
    assert _segments(opened, [2, 4]) == [(0, 3, [2, 4])]  # the keyframe comes before its leading picture
    for first in (_gop([6, 4, 5], starts=[0]), _gop([6, 4, 5, 9, 10], starts=[0, 3])):
        assert _segments(first, [0]) == [(0, 1, [0])]  # there is no group before the first


def test_runs_over_several_groups_keep_their_frames_in_order() -> None:
    opened = _gop([0, 3, 6, 4, 5, 9, 7, 8], starts=[0, 2, 5])
    assert _segments(opened, [0, 2, 5, 7]) == [(0, 6, [0, 2, 5, 7])]
    apart = _gop([0, 1, 2, 3, 4, 7, 10, 8, 9], starts=[0, 2, 4, 6])
    # frame 6 (pts 8) leads keyframe 10 and needs the group of 4; the keyframe itself comes earlier in the run
    assert _segments(apart, [0, 6, 8]) == [(0, 0, [0]), (4, 7, [6, 8])]
    late = _gop([0, 9, 5, 6], starts=[0, 2])  # pts 9 of the first group is shown after the second
    assert _segments(late, [1, 3]) == [(0, 2, [1, 3])]


def test_hidden_packets_have_no_index() -> None:
    edited = _gop([0, 1, 2, 3, 4], starts=[0, 3], hidden=(0, 1))
    assert _segments(edited, [0]) == [(0, 2, [0])]  # packet 2 is frame 0 and needs packets 0 and 1
    assert _segments(edited, [1, 2]) == [(3, 4, [1, 2])]


# --- a file that ends early


def _scan(broken: str | None) -> VideoScan:
    return VideoScan(
        path="a.mp4", num_frames=3, times_seconds=np.array([0.0, 0.5, 1.0]), duration_seconds=1.5,
        width_px=4, height_px=4, rate_fps=Fraction(2), broken=broken,
    )  # fmt: skip


def test_pictures_have_no_stream_and_are_shown_as_they_are() -> None:
    one = _scan(None)
    assert (one.rotation_degrees, one.broken, one.stream_index, one.codec) == (0, None, -1, "image")
    assert (one.plan, one.pictures) == (None, ())
    assert Examination(scan=one) == Examination(scan=one, packets=None, frames=None, frames_decoded=0)


def test_interval_must_end_before_the_break() -> None:
    for end in (None, 0.1, 99.0):
        _scan(None).check_whole(end)
    broken = _scan("it ends early")
    for end in (0.3, 1.0):
        broken.check_whole(end)
    for end, asked in ((None, "its end"), (1.0001, "1.0001 s"), (1.5, "1.5 s")):
        with pytest.raises(DecodeError, match=f"reaches to {asked}, but it ends early; 3 frames up to 1 s are usable"):
            broken.check_whole(end)


def test_frames_before_a_break_are_those_that_nothing_missing_precedes() -> None:
    emitted = np.array([0, 10, 20, 30])
    assert plan._before_break(emitted, np.array([0, 10, 20])) == 3  # what is missing is shown after its decode time
    assert plan._before_break(emitted, np.array([0, 19])) == 2
    assert plan._before_break(emitted, np.array([-5])) == 0
    unknown = np.array([0, NO_TIMESTAMP])
    assert plan._before_break(np.arange(40), unknown) == 24
    assert plan._before_break(np.arange(10), unknown) == 0


# --- times, rates, lengths


SILENT = SimpleNamespace(start_time=None, format=SimpleNamespace(name="mpegts"))
"""A container that does not say when it starts."""


def _stream(**more: Any) -> Any:
    context = SimpleNamespace(name="h264", extradata=None, has_b_frames=True)
    options = {"average_rate": Fraction(25), "guessed_rate": None, "time_base": Fraction(1, 1000), "index": 0}
    options["sample_aspect_ratio"] = None
    return SimpleNamespace(**{**options, "codec_context": context, **more})


def test_rate_is_that_of_the_container_or_the_mean_of_the_times() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.3])
    assert timeline.rate_of("a", _stream(), times) == 25
    assert timeline.rate_of("a", _stream(average_rate=None, guessed_rate=Fraction(30000, 1001)), times) == Fraction(
        30000, 1001
    )
    bare = _stream(average_rate=None)
    assert timeline.rate_of("a", bare, times) == 10
    assert timeline.rate_of("a", bare, np.arange(90) * 1001 / 30000) == Fraction(30000, 1001)
    assert timeline.rate_of("a", bare, np.array([0.0])) == 1
    with pytest.raises(DecodeError, match="neither a frame rate nor usable timestamps"):
        timeline.rate_of("a", bare, np.zeros(2))


def test_times_are_the_timestamps_where_they_ascend_and_else_the_order() -> None:
    line = timeline.time_line("a", SILENT, _stream(), [500, 540, 600])
    assert line.seconds.tolist() == pytest.approx([0.0, 0.04, 0.1])
    assert (line.rate_fps, line.source) == (25, "container")
    for pts in ([500, 600, 540], [500, 500, 540], [500, None, 540], [None] * 3):
        line = timeline.time_line("a", SILENT, _stream(), pts)
        assert line.seconds.tolist() == pytest.approx([0.0, 0.04, 0.08])
        assert (line.rate_fps, line.source) == (25, "counted")
    assert timeline.by_order_line("a", SILENT, _stream(), np.arange(3), 0, is_told=True).source == "container"


def test_frames_that_cannot_be_timed_are_an_error() -> None:
    for pts in ([500, 500, 500], [500, 501, 502]):  # no camera takes 3000 frames per second
        bare = _stream(average_rate=None, time_base=Fraction(1, 3000))
        with pytest.raises(DecodeError, match="neither a frame rate nor usable timestamps"):
            timeline.time_line("a", SILENT, bare, pts)


@pytest.mark.parametrize(("kept_bytes", "kept"), [(0, False), (2**26, True)])
def test_frames_and_packets_are_kept_up_to_a_size(kept_bytes: int, kept: bool, folder: Path) -> None:
    path = folder / "h264-open-gop.mp4"
    for count in (False, True):
        with av.open(str(path)) as container:
            found = plan.examine(
                path, container, container.streams.video[0], count=count, limits=Limits(), kept_bytes=kept_bytes
            )
        assert found is not None
        assert ((found.frames if count else found.packets) is not None) == kept


_YUV = SimpleNamespace(name="yuv420p")


def _walk(pts: list[int | None], **more: Any) -> Any:
    frame = SimpleNamespace(width=96, height=64, format=_YUV, color_trc=2, side_data={})
    num = len(pts)
    options = {
        "pts": pts, "dts": list(range(num)), "starts": [True] + [False] * (num - 1), "shown": [True] * num,
        "durations": [40] * num, "first_frame": frame, "reports": Reports(SimpleNamespace(name="h264")),
    }  # fmt: skip
    return plan._Walk(**{**options, **more})


def _examined(walk: Any, tmp_path: Path, name: str = "other", **stream: Any) -> Examination | None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"")
    container = SimpleNamespace(format=SimpleNamespace(name=name), start_time=None)
    return plan._planned(str(path), container, _stream(**stream), walk, Limits())


def _planned(walk: Any, tmp_path: Path, **more: Any) -> VideoScan | None:
    found = _examined(walk, tmp_path, **more)
    return None if found is None else found.scan


def test_plan_gives_frames_in_order_of_their_timestamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ending", lambda path: Ending(missing_bytes=0, is_known=True))
    found = _planned(_walk([100, 220, 140, 180], durations=[40, 80, 40, 40]), tmp_path)
    assert found is not None
    assert found.plan is not None
    assert found.plan.position_of.tolist() == [0, 2, 3, 1]
    assert found.times_seconds.tolist() == pytest.approx([0.0, 0.04, 0.08, 0.12])
    assert found.duration_seconds == pytest.approx(0.12 + 0.08)  # the last shown lasts as long as its packet says
    assert (found.num_frames, found.width_px, found.height_px, found.broken, found.rate_fps) == (4, 96, 64, None, 25)
    dts = [3, NO_TIMESTAMP, 5, 6]
    for codec, sublayers, skip in (("h264", False, True), ("hevc", True, False), ("vp9", False, False)):
        pts = [100, 140, 180, 220] if codec == "vp9" else [100, 220, 140, 180]  # VP9 shows frames as it stores them
        walk = _walk([*pts], dts=[3, None, 5, 6], starts=[True, False, False, True], packets=["p"])
        walk.has_sublayers, walk.frames_decoded = sublayers, 2
        made = _examined(walk, tmp_path, codec_context=SimpleNamespace(name=codec, has_b_frames=True))
        assert made is not None
        assert (made.packets, made.frames, made.frames_decoded) == (["p"], None, 2)
        one = made.scan.plan
        assert one is not None
        assert (one.pts.tolist(), one.dts.tolist()) == (pts, dts)
        assert (one.starts.tolist(), one.skip_nonref) == ([True, False, False, True], skip)
        assert (made.scan.codec, made.scan.stream_index) == (codec, 0)
    untold = _planned(_walk([100, 140], durations=[40, 0]), tmp_path)
    assert untold is not None
    assert untold.duration_seconds == pytest.approx(0.04 + 0.04)  # else one mean frame time
    hidden = _planned(_walk([100, 140, 180], shown=[False, True, True]), tmp_path)
    assert hidden is not None
    assert hidden.num_frames == 2
    assert hidden.times_seconds.tolist() == pytest.approx([0.0, 0.04])


@pytest.mark.parametrize(
    "more",
    [
        {"pts": [100, None, 180]},
        {"pts": [100, 140, 140]},  # one timestamp twice
        {"pts": [100, 60, 180]},  # shown before the first keyframe
        {"pts": [100, 9000, *range(140, 1000, 40)], "dts": [0] * 24, "starts": [True] * 24},  # no frame is so late
        {"first_frame": None},
        {"starts": [False, True, False]},
    ],
)
def test_packets_that_do_not_tell_are_counted_by_decoding(
    more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "ending", lambda path: Ending(missing_bytes=0, is_known=True))
    walk = _walk(more.pop("pts", [100, 140, 180]), **more)
    assert _planned(walk, tmp_path) is None


def test_broken_file_keeps_the_frames_before_the_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ending", lambda path: Ending(missing_bytes=0, is_known=True))
    cut = _planned(_walk([0, 30, 10, 20, 60], dts=[0, 1, 10, 20, 25], broken="packet 5 is cut off"), tmp_path)
    assert cut is not None
    assert (cut.broken, cut.num_frames) == ("packet 5 is cut off", 3)  # 0 10 20, not 30 and 60
    monkeypatch.setattr(plan, "ending", lambda path: Ending(missing_bytes=7, is_known=True))
    short = _planned(_walk([0, 1, 2]), tmp_path)
    assert short is not None
    assert short.broken == "the file ends at least 7 bytes early"
    listed = {"name": plan.MOV, "index_entries": [None] * 4}
    lacking = _planned(_walk([0, 1, 2], dts=[0, 1, 1]), tmp_path, **listed)
    assert lacking is not None
    assert (lacking.broken, lacking.num_frames) == ("the container lists 4 frames and holds 3", 2)
    monkeypatch.setattr(plan, "ending", lambda path: Ending(missing_bytes=0, is_known=True))
    for more in ({**listed, "index_entries": [None] * 3}, {**listed, "name": "other"}):
        whole = _planned(_walk([0, 1, 2]), tmp_path, **more)
        assert whole is not None
        assert whole.broken is None
    with pytest.raises(DecodeError, match="no whole frame: packet 1 is cut off"):
        _planned(_walk([5], dts=[0], broken="packet 1 is cut off"), tmp_path)
    with pytest.raises(DecodeError, match="video stream 0 has no frame: packet 0 is cut off"):
        _planned(_walk([5], shown=[False], broken="packet 0 is cut off"), tmp_path)


def test_display_matrix_turns_width_and_height(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ending", lambda path: Ending(missing_bytes=0, is_known=True))
    for matrix, size, turn in (
        ((1, 0, 0, 1), (96, 64), (0, False)),
        ((0, -1, 1, 0), (64, 96), (90, False)),
        ((0, 1, -1, 0), (64, 96), (270, False)),
        ((-1, 0, 0, -1), (96, 64), (180, False)),
        ((0, 1, 1, 0), (64, 96), (90, True)),
        ((0, 0, 0, 0), (96, 64), (0, False)),
    ):
        (a, b, c, d), one = matrix, 1 << 16
        data = np.array([a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30], np.int32).tobytes()
        frame = SimpleNamespace(width=96, height=64, format=_YUV, color_trc=2, side_data={"DISPLAYMATRIX": data})
        found = _planned(_walk([0, 40], first_frame=frame), tmp_path)
        assert found is not None
        assert (found.width_px, found.height_px, found.rotation_degrees, found.is_mirrored) == (*size, *turn)


# --- the walk over packets, from a container made by hand


def _packet(pts: int | None, dts: int | None, **more: Any) -> Any:
    options = {
        "size": 10, "is_corrupt": False, "is_discard": False, "duration": 40, "is_keyframe": pts == 0, "pts": pts,
        "dts": dts,
    }  # fmt: skip
    return SimpleNamespace(**{**options, **more})


END = _packet(None, None, size=0)


def _walked(packets: list[Any], *, frames: Any = None, kept_bytes: int = 1000, limits: Limits | None = None) -> Any:
    """What is found in these packets (an exception is raised there) and what was given to the decoder."""
    given: list[Any] = []

    def demux(stream: Any) -> Any:
        for packet in packets:
            if isinstance(packet, Exception):
                raise packet
            yield packet

    def decode(packet: Any) -> list[Any]:
        given.append(packet)
        return ["frame"] if frames is None else frames(packet)

    context = SimpleNamespace(name="vp9", extradata=None, flush_buffers=lambda: given.append("flushed"))
    stream = SimpleNamespace(codec_context=context, decode=decode)
    walk = plan._walk("a.mp4", SimpleNamespace(demux=demux), stream, limits or Limits(), kept_bytes)
    return walk, given


def test_walk_notes_every_packet_and_decodes_until_the_first_frame() -> None:
    packets = [_packet(0, -2), _packet(80, -1, is_discard=True, duration=None), _packet(40, None, size=0)]
    walk, given = _walked([*packets, END])
    assert (walk.pts, walk.dts, walk.durations) == ([0, 80, 40], [-2, -1, None], [40, 0, 40])
    assert (walk.shown, walk.starts) == ([True, False, True], [True, False, False])
    assert (walk.packets, walk.broken, walk.first_frame, walk.frames_decoded) == (packets, None, "frame", 1)
    assert given == [packets[0], "flushed"]
    odd = _packet(40, None, size=0)  # an empty packet is the end of the stream only without any timestamp
    assert _walked([packets[0], odd, END])[0].pts == [0, 40]
    late, given = _walked(packets, frames=lambda packet: ["frame"] if packet is packets[1] else [])
    assert (late.first_frame, late.drained) == (None, True)  # a decoder that was drained is not asked again
    assert given == [packets[0], None, "flushed"]


def test_decoder_is_drained_after_one_shown_packet_alone() -> None:
    packets = [_packet(0, 0, is_discard=True), _packet(40, 1), _packet(80, 2)]
    walk, given = _walked(packets, frames=lambda packet: ["x", "y"] if packet is packets[2] else [])
    assert (walk.first_frame, walk.frames_decoded, walk.drained) == ("x", 2, False)
    assert given == [*packets, "flushed"]
    one, given = _walked(packets[1:], frames=lambda packet: ["x"] if packet is None else [])
    assert (one.first_frame, one.drained, given) == ("x", True, [packets[1], None, "flushed"])


@pytest.mark.parametrize(
    ("codec", "length_bytes", "expected"),
    [
        ("h264", 4, [False, False, False, True]),
        ("h264", None, [False] * 4),  # without units to look into, nothing is known
        ("hevc", 4, [False, False, False, True]),
        ("hevc", None, [False] * 4),
        ("vp9", None, [False, False, True, True]),
        ("vp9", 4, [False, False, True, True]),
    ],
)
def test_decoding_starts_where_packet_and_picture_say_so(
    codec: str, length_bytes: int | None, expected: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of packets (neither, a picture that starts, flagged as a keyframe, both); sub-layers above 0 are noted."""
    walk, found = plan._Walk(), []
    assert not walk.has_sublayers
    for key, start in ((False, False), (False, True), (True, False), (True, True)):

        def starts(data: memoryview, length: int, start: bool = start) -> bool:
            assert (bytes(data), length) == (b"data", 4)
            return start

        points = SimpleNamespace(
            starts_h264=starts, starts_hevc=lambda data, length, starts=starts: (starts(data, length), 0)
        )
        monkeypatch.setattr(plan, "access_points", points)
        packet = _Packet(b"data")
        packet.is_keyframe = key
        found.append(plan._is_start(walk, packet, codec, length_bytes))
    assert found == expected
    assert not walk.has_sublayers
    monkeypatch.setattr(plan, "access_points", SimpleNamespace(starts_hevc=lambda data, length: (False, 1)))
    plan._is_start(walk, packet, "hevc", 4)
    assert walk.has_sublayers


class _Packet(bytes):
    """Data with a flag."""

    is_keyframe: bool


def test_walk_ends_at_the_first_packet_that_is_cut_off_or_cannot_be_read() -> None:
    packets = [_packet(0, 0), _packet(40, 1), _packet(80, 2)]
    cut = _packet(60, None, is_corrupt=True)
    walk, _ = _walked([*packets[:2], cut])
    assert (walk.pts, walk.dts, walk.broken) == ([0, 40], [0, 1], "packet 2 is cut off")
    assert len(walk.packets) == 2
    walk, _ = _walked([*packets[:2], cut, packets[2]])  # the file goes on: it is damage
    assert (walk.pts, walk.broken) == ([0, 40, 60, 80], None)
    assert [report.place for report in walk.reports.found] == [2]
    torn, given = _walked([*packets, av.error.InvalidDataError(1, "bad data")])
    assert (torn.pts, torn.broken, given[-1]) == ([0, 40, 80], "packet 3 cannot be read (bad data)", "flushed")


def test_packets_are_kept_while_they_are_small_and_few() -> None:
    packets = [_packet(40 * i, i) for i in range(4)]
    for most, kept in ((40, packets), (39, None), (0, None)):
        walk, _ = _walked(packets, kept_bytes=most)
        assert walk.packets == kept
        assert len(walk.pts) == 4
    assert plan.KEPT_BYTES == 64 * 2**20
    _walked(packets, limits=Limits(num_frames=4))
    with pytest.raises(DecodeError, match="more frames than the limit of 3"):
        _walked(packets, limits=Limits(num_frames=3))


def test_packets_of_a_codec_without_reordering_must_ascend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ending", lambda path: Ending(missing_bytes=0, is_known=True))
    for codec, has_b_frames, is_planned in (("h264", True, True), ("h264", False, False), ("vp9", True, False)):
        context = SimpleNamespace(name=codec, has_b_frames=has_b_frames)
        found = _examined(_walk([100, 180, 140, 220]), tmp_path, codec_context=context)
        assert (found is not None) == is_planned


# --- counting by decoding, from a container made by hand


def _frame(pts: int, **more: Any) -> Any:
    options = {
        "pts": pts,
        "is_corrupt": False,
        "opaque": None,
        "key_frame": False,
        "planes": [SimpleNamespace(buffer_size=5)] * 2,
        "duration": 40,
    }
    return SimpleNamespace(
        **{**options, "width": 96, "height": 64, "format": _YUV, "color_trc": 2, "side_data": {}, **more}
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Counts packets, each with the frames that the decoder then gives; at the END those that it still held."""

    def count(
        given: list[tuple[Any, list[Any]]], *, name: str = "avi", missing: int = 0, kept_bytes: int = 1000,
        limits: Limits | None = None,
    ) -> Examination:  # fmt: skip
        monkeypatch.setattr(counting, "ending", lambda path: Ending(missing_bytes=missing, is_known=True))
        monkeypatch.setattr(listing, "listing", lambda *of_a_file: nullcontext(listing.Listing(())))
        frames = {id(packet): out for packet, out in given}

        ends = [out for packet, out in given if packet.size == 0 and packet.dts is None and packet.pts is None]

        def decode(packet: Any) -> list[Any]:
            found = frames[id(packet)] if packet is not None else [*ends, []][0]
            if isinstance(found, Exception):
                raise found
            return found

        container = SimpleNamespace(
            format=SimpleNamespace(name=name), start_time=None, demux=lambda stream: (packet for packet, _ in given)
        )
        stream = _stream(decode=decode, id=1, index_entries=[])
        stream.codec_context.name = "msmpeg4v3"
        return counting.counted("a.avi", container, stream, limits or Limits(), kept_bytes)

    return count


def _each(num: int, **more: dict[str, Any]) -> list[tuple[Any, list[Any]]]:
    """Packets of a frame each; `more` {"f" + number of a frame: what it has otherwise}."""
    return [(_packet(i, i), [_frame(40 * i, **more.get(f"f{i}", {}))]) for i in range(num)]


def test_counted_frames_are_all_that_the_decoder_gives(counted: Any) -> None:
    held = [_frame(200), _frame(240)]
    given = [(_packet(0, 0), []), *_each(3, f0={"width": 50}), (_packet(None, None, size=0), held)]
    found = counted(given)
    assert (found.scan.num_frames, found.frames_decoded, found.scan.broken, found.scan.plan) == (5, 5, None, None)
    assert [frame.pts for frame in found.frames] == [0, 40, 80, 200, 240]
    assert (found.packets, found.scan.width_px, found.scan.height_px) == (None, 50, 64)  # of the first
    for most, kept in ((50, True), (49, False), (0, False)):  # 5 frames of 2 planes of 5 bytes
        assert (counted(given, kept_bytes=most).frames is not None) == kept
    counted(given, limits=Limits(num_frames=5))
    with pytest.raises(DecodeError, match="more frames than the limit of 4"):
        counted(given, limits=Limits(num_frames=4))
    with pytest.raises(DecodeError, match=r"video stream 0 has no frame$"):
        counted([(_packet(0, 0), []), (END, [])])


def test_what_a_cut_leaves_of_the_last_picture_is_dropped(counted: Any) -> None:
    """A frame that is flagged within the last sixteen ends the file; one before is damage, said when it is wanted."""
    flagged = {"is_corrupt": True}
    for num, bad, kept in ((20, 19, 19), (20, 4, 4), (20, 3, 20), (5, 0, None)):
        given = [*_each(num, **{f"f{bad}": flagged}), (END, [])]
        if kept is None:
            with pytest.raises(DecodeError, match="video stream 0 has no frame: frame 0 of 5 is cut off"):
                counted(given)
            continue
        scan = counted(given).scan
        assert (scan.num_frames, scan.broken) == (kept, None if kept == num else f"frame {bad} of {num} is cut off")
    two = counted([*_each(9, f6=flagged, f8=flagged), (END, [])]).scan
    assert (two.num_frames, two.broken) == (6, "frame 6 of 9 is cut off")
    short = counted([*_each(3, f2=flagged), (END, [])], missing=7).scan
    assert (short.num_frames, short.broken) == (2, "the file ends at least 7 bytes early")  # the first reason found


def test_counting_ends_at_a_packet_that_is_cut_off_or_cannot_be_decoded(counted: Any) -> None:
    cut = (_packet(2, 2, is_corrupt=True), [_frame(80)])
    for name in ("avi", "gif"):
        scan = counted([*_each(2), cut], name=name).scan
        assert (scan.num_frames, scan.broken) == (2, "packet 2 is cut off")
        scan = counted([*_each(2), cut, (_packet(3, 3), [_frame(120)])], name=name).scan  # the file goes on
        assert (scan.num_frames, scan.broken, sorted(scan.damaged)) == (4, None, [2, 3])
    both = counted([*_each(2), cut], missing=7).scan
    assert both.broken == "the file ends at least 7 bytes early"  # the first reason found
    flagged = (_packet(None, None, size=0, is_corrupt=True), [_frame(80)])
    assert counted([*_each(2), flagged]).scan.num_frames == 3  # the end of a stream is no packet
    bare = [
        (_packet(None, None), [_frame(0)]),
        (_packet(None, 1, size=0), [_frame(40)]),
        (_packet(2, None, size=0), [_frame(80)]),
    ]
    assert counted([*bare, (END, [_frame(120)])], missing=7).scan.num_frames == 3
    torn = counted([*_each(3), (_packet(3, 3), av.error.InvalidDataError(1, "bad data"))]).scan
    assert (torn.num_frames, torn.broken) == (3, None)
    for first, stop in ((0, 3), (2, 3)):
        with pytest.raises(DecodeError, match=r"frame 3: frames before it are missing, at 0.08 s: .*bad data"):
            torn.check_complete(first, stop)
    torn.check_complete(0, 2)
    early = (END, [_frame(160)])  # what a broken file leaves in the decoder may follow frames that are missing
    assert counted([*_each(3), early], missing=7).scan.num_frames == 3
    assert counted([*_each(3), early]).scan.num_frames == 4
    last = (_packet(3, 3), [_frame(120), _frame(160)])
    assert counted([*_each(3), last, (END, [])], missing=7).scan.num_frames == 5
    gif = counted([*_each(3), last, (END, [])], name="gif", missing=7).scan  # nobody flags that its last packet is cut
    assert (gif.num_frames, gif.broken) == (3, "the file ends at least 7 bytes early")


# --- frames by index, on small files


SMALL = {
    name: Clip(**{**vars(CLIPS[name]), "num_frames": 26, "width_px": 96, "height_px": 32})
    for name in ("h264-open-gop", "h264-edit-list", "mpeg4-avi-b", "h264-mkv-vfr")
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    for name, clip in SMALL.items():
        write(root / f"{name}{clip.suffix}", clip)
    return root


def _code(pixels: np.ndarray) -> int:
    """The number of the frame, from the bar code in its top rows."""
    return sum(1 << bit for bit in range(12) if pixels[1:7, bit * 8 + 1 : bit * 8 + 7].mean() > 128)


@pytest.mark.parametrize("kept_bytes", [2**26, 0], ids=["kept", "reread"])
@pytest.mark.parametrize("name", SMALL)
def test_every_index_gives_its_own_picture(name: str, kept_bytes: int, folder: Path) -> None:
    clip = SMALL[name]
    hidden = clip.num_frames - clip.num_shown
    assert _code(picture(1234, 96, 32)) == 1234
    with Video(folder / f"{name}{clip.suffix}", kept_bytes=kept_bytes) as video:
        scan = video.scan()
        assert scan.num_frames == clip.num_shown
        last = scan.num_frames - 1
        for wanted in ([0], [last], [3, 4, 15], [11, 12, 13], [0, last], list(range(scan.num_frames)), []):
            found = list(video.frames(wanted))
            assert [index for index, _ in found] == wanted
            assert [_code(frame.rgb) for _, frame in found] == [index + hidden for index in wanted]
        assert video.cost.fallbacks == 0
        # What is kept is not read again, what is not once each time; without a plan [last] is reached from [0].
        assert video.cost.opens == (1 if kept_bytes else 7 if clip.planned else 6)
        for bad in ([2, 2], [3, 1], [-1], [scan.num_frames], [[0]]):
            with pytest.raises(ValueError, match=r"ascending without repeats|are not all in 0\.\."):
                list(video.frames(bad))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [False, True])
def test_limits_hold_however_a_video_is_scanned(count: bool, folder: Path) -> None:
    path = folder / "h264-open-gop.mp4"  # 26 frames of 96 x 32 at 25 per second
    plan.scan(path, count=count, limits=Limits(num_frames=26, frame_px=96 * 32, duration_seconds=1.05))
    for limits, message in (
        (Limits(num_frames=25), "more frames than the limit of 25"),
        (Limits(frame_px=96 * 32 - 1), "a frame of 96 x 32 px is above the limit"),
        (Limits(duration_seconds=1.0), "1.04"),
    ):
        with pytest.raises(DecodeError, match=message):
            plan.scan(path, count=count, limits=limits)


def test_scan_counts_by_decoding_where_the_packets_do_not_tell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "h264-open-gop.mp4"
    wanted = plan.scan(path)
    assert wanted.plan is not None
    monkeypatch.setattr(plan, "_planned", lambda *arguments: None)
    found = plan.scan(path, limits=Limits(num_frames=26))
    assert found.plan is None
    assert (found.num_frames, found.times_seconds.tolist()) == (26, pytest.approx(wanted.times_seconds.tolist()))
    with Video(path) as video:  # what scans on the way to its frames does so too
        assert video.scan().plan is None
        assert [_code(frame.rgb) for _, frame in video.frames([0, 13, 25])] == [0, 13, 25]
        assert video.cost.opens == 2


@pytest.mark.parametrize("name", SMALL)
def test_times_are_those_of_the_frames(name: str, folder: Path) -> None:
    clip = SMALL[name]
    path = folder / f"{name}{clip.suffix}"
    scan = plan.scan(path)
    with av.open(str(path)) as container:
        pts = [frame.pts for frame in container.decode(video=0)]
        base = float(container.streams.video[0].time_base)
    if clip.suffix == ".avi":
        assert scan.times_seconds.tolist() == pytest.approx([i / 25 for i in range(26)])
    else:
        assert scan.times_seconds.tolist() == pytest.approx([(value - pts[0]) * base for value in pts])
    counted = plan.scan(path, count=True)
    assert counted.num_frames == scan.num_frames
    assert counted.times_seconds.tolist() == pytest.approx(scan.times_seconds.tolist())
    assert counted.duration_seconds == pytest.approx(scan.duration_seconds, abs=0.05)


def test_sparse_frames_decode_their_groups_alone(folder: Path) -> None:
    with Video(folder / "h264-edit-list.mp4") as video:
        video.scan()
        before = video.cost.packets_decoded
        list(video.frames([18]))  # frame 25 of the file: the third group of 12
        assert 1 <= video.cost.packets_decoded - before <= 2


# --- packets read once more, from a container made by hand


class _File:
    """A container of packets with these timestamps; a seek goes to the packet at `lands`."""

    def __init__(self, pts: list[int | None], lands: int = 0) -> None:
        self.pts, self.lands, self.at = pts, lands, 0
        self.sought: list[tuple[int, Any]] = []

    def demux(self, stream: Any) -> Any:
        assert stream == "stream"
        return iter([_packet(pts, None) for pts in self.pts[self.at :]])

    def seek(self, stamp: int, stream: Any) -> None:
        self.sought.append((stamp, stream))
        self.at = self.lands


def _reader(file: _File, may_seek: bool = True, **more: Any) -> Any:
    one = _gop([10 * i for i in range(9)], starts=[0, 6])
    return packets.FromFile(file, "stream", replace(one, **more), may_seek)


def _read(source: Any, position: int) -> int | None:
    packet = source.read(position)
    return None if packet is None else packet.pts


def test_packets_are_read_by_their_position_and_only_if_they_are_those_of_the_plan() -> None:
    whole = [10 * i for i in range(9)]
    source = _reader(_File(whole))  # type: ignore[arg-type]
    assert [_read(source, position) for position in (0, 1, 4, 8)] == [0, 10, 40, 80]
    assert _read(source, 9) is None
    for other in ([0, 10, 25, 30], [0, 10, None, 30], [0, 10]):
        source = _reader(_File(other))
        assert [_read(source, 1), _read(source, 3)] == [10, None]


def test_a_seek_is_made_where_it_saves_reading_and_lands_where_the_plan_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packets.SEEK_PACKETS == 1024
    monkeypatch.setattr(packets, "SEEK_PACKETS", 3)
    whole: list[int | None] = [10 * i for i in range(9)]

    def at(position: int, file: _File, *, read: int | None = None, **more: Any) -> int | None:
        source = _reader(file, **more)
        if read is not None:
            _read(source, read)
        source.go_to(position)
        return _read(source, position)

    near, far, kept = _File(whole), _File(whole, lands=6), _File(whole)
    assert (at(3, near), near.sought) == (30, [])
    assert (at(6, far), far.sought) == (60, [(6, "stream")])  # to the decode time of its packet
    assert (at(6, kept, may_seek=False), kept.sought) == (60, [])
    after = _File(whole, lands=6)
    assert (at(6, after, read=2), after.sought) == (60, [])  # three packets on from the third
    earlier, bare = _File(whole, lands=2), _File(whole, lands=6)
    assert at(6, earlier) == 60  # a seek may land before: the packets up to it are read
    no_dts = np.array([NO_TIMESTAMP] * 9)
    assert (at(6, bare, dts=no_dts), bare.sought) == (60, [(60, "stream")])
    for missed in (
        _File(whole, lands=7),  # past its target
        _File([*whole[:6], 61, 70], lands=6),  # at a packet that is not in the plan
        _File([*whole[:6], None, 70], lands=6),
        _File(whole, lands=9),  # at the end
    ):
        with pytest.raises(packets.SeekMissed):
            at(6, missed)
    twice = _File(whole, lands=6)
    with pytest.raises(packets.SeekMissed):  # at a timestamp that two packets have
        at(6, twice, pts=np.array([0, 10, 20, 30, 40, 60, 60, 70, 80]))


def test_frames_are_those_that_are_wanted_next_and_whole() -> None:
    with Video("a.mp4") as video:
        remaining = [(30, 3), (20, 2), (10, 1)]
        given = [_frame(10), _frame(15), _frame(30), _frame(20, is_corrupt=True), _frame(20)]
        found = [(index, native.pts) for index, native in video._matching(given[:3] + given[4:], remaining)]
        assert (found, remaining) == ([(1, 10), (2, 20)], [(30, 3)])  # 30 came before 20: it was not its turn
        assert video.cost.frames_decoded == 4
        video._scan = _scan(None)
        with pytest.raises(DecodeError, match="frame 2: damaged at 1 s: flagged"):
            video._checked(2, _frame(0), "flagged")
