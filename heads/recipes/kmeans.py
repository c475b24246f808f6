"""The k-means recipe: clusters of the mean vectors, read as calorie values in three ways (SYSTEMS.md 1.14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

import reelbank.store
from reelbank.heads.errors import TrainingError
from reelbank.heads.events import Event, Progress
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.judging import baselines
from reelbank.heads.judging.evaluation import random_weights_warning
from reelbank.heads.probes.cluster_reading import read_target, target_readings
from reelbank.heads.probes.kmeans import Clustering, kmeans
from reelbank.heads.probes.rows import ProbeRows, load_rows
from reelbank.heads.recipes import Recipe
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.recipes.judging import about, beside_constant, class_entries, sentences
from reelbank.heads.recipes.rows import FORMAT_VERSION, SPLITS, absolute_interval

NUM_CLUSTERS, N_INIT, MAX_ITER, SEED = 1000, 30, 2000, 123
PUBLISHED_CLIPS = 2476
"""Training clips of the publication: 2.5 per cluster, which smaller sets keep."""


def read_clusters(
    config: RecipeConfig, recipe: Recipe, prepared: Prepared, progress: Progress | None = None
) -> dict[str, Any]:
    """Clusters the training clips, puts each other clip into its nearest cluster and reads the target from that.

    Returns:
        the content of recipe.json, as `reelbank.heads.recipes.judging.summarize` gives it, with `kind` kmeans and
        `readings` {known, unknown: {truth, <row>: one value per clip}}.

    Raises:
        TrainingError: fewer than two training clips.
    """
    assert prepared.bins is not None
    assert prepared.target_values is not None
    features, seed = config.train.features, config.train.seed
    store = reelbank.store.open(config.train.data.store[0])
    rows = load_rows(
        store,
        tap=features.tap[0] if features.tap else store.default_tap,
        level="clip",
        view=features.view,
        normalize=features.normalize,
        label_column=config.train.data.label if config.train.data.label != "none" else "label",
        target_column=prepared.bins.target,
    )
    train = np.flatnonzero(rows.splits == "train")
    if len(train) < 2:
        raise TrainingError(f"--recipe {recipe.name} needs at least 2 training clips, found {len(train)}")
    count = min(NUM_CLUSTERS, max(2, round(len(train) * NUM_CLUSTERS / PUBLISHED_CLIPS)))
    fitted = kmeans(rows.vectors[train], count, n_init=N_INIT, max_iter=MAX_ITER, seed=SEED)
    clusters = _assigned(rows, train, fitted)
    read = read_target(rows, clusters, seed=seed)["parts"]
    if progress is not None:
        progress(Event(stage="recipe", done=1, total=1, message=f"{count} clusters of {len(train)} clips"))
    constant = float(np.median(rows.target[train])) if rows.target is not None else 0.0
    intervals, guesses, readings, against = {}, {}, {}, {}
    members = {part: _with_target(rows, split) for part, split in SPLITS.items()}
    for part, split in SPLITS.items():
        own = members[part]
        truth = prepared_target(rows)[own]
        found = target_readings(rows, clusters, _with_target(rows, "train"), own)[0]
        readings[part] = {"truth": truth, **found}
        against[part] = {
            name: absolute_interval(np.abs(values - truth) - np.abs(truth - constant), rows.groups[own], seed)
            for name, values in found.items()
        }
        intervals[part] = absolute_interval(np.abs(truth - constant), rows.groups[own], seed)
        guesses[part] = {**_guesses(read[split]["baselines"])}
        guesses[part]["label_marginal"] = baselines.label_marginal(prepared.bins, prepared_target(rows)[train], truth)
    entries = [
        _entry(row.name, dict(row.cells), asdict(row.published), read, intervals, against) for row in recipe.rows
    ]
    best = min(entries, key=lambda entry: entry["ours"]["mae_known"]["value"])
    notes = [
        *recipe.notes,
        f"{count} clusters of {len(train)} training clips"
        + ("" if count == NUM_CLUSTERS else f" (2.5 clips per cluster, as {NUM_CLUSTERS} of {PUBLISHED_CLIPS})")
        + f"; k-means saw training clips only; normalisation {features.normalize}; random_state {SEED}, "
        + f"n_init {N_INIT}.",
        *(["The means are those over the stored steps: --segments is not used."] if features.segment_rule() else []),
        *rows.notes,
    ]
    data = {
        "format_version": FORMAT_VERSION,
        "kind": "kmeans",
        **about(config, recipe, warning=random_weights_warning(prepared)),
        "target": {"name": prepared.bins.target, "unit": prepared.bins.unit},
        "counts": {split: int((rows.splits == split).sum()) for split in ("train", "val", "test", "unknown")},
        "selection": "Nothing is trained and nothing is selected: the three readings are reported as they are.",
        "constant": constant,
        "baselines": guesses,
        "constant_intervals": intervals,
        "rows": entries,
        "best": best["name"],
        "classes": [
            entry
            for part, own in members.items()
            for entry in class_entries(
                part,
                rows.labels[own],
                readings[part]["truth"],
                np.abs(readings[part][best["name"]] - readings[part]["truth"]),
                constant,
            )
        ],
        "readings": {
            part: {name: np.round(values, 3).tolist() for name, values in found.items()}
            for part, found in readings.items()
        },
    }
    return {**data, "sentences": sentences(data), "notes": notes}


def prepared_target(rows: ProbeRows) -> np.ndarray:
    """The target of every row, float64."""
    assert rows.target is not None
    return rows.target


def _with_target(rows: ProbeRows, split: str) -> np.ndarray:
    found: np.ndarray = np.flatnonzero((rows.splits == split) & np.isfinite(prepared_target(rows)))
    return found


def _assigned(rows: ProbeRows, train: np.ndarray, fitted: Clustering) -> Clustering:
    """The clusters of the training rows with every other row in its nearest one."""
    labels = fitted.assign(rows.vectors)
    labels[train] = fitted.labels
    return replace(fitted, labels=labels, counts=np.bincount(labels, minlength=len(fitted.counts)))


def _guesses(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"mae": value} for name, value in values.items()}


def _entry(
    name: str,
    cells: Mapping[str, str],
    published: Mapping[str, Any],
    read: Mapping[str, Any],
    constant: Mapping[str, Any],
    paired: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    ours, against = {}, {}
    for part, split in SPLITS.items():
        found = read[split]["mae"][name]
        ours[f"mae_{part}"] = {**found, "deviation": None}
        against[part] = beside_constant(paired[part][name], ours[f"mae_{part}"], constant[part])
    return {
        "name": name,
        "cells": cells,
        "step": -1,
        "chosen": False,
        "shared_with": "",
        "error": "",
        "not_run": False,
        "options": {},
        "published": published,
        "ours": ours,
        "against_constant": against,
        "runs": [],
    }
