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
            labels, num_iterations = _best_gram(points, num_clusters, n_init, max_iter, threshold, generator)
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


# --- greedy k-means++ and Lloyd from the Gram matrix ---------------------------------------------


def _best_gram(
    points: Tensor,
    num_clusters: int,
    n_init: int,
    max_iter: int,
    threshold: float,
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], int]:
    import torch

    gram = _gram(points)
    distances = _distances(gram)
    host_distances = distances.cpu().numpy()
    best: tuple[float, Tensor, int] | None = None
    for _ in range(n_init):
        seeds = torch.from_numpy(_greedy_seeds(host_distances, num_clusters, generator))
        labels = distances[seeds.to(gram.device)].argmin(dim=0)
        labels, inertia, num_iterations = _lloyd_gram(gram, labels, num_clusters, max_iter, threshold)
        if best is None or inertia < best[0]:
            best = (inertia, labels, num_iterations)
    assert best is not None  # n_init >= 1
    return best[1].cpu().numpy().astype(np.int64), best[2]


def _gram(points: Tensor) -> Tensor:
    """(n, n) float32 products of the rows.

    On a GPU the product runs in float64 blocks: float32 there may mean TF32, by a global switch that is
    not this function's to touch.
    """
    import torch

    if points.device.type == "cpu":
        return points @ points.T
    wide = points.double()
    gram = torch.empty(len(points), len(points), dtype=torch.float32, device=points.device)
    for start in range(0, len(points), 2048):
        gram[start : start + 2048] = wide[start : start + 2048] @ wide.T
    return gram


def _distances(gram: Tensor) -> Tensor:
    """(n, n) squared distances; what is below the rounding of float32 is 0, so that equal rows are equal."""
    norms = gram.diagonal()
    distances = gram.mul(-2).add_(norms).add_(norms[:, None])
    floor = 4 * float(np.finfo(np.float32).eps) * float(norms.max())
    return distances.masked_fill_(distances < floor, 0.0)


def _greedy_seeds(
    distances: NDArray[np.float32], num_clusters: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """(K,) rows chosen by greedy k-means++: of 2 + log K draws keep the one that lowers the sum most.

    On the CPU for every device: its steps are too small for a GPU, and the start is then the same on both.
    """
    num_rows = len(distances)
    uniforms = generator.random((num_clusters, 2 + int(math.log(num_clusters))))
    seeds = np.empty(num_clusters, dtype=np.int64)
    seeds[0] = generator.integers(num_rows)
    closest = distances[seeds[0]]
    for position in range(1, num_clusters):
        mass = np.cumsum(closest, dtype=np.float64)
        # side='right' never draws a row of zero mass while another has some.
        candidates = np.searchsorted(mass, uniforms[position] * mass[-1], side="right")
        candidates = np.minimum(candidates, num_rows - 1)
        lowered = distances[candidates]  # (trials, n)
        np.minimum(lowered, closest, out=lowered)
        winner = int(lowered.sum(axis=1).argmin())
        closest = lowered[winner]
        seeds[position] = candidates[winner]
    return seeds


def _lloyd_gram(
    gram: Tensor, labels: Tensor, num_clusters: int, max_iter: int, threshold: float
) -> tuple[Tensor, float, int]:
    """Lloyd steps until the labels repeat; returns labels, inertia (scaled rows) and the steps taken."""
    import torch

    norms = gram.diagonal()
    index = torch.arange(len(gram), device=gram.device)
    old: tuple[Tensor, Tensor, Tensor] | None = None
    distance = norms
    num_iterations = 0
    for _ in range(max_iter):
        num_iterations += 1
        labels = _fill_empty(labels, distance, num_clusters)
        counts = torch.bincount(labels, minlength=num_clusters)
        weights = counts.clamp(min=1).to(gram.dtype)
        sums = _cluster_sums(gram, labels, num_clusters)  # (K, n)
        own = sums[labels, index]
        center_norms = _sum_by(labels, own, num_clusters) / weights.square()
        movement = math.inf
        if old is not None:
            cross = _sum_by(labels, old[0][labels, index], num_clusters) / (weights * old[1])
            movement = float((center_norms + old[2] - 2 * cross).clamp_(min=0).sum())
        old = (sums, weights, center_norms)
        # The term G_ii is the same for every centre: left out of the comparison.
        scores = sums * (-2 / weights)[:, None]
        scores += torch.where(counts > 0, center_norms, torch.inf)[:, None]
        nearest, new_labels = scores.min(dim=0)
        distance = (nearest + norms).clamp_(min=0)
        if movement <= threshold or bool((new_labels == labels).all()):
            labels = new_labels
            break
        labels = new_labels
    return labels, float(distance.sum(dtype=torch.float64)), num_iterations


def _cluster_sums(matrix: Tensor, labels: Tensor, num_clusters: int) -> Tensor:
    """(K, m) sums of the rows of `matrix` (n, m) by label."""
    import torch

    if matrix.device.type == "cpu":
        sums = torch.zeros(num_clusters, matrix.shape[1], dtype=matrix.dtype)
        return sums.index_add_(0, labels, matrix)
    # index_add_ on a GPU adds by atomics, in another order on every run: sort, then sum each segment.
    order = torch.argsort(labels, stable=True)
    lengths = torch.bincount(labels, minlength=num_clusters)
    return torch.segment_reduce(matrix[order], "sum", lengths=lengths, axis=0, unsafe=True, initial=0.0)


def _sum_by(labels: Tensor, values: Tensor, num_clusters: int) -> Tensor:
    return _cluster_sums(values[:, None], labels, num_clusters)[:, 0]


def _fill_empty(labels: Tensor, distance: Tensor, num_clusters: int) -> Tensor:
    """Gives each empty cluster the row that lies farthest from its centre (scikit-learn's relocation).

    A row is taken only from a cluster that keeps another, and only where it has a distance at all: with
    fewer than K distinct rows the clusters stay empty.
    """
    import torch

    counts = torch.bincount(labels, minlength=num_clusters).cpu().numpy()
    empty = np.flatnonzero(counts == 0)
    if not len(empty):
        return labels
    host_labels, host_distance = labels.cpu().numpy().copy(), distance.cpu().numpy()
    waiting = list(empty[::-1])
    for row in np.argsort(-host_distance, kind="stable"):
        if not waiting or host_distance[row] <= 0:
            break
        if counts[host_labels[row]] > 1:
            counts[host_labels[row]] -= 1
            host_labels[row] = waiting.pop()
    return torch.from_numpy(host_labels).to(labels.device)


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
    seeds = _greedy_seeds(_distances(_gram(subset)).cpu().numpy(), num_clusters, generator)
    return subset[torch.from_numpy(seeds).to(points.device)]


def _lloyd_blocked(points: Tensor, centers: Tensor, max_iter: int, threshold: float) -> tuple[Tensor, float, int]:
    """Lloyd steps on blocks of rows; returns labels, inertia (scaled rows) and the steps taken."""
    import torch

    num_clusters = len(centers)
    labels, distance = _nearest(points, centers)
    num_iterations = 0
    for _ in range(max_iter):
        num_iterations += 1
        labels = _fill_empty(labels, distance, num_clusters)
        counts = torch.bincount(labels, minlength=num_clusters)
        means = _cluster_sums(points, labels, num_clusters) / counts.clamp(min=1)[:, None]
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
