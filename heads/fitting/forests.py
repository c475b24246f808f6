"""Trees grown by scikit-learn, as the arrays of `reelbank.heads.models.trees`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reelbank.heads.fitting.tasks import Task
from reelbank.heads.models.trees import ForestSize, Trees

MOST_TREES, LEAST_TREES = 400, 50
WORK = 3e10  # node evaluations that a forest may cost: minutes on one core
SPLITS = 2e8  # of clips by features in nodes, of all trees of a forest: seconds on one core
SHARES = {"classes": 0.3, "labels": 0.3, "target": 1.0}
"""Most of the features that a node of a tree looks at: of a target more are better, of classes no more than this."""
VALUES = 1 << 25  # numbers that scikit-learn may hold in the nodes of trees at once (256 MB)
LABELS = 1 << 24  # labels kept in leaves: every training clip is in a leaf of each tree


def number_of_trees(clips: int, width: int, outputs: int) -> int:
    """How many trees a forest has that takes minutes and a few hundred MB at most: MOST_TREES, fewer on large sets."""
    work = clips * math.sqrt(width) * (math.log2(max(2, clips)) + outputs)
    return int(np.clip(min(WORK / work, LABELS / clips), LEAST_TREES, MOST_TREES))


def features_per_node(clips: int, width: int, kind: str) -> int:
    """How many features a node looks at: as `SHARES` says, fewer where that takes long, sqrt(D) at least."""
    affordable = SPLITS / (clips * math.log2(max(2, clips)) * MOST_TREES)
    return max(1, int(np.clip(SHARES[kind] * width, 1, max(math.sqrt(width), affordable))))


def fit_trees(
    x: NDArray[np.float32], task: Task, rows: NDArray[np.int64], *, trees: int, leaf: int, seed: int, jobs: int
) -> Trees:
    """Extremely randomised trees on the clips `rows`, every clip in every tree.

    Args:
        x: pooled vectors of all clips (N, D).
        leaf: fewest clips of a leaf.
        seed: of features and thresholds. The same number gives the same trees, however many `jobs`.
        jobs: threads.
    """
    x = np.ascontiguousarray(x[rows])
    at_once = int(np.clip(VALUES / (2 * len(rows) * max(1, task.columns if task.bins is None else 1)), 1, trees))
    parts: list[_Arrays] = []
    for start in range(0, trees, at_once):
        count, features = min(at_once, trees - start), features_per_node(len(rows), x.shape[1], task.kind)
        forest = _forest(task, count, features, leaf, seed + start, jobs)
        forest.fit(x, *_labels(task, rows))
        leaves = forest.apply(x)  # (n, trees)
        parts += [_arrays(one.tree_, leaves[:, i], task, rows) for i, one in enumerate(forest.estimators_)]
    return _module(parts, x.shape[1], task, rows)


def _forest(task: Task, trees: int, features: int, leaf: int, seed: int, jobs: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    kind = ExtraTreesClassifier if task.kind == "classes" else ExtraTreesRegressor
    return kind(
        n_estimators=trees, min_samples_leaf=leaf, max_features=features, n_jobs=jobs, random_state=seed % (1 << 32)
    )


def _labels(task: Task, rows: NDArray[np.int64]) -> tuple[Any, Any]:
    """What scikit-learn is given as labels and weights of the clips `rows`."""
    return task.truth[rows], task.weights[rows]


class _Arrays:
    """One tree: children and labels count from its own first node and entry."""

    def __init__(self, tree: Any, start: NDArray[np.int64], column: NDArray[np.int64], weight: NDArray[Any]) -> None:
        own = np.arange(tree.node_count)
        is_leaf = tree.children_left < 0
        self.left = np.where(is_leaf, own, tree.children_left)
        self.right = np.where(is_leaf, own, tree.children_right)
        self.feature = np.where(is_leaf, 0, tree.feature)
        self.threshold = _not_above(tree.threshold)
        self.depth = int(tree.max_depth)
        self.start, self.column, self.weight = start, column, weight


def _arrays(tree: Any, leaves: NDArray[np.int64], task: Task, rows: NDArray[np.int64]) -> _Arrays:
    row, column = task.entries(rows)  # places in `rows`, columns: one entry per label
    weights = task.weights[rows]
    whole = np.bincount(leaves, weights=weights, minlength=tree.node_count)
    keys, place = np.unique(leaves[row].astype(np.int64) * task.columns + column, return_inverse=True)
    node = keys // task.columns
    weight = np.bincount(place, weights=weights[row], minlength=len(keys)) / whole[node]
    start = np.searchsorted(node, np.arange(tree.node_count + 1))
    return _Arrays(tree, start, keys % task.columns, weight)


def _not_above(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is at most each threshold: features are float32, so the comparisons stay the same."""
    near = threshold.astype(np.float32)
    lower: NDArray[np.float32] = np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
    return lower


def _module(parts: list[_Arrays], width: int, task: Task, rows: NDArray[np.int64]) -> Trees:
    nodes = np.cumsum([0] + [len(one.feature) for one in parts])
    entries = np.cumsum([0] + [len(one.column) for one in parts])
    size = ForestSize(
        trees=len(parts), nodes=int(nodes[-1]), entries=int(entries[-1]), depth=max(one.depth for one in parts)
    )
    module = Trees(width, task.columns, size, 0.0 if task.bins is None else task.bins.sigma_bins)
    arrays = {
        "feature": [one.feature for one in parts],
        "threshold": [one.threshold for one in parts],
        "left": [one.left + first for one, first in zip(parts, nodes[:-1], strict=True)],
        "right": [one.right + first for one, first in zip(parts, nodes[:-1], strict=True)],
        "roots": [nodes[:-1]],
        "start": [one.start[:-1] + first for one, first in zip(parts, entries[:-1], strict=True)] + [entries[-1:]],
        "column": [one.column for one in parts],
        "weight": [one.weight for one in parts],
        "prior": [task.marginal(rows)],
    }
    for name, pieces in arrays.items():
        getattr(module, name).copy_(torch.from_numpy(np.concatenate(pieces)))
    return module
