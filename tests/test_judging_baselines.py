"""What a guesser may know: training labels, and nothing of the clips it is judged on. Oracles are the exception."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted import BINS, clips, partition, predictions, prepared, sure_of

from reelbank.heads.judging import baselines, intervals
from reelbank.heads.judging.evaluation import split_results

CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bound is looked at here, and drawing is what takes the time."""
    monkeypatch.setattr(intervals, "RESAMPLES", 4)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 4)


def test_majority_is_the_first_of_the_most_frequent_training_classes() -> None:
    truth = np.array([0, 1, 1, 2, 2, 2])
    assert baselines.majority_class(np.array([1, 1, 0, 2]), truth, 3)["accuracy"] == pytest.approx(2 / 6)
    assert baselines.majority_class(np.array([2, 2, 1, 1]), truth, 3)["accuracy"] == pytest.approx(2 / 6)
    assert baselines.majority_class(np.array([0]), truth, 3)["accuracy"] == pytest.approx(1 / 6)
    assert baselines.majority_class(np.array([0]), np.array([], dtype=int), 3) == {}


def test_majority_top_five_are_the_five_most_frequent() -> None:
    train = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 6, 7])
    found = baselines.majority_class(train, np.arange(7), 7)
    assert found["top5_accuracy"] == pytest.approx(5 / 7)
    assert found["accuracy"] == pytest.approx(1 / 7)
    assert baselines.majority_class(train, np.array([0, 1]), 7)["top5_accuracy"] == 0.0
    assert baselines.majority_class(train, np.array([2, 3]), 7)["top5_accuracy"] == 1.0
    assert baselines.majority_class(np.array([0]), np.array([2]), 3)["top5_accuracy"] == 1.0  # 3 classes are 5 at most


def test_majority_macro_f1_by_hand() -> None:
    # always 1: class 1 has TP 2, FP 2 -> 2/3; classes 0 and 2 have none -> 0
    found = baselines.majority_class(np.array([1, 1, 0]), np.array([0, 1, 1, 2]), 4)
    assert found["macro_f1"] == pytest.approx((0 + 2 / 3 + 0) / 3)


def test_uniform_class_expects_one_in_k_of_the_known_clips() -> None:
    assert baselines.uniform_random_class(np.array([0, 1, -1, 2]), 4) == {"accuracy": 0.1875, "top5_accuracy": 0.75}
    assert baselines.uniform_random_class(np.array([0, 5]), 10) == {"accuracy": 0.1, "top5_accuracy": 0.5}
    assert baselines.uniform_random_class(np.array([], dtype=int), 10) == {}


def test_constants_by_hand() -> None:
    assert baselines.constant_median(np.array([1.0, 2.0, 9.0]), np.array([0.0, 5.0])) == {"mae": 2.5}
    assert baselines.constant_median(np.array([1.0, 3.0]), np.array([5.0]))["mae"] == 3.0
    assert baselines.constant_median(np.array([4.0, 4.0, 9.0]), np.array([1.0, 5.0])) == {"mae": 2.0}
    assert math.isnan(baselines.constant_median(np.array([4.0]), np.array([]))["mae"])


def test_expected_errors_by_hand() -> None:
    # pairs |1-2| |1-4| |3-2| |3-4| -> (1 + 3 + 1 + 1) / 4
    assert baselines.random_training_label(np.array([3.0, 1.0]), np.array([4.0, 2.0]))["mae"] == pytest.approx(1.5)
    assert baselines.uniform_random_bin(np.array([0.0, 10.0]), np.array([4.0]))["mae"] == pytest.approx(5.0)
    # guesses below, at and above the truth, and one on either end
    assert baselines.random_training_label(np.array([1.0, 2.0, 3.0]), np.array([2.0, 9.0, -1.0]))[
        "mae"
    ] == pytest.approx(np.mean([1, 0, 1, 8, 7, 6, 2, 3, 4]))
    assert math.isnan(baselines.random_training_label(np.array([1.0]), np.array([]))["mae"])


def test_oracle_is_the_mean_of_the_true_class_among_the_judged() -> None:
    # class a: 1, 5 -> mean 3, errors 2 2; class b: 10 -> error 0
    assert baselines.class_mean_oracle(["a", "b", "a"], np.array([1.0, 10.0, 5.0]))["mae"] == pytest.approx(4 / 3)
    assert baselines.class_mean_oracle([], np.array([])) == {}


def test_label_marginal_is_the_mean_softened_training_label() -> None:
    train, truth = np.array([2.0, 2.0, 8.0]), np.array([2.0, 5.0])
    q = BINS.distributions(train).mean(axis=0).clip(1e-15, 1 - 1e-15)
    p = BINS.distributions(truth)
    expected = -(p * np.log(q) + (1 - p) * np.log(1 - q)).sum(axis=1).mean()
    assert baselines.label_marginal(BINS, train, truth) == {
        "nll": pytest.approx(expected),
        "nll_mean": pytest.approx(expected / BINS.num_bins),
    }
    assert baselines.label_marginal(BINS, train, truth[:0]) == {}


def test_label_marginal_is_a_distribution_where_labels_are_densities() -> None:
    bins = replace(BINS, labels="density")
    train, truth = np.array([0.0, 0.0, 10.0]), np.array([0.0])  # at the borders a density sums to about a half
    mean = bins.distributions(train).mean(axis=0)
    assert mean.sum() < 0.9
    q, p = (mean / mean.sum()).clip(1e-15, 1 - 1e-15), bins.distributions(truth)
    expected = -(p * np.log(q) + (1 - p) * np.log(1 - q)).sum(axis=1).mean()
    assert baselines.label_marginal(bins, train, truth)["nll"] == pytest.approx(expected)


# --- through the report: which clips a baseline has seen

TRAIN, TEST = [0, 1, 2, 3, 4], [5, 6, 7, 8]
LABELS = ["a", "a", "b", "c", "a", "b", "b", "a", "c"]
VALUES = [1.0, 2.0, 3.0, 4.0, 10.0, 5.0, 6.0, 7.0, 9.0]
ORACLES = {"class_mean_oracle"}


def _guesses(labels: list[str], values: list[float], train: list[int] = TRAIN) -> dict[str, Any]:
    table = clips(labels, values=values)
    one = prepared(table, classes=CLASSES, bins=BINS)
    part = predictions(TEST, label=sure_of([0, 1, 2, 0], 3), target=sure_of([1, 9, 3, 4], 11))
    return split_results(one, part, np.array(train))["baselines"]  # type: ignore[no-any-return]


def test_report_has_every_baseline_with_its_own_number() -> None:
    found = _guesses(LABELS, VALUES)
    truth, train = np.array(VALUES)[TEST], np.array(VALUES)[TRAIN]
    assert found["majority_class"]["accuracy"] == 0.25  # always a
    assert found["uniform_random_class"] == {"accuracy": pytest.approx(1 / 3)}
    assert found["constant_median"] == {"mae": pytest.approx(np.abs(truth - 3.0).mean())}
    pairs = np.abs(truth[:, None] - train)
    assert found["random_training_label"] == {"mae": pytest.approx(pairs.mean())}
    assert found["uniform_random_bin"] == {"mae": pytest.approx(np.abs(truth[:, None] - np.arange(11)).mean())}
    assert found["class_mean_oracle"] == {"mae": pytest.approx(np.mean([0.5, 0.5, 0, 0]))}
    assert found["label_marginal"]["nll"] > 0
    assert set(found) == {
        *("majority_class", "uniform_random_class", "constant_median", "class_mean_oracle"),
        *("uniform_random_bin", "random_training_label", "label_marginal"),
    }


@pytest.mark.parametrize("clip", TEST)
def test_no_baseline_changes_its_guess_with_a_test_label(clip: int) -> None:
    """Were a test label known, the guess for the OTHER clips would move with it: only the clip's own error may."""
    values = list(VALUES)
    values[clip] = 0.0
    before, after = _guesses(LABELS, VALUES), _guesses(LABELS, values)
    truth, train = np.array(VALUES), np.array(VALUES)[TRAIN]
    share = 1 / len(TEST)
    assert after["constant_median"]["mae"] - before["constant_median"]["mae"] == pytest.approx(
        share * (abs(0 - 3.0) - abs(truth[clip] - 3.0))
    )
    assert after["random_training_label"]["mae"] - before["random_training_label"]["mae"] == pytest.approx(
        share * (np.abs(train).mean() - np.abs(train - truth[clip]).mean())
    )
    q = BINS.distributions(train).mean(axis=0).clip(1e-15, 1 - 1e-15)
    p = BINS.distributions(np.array([0.0, truth[clip]]))
    cost = -(p * np.log(q) + (1 - p) * np.log(1 - q)).sum(axis=1)
    assert after["label_marginal"]["nll"] - before["label_marginal"]["nll"] == pytest.approx(
        share * (cost[0] - cost[1])
    )


@pytest.mark.parametrize("clip", TRAIN)
def test_every_guess_depends_on_the_training_labels(clip: int) -> None:
    values, labels = list(VALUES), list(LABELS)
    values[clip] = 10.0 if clip == 0 else 0.0
    changed = _guesses(LABELS, values)
    same = _guesses(LABELS, VALUES)
    assert changed["random_training_label"] != same["random_training_label"]
    assert changed["label_marginal"] != same["label_marginal"]
    assert changed["uniform_random_bin"] == same["uniform_random_bin"]
    assert changed["class_mean_oracle"] == same["class_mean_oracle"]
    assert changed["majority_class"] == same["majority_class"]
    labels = ["c"] * 5 + LABELS[5:]
    assert _guesses(labels, VALUES)["majority_class"]["accuracy"] == 0.25
    labels = ["b"] * 5 + LABELS[5:]
    assert _guesses(labels, VALUES)["majority_class"]["accuracy"] == 0.5


def test_oracles_know_the_test_labels_and_only_they() -> None:
    labels = [*LABELS[:5], "a", "b", "c", "b"]
    before, after = _guesses(LABELS, VALUES), _guesses(labels, VALUES)
    for name in before:
        if "class" not in name:
            assert (before[name] == after[name]) != (name in ORACLES)
    assert before["class_mean_oracle"] != after["class_mean_oracle"]


def test_a_baseline_sees_the_rows_it_is_given_and_no_other() -> None:
    found = _guesses(LABELS, VALUES, train=[3, 4])
    assert found["constant_median"]["mae"] == pytest.approx(np.abs(np.array(VALUES)[TEST] - 7.0).mean())
    assert found["majority_class"]["accuracy"] == 0.25


def test_a_random_class_is_never_one_that_training_did_not_see() -> None:
    labels = [*LABELS[:5], "new", *LABELS[6:]]
    assert _guesses(labels, VALUES)["uniform_random_class"]["accuracy"] == pytest.approx(0.75 / 3)


def test_oracle_is_left_out_where_a_judged_clip_has_no_label() -> None:
    labels = [*LABELS[:5], "", *LABELS[6:]]
    found = _guesses(labels, VALUES)
    assert "class_mean_oracle" not in found
    assert found["majority_class"]["accuracy"] == pytest.approx(1 / 3)  # over the three that have one


def test_training_clips_without_label_or_target_are_no_knowledge() -> None:
    """With folds a clip may be only judged and never trained on, and so lack either."""
    labels, values = ["a", "", "b", "b", "new", *LABELS[5:]], [1.0, float("nan"), 3.0, 5.0, 3.0, *VALUES[5:]]
    found = _guesses(labels, values)
    assert found["majority_class"]["accuracy"] == 0.5  # always b
    assert found["constant_median"]["mae"] == pytest.approx(np.abs(np.array(VALUES)[TEST] - 3.0).mean())
    assert all(math.isfinite(value) for one in found.values() for value in one.values())


def test_parts_of_a_partition_are_by_position() -> None:
    part = partition([3, 1], [2], [0], fold=1)
    assert (part.train.tolist(), part.fold) == ([1, 3], 1)
