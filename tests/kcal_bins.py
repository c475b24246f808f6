"""The published bins of the calorie study: the soft label of a value, and scores of one prediction."""

from __future__ import annotations

import numpy as np

from reelbank.heads.examples.targets import Bins
from reelbank.heads.judging.metrics import TargetScores

KCAL = Bins(target="kcal", num_bins=1000, low=0.0, high=1000.0, sigma_bins=5.0)


def label_of(value: float) -> np.ndarray:
    """The soft label of a value, (1000,)."""
    return KCAL.distributions(np.array([value]))[0]


def scores_of(predicted: np.ndarray, value: float = 400.0) -> TargetScores:
    """One clip of that value, predicted as the distribution (1000,)."""
    truth = np.array([value])
    return TargetScores(
        probabilities=predicted[None], bin_values=KCAL.values(), truth=truth, labels=KCAL.distributions(truth)
    )
