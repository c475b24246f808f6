"""Frames by index equal a full decode, for every container, codec and feature of the clip table."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import av
import numpy as np
import pytest
from clips import CLIPS, Clip, picture, render, write, write_sound
from PIL import Image

from reelbank.extract.errors import DecodeError, PlanMismatch
from reelbank.extract.video import decode, packets, plan
from reelbank.extract.video.decode import Video
from reelbank.extract.video.frame import Pixels
from reelbank.extract.video.opening import Limits, text_options

SETS_PER_CLIP = 8


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def full_decode(path: Path) -> list[Pixels]:
    """Every frame in emission order by plain PyAV, turned as shown."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        return [np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in container.decode(stream)]


def wanted_sets(num_frames: int) -> list[list[int]]:
    """Random sets of every density, the ends, all."""
    rng = random.Random(num_frames)
    sizes = [rng.choice([1, 2, 5, 16]) for _ in range(SETS_PER_CLIP)]
    sets = [sorted(rng.sample(range(num_frames), min(size, num_frames))) for size in sizes]
    return [*sets, [0], [num_frames - 1], list(range(num_frames)), []]


@pytest.mark.parametrize("kept_bytes", [2**26, 0], ids=["kept", "reread"])
@pytest.mark.parametrize("name", CLIPS)
def test_frames_wanted_equal_full_decode(name: str, kept_bytes: int, clip_folder: Path) -> None:
    clip, path = CLIPS[name], render(clip_folder, name)
    expected = full_decode(path)
    assert len(expected) == clip.num_shown
    with Video(path, kept_bytes=kept_bytes) as video:
        scan = video.scan()
        assert scan.broken is None
        assert scan.num_frames == len(scan.times_seconds) == len(expected)
        assert (scan.plan is not None) == clip.planned
        for wanted in wanted_sets(scan.num_frames):
            found = list(video.frames(wanted))
            assert [index for index, _ in found] == wanted
            for index, frame in found:
                np.testing.assert_array_equal(frame.rgb, expected[index], err_msg=f"{name} frame {index}")
        assert video.cost.fallbacks == 0
        assert video.cost.errors == 0


@pytest.mark.parametrize("name", CLIPS)
def test_scan_describes_clip(name: str, clip_folder: Path) -> None:
    clip, scan = CLIPS[name], plan.scan(render(clip_folder, name))
    turned = clip.rotation_degrees % 180 != 0
    size = (clip.height_px, clip.width_px) if turned else (clip.width_px, clip.height_px)
    assert (scan.width_px, scan.height_px) == size
    assert scan.rotation_degrees % 360 == clip.rotation_degrees % 360
    assert scan.times_seconds[0] == 0
    assert scan.duration_seconds > scan.times_seconds[-1]
    if clip.ticks is None:
        assert scan.rate_fps == clip.rate
        expected = np.arange(clip.num_shown) / float(clip.rate)
        np.testing.assert_allclose(scan.times_seconds, expected, atol=1.1e-3)  # Matroska counts milliseconds
        np.testing.assert_allclose(scan.duration_seconds, clip.num_shown / float(clip.rate), atol=1.1e-3)
    else:
        expected = (np.asarray(clip.ticks) - clip.ticks[0]) / float(clip.rate * 8)
        np.testing.assert_allclose(scan.times_seconds, expected, atol=1.1e-3)


def test_clip_table_has_open_gops(clip_folder: Path) -> None:
    """Else the leading pictures of the tests above would test nothing."""
    for name in ("h264-open-gop", "h264-pyramid", "hevc-open-gop", "hevc-mkv", "h264-mkv-vfr"):
        found = plan.scan(render(clip_folder, name)).plan
        assert found is not None
        keyframe_pts = np.maximum.accumulate(np.where(found.starts, found.pts, found.pts[0]))
        assert (found.pts < keyframe_pts).any(), name


def test_frames_leading_picture_needs_previous_gop(clip_folder: Path) -> None:
    found = plan.scan(render(clip_folder, "hevc-open-gop")).plan
    assert found is not None
    starts = np.flatnonzero(found.starts)
    leading = next(
        position for position in range(int(starts[2]) + 1, int(starts[3])) if found.pts[position] < found.pts[starts[2]]
    )
    index = int(np.flatnonzero(found.position_of == leading)[0])
    assert found.segments(np.asarray([index]))[0][:2] == (int(starts[1]), leading)


def test_scan_hevc_sublayers_never_skip(clip_folder: Path) -> None:
    """A "non-reference" picture of a lower temporal sub-layer may be referred to by a higher one."""
    sublayers, single = (plan.scan(render(clip_folder, name)).plan for name in ("hevc-sublayers", "hevc"))
    assert sublayers is not None
    assert single is not None
    assert (sublayers.skip_nonref, single.skip_nonref) == (False, True)


def test_frames_sparse_decode_less_than_everything(clip_folder: Path) -> None:
    with Video(render(clip_folder, "h264")) as video:
        video.scan()
        before = video.cost.frames_decoded
        list(video.frames([40]))
        assert video.cost.frames_decoded - before <= 6
        assert video.cost.opens == 1


def test_frames_counted_clip_is_decoded_once(clip_folder: Path) -> None:
    with Video(render(clip_folder, "mpeg4-avi-b")) as video:
        list(video.frames([3, 50]))
        list(video.frames([4]))
        assert (video.cost.frames_decoded, video.cost.opens) == (60, 1)


def test_scan_that_failed_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip_folder: Path) -> None:
    """Of a thousand clips of one file without a frame each would decode it to its end."""
    path, made = tmp_path / "a.ts", []
    path.write_bytes(render(clip_folder, "h264-ts").read_bytes()[: 188 * 4])
    examine = decode.examine

    def counting(*args: object, **more: object) -> object:
        made.append(1)
        return examine(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "examine", counting)
    with Video(path) as video:
        reasons = []
        for _ in range(3):
            with pytest.raises(DecodeError) as failed:
                video.scan()
            reasons.append(str(failed.value))
    assert len(set(reasons)) == 1
    assert len(made) == 1


def test_frames_of_many_calls_come_from_one_pass(clip_folder: Path) -> None:
    path = render(clip_folder, "mpeg4-avi-b")
    with Video(path) as video:
        expected = {index: frame.rgb for index, frame in video.frames(range(60))}
    with Video(path, kept_bytes=0) as video:
        video.scan()
        assert video.is_sequential
        for wanted in ([0, 5], [6, 7, 20], [21], [40, 59], [30, 31]):
            for index, frame in video.frames(wanted):
                np.testing.assert_array_equal(frame.rgb, expected[index])
        assert video.cost.opens == 3  # the count, one pass, and one for what lies before its end
        assert next(video.frames([33, 50]))[0] == 33  # given up in between
        assert [index for index, _ in video.frames([51, 52])] == [51, 52]
        assert video.cost.opens == 3


def test_frames_of_cached_scan_equal_full_decode(clip_folder: Path) -> None:
    for name in ("h264-mkv-vfr", "mpeg4-avi-b", "h264-rotated-90"):
        path = render(clip_folder, name)
        scan = pickle.loads(pickle.dumps(plan.scan(path)))
        expected = full_decode(path)
        for index, frame in decode.frames(scan, [5, 30, 59]):
            np.testing.assert_array_equal(frame.rgb, expected[index])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_of_long_clip_by_seek_equal_render(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "SEEK_PACKETS", 40)
    options = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=1:threads=1"}
    path = tmp_path / f"long{suffix}"
    write(path, Clip(num_frames=400, suffix=suffix, options=options))
    expected = full_decode(path)
    with Video(path, kept_bytes=0) as video:
        for index, frame in video.frames([5, 203, 390]):
            np.testing.assert_array_equal(frame.rgb, expected[index])
        assert video.cost.fallbacks == 0
        assert video.cost.packets_decoded < 80


def test_frames_with_wrong_plan_fall_back_to_sequential(clip_folder: Path) -> None:
    """A plan that starts in the middle of a GOP gives no frame, so the video is decoded from its start."""
    path = render(clip_folder, "h264")
    expected = full_decode(path)
    scan = plan.scan(path)
    assert scan.plan is not None
    scan.plan.starts[:] = False
    scan.plan.starts[[0, 30]] = True
    with Video(path, scan=scan) as video:
        for index, frame in video.frames([2, 33, 59]):
            np.testing.assert_array_equal(frame.rgb, expected[index])
        assert video.cost.fallbacks == 1


def test_frames_of_replaced_file_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(render(clip_folder, "h264").read_bytes())
    scan = plan.scan(path)
    path.write_bytes(render(clip_folder, "h264-one-frame").read_bytes())
    with pytest.raises(PlanMismatch, match="frame 30: the decoder emits 1 frames"):
        list(decode.frames(scan, [30]))


@pytest.mark.parametrize("wanted", [[3, 2], [2, 2], [-1], [60]])
def test_frames_bad_wanted_are_refused(wanted: list[int], clip_folder: Path) -> None:
    with Video(render(clip_folder, "h264")) as video, pytest.raises(ValueError, match="wanted frames"):
        video.frames(wanted)


def test_scan_best_stream_is_not_first(clip_folder: Path) -> None:
    path = render(clip_folder, "h264-two-streams")
    assert plan.scan(path).stream_index == 1
    first = plan.scan(path, stream_index=0)
    assert (first.num_frames, first.width_px) == (50, 48)
    with pytest.raises(DecodeError, match=r"stream 7 is no video stream; these are: \[0, 1\]"):
        plan.scan(path, stream_index=7)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "the file is empty"),
        ("text.mp4", b"not a video\n" * 50, "not a video file"),
        ("list.ffconcat", b"ffconcat version 1.0\nfile 'clip.mp4'\n", "not a video file"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nclip.mp4\n#EXT-X-ENDLIST\n", "not a video"),
        ("list.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nclip.mp4\n#EXT-X-ENDLIST\n", "not a video"),
        ("session.sdp", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 9 RTP/AVP 96\n", "not a video file"),
        ("art.txt", b"a text that FFmpeg would draw\n" * 9, "not a video file"),
        ("img%03d.png.mp4", b"nothing", "not a video file"),
    ],
)
def test_scan_foreign_files_are_refused(
    name: str, content: bytes, message: str, tmp_path: Path, clip_folder: Path
) -> None:
    (tmp_path / "clip.mp4").write_bytes(render(clip_folder, "h264").read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DecodeError, match=message) as caught:
        plan.scan(tmp_path / name)
    assert name in str(caught.value)


def test_scan_absent_urls_sound_are_refused(tmp_path: Path) -> None:
    for name in ("absent.mp4", "http://127.0.0.1:9/x.mp4", "concat:a.mp4|b.mp4"):
        with pytest.raises(DecodeError, match="no such file"):
            plan.scan(name)
    with pytest.raises(DecodeError, match="is a folder"):
        plan.scan(tmp_path)
    write_sound(tmp_path / "sound.mp4")
    with pytest.raises(DecodeError, match="no video stream that can be decoded, found audio"):
        plan.scan(tmp_path / "sound.mp4")


def test_scan_file_name_is_never_a_url(tmp_path: Path, clip_folder: Path) -> None:
    path = tmp_path / "concat:a|b [!&()#;+]%03d.mp4"
    path.write_bytes(render(clip_folder, "h264").read_bytes())
    assert plan.scan(path).num_frames == 60


@pytest.mark.parametrize("name", ["h264", "mpeg4-avi"])
@pytest.mark.parametrize("limits", [Limits(frame_px=96 * 64 - 1), Limits(num_frames=59), Limits(duration_seconds=2.3)])
def test_scan_limits_are_kept(name: str, limits: Limits, clip_folder: Path) -> None:
    with pytest.raises(DecodeError, match="limit of"):
        plan.scan(render(clip_folder, name), limits=limits)
    plan.scan(render(clip_folder, name), limits=Limits(frame_px=96 * 64, num_frames=60, duration_seconds=2.41))


def test_decode_error_survives_pickle() -> None:
    error = pickle.loads(pickle.dumps(PlanMismatch(Path("a.mp4"), "why", 3)))
    assert (type(error), str(error), error.frame_index) == (PlanMismatch, "a.mp4, frame 3: why", 3)


def test_folder_frames_are_in_number_order(tmp_path: Path) -> None:
    for number in (1, 2, 10, 11, 9):
        Image.fromarray(picture(number, 96, 64)).save(tmp_path / f"rgb{number}.png")
    Image.fromarray(picture(77, 96, 64)).save(tmp_path / "mask3.png")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    with Video(tmp_path, frame_pattern="rgb%d.png", rate_fps=5) as video:
        scan = video.scan()
        assert (scan.num_frames, scan.duration_seconds, scan.width_px) == (5, 1.0, 96)
        for (_, frame), number in zip(video.frames(range(5)), (1, 2, 9, 10, 11), strict=True):
            np.testing.assert_array_equal(frame.rgb, picture(number, 96, 64))
    with pytest.raises(DecodeError, match="needs its rate"):
        Video(tmp_path, frame_pattern="*.png").scan()
    with pytest.raises(DecodeError, match=r"no file that matches 'flow%d.png' among 7 files"):
        Video(tmp_path, frame_pattern="flow%d.png", rate_fps=5).scan()
    with pytest.raises(DecodeError, match="without a slash"):
        Video(tmp_path, frame_pattern="../*.png", rate_fps=5).scan()


def test_image_is_clip_of_one_frame_turned_by_exif(tmp_path: Path) -> None:
    image = Image.fromarray(picture(5, 96, 64))
    exif = image.getexif()
    exif[0x0112] = 6  # turn clockwise to show
    image.save(tmp_path / "photo.png", exif=exif)
    with Video(tmp_path / "photo.png") as video:
        scan = video.scan()
        assert (scan.num_frames, scan.width_px, scan.height_px) == (1, 64, 96)
        ((_, frame),) = video.frames([0])
        np.testing.assert_array_equal(frame.rgb, np.rot90(picture(5, 96, 64), -1))
    with pytest.raises(DecodeError, match="limit of 100 px"):
        Video(tmp_path / "photo.png", limits=Limits(frame_px=100)).scan()
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DecodeError, match="not an image"):
        Video(tmp_path / "broken.jpg").scan()


@pytest.mark.parametrize(
    ("version", "asked"), [("15.1.0", True), ("18.1.0", True), ("19.0.2", False), ("20.0rc1", False)]
)
def test_metadata_that_is_no_utf8_is_asked_for_where_pyav_wants_to_be_asked(version: str, asked: bool) -> None:
    assert text_options(version) == ({"metadata_errors": "replace"} if asked else {})
