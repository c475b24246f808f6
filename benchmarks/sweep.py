"""`train-head --sweep`: 36 configurations against the same trainings one after another in plain torch.

MLP 1536-256-128-(27 + 1000), batch 4, features resident on both sides. Ours is the wall time of the public call
with everything in it: worker processes, validation, a run directory per member. The peers are bare training loops
without validation, of some members, multiplied; they train on the same softened labels. `sweep.epochs` says how much of
ours is epochs.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reelbank.benchmarks.measuring import Stage, Timing, main
from reelbank.benchmarks.store import DIMENSION, NUM_LABELS, TAP
from reelbank.benchmarks.train import BATCH, NUM_BINS, naive_model, naive_step
from reelbank.heads import ObjectiveConfig, SweepConfig, sweep
from reelbank.heads.examples.targets import Bins
from reelbank.store.cores import available_cores
from reelbank.store.devices import cpu_threads
from reelbank.store.testing import write_store

GRID = ("lr=1e-3,3e-4,1e-4", "weight_decay=0,1e-5,1e-4", "eps=1e-8,1e-7,1e-6,1e-5")
NUM_MEMBERS = 36


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured; peers do `peer_steps` of the steps of one member."""

    clips: int
    epochs: int
    grid: tuple[str, ...]
    members: int
    peer_steps: int
    repeats: int


SIZES = {
    "tiny": Size(clips=54, epochs=1, grid=("lr=1e-3,1e-4",), members=2, peer_steps=4, repeats=1),
    "normal": Size(clips=2476, epochs=4, grid=GRID, members=NUM_MEMBERS, peer_steps=1000, repeats=1),
    "full": Size(clips=2476, epochs=20, grid=GRID, members=NUM_MEMBERS, peer_steps=9900, repeats=3),
}


def measure(scale: str, work: Path) -> Stage:
    """The sweep rows."""
    size, stage = SIZES[scale], Stage()
    store = vector_store(work, size.clips)
    stage.inputs["features"] = {"clips": size.clips, "dimension": DIMENSION, "dtype": "float16"}
    kinds = [("default", 2), ("fused", 2), ("default", 1), ("fused", 1)]
    peers: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
    ours: list[float] = []
    epochs: list[float] = []
    for _ in range(size.repeats):
        seconds, in_epochs, num_train = _ours(store, work / "sweep-run", size)
        ours.append(seconds)
        epochs.append(in_epochs)
        steps = -(-num_train // BATCH) * size.epochs * size.members
        for (kind, threads), found in peers.items():
            found.append(_per_step(kind, threads, size.peer_steps) * steps)
    times = {key: Timing(seconds=tuple(values)) for key, values in peers.items()}
    what = f"{size.members} configurations, batch {BATCH}, {size.epochs} epochs of {num_train} clips"
    note = f"peer scaled down: {size.peer_steps} of {steps} steps"
    mine = Timing(seconds=tuple(ours))
    stage.compare(
        "sweep.default", what, mine, "one after another, torch's default Adam, 2 threads", times["default", 2],
        ">= 2.8", note,
    )  # fmt: skip
    best = min(times, key=lambda key: times[key].median)
    stage.compare(
        "sweep.best", what, mine, f"one after another, best of default and fused Adam with 1 and 2 threads "
        f"({best[0]}, {best[1]})", times[best], ">= 1.8", note,
    )  # fmt: skip
    stage.compare(
        "sweep.epochs", f"{what}: epochs alone, validation among them, per process", Timing(seconds=tuple(epochs)),
        "the whole sweep", mine,
    )  # fmt: skip
    return stage


def _ours(store: Path, run: Path, size: Size) -> tuple[float, float, int]:
    """(wall seconds, seconds of the epochs of all members divided by the processes, training clips)."""
    shutil.rmtree(run, ignore_errors=True)
    config = SweepConfig.of(
        store=(store,), run=run, head="mlp", trunk="shared", loss="ce", bins=NUM_BINS, batch=BATCH, epochs=size.epochs,
        early_stop_epochs=0, report=False, device="cpu", sweep=size.grid,
    )  # fmt: skip
    started = time.perf_counter()
    sweep(config)
    seconds = time.perf_counter() - started
    lines = [line for log in run.glob("members/*/metrics.jsonl") for line in log.read_text().splitlines()]
    in_epochs = sum(json.loads(line)["seconds"] for line in lines) / min(available_cores(), size.members)
    shutil.rmtree(run)
    return seconds, in_epochs, round(size.clips * 0.8)


def _per_step(kind: str, threads: int, steps: int) -> float:
    """Seconds of one naive step on resident features."""
    import torch

    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2048, DIMENSION, generator=generator)
    labels = torch.randint(NUM_LABELS, (2048,), generator=generator)
    sigma = ObjectiveConfig().sigma
    bins = Bins(target="kcal", num_bins=NUM_BINS, low=0.0, high=NUM_BINS, sigma_bins=sigma, labels="soft")
    values = torch.rand(2048, generator=generator, dtype=torch.float64) * NUM_BINS
    targets = torch.from_numpy(bins.distributions(values.numpy())).float()
    model = naive_model()
    step = naive_step(model, torch.optim.Adam(model.parameters(), lr=1e-3, fused=kind == "fused"))
    with cpu_threads(threads):
        order = torch.randint(2048, (steps, BATCH), generator=generator)
        started = time.perf_counter()
        for index in order:
            step(features[index], labels[index], targets[index])
        return (time.perf_counter() - started) / steps


def vector_store(work: Path, clips: int) -> Path:
    """A store of one step per clip; heads read its means."""
    path = work / f"vectors-{clips}.zarr"
    if not (path / "complete").exists():
        shutil.rmtree(path, ignore_errors=True)
        generator = np.random.default_rng(0)
        arrays = [generator.normal(size=(1, DIMENSION)).astype(np.float16) for _ in range(clips)]
        about = [
            {"clip_id": f"c{row}", "label": str(row % NUM_LABELS), "split": "train", "kcal": row * 997 % 1000.0}
            for row in range(clips)
        ]
        write_store(path, {TAP: arrays}, about, fixed_steps=1)
        (path / "complete").touch()
    return path


if __name__ == "__main__":
    main("sweep", measure, __doc__)
