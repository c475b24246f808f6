"""On a GPU: extraction against the bare model, and a stacked sweep against one training after another.

Forward rates in bf16 against the same model fed with device-resident random tensors of the same batch: from
pre-decoded uint8 in host memory, and from video files through `featurize`. Without a GPU every row is skipped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.benchmarks.decode import ours as decode_all
from reelbank.benchmarks.measuring import Stage, interleaved, main
from reelbank.benchmarks.rendering import properties, render
from reelbank.benchmarks.sweep import GRID, vector_store
from reelbank.benchmarks.train import NUM_BINS
from reelbank.extract import FeaturizeConfig, backbones
from reelbank.extract import featurize as run_featurize
from reelbank.heads import SweepConfig, sweep
from reelbank.store.cores import available_cores

MODELS = ("dinov2", "dinov2:vitl14", "clip", "googlenet")
NUM_STEPS = 16
CLIPS = {"tiny": 4, "normal": 400, "full": 4000}
PASSES = {"tiny": 2, "normal": 40, "full": 200}
SWEEP_CLIPS = {"tiny": 54, "normal": 2476, "full": 2476}

NO_GPU = "no CUDA device"
LIMIT = "the lower of the cores' decode rate and the bare model's"
ONE_BY_ONE = "the same members one after another on the GPU"


def measure(scale: str, work: Path) -> Stage:
    """All GPU rows."""
    import torch

    stage = Stage()
    if not torch.cuda.is_available():
        for model in MODELS:
            stage.skip(f"gpu.forward.{model}", "pre-decoded uint8 to features, bf16", "bare model", NO_GPU, ">= 0.90")
            stage.skip(f"gpu.files.{model}", "video files to features, bf16", LIMIT, NO_GPU, ">= 0.85")
        for batch, target in ((4, ">= 20"), (256, None)):
            stage.skip(f"gpu.sweep.{batch}", f"36 x 3 members, batch {batch}", ONE_BY_ONE, NO_GPU, target)
        return stage
    stage.machine = {"gpu": torch.cuda.get_device_name(), "gpu_memory_gib": _memory_gib()}
    clip = render(work, "mpeg4-avi")
    stage.inputs["mpeg4-avi"] = properties(clip)
    started = time.perf_counter()
    decoded = sum(len(decode_all(clip, NUM_STEPS, "exact")) for _ in range(20))
    decode_rate = available_cores() * decoded / (time.perf_counter() - started)
    for model in MODELS:
        _model(stage, work / "gpu", model, clip, scale, decode_rate)
    for batch, target in ((4, ">= 20"), (256, None)):
        _sweep(stage, work, batch, target, scale)
    return stage


def _memory_gib() -> float:
    import torch

    return round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)


def _model(stage: Stage, folder: Path, model: str, clip: Path, scale: str, decode_rate: float) -> None:
    import torch

    backbone: Any = backbones.build(model, weights="random", seed=0, device="cuda:0", precision="bf16")
    batch = int(backbone.default_batch)
    frames = np.random.default_rng(0).integers(0, 255, (batch, *backbone.info.frames_shape), dtype=np.uint8)
    resident = backbone.normalise(frames)
    passes = PASSES[scale]

    def bare() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            for _ in range(passes):
                backbone.architecture.run(backbone.module, resident, frozenset(backbone.info.default_taps))
        torch.cuda.synchronize()

    def fed() -> None:
        for _ in range(passes):
            backbone.forward(frames)

    times = interleaved({"bare": bare, "fed": fed}, 5)
    rate = passes * batch / times["bare"].median
    share = times["bare"].median / times["fed"].median
    note = f"bare {rate:.0f} frames/s, batch {batch}"
    stage.quality(
        f"gpu.forward.{model}", "pre-decoded uint8 to features, share of", share, "bare model", ">= 0.90", note
    )
    _files(stage, folder, model, clip, CLIPS[scale], decode_rate, rate)


def _files(stage: Stage, folder: Path, model: str, clip: Path, num_clips: int, decode_rate: float, rate: float) -> None:
    """The public call, from files; the workers' start is in its time."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.csv"
    lines = [f"c{i:05d},{clip.resolve()},train,x" for i in range(num_clips)]
    manifest.write_text("\n".join(["clip_id,video,split,label", *lines]) + "\n")
    out = folder / "features.zarr"
    shutil.rmtree(out, ignore_errors=True)
    report = run_featurize(
        FeaturizeConfig(
            model=(model,), manifest=manifest, root=Path("/"), weights="random", out=str(out), precision="bf16",
            device="cuda:0",
        )
    )  # fmt: skip
    reached = num_clips * NUM_STEPS / report.extract_seconds
    limit = min(decode_rate, rate)
    note = f"{reached:.0f} frames/s; cores decode {decode_rate:.0f}, bare model {rate:.0f}"
    stage.quality(f"gpu.files.{model}", "video files to features, share of", reached / limit, LIMIT, ">= 0.85", note)
    shutil.rmtree(folder)


def _sweep(stage: Stage, work: Path, batch: int, target: str | None, scale: str) -> None:
    """One epoch of 36 configurations x 3 seeds; the peer trains 4 of them and is multiplied."""
    store = vector_store(work, SWEEP_CLIPS[scale])
    config = SweepConfig.of(
        store=(store,), head="mlp", trunk="shared", loss="ce", bins=NUM_BINS, batch=batch, epochs=5,
        early_stop_epochs=0, report=False, device="cuda:0", sweep=GRID, repeats=3, executor="stacked",
    )  # fmt: skip
    few = config.but(sweep=("lr=1e-3,3e-4,1e-4,3e-5",), repeats=1, executor="processes", workers=1)

    def run(this: SweepConfig) -> None:
        folder = work / "gpu-sweep"
        shutil.rmtree(folder, ignore_errors=True)
        sweep(this.but(run=folder))

    actions: dict[str, Callable[[], Any]] = {"stacked": lambda: run(config), "single": lambda: run(few)}
    times = interleaved(actions, 1 if scale == "tiny" else 2)
    one_by_one = times["single"].median * 108 / 4
    note = "peer scaled down: 4 of 108 members"
    stage.compare(
        f"gpu.sweep.{batch}", f"36 x 3 members, batch {batch}, 5 epochs", times["stacked"].median, ONE_BY_ONE,
        one_by_one, target, note,
    )  # fmt: skip


if __name__ == "__main__":
    main("gpu", measure, __doc__)
