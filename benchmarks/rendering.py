"""The clips that the benchmarks decode, rendered with PyAV: a moving texture, moving discs and film grain.

Grain and motion are set so that H.264 at CRF 23 needs about what camera footage needs (about 1 Mbit/s at 640x360).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

SCENE_FRAMES = 250
GRAIN_LEVELS = 4.5


@dataclass(frozen=True, kw_only=True)
class ClipKind:
    """How one kind of clip is encoded.

    Attributes:
        gop: most frames from one keyframe to the next.
    """

    suffix: str
    codec: str
    width_px: int
    height_px: int
    num_frames: int
    rate_fps: int
    gop: int
    options: tuple[tuple[str, str], ...] = ()


KINDS: dict[str, ClipKind] = {
    "h264-10s": ClipKind(
        suffix=".mp4", codec="libx264", width_px=640, height_px=360, num_frames=300, rate_fps=30, gop=250,
        options=(("crf", "23"), ("preset", "medium")),
    ),
    "h264-60s": ClipKind(
        suffix=".mp4", codec="libx264", width_px=640, height_px=360, num_frames=1800, rate_fps=30, gop=250,
        options=(("crf", "23"), ("preset", "medium")),
    ),
    "mpeg4-avi": ClipKind(
        suffix=".avi", codec="mpeg4", width_px=320, height_px=240, num_frames=90, rate_fps=30, gop=12,
        options=(("b", "600000"),),
    ),
}  # fmt: skip


def render(work: Path, name: str, *, num_frames: int | None = None, seed: int = 0) -> Path:
    """The clip `name` of `KINDS` in `work`, rendered unless it is there; `num_frames` shortens it."""
    kind = KINDS[name]
    frames = num_frames or kind.num_frames
    path = work / f"{name}-{frames}-{seed}{kind.suffix}"
    if path.exists():
        return path
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    with av.open(str(partial), "w") as container:
        stream: Any = container.add_stream(kind.codec, rate=kind.rate_fps, options=dict(kind.options))
        stream.width, stream.height, stream.pix_fmt = kind.width_px, kind.height_px, "yuv420p"
        stream.codec_context.gop_size = kind.gop
        for pixels in pictures(kind.width_px, kind.height_px, frames, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    partial.replace(path)
    return path


def repeated(path: Path, times: int) -> Path:
    """The packets of a clip without B-frames in an AVI, or of any in an MP4, `times` one after another."""
    target = path.with_name(f"{path.stem}-x{times}{path.suffix}")
    if target.exists():
        return target
    partial = path.with_name(f"partial-{os.getpid()}-{target.name}")
    with av.open(str(partial), "w") as out:
        stream, offset, end = None, 0, 0
        for _ in range(times):
            with av.open(str(path)) as container:
                source = container.streams.video[0]
                stream = stream or out.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, offset + packet.pts + (packet.duration or 1))
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    out.mux(packet)
            offset = end
    partial.replace(target)
    return target


def pictures(width_px: int, height_px: int, num_frames: int, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames (H, W, 3): every `SCENE_FRAMES` frames another scene, as cuts in real clips are."""
    grain = [
        np.random.default_rng((seed, i)).normal(0, GRAIN_LEVELS, (height_px, width_px, 1)).astype(np.float32)
        for i in range(8)
    ]
    rows, columns = np.mgrid[:height_px, :width_px]
    for number in range(num_frames):
        scene, time = divmod(number, SCENE_FRAMES)
        if time == 0:
            generator = np.random.default_rng((seed, scene, 9))
            texture = _texture(generator, height_px + SCENE_FRAMES, width_px + 2 * SCENE_FRAMES)
            speed = generator.uniform(0.2, 1.5, 2)
            discs = [
                (generator.uniform(0, 1, 2), generator.uniform(-0.004, 0.004, 2), generator.uniform(0.05, 0.15),
                 generator.integers(0, 255, 3))
                for _ in range(5)
            ]  # fmt: skip
        top, left = int(time * speed[0]) % SCENE_FRAMES, int(time * speed[1])
        picture = texture[top : top + height_px, left : left + width_px].copy()
        for start, velocity, radius, color in discs:
            y, x = (start + time * velocity) % 1.0 * (height_px, width_px)
            picture[(rows - y) ** 2 + (columns - x) ** 2 < (radius * height_px) ** 2] = color
        yield (picture + grain[number % 8]).clip(0, 255).astype(np.uint8)


def properties(path: Path) -> dict[str, Any]:
    """What a results file says about a clip."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        keyframes = [i for i, packet in enumerate(container.demux(stream)) if packet.is_keyframe and packet.size]
        count = stream.frames
        return {
            "codec": stream.codec_context.name,
            "gop": int(np.diff(keyframes).max()) if len(keyframes) > 1 else count,
            "width_px": stream.codec_context.width,
            "height_px": stream.codec_context.height,
            "frames": count,
            "kbit_per_second": round(path.stat().st_size * 8 / 1000 / (count / float(stream.average_rate or 1))),
        }


def _texture(generator: np.random.Generator, height_px: int, width_px: int) -> npt.NDArray[np.float32]:
    """Noise of several scales, stronger where coarser, as natural pictures have it."""
    total = np.full((height_px, width_px, 3), 110.0, np.float32)
    for cell, amplitude in ((64, 45.0), (16, 22.0), (4, 9.0)):
        coarse = generator.normal(0, amplitude, (-(-height_px // cell) + 1, -(-width_px // cell) + 1, 3))
        total += _enlarged(coarse.astype(np.float32), cell)[:height_px, :width_px]
    return total


def _enlarged(coarse: npt.NDArray[np.float32], cell: int) -> npt.NDArray[np.float32]:
    """Bilinear enlargement by `cell`."""
    for axis in (0, 1):
        size = (coarse.shape[axis] - 1) * cell
        places = np.arange(size) / cell
        low = places.astype(int)
        weight = (places - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        coarse = coarse.take(low, axis) * (1 - weight) + coarse.take(low + 1, axis) * weight
    return coarse
