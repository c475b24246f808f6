"""The core of k-means on the Gram matrix: greedy k-means++ and Lloyd steps that never touch the vectors.

See `kmeans.py` for the formula. All matrices are (n, n) or (K, n) float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SEEDING_ELEMENTS = 2_000_000
"""Entries of the (starts, trials, n) block of the seeding: starts are seeded together as far as it reaches."""


def best_gram(
    points: Tensor,
    num_clusters: int,
    n_init: int,
    max_iter: int,
    threshold: float,
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], int]:
    import torch

    gram = gram_matrix(points)
    distances = squared_distances(gram)
    starts = [draw_start(generator, len(points), num_clusters) for _ in range(n_init)]
    best: tuple[float, Tensor, int] | None = None
    for seeds in greedy_seeds(distances, starts):
        labels = distances[torch.from_numpy(seeds).to(gram.device)].argmin(dim=0)
        labels, inertia, num_iterations = _lloyd_gram(gram, labels, num_clusters, max_iter, threshold)
        if best is None or inertia < best[0]:
            best = (inertia, labels, num_iterations)
    assert best is not None  # n_init >= 1
    return best[1].cpu().numpy().astype(np.int64), best[2]


def gram_matrix(points: Tensor) -> Tensor:
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


def squared_distances(gram: Tensor) -> Tensor:
    """(n, n) squared distances; what is below the rounding of float32 is 0, so that equal rows are equal."""
    norms = gram.diagonal()
    distances = gram.mul(-2).add_(norms).add_(norms[:, None])
    floor = 4 * float(np.finfo(np.float32).eps) * float(norms.max())
    return distances.masked_fill_(distances < floor, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """The random numbers of one start: its first row, and (K, trials) uniform draws."""

    first: int
    uniforms: NDArray[np.float64]


def draw_start(generator: np.random.Generator, num_rows: int, num_clusters: int) -> Start:
    """Draws one start: 2 + log K trials per centre, as scikit-learn does."""
    uniforms = generator.random((num_clusters, 2 + int(math.log(num_clusters))))
    return Start(first=int(generator.integers(num_rows)), uniforms=uniforms)


def greedy_seeds(distances: Tensor, starts: Sequence[Start]) -> Iterator[NDArray[np.int64]]:
    """(K,) rows of each start, chosen by greedy k-means++: of the draws keep the one that lowers the sum most.

    Starts are seeded together: one start's steps are too small to use the memory's bandwidth. On the CPU for
    every device, so that the start is the same on all of them.
    """
    import torch

    distances = distances.cpu()
    num_rows, trials = len(distances), starts[0].uniforms.shape[1]
    together = max(1, SEEDING_ELEMENTS // (trials * num_rows))
    for begin in range(0, len(starts), together):
        group = starts[begin : begin + together]
        uniforms = torch.from_numpy(np.stack([start.uniforms for start in group], axis=1))  # (K, I, trials)
        seeds = torch.empty((len(group), len(uniforms)), dtype=torch.int64)
        seeds[:, 0] = torch.tensor([start.first for start in group])
        closest = distances[seeds[:, 0]]  # (I, n)
        each = torch.arange(len(group))
        for position in range(1, len(uniforms)):
            mass = closest.cumsum(dim=1, dtype=torch.float64)
            # right=True never draws a row of zero mass while another has some.
            draws = torch.searchsorted(mass, uniforms[position] * mass[:, -1:], right=True)
            draws = draws.clamp_(max=num_rows - 1)  # (I, trials)
            lowered = torch.minimum(distances[draws], closest[:, None])  # (I, trials, n)
            winner = lowered.sum(dim=2).argmin(dim=1)
            closest = lowered[each, winner]
            seeds[:, position] = draws[each, winner]
        yield from seeds.numpy()


def _lloyd_gram(
    gram: Tensor, labels: Tensor, num_clusters: int, max_iter: int, threshold: float
) -> tuple[Tensor, float, int]:
    """Lloyd steps until the labels repeat; returns labels, inertia (scaled rows) and the steps taken."""
    import torch

    norms = gram.diagonal()
    index = torch.arange(len(gram), device=gram.device)
    labels = fill_empty(labels, norms, num_clusters)
    sums = cluster_sums(gram, labels, num_clusters)  # (K, n)
    scores = torch.empty_like(sums)
    before: tuple[Tensor, Tensor, Tensor] | None = None
    num_iterations = 0
    while True:
        num_iterations += 1
        counts = torch.bincount(labels, minlength=num_clusters)
        weights = counts.clamp(min=1).to(gram.dtype)
        center_norms = _sum_by(labels, sums[labels, index], num_clusters) / weights.square()
        movement = math.inf
        if before is not None:  # centres before the step, seen from the rows that now belong to them
            old_own, old_weights, old_norms = before
            cross = _sum_by(labels, old_own, num_clusters) / (weights * old_weights)
            movement = float((center_norms + old_norms - 2 * cross).clamp_(min=0).sum())
        # The term G_ii is the same for every centre: left out of the comparison.
        torch.mul(sums, (-2 / weights)[:, None], out=scores)
        scores += torch.where(counts > 0, center_norms, torch.inf)[:, None]
        nearest, new_labels = scores.min(dim=0)
        distance = (nearest + norms).clamp_(min=0)
        if movement <= threshold or num_iterations == max_iter or bool((new_labels == labels).all()):
            labels = new_labels
            break
        new_labels = fill_empty(new_labels, distance, num_clusters)
        before = sums[new_labels, index], weights, center_norms
        sums = _moved_sums(sums, gram, labels, new_labels)
        labels = new_labels
    return labels, float(distance.sum(dtype=torch.float64)), num_iterations


def cluster_sums(matrix: Tensor, labels: Tensor, num_clusters: int) -> Tensor:
    """(K, m) sums of the rows of `matrix` (n, m) by label."""
    import torch

    if matrix.device.type == "cpu":
        sums = torch.zeros(num_clusters, matrix.shape[1], dtype=matrix.dtype)
        return sums.index_add_(0, labels, matrix)
    # index_add_ on a GPU adds by atomics, in another order on every run: sort, then sum each segment.
    order = torch.argsort(labels, stable=True)
    lengths = torch.bincount(labels, minlength=num_clusters)
    return torch.segment_reduce(matrix[order], "sum", lengths=lengths, axis=0, unsafe=True, initial=0.0)


def _moved_sums(sums: Tensor, matrix: Tensor, labels: Tensor, new_labels: Tensor) -> Tensor:
    """The cluster sums after rows went from `labels` to `new_labels`; after the first steps few rows move."""
    import torch

    moved = torch.nonzero(labels != new_labels)[:, 0]
    if matrix.device.type != "cpu" or 2 * len(moved) >= len(labels):
        return cluster_sums(matrix, new_labels, len(sums))
    rows = matrix[moved]
    return sums.index_add_(0, labels[moved], rows, alpha=-1).index_add_(0, new_labels[moved], rows)


def _sum_by(labels: Tensor, values: Tensor, num_clusters: int) -> Tensor:
    return cluster_sums(values[:, None], labels, num_clusters)[:, 0]


def fill_empty(labels: Tensor, distance: Tensor, num_clusters: int) -> Tensor:
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
