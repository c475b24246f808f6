"""A trained row of a recipe, and what its runs say: predictions, epochs, errors of its clips."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.examples.splits import effective_groups
from reelbank.heads.judging.evaluation import number
from reelbank.heads.judging.intervals import group_numbers, mean_interval
from reelbank.heads.recipes.recipe import Row

FORMAT_VERSION = 1
SPLITS = {"known": "test", "unknown": "unknown"}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One row after its trainings.

    Attributes:
        row: as the recipe has it, or made from a step.
        runs: its run directories, one per repeat; empty where it failed.
        shared_with: name of an earlier row with the same options, whose runs these are; '' for none.
        step: position of its step, -1 outside stepwise tuning.
        chosen: whether its step kept it.
        error: why it could not be trained; '' if it could.
        not_run: whether `error` is what the stores lack for this row, so that it was not begun.
    """

    row: Row
    runs: tuple[Path, ...]
    shared_with: str = ""
    step: int = -1
    chosen: bool = False
    error: str = ""
    not_run: bool = False


@dataclass(frozen=True, kw_only=True)
class ClipValues:
    """One split of a row, the mean over its repeats: arrays (n,) in the order of predictions.csv."""

    clip_ids: np.ndarray
    groups: np.ndarray
    truth: np.ndarray
    errors: np.ndarray


def read_split(runs: Sequence[Path], split: str) -> ClipValues:
    """Truth and absolute errors, averaged over `runs`, of the clips of `split` that have a target."""
    errors, first = [], None
    for run in runs:
        rows = [row for row in predictions(run) if row["split"] == split and row["target"]]
        truth = np.array([float(row["target"]) for row in rows])
        errors.append(np.abs(np.array([float(row["predicted_target"]) for row in rows]) - truth))
        if first is None:
            ids = [row["clip_id"] for row in rows]
            first = ClipValues(
                clip_ids=np.array(ids, dtype=str),
                groups=effective_groups([row["group"] for row in rows], ids),
                truth=truth,
                errors=np.empty(0),
            )
    assert first is not None
    return ClipValues(
        clip_ids=first.clip_ids, groups=first.groups, truth=first.truth, errors=np.mean(errors, axis=0)
    )  # fmt: skip


def predictions(run: Path) -> list[dict[str, str]]:
    """predictions.csv of a run."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def epochs_of(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def absolute_interval(per_clip: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, float | None]:
    value, low, high = mean_interval(per_clip, group_numbers(groups.tolist()), seed=seed)
    return {"value": number(value), "low": number(low), "high": number(high)}
