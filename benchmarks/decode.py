"""Decoding: 16 frames of a clip and all frames, resized and cropped, on one thread.

Peers: torchcodec (approximate seek, one FFmpeg thread, torchvision's antialiased resize in batches of 32) and the
ffmpeg command with the same scale and crop filters. Both sides end with uint8 RGB of short side 256, cropped to 224.
Rows are of `--resize fast`; what `exact` costs stands beside them, and what `pil` costs against `exact`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.benchmarks.measuring import Stage, interleaved, main, peer
from reelbank.benchmarks.rendering import properties, render
from reelbank.extract.inputs.preprocess import Preprocess, make
from reelbank.extract.run.allocator import keep_freed_memory
from reelbank.extract.video.decode import Video
from reelbank.store.devices import cpu_threads
from reelbank.store.processes import import_ahead, worker_context

Pixels = npt.NDArray[np.uint8]

PREPROCESS = Preprocess(short_side_px=256, crop_px=224, interpolation="bilinear")
NUM_SPARSE = 16
PEER_BATCH = 32

SPARSE_TARGET, ALL_TARGET, FFMPEG_TARGET, WORKERS_TARGET = "<= 0.70", "<= 0.75", "<= 0.80", ">= 1.7"

# scale -> (frames of each clip, repeats of short actions, repeats of long ones)
FRAMES = {
    "tiny": {"h264-10s": 20, "h264-60s": 24, "mpeg4-avi": 8},
    "normal": {"h264-10s": 300, "h264-60s": 1800, "mpeg4-avi": 90},
    "full": {"h264-10s": 300, "h264-60s": 1800, "mpeg4-avi": 90},
}
REPEATS = {"tiny": (1, 1), "normal": (7, 3), "full": (15, 7)}


def measure(scale: str, work: Path) -> Stage:
    """All decode rows."""
    stage = Stage()
    short, long = REPEATS[scale]
    clips = {name: render(work, name, num_frames=count) for name, count in FRAMES[scale].items()}
    stage.inputs |= {name: properties(path) for name, path in clips.items()}
    with cpu_threads(1):
        for name in ("h264-10s", "h264-60s"):
            _sparse(stage, name, clips[name], short if name == "h264-10s" else long + 2)
        for name, path in clips.items():
            _all_frames(stage, name, path, long if name == "h264-60s" else short)
        _against_ffmpeg(stage, clips["h264-60s"], long)
    _workers(stage, clips, scale, long)
    return stage


def ours(path: Path, count: int | None, resize: str = "fast") -> Pixels:
    """`count` evenly spaced frames (None: all) as (n, 224, 224, 3)."""
    apply = make(PREPROCESS, resize)
    with Video(path) as video:
        total = video.scan().num_frames
        wanted = np.arange(total) if count is None else spaced(total, count)
        out = np.empty((len(wanted), 224, 224, 3), np.uint8)
        for i, (_, frame) in enumerate(video.frames(wanted)):
            out[i] = apply(frame)
    return out


def spaced(total: int, count: int) -> npt.NDArray[np.int64]:
    """Indices of `uniform:count`."""
    return np.floor(np.linspace(0, total - 1, count)).astype(np.int64)


def with_torchcodec(decoders: Any, path: Path, count: int | None) -> Pixels:
    """The same by torchcodec."""
    decoder = decoders.VideoDecoder(str(path), seek_mode="approximate", num_ffmpeg_threads=1, dimension_order="NCHW")
    total = decoder.metadata.num_frames
    wanted = np.arange(total) if count is None else spaced(total, count)
    out = np.empty((len(wanted), 224, 224, 3), np.uint8)
    for start in range(0, len(wanted), PEER_BATCH):
        part = wanted[start : start + PEER_BATCH]
        if count is None:
            frames = decoder.get_frames_in_range(int(part[0]), int(part[-1]) + 1).data
        else:
            frames = decoder.get_frames_at(part.tolist()).data
        out[start : start + len(part)] = _resized(frames)
    return out


def _resized(frames: Any) -> Pixels:
    """torchvision's antialiased bilinear resize of uint8 (B, 3, H, W) and its centre crop: (B, 224, 224, 3)."""
    import torch

    height, width = PREPROCESS.resized_size(*frames.shape[2:])
    resized = torch.nn.functional.interpolate(
        frames, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    top, left = round((height - 224) / 2.0), round((width - 224) / 2.0)
    pixels: Pixels = resized[:, :, top : top + 224, left : left + 224].permute(0, 2, 3, 1).numpy()
    return pixels


def _sparse(stage: Stage, name: str, path: Path, repeats: int) -> None:
    _check_pixel_equal(path)
    actions: dict[str, Callable[[], Any]] = {
        "fast": lambda: ours(path, NUM_SPARSE),
        "exact": lambda: ours(path, NUM_SPARSE, "exact"),
    }
    torchcodec, why = _torchcodec()
    if torchcodec:
        actions["torchcodec"] = lambda: with_torchcodec(torchcodec, path, NUM_SPARSE)
    times = interleaved(actions, repeats)
    measure, against = f"16 evenly spaced frames of {name}, pixel-equal, 1 thread", "torchcodec approximate, 1 thread"
    for resize, target in (("fast", SPARSE_TARGET), ("exact", None)):
        id = f"decode.sparse.{name}" + ("" if resize == "fast" else ".exact")
        if torchcodec:
            stage.compare(id, f"{measure}, --resize {resize}", times[resize], against, times["torchcodec"], target)
        else:
            stage.skip(id, measure, against, why, target)


def _all_frames(stage: Stage, name: str, path: Path, repeats: int) -> None:
    actions: dict[str, Callable[[], Any]] = {
        "fast": lambda: ours(path, None),
        "exact": lambda: ours(path, None, "exact"),
        "pil": lambda: ours(path, None, "pil"),
    }
    torchcodec, why = _torchcodec()
    if torchcodec:
        try:
            with_torchcodec(torchcodec, path, None)
            actions["torchcodec"] = lambda: with_torchcodec(torchcodec, path, None)
        except RuntimeError as error:
            torchcodec, why = None, f"torchcodec cannot read it ({str(error).splitlines()[0]})"
    times = interleaved(actions, repeats)
    measure, against = f"all frames of {name}, resize and crop, 1 thread", "torchcodec approximate + torchvision resize"
    stage.compare(f"decode.all.{name}.pil", f"{measure}, --resize pil", times["pil"], "exact", times["exact"], None)
    for resize, target in (("fast", ALL_TARGET), ("exact", None)):
        id = f"decode.all.{name}" + ("" if resize == "fast" else ".exact")
        if torchcodec:
            stage.compare(id, f"{measure}, --resize {resize}", times[resize], against, times["torchcodec"], target)
        else:
            stage.skip(id, measure, against, why, target)


def _against_ffmpeg(stage: Stage, path: Path, repeats: int) -> None:
    id, measure = "decode.all.ffmpeg", "all frames of h264-60s with resize, crop and RGB, 1 thread"
    against = "ffmpeg command, same filters, 1 thread"
    program = shutil.which("ffmpeg")
    if program is None:
        stage.skip(id, measure, against, "there is no ffmpeg command", FFMPEG_TARGET)
        return
    command = [
        program, "-v", "error", "-threads", "1", "-i", str(path), "-filter_threads", "1",
        "-vf", "scale=455:256:flags=bilinear,crop=224:224:116:16", "-pix_fmt", "rgb24", "-f", "rawvideo", os.devnull,
        "-y",
    ]  # fmt: skip
    times = interleaved(
        {"ours": lambda: ours(path, None), "ffmpeg": lambda: subprocess.run(command, check=True)},
        repeats,
        warm=False,  # both clips and codes ran above
    )
    stage.compare(id, measure, times["ours"], against, times["ffmpeg"], FFMPEG_TARGET)


def _workers(stage: Stage, clips: dict[str, Path], scale: str, repeats: int) -> None:
    """Processes that are already running: their start is a cost of a run, not of a clip."""
    id, measure = "decode.workers", "2 worker processes over clips, all frames"
    if len(os.sched_getaffinity(0)) < 2:
        stage.skip(id, measure, "1 worker process", "one core only", WORKERS_TARGET)
        return
    share = 1 if scale == "tiny" else 4
    jobs = [clips["mpeg4-avi"]] * 2 * share + [clips["h264-10s"]] * share
    import_ahead(("torch",))
    context = worker_context()
    with context.Pool(1, _one_thread) as one, context.Pool(2, _one_thread) as two:
        times = interleaved({"two": lambda: _over(two, jobs), "one": lambda: _over(one, jobs)}, repeats + 2)
    stage.compare(id, measure, times["two"], "1 worker process", times["one"], WORKERS_TARGET)


def _over(pool: Any, jobs: Sequence[Path]) -> int:
    return sum(pool.imap_unordered(_num_decoded, jobs, chunksize=1))


def _num_decoded(path: Path) -> int:
    return len(ours(path, None))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()  # as the workers of featurize; the peers of the other rows would profit from it too


def _check_pixel_equal(path: Path) -> None:
    """The frames of the GOP plan are those of a sequential decode."""
    import av

    with Video(path) as video:
        planned = dict(video.frames(spaced(video.scan().num_frames, NUM_SPARSE)))
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in planned and not np.array_equal(frame.to_ndarray(format="rgb24"), planned[index].rgb):
                    raise AssertionError(f"{path}: frame {index} of the plan differs from a sequential decode")


def _torchcodec() -> tuple[Any, str]:
    decoders, why = peer("torchcodec.decoders")
    return decoders, why


if __name__ == "__main__":
    main("decode", measure, __doc__)
