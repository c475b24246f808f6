"""What a guesser who never looks at a video would score: stored beside every metric of a run.

Computed from the actual split (SYSTEMS.md 1.16). Training labels are all a baseline may know, except the oracle.
Each function returns {metric: value} under the names of `metrics.METRICS`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reelbank.heads.examples.targets import Bins
from reelbank.heads.judging.label_sets import random_precision
from reelbank.heads.judging.metrics import (
    ClassScores,
    LabelScores,
    TargetScores,
    evaluate,
    mean_where_defined,
    names_of,
)


def of_classes(train: np.ndarray, truth: np.ndarray, num_classes: int) -> dict[str, dict[str, float]]:
    """{baseline: {metric: value}} of the class output.

    Args:
        train: class numbers of the clips whose labels a baseline knows, int64, none of them -1.
        truth: class numbers of the clips evaluated, -1 for a class that training never saw.
    """
    evenly = uniform_random_class(truth, num_classes)
    return {"majority_class": majority_class(train, truth, num_classes), "uniform_random_class": evenly}


def of_label_sets(train: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """{baseline: {metric: value}} of independent labels: each as probable as it is frequent in training; random order.

    What is undefined, as without a positive, is left out.

    Args:
        train: which clip has which label, of the clips whose labels a baseline knows, bool (n, K).
        truth: the same of the clips evaluated, (N, K).
    """
    if not len(truth) or not len(train):
        return {"training_prevalence": {}, "random_order": {}}
    scores = LabelScores(probabilities=np.tile(train.mean(axis=0), (len(truth), 1)), truth=truth)
    drawn = [random_precision(int(count), len(truth)) for count in truth.sum(axis=0)]
    found = {
        "training_prevalence": {name: evaluate(name, scores) for name in names_of("labels")},
        "random_order": {"macro_ap": mean_where_defined(np.array(drawn))},
    }
    return {guess: {name: v for name, v in values.items() if not np.isnan(v)} for guess, values in found.items()}


def of_target(bins: Bins, train: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """{baseline: {metric: value}} of the target output.

    Args:
        train: values of the clips whose targets a baseline knows, all finite.
        truth: values of the clips evaluated; `labels` their classes: where one has none there is no oracle.
    """
    found = {
        "constant_median": constant_median(train, truth),
        "uniform_random_bin": uniform_random_bin(bins.values(), truth),
        "random_training_label": random_training_label(train, truth),
        "label_marginal": label_marginal(bins, train, truth),
    }
    if all(labels):
        found["class_mean_oracle"] = class_mean_oracle(labels, truth)
    return found


def majority_class(train: np.ndarray, truth: np.ndarray, num_classes: int) -> dict[str, float]:
    """Always the most frequent training class (its top 5: the five most frequent); the first of equals."""
    if len(truth) == 0:
        return {}
    frequency = np.bincount(train, minlength=num_classes).astype(np.float64)
    constant = ClassScores(probabilities=np.tile(frequency, (len(truth), 1)), truth=truth)
    return {name: evaluate(name, constant) for name in ("accuracy", "top5_accuracy", "macro_f1", "weighted_f1")}


def uniform_random_class(truth: np.ndarray, num_classes: int) -> dict[str, float]:
    """A class drawn evenly from the K known ones: the expected value, 1 / K of the clips whose class is known."""
    if len(truth) == 0:
        return {}
    known = float((truth >= 0).mean())
    return {"accuracy": known / num_classes, "top5_accuracy": known * min(5 / num_classes, 1.0)}


def constant_median(train: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Always the median of the training values."""
    return {"mae": _mean(np.abs(truth - float(np.median(train))))}


def class_mean_oracle(labels: Sequence[str], truth: np.ndarray) -> dict[str, float]:
    """The mean value of the clip's true class among the clips evaluated: what knowing the class would give."""
    if len(truth) == 0:
        return {}
    numbers = np.unique(np.asarray(labels, dtype=str), return_inverse=True)[1]
    means = np.bincount(numbers, weights=truth) / np.bincount(numbers)
    return {"mae": float(np.abs(truth - means[numbers]).mean())}


def uniform_random_bin(bin_values: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """A bin drawn evenly: the expected error, mean over clips and bins of |value(n) - y|."""
    return {"mae": _mean_distance(bin_values, truth)}


def random_training_label(train: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The value of a training clip drawn evenly: the expected error."""
    return {"mae": _mean_distance(train, truth)}


def label_marginal(bins: Bins, train: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """For every clip the mean of the softened training labels as the predicted distribution."""
    if len(truth) == 0:
        return {}
    values, counts = np.unique(train, return_counts=True)
    marginal = (bins.distributions(values) * (counts / counts.sum())[:, None]).sum(axis=0)
    marginal /= marginal.sum()  # labels that are densities sum to less
    scores = TargetScores(
        probabilities=np.broadcast_to(marginal, (len(truth), len(marginal))),
        bin_values=bins.values(),
        truth=truth,
        labels=bins.distributions(truth),
    )
    return {name: evaluate(name, scores) for name in ("nll", "nll_mean")}


def _mean(errors: np.ndarray) -> float:
    """NaN without clips."""
    return float(errors.mean()) if len(errors) else float("nan")


def _mean_distance(guesses: np.ndarray, truth: np.ndarray) -> float:
    """Mean over all pairs of |guess - y|, by sorted sums: no (guesses x clips) table."""
    if len(truth) == 0:
        return float("nan")
    ordered = np.sort(guesses)
    sums = np.r_[0.0, np.cumsum(ordered)]
    below = np.searchsorted(ordered, truth)  # guesses below each y
    total = truth * below - sums[below] + (sums[-1] - sums[below]) - truth * (len(ordered) - below)
    return float(total.mean() / len(ordered))
