"""Regularised linear predictors: convex problems solved to their end, at several strengths of the penalty at once.

Where there are more features than clips, the clips are first written in the space that they span (a rotation and a cut
of what is zero for all of them), in which the penalty is the same and the problem small.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logsumexp
from torch import nn

from reelbank.heads.examples.normalization import scale_of
from reelbank.heads.fitting.tasks import Task
from reelbank.heads.models.combination import Linear, Normal

Array = NDArray[np.float64]

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.01)
"""Weights of |W|^2 / 2 beside the mean loss, from the strongest on, as multiples of the variance that the clips have
along one direction in the mean: what they do does not depend on the number of features.
"""
ITERATIONS = 200


def fit_linear(x: NDArray[np.float32], task: Task, rows: NDArray[np.int64]) -> Iterator[nn.Module]:
    """One predictor per strength (`STRENGTHS`), the most regularised first.

    Args:
        x: pooled vectors of all clips (N, D); they are standardised by those of `rows`.
    """
    own = x[rows].astype(np.float64)
    middle = own.mean(axis=0)
    scale = scale_of(middle, own.std(axis=0), len(rows))
    u, s, vt = np.linalg.svd((own - middle) / scale, full_matrices=False)
    kept = s > 1e-6 * max(1e-12, s.max(initial=0.0))
    z, back = u[:, kept] * s[kept], vt[kept] / scale  # (n, r), (r, D)
    weights = task.weights[rows] / task.weights[rows].sum()
    unit = float((s**2).sum()) / len(rows) / max(1, int(kept.sum()))
    if task.bins is not None:
        yield from _ridge(z, back, middle, task, rows, weights, unit)
        return
    truth = np.zeros((len(rows), task.columns))
    truth[task.entries(rows)] = 1.0
    independent = task.kind == "labels"
    start = np.zeros((z.shape[1] + 1, task.columns))
    start[-1] = _prior_logits(task.marginal(rows), independent=independent)
    for strength in STRENGTHS:
        start = _solved(z, truth, weights, strength * unit, start, independent=independent)
        yield _linear(start, back, middle, independent=independent)


def _prior_logits(marginal: Array, *, independent: bool) -> Array:
    p = np.clip(marginal, 1e-4, 1 - 1e-4)
    logits: Array = np.log(p / (1 - p)) if independent else np.log(p)
    return logits


def _solved(z: Array, truth: Array, weights: Array, strength: float, start: Array, *, independent: bool) -> Array:
    """The minimum of the weighted mean cross-entropy + strength / 2 |W|^2, (r + 1, K); the last row is the bias."""
    shape = start.shape

    def objective(flat: Array) -> tuple[float, Array]:
        w = flat.reshape(shape)
        logits = z @ w[:-1] + w[-1]
        if independent:  # the sum over labels of their own losses
            loss = float(weights @ (np.logaddexp(0, logits) - truth * logits).sum(axis=1))
            residual = expit(logits) - truth
        else:
            loss = float(weights @ (logsumexp(logits, axis=1) - (truth * logits).sum(axis=1)))
            residual = np.exp(log_softmax(logits, axis=1)) - truth
        residual *= weights[:, None]
        gradient = np.vstack([z.T @ residual + strength * w[:-1], residual.sum(axis=0)])
        return loss + strength / 2 * float((w[:-1] ** 2).sum()), gradient.ravel()

    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    solution: Array = found.x.reshape(shape)
    return solution


def _linear(solution: Array, back: Array, middle: Array, *, independent: bool) -> Linear:
    weight = solution[:-1].T @ back  # (K, D)
    part = Linear(weight.shape[1], len(weight), independent=independent)
    _fill(part.layer, weight, solution[-1] - weight @ middle)
    return part


def _ridge(
    z: Array, back: Array, middle: Array, task: Task, rows: NDArray[np.int64], weights: Array, unit: float
) -> Iterator[Normal]:
    assert task.bins is not None
    bins = task.bins
    places = (task.truth[rows].astype(np.float64) - bins.low) * (bins.num_bins - 1) / (bins.high - bins.low)
    mean = weights @ places
    gram = (z * weights[:, None]).T @ z  # (r, r)
    values, vectors = np.linalg.eigh(gram)
    projected = vectors.T @ (z.T @ (weights * (places - mean)))
    for strength in STRENGTHS:
        w = vectors @ (projected / (values + strength * unit))
        residual = places - mean - z @ w
        part = Normal(back.shape[1], bins.num_bins)
        weight = (w @ back)[None]
        _fill(part.layer, weight, mean - weight @ middle)
        # In training a strong fit leaves little: clips that nobody has seen are further off than that.
        part.width_bins.fill_(max(bins.sigma_bins, float(np.sqrt(weights @ residual**2))))
        yield part


def _fill(layer: nn.Linear, weight: Array, bias: Array) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(np.atleast_1d(bias)))
