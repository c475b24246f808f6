"""The k-means recipe: clusters of the mean vectors, read as calorie values in four ways (SYSTEMS.md 1.14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import reelbank.store
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.judging import baselines
from reelbank.heads.probes.cluster_reading import read_target, target_readings
from reelbank.heads.probes.kmeans import Clustering, kmeans
from reelbank.heads.probes.rows import ProbeRows, load_rows
from reelbank.heads.recipes.measures import Clips
from reelbank.heads.recipes.options import Asked
from reelbank.heads.recipes.recipe import Recipe
from reelbank.heads.recipes.rows import Predicted
from reelbank.manifests.events import Event, Progress

NUM_CLUSTERS, N_INIT, MAX_ITER, SEED = 1000, 30, 2000, 123
PUBLISHED_CLIPS = 2476
"""Training clips of the publication: 2.5 per cluster, which smaller sets keep."""


def read_clusters(
    asked: Asked, recipe: Recipe, prepared: Prepared, progress: Progress | None = None
) -> tuple[dict[str, Predicted], dict[str, Any]]:
    """Clusters the training clips, puts each other clip into its nearest cluster and reads the target from that.

    Returns:
        what each reading predicts, and what else recipe.json has (`judging.Reader`).

    Raises:
        TrainingError: fewer than two training clips.
    """
    assert prepared.bins is not None
    store = reelbank.store.open(asked.stores[0])
    rows = load_rows(
        store,
        tap=asked.taps[0] if asked.taps else store.default_tap,
        level="clip",
        view=asked.view,
        normalize=asked.normalize,
        label_column=asked.label if asked.label != "none" else "label",
        target_column=prepared.bins.target,
    )
    train = np.flatnonzero(rows.splits == "train")
    if len(train) < 2:
        raise TrainingError(f"--recipe {recipe.name} needs at least 2 training clips, found {len(train)}")
    count = min(NUM_CLUSTERS, max(2, round(len(train) * NUM_CLUSTERS / PUBLISHED_CLIPS)))
    fitted = kmeans(rows.vectors[train], count, n_init=N_INIT, max_iter=MAX_ITER, seed=SEED)
    clusters = _assigned(rows, train, fitted)
    if progress is not None:
        progress(Event(stage="recipe", done=1, total=1, message=f"{count} clusters of {len(train)} clips"))
    splits = {part.name: part.split for part in recipe.study.parts}
    said: dict[str, dict[str, tuple[Clips, ...]]] = {row.name: {} for row in recipe.rows}
    guesses, readings = {}, {}
    read = read_target(rows, clusters, seed=asked.seed)["parts"]
    for part, split in splits.items():
        own = _with_target(rows, split)
        found = target_readings(rows, clusters, _with_target(rows, "train"), own, seed=asked.seed)[0]
        for name, values in found.items():
            said[name][part] = (_clips(rows, own, split, values),)
        shown = {"truth": _target(rows)[own], **found}
        readings[part] = {name: np.round(values, 3).tolist() for name, values in shown.items()}
        guesses[part] = {
            **_guesses(read[split]["baselines"]),
            "label_marginal": baselines.label_marginal(prepared.bins, _target(rows)[train], _target(rows)[own]),
        }
    header = {
        "warning": prepared.warning,
        "target": {"name": prepared.bins.target, "unit": prepared.bins.unit},
        "counts": {split: int((rows.splits == split).sum()) for split in ("train", "val", "test", "unknown")},
        "baselines": guesses,
        "readings": readings,
        "notes": [
            f"{count} clusters of {len(train)} training clips"
            + ("" if count == NUM_CLUSTERS else f" (2.5 clips per cluster, as {NUM_CLUSTERS} of {PUBLISHED_CLIPS})")
            + f"; k-means saw training clips only; normalisation {asked.normalize}; random_state {SEED}, n_init "
            f"{N_INIT}.",
            *(["The means are those over the stored steps: --segments is not used."] if asked.segments else []),
            *rows.notes,
        ],
    }
    return {name: Predicted(clips=parts, metrics={}) for name, parts in said.items()}, header


def _clips(rows: ProbeRows, own: np.ndarray, split: str, values: np.ndarray) -> Clips:
    """One reading of the rows `own` (n,) as predicted clips."""
    return Clips(
        columns={
            "clip_id": rows.clip_ids[own],
            "split": np.full(len(own), split),
            "group": rows.groups[own],
            "label": rows.labels[own],
            "target": _target(rows)[own],
            "predicted_target": values,
            "correct": np.full(len(own), ""),
            "predicted": np.full(len(own), ""),
        }
    )


def _target(rows: ProbeRows) -> np.ndarray:
    """The target of every row, float64."""
    assert rows.target is not None
    return rows.target


def _with_target(rows: ProbeRows, split: str) -> np.ndarray:
    found: np.ndarray = np.flatnonzero((rows.splits == split) & np.isfinite(_target(rows)))
    return found


def _assigned(rows: ProbeRows, train: np.ndarray, fitted: Clustering) -> Clustering:
    """The clusters of the training rows with every other row in its nearest one."""
    labels = fitted.assign(rows.vectors)
    labels[train] = fitted.labels
    return replace(fitted, labels=labels, counts=np.bincount(labels, minlength=len(fitted.counts)))


def _guesses(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"mae": value} for name, value in values.items()}
