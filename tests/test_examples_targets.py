"""Softened bins, their golden numbers (SYSTEMS.md section 7), and classes as numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kcal_bins import KCAL, label_of, scores_of
from scipy.stats import entropy

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.labelling import vocabulary
from reelbank.heads.examples.targets import (
    Bins,
    balanced_weights,
    class_numbers,
    make_bins,
)
from reelbank.heads.judging.metrics import nll_per_clip, spc_bins_per_clip


def test_soft_label_of_400_has_the_published_peak() -> None:
    p = label_of(400.0)
    assert p.argmax() == 400
    assert p[[399, 400, 401]] == pytest.approx([0.0792160, 0.0795335, 0.0767213], abs=5e-8)
    assert entropy(p) == pytest.approx(3.028376, abs=5e-7)


@pytest.mark.parametrize("value", [0.0, 3.0, 500.0, 1000.0])
def test_soft_label_is_a_distribution_at_borders_too(value: float) -> None:
    assert label_of(value).sum() == pytest.approx(1.0, abs=1e-12)


def test_raw_density_of_1001_bins_is_the_printed_formula() -> None:
    """Register of readings, 3: a value is its own bin, and at a border the sum is 0.54, not 1."""
    bins = Bins(target="kcal", num_bins=1001, low=0.0, high=1000.0, sigma_bins=5.0, labels="density")
    p = bins.distributions(np.array([400.0, 500.0, 0.0]))
    assert p.argmax(axis=1).tolist() == [400, 500, 0]
    assert p[0, 400] == pytest.approx(1 / (5 * math.sqrt(2 * math.pi)))
    assert p[0, 405] == pytest.approx(math.exp(-0.5) / (5 * math.sqrt(2 * math.pi)))
    assert p.sum(axis=1) == pytest.approx([1, 1, 0.54], abs=5e-3)


def test_bins_hit_by_labels_are_the_published_ones() -> None:
    labels = np.array([0, 1, 89, 250, 500, 501, 750, 999, 1000], dtype=float)
    expected = [0, 1, 89, 250, 499, 500, 749, 998, 999]
    assert KCAL.nearest(labels).tolist() == expected
    hard = Bins(target="kcal", num_bins=1000, low=0.0, high=1000.0, sigma_bins=5.0, labels="hard")
    assert hard.distributions(labels).argmax(axis=1).tolist() == expected


def test_bin_values_end_at_the_range() -> None:
    assert KCAL.values()[[0, 1, 999]] == pytest.approx([0.0, 1000 / 999, 1000.0])


@pytest.mark.parametrize(
    ("shift", "nll", "spc"),
    [(5, 4.512, 0.9921), (10, 6.033, 0.9832), (25, 16.53, 0.9502), (50, 35.50, 0.8762), (100, 35.57, 0.6683)],
)
def test_shifted_predictions_have_the_published_nll_and_spc(shift: int, nll: float, spc: float) -> None:
    scores = scores_of(label_of(400.0 + shift))
    assert nll_per_clip(scores)[0] == pytest.approx(nll, rel=2e-4)
    assert spc_bins_per_clip(scores)[0] == pytest.approx(spc, abs=1e-4)


def test_nll_of_uniform_and_of_perfect_predictions_is_the_published_one() -> None:
    assert nll_per_clip(scores_of(np.full(1000, 1e-3)))[0] == pytest.approx(7.907255, abs=1e-6)
    assert nll_per_clip(scores_of(label_of(400.0)))[0] == pytest.approx(3.999532, abs=1e-6)


def test_make_bins_takes_0_to_1000_for_kcal_and_the_training_range_else() -> None:
    values = np.array([20.0, 70.0])
    options = {"num_bins": 10, "value_range": None, "sigma_bins": 1.0, "labels": "soft"}
    assert (make_bins("kcal", values, **options).low, make_bins("kcal", values, **options).high) == (0, 1000)
    assert (make_bins("speed", values, **options).low, make_bins("speed", values, **options).high) == (20, 70)


@pytest.mark.parametrize(
    ("values", "value_range", "message"),
    [
        ([1.0, np.nan, np.nan], None, "not finite in 2 of 3 training clips"),
        ([1.0, 2000.0], (0.0, 1000.0), "1 of 2 training clips lie outside 0:1000"),
        ([3.0, 3.0], None, "is 3 for every training clip"),
        (
            [1e16, 1e16 + 2],
            None,
            "10 bins from 10000000000000000 to 10000000000000002 are closer together than numbers",
        ),
        ([1e-310, 2e-310], None, "closer together than numbers can be"),
    ],
)
def test_make_bins_refuses_bad_targets(
    values: list[float], value_range: tuple[float, float] | None, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        make_bins("y", np.array(values), num_bins=10, value_range=value_range, sigma_bins=1.0, labels="soft")


def test_vocabulary_is_sorted_and_needs_two_classes() -> None:
    assert vocabulary(["b", "a", "b"]) == ("a", "b")
    assert class_numbers(["b", "new"], ("a", "b")).tolist() == [1, -1]
    with pytest.raises(TrainingError, match=r"at least 2 classes .* found only 'a'"):
        vocabulary(["a", "a"])


def test_balanced_weights_make_every_class_weigh_the_same() -> None:
    numbers = np.array([0, 0, 0, 1])
    weights = balanced_weights(numbers, 3)
    assert weights.tolist() == pytest.approx([4 / 9, 4 / 3, 0.0])
