"""What a recipe finds in the stores: whether they have what the study needs, and whether in the published shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import reelbank.store
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.recipes.measures import Training
from reelbank.heads.recipes.options import Asked
from reelbank.heads.recipes.recipe import Recipe
from reelbank.store import Store
from reelbank.store.indexing import parse_segments


def require(prepared: Prepared, recipe: Recipe, asked: Asked) -> None:
    """Raises TrainingError unless the stores have the target, the classes and the parts that the study reports."""
    study, name = recipe.study, recipe.name
    if study.needs_target and prepared.bins is None:
        if asked.target == "none":
            raise TrainingError(f"--recipe {name} predicts a numeric target; leave out --target none")
        raise TrainingError(
            f"--recipe {name} needs a numeric target; the store has none (--target-columns names them when a store is "
            "made)"
        )
    if not study.needs_target and prepared.labels is None:
        raise TrainingError(f"--recipe {name} needs classes, and no training clip has a label; leave out --label none")
    splits, folds = prepared.table.splits, len(prepared.partitions) > 1
    found = ", ".join(f"{split!r} ({(splits == split).sum()})" for split in sorted(set(splits.tolist())))
    parts = [part for part in study.parts if part.is_needed and not (folds and part.split == "test")]
    for part in parts:
        if not (splits == part.split).any():
            what = f" ({part.what})" if part.what else ""
            raise TrainingError(
                f"--recipe {name} reports {_count(len(parts))}, and the store has no split {part.split!r}{what}; "
                f"found {found}"
            )
    values = prepared.target_values
    for part in parts if study.needs_target else ():
        assert values is not None
        assert prepared.bins is not None
        if not np.isfinite(values[splits == part.split]).any():
            raise TrainingError(
                f"--recipe {name}: no clip of split {part.split!r} has a target {prepared.bins.target!r}; fill the "
                "column"
            )


def _count(parts: int) -> str:
    return {1: "a test set", 2: "two test sets"}.get(parts, f"{parts} test sets")


def training_of(prepared: Prepared) -> Training:
    """What guessers may know: the training clips; with folds all known clips, as the baselines of a run."""
    parts = prepared.partitions
    rows = [part.train for part in parts]
    if len(parts) > 1:
        rows += [clips for part in parts for clips in (part.val, part.test)]
    chosen = np.unique(np.concatenate(rows))
    values = prepared.target_values
    return Training(
        labels=prepared.table.labels[chosen],
        targets=np.full(len(chosen), np.nan) if values is None else values[chosen],
    )


def about_inputs(asked: Asked, recipe: Recipe) -> list[dict[str, Any]]:
    """What each store holds.

    {store, backbone, weights (kind), taps, sampling, steps: [fewest, most] per clip, numbers: per step, as_published:
    whether that is the publication's shape, null where it does not say one}.
    """
    entries = []
    for path in asked.stores:
        store = reelbank.store.open(path)
        if recipe.reads_arrays:
            entries.append(_about_arrays(path, store))
            continue
        taps = [tap for tap in asked.taps if tap in store.taps] or [store.default_tap]
        counts = np.unique(store.num_steps[store.done_rows()]).tolist()
        if asked.segments:
            rule = parse_segments(asked.segments)
            counts = sorted({len(rule.indices(int(count))) for count in counts})
        numbers = sum(int(np.prod(store.taps[tap].shape)) for tap in taps)
        shape = recipe.shape
        entries.append(
            {
                "store": path.name,
                "backbone": store.spec.backbone,
                "weights": str(store.spec.weights.get("kind", "unknown")),
                "taps": taps,
                "sampling": store.spec.sampling,
                "steps": [int(counts[0]), int(counts[-1])] if counts else [0, 0],
                "numbers": numbers,
                "as_published": None if shape is None else (counts, numbers) == ([shape[0]], shape[1]),
            }
        )
    return entries


def _about_arrays(path: Path, store: Store) -> dict[str, Any]:
    """The same of a store of arrays, with `arrays` {tap: shape of a step} in the place of `numbers`."""
    counts = store.num_steps[store.done_rows()]
    return {
        "store": path.name,
        "backbone": store.spec.backbone,
        "weights": str(store.spec.weights.get("kind", "unknown")),
        "taps": list(store.taps),
        "sampling": store.spec.sampling,
        "steps": [int(counts.min()), int(counts.max())] if len(counts) else [0, 0],
        "arrays": {name: list(spec.shape) for name, spec in store.taps.items()},
        "views": len(store.spec.views),
        "as_published": None,
    }


def input_text(entry: Mapping[str, Any], shape: tuple[int, int] | None) -> str:
    """One store in words: what it holds, and whether in the published shape."""
    least, most = entry["steps"]
    steps = str(least) if least == most else f"{least} to {most}"
    if "arrays" in entry:
        arrays = ", ".join(f"{tap} {' x '.join(map(str, sides))}" for tap, sides in entry["arrays"].items())
        return (
            f"{entry['backbone']} (weights: {entry['weights']}), sampling {entry['sampling']}: {steps} steps of "
            f"{arrays}; views: {entry['views']}"
        )
    said = (
        f"{entry['backbone']} (weights: {entry['weights']}), tap {', '.join(entry['taps'])}, sampling "
        f"{entry['sampling']}: {steps} steps of {entry['numbers']} numbers"
    )
    if shape is None:
        return said
    if entry["as_published"]:
        return f"{said}, the published shape"
    return f"{said}; published: {shape[0]} steps of {shape[1]}"
