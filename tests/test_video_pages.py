"""Files of several pictures: animations have their times, pages of a TIFF need a rate, and none is left out unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import picture
from PIL import Image

from reelbank.extract.errors import DecodeError
from reelbank.extract.video.decode import Video
from reelbank.extract.video.opening import Limits

PICTURES = [picture(i, 96, 64) for i in range(5)]
SHOWN_MS = [40, 80, 50, 100, 30]


def _save(path: Path, **options: Any) -> Path:
    first, *others = (Image.fromarray(pixels) for pixels in PICTURES)
    first.save(path, save_all=True, append_images=others, **options)
    return path


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.apng", "a.gif"])
def test_animations_have_their_pictures_and_times(name: str, tmp_path: Path) -> None:
    options = {"format": "PNG"} if name == "a.apng" else {"lossless": True} if name == "a.webp" else {}
    with Video(_save(tmp_path / name, duration=SHOWN_MS, **options)) as video:
        scan = video.scan()
        np.testing.assert_allclose(scan.times_seconds, [0.0, 0.04, 0.12, 0.17, 0.27], atol=1e-4)
        assert float(scan.rate_fps) == pytest.approx(4 / 0.27, rel=0.01)
        if name in ("a.webp", "a.png"):
            assert scan.duration_seconds == pytest.approx(0.3)
        for wanted in (range(5), [1, 4], [3]):
            found = list(video.frames(wanted))
            assert [index for index, _ in found] == list(wanted)
            for index, frame in found:
                assert np.abs(frame.rgb.astype(int) - PICTURES[index]).mean() < (4 if name == "a.gif" else 0.01)


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_picture_for_no_time_is_shown_for_a_tenth_of_a_second(name: str, tmp_path: Path) -> None:
    with Video(_save(tmp_path / name, duration=[40, 0, 40, 40, 0])) as video:
        scan = video.scan()
    np.testing.assert_allclose(scan.times_seconds, [0, 0.04, 0.14, 0.18, 0.22], atol=1e-9)
    assert scan.duration_seconds == pytest.approx(0.32)


def test_picture_for_programs_without_animation_is_no_frame(tmp_path: Path) -> None:
    with Video(_save(tmp_path / "a.png", duration=SHOWN_MS[1:], default_image=True)) as video:
        assert video.scan().num_frames == 4
        for index, frame in video.frames(range(4)):
            np.testing.assert_array_equal(frame.rgb, PICTURES[index + 1])


def test_pages_of_a_tiff_need_a_rate(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.tif")
    with pytest.raises(DecodeError, match=r"it holds 5 pictures and no times; .* the column rate_fps"):
        Video(path).scan()
    with Video(path, rate_fps=4) as video:
        scan = video.scan()
        assert (scan.times_seconds.tolist(), scan.duration_seconds) == ([0, 0.25, 0.5, 0.75, 1], 1.25)
        for index, frame in video.frames([0, 2, 4]):
            np.testing.assert_array_equal(frame.rgb, PICTURES[index])
    with pytest.raises(DecodeError, match="more frames than the limit of 4"):
        Video(path, rate_fps=4, limits=Limits(num_frames=4)).scan()


@pytest.mark.parametrize("tags", [{254: 1}, {254: 4}, {255: 2}])
def test_smaller_copies_and_masks_of_a_tiff_are_no_pages(tags: dict[int, int], tmp_path: Path) -> None:
    small = Image.fromarray(PICTURES[1][::2, ::2])
    small.encoderinfo = {"tiffinfo": tags}
    Image.fromarray(PICTURES[0]).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    with Video(tmp_path / "a.tif") as video:
        ((_, frame),) = video.frames(range(video.scan().num_frames))
        np.testing.assert_array_equal(frame.rgb, PICTURES[0])


def test_second_picture_of_a_camera_is_no_frame(tmp_path: Path) -> None:
    """MPO: another eye, a preview or a map of light, for which no viewer waits."""
    with Video(_save(tmp_path / "a.jpg", format="MPO")) as video:
        assert video.scan().num_frames == 1
        assert len(list(video.frames([0]))) == 1


@pytest.mark.parametrize("name", ["2.webp", "2.png", "2.tif"])
def test_folder_of_frames_holds_one_picture_in_each_file(name: str, tmp_path: Path) -> None:
    Image.fromarray(PICTURES[0]).save(tmp_path / "1.png")
    _save(tmp_path / name, **({} if name == "2.tif" else {"duration": 40}))
    with Video(tmp_path, rate_fps=5) as video, pytest.raises(DecodeError, match="holds 5 pictures; a folder of frames"):
        list(video.frames([0, 1]))


def test_damaged_animation_is_a_reason(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.webp", duration=40, lossless=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with Video(path) as video, pytest.raises(DecodeError):
        list(video.frames(range(video.scan().num_frames)))
