"""Networks from scratch on stored frames: what a store brings over decoding, and what reading it block by block costs.

Clips are a few rendered AVI files in HMDB51's size (320 x 240), again and again under other names; of each the 16
frames around its middle at 112 px, as the study of HMDB51 reads them. Both sides of an epoch train the same head.
"""

from __future__ import annotations

import shutil
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.benchmarks.egocentric import NUM_VAL, trainer_of, write_maps
from reelbank.benchmarks.measuring import Stage, interleaved, main
from reelbank.benchmarks.rendering import properties, render
from reelbank.extract.inputs.preprocess import Preprocess, make
from reelbank.extract.video.decode import Video
from reelbank.store.devices import cpu_threads

VIDEO = "mpeg4-avi"
SIDE_PX = 112
PREPROCESS = Preprocess(short_side_px=SIDE_PX, interpolation="bilinear", crop_px=SIDE_PX)
HEAD: dict[str, Any] = {"head": "cnn-lstm", "head_option": ()}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        videos, frames: rendered videos, and the frames of each.
        steps: frames of a clip that are read.
        fed: clips of an epoch that is read or decoded, in batches of `batch`.
        streamed: clips of an epoch that is trained, with half of their bytes as memory, `step` of them in a step.
    """

    videos: int
    frames: int
    steps: int
    fed: int
    streamed: int
    batch: int
    step: int
    repeats: int


SIZES = {
    "tiny": Size(videos=2, frames=20, steps=2, fed=4, streamed=64, batch=2, step=2, repeats=1),
    "normal": Size(videos=8, frames=90, steps=16, fed=64, streamed=32, batch=8, step=1, repeats=3),
    "full": Size(videos=16, frames=90, steps=16, fed=256, streamed=512, batch=8, step=8, repeats=5),
}


def measure(scale: str, work: Path) -> Stage:
    """All rows."""
    size, stage, folder = SIZES[scale], Stage(), work / "hmdb51"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    videos = [render(work, VIDEO, num_frames=size.frames, seed=seed) for seed in range(size.videos)]
    stage.inputs = {f"video {i}": properties(path) for i, path in enumerate(videos)}
    stage.inputs["clips"] = {"steps": size.steps, "side_px": SIDE_PX, "fed": size.fed, "streamed": size.streamed}
    pictures = np.stack([decoded(path, size.steps) for path in videos])
    with cpu_threads(1):
        _feed(stage, folder, videos, pictures, size)
        _streamed(stage, folder, pictures, size)
    shutil.rmtree(folder)
    return stage


def decoded(path: Path, steps: int) -> npt.NDArray[np.uint8]:
    """The frames around the middle of a video, (T, 112, 112, 3), by the fast way of resizing."""
    apply = make(PREPROCESS, "fast")
    with Video(path) as video:
        first = max(0, video.scan().num_frames // 2 - steps // 2)
        return np.stack([apply(frame) for _, frame in video.frames(np.arange(first, first + steps))])


def _store(folder: Path, pictures: npt.NDArray[np.uint8], clips: int) -> Path:
    path = folder / f"frames-{clips}.zarr"
    return path if path.exists() else write_maps(path, "rgb", pictures, clips, backbone="frames:112")


def _feed(stage: Stage, folder: Path, videos: list[Path], pictures: npt.NDArray[np.uint8], size: Size) -> None:
    """An epoch of batches as the head reads them, against decoding the frames."""
    import torch

    prepared, _ = trainer_of(_store(folder, pictures, size.fed), "1", size.batch, **HEAD)
    held: Any = prepared.resident(np.arange(size.fed))
    batches = replace(held, held=None, budget=2**30)  # read anew, though all of it would fit
    order = torch.randperm(size.fed)
    clips = [videos[i % len(videos)] for i in range(size.fed)]
    times = interleaved(
        {
            "store": lambda: deque(batches.batches(order, size.batch), maxlen=0),
            "video": lambda: [decoded(path, size.steps) for path in clips],
        },
        size.repeats,
    )
    stage.compare(
        "hmdb51.feed", f"an epoch of {size.fed} clips of {size.steps} frames of {SIDE_PX} px read from the store",
        times["store"], "decoding the frames (fast resize)", times["video"], ">= 10",
        f"one thread; {size.fed * pictures[0].nbytes / 1e6:.0f} MB",
    )  # fmt: skip


def _streamed(stage: Stage, folder: Path, pictures: npt.NDArray[np.uint8], size: Size) -> None:
    """An epoch of training that is read in blocks, against one that is held."""
    store = _store(folder, pictures, size.streamed)
    whole = (size.streamed + NUM_VAL) * pictures[0].nbytes
    limits = whole / 2, 1.1 * whole
    read, held = (trainer_of(store, "1", size.step, memory=limit / 1e9, **HEAD)[1] for limit in limits)
    assert read.job.resident.held is None and held.job.resident.held is not None
    times = interleaved({"read": read.run_epoch, "held": held.run_epoch}, size.repeats, warm=size.repeats > 1)
    stage.compare(
        "hmdb51.streamed", f"an epoch of cnn-lstm on {size.streamed} clips, read in blocks", times["read"],
        "the same held in memory", times["held"], ">= 0.8",
        f"one thread, batch {size.step}, {whole / 1e6:.0f} MB, of which half may be held",
    )  # fmt: skip


if __name__ == "__main__":
    main("hmdb51", measure, __doc__)
