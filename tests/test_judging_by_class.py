"""Class by class: F1 and its means, precision and recall, and which classes are taken for which, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reelbank.heads.judging.by_class import class_report, macro_f1, most_confused, row_shares, weighted_f1
from reelbank.heads.reports.wording import confused_text

LABELS = ["a", "b", "c", "new"]
#                  a  b  c  new
COUNTS = np.array([[4, 6, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])


def test_weighted_f1_counts_each_class_as_often_as_it_is_true() -> None:
    # class 0: TP 1, FP 0, FN 1 -> 2/3, twice; class 1: TP 1, FP 1 -> 2/3, once; class 2: 0, once; 3 is only predicted
    assert weighted_f1(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 3])) == pytest.approx((2 * 2 / 3 + 2 / 3) / 4)
    assert weighted_f1(np.array([5, 5]), np.array([5, 5])) == 1.0
    assert weighted_f1(np.array([-1, 0, 0]), np.array([0, 0, 0])) == pytest.approx(2 / 3 * 0.8)
    assert math.isnan(weighted_f1(np.array([], dtype=int), np.array([], dtype=int)))


def test_a_class_that_nobody_predicts_has_no_precision_and_one_without_clips_no_recall() -> None:
    found = {one["label"]: one for one in class_report(LABELS, COUNTS)}
    assert set(found) == {"a", "b", "new"}  # c is neither there nor predicted
    assert found["a"] == {
        "label": "a", "clips": 10, "predicted": 5, "precision": 0.8, "recall": 0.4, "f1": pytest.approx(8 / 15),
    }  # fmt: skip
    assert (found["new"]["precision"], found["new"]["recall"], found["new"]["f1"]) == (None, 0.0, 0.0)
    (only,) = [one for one in class_report(["x", "y"], np.array([[0, 2], [0, 0]])) if one["label"] == "y"]
    assert (only["precision"], only["recall"], only["f1"]) == (0.0, None, 0.0)


def test_mean_f1_of_the_report_is_macro_f1() -> None:
    random = np.random.default_rng(1)
    truth, predicted = random.integers(6, size=(2, 80))
    counts = np.zeros((7, 7), dtype=np.int64)
    np.add.at(counts, (truth, predicted), 1)
    report = class_report([*"abcdefg"], counts)
    assert np.mean([one["f1"] for one in report]) == pytest.approx(macro_f1(truth, predicted))
    weights = [one["clips"] for one in report]
    assert np.average([one["f1"] for one in report], weights=weights) == pytest.approx(weighted_f1(truth, predicted))


def test_the_most_confused_pairs_are_those_with_most_clips() -> None:
    found = most_confused(LABELS, COUNTS)
    assert [(one["true"], one["predicted"], one["clips"]) for one in found] == [
        ("a", "b", 6), ("new", "b", 1), ("b", "a", 1),
    ]  # fmt: skip
    assert [one["share"] for one in found] == [0.6, 1.0, 0.25]
    assert len(most_confused([*"abc"], np.ones((3, 3), dtype=int), most=5)) == 5
    assert [one["true"] for one in most_confused([*"abc"], np.ones((3, 3), dtype=int), most=3)] == ["a", "a", "b"]
    assert most_confused(LABELS, np.diag([1, 2, 3, 4])) == []
    said = confused_text(found)
    assert said.startswith("most often taken for another class: a as b, 6 clips (60 % of a); new as b, 1 clip (100 %")
    assert confused_text([]) == "no clip is taken for another class."


def test_a_row_without_clips_has_shares_of_zero() -> None:
    np.testing.assert_allclose(row_shares(COUNTS).sum(axis=1), [1, 1, 0, 1])
