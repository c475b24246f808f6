"""Exact k-means on feature vectors, through the Gram matrix where it fits.

`kmeans` is Lloyd's algorithm started by greedy k-means++ (Arthur and Vassilvitskii, SODA 2007; the greedy
form with 2 + log K trials is the one of scikit-learn). Up to `GRAM_ROW_LIMIT` rows it never touches the
vectors after the first product: with G = X X^T of the centred rows, the seeding is row look-ups in the
(n, n) distance matrix, and one Lloyd step needs only the sums S[c] of the rows of G in cluster c:

    |x_i - m_c|^2 = G_ii - 2 S[c, i] / |c| + |m_c|^2,    |m_c|^2 = sum_{i in c} S[c, i] / |c|^2

that is n^2 additions instead of n K D multiplications. Above the limit the same Lloyd step runs on blocks
of rows, started from the seeding of a seeded subsample.

Both give the same clusters on every run with the same seed, device and library versions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from reelbank.heads.probes.kmeans_gram import (
    best_gram,
    cluster_sums,
    draw_start,
    fill_empty,
    gram_matrix,
    greedy_seeds,
    squared_distances,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

GRAM_ROW_LIMIT = 20_000
"""Rows up to which the (n, n) matrices are held: 1.6 GB each in float32 at the limit."""

SEED_SAMPLE_ROWS = 10_000
"""Rows from which the blocked algorithm draws its start (more where 3 K is more)."""

BLOCK_ELEMENTS = 16_000_000
"""Entries of one (rows, K) distance block of the blocked algorithm: 64 MB in float32."""

Method = Literal["auto", "blocked", "gram"]


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """The best of `n_init` runs.

    Attributes:
        labels: (n,) int64, cluster of each row in [0, K).
        centers: (K, D) float64, mean of each cluster's rows; NaN for a cluster without rows, which happens
            only where the input has fewer than K distinct rows.
        counts: (K,) int64, rows of each cluster.
        inertia: sum of squared distances of the rows to their centre, from the rows in float64.
        num_iterations: Lloyd steps of the best run.
        method: 'gram' or 'blocked'.
    """

    labels: NDArray[np.int64]
    centers: NDArray[np.float64]
    counts: NDArray[np.int64]
    inertia: float
    num_iterations: int
    method: str

    def assign(self, rows: NDArray[np.floating]) -> NDArray[np.int64]:
        """Nearest non-empty centre of each of `rows` (m, D) -> (m,) int64."""
        filled = np.flatnonzero(self.counts)
        centers = self.centers[filled]
        half_norms = 0.5 * np.einsum("kd,kd->k", centers, centers)
        block_rows = max(1, BLOCK_ELEMENTS // len(filled))
        nearest = [
            np.argmin(half_norms - rows[start : start + block_rows].astype(np.float64) @ centers.T, axis=1)
            for start in range(0, len(rows), block_rows)
        ]
        return filled[np.concatenate(nearest)] if nearest else np.zeros(0, dtype=np.int64)


def kmeans(
    rows: NDArray[np.floating],
    num_clusters: int,
    *,
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    seed: int = 0,
    device: str = "cpu",
    method: Method = "auto",
) -> Clustering:
    """Clusters (n, D) rows into `num_clusters`.

    Args:
        rows: (n, D), finite.
        num_clusters: K, 1 <= K <= n.
        n_init: independent starts; the one with the lowest inertia is returned.
        max_iter: Lloyd steps at most, per start.
        tol: stop when the squared movement of all centres is at most tol x the mean variance of a column
            (scikit-learn's rule); labels that repeat always stop.
        seed: of the starts.
        device: torch device, 'cpu' or 'cuda'.
        method: 'gram', 'blocked', or 'auto' (gram up to `GRAM_ROW_LIMIT` rows).

    Raises:
        ValueError: rows that are not a finite (n, D) array, or K outside [1, n].
    """
    import torch

    _validate(rows, num_clusters, n_init=n_init, max_iter=max_iter)
    if method == "auto":
        method = "gram" if len(rows) <= GRAM_ROW_LIMIT else "blocked"
    scaled, threshold = _center_and_scale(rows, tol)
    points = torch.from_numpy(scaled).to(device)
    generator = np.random.default_rng(seed)
    with torch.inference_mode():
        if method == "gram":
            labels, num_iterations = best_gram(points, num_clusters, n_init, max_iter, threshold, generator)
        else:
            labels, num_iterations = _best_blocked(points, num_clusters, n_init, max_iter, threshold, generator)
    return _finish(rows, labels, num_clusters, num_iterations, method)


def _validate(rows: NDArray[np.floating], num_clusters: int, *, n_init: int, max_iter: int) -> None:
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"k-means: {rows.shape = }, expected (n, D)")
    if num_clusters < 1:
        raise ValueError(f"k-means: {num_clusters} clusters asked; ask for at least 1")
    if num_clusters > len(rows):
        raise ValueError(
            f"k-means: {num_clusters} clusters asked, {len(rows)} rows found; ask for at most {len(rows)}, "
            "or pass --level step, which clusters steps instead of clips"
        )
    if n_init < 1 or max_iter < 1:
        raise ValueError(f"k-means: {n_init = }, {max_iter = }; both must be at least 1")
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"k-means: row {bad} holds NaN or Inf; run `reelbank store verify` on the store")


def _center_and_scale(rows: NDArray[np.floating], tol: float) -> tuple[NDArray[np.float32], float]:
    """Centred rows of mean squared norm 1 in float32, and `tol` in that scale.

    Centring takes the common offset out of G, where it would cost digits of every distance; the scale
    keeps float32 far from its limits whatever the unit of the features.
    """
    centered = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    mean_square = float(np.vdot(centered, centered)) / len(rows)
    if mean_square > 0:
        centered /= math.sqrt(mean_square)
    # The mean variance of a column is the mean squared norm over D: 1 / D after the scaling.
    return centered.astype(np.float32), tol / rows.shape[1]


# --- blocked Lloyd for many rows -----------------------------------------------------------------


def _best_blocked(
    points: Tensor,
    num_clusters: int,
    n_init: int,
    max_iter: int,
    threshold: float,
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], int]:
    best: tuple[float, Tensor, int] | None = None
    for _ in range(n_init):
        centers = _blocked_start(points, num_clusters, generator)
        labels, inertia, num_iterations = _lloyd_blocked(points, centers, max_iter, threshold)
        if best is None or inertia < best[0]:
            best = (inertia, labels, num_iterations)
    assert best is not None  # n_init >= 1
    return best[1].cpu().numpy().astype(np.int64), best[2]


def _blocked_start(points: Tensor, num_clusters: int, generator: np.random.Generator) -> Tensor:
    """(K, D) centres: greedy k-means++ on a subsample; rows drawn at random where K is past its limit."""
    import torch

    sample_rows = min(len(points), max(SEED_SAMPLE_ROWS, 3 * num_clusters))
    if sample_rows > GRAM_ROW_LIMIT:
        sample_rows = num_clusters
    sample = generator.choice(len(points), size=sample_rows, replace=False)
    subset = points[torch.from_numpy(sample).to(points.device)]
    if sample_rows == num_clusters:
        return subset
    (seeds,) = greedy_seeds(squared_distances(gram_matrix(subset)), [draw_start(generator, sample_rows, num_clusters)])
    return subset[torch.from_numpy(seeds).to(points.device)]


def _lloyd_blocked(points: Tensor, centers: Tensor, max_iter: int, threshold: float) -> tuple[Tensor, float, int]:
    """Lloyd steps on blocks of rows; returns labels, inertia (scaled rows) and the steps taken."""
    import torch

    num_clusters = len(centers)
    labels, distance = _nearest(points, centers)
    num_iterations = 0
    for _ in range(max_iter):
        num_iterations += 1
        labels = fill_empty(labels, distance, num_clusters)
        counts = torch.bincount(labels, minlength=num_clusters)
        means = cluster_sums(points, labels, num_clusters) / counts.clamp(min=1)[:, None]
        # A cluster that stays empty keeps its place: it lies on a row that others share.
        means = torch.where(counts[:, None] > 0, means, centers)
        movement = float((means - centers).square().sum(dtype=torch.float64))
        centers = means
        new_labels, distance = _nearest(points, centers)
        if movement <= threshold or bool((new_labels == labels).all()):
            labels = new_labels
            break
        labels = new_labels
    return labels, float(distance.sum(dtype=torch.float64)), num_iterations


def _nearest(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) nearest centre and (n,) squared distance to it."""
    import torch

    center_norms = centers.square().sum(dim=1)
    labels = torch.empty(len(points), dtype=torch.int64, device=points.device)
    distance = torch.empty(len(points), dtype=points.dtype, device=points.device)
    block_rows = max(1, BLOCK_ELEMENTS // len(centers))
    for start in range(0, len(points), block_rows):
        block = points[start : start + block_rows]
        scores = torch.addmm(center_norms, block, centers.T, alpha=-2.0)
        lowest, labels[start : start + block_rows] = scores.min(dim=1)
        distance[start : start + block_rows] = lowest + block.square().sum(dim=1)
    return labels, distance.clamp_(min=0)


def _finish(
    rows: NDArray[np.floating], labels: NDArray[np.int64], num_clusters: int, num_iterations: int, method: str
) -> Clustering:
    """Centres and inertia from the rows themselves, in float64."""
    counts = np.bincount(labels, minlength=num_clusters).astype(np.int64)
    order = np.argsort(labels, kind="stable")
    filled = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts[filled])[:-1]])
    centers = np.full((num_clusters, rows.shape[1]), np.nan)
    centers[filled] = np.add.reduceat(rows[order].astype(np.float64), starts, axis=0) / counts[filled, None]
    residual = np.subtract(rows, centers[labels], dtype=np.float64)
    return Clustering(
        labels=labels,
        centers=centers,
        counts=counts,
        inertia=float(np.vdot(residual, residual)),
        num_iterations=num_iterations,
        method=method,
    )
