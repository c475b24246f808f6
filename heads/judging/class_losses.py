"""Losses of classes, clip by clip, from probabilities (N, K) and true class numbers (N,), -1 for one never seen."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
LEAST = 1e-15
"""A probability below it counts as this: one clip that is certain and wrong costs 34.5 nats, not infinity."""


def cross_entropies(probabilities: Array, truth: Array) -> Array:
    """-log of the true class's probability in nats: (N,); NaN for a class that training never saw."""
    true, known = _of_truth(probabilities, truth)
    return np.where(known, -np.log(np.clip(true, LEAST, None)), np.nan)


def cross_entropies_on_softmax(probabilities: Array, truth: Array) -> Array:
    """Cross-entropy with the probabilities in the place of logits, in nats: (N,); NaN for a class never seen.

    From ln(e + K - 1) - 1 where the true class is certain to that plus 1 where a wrong one is (SYSTEMS.md 5.2).
    """
    true, known = _of_truth(probabilities, truth)
    return np.where(known, np.log(np.exp(probabilities.astype(np.float64)).sum(axis=1)) - true, np.nan)


def _of_truth(probabilities: Array, truth: Array) -> tuple[Array, Array]:
    """(probability of the true class (N,), whether training saw it (N,))."""
    places = np.maximum(truth, 0)[:, None]
    true: Array = np.take_along_axis(probabilities.astype(np.float64), places, axis=1)[:, 0]
    return true, truth >= 0
