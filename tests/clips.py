"""Small clips rendered with PyAV, one per container and feature that decoding must get right.

`CLIPS` is the table: name -> `Clip`; `render(directory, name)` writes one and returns its path. Frame i of every
clip shows i as a bar code of 12 bits in its top rows, under noise that makes inter prediction work, so that a
wrong frame is a wrong picture.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from reelbank.extract.video.decode import Video

BITS = 12


@dataclass(frozen=True, kw_only=True)
class Clip:
    """How a clip is made.

    Attributes:
        suffix: of the file, and so the container.
        format: of the container, where the suffix does not tell.
        codec: encoder name.
        num_frames: frames rendered.
        width_px: of the coded frame.
        height_px: likewise.
        rate: frames per second.
        pix_fmt: as coded.
        options: of the encoder.
        container_options: of the muxer.
        ticks: presentation times in units of 1 / (rate x 8) s, for variable frame rate; None is constant.
        rotation_degrees: display rotation, counterclockwise.
        display_matrix: nine numbers in FFmpeg's order, instead of the rotation.
        pixel_aspect: width by height of a pixel, of the coded frame.
        color_trc: number of the transfer function.
        first_pts: in frames; below 0 an edit list hides the frames before 0.
        second_stream: a smaller second video stream, which comes first in the file.
        sound: noise beside the picture.
        planned: whether a scan must find a GOP plan.
    """

    suffix: str = ".mp4"
    format: str | None = None
    codec: str = "libx264"
    num_frames: int = 60
    width_px: int = 96
    height_px: int = 64
    rate: Fraction = Fraction(25)
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    ticks: tuple[int, ...] | None = None
    rotation_degrees: int = 0
    display_matrix: tuple[int, ...] | None = None
    pixel_aspect: Fraction | None = None
    color_trc: int | None = None
    first_pts: int = 0
    second_stream: bool = False
    sound: bool = False
    planned: bool = True

    @property
    def num_shown(self) -> int:
        """Frames that are not hidden by an edit list."""
        return self.num_frames + min(self.first_pts, 0)


# b-adapt=0: which frames are B-frames is not for the encoder to measure, so a GOP is the same on every CPU.
_GOP = "keyint=12:min-keyint=12:scenecut=0:b-adapt=0"
_X264_CLOSED = {"x264-params": f"{_GOP}:bframes=3:open-gop=0:threads=1"}
_X264_OPEN = {"x264-params": f"{_GOP}:bframes=3:open-gop=1:threads=1"}
_X265 = f"{_GOP}:pools=1:frame-threads=1:log-level=none"

_VFR_TICKS = tuple(int(tick) for tick in np.cumsum(np.random.default_rng(5).integers(4, 30, 60)))

CLIPS: dict[str, Clip] = {
    "h264": Clip(options=_X264_CLOSED),
    "h264-faststart": Clip(options=_X264_CLOSED, container_options={"movflags": "faststart"}),
    "h264-fragmented": Clip(
        options=_X264_CLOSED, container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    "h264-open-gop": Clip(options=_X264_OPEN),
    "h264-pyramid": Clip(options={"x264-params": f"{_GOP}:bframes=5:b-pyramid=normal:ref=4:open-gop=1:threads=1"}),
    "h264-intra-refresh": Clip(options={"x264-params": "keyint=12:intra-refresh=1:threads=1"}),
    "h264-no-b": Clip(options={"x264-params": f"{_GOP}:bframes=0:threads=1"}),
    "h264-all-intra": Clip(options={"x264-params": "keyint=1:threads=1"}),
    "h264-edit-list": Clip(options=_X264_CLOSED, first_pts=-7),
    "h264-odd": Clip(width_px=98, height_px=70, options=_X264_CLOSED),
    "h264-444-odd": Clip(width_px=97, height_px=61, pix_fmt="yuv444p", options=_X264_CLOSED),
    "h264-422": Clip(pix_fmt="yuv422p", options=_X264_CLOSED),
    "h264-full-range": Clip(pix_fmt="yuvj420p", options=_X264_CLOSED),
    "h264-10bit": Clip(pix_fmt="yuv420p10le", options=_X264_CLOSED),
    "h264-rotated-90": Clip(options=_X264_CLOSED, rotation_degrees=90),
    "h264-rotated-180": Clip(options=_X264_CLOSED, rotation_degrees=180),
    "h264-rotated-270": Clip(options=_X264_CLOSED, rotation_degrees=-90),
    "h264-two-streams": Clip(options=_X264_CLOSED, second_stream=True),
    "h264-one-frame": Clip(num_frames=1),
    "h264-ntsc": Clip(rate=Fraction(30000, 1001), options=_X264_CLOSED),
    "h264-mov": Clip(suffix=".mov", options=_X264_OPEN),
    "h264-mkv": Clip(suffix=".mkv", options=_X264_CLOSED),
    "h264-mkv-vfr": Clip(suffix=".mkv", options=_X264_OPEN, ticks=_VFR_TICKS),
    "h264-mp4-vfr": Clip(options=_X264_OPEN, ticks=_VFR_TICKS),
    "h264-avi": Clip(suffix=".avi", options=_X264_CLOSED, planned=False),
    "h264-flv": Clip(suffix=".flv", options=_X264_CLOSED, sound=True, planned=False),
    "h264-m2ts": Clip(suffix=".m2ts", options=_X264_CLOSED, planned=False),
    "h264-ts": Clip(suffix=".ts", options=_X264_CLOSED, planned=False),
    "h264-ts-sound": Clip(suffix=".ts", options=_X264_CLOSED, sound=True, planned=False),
    "hevc-ts": Clip(suffix=".ts", codec="libx265", options={"x265-params": f"{_X265}:open-gop=0"}, planned=False),
    "mpeg2-ts": Clip(
        suffix=".ts", codec="mpeg2video", options={"g": "12", "bf": "2", "qmin": "2", "qmax": "2"}, planned=False
    ),
    "hevc": Clip(codec="libx265", options={"x265-params": f"{_X265}:open-gop=0"}),
    "hevc-open-gop": Clip(codec="libx265", options={"x265-params": f"{_X265}:open-gop=1:bframes=4"}),
    "hevc-sublayers": Clip(codec="libx265", options={"x265-params": f"{_X265}:temporal-layers=3:bframes=3"}),
    "hevc-10bit": Clip(codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": f"{_X265}:open-gop=1"}),
    "hevc-mkv": Clip(suffix=".mkv", codec="libx265", options={"x265-params": f"{_X265}:open-gop=1"}),
    "av1": Clip(
        codec="libsvtav1", num_frames=40, options={"preset": "12", "svtav1-params": "keyint=16:lp=1"}, suffix=".mkv"
    ),
    "av1-mp4": Clip(codec="libsvtav1", num_frames=40, options={"preset": "12", "svtav1-params": "keyint=16:lp=1"}),
    "vp9": Clip(
        suffix=".webm", codec="libvpx-vp9", num_frames=40, options={"g": "12", "deadline": "realtime", "cpu-used": "8"}
    ),
    "vp9-altref": Clip(
        suffix=".webm",
        codec="libvpx-vp9",
        num_frames=40,
        options={"g": "20", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "5"},
    ),
    "vp8-altref": Clip(
        suffix=".webm",
        codec="libvpx",
        num_frames=40,
        options={"g": "20", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "5"},
        planned=False,
    ),
    "gif": Clip(suffix=".gif", codec="gif", num_frames=20, pix_fmt="rgb8", planned=False),
    "mpeg4-avi": Clip(suffix=".avi", codec="mpeg4", options={"g": "12"}, planned=False),
    "mpeg4-avi-b": Clip(suffix=".avi", codec="mpeg4", options={"g": "12", "bf": "2"}, planned=False),
    "mpeg4-mp4-b": Clip(codec="mpeg4", options={"g": "12", "bf": "2"}, planned=False),
}

_MPEG4 = {"g": "12", "bf": "2", "qmin": "2", "qmax": "2"}

MORE_CLIPS: dict[str, Clip] = {
    "apng": Clip(suffix=".apng", codec="apng", num_frames=20, pix_fmt="rgb24", planned=False),
    "dv": Clip(
        suffix=".dv", codec="dvvideo", num_frames=6, width_px=720, height_px=576, pix_fmt="yuv420p", planned=False
    ),
    "ffv1-nut": Clip(suffix=".nut", codec="ffv1", num_frames=30, planned=False),
    "h264-cavlc-avi": Clip(
        suffix=".avi",
        options={"x264-params": "keyint=2:min-keyint=2:scenecut=0:bframes=0:cabac=0:no-deblock=1:threads=1"},
        planned=False,
    ),
    "h264-raw": Clip(suffix=".h264", options=_X264_CLOSED, planned=False),
    "hevc-raw": Clip(suffix=".hevc", codec="libx265", options={"x265-params": f"{_X265}:open-gop=0"}, planned=False),
    "mjpeg-avi": Clip(suffix=".avi", codec="mjpeg", pix_fmt="yuvj420p", num_frames=30, planned=False),
    "mjpeg-raw": Clip(suffix=".mjpeg", codec="mjpeg", pix_fmt="yuvj420p", num_frames=30, planned=False),
    "mpeg1-ps": Clip(suffix=".mpg", codec="mpeg1video", options=_MPEG4, planned=False),
    "mpeg2-raw": Clip(suffix=".m2v", codec="mpeg2video", options=_MPEG4, planned=False),
    "mpeg2-vob": Clip(suffix=".vob", codec="mpeg2video", options=_MPEG4, planned=False),
    "mpeg2-mxf": Clip(suffix=".mxf", codec="mpeg2video", options=_MPEG4, planned=False),
    "mpeg4-raw": Clip(suffix=".m4v", format="m4v", codec="mpeg4", options=_MPEG4, planned=False),
    "rv20-rm": Clip(suffix=".rm", codec="rv20", width_px=176, height_px=144, options={"g": "12"}, planned=False),
    "vp8-ogg": Clip(suffix=".ogv", codec="libvpx", num_frames=40, options={"g": "12", "cpu-used": "5"}, planned=False),
    "vp8-ivf": Clip(suffix=".ivf", codec="libvpx", num_frames=40, options={"g": "12", "cpu-used": "5"}, planned=False),
    "wmv2-asf": Clip(suffix=".wmv", codec="wmv2", options={"g": "12"}, planned=False),
    "mpeg2-wtv": Clip(suffix=".wtv", codec="mpeg2video", options=_MPEG4, planned=False),
    "av1-obu": Clip(
        suffix=".obu",
        codec="libsvtav1",
        num_frames=40,
        options={"preset": "12", "svtav1-params": "keyint=16:lp=1"},
        planned=False,
    ),
    "h264-3gp": Clip(suffix=".3gp", options=_X264_CLOSED),
    "flv1-flv": Clip(
        suffix=".flv",
        codec="flv",
        options={"g": "12"},
        container_options={"flvflags": "no_duration_filesize"},
        planned=False,
    ),
    "mjpeg-mov": Clip(suffix=".mov", codec="mjpeg", pix_fmt="yuvj420p", num_frames=30, planned=False),
    "y4m": Clip(suffix=".y4m", codec="wrapped_avframe", num_frames=10, planned=False),
}
"""Further containers and codecs, for damage and cuts."""


def picture(index: int, width_px: int, height_px: int) -> npt.NDArray[np.uint8]:
    """Frame `index`: (H, W, 3) uint8 with a bar code, a moving square and noise."""
    noise = np.random.default_rng(index).integers(0, 40, (height_px, width_px, 3))
    pixels = noise.astype(np.uint8)
    left = (index * 3) % (width_px - 16)
    pixels[height_px // 2 : height_px // 2 + 16, left : left + 16] = (200, 60, 120)
    for bit in range(BITS):
        if index >> bit & 1:
            pixels[:8, bit * 8 : bit * 8 + 8] = 255
    return pixels


def code(rgb: npt.NDArray[np.uint8]) -> int:
    """The number that a frame shows."""
    return sum(1 << bit for bit in range(BITS) if rgb[2:6, bit * 8 + 2 : bit * 8 + 6].mean() > 140)


def render(directory: Path, name: str) -> Path:
    """Writes one clip of the table and returns its path; an existing file is used again."""
    clip = CLIPS.get(name) or MORE_CLIPS[name]
    path = directory / f"{name}{clip.suffix}"
    if not path.exists():
        write(path, clip)
    return path


_encoded: dict[str, bytes] = {}


def write(path: Path, clip: Clip) -> None:
    """Encodes a clip, once in a process; everything is seeded and single-threaded."""
    key = f"{path.suffix} {clip!r}"
    if key not in _encoded:
        _encode(path, clip)
        _encoded[key] = path.read_bytes()
    path.write_bytes(_encoded[key])


def _encode(path: Path, clip: Clip) -> None:
    with av.open(str(path), "w", format=clip.format, options=clip.container_options) as container:
        if clip.second_stream:
            small = _stream(container, clip, clip.width_px // 2, clip.height_px // 2)
        stream = _stream(container, clip, clip.width_px, clip.height_px)
        stream.disposition = Disposition.default.value  # FFmpeg prefers it to a larger or earlier stream
        if clip.rotation_degrees:
            stream.set_display_rotation(clip.rotation_degrees)
        if clip.display_matrix is not None:
            stream.set_display_matrix(clip.display_matrix)
        sound = _Sound(container) if clip.sound else None
        for index in range(clip.num_frames):
            if clip.second_stream and index < clip.num_frames - 10:
                container.mux(small.encode(_frame(clip, small, index + 1000)))
            container.mux(stream.encode(_frame(clip, stream, index)))
            if sound is not None:
                sound.write(float((index + 1) / clip.rate))
        if clip.second_stream:
            container.mux(small.encode())
        container.mux(stream.encode())


def damage(source: Path, target: Path, num_damaged: int = 1) -> None:
    """Bytes of the middle replaced so that FFmpeg reports `num_damaged` frames or more and all frames are there.

    Which bytes do that depends on the encoder's build, so it is tried.
    """
    for seed in range(50):
        data = bytearray(source.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 100] = random.Random(seed).randbytes(100)
        target.write_bytes(data)
        with Video(target, keep_damaged=True) as video:
            num_frames = video.scan().num_frames
            found = sum(bool(frame.damage) for _, frame in video.frames(range(num_frames)))
            if found >= num_damaged and num_frames == 60 and not video.scan().lost:
                return
    raise AssertionError("no damage that is noticed")


def write_sound(path: Path) -> None:
    """Half a second of silence: a container without video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        for start in range(0, 8192, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


class _Sound:
    """Noise in a container, written up to the time that its picture has come to."""

    def __init__(self, container: Any) -> None:
        self._container, self._num_samples = container, 0
        self._stream = container.add_stream("aac", rate=44100)
        self._stream.layout = "mono"

    def write(self, end_seconds: float) -> None:
        """Adds whole frames of 1024 samples."""
        while self._num_samples < end_seconds * 44100:
            noise = np.random.default_rng(self._num_samples).normal(0, 0.1, (1, 1024)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, self._num_samples
            self._num_samples += 1024
            self._container.mux(self._stream.encode(frame))


def cut(source: Path, target: Path, num_bytes: int) -> None:
    """Copies the first bytes of a file, as an interrupted download leaves it."""
    target.write_bytes(source.read_bytes()[:num_bytes])


def _stream(container: Any, clip: Clip, width_px: int, height_px: int) -> Any:
    stream = container.add_stream(clip.codec, rate=clip.rate, options=clip.options)
    stream.width, stream.height, stream.pix_fmt = width_px, height_px, clip.pix_fmt
    stream.codec_context.thread_count = 1
    if clip.pixel_aspect is not None:
        stream.codec_context.sample_aspect_ratio = clip.pixel_aspect
    if clip.color_trc is not None:
        stream.codec_context.color_trc = clip.color_trc
    stream.codec_context.time_base = _tick_seconds(clip)
    return stream


def _frame(clip: Clip, stream: Any, index: int) -> Any:
    frame = av.VideoFrame.from_ndarray(picture(index, stream.width, stream.height), format="rgb24")
    frame = frame.reformat(format=clip.pix_fmt)
    frame.pts = clip.ticks[index] if clip.ticks else index % 1000 + clip.first_pts
    frame.time_base = _tick_seconds(clip)
    return frame


def _tick_seconds(clip: Clip) -> Fraction:
    return 1 / (clip.rate * 8) if clip.ticks else 1 / clip.rate
