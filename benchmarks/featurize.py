"""`featurize` against the bare forward pass of the same frames, and against the naive way to write it.

Short clips (320x240 MPEG-4 avi, 16 frames each), random weights, fp32. The limit is the network alone: frames
already decoded, batches of 16, two threads. The naive way is cv2 for every frame, a PIL transform per frame, one
batch per video in contiguous fp32. The wall time of `featurize` has its start-up in it (workers that import torch).
Many intervals of one long file are laid beside one plain pass over it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from reelbank.benchmarks.measuring import Stage, Timing, interleaved, main
from reelbank.benchmarks.rendering import properties, render, repeated
from reelbank.extract import FeaturizeConfig
from reelbank.extract import featurize as run_featurize

NUM_STEPS = 16
NUM_FILES = 12
FILE_FRAMES = 90
THREADS = 2
INTERVAL_SHARE = 2 / 15
"""Of the time from the start of one interval to that of the next: 2 of 15 s in ten minutes with 40."""
LONG = {"mpeg4-avi": (1800, 10), "h264-60s": (1800, 10)}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done.

    Attributes:
        clips: per model.
        naive_clips: that the naive way does (multiplied).
        repeats: of each action.
        num_intervals: of each long file.
        long_files: {kind of clip: (its frames, how often they are repeated)}.
    """

    clips: dict[str, int]
    naive_clips: int
    repeats: int
    num_intervals: int
    long_files: dict[str, tuple[int, int]]


SIZES = {
    "tiny": Size(
        clips={"googlenet": 2},
        naive_clips=1,
        repeats=1,
        num_intervals=4,
        long_files={"mpeg4-avi": (24, 3), "h264-60s": (24, 3)},
    ),
    "normal": Size(clips={"googlenet": 64, "dinov2": 20}, naive_clips=8, repeats=2, num_intervals=40, long_files=LONG),
    "full": Size(clips={"googlenet": 240, "dinov2": 96}, naive_clips=240, repeats=3, num_intervals=40, long_files=LONG),
}


def measure(scale: str, work: Path) -> Stage:
    """All featurize rows."""
    size, stage = SIZES[scale], Stage()
    num_files = min(NUM_FILES, max(size.clips.values()))
    files = [render(work, "mpeg4-avi", num_frames=FILE_FRAMES, seed=seed) for seed in range(num_files)]
    stage.inputs["mpeg4-avi"] = properties(files[0]) | {"files": num_files}
    for model, clips in size.clips.items():
        _one_model(stage, work / "featurize", model, [files[i % num_files] for i in range(clips)], size)
    for name, (frames, times) in size.long_files.items():
        path = repeated(render(work, name, num_frames=frames), times)
        stage.inputs[f"{name} x {times}"] = properties(path)
        _intervals(stage, work / "featurize", path, size)
    return stage


def _intervals(stage: Stage, folder: Path, path: Path, size: Size) -> None:
    """`frames:112` has no network: what is measured is hashing, scanning, decoding and writing 4 frames of each."""
    with av.open(str(path)) as container:
        assert container.duration is not None
        step = container.duration / av.time_base / size.num_intervals
    intervals = [(i * step, (i + INTERVAL_SHARE) * step) for i in range(size.num_intervals)]
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "intervals.csv"
    lines = [f"c{i:04d},{path.resolve()},train,x,{a:.6f},{b:.6f}" for i, (a, b) in enumerate(intervals)]
    manifest.write_text("\n".join(["clip_id,video,split,label,start_seconds,end_seconds", *lines]) + "\n")
    reports: list[Any] = []

    def ours() -> None:
        reports.append(_featurize(folder, "frames:112", manifest, sampling=("uniform:4",), workers=1))

    actions: dict[str, Callable[[], Any]] = {"ours": ours, "pass": lambda: _one_pass(path)}
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is not None:
        actions["ffmpeg"] = lambda: [_seek(ffmpeg, path, start, end) for start, end in intervals]
    times = interleaved(actions, size.repeats, warm=False)
    spent = Timing(seconds=tuple(report.extract_seconds for report in reports))
    suffix, count = path.suffix[1:], size.num_intervals
    measure = f"{count} intervals of one {suffix}, featurize frames:112, 4 frames each, 1 worker, after its start-up"
    note = f"{reports[-1].tally.frames_decoded} frames decoded"
    stage.compare(
        f"featurize.intervals.{suffix}", measure, spent, "one pass of plain PyAV over all frames, 1 thread",
        times["pass"], "<= 3.0" if suffix == "avi" else "<= 1.0", note,
    )  # fmt: skip
    id, against = f"featurize.intervals.{suffix}.ffmpeg", "ffmpeg -ss for each interval, all its frames, 1 thread"
    if ffmpeg is None:
        stage.skip(id, measure, against, "there is no ffmpeg command")
    else:
        stage.compare(id, measure, spent, against, times["ffmpeg"])
    shutil.rmtree(folder, ignore_errors=True)


def _one_pass(path: Path) -> int:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return sum(1 for _ in container.decode(stream))


def _seek(ffmpeg: str, path: Path, start: float, end: float) -> None:
    command = [ffmpeg, "-v", "error", "-nostdin", "-threads", "1", "-ss", f"{start:.6f}", "-i", str(path)]
    subprocess.run([*command, "-t", f"{end - start:.6f}", "-f", "null", "-"], check=True)


def _one_model(stage: Stage, folder: Path, model: str, clips: list[Path], size: Size) -> None:
    import torch

    from reelbank.extract import backbones

    backbone: Any = backbones.build(model, weights="random", seed=0, device="cpu", precision="fp32")
    frames = np.concatenate([_frames(backbone.preprocess, clip) for clip in clips])
    manifest = _manifest(folder, clips)
    reports: list[Any] = []

    def ours() -> None:
        reports.append(_featurize(folder, model, manifest))

    def forward() -> None:
        torch.set_num_threads(THREADS)
        for start in range(0, len(frames), NUM_STEPS):
            backbone.forward(frames[start : start + NUM_STEPS])

    with_naive = model == "googlenet"
    collected: list[npt.NDArray[np.float32]] = []

    def naive() -> None:
        torch.set_num_threads(THREADS)
        collected[:] = _naive(backbone, clips[: size.naive_clips])

    actions = {"ours": ours, "forward": forward} | ({"naive": naive} if with_naive else {})
    times = interleaved(actions, size.repeats, warm=False)
    starting = float(np.median([report.wall_seconds - report.extract_seconds for report in reports]))
    tally = reports[-1].tally
    stages = ", ".join(
        f"{name} {getattr(tally, f'{name}_seconds'):.1f}" for name in ("decode", "prepare", "forward", "write")
    )
    note = f"{len(clips)} clips; {starting:.1f} s before the first worker starts; worker seconds: {stages}"
    stage.compare(
        f"featurize.{model}.forward", f"featurize {model}, {len(clips)} clips of 320x240, 16 frames", times["ours"],
        f"pure forward of the same frames, {THREADS} threads, pre-decoded", times["forward"], "<= 1.00", note,
    )  # fmt: skip
    if with_naive:
        factor = len(clips) / size.naive_clips
        by_naive = Timing(seconds=tuple(value * factor for value in times["naive"].seconds))
        stage.compare(
            f"featurize.{model}.naive", "the same", times["ours"],
            "naive: cv2, PIL transform per frame, batch per video, fp32 contiguous", by_naive, ">= 2.2",
            "" if factor == 1 else f"peer scaled down: {size.naive_clips} of {len(clips)} clips",
        )  # fmt: skip
        stage.quality(
            f"featurize.{model}.cosine", "lowest cosine between the features of a step of either way",
            _lowest_cosine(folder, model, collected), "naive", ">= 0.999",
        )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)


def _featurize(folder: Path, model: str, manifest: Path, **options: Any) -> Any:
    out = folder / f"{model.replace(':', '-')}.zarr"
    shutil.rmtree(out, ignore_errors=True)
    config = FeaturizeConfig(
        model=(model,), manifest=manifest, root=Path("/"), weights="random", out=str(out), **options
    )
    report = run_featurize(config)
    if report.stores[0].failures:
        raise AssertionError(report.stores[0].failures)
    return report


def _manifest(folder: Path, clips: list[Path]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.csv"
    lines = [f"c{i:04d},{clip.resolve()},train,x" for i, clip in enumerate(clips)]
    path.write_text("\n".join(["clip_id,video,split,label", *lines]) + "\n")
    return path


def _frames(preprocess: Any, clip: Path) -> npt.NDArray[np.uint8]:
    """The sampled frames (16, H, W, 3), as the network reads them."""
    from reelbank.extract.inputs.preprocess import make
    from reelbank.extract.video.decode import Video

    apply = make(preprocess)
    with Video(clip) as video:
        wanted = np.floor(np.linspace(0, video.scan().num_frames - 1, NUM_STEPS)).astype(np.int64)
        return np.stack([apply(frame) for _, frame in video.frames(wanted)])


def _naive(backbone: Any, clips: list[Path]) -> list[npt.NDArray[np.float32]]:
    """Features (16, D) per clip, the way a first script does it."""
    import cv2
    import torch
    from PIL import Image

    preprocess = backbone.preprocess
    resampling = Image.Resampling[preprocess.interpolation.upper()]
    module = backbone.module.to(memory_format=torch.contiguous_format)
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (backbone.architecture.mean, backbone.architecture.std)
    )
    features = []
    try:
        for clip in clips:
            capture, pictures = cv2.VideoCapture(str(clip)), []
            while True:
                good, picture = capture.read()
                if not good:
                    break
                pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            capture.release()
            tensors = []
            for index in np.floor(np.linspace(0, len(pictures) - 1, NUM_STEPS)).astype(int):
                image = Image.fromarray(pictures[index])
                height, width = preprocess.resized_size(image.height, image.width)
                image = image.resize((width, height), resampling)
                top, left = round((height - 224) / 2.0), round((width - 224) / 2.0)
                image = image.crop((left, top, left + 224, top + 224))
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
                tensors.append((pixels - mean) / std)
            with torch.inference_mode():
                taps = backbone.architecture.run(module, torch.stack(tensors), frozenset({"pool"}))
            features.append(taps["pool"].numpy())
    finally:
        backbone.module.to(memory_format=torch.channels_last)
    return features


def _lowest_cosine(folder: Path, model: str, naive: list[npt.NDArray[np.float32]]) -> float:
    import reelbank.store

    store = reelbank.store.open(folder / f"{model}.zarr")
    a = np.concatenate([store.read(store.default_tap, row)[0] for row in range(len(naive))]).astype(np.float64)
    b = np.concatenate(naive).astype(np.float64)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


if __name__ == "__main__":
    main("featurize", measure, __doc__)
