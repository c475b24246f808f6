"""Channels of more than 8 bits become 8 bits by division, or are a reason; they are never cut off."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reelbank.extract.errors import DecodeError
from reelbank.extract.inputs.preprocess import Preprocess, make, thumbnail
from reelbank.extract.video.decode import Video

RAMP = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (64, 1))


def _pgm(bits: int) -> bytes:
    return f"P5\n256 64\n{2**bits - 1}\n".encode() + (RAMP >> (16 - bits)).astype(">u2").tobytes()


def _tiff(values: NDArray[Any], order: str, **tags: int) -> bytes:
    """A TIFF of one strip, as programs of science write it."""
    data = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<" if order == "II" else ">"))).tobytes()
    end = "little" if order == "II" else "big"
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    height, width = values.shape
    bits = tags.get("bits", 8 * values.dtype.itemsize)
    fields = {
        256: width, 257: height, 258: bits, 259: 1, 262: tags.get("photometric", 1), 273: 8, 274: 1, 277: 1,
        278: height, 279: len(data), 339: kind,
    }  # fmt: skip
    entries = b"".join(
        tag.to_bytes(2, end) + (4).to_bytes(2, end) + (1).to_bytes(4, end) + number.to_bytes(4, end)
        for tag, number in fields.items()
    )
    head = order.encode() + (42).to_bytes(2, end) + (8 + len(data)).to_bytes(4, end)
    return head + data + len(fields).to_bytes(2, end) + entries + bytes(4)


def _encoded(codec: str, pix_fmt: str) -> bytes:
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = 256, 64, pix_fmt, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(RAMP, format="gray16le").reformat(format=pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def _saved(folder: Path, mode: str, suffix: str) -> bytes:
    Image.fromarray((RAMP >> 8).astype(np.uint8)).convert(mode).save(folder / f"x{suffix}")
    return (folder / f"x{suffix}").read_bytes()


def _bits12() -> NDArray[np.uint8]:
    """RAMP in 12 bits, two numbers in three bytes."""
    high, low = (RAMP >> 4)[:, ::2], (RAMP >> 4)[:, 1::2]
    return np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], -1).astype(np.uint8).reshape(64, -1)


def _packed_tiff12() -> bytes:
    data = _tiff(_bits12(), "II", bits=12)
    return data.replace((384).to_bytes(4, "little"), (256).to_bytes(4, "little"))


PICTURES: dict[str, Any] = {
    "gray16.png": lambda _: _encoded("png", "gray16be"),
    "gray-alpha16.png": lambda _: _encoded("png", "ya16be"),
    "rgb16.png": lambda _: _encoded("png", "rgb48be"),
    "rgba16.png": lambda _: _encoded("png", "rgba64be"),
    "gray16.tif": lambda _: _tiff(RAMP, "II"),
    "gray16-big-endian.tif": lambda _: _tiff(RAMP, "MM"),
    "gray16-white-is-zero.tif": lambda _: _tiff(65535 - RAMP, "II", photometric=0),
    "gray12.tif": lambda _: _packed_tiff12(),
    "rgb16.tif": lambda _: _encoded("tiff", "rgb48le"),
    "rgba16.tif": lambda _: _encoded("tiff", "rgba64le"),
    "float.tif": lambda _: _tiff((RAMP / 65535).astype(np.float32), "II"),
    "float-big-endian.tif": lambda _: _tiff((RAMP / 65535).astype(np.float32), "MM"),
    "gray16.pgm": lambda _: _pgm(16),
    "gray10.pgm": lambda _: _pgm(10),
    "gray8.png": lambda folder: _saved(folder, "L", ".png"),
    "palette.png": lambda folder: _saved(folder, "P", ".png"),
    "gray-alpha.png": lambda folder: _saved(folder, "LA", ".png"),
    "rgba.png": lambda folder: _saved(folder, "RGBA", ".png"),
    "cmyk.tif": lambda folder: _saved(folder, "CMYK", ".tif"),
    "ycbcr.tif": lambda folder: _saved(folder, "YCbCr", ".tif"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_keep_their_grays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PICTURES[name](tmp_path))
    with Video(tmp_path / name) as video:
        ((_, frame),) = video.frames([0])
        assert frame.rgb.shape == (64, 256, 3)
        assert np.abs(frame.rgb.astype(int) - (RAMP >> 8)[:, :, None]).max() <= 2


def test_black_and_white_picture_has_both(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_saved(tmp_path, "1", ".png"))
    with Video(tmp_path / "a.png") as video:
        ((_, frame),) = video.frames([0])
        assert np.unique(frame.rgb).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP.astype(np.int32), r"integers of 32 bits or with a sign, here 0 to 65535, .*save it with 16 bits"),
        (RAMP.astype(np.uint32), "integers of 32 bits|cannot identify"),
        ((RAMP >> 1).astype(np.int16), "integers of 32 bits or with a sign, here 0 to 32767"),
        (RAMP.astype(np.float32), r"floating-point numbers, here 0 to 65535, .*divided to 0 \.\. 1"),
        ((RAMP / 65535 - 0.1).astype(np.float32), "here -0.1 to 0.9"),
        (np.full((64, 256), np.nan, np.float32), "here nan to nan"),
    ],
)
@pytest.mark.parametrize("order", ["II", "MM"])
def test_numbers_without_a_white_are_a_reason(order: str, values: NDArray[Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(_tiff(values, order))
    with Video(tmp_path / "a.tif") as video, pytest.raises(DecodeError, match=message):
        list(video.frames([0]))


def _video(path: Path, codec: str, pix_fmt: str) -> None:
    plain = av.VideoFrame.from_ndarray(RAMP, format="gray16le")
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options={"crf": "1"} if codec == "libx265" else {})
        stream.width, stream.height, stream.pix_fmt = 256, 64, pix_fmt
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none:lossless=1"}
        for index in range(3):
            if pix_fmt == "gbrpf32le":
                pixels = np.repeat((RAMP / 65535).astype(np.float32)[..., None], 3, 2)
                frame = av.VideoFrame.from_ndarray(pixels, format=pix_fmt)
            else:
                frame = plain.reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("ffv1", "gray10le", ".mkv"),
        ("ffv1", "gray12le", ".mkv"),
        ("ffv1", "gray16le", ".mkv"),
        ("ffv1", "gray16le", ".avi"),
        ("ffv1", "gbrp16le", ".mkv"),
        ("libx265", "gray10le", ".mp4"),
        ("libx265", "gray12le", ".mp4"),
        ("png", "rgb48be", ".mov"),
        ("rawvideo", "gray16le", ".nut"),
        ("rawvideo", "gray16be", ".mov"),
        ("rawvideo", "rgb48le", ".nut"),
    ],
)
def test_videos_keep_their_grays(codec: str, pix_fmt: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    try:
        _video(path, codec, pix_fmt)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write it ({error})")
    fast = make(Preprocess(squash_px=(32, 128), interpolation="bilinear"), "fast")
    with Video(path) as video:
        for _, frame in video.frames([0, 2]):
            assert np.abs(frame.rgb.astype(int) - (RAMP >> 8)[:, :, None]).max() <= 3
            for small in (fast(frame), thumbnail(frame)[36:37]):
                assert abs(small.mean() - (RAMP >> 8).mean()) < 2
                assert (small > 250).mean() < 0.03


def test_video_of_floating_point_numbers_is_a_reason(tmp_path: Path) -> None:
    _video(tmp_path / "a.nut", "rawvideo", "gbrpf32le")
    with Video(tmp_path / "a.nut") as video, pytest.raises(DecodeError, match=r"\(gbrpf32le\), .*gray16le or rgb48le"):
        video.scan()
