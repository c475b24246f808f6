"""Small cases whose judgement can be worked out by hand: clips in memory, and stores with a planted answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from remembered import write_store

from reelbank.heads import SweepConfig, TrainConfig
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.features import Features
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.examples.splits import Partition, effective_groups
from reelbank.heads.examples.targets import Bins
from reelbank.heads.judging.evaluation import Predictions

BINS = Bins(target="speed", num_bins=11, low=0.0, high=10.0, sigma_bins=1.0)


def config(**options: Any) -> TrainConfig:
    """What a test asks of a training; the only place of these tests that knows how it is written."""
    return TrainConfig.of(**{"store": (Path("s.zarr"),), "head": "mlp", "report": False, "device": "cpu", **options})


def sweep_config(**options: Any) -> SweepConfig:
    """What a test asks of a sweep."""
    return SweepConfig.of(**{"store": (Path("s.zarr"),), "report": False, "device": "cpu", **options})


RUN_CONFIG = {"warning": "", "num_parameters": 1, "notes": [], "stores": [], "data_digest": ""}
"""What config.json of a run holds beside its config."""
_ENDED = {"best_epoch": 1, "epochs_run": 1, "stopped_early": False, "overfit": False}


def run_results(**given: Any) -> dict[str, Any]:
    """results.json of a run: what is given, and the rest of what a run writes."""
    found = {
        "run": "r", "warning": "", "weights_are_random": False, "reported": "test", "selection": {"sentence": ""},
        "counts": {}, "splits": {}, "folds": [], "training": {}, "notes": [], "verdict": "", "target_name": None,
        "target_unit": None, **given,
    }  # fmt: skip
    part = {"num_clips": 1, "num_groups": 1, "metrics": {}, "baselines": {}}
    fold = {**_ENDED, "train": 1, "val": 1, "test": 1, "metrics": {}}
    found["training"] = {**_ENDED, "seconds": 1.0, "num_parameters": 1, **found["training"]}
    found["splits"] = {name: {**part, **own} for name, own in found["splits"].items()}
    found["folds"] = [{**fold, **own} for own in found["folds"]]
    return found


def run_line(**given: Any) -> dict[str, Any]:
    """A line of metrics.jsonl: what is given, and the rest of what a run writes."""
    numbers = dict.fromkeys(("val_loss", "val_accuracy", "val_mae"))
    return {"fold": None, "epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, **numbers, **given}


def clips(
    labels: Sequence[str],
    *,
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    values: Sequence[float] | None = None,
    random_backbones: Sequence[str] = (),
) -> ClipTable:
    """A table of clips c0, c1, ... without features."""
    num = len(labels)
    sources = [
        SimpleNamespace(store=SimpleNamespace(spec=SimpleNamespace(backbone=name), weights_are_random=name != "real"))
        for name in random_backbones
    ]
    return ClipTable(
        sources=tuple(sources),  # type: ignore[arg-type]
        clip_ids=np.array([f"c{i}" for i in range(num)]),
        splits=np.array(splits if splits is not None else ["test"] * num, dtype=str),
        labels=np.array(labels, dtype=str),
        groups=np.array(groups if groups is not None else [""] * num, dtype=str),
        targets={} if values is None else {"speed": np.array(values, dtype=np.float64)},
        rows=(),
        left_out=(),
    )


def prepared(
    table: ClipTable,
    *,
    classes: tuple[str, ...] | None = None,
    bins: Bins | None = None,
    partitions: tuple[Partition, ...] = (),
    notes: tuple[str, ...] = (),
    **options: Any,
) -> Prepared:
    """What judging needs to know of a run; its features are zeros."""
    return Prepared(
        config=config(**options),
        table=table,
        features=Features(
            arrays={"cls": torch.zeros(len(table), 1, 4)},
            mask=torch.ones(len(table), 1, dtype=torch.bool),
            means={"cls": np.zeros((len(table), 4))},
            variances={"cls": np.zeros((len(table), 4))},
            num_steps=np.ones(len(table), dtype=np.int64),
        ),
        groups=effective_groups(table.groups.tolist(), table.clip_ids.tolist()),
        partitions=partitions,
        labels=classes,
        bins=bins,
        notes=notes,
        device=torch.device("cpu"),
        cache=FeatureCache(),
    )


def partition(
    train: Sequence[int] = (),
    val: Sequence[int] = (),
    test: Sequence[int] = (),
    unknown: Sequence[int] = (),
    *,
    fold: int | None = None,
    val_is_reported: bool = False,
) -> Partition:
    """Parts by the positions of their clips."""
    rows = {"train": train, "val": val, "test": test, "unknown": unknown}
    arrays = {name: np.array(sorted(given), dtype=np.int64) for name, given in rows.items()}
    return Partition(fold=fold, val_is_reported=val_is_reported, **arrays)


def predictions(
    rows: Sequence[int], *, split: str = "test", folds: Sequence[int] | None = None, **outputs: Any
) -> Predictions:
    """Predictions of the clips at `rows`; `label` and `target` are probabilities (n, K)."""
    return Predictions(
        split=split,
        rows=np.array(rows, dtype=np.int64),
        folds=np.array([-1] * len(rows) if folds is None else folds, dtype=np.int64),
        probabilities={name: np.asarray(values, dtype=np.float64) for name, values in outputs.items()},
    )


def sure_of(places: Sequence[int], num: int) -> np.ndarray:
    """(n, num) distributions with 0.9 of their mass at `places`, the rest evenly on the others."""
    table = np.full((len(places), num), 0.1 / (num - 1))
    table[np.arange(len(places)), list(places)] = 0.9
    return table


def planted_store(
    path: Path,
    *,
    num: int = 96,
    splits: Sequence[str] = ("train", "train", "train", "val", "test", "unknown"),
    signal: float = 2.0,
    group_size: int = 4,
    seed: int = 0,
    more: Mapping[int, Mapping[str, Any]] | None = None,
    backbone: str = "toy",
) -> Path:
    """A store of 3 classes (a novel one in `unknown`) whose features tell class and kcal, with noise.

    Args:
        splits: of the groups in turns.
        more: {clip: fields of the manifest that it has otherwise}.
    """
    random = np.random.default_rng(seed)
    rows, features = [], []
    for i in range(num):
        kind, group = i % 3, i // group_size
        split = splits[group % len(splits)]
        row = {
            "clip_id": f"c{i:03d}",
            "split": split,
            "label": "novel" if split == "unknown" else f"class {kind}",
            "group": f"s{group}",
            "kcal": 250.0 + 150 * kind + 30 * float(random.normal()),
        }
        rows.append({**row, **(more or {}).get(i, {})})
        steps = random.normal(size=(2 + i % 3, 6))
        steps[:, kind] += signal
        features.append(steps.astype(np.float16))
    write_store(path, {"cls": features}, rows, backbone=backbone)
    return path
