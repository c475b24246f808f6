"""What every metric keeps to: its direction, NaN where it is undefined, an interval around its value."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np

from reelbank.heads.examples.targets import Bins
from reelbank.heads.judging.intervals import group_numbers, interval
from reelbank.heads.judging.metrics import METRICS, ClassScores, LabelScores, Scores, TargetScores, evaluate
from reelbank.testing.checking import run

BINS = Bins(target="speed", num_bins=20, low=0.0, high=10.0, sigma_bins=1.5)
NUM_CLIPS, NUM_CLASSES = 60, 7


def check_metric(name: str) -> None:
    """Checks everything that a metric promises; `name` is an entry point's, or `module:attribute`."""
    run(CHECKS, name, f"metric {name!r}")


def scores_of(name: str, seed: int = 0) -> Scores:
    """Random predictions of 60 clips, of the output that the metric judges; targets lie in [0, 10]."""
    random = np.random.default_rng(seed)
    if METRICS.row(name).output == "label":
        probabilities = random.dirichlet(np.ones(NUM_CLASSES), size=NUM_CLIPS)
        return ClassScores(probabilities=probabilities, truth=random.integers(NUM_CLASSES, size=NUM_CLIPS))
    if METRICS.row(name).output == "labels":
        chances = random.random((2, NUM_CLIPS, NUM_CLASSES))
        return LabelScores(probabilities=chances[0], truth=chances[1] > 0.7)
    truth = random.uniform(0, 10, size=NUM_CLIPS)
    return TargetScores(
        probabilities=random.dirichlet(np.ones(20), size=NUM_CLIPS),
        bin_values=BINS.values(),
        truth=truth,
        labels=BINS.distributions(truth),
    )


def perfect_prediction_is_better(name: str) -> None:
    poor = scores_of(name)
    best: Scores
    if isinstance(poor, LabelScores):
        best = LabelScores(probabilities=poor.truth.astype(np.float64), truth=poor.truth)
    elif isinstance(poor, ClassScores):
        best = ClassScores(probabilities=np.eye(NUM_CLASSES)[poor.truth], truth=poor.truth)
    else:
        best = TargetScores(probabilities=poor.labels, bin_values=poor.bin_values, truth=poor.truth, labels=poor.labels)
    good, bad, up = evaluate(name, best), evaluate(name, poor), METRICS.row(name).higher_is_better
    assert good > bad if up else good < bad, f"perfect {good}, random {bad}, higher_is_better {up}"


def no_clips_give_nan_without_a_warning(name: str) -> None:
    scores: Scores
    if METRICS.row(name).output == "labels":
        scores = LabelScores(probabilities=np.empty((0, 3)), truth=np.empty((0, 3), dtype=bool))
    elif METRICS.row(name).output == "label":
        scores = ClassScores(probabilities=np.empty((0, 3)), truth=np.empty(0, dtype=int))
    else:
        empty = np.empty((0, 20))
        scores = TargetScores(probabilities=empty, bin_values=BINS.values(), truth=np.empty(0), labels=empty)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(evaluate(name, scores)), f"of no clips it is {evaluate(name, scores)}"
        assert all(np.isnan(interval(name, scores, np.empty(0, dtype=int), seed=0)))


def interval_holds_the_value_and_is_the_same_twice(name: str) -> None:
    scores = scores_of(name)
    groups = group_numbers([f"g{i // 4}" for i in range(NUM_CLIPS)])
    value, low, high = interval(name, scores, groups, seed=3)
    assert low <= value <= high, f"{low = }, {value = }, {high = }"
    np.testing.assert_allclose(value, evaluate(name, scores))
    assert (value, low, high) == interval(name, scores, groups, seed=3)


CHECKS: Mapping[str, Callable[[str], None]] = {
    check.__name__: check
    for check in (
        perfect_prediction_is_better,
        no_clips_give_nan_without_a_warning,
        interval_holds_the_value_and_is_the_same_twice,
    )
}
