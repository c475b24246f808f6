"""A file that ends early is never a silently shorter clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import CLIPS, cut, render

from reelbank.extract.errors import DecodeError
from reelbank.extract.video import plan
from reelbank.extract.video.decode import Video
from reelbank.extract.video.truncation import missing_bytes

# A transport stream that is cut between two packets cannot be told from a shorter one: not in this table.
CUT = (
    "av1",
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
SHARES = (0.02, 0.2, 0.4, 0.6, 0.75, 0.9, 0.97, 0.999)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.mark.parametrize("name", CUT)
def test_cut_file_is_broken_or_whole_and_keeps_exact_frames(name: str, clip_folder: Path, tmp_path: Path) -> None:
    whole = render(clip_folder, name)
    with Video(whole) as video:
        expected = [frame.rgb for _, frame in video.frames(range(CLIPS[name].num_shown))]
    broken = 0
    for share in SHARES:
        path = tmp_path / f"cut{share}{whole.suffix}"
        cut(whole, path, share)
        try:
            with Video(path) as video:
                scan = video.scan()
                found = list(video.frames(range(scan.num_frames)))
        except DecodeError as error:
            broken += 1
            assert error.reason
            continue
        assert scan.broken is not None or scan.num_frames == len(expected), f"{share} is silently shorter"
        for index, frame in found:
            np.testing.assert_array_equal(frame.rgb, expected[index], err_msg=f"{share} frame {index}")
        if scan.broken is not None:
            broken += 1
            assert scan.num_frames <= len(expected)
            scan.check_whole(float(scan.times_seconds[-1]))
            for end_seconds in (None, 99.0):
                with pytest.raises(DecodeError, match=r"the clip reaches to .* are usable"):
                    scan.check_whole(end_seconds)
        else:
            scan.check_whole(None)
    assert broken >= 5


def test_transport_stream_cut_in_a_packet_is_broken(clip_folder: Path, tmp_path: Path) -> None:
    whole = render(clip_folder, "h264-ts")
    cut(whole, tmp_path / "cut.ts", 0.6)
    scan = plan.scan(tmp_path / "cut.ts")
    assert scan.broken is not None
    with Video(tmp_path / "cut.ts") as video, Video(whole) as complete:
        everything = range(scan.num_frames)
        for (_, frame), (_, other) in zip(video.frames(everything), complete.frames(everything), strict=True):
            np.testing.assert_array_equal(frame.rgb, other.rgb)


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
    data = bytearray(render(clip_folder, name).read_bytes())
    start, length = len(data) * 3 // 4, len(data) // 12
    data[start : start + length] = bytes(length)
    path = tmp_path / f"damaged{render(clip_folder, name).suffix}"
    path.write_bytes(data)
    with Video(path) as video:
        scan = video.scan()
        assert len(list(video.frames([0, 1]))) == 2
        if scan.broken is None:
            reason = r"frame \d+: the decoder (fails after \d+ frames|flags the frame as corrupt)"
            with pytest.raises(DecodeError, match=reason):
                list(video.frames(range(scan.num_frames)))
        else:
            with pytest.raises(DecodeError, match="cannot be decoded"):
                scan.check_whole(None)
