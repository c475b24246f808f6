"""A trained row of a recipe, and what its runs say: predictions, metrics, epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.errors import TrainingError
from reelbank.heads.recipes.measures import Clips
from reelbank.heads.recipes.recipe import RecipeRow
from reelbank.heads.recipes.study import Study
from reelbank.heads.stored import read_epochs, read_json, read_results, read_table

FORMAT_VERSION = 3
KEPT, CHOSEN = "predictions.csv", "predictions-best-epoch.csv"


@dataclass(frozen=True, kw_only=True)
class TrainedRow:
    """One row after its trainings.

    Attributes:
        row: as the recipe has it, or made from a step.
        runs: its run directories, one per repeat; empty where it failed.
        settings: what it was trained with (`options.settings_of`).
        shared_with: name of an earlier row with the same options, whose runs these are; '' for none.
        step: position of its step, -1 outside stepwise tuning.
        chosen: whether its step kept it.
        error: why it could not be trained; '' if it could.
        not_run: whether `error` is what the stores lack for this row, so that it was not begun.
        left_out: whether the short form leaves it out, which is no error.
    """

    row: RecipeRow
    runs: tuple[Path, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    shared_with: str = ""
    step: int = -1
    chosen: bool = False
    error: str = ""
    not_run: bool = False
    left_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a row predicts, once per repeat.

    Attributes:
        clips: {part: clips of every repeat}.
        metrics: {part: {metric: {value, low, high}} of every repeat}: the metrics of results.json; empty where nothing
            was trained.
        folds: {metric: value} of every fold of every repeat; empty without folds.
        num_groups: {part: number of groups}.
    """

    clips: Mapping[str, Sequence[Clips]]
    metrics: Mapping[str, Sequence[Mapping[str, Mapping[str, Any]]]]
    folds: Sequence[Sequence[Mapping[str, float | None]]] = ()

    @property
    def num_groups(self) -> dict[str, int]:
        """{part: number of groups of its clips}."""
        return {name: len(np.unique(clips[0].groups)) for name, clips in self.clips.items()}


def predicted(study: Study, runs: Sequence[Path], *, at_chosen_epoch: bool = False, by_clip: bool = False) -> Predicted:
    """What the runs of a row predict with the weights they keep, or with those of the epoch chosen on validation.

    Args:
        by_clip: each clip is a group of its own, so that intervals are over clips.
    """
    finished = [read_results(run) for run in runs]
    entries = [results["at_best_epoch"] if at_chosen_epoch else results for results in finished]
    parts = {
        part.name: part.split
        for part in study.parts
        if part.is_needed or all(part.split in entry["splits"] for entry in entries)
    }
    return Predicted(
        clips={
            name: tuple(
                clips.but(group="") if by_clip else clips
                for clips in (read_clips(run, split, at_chosen_epoch=at_chosen_epoch) for run in runs)
            )
            for name, split in parts.items()
        },
        metrics={
            name: tuple(entry["splits"].get(split, {}).get("metrics", {}) for entry in entries)
            for name, split in parts.items()
        },
        folds=tuple([fold["metrics"] for fold in entry["folds"]] for entry in entries),
    )


def read_clips(run: Path, split: str, *, at_chosen_epoch: bool = False) -> Clips:
    """The predicted clips of a split. Raises TrainingError where there are none."""
    path = run / (CHOSEN if at_chosen_epoch else KEPT)
    names, found = read_table(path, ("clip_id", "split", "group"))
    rows = [row for row in found if row["split"] == split]
    if not rows:
        raise TrainingError(f"{path} has no clip of split {split!r}")
    return Clips.of(rows, names)


def epochs_of(run: Path) -> list[list[dict[str, Any]]]:
    """metrics.jsonl of a run: its lines, fold by fold; one list without folds."""
    folds: dict[int | None, list[dict[str, Any]]] = {}
    for entry in read_epochs(run / "metrics.jsonl"):
        folds.setdefault(entry["fold"], []).append(entry)
    return list(folds.values())


def trainings_of(run: Path) -> list[dict[str, Any]]:
    """{epochs_run, best_epoch, overfit, ...} of a run: one for each fold, one without folds."""
    results = read_results(run)
    return list(results["folds"]) or [results["training"]]


def read_recipe(directory: Path) -> dict[str, Any]:
    """recipe.json of a finished recipe. Raises TrainingError if it is missing or of another version."""
    data = read_json(directory / "recipe.json")
    if data.get("format_version") != FORMAT_VERSION:
        raise TrainingError(
            f"{directory / 'recipe.json'} has format {data.get('format_version')}, this version reads "
            f"{FORMAT_VERSION}: train the recipe again"
        )
    return data
