"""What `--precision bf16` and `--resize fast` change: 1 - cosine of each step's features to fp32 and exact.

Frames of a rendered clip of 640x360, default tap of every image backbone: `lite` with its trained weights, the others
with seeded random ones, whose cosines are others than a trained network's. The worst of all steps is given, because the
mean hides what one bad frame does. `docs/evidence.py precision` asks the same of real clips and of the heads on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.benchmarks.measuring import Stage, main
from reelbank.benchmarks.rendering import properties, render

MODELS = {
    "tiny": ("lite", "resnet18"),
    "normal": ("clip", "dinov2", "googlenet", "lite", "resnet18", "resnet34", "resnet50"),
    "full": ("clip", "clip:rn50", "dinov2", "dinov2:vitb14", "googlenet", "lite", "resnet18", "resnet34", "resnet50"),
}
TRAINED = ("lite",)
NUM_FRAMES = 8
BF16_TARGET = "<= 0.01"


def measure(scale: str, work: Path) -> Stage:
    """Two rows per backbone."""
    from reelbank.extract import backbones

    stage = Stage()
    clip = render(work, "h264-10s", num_frames=NUM_FRAMES * 4)
    stage.inputs["h264-10s"] = properties(clip)
    for model in MODELS[scale]:
        weights = "pretrained" if model in TRAINED else "random"
        fp32 = backbones.build(model, weights=weights, device="cpu")
        bf16 = backbones.build(model, weights=weights, device="cpu", precision="bf16")
        frames = _frames(clip, fp32.preprocess, "exact")
        tap = fp32.default_taps[0]
        reference = fp32.forward(frames)[tap]
        what = f"{model} `{tap}`{' (trained)' if model in TRAINED else ''}: 1 - lowest cosine"
        distance = _largest_distance(reference, bf16.forward(frames)[tap])
        stage.quality(f"precision.{model}.bf16", f"{what}, --precision bf16", distance, "fp32", BF16_TARGET)
        distance = _largest_distance(reference, fp32.forward(_frames(clip, fp32.preprocess, "fast"))[tap])
        stage.quality(f"precision.{model}.fast", f"{what}, --resize fast", distance, "exact", None)
    return stage


def _frames(clip: Path, preprocess: Any, resize: str) -> npt.NDArray[np.uint8]:
    """Every fourth frame (N, H, W, 3) as the network reads it."""
    from reelbank.extract.inputs.preprocess import make
    from reelbank.extract.video.decode import Video

    prepare = make(preprocess, resize)
    with Video(clip) as video:
        return np.stack([prepare(frame) for _, frame in video.frames(np.arange(NUM_FRAMES) * 4)])


def _largest_distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """1 - cosine, of the rows of a and b (N, D)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(1 - ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


if __name__ == "__main__":
    main("precision", measure, __doc__)
