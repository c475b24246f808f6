"""Intervals: whole groups are drawn, the bounds are the percentiles said, and they cover as often as they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from reelbank.heads.judging import intervals
from reelbank.heads.judging.intervals import (
    ALL_ALIKE,
    LEVEL,
    RESAMPLES,
    WHOLE_RESAMPLES,
    WILSON,
    estimate,
    group_numbers,
    interval,
    mean_estimate,
    mean_interval,
)
from reelbank.heads.judging.metrics import ClassScores, TargetScores

pytestmark = pytest.mark.usefixtures("all_resamples")


def _right(right: np.ndarray) -> ClassScores:
    """Scores of a two-class output that is right where `right` is."""
    chosen = np.where(right, 0, 1)
    return ClassScores(probabilities=np.eye(2)[chosen], truth=np.zeros(len(right), dtype=int))


def test_numbers_of_the_method_are_those_of_the_documentation() -> None:
    assert (RESAMPLES, WHOLE_RESAMPLES, LEVEL) == (2000, 500, 0.95)


def test_groups_are_numbered_in_sorted_order() -> None:
    assert group_numbers(["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]
    assert group_numbers(["10", "9", "10"]).tolist() == [0, 1, 0]
    assert group_numbers(["x"]).dtype == np.int64


def test_bounds_are_the_percentiles_of_the_normal_for_many_clips() -> None:
    """400 clips of their own group: the standard error is known, the bounds lie 1.96 of them away."""
    right = np.arange(400) % 4 != 0
    error = math.sqrt(0.75 * 0.25 / 400)
    value, low, high = interval("accuracy", _right(right), np.arange(400), seed=0)
    assert value == 0.75
    assert low == pytest.approx(0.75 - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(0.75 + 1.96 * error, abs=0.15 * error)


def test_bounds_hold_95_percent_of_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """With resamples that are known, the percentiles are too."""
    known = np.random.default_rng(0).permutation(np.linspace(0.0, 1.0, 2001))
    monkeypatch.setattr(intervals, "_resampled_means", lambda *_: known)
    half = np.arange(4) % 2 == 0
    for low, high in (
        interval("accuracy", _right(half), np.arange(4), seed=0)[1:],
        mean_interval(half.astype(float), np.arange(4), seed=0)[1:],
    ):
        assert (low, high) == (pytest.approx(0.025), pytest.approx(0.975))


def _by_hand(per_clip: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, float]:
    """The same bootstrap written plainly: groups drawn with replacement, the mean over all their clips."""
    num = int(groups.max()) + 1
    random = np.random.default_rng(seed)
    means = []
    for times in random.multinomial(num, np.full(num, 1 / num), size=2000):
        drawn = np.concatenate([np.tile(per_clip[groups == g], times[g]) for g in range(num)])
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn):
            means.append(drawn.mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def test_interval_equals_a_plain_bootstrap_over_groups_of_all_sizes() -> None:
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(9), [1, 2, 3, 4, 5, 6, 7, 8, 20])
    right = random.random(len(groups)) < 0.6
    value, low, high = interval("accuracy", _right(right), groups, seed=5)
    assert (low, high) == pytest.approx(_by_hand(right.astype(float), groups, 5))
    assert value == pytest.approx(right.mean())
    shuffled = random.permutation(len(groups))  # the order of the clips does not matter
    assert interval("accuracy", _right(right[shuffled]), groups[shuffled], seed=5) == pytest.approx((value, low, high))


def test_undefined_clips_count_nowhere() -> None:
    per_clip = np.array([1.0, np.nan, 3.0, 4.0, np.nan, 8.0, 2.0, 5.0])
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 4])
    value, low, high = mean_interval(per_clip, groups, seed=2)
    assert value == pytest.approx(23 / 6)
    assert (low, high) == pytest.approx(_by_hand(per_clip, groups, 2))


def test_groups_without_a_defined_clip_are_drawn_and_give_nothing() -> None:
    """Also where they are the last ones, and where a resample has no other."""
    per_clip, groups = np.array([1.0, 3.0, np.nan, np.nan]), np.arange(4)
    _, low, high = mean_interval(per_clip, groups, seed=2)
    assert (low, high) == pytest.approx(_by_hand(per_clip, groups, 2))
    assert (low, high) == (1.0, 3.0)
    few = np.array([1.0, 2.7, 5.1, 9.3, *[np.nan] * 8])  # a resample may have a single defined clip, once
    assert mean_interval(few, np.arange(12), seed=2)[1:] == pytest.approx(_by_hand(few, np.arange(12), 2))


@pytest.mark.parametrize(("defined", "finite"), [(250, True), (249, False), (0, False)])
def test_half_of_the_resamples_must_be_defined(defined: int, finite: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([0.5, *np.linspace(0, 1, defined), *[math.nan] * 999])
    monkeypatch.setattr(intervals, "whole_value", lambda name, truth, predicted: next(calls))
    value, low, high = interval("macro_f1", _right(np.ones(4, dtype=bool)), np.arange(4), seed=0)
    assert value == 0.5
    assert (math.isfinite(low), math.isfinite(high)) == (finite, finite)


def test_mean_interval_is_that_of_the_metric() -> None:
    random = np.random.default_rng(3)
    groups = random.integers(6, size=50)
    right = random.random(50) < 0.5
    assert mean_interval(right.astype(float), groups, seed=4) == interval("accuracy", _right(right), groups, seed=4)


def test_whole_metrics_are_resampled_over_groups() -> None:
    """Spearman over clips: no mean over clips gives it, so the clips of the drawn groups are put together."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 3)
    values = random.normal(size=24)
    predicted = values + random.normal(size=24)
    scores = TargetScores(
        probabilities=np.eye(24)[np.argsort(np.argsort(predicted))],
        bin_values=np.sort(predicted),
        truth=values,
        labels=np.eye(24),
    )
    np.testing.assert_allclose(scores.predicted, predicted)
    draws, samples = np.random.default_rng(7), []
    for _ in range(500):
        drawn = np.concatenate([np.flatnonzero(groups == g) for g in draws.integers(8, size=8)])
        samples.append(np.corrcoef(rankdata(values[drawn]), rankdata(predicted[drawn]))[0, 1])
    value, low, high = interval("spc_values", scores, groups, seed=7)
    assert value == pytest.approx(spearmanr(values, predicted).statistic)
    assert (low, high) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])))


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values, groups = np.random.default_rng(0).normal(size=40), np.arange(40) // 4
    right = values < 0
    first = mean_interval(values, groups, seed=1)
    other = mean_interval(values, groups, seed=2)  # between them the draws that are kept change
    assert mean_interval(values, groups, seed=1) == first
    assert first != other
    assert first[0] == other[0]
    whole = [interval("macro_f1", _right(right), groups, seed=seed) for seed in (1, 1, 2)]
    assert whole[0] == whole[1] != whole[2]


def test_draws_that_do_not_fit_at_once_give_bounds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    right = np.random.default_rng(0).random(60) < 0.5
    groups = np.arange(60) // 2
    at_once = interval("accuracy", _right(right), groups, seed=1)
    monkeypatch.setattr(intervals, "TABLE_ENTRIES", 30 * 300)
    sizes = [draws.shape for draws in intervals._draws(30, 1)]
    assert sizes == [(300, 30)] * 6 + [(200, 30)]
    assert all((draws.sum(axis=1) == 30).all() for draws in intervals._draws(30, 1))
    assert interval("accuracy", _right(right), groups, seed=1) == pytest.approx(at_once)  # one stream of draws


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_fewer_than_two_groups_have_no_interval(name: str) -> None:
    right = np.array([True, False, True])
    value, low, high = interval(name, _right(right), np.zeros(3, dtype=int), seed=0)
    assert math.isfinite(value)
    assert math.isnan(low)
    assert math.isnan(high)
    two = interval(name, _right(right), np.array([0, 0, 1]), seed=0)
    assert all(math.isfinite(bound) for bound in two)


def test_mean_interval_needs_two_groups() -> None:
    assert mean_interval(np.array([1.0, 3.0]), np.array([0, 0]), seed=0)[0] == 2.0
    assert np.isnan(mean_interval(np.array([1.0, 3.0]), np.array([0, 0]), seed=0)[1:]).all()
    assert np.isfinite(mean_interval(np.array([1.0, 3.0]), np.array([0, 1]), seed=0)).all()
    assert np.isnan(mean_interval(np.array([]), np.array([], dtype=int), seed=0)).all()
    assert np.isnan(mean_interval(np.array([np.nan, np.nan]), np.array([0, 1]), seed=0)).all()


def test_one_group_with_a_value_among_many_has_no_interval() -> None:
    """All resamples would be that value: an interval of width zero, from a single group."""
    per_clip = np.array([0.25, np.nan, np.nan, np.nan])
    value, low, high = mean_interval(per_clip, np.arange(4), seed=0)
    assert (value, math.isnan(low), math.isnan(high)) == (0.25, True, True)
    bins = np.array([[0.1, 0.6, 0.3], [1 / 3] * 3, [1 / 3] * 3, [1 / 3] * 3])
    scores = TargetScores(
        probabilities=bins, bin_values=np.arange(3.0), truth=np.ones(4), labels=np.tile([0.2, 0.5, 0.3], (4, 1))
    )
    value, low, high = interval("spc_bins", scores, np.arange(4), seed=0)
    assert (math.isfinite(value), math.isnan(low), math.isnan(high)) == (True, True, True)


def test_interval_is_undefined_where_most_resamples_are() -> None:
    """Two clips, one group each: half of the resamples are one clip twice, whose correlation is undefined."""

    def of(num: int) -> tuple[float, float, float]:
        scores = TargetScores(
            probabilities=np.eye(num), bin_values=np.arange(float(num)), truth=np.arange(float(num)), labels=np.eye(num)
        )
        return interval("spc_values", scores, np.arange(num), seed=0)

    assert of(4)[0] == 1.0
    assert np.isnan(of(4)[1:]).all()  # those that are defined are all 1
    constant = TargetScores(
        probabilities=np.eye(2)[[0, 0, 0, 0, 1]],
        bin_values=np.arange(2.0),
        truth=np.arange(5.0),
        labels=np.eye(5)[:, :2],
    )
    # the one clip that is predicted otherwise is in most resamples: 1 - (4/5)^5 = 0.67
    assert all(math.isfinite(bound) for bound in interval("spc_values", constant, np.arange(5), seed=0))
    same = TargetScores(
        probabilities=np.eye(2)[[0, 0]], bin_values=np.arange(2.0), truth=np.arange(2.0), labels=np.eye(2)
    )
    assert np.isnan(interval("spc_values", same, np.arange(2), seed=0)).all()


def test_clustered_clips_have_a_wider_interval_than_single_ones() -> None:
    for name in ("accuracy", "macro_f1"):
        right = np.repeat(np.random.default_rng(0).random(12) < 0.5, 8)
        by_group = interval(name, _right(right), np.arange(96) // 8, seed=0)
        by_clip = interval(name, _right(right), np.arange(96), seed=0)
        assert by_group[2] - by_group[1] > 2 * (by_clip[2] - by_clip[1])
        assert by_group[0] == by_clip[0]


@pytest.mark.parametrize(
    ("right", "group_size", "expected"),
    [
        ([1] * 10, 1, (1.0, 0.72247, 1.0)),
        ([0] * 10, 1, (0.0, 0.0, 0.27753)),
        ([1] * 3, 1, (1.0, 0.43850, 1.0)),
        ([1] * 20, 2, (1.0, 0.72247, 1.0)),  # the groups count, not their clips
        ([1, 0] * 10, 2, (0.5, 0.23659, 0.76341)),
    ],
)
def test_share_whose_resamples_are_alike_has_wilsons_interval(
    right: list[int], group_size: int, expected: tuple[float, float, float]
) -> None:
    """A bootstrap of a perfect score is [1, 1] whatever the number of clips."""
    groups = np.arange(len(right)) // group_size
    found = estimate("accuracy", _right(np.array(right, dtype=bool)), groups, seed=0)
    assert found[:3] == pytest.approx(expected, abs=1e-5)
    assert (found.how, found.num_groups) == (WILSON, len(right) // group_size)
    assert found[1:3] == pytest.approx(
        proportion_by_hand(expected[0], found.num_groups)
    )  # where |p - share| = z sqrt(p (1 - p) / n)
    if set(right) == {1}:
        whole = estimate("macro_f1", _right(np.array(right, dtype=bool)), groups, seed=0)
        assert (whole.value, whole.how, whole.num_groups) == (1.0, ALL_ALIKE, found.num_groups)
        assert np.isnan(whole[1:3]).all()
    errors = mean_estimate(np.ones(10), np.arange(10), seed=0)  # no share: an error of 1, ten times
    assert errors.how == ALL_ALIKE


def proportion_by_hand(share: float, count: int) -> tuple[float, float]:
    """The two p at which the share lies 1.96 standard errors away, by the roots of a parabola."""
    z2 = 1.959963984540054**2
    low, high = sorted(np.roots([count + z2, -(2 * count * share + z2), count * share**2]).real)
    return float(low), float(high)


def test_equal_predictions_differ_by_nothing() -> None:
    assert mean_interval(np.zeros(6), np.arange(6), seed=0) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [0.1, 0.9])
def test_an_interval_contains_its_value(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resamples of a metric that is no mean over clips may all lie to one side."""
    calls = iter([value, *np.linspace(0.4, 0.6, WHOLE_RESAMPLES)])
    monkeypatch.setattr(intervals, "whole_value", lambda name, truth, predicted: next(calls))
    found, low, high = interval("macro_f1", _right(np.ones(4, dtype=bool)), np.arange(4), seed=0)
    assert low <= found == value <= high
    assert (low, high) == pytest.approx((0.1, 0.595) if value < 0.5 else (0.405, 0.9))


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """300 worlds of 30 groups with a group effect: the truth lies inside in about 95 % of them, by clip far less often.

    The bounds allow what a percentile bootstrap over 30 groups loses and 4 standard errors of 300 draws.
    """
    random = np.random.default_rng(11)
    groups = np.arange(150) // 5
    inside, by_clip, below, above = 0, 0, 0, 0
    for _ in range(300):
        values = random.normal(size=30)[groups] + random.normal(size=150)
        _, low, high = mean_interval(values, groups, seed=3)
        inside += low <= 0 <= high
        below += high < 0
        above += low > 0
        error = 1.96 * values.std() / math.sqrt(150)
        by_clip += abs(values.mean()) <= error
    assert 0.885 <= inside / 300 <= 0.98
    assert by_clip / 300 < 0.75
    assert 0.002 <= below / 300 <= 0.07
    assert 0.002 <= above / 300 <= 0.07
