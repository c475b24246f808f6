"""What k-means clusters say about labels and about a numeric target, beside what chance says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.examples.splits import count_groups
from reelbank.heads.judging.baselines import (
    class_mean_oracle,
    constant_median,
    random_training_label,
    uniform_random_bin,
)
from reelbank.heads.judging.evaluation import number
from reelbank.heads.judging.intervals import group_numbers, mean_estimate
from reelbank.heads.probes.neighbours import nearest_donor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reelbank.heads.probes.kmeans import Clustering
    from reelbank.heads.probes.rows import ProbeRows

SILHOUETTE_ROWS = 5000
"""Rows the silhouette is computed on at most: it needs every pair."""

SHUFFLES = 10
RANDOM_BINS = 1000


def read_labels(clusters: NDArray[np.int64], labels: NDArray[np.str_], *, seed: int = 0) -> dict[str, dict[str, float]]:
    """How far clusters agree with labels: {'value': {nmi, ari, purity}, 'shuffled_labels': the same}.

    `shuffled_labels` is the mean over 10 seeded shuffles of the labels: with many small clusters NMI and
    purity are high by construction, ARI is about 0.

    NMI: mutual information over the mean of both entropies (scikit-learn's default). ARI: Hubert and Arabie,
    J. Classification 2 (1985). Purity: share of rows that carry the commonest label of their cluster.
    """
    numbers = np.unique(labels, return_inverse=True)[1]
    random = np.random.default_rng(seed)
    shuffled = [_agreement(clusters, random.permutation(numbers)) for _ in range(SHUFFLES)]
    return {
        "value": _agreement(clusters, numbers),
        "shuffled_labels": {
            name: float(np.mean([result[name] for result in shuffled])) for name in ("nmi", "ari", "purity")
        },
    }


def cluster_purities(clusters: NDArray[np.int64], labels: NDArray[np.str_], num_clusters: int) -> NDArray[np.float64]:
    """(K,) share of the commonest label in each cluster; NaN for a cluster without rows."""
    numbers = np.unique(labels, return_inverse=True)[1]
    table = _contingency(clusters, numbers, num_clusters)
    sizes = table.sum(axis=1)
    purities = np.full(num_clusters, np.nan)
    np.divide(table.max(axis=1), sizes, out=purities, where=sizes > 0)
    return purities


def silhouette(vectors: NDArray[np.floating], clusters: NDArray[np.int64], *, seed: int = 0) -> float | None:
    """Mean silhouette (Rousseeuw, 1987), Euclidean, on at most 5,000 rows; None where it is not defined.

    It needs from 2 to n - 1 clusters among the rows.
    """
    from sklearn.metrics import silhouette_score

    if len(clusters) > SILHOUETTE_ROWS:
        chosen = np.random.default_rng(seed).choice(len(clusters), SILHOUETTE_ROWS, replace=False)
        vectors, clusters = vectors[chosen], clusters[chosen]
    if not 2 <= len(np.unique(clusters)) < len(clusters):
        return None
    return float(silhouette_score(vectors, clusters))


def read_target(rows: ProbeRows, clustering: Clustering, *, seed: int = 0) -> dict[str, Any]:
    """MAE of four readings of clusters as a numeric target, beside trivial baselines (SYSTEMS.md 1.14, 1.16).

    Labels come from training rows only and are judged on each other split; a store with training rows only
    (or none) judges each group by the others; split 'unused' is left out. The clusters saw the vectors of all rows.

    - `cluster_mean_label`: mean target of the cluster's training rows; where it has none, `nearest_train`.
    - `nearest_train`: target of the nearest training row (Euclidean).
    - `cluster_id`: the number of the cluster, spread over the target's range, taken as the target: the reading
      of a published table whose values equal those of random guessing.
    - `shuffled_cluster_id`: the same with the numbers drawn at random. k-means++ numbers dense clusters first, so
      that the number itself may say something.
    """
    assert rows.target is not None
    known = np.isfinite(rows.target) & (rows.splits != "unused")
    train = np.flatnonzero(known & (rows.splits == "train"))
    judged = {
        split: np.flatnonzero(known & (rows.splits == split))
        for split in sorted(set(rows.splits[known].tolist()) - {"train"})
    }
    if not len(train) or not judged:
        train = np.flatnonzero(known)
        judged = {"held-out groups": train}
    if len(train) < 2:
        return {"target": rows.target_name, "parts": {}, "num_train": len(train)}
    low, high = _range(rows.target_name, rows.target[train])
    parts = {name: _read_part(rows, clustering, train, part, (low, high), seed) for name, part in judged.items()}
    return {"target": rows.target_name, "range": [low, high], "num_train": len(train), "parts": parts}


def _read_part(
    rows: ProbeRows,
    clustering: Clustering,
    train: NDArray[np.int64],
    part: NDArray[np.int64],
    limits: tuple[float, float],
    seed: int,
) -> dict[str, Any]:
    assert rows.target is not None
    low, high = limits
    groups = group_numbers(rows.groups.tolist())
    truth, labels, named = rows.target[part], rows.target[train], rows.labels[part].tolist()
    predictions, empty = target_readings(rows, clustering, train, part, seed=seed)
    return {
        "num_rows": len(part),
        "num_groups": count_groups(rows.groups, part),
        "num_without_training_row_in_cluster": int(empty.sum()),
        "mae": {
            name: _mean_with_interval(np.abs(values - truth), groups[part], seed)
            for name, values in predictions.items()
        },
        "baselines": {
            "constant_median": constant_median(labels, truth)["mae"],
            "random_training_label": random_training_label(labels, truth)["mae"],
            "uniform_random_bin": uniform_random_bin(np.linspace(low, high, RANDOM_BINS), truth)["mae"],
            **({"class_mean_oracle": class_mean_oracle(named, truth)["mae"]} if all(named) else {}),
        },
    }


def target_readings(
    rows: ProbeRows, clustering: Clustering, train: NDArray[np.int64], part: NDArray[np.int64], *, seed: int = 0
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """The four readings of `read_target` for the rows `part` (P,), from the labels of the rows `train`.

    Returns:
        {reading: (P,) values}, and (P,) whether a row's cluster holds no training row of another group.
    """
    assert rows.target is not None
    groups = group_numbers(rows.groups.tolist())
    labels = rows.target[train]
    low, high = _range(rows.target_name, labels)
    nearest = nearest_donor(rows.vectors[part], rows.vectors[train], groups[part], groups[train])
    fallback = np.where(nearest >= 0, labels[nearest], np.median(labels))
    means = _cluster_means(clustering.labels, rows.target, groups, train, part)
    num_clusters = len(clustering.counts)
    step = (high - low) / (num_clusters - 1) if num_clusters > 1 else 0.0
    predictions = {
        "cluster_mean_label": np.where(np.isfinite(means), means, fallback),
        "nearest_train": fallback,
        "cluster_id": low + clustering.labels[part] * step,
        "shuffled_cluster_id": low
        + np.random.default_rng(seed).permutation(num_clusters)[clustering.labels[part]] * step,
    }
    return predictions, ~np.isfinite(means)


def _cluster_means(
    clusters: NDArray[np.int64],
    target: NDArray[np.float64],
    groups: NDArray[np.int64],
    train: NDArray[np.int64],
    part: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(P,) mean target of the training rows in the cluster of each row, its own group left out; NaN: none."""
    num = int(clusters.max()) + 1
    sums = np.bincount(clusters[train], weights=target[train], minlength=num)
    counts = np.bincount(clusters[train], minlength=num).astype(np.float64)
    # What the row's own group gave to its cluster is taken out again: pairs (cluster, group) as one key.
    num_groups = int(groups.max()) + 1
    keys, place = np.unique(clusters[train] * num_groups + groups[train], return_inverse=True)
    own_sums, own_counts = np.bincount(place, weights=target[train]), np.bincount(place)
    wanted = clusters[part] * num_groups + groups[part]
    found = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    same = keys[found] == wanted
    left = counts[clusters[part]] - np.where(same, own_counts[found], 0)
    total = sums[clusters[part]] - np.where(same, own_sums[found], 0.0)
    means = np.full(len(part), np.nan)
    np.divide(total, left, out=means, where=left > 0)
    return means


def _mean_with_interval(values: NDArray[np.float64], groups: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Mean with its interval over groups, as `estimate` gives it."""
    numbers = np.unique(groups, return_inverse=True)[1]
    found = mean_estimate(values, numbers.astype(np.int64), seed=seed)
    return {
        **{name: number(getattr(found, name)) for name in ("value", "low", "high")},
        "interval": found.how,
        "drawn": found.num_groups,
    }


def _range(name: str, train: NDArray[np.float64]) -> tuple[float, float]:
    """Range of the bins: the target's published one, else that of the training rows."""
    from reelbank.heads.examples.targets import DEFAULT_RANGES

    return DEFAULT_RANGES.get(name, (float(train.min()), float(train.max())))


def _agreement(clusters: NDArray[np.int64], numbers: NDArray[np.int64]) -> dict[str, float]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    table = _contingency(clusters, numbers, int(clusters.max()) + 1)
    return {
        "nmi": float(normalized_mutual_info_score(numbers, clusters)),
        "ari": float(adjusted_rand_score(numbers, clusters)),
        "purity": float(table.max(axis=1).sum() / len(clusters)),
    }


def _contingency(clusters: NDArray[np.int64], numbers: NDArray[np.int64], num_clusters: int) -> NDArray[np.int64]:
    """(K, L) rows of each label in each cluster."""
    num_labels = int(numbers.max()) + 1
    flat = np.bincount(clusters * num_labels + numbers, minlength=num_clusters * num_labels)
    return flat.reshape(num_clusters, num_labels).astype(np.int64)
