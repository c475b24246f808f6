"""Frames of a video that torchcodec decodes on a GPU (NVDEC): other pixels than FFmpeg's, so a spec of their own.

Which frames there are, their times and the file's soundness are those of our own scan; every frame that comes back is
held against the time of the one that was asked for. What a GPU's decoder does not say is what it found damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reelbank.extract.errors import DecodeError, ExtractionError
from reelbank.extract.video.decode import Indices, Video
from reelbank.extract.video.frame import Frame, frame_of_rgb
from reelbank.extract.video.scan import VideoScan
from reelbank.store.devices import is_out_of_memory

DECODER = "torchcodec-cuda"
"""As a spec names it."""
FRAMES_AT_ONCE = 16
WORKERS = 4
"""Processes by default: each holds a context of the GPU, and a card has one to seven decoders."""
SAME_SECONDS = 1e-4


class DeviceVideo(Video):
    """A `Video` whose frames are decoded on `device`. Pictures are read as ever."""

    def __init__(self, path: str | Path, *, device: str, **options: Any) -> None:
        """Opens nothing yet; `options` are those of `Video`."""
        super().__init__(path, **options)
        self._device = device

    def _frames_of(self, scan: VideoScan, wanted: Indices) -> Iterator[tuple[int, Frame]]:
        if scan.pictures or len(wanted) == 0:
            yield from super()._frames_of(scan, wanted)
            return
        if scan.plan is None:
            raise DecodeError(
                self.path, "its frames can only be told apart by decoding it from the start; leave out --decode cuda"
            )
        if scan.is_mirrored:
            raise DecodeError(
                self.path,
                "its pictures are shown mirrored, which the GPU's decoder does not do; leave out --decode cuda",
            )
        if self._stream is None:
            self._reopen()
        times = scan.plan.pts[scan.plan.position_of] * float(self._stream.time_base)
        decoder = self._open(scan)
        for start in range(0, len(wanted), FRAMES_AT_ONCE):
            indices = wanted[start : start + FRAMES_AT_ONCE].tolist()
            found = self._decoded(decoder, indices)
            if decoder.cpu_fallback:
                raise DecodeError(self.path, f"the GPU does not decode this {scan.codec}; leave out --decode cuda")
            self.cost.frames_decoded += len(indices)
            shape = (scan.height_px, scan.width_px, 3)
            pixels = found.data.cpu().numpy()
            for index, seconds, frame in zip(indices, found.pts_seconds.tolist(), pixels, strict=True):
                if abs(seconds - times[index]) > SAME_SECONDS or frame.shape != shape:
                    what = f"a frame of {seconds:.6g} s and {frame.shape}, not of {times[index]:.6g} s and {shape}"
                    raise DecodeError(self.path, f"the GPU's decoder gives {what}; leave out --decode cuda", index)
                yield index, self._kept(index, frame_of_rgb(frame, scan.damaged.get(index, ""), self._aspect))

    def _open(self, scan: VideoScan) -> Any:
        from torchcodec.decoders import VideoDecoder

        try:
            return VideoDecoder(self.path, stream_index=scan.stream_index, dimension_order="NHWC", device=self._device)
        except (RuntimeError, ValueError) as error:
            raise self._said(error, None) from error

    def _decoded(self, decoder: Any, indices: list[int]) -> Any:
        try:
            return decoder.get_frames_at(indices)
        except (IndexError, RuntimeError, ValueError) as error:
            raise self._said(error, indices[0]) from error

    def _said(self, error: Exception, index: int | None) -> Exception:
        if is_out_of_memory(error):
            return ExtractionError(f"no memory on {self._device} for another decoder; ask for fewer --workers")
        lines = str(error).splitlines()
        return DecodeError(self.path, f"the GPU's decoder: {lines[0] if lines else type(error).__name__}", index)


def check_decoder(device: str) -> None:
    """Raises ExtractionError unless videos can be decoded on `device`, saying what is missing."""
    if not device.startswith("cuda"):
        raise ExtractionError(f"--decode cuda: this run is on {device}; it needs a GPU of NVIDIA (--device cuda)")
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        lines = str(error).splitlines()
        raise ExtractionError(
            f"--decode cuda needs torchcodec with CUDA and FFmpeg's shared libraries ({lines[0] if lines else error}); "
            "pip install torchcodec, or leave it out"
        ) from error
