"""Bins and classes: what a value is softened to, what a distribution stands for, and that both ways agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from reelbank.heads import TrainingError
from reelbank.heads.examples.labelling import vocabulary
from reelbank.heads.examples.targets import (
    DEFAULT_RANGES,
    UNITS,
    Bins,
    balanced_weights,
    class_distributions,
    class_numbers,
    estimate_of_logits,
    make_bins,
)
from reelbank.heads.judging.metrics import point_estimate

# 9 bins of width 5 from -10 to 30
BINS = Bins(target="mass", num_bins=9, low=-10.0, high=30.0, sigma_bins=1.5)


@pytest.mark.parametrize("kind", ["argmax", "expectation", "median"])
def test_training_and_report_read_a_distribution_alike(kind: str) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, 9)) * 3
    logits[0] = 0.0  # all bins equal: the first, the middle, the bin at which half is reached
    logits[1, [2, 6]] = 50.0  # two equal peaks
    q = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ours = estimate_of_logits(torch.from_numpy(logits), torch.from_numpy(BINS.values()), kind)
    assert ours.shape == (40,)
    np.testing.assert_allclose(ours.numpy(), point_estimate(q, BINS.values(), kind), atol=1e-9)


def test_estimates_of_logits_by_hand() -> None:
    values = torch.tensor([0.0, 10.0, 20.0])
    logits = torch.tensor([[0.45, 0.1, 0.45], [0.1, 0.2, 0.7]]).log()
    assert estimate_of_logits(logits, values, "argmax").tolist() == [0.0, 20.0]
    assert estimate_of_logits(logits, values, "expectation").tolist() == pytest.approx([10.0, 16.0])
    assert estimate_of_logits(logits, values, "median").tolist() == [10.0, 20.0]


def test_bins_go_from_the_first_value_to_the_last() -> None:
    assert BINS.values().tolist() == [-10, -5, 0, 5, 10, 15, 20, 25, 30]


@pytest.mark.parametrize(
    ("value", "place"),
    [(-10, 0), (-7.6, 0), (-7.5, 0), (-7.4, 1), (0, 2), (12.5, 4), (12.6, 5), (30, 8), (-99, 0), (99, 8)],
)
def test_nearest_bin_and_of_two_the_lower(value: float, place: int) -> None:
    assert BINS.nearest(np.array([value])).tolist() == [place]
    hard = Bins(**{**vars(BINS), "labels": "hard"})
    assert hard.distributions(np.array([value])).tolist() == [np.eye(9)[place].tolist()]


def test_soft_labels_are_gaussians_over_the_bins() -> None:
    values = np.array([-10.0, 2.0, 17.5, 30.0, -50.0, 70.0])
    places = (np.clip(values, -10, 30) + 10) / 5
    expected = norm.pdf(np.arange(9)[None], places[:, None], 1.5)
    np.testing.assert_allclose(BINS.distributions(values), expected / expected.sum(axis=1, keepdims=True))


def test_bins_are_read_back_and_know_their_unit() -> None:
    assert BINS.to_json() == {
        "target": "mass",
        "num_bins": 9,
        "low": -10.0,
        "high": 30.0,
        "sigma_bins": 1.5,
        "labels": "soft",
        "unit": "",
    }
    assert Bins.from_json(BINS.to_json()) == BINS
    assert Bins(**{**vars(BINS), "target": "kcal"}).unit == "kcal/h"
    assert (UNITS, DEFAULT_RANGES) == ({"kcal": "kcal/h"}, {"kcal": (0.0, 1000.0)})


def _make(target: str, values: list[float], value_range: tuple[float, float] | None = None) -> Bins:
    return make_bins(
        target, np.array(values), num_bins=7, value_range=value_range, sigma_bins=2.0, labels="hard"
    )  # fmt: skip


def test_range_is_that_asked_for_or_published_or_of_the_training_clips() -> None:
    asked = _make("kcal", [2.0, 4.0], (0.0, 8.0))
    assert (asked.low, asked.high, asked.num_bins, asked.sigma_bins, asked.labels) == (0.0, 8.0, 7, 2.0, "hard")
    published = _make("kcal", [2.0, 4.0])
    assert (published.low, published.high) == (0.0, 1000.0)
    own = _make("mass", [3.0, -2.0, 9.0])
    assert (own.low, own.high, own.target) == (-2.0, 9.0, "mass")
    ends = _make("mass", [2.0, 4.0], (2.0, 4.0))
    assert (ends.low, ends.high) == (2.0, 4.0)


def test_values_that_no_bin_can_hold_are_counted_and_refused() -> None:
    with pytest.raises(TrainingError, match=r"'mass' is empty or not finite in 2 of 4 training clips"):
        _make("mass", [1.0, math.nan, math.inf, 2.0])
    with pytest.raises(TrainingError, match=r"3 of 5 training clips lie outside 2:4 \(they go from 1 to 9\)"):
        _make("mass", [1.0, 2.0, 4.0, 5.0, 9.0], (2.0, 4.0))
    with pytest.raises(TrainingError, match=r"'mass' is 3 for every training clip"):
        _make("mass", [3.0, 3.0])


def test_classes_are_sorted_and_numbered_by_place() -> None:
    assert vocabulary(["b", "c", "a", "b", "e", "d"]) == ("a", "b", "c", "d", "e")
    assert class_numbers(["c", "zz", "a", ""], ("a", "b", "c")).tolist() == [2, -1, 0, -1]
    with pytest.raises(TrainingError, match="found only 'x'"):
        vocabulary(["x", "x"])
    for labels in ([], [""]):
        with pytest.raises(TrainingError, match="found no label"):
            vocabulary(labels)


def test_class_labels_are_one_hot_or_smoothed() -> None:
    numbers = torch.tensor([2, 0])
    assert class_distributions(numbers, 3, 0.0).tolist() == [[0, 0, 1], [1, 0, 0]]
    smooth = class_distributions(numbers, 4, 0.2)
    assert smooth[0].tolist() == pytest.approx([0.05, 0.05, 0.85, 0.05])
    assert smooth.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_balanced_weights_are_inverse_to_how_often_a_class_is() -> None:
    assert balanced_weights(np.array([0, 0, 0, 2]), 3).tolist() == pytest.approx([4 / 9, 0.0, 4 / 3])
