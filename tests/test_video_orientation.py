"""Pictures are turned and mirrored as they are shown: against libavfilter, with the filters that ffmpeg inserts."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import CLIPS, Clip, picture, write
from PIL import Image

from reelbank.extract.errors import DecodeError
from reelbank.extract.inputs.preprocess import Preprocess, make, thumbnail
from reelbank.extract.video import plan
from reelbank.extract.video.decode import Video
from reelbank.extract.video.on_device import DeviceVideo

_ONE = 1 << 16

# Both columns of a matrix (a, b, c, d of FFmpeg's documentation) and what ffmpeg's `insert_filter` calls for it.
ORIENTATIONS: dict[str, tuple[tuple[int, int, int, int], tuple[str, ...]]] = {
    "upright": ((1, 0, 0, 1), ()),
    "mirrored": ((-1, 0, 0, 1), ("hflip",)),
    "half": ((-1, 0, 0, -1), ("hflip", "vflip")),
    "upside-down": ((1, 0, 0, -1), ("vflip",)),
    "transposed": ((0, 1, 1, 0), ("transpose=cclock_flip",)),
    "clockwise": ((0, 1, -1, 0), ("transpose=clock",)),
    "transversed": ((0, -1, -1, 0), ("transpose=clock_flip",)),
    "counterclockwise": ((0, -1, 1, 0), ("transpose=cclock",)),
}
"""In the order of EXIF's 1 to 8."""


def _matrix(a: float, b: float, c: float, d: float) -> tuple[int, ...]:
    return round(a * _ONE), round(b * _ONE), 0, round(c * _ONE), round(d * _ONE), 0, 0, 0, 1 << 30


def _file(folder: Path, matrix: tuple[int, ...], suffix: str = ".mp4") -> Path:
    path = folder / f"matrix{suffix}"
    write(path, Clip(num_frames=6, suffix=suffix, options=CLIPS["h264"].options, display_matrix=matrix))
    return path


def _filtered(path: Path, filters: tuple[str, ...]) -> list[Any]:
    """Every frame of a file behind filters, by libavfilter."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=stream)]
        for text in filters:
            name, _, value = text.partition("=")
            nodes.append(graph.add(name, value) if value else graph.add(name))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        found = []
        for frame in container.decode(stream):
            graph.push(frame)
            found.append(graph.pull().to_ndarray(format="rgb24"))
        return found


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_videos_are_shown_as_ffmpeg_shows_them(name: str, suffix: str, tmp_path: Path) -> None:
    values, filters = ORIENTATIONS[name]
    path = _file(tmp_path, _matrix(*values), suffix)
    expected = _filtered(path, filters)
    assert len(expected) == 6
    for count in (False, True):
        with Video(path, count=count) as video:
            scan = video.scan()
            assert (scan.height_px, scan.width_px) == expected[0].shape[:2]
            assert scan.is_mirrored == (name in ("mirrored", "upside-down", "transposed", "transversed"))
            for index, frame in video.frames(range(6)):
                # swscale's chroma lies elsewhere in a picture that was turned before it became RGB.
                assert np.abs(frame.rgb.astype(int) - expected[index]).mean() < 3
                small = [make(Preprocess(short_side_px=32), resize)(frame).astype(int) for resize in ("exact", "fast")]
                assert small[0].shape == small[1].shape
                assert np.abs(small[0] - small[1]).mean() < 4
                assert thumbnail(frame)[:, 18:22].any() == (scan.width_px > scan.height_px)


@pytest.mark.parametrize(
    ("values", "filters"),
    [
        ((2, 0, 0, 2), ()),
        ((0, 3, 3, 0), ("transpose=cclock_flip",)),
        ((1, 0, 0.5, 1), ()),  # ffmpeg looks at no shear
        ((0, 0, 0, 0), ()),
        ((0.9999, 0.01, -0.01, 0.9999), ()),
    ],
)
def test_scale_shear_and_zeros_are_passed_over_as_ffmpeg_does(
    values: tuple[float, ...], filters: tuple[str, ...], tmp_path: Path
) -> None:
    path = _file(tmp_path, _matrix(*values))
    expected = _filtered(path, filters)
    with Video(path) as video:
        for index, frame in video.frames([0, 5]):
            assert frame.rgb.shape == expected[index].shape
            assert np.abs(frame.rgb.astype(int) - expected[index]).mean() < 3


def test_other_angles_are_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, _matrix(0.7071, 0.7071, -0.7071, 0.7071))
    for count in (False, True):
        with pytest.raises(DecodeError, match=r"turns pictures by -45 degrees.*make a turned copy"):
            plan.scan(path, count=count)


_IN_NUMPY: dict[str, Any] = {
    "hflip": lambda pixels: pixels[:, ::-1],
    "vflip": lambda pixels: pixels[::-1],
    "transpose=cclock_flip": lambda pixels: pixels.swapaxes(0, 1),
    "transpose=clock": lambda pixels: np.rot90(pixels, -1),
    "transpose=cclock": lambda pixels: np.rot90(pixels),
    "transpose=clock_flip": lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
}


_SAVED: dict[str, dict[str, Any]] = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_images_are_shown_as_exif_says(name: str, suffix: str, tmp_path: Path) -> None:
    pixels = picture(5, 96, 64)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 1 + list(ORIENTATIONS).index(name)
    image.save(tmp_path / f"1{suffix}", exif=exif.tobytes(), **_SAVED.get(suffix, {}))
    expected = pixels
    for text in ORIENTATIONS[name][1]:
        expected = _IN_NUMPY[text](expected)
    for path, options in ((tmp_path / f"1{suffix}", {}), (tmp_path, {"rate_fps": 5})):
        with Video(path, **options) as video:  # type: ignore[arg-type]
            scan = video.scan()
            assert (scan.height_px, scan.width_px) == expected.shape[:2]
            ((_, frame),) = video.frames([0])
            assert frame.rgb.shape == expected.shape
            assert np.abs(frame.rgb.astype(int) - expected).mean() < (6 if suffix == ".jpg" else 0.1)


def test_motion_jpeg_with_exif_is_turned(tmp_path: Path) -> None:
    """PyAV raises an error for EXIF beside the matrix; the angle is known all the same."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj444p"
        for index in range(3):
            data = io.BytesIO()
            Image.fromarray(picture(index, 96, 64)).save(data, "JPEG", exif=exif.tobytes(), quality=95, subsampling=0)
            packet = av.Packet(data.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
            container.mux(packet)
    with Video(tmp_path / "a.avi") as video:
        ((_, frame),) = video.frames([1])
        assert np.abs(frame.rgb.astype(int) - np.rot90(picture(1, 96, 64), -1)).mean() < 6


def test_gpu_decoder_does_not_mirror(tmp_path: Path) -> None:
    path = _file(tmp_path, _matrix(*ORIENTATIONS["mirrored"][0]))
    with DeviceVideo(path, device="cpu") as video, pytest.raises(DecodeError, match=r"mirrored.*leave out --decode"):
        list(video.frames([0]))
