"""What predictions come to class by class: F1 and its means, precision and recall, which classes are taken for which.

A class that training never saw is never predicted: its recall and F1 are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray

MOST_CONFUSED = 5
"""Pairs of classes that are named."""


def macro_f1(truth: Array, predicted: Array) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN), over the classes in truth or prediction; NaN without clips.

    Args:
        truth, predicted: class numbers (N,), -1 for a class that training never saw.
    """
    if len(truth) == 0:
        return float("nan")
    true_count, predicted_count, right = _counts(truth, predicted)
    total = true_count + predicted_count
    return float((2 * right[total > 0] / total[total > 0]).mean())


def weighted_f1(truth: Array, predicted: Array) -> float:
    """Mean over clips of the F1 of their true class: each class counts as often as it is true; NaN without clips.

    As scikit-learn's `f1_score(average="weighted")`. Arguments as of `macro_f1`.
    """
    if len(truth) == 0:
        return float("nan")
    true_count, predicted_count, right = _counts(truth, predicted)
    there = true_count > 0
    f1 = 2 * right[there] / (true_count + predicted_count)[there]
    return float((f1 * true_count[there]).sum() / len(truth))


def _counts(truth: Array, predicted: Array) -> tuple[Array, Array, Array]:
    """(clips of the class, clips predicted as it, clips of both) by class number + 1: class -1 is in place 0."""
    size = int(max(truth.max(), predicted.max())) + 2
    true_count = np.bincount(truth + 1, minlength=size)
    predicted_count = np.bincount(predicted + 1, minlength=size)
    return true_count, predicted_count, np.bincount(truth[truth == predicted] + 1, minlength=size)


def by_class(labels: Sequence[str], counts: Array) -> dict[str, Any]:
    """{class_report, most_confused}: what results.json has of a split that is judged by class."""
    return {"class_report": class_report(labels, counts), "most_confused": most_confused(labels, counts)}


def class_report(labels: Sequence[str], counts: Array) -> list[dict[str, Any]]:
    """{label, clips, predicted, precision, recall, f1} of each class that is there or predicted.

    Args:
        counts: clips by true (rows) and predicted class (K, K).

    Returns:
        predicted: how many clips are said to be it. precision = TP / predicted, null where that is 0; recall =
        TP / clips, null where there are none; f1 = 2 TP / (clips + predicted).
    """
    clips, said, right = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    return [
        {
            "label": labels[k],
            "clips": int(clips[k]),
            "predicted": int(said[k]),
            "precision": float(right[k] / said[k]) if said[k] else None,
            "recall": float(right[k] / clips[k]) if clips[k] else None,
            "f1": float(2 * right[k] / (clips[k] + said[k])),
        }
        for k in np.flatnonzero(clips + said).tolist()
    ]


def most_confused(labels: Sequence[str], counts: Array, most: int = MOST_CONFUSED) -> list[dict[str, Any]]:
    """{true, predicted, clips, share} of the pairs with most clips of one class predicted as another, most first.

    Of equally many the larger share of the true class's clips comes first, then the order of `labels`.

    Args:
        counts: as of `class_report`.
    """
    wrong = counts - np.diag(counts.diagonal())
    shares = row_shares(wrong, counts.sum(axis=1))
    rows, columns = np.nonzero(wrong)
    order = np.lexsort((columns, rows, -shares[rows, columns], -wrong[rows, columns]))[:most]
    return [
        {
            "true": labels[row],
            "predicted": labels[column],
            "clips": int(wrong[row, column]),
            "share": float(shares[row, column]),
        }
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
    ]


def row_shares(counts: Array, totals: Array | None = None) -> Array:
    """Each row over its sum, or over `totals` (K,): float64 (K, K), 0 in a row without clips."""
    sums = counts.sum(axis=1) if totals is None else totals
    shares: Array = counts / np.maximum(sums, 1)[:, None]
    return shares
