"""Training a head: an epoch from the store against a DataLoader that reads one zarr clip per item.

MLP 1536-256-128-(27 + 1000), two cross-entropies, Adam, batch 4. Our epoch is the `seconds` of the run's own
metrics.jsonl, validation included; the peer's is its training steps alone, on some of the clips and multiplied.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.benchmarks.measuring import Stage, Timing, main
from reelbank.benchmarks.store import DIMENSION, NUM_LABELS, TAP, prepare
from reelbank.heads import TrainConfig, train_head
from reelbank.store.devices import cpu_threads
from reelbank.store.processes import START_METHOD, import_ahead

BATCH, NUM_BINS = 4, 1000


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured; the peer reads `peer_clips` of the training clips."""

    clips: int
    epochs: int
    peer_clips: int
    repeats: int


SIZES = {
    "tiny": Size(clips=54, epochs=2, peer_clips=8, repeats=1),
    "normal": Size(clips=600, epochs=5, peer_clips=160, repeats=3),
    "full": Size(clips=2476, epochs=5, peer_clips=1980, repeats=5),
}


def measure(scale: str, work: Path) -> Stage:
    """The epoch rows."""
    size, stage = SIZES[scale], Stage()
    store = prepare(work, size.clips).store
    stage.inputs["features"] = {"clips": size.clips, "dimension": DIMENSION, "dtype": "float16"}
    ours: list[float] = []
    theirs: list[float] = []
    workers: list[float] = []
    with cpu_threads(2):
        for _ in range(size.repeats):
            seconds, num_train = _our_epoch(store, work / "train-run", size.epochs)
            ours.append(seconds)
            factor = num_train / size.peer_clips
            theirs.append(_their_epoch(store, size.peer_clips, num_workers=0) * factor)
            workers.append(_their_epoch(store, size.peer_clips, num_workers=2) * factor)
    what = f"epoch of {num_train} clips, batch {BATCH}, MLP"
    note = f"peer scaled down: {size.peer_clips} of {num_train} clips"
    best = min((theirs, workers), key=lambda values: float(np.median(values)))
    stage.compare(
        "train.epoch", what, Timing(seconds=tuple(ours)),
        "DataLoader, one zarr clip per item, better of 0 and 2 workers", Timing(seconds=tuple(best)), ">= 7", note,
    )  # fmt: skip
    return stage


def _our_epoch(store: Path, run: Path, epochs: int) -> tuple[float, int]:
    """(median seconds of an epoch, training clips)."""
    shutil.rmtree(run, ignore_errors=True)
    config = TrainConfig.of(
        store=(store,), run=run, head="mlp", trunk="shared", loss="ce", bins=NUM_BINS, batch=BATCH, epochs=epochs,
        early_stop_epochs=0, report=False, device="cpu",
    )  # fmt: skip
    result = train_head(config)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    shutil.rmtree(run)
    return float(np.median([json.loads(line)["seconds"] for line in lines])), int(result.results["counts"]["train"])


def naive_model() -> Any:
    """The same head in plain torch: (trunk, class output, target output)."""
    from torch import nn

    trunk = nn.Sequential(nn.Linear(DIMENSION, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
    return nn.ModuleList([trunk, nn.Linear(128, NUM_LABELS), nn.Linear(128, NUM_BINS)])


def naive_step(model: Any, optimizer: Any) -> Callable[[Any, Any, Any], None]:
    """One training step on features (B, D), labels (B,) and bins (B,)."""
    from torch.nn.functional import cross_entropy

    trunk, classes, bins = model

    def step(features: Any, labels: Any, targets: Any) -> None:
        hidden = trunk(features)
        loss: Any = cross_entropy(classes(hidden), labels) + cross_entropy(bins(hidden), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


class ZarrClips:
    """A torch dataset that reads the steps of one clip per item and takes their mean."""

    def __init__(self, store: Path, clips: int) -> None:
        self._store, self._clips = store, clips
        self._array: Any = None

    def __len__(self) -> int:
        return self._clips

    def __getitem__(self, row: int) -> tuple[npt.NDArray[np.float32], int, int]:
        import zarr

        if self._array is None:
            self._array = zarr.open_array(self._store / "features" / TAP, mode="r")
        return np.asarray(self._array[row, 0]).astype(np.float32).mean(0), row % NUM_LABELS, row * 997 % NUM_BINS


def _their_epoch(store: Path, clips: int, num_workers: int) -> float:
    import torch
    from torch.utils.data import DataLoader

    model = naive_model()
    step = naive_step(model, torch.optim.Adam(model.parameters(), lr=1e-3))
    context = None
    if num_workers:
        # Workers that are forked from this process and zarr's threads can deadlock.
        import_ahead(("torch",))
        context = multiprocessing.get_context(START_METHOD)  # torch wants one of the standard library
    data: Any = ZarrClips(store, clips)
    loader: Any = DataLoader(data, BATCH, shuffle=True, num_workers=num_workers, multiprocessing_context=context,
                             persistent_workers=num_workers > 0)  # fmt: skip
    if num_workers:
        for _ in loader:  # the start of spawned workers is not charged
            pass
    started = time.perf_counter()
    for features, labels, targets in loader:
        step(features, labels, targets)
    return time.perf_counter() - started


if __name__ == "__main__":
    main("train", measure, __doc__)
