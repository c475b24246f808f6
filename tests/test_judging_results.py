"""The entries of results.json, from predictions made by hand: which clips count, which rows, which order."""

from __future__ import annotations

import numpy as np
import pytest
from planted import BINS, clips, predictions, prepared, sure_of

from reelbank.heads.examples.targets import Bins
from reelbank.heads.judging import intervals
from reelbank.heads.judging.evaluation import (
    class_scores,
    confusion,
    plain_metrics,
    pooled,
    split_results,
    target_scores,
)
from reelbank.heads.judging.intervals import group_numbers, interval
from reelbank.heads.judging.metrics import names_of

CLASSES = ("a", "b", "c")
TRAIN = np.array([0, 1, 2])
NAN = float("nan")
KCAL = Bins(target="kcal", num_bins=11, low=0.0, high=1000.0, sigma_bins=1.0)


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bounds are is tested elsewhere; drawing is what takes the time."""
    monkeypatch.setattr(intervals, "RESAMPLES", 50)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 50)


def test_folds_are_pooled_in_the_order_of_the_clips() -> None:
    parts = [
        predictions([4, 1], folds=[0, 0], label=[[0.4, 0.6], [0.1, 0.9]]),
        predictions([], folds=[], label=np.empty((0, 2))),
        predictions([0, 3], folds=[2, 2], label=[[1.0, 0.0], [0.3, 0.7]]),
    ]
    parts[1].probabilities.clear()  # type: ignore[attr-defined]
    found = pooled("test", parts)
    assert found.split == "test"
    assert found.rows.tolist() == [0, 1, 3, 4]
    assert found.folds.tolist() == [2, 0, 2, 0]
    assert found.probabilities["label"].tolist() == [[1.0, 0.0], [0.1, 0.9], [0.3, 0.7], [0.4, 0.6]]
    alone = pooled("test", parts[:2])
    assert (alone.rows.tolist(), list(alone.probabilities)) == ([1, 4], ["label"])
    nothing = pooled("unknown", parts[1:2])
    assert (nothing.split, len(nothing.rows), nothing.probabilities) == ("unknown", 0, {})


def test_unlabelled_clips_do_not_count_and_unseen_labels_are_wrong() -> None:
    one = prepared(clips(["a", "b", "c", "b", "", "new"]), classes=CLASSES)
    found = class_scores(one, predictions([5, 3, 4, 0], label=sure_of([1, 1, 1, 0], 3)))
    assert found is not None
    scores, rows = found
    assert rows.tolist() == [5, 3, 0]
    assert scores.truth.tolist() == [-1, 1, 0]
    assert scores.predicted.tolist() == [1, 1, 0]


def test_no_class_scores_without_a_class_output() -> None:
    assert class_scores(prepared(clips(["a"])), predictions([0], label=[[1.0]])) is None
    assert class_scores(prepared(clips(["a"]), classes=CLASSES), predictions([0], target=[[1.0]])) is None
    assert target_scores(prepared(clips(["a"], values=[1.0])), predictions([0], target=[[1.0]])) is None
    assert target_scores(prepared(clips(["a"], values=[1.0]), bins=BINS), predictions([0], label=[[1.0]])) is None


def test_clips_without_a_target_do_not_count_in_its_metrics() -> None:
    one = prepared(clips([""] * 4, values=[3.0, NAN, 8.0, 0.0]), bins=BINS, estimate="expectation")
    probabilities = np.eye(11)[[5, 5, 5]] * 0.5 + np.eye(11)[[7, 7, 7]] * 0.5
    found = target_scores(one, predictions([2, 1, 0], target=probabilities))
    assert found is not None
    scores, rows = found
    assert rows.tolist() == [2, 0]
    assert scores.truth.tolist() == [8.0, 3.0]
    assert scores.predicted.tolist() == [6.0, 6.0]  # the expectation, as the configuration asks
    np.testing.assert_allclose(scores.labels, BINS.distributions(np.array([8.0, 3.0])))
    assert target_scores(one, predictions([1], target=probabilities[:1])) is None
    assert target_scores(one, predictions([1], split="unknown", target=probabilities[:1])) is None


def test_split_entry_counts_clips_and_groups_and_carries_units_and_directions() -> None:
    labels = ["a", "b", "c", "a", "b", "", "a"]
    table = clips(labels, groups=["g", "g", "h", "x", "x", "y", ""], values=[1.0, 2.0, 3.0, 4.0, NAN, 6.0, 7.0])
    one = prepared(table, classes=CLASSES, bins=BINS)
    part = predictions([3, 4, 5, 6], label=sure_of([0, 1, 1, 2], 3), target=sure_of([4, 4, 4, 4], 11))
    entry = split_results(one, part, TRAIN)
    assert (entry["num_clips"], entry["num_groups"]) == (4, 3)
    metrics = entry["metrics"]
    assert list(metrics) == [
        "accuracy",
        "macro_f1",
        *names_of("target"),
    ]  # of 3 classes, the five first say nothing
    assert metrics["accuracy"]["value"] == pytest.approx(2 / 3)  # clips 3 and 4 right, 6 wrong, 5 has no label
    assert metrics["mae"]["value"] == pytest.approx((0 + 2 + 3) / 3)  # clips 3, 5, 6
    assert metrics["accuracy"]["higher_is_better"] is True
    assert metrics["mae"]["higher_is_better"] is False
    assert metrics["accuracy"]["unit"] == "fraction"
    assert metrics["mae"]["unit"] == ""  # of `speed` nobody has said the unit
    assert metrics["spc_values"]["value"] is None  # one value for every clip
    assert metrics["spc_values"]["low"] is metrics["spc_values"]["high"] is None
    bare = prepared(clips(labels, values=[*[1.0] * 6, NAN]), classes=CLASSES, bins=BINS)
    without = split_results(bare, predictions([6], label=sure_of([1], 3), target=sure_of([4], 11)), TRAIN)
    assert set(without["metrics"]) == {"accuracy", "macro_f1"}
    kcal = prepared(
        clips(["a", "b"], values=None), classes=CLASSES, bins=None
    )  # no target at all: neither metrics nor baselines of it
    assert set(split_results(kcal, predictions([0, 1], label=sure_of([0, 1], 3)), TRAIN[:1])["baselines"]) == {
        *("majority_class", "uniform_random_class"),
    }


def test_unit_of_the_target_is_that_of_its_name() -> None:
    table = clips(["", ""])
    object.__setattr__(table, "targets", {"kcal": np.array([100.0, 300.0])})
    entry = split_results(prepared(table, bins=KCAL), predictions([0, 1], target=sure_of([1, 2], 11)), TRAIN[:1])
    assert entry["metrics"]["mae"]["unit"] == "kcal/h"
    assert entry["metrics"]["mae"]["value"] == 50.0
    assert entry["metrics"]["mae_bins"]["unit"] == "bins"
    assert "class_mean_oracle" not in entry["baselines"]


def test_interval_of_an_entry_is_drawn_over_its_own_groups_with_the_seed_of_the_run() -> None:
    random = np.random.default_rng(0)
    labels = random.choice(["a", "b", "c"], size=40).tolist()
    groups = [f"g{i // 4}" for i in range(40)]
    values = random.uniform(0, 10, size=40)
    one = prepared(clips(labels, groups=groups, values=values.tolist()), classes=CLASSES, bins=BINS, seed=7)
    rows = [i for i in range(40) if i % 5]
    part = predictions(
        rows, label=random.dirichlet(np.ones(3), len(rows)), target=random.dirichlet(np.ones(11), len(rows))
    )
    entry = split_results(one, part, TRAIN)
    numbers = group_numbers([groups[i] for i in rows])
    targets, classes = target_scores(one, part), class_scores(one, part)
    assert targets is not None
    assert classes is not None
    for name, scores in (("mae", targets[0]), ("accuracy", classes[0]), ("macro_f1", classes[0])):
        value, low, high = interval(name, scores, numbers, seed=7)
        found = entry["metrics"][name]
        assert (found["value"], found["low"], found["high"]) == (value, low, high)
        assert low < high
    assert plain_metrics(one, part) == {name: found["value"] for name, found in entry["metrics"].items()}


def test_clips_without_a_group_are_drawn_one_by_one() -> None:
    right = [True, True, False, True, False, True]
    labels, places = ["a"] * 6, [0 if ok else 1 for ok in right]
    alone = split_results(
        prepared(clips(labels), classes=CLASSES), predictions(range(6), label=sure_of(places, 3)), TRAIN
    )
    together = prepared(clips(labels, groups=["g"] * 6), classes=CLASSES)
    one_group = split_results(together, predictions(range(6), label=sure_of(places, 3)), TRAIN)
    assert alone["num_groups"] is None  # not 6: the manifest has none
    assert alone["metrics"]["accuracy"]["drawn"] == 6
    assert alone["metrics"]["accuracy"]["low"] is not None
    assert one_group["num_groups"] == 1
    assert one_group["metrics"]["accuracy"]["low"] is one_group["metrics"]["accuracy"]["high"] is None


def test_unknown_split_has_target_metrics_and_no_class_baseline() -> None:
    table = clips(["a", "b", "c", "a", "new"], values=[1.0, 2.0, 3.0, 4.0, 5.0])
    one = prepared(table, classes=CLASSES, bins=BINS)
    part = predictions([3, 4], split="unknown", label=sure_of([0, 0], 3), target=sure_of([4, 4], 11))
    entry = split_results(one, part, TRAIN)
    assert set(entry["metrics"]) == set(names_of("target"))
    assert set(entry["baselines"]) == {
        *("constant_median", "uniform_random_bin", "random_training_label", "label_marginal", "class_mean_oracle"),
    }
    assert set(plain_metrics(one, part)) == set(entry["metrics"])
    assert confusion(one, part) is None
    assert confusion(prepared(table, bins=BINS), part) is None


def test_confusion_has_the_truth_in_its_rows_and_unseen_classes_last() -> None:
    one = prepared(clips(["b", "a", "zoo", "", "new", "b", "new"]), classes=CLASSES)
    table = confusion(one, predictions(range(7), label=sure_of([2, 0, 1, 1, 0, 2, 0], 3)))
    assert table == {
        "labels": ["a", "b", "c", "new", "zoo"],
        "counts": [[1, 0, 0, 0, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 0], [2, 0, 0, 0, 0], [0, 1, 0, 0, 0]],
    }
    assert isinstance(table["counts"][0][0], int)
    unseen = [f"z{letter}" for letter in "hdbgaecf"]
    found = confusion(
        prepared(clips(["a", *unseen]), classes=CLASSES), predictions(range(9), label=sure_of([0] * 9, 3))
    )
    assert found is not None
    assert found["labels"] == [*CLASSES, *sorted(unseen)]
