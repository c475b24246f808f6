"""Losses of classes, clip by clip."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Array = np.ndarray


class Classified(Protocol):
    """What classes were predicted: probabilities (N, K) and true class numbers (N,), -1 for one never seen."""

    @property
    def probabilities(self) -> Array:
        """(N, K)."""

    @property
    def truth(self) -> Array:
        """(N,) int64."""


NLL_CLIP = 1e-15
"""A probability below it counts as this: one clip that is certain and wrong costs 34.5 nats, not infinity."""


def cross_entropies(scores: Classified) -> Array:
    """-log of the true class's probability in nats: (N,); NaN for a class that training never saw."""
    true, known = _of_truth(scores)
    return np.where(known, -np.log(np.clip(true, NLL_CLIP, None)), np.nan)


def cross_entropies_on_softmax(scores: Classified) -> Array:
    """Cross-entropy with the probabilities in the place of logits, in nats: (N,); NaN for a class never seen.

    From ln(e + K - 1) - 1 where the true class is certain to that plus 1 where a wrong one is (SYSTEMS.md 5.2).
    """
    true, known = _of_truth(scores)
    return np.where(known, np.log(np.exp(scores.probabilities.astype(np.float64)).sum(axis=1)) - true, np.nan)


def _of_truth(scores: Classified) -> tuple[Array, Array]:
    """(probability of the true class (N,), whether training saw it (N,))."""
    places = np.maximum(scores.truth, 0)[:, None]
    true: Array = np.take_along_axis(scores.probabilities.astype(np.float64), places, axis=1)[:, 0]
    return true, scores.truth >= 0
