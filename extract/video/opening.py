"""Opening a video that a stranger made: local files of known containers, within limits.

FFmpeg's playlist formats (hls, dash, concat, sdp, image sequences) and network protocols would follow what a
file says to other files and hosts. None of them is in the table below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags
from av.stream import Disposition

from reelbank.extract.errors import DecodeError
from reelbank.manifests.files import kind_of

AVI = "avi"
FLV = "flv"
GIF = "gif"
MATROSKA = "matroska,webm"
MOV = "mov,mp4,m4a,3gp,3g2,mj2"
MPEGTS = "mpegts"

# FFmpeg's demuxers for single files that hold their own frames.
FORMATS = (
    "apng",
    "asf",
    AVI,
    "dv",
    "flv",
    GIF,
    "h264",
    "hevc",
    "ivf",
    "m4v",
    MATROSKA,
    "mjpeg",
    MOV,
    "mpeg",
    MPEGTS,
    "mpegvideo",
    "mxf",
    "nut",
    "obu",
    "ogg",
    "rm",
    "wtv",
    "yuv4mpegpipe",
)


def _nobody_listens() -> None:
    """For who has no deadline."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a video may ask of the machine, and whom it tells that its work goes on.

    Attributes:
        frame_px: width x height of one frame; 2^26 is more than 8K x 8K.
        num_frames: frames of the whole file; the default is five days at 30 fps.
        duration_seconds: of the whole file; None is any.
        news: called for every packet and frame that long work gets through: a decoder or a disk that is stuck in one
            call does not call it.
    """

    frame_px: int = 2**26
    num_frames: int = 2**24
    duration_seconds: float | None = None
    news: Callable[[], None] = _nobody_listens

    def check_size(self, path: str | Path, width_px: int, height_px: int) -> None:
        """Raises DecodeError for a frame above the limit."""
        if width_px * height_px > self.frame_px:
            raise DecodeError(path, f"a frame of {width_px} x {height_px} px is above the limit of {self.frame_px} px")

    def check_frames(self, path: str | Path, num_frames: int) -> None:
        """Raises DecodeError for more frames than the limit."""
        if num_frames > self.num_frames:
            raise DecodeError(path, f"more frames than the limit of {self.num_frames}")

    def check_duration(self, path: str | Path, duration_seconds: float) -> None:
        """Raises DecodeError for a longer video than the limit."""
        if self.duration_seconds is not None and duration_seconds > self.duration_seconds:
            raise DecodeError(path, f"{duration_seconds:.6g} s are above the limit of {self.duration_seconds:g} s")


def open_video(path: str | Path, *, stream_index: int | None, limits: Limits) -> tuple[Any, Any]:
    """Opens a local video file with one decoder thread: (container, stream).

    The caller closes the container.

    Raises:
        DecodeError: no such file, not a video of a known container, no video stream, no decoder, too large.
    """
    file = Path(path)
    if not file.is_file():
        raise DecodeError(path, "is a folder" if file.is_dir() else kind_of(file) or "no such file")
    if file.stat().st_size == 0:
        raise DecodeError(path, "the file is empty")
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
    try:
        # The prefix keeps a file name such as `concat:a|b` a file name.
        container = av.open(f"file:{file}", options=options, **text_options(av.__version__))
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = f"not a video file that can be read ({_words(error)}); it is damaged or of another format"
        raise DecodeError(path, reason) from error
    try:
        stream = _choose_stream(path, container, stream_index)
        limits.check_size(path, stream.codec_context.width, stream.codec_context.height)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= Flags.copy_opaque  # a frame tells which packet it was made of
        # An outer bound for frames that grow later in the file: decoders round coded sizes up.
        stream.codec_context.options = {"max_pixels": str(2 * limits.frame_px + 2**16)}
    except BaseException:
        container.close()
        raise
    return container, stream


def text_options(version: str) -> dict[str, Any]:
    """What makes metadata that is no UTF-8 readable: PyAV 19 does it by itself and refuses to be asked."""
    return {"metadata_errors": "replace"} if int(version.partition(".")[0]) < 19 else {}


def _choose_stream(path: str | Path, container: Any, stream_index: int | None) -> Any:
    if stream_index is None:
        stream = container.streams.best("video")
        # A cover picture of a sound file is no video.
        if stream is None or stream.disposition & Disposition.attached_pic:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise DecodeError(path, f"no video stream that can be decoded, found {kinds}")
    else:
        videos = {stream.index: stream for stream in container.streams.video}
        if stream_index not in videos:
            raise DecodeError(path, f"stream {stream_index} is no video stream; these are: {sorted(videos)}")
        stream = videos[stream_index]
    if stream.codec_context is None:
        raise DecodeError(path, f"no decoder for video stream {stream.index}, or its description is damaged")
    return stream


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
