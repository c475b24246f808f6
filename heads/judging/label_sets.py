"""Metrics of clips that have several labels, as pure functions: truth (N, K) bool, probabilities (N, K) of each label.

K are the classes that training knows. NaN means undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray

THRESHOLD = 0.5
"""A label of this probability or more is predicted."""


@dataclass(frozen=True, kw_only=True)
class LabelScores:
    """Predictions of independent labels: `probabilities` (N, K), `truth` (N, K) bool."""

    probabilities: Array
    truth: Array

    def __post_init__(self) -> None:
        if self.probabilities.ndim != 2 or self.truth.shape != self.probabilities.shape:
            raise ValueError(f"{self.probabilities.shape = }, {self.truth.shape = }: expected the same (N, K)")

    @property
    def predicted(self) -> Array:
        """What the metrics compare with the truth: the probabilities, (N, K)."""
        return self.probabilities


def average_precision(truth: Array, scores: Array) -> float:
    """Average precision of one class: sum over thresholds of (recall_n - recall_(n-1)) precision_n.

    Clips of one score count at one threshold, so that their order does not matter; equal scores for all give the share
    of positives. As scikit-learn's `average_precision_score`; NaN without a positive.

    Args:
        truth: (N,) bool.
        scores: (N,).
    """
    num_positive = int(truth.sum())
    if not num_positive:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    right = truth[order].cumsum()[ends]
    return float((np.diff(right, prepend=0) * right / (ends + 1)).sum() / num_positive)


def average_precisions(truth: Array, probabilities: Array) -> Array:
    """`average_precision` of each class, (K,): NaN where no clip has it."""
    return np.array([average_precision(truth[:, k], probabilities[:, k]) for k in range(truth.shape[1])])


def random_precision(num_positive: int, num_clips: int) -> float:
    """Average precision that clips in random order have on average; NaN without a positive.

    ((R - 1) / (N - 1) (N - H_N) + H_N) / N with R positives among N clips and H_N = 1 + 1/2 + ... + 1/N (Bestgen 2015,
    Exact Expected Average Precision of the Random Baseline for System Evaluation). With few positives that is far above
    their share: 0.19 for 2 of 24.
    """
    if not num_positive:
        return float("nan")
    harmonic = float((1 / np.arange(1, num_clips + 1)).sum())
    share = (num_positive - 1) / max(1, num_clips - 1)
    return (share * (num_clips - harmonic) + harmonic) / num_clips


def macro_ap(truth: Array, probabilities: Array) -> float:
    """Mean average precision over the classes that some clip has (mAP)."""
    precisions = average_precisions(truth, probabilities)
    known = ~np.isnan(precisions)
    return float(precisions[known].mean()) if known.any() else float("nan")


def micro_f1_at_half(truth: Array, probabilities: Array) -> float:
    """2 TP / (2 TP + FP + FN) of all labels of all clips together; NaN where none is there or predicted."""
    right, total = _counts(truth, probabilities)
    return float(2 * right.sum() / total.sum()) if total.sum() else float("nan")


def macro_f1_at_half(truth: Array, probabilities: Array) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN), over those that are there or predicted; NaN without one."""
    right, total = _counts(truth, probabilities)
    return float((2 * right[total > 0] / total[total > 0]).mean()) if total.any() else float("nan")


def _counts(truth: Array, probabilities: Array) -> tuple[Array, Array]:
    """(TP, 2 TP + FP + FN) of each class."""
    predicted = probabilities >= THRESHOLD
    return (truth & predicted).sum(axis=0), truth.sum(axis=0) + predicted.sum(axis=0)


def per_label(labels: Sequence[str], scores: LabelScores) -> list[dict[str, Any]]:
    """An entry for each of independent labels; both average precisions are null where no clip has it."""
    counts, found = scores.truth.sum(axis=0), average_precisions(scores.truth, scores.probabilities)
    size = len(scores.truth)
    return [
        {
            "label": label,
            "clips": int(n),
            "share": float(n / size),
            "average_precision": None if np.isnan(ap) else float(ap),
            "random_order": None if n == 0 else random_precision(int(n), size),
        }
        for label, n, ap in zip(labels, counts.tolist(), found.tolist(), strict=True)
    ]
