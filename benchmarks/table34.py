"""Projects the time of the whole stepwise recipe (table 3.4) from two epochs, in turns, on features of its real size.

2,476 clips x 160 steps x 1536, RAdam, convolutional aggregation, KLD, batch 4; 9 distinct trainings of 200 epochs. What
is written is measured (seconds of a step) or a PROJECTION (everything in hours), and called so. The peer is the same
model in torch's own layers and optimiser, fed by a DataLoader, one training after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from reelbank.benchmarks.measuring import RESULTS
from reelbank.heads.config import OptimizerConfig
from reelbank.heads.examples.normalization import Normalization
from reelbank.heads.examples.resident import Resident
from reelbank.heads.losses import loss_function
from reelbank.heads.models import HeadShape, build_head
from reelbank.heads.recipes import RECIPES
from reelbank.heads.training.flat import FlatParameters
from reelbank.heads.training.optimization import make_optimizer
from reelbank.store.devices import cpu_threads

CLIPS, STEPS, DIMENSION, BATCH, CLASSES, BINS = 2476, 160, 1536, 4, 27, 1000
STORED = 90  # steps that lie in the store; the 160 are read by index
EPOCHS, TRAININGS = 200, 9


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured: clips held, and steps of each of two epochs."""

    clips: int
    steps: int


SIZES = {"tiny": Size(clips=8, steps=1), "normal": Size(clips=64, steps=16), "full": Size(clips=CLIPS, steps=619)}


class _Clips(Dataset[tuple[torch.Tensor, int]]):
    """One clip per item, gathered to 160 steps: what a plain loader reads."""

    def __init__(self, features: torch.Tensor, index: torch.Tensor) -> None:
        self._features, self._index = features, index

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, int]:
        return self._features[item, self._index].float(), item


def project(scale: str) -> dict[str, Any]:
    """Median seconds of a step of ours and of the peer's over two epochs, and the projections."""
    size = SIZES[scale]
    random = np.random.default_rng(0)
    features = torch.from_numpy(random.standard_normal((size.clips, STORED, DIMENSION), dtype=np.float32)).half()
    starts = [*range(0, 80, 10), 74, 74]
    index = torch.tensor([start + i for start in starts for i in range(16)])
    labels = torch.from_numpy(random.integers(CLASSES, size=size.clips))
    targets = torch.softmax(torch.from_numpy(random.standard_normal((size.clips, BINS), dtype=np.float32)), dim=1)
    with cpu_threads(1):
        torch.manual_seed(0)
        makers = (_our_step, _their_step)
        ours, theirs = _seconds([make(features, index, labels, targets) for make in makers], 2 * size.steps)
    steps = -(-CLIPS // BATCH)
    cores = os.cpu_count() or 1
    hours = {name: seconds * steps * EPOCHS * TRAININGS / 3600 for name, seconds in (("ours", ours), ("peer", theirs))}
    return {
        "what": f"{TRAININGS} trainings x {EPOCHS} epochs x {steps} steps, batch {BATCH}, {STEPS} x {DIMENSION}",
        "rows_of_the_table": RECIPES["calories/table-3.4-stepwise"].num_rows,
        "measured": {"clips": size.clips, "steps_per_epoch": size.steps, "epochs": 2, "seconds_per_step": ours},
        "measured_peer": {"what": "torch's RAdam, DataLoader without workers", "seconds_per_step": theirs},
        "projection": {
            "core_hours": hours["ours"],
            "hours_on_2_cores": hours["ours"] / 2,
            "peer_hours_one_by_one": hours["peer"],
        },
        "machine": {"cores": cores, "torch": torch.__version__, "threads": 1},
        "scale": scale,
    }


def _seconds(steps: Sequence[Callable[[], None]], count: int) -> list[float]:
    """Median seconds of `count` runs of each step, taken in turns, after one that warms up."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(count + 1):
        for step, taken in zip(steps, times, strict=True):
            begun = time.perf_counter()
            step()
            if turn:
                taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in times]


def _loss(logits: dict[str, torch.Tensor], labels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    onehot = torch.nn.functional.one_hot(labels, CLASSES).float()
    return loss_function("ce")(logits["label"], onehot).mean() + loss_function("kld")(logits["target"], targets).mean()


class _PlainModel(torch.nn.Module):
    """Aggregator and evaluator of SYSTEMS.md 1.4 and 1.5 as a program of its own would write them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for width, channels in ((DIMENSION, 512), (512, 256), (256, 128)):
            layers += [torch.nn.Conv1d(width, channels, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool1d(2)]
        self.aggregator = torch.nn.Sequential(
            *layers, torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten(), torch.nn.Linear(128, DIMENSION)
        )
        self.outputs = torch.nn.ModuleDict({"label": _block(CLASSES), "target": _block(BINS)})

    def forward(self, sequence: torch.Tensor) -> dict[str, torch.Tensor]:
        vector = self.aggregator(sequence.transpose(1, 2))
        return {name: block(vector) for name, block in self.outputs.items()}


def _block(num_outputs: int) -> torch.nn.Module:
    sizes = (DIMENSION, 256, 128)
    hidden = [layer for i in range(2) for layer in (torch.nn.Linear(sizes[i], sizes[i + 1]), torch.nn.ReLU())]
    return torch.nn.Sequential(*hidden, torch.nn.Linear(sizes[-1], num_outputs))


def _our_step(
    features: torch.Tensor, index: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
) -> Callable[[], None]:
    head = build_head(
        "conv-aggregation",
        HeadShape(taps={"x": DIMENSION}, outputs={"label": CLASSES, "target": BINS}, num_steps=STEPS),
    )
    resident = Resident(
        arrays={"x": features},
        mask=torch.ones(len(features), STEPS, dtype=torch.bool),
        normalization=Normalization(
            kind="zscore", mean={"x": torch.zeros(DIMENSION)}, scale={"x": torch.ones(DIMENSION)}
        ),
        step_index=index.repeat(len(features), 1),
    )
    flat = FlatParameters(head)
    optimizer = make_optimizer(flat.values, OptimizerConfig(name="radam", lr=1e-4))

    def step() -> None:
        clips = torch.randint(len(features), (BATCH,))
        flat.gradient.zero_()
        logits = head(*resident.inputs(head, clips))
        _loss(logits, labels[clips], targets[clips]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _their_step(
    features: torch.Tensor, index: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
) -> Callable[[], None]:
    torch.manual_seed(0)
    head = _PlainModel()
    optimizer = torch.optim.RAdam(head.parameters(), lr=1e-4, weight_decay=1e-5)
    loader = DataLoader(_Clips(features, index), batch_size=BATCH, shuffle=True, drop_last=True)
    state = {"batches": iter(loader)}

    def step() -> None:
        try:
            batch, clips = next(state["batches"])
        except StopIteration:
            state["batches"] = iter(loader)
            batch, clips = next(state["batches"])
        optimizer.zero_grad()
        _loss(head(batch), labels[clips], targets[clips]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def main() -> None:
    """Writes table34.json and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=sorted(SIZES), default="normal", help="how much is measured")
    parser.add_argument("--out", type=Path, default=RESULTS / "projections", help="folder of the JSON file")
    arguments = parser.parse_args()
    result = project(arguments.scale)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1)
    (arguments.out / "table34.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
