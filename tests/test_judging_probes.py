"""What a probe may know of a row it judges: never a row of the same group, and nothing of the judged labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from reelbank.heads.judging import intervals
from reelbank.heads.probes import cluster_reading, neighbours
from reelbank.heads.probes.cluster_reading import (
    cluster_purities,
    read_labels,
    read_target,
    silhouette,
    target_readings,
)
from reelbank.heads.probes.kmeans import Clustering
from reelbank.heads.probes.neighbours import (
    LINEAR_STRENGTHS,
    judgement,
    knn,
    knn_votes,
    linear,
    make_protocol,
    nearest_donor,
)
from reelbank.heads.probes.rows import ProbeRows

NAN = float("nan")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of small fits wait for each other longer than they work."""
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 60)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 60)


def _rows(
    vectors: Any,
    labels: Sequence[str],
    splits: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    target: Sequence[float] | None = None,
    target_name: str = "speed",
) -> ProbeRows:
    num = len(labels)
    return ProbeRows(
        vectors=np.asarray(vectors, dtype=np.float32).reshape(num, -1),
        clip_rows=np.arange(num),
        steps=np.full(num, -1),
        clip_ids=np.array([f"c{i}" for i in range(num)]),
        labels=np.array(labels, dtype=str),
        splits=np.array(splits, dtype=str),
        groups=np.array(groups if groups is not None else [f"c:{i}" for i in range(num)], dtype=str),
        target=None if target is None else np.array(target, dtype=np.float64),
        target_name=target_name,
        notes=(),
    )


def _clusters(labels: Sequence[int], num: int) -> Clustering:
    numbers = np.array(labels, dtype=np.int64)
    return Clustering(
        labels=numbers,
        centers=np.zeros((num, 1)),
        counts=np.bincount(numbers, minlength=num),
        inertia=0.0,
        num_iterations=1,
        method="gram",
    )


# --- who is judged by whom


def test_test_rows_are_judged_by_training_rows_and_chosen_on_validation() -> None:
    splits = ["train", "test", "val", "unknown", "train", "test", "other", "val"]
    rows = _rows(np.eye(8), ["a", "b", "a", "b", "b", "", "a", "b"], splits)
    found = make_protocol(rows)
    assert (found.judged.tolist(), found.fitted.tolist(), found.choosing.tolist()) == ([1], [0, 4], [2, 7])
    assert (found.reported, found.sentence) == ("test", "Fitted on 2 training rows, judged on 1 test rows.")


def test_without_test_validation_is_judged_and_chooses_nothing() -> None:
    found = make_protocol(_rows(np.eye(4), ["a", "b", "a", "b"], ["train", "val", "train", "unknown"]))
    assert (found.judged.tolist(), found.fitted.tolist(), found.choosing.tolist()) == ([1], [0, 2], [])
    assert found.reported == "val"
    assert found.sentence == "No test split: fitted on 2 training rows, judged on 1 validation rows."


@pytest.mark.parametrize("splits", [["test", "val", "unknown", "test"], ["train", "train", "unknown", "train"]])
def test_otherwise_groups_judge_each_other(splits: list[str]) -> None:
    found = make_protocol(_rows(np.eye(4), ["a", "b", "a", "b"], splits, groups=["x", "y", "z", "x"]))
    assert found.judged.tolist() == found.fitted.tolist() == [0, 1, 3]
    assert found.choosing.tolist() == []
    assert found.reported == "held-out groups"
    assert "each of 2 groups" in found.sentence


# --- nearest neighbours


def test_votes_by_hand() -> None:
    donors = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [2.0, 0.2]])
    classes = np.array([0, 1, 1, 0])
    votes = knn_votes(np.array([[1.0, 0.0]]), donors, classes, np.array([9]), np.arange(4), k=2, num_classes=3)
    close = np.array([1.0, 2.0 / np.sqrt(4.04)])
    assert votes[0].tolist() == pytest.approx([2 + (2 + close.sum()) / 6, 0, 0], rel=1e-5)
    all_votes = knn_votes(np.array([[1.0, 0.0]]), donors, classes, np.array([9]), np.arange(4), k=4, num_classes=3)
    assert np.floor(all_votes[0]).tolist() == [2, 2, 0]
    assert all_votes[0].argmax() == 0  # equal votes: the similar ones decide


def test_a_majority_is_never_outweighed_by_similarity() -> None:
    donors = np.array([[1.0, 0.0], *[[0.05, -1.0]] * 2])
    votes = knn_votes(
        np.array([[1.0, 0.0]]), donors, np.array([0, 1, 1]), np.array([9]), np.arange(3), k=3, num_classes=2
    )
    assert votes.argmax() == 1


def test_length_of_vectors_does_not_matter_to_votes_and_zero_has_no_direction() -> None:
    donors = np.array([[0.0, 9.0], [0.1, 0.0]])
    queries = np.array([[0.0, 0.001], [0.0, 0.0]])
    votes = knn_votes(queries, donors, np.array([0, 1]), np.array([8, 9]), np.arange(2), k=1, num_classes=2)
    assert votes[0].argmax() == 0
    assert np.isfinite(votes).all()


def test_no_donor_of_the_own_group_votes_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    vectors, groups = random.normal(size=(20, 4)), np.arange(20) // 2
    classes = groups % 2
    whole = knn_votes(vectors, vectors, classes, groups, groups, k=1, num_classes=2)
    nearest = nearest_donor(vectors, vectors, groups, groups)
    monkeypatch.setattr(neighbours, "_BLOCK_ELEMENTS", 60)  # three queries at a time
    np.testing.assert_allclose(
        knn_votes(vectors, vectors, classes, groups, groups, k=1, num_classes=2), whole, rtol=1e-6
    )
    assert nearest_donor(vectors, vectors, groups, groups).tolist() == nearest.tolist()
    distance = ((vectors[:, None] - vectors) ** 2).sum(axis=2)
    distance[groups[:, None] == groups] = np.inf
    assert nearest.tolist() == distance.argmin(axis=1).tolist()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    similarity[groups[:, None] == groups] = -np.inf
    assert whole.argmax(axis=1).tolist() == classes[similarity.argmax(axis=1)].tolist()


def test_query_without_a_donor_has_no_vote_and_no_neighbour() -> None:
    one, group = np.array([[1.0, 0.0]]), np.array([3])
    assert knn_votes(one, one, np.array([0]), group, group, k=1, num_classes=2).tolist() == [[0.0, 0.0]]
    assert nearest_donor(one, one, group, group).tolist() == [-1]
    assert nearest_donor(one, one[:0], group, group[:0]).tolist() == [-1]
    both = knn_votes(
        one, np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]), group, np.array([3, 4]), k=2, num_classes=2
    )
    assert np.floor(both).tolist() == [[0.0, 1.0]]  # the own group's similarity of 1 does not count


def _planted(num: int = 48, seed: int = 0) -> ProbeRows:
    random = np.random.default_rng(seed)
    kind = np.arange(num) % 3
    vectors = random.normal(size=(num, 5)) + 2.5 * np.eye(5)[kind]
    splits = np.array(["train", "train", "val", "test"])[(np.arange(num) // 3) % 4]
    return _rows(
        vectors,
        [f"k{i}" for i in kind],
        splits.tolist(),
        groups=[f"g:{i // 3}" for i in range(num)],
        target=(100.0 * kind + random.normal(size=num)).tolist(),
    )


def test_knn_reports_what_it_did() -> None:
    rows = _planted()
    protocol = make_protocol(rows)
    found = knn(rows, protocol, 3)
    votes = knn_votes(
        rows.vectors[protocol.judged], rows.vectors[protocol.fitted], np.arange(48)[protocol.fitted] % 3,
        np.full(12, -1), np.arange(24), k=3, num_classes=3,
    )  # fmt: skip
    truth = protocol.judged % 3
    assert found["metrics"]["accuracy"]["value"] == pytest.approx((votes.argmax(axis=1) == truth).mean())
    assert (found["k"], found["k_asked"], found["reported"], found["num_rows"], found["num_groups"]) == (
        3,
        3,
        "test",
        12,
        4,
    )
    assert knn(rows, protocol, 99)["k"] == 24


def test_judgement_counts_by_group_and_knows_the_fitted_labels_alone() -> None:
    rows = _rows(
        np.eye(6), ["a", "a", "b", "b", "b", "c"], ["train"] * 3 + ["test"] * 3, groups=[*"uvw", "x", "x", "y"]
    )
    protocol = make_protocol(rows)
    numbers = np.array([0, 0, 1, 1, 1, 2])
    scores = np.eye(3)[[1, 0, 2]]
    found = judgement(rows, protocol, np.array(["a", "b", "c"]), numbers, scores, seed=0)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["metrics"]["macro_f1"]["value"] == pytest.approx((0 + 2 / 3 + 1) / 3)
    assert found["metrics"]["accuracy"]["higher_is_better"] is True
    assert found["metrics"]["accuracy"]["unit"] == "fraction"
    assert found["metrics"]["accuracy"]["low"] < found["metrics"]["accuracy"]["high"]
    assert found["baselines"]["majority_class"]["accuracy"] == 0.0  # a, which no judged row is
    assert found["baselines"]["uniform_random_class"]["accuracy"] == pytest.approx(1 / 3)
    assert found["confusion"] == {"labels": ["a", "b", "c"], "counts": [[0, 0, 0], [1, 1, 0], [0, 0, 1]]}
    assert (found["num_rows"], found["num_groups"]) == (3, 2)
    one = _rows(np.eye(3), ["a", "b", "a"], ["train", "train", "test"])
    alone = judgement(one, make_protocol(one), np.array(["a", "b"]), np.array([0, 1, 0]), np.eye(2)[[0]], seed=0)
    assert alone["metrics"]["accuracy"]["low"] is alone["metrics"]["accuracy"]["high"] is None


def test_classes_of_rows_that_are_not_used_are_no_classes() -> None:
    rows = _rows(np.eye(5), ["b", "a", "zz", "b", "0"], ["train", "train", "unknown", "test", "val"])
    found = knn(rows, make_protocol(rows), 1)
    assert found["confusion"]["labels"] == ["a", "b"]


# --- the linear probe


def test_linear_equals_scikit_learn_at_the_strength_that_validation_prefers() -> None:
    from sklearn.linear_model import LogisticRegression

    rows = _planted()
    protocol = make_protocol(rows)
    numbers = np.arange(48) % 3
    accuracies = []
    for strength in LINEAR_STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(
            rows.vectors[protocol.fitted], numbers[protocol.fitted]
        )
        accuracies.append(model.score(rows.vectors[protocol.choosing], numbers[protocol.choosing]))
    found = linear(rows, protocol)
    best = LINEAR_STRENGTHS[int(np.argmax(accuracies))]
    assert found["strength"] == [best]
    assert found["converged"] is True
    model = LogisticRegression(C=best, max_iter=1000).fit(rows.vectors[protocol.fitted], numbers[protocol.fitted])
    expected = model.score(rows.vectors[protocol.judged], numbers[protocol.judged])
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(expected)


def test_strength_that_validation_prefers_is_the_one_that_is_judged() -> None:
    """Here neither the weakest nor scikit-learn's own 1.0 is best on validation, and each judges otherwise."""
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(24)
    numbers = np.arange(60) % 3
    vectors = random.normal(size=(60, 12)).astype(np.float32)
    vectors[np.arange(60), numbers] += 1.2
    rows = _rows(vectors, [f"k{i}" for i in numbers], ["train"] * 30 + ["val"] * 15 + ["test"] * 15)
    found = linear(rows, make_protocol(rows))
    assert found["strength"] == [0.1]
    x = vectors.astype(np.float64)
    scores = {
        c: LogisticRegression(C=c, max_iter=1000).fit(x[:30], numbers[:30]).score(x[45:], numbers[45:])
        for c in (0.1, 1.0)
    }
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(scores[0.1]) != scores[1.0]


@pytest.mark.parametrize("bad", [0, 4])
def test_one_fold_that_did_not_converge_is_said(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = _planted()
    rows = ProbeRows(**{**vars(planted), "splits": np.full(48, "train")})
    outcomes = [fold != bad for fold in range(5)]

    def told(vectors: Any, numbers: Any, fitted: Any, judged: Any, strength: float, count: int) -> Any:
        assert strength == 0.01
        return np.full((len(judged), count), 1 / count), outcomes.pop(0)

    monkeypatch.setattr(neighbours, "_choose_strength", lambda *given: 0.01)
    monkeypatch.setattr(neighbours, "_fit_predict", told)
    assert linear(rows, make_protocol(rows))["converged"] is False
    assert outcomes == []


@pytest.mark.parametrize("splits", ["train test", "groups"])
def test_a_row_is_never_fitted_beside_its_own_group(splits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a manifest was allowed to have a group on both sides."""
    rows = _planted()
    groups = rows.groups.copy()
    if splits == "groups":
        rows = ProbeRows(**{**vars(rows), "splits": np.full(48, "train")})
    else:
        groups[[0, 1]] = groups[np.flatnonzero(rows.splits == "test")[0]]
        rows = ProbeRows(**{**vars(rows), "groups": groups})
    protocol = make_protocol(rows)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    fit = neighbours._fit_predict

    def spy(vectors: Any, numbers: Any, fitted: Any, judged: Any, *rest: Any) -> Any:
        seen.append((fitted, judged))
        return fit(vectors, numbers, fitted, judged, *rest)

    monkeypatch.setattr(neighbours, "_fit_predict", spy)
    linear(rows, protocol)
    assert len(seen) > len(LINEAR_STRENGTHS)
    judged_rows = []
    for fitted, judged in seen:
        assert not set(rows.groups[fitted].tolist()) & set(rows.groups[judged].tolist())
        judged_rows.append(judged)
    finals = [judged for (_, judged), place in zip(seen, range(1, len(seen) + 1), strict=True) if place % 7 == 0]
    assert sorted(np.concatenate(finals).tolist()) == protocol.judged.tolist()


def test_equal_strengths_take_the_weakest() -> None:
    rows = _rows(np.r_[np.zeros((6, 2)), np.ones((6, 2))], ["a"] * 6 + ["b"] * 6, ["train", "val", "test"] * 4)
    assert linear(rows, make_protocol(rows))["strength"] == [LINEAR_STRENGTHS[0]]


def test_linear_needs_two_classes_to_fit() -> None:
    rows = _rows(np.eye(4), ["a", "a", "b", "b"], ["train", "train", "test", "test"])
    with pytest.raises(ValueError, match="need at least 2 labels among the fitted rows, found 1"):
        linear(rows, make_protocol(rows))
    alone = _rows(np.eye(2), ["a", "b"], ["train", "train"], groups=["g", "g"])
    with pytest.raises(ValueError, match="labelled rows of at least 2 groups"):
        linear(alone, make_protocol(alone))


# --- clusters read as a target


def _read(
    clusters: Sequence[int], target: Sequence[float], splits: Sequence[str], *, vectors: Any = None, **more: Any
) -> tuple[ProbeRows, Clustering]:
    num = len(target)
    rows = _rows(np.arange(num)[:, None] if vectors is None else vectors, ["a"] * num, splits, target=target, **more)
    return rows, _clusters(clusters, max(clusters) + 1)


def test_readings_by_hand() -> None:
    rows, found = _read([0, 0, 1, 0, 1, 2], [10.0, 20.0, 50.0, 99.0, 98.0, 97.0], ["train"] * 3 + ["test"] * 3)
    readings, empty = target_readings(rows, found, np.arange(3), np.arange(3, 6))
    assert readings["cluster_mean_label"].tolist() == [15.0, 50.0, 50.0]  # cluster 2 is empty: the nearest row
    assert readings["nearest_train"].tolist() == [50.0, 50.0, 50.0]
    assert readings["cluster_id"].tolist() == [10.0, 30.0, 50.0]  # 0, 1, 2 spread over 10 to 50
    assert sorted(readings["shuffled_cluster_id"].tolist()) == [10.0, 30.0, 50.0]
    assert empty.tolist() == [False, False, True]
    only, one = _read([0, 0, 0], [10.0, 20.0, 50.0], ["train", "train", "test"])
    assert target_readings(only, one, np.arange(2), np.array([2]))[0]["cluster_id"].tolist() == [10.0]


def test_judged_targets_are_not_read() -> None:
    splits = ["train"] * 3 + ["test"] * 3
    rows, found = _read([0, 0, 1, 0, 1, 2], [10.0, 20.0, 50.0, 99.0, 98.0, 97.0], splits)
    other, _ = _read([0, 0, 1, 0, 1, 2], [10.0, 20.0, 50.0, 1.0, 2.0, 3.0], splits)
    a, b = (target_readings(one, found, np.arange(3), np.arange(3, 6))[0] for one in (rows, other))
    assert all((a[name] == b[name]).all() for name in a)


def test_own_group_is_taken_out_of_its_cluster() -> None:
    """Rows judge each other: what a row's own group gave to its cluster does not count."""
    groups = ["g", "g", "h", "i", "g", "j"]
    rows, found = _read([0, 0, 0, 0, 1, 1], [10.0, 20.0, 30.0, 50.0, 7.0, 9.0], ["train"] * 6, groups=groups)
    every = np.arange(6)
    readings, empty = target_readings(rows, found, every, every)
    # clusters 0: g 10 20, h 30, i 50; 1: g 7, j 9
    assert readings["cluster_mean_label"].tolist() == pytest.approx([40, 40, 80 / 3, 20, 9, 7])
    assert readings["nearest_train"].tolist() == [30.0, 30.0, 20.0, 30.0, 50.0, 7.0]
    assert not empty.any()
    alone, one = _read([0, 1, 1], [10.0, 20.0, 30.0], ["train"] * 3, groups=["g", "h", "i"])
    readings, empty = target_readings(alone, one, np.arange(3), np.arange(3))
    assert empty.tolist() == [True, False, False]
    assert readings["cluster_mean_label"].tolist() == [20.0, 30.0, 20.0]


def test_row_without_any_other_group_falls_back_to_the_median() -> None:
    rows, found = _read([0, 0, 0], [10.0, 20.0, 60.0], ["train"] * 3, groups=["g"] * 3)
    readings, empty = target_readings(rows, found, np.arange(3), np.arange(3))
    assert readings["nearest_train"].tolist() == readings["cluster_mean_label"].tolist() == [20.0] * 3
    assert empty.all()


def test_target_is_judged_on_every_other_split_by_training_labels() -> None:
    splits = ["train"] * 4 + ["val", "test", "test", "unknown", "test"]
    target = [10.0, 20.0, 30.0, 50.0, 12.0, 21.0, 44.0, 90.0, NAN]
    rows, found = _read([0, 0, 1, 1, 0, 0, 1, 1, 0], target, splits, vectors=np.arange(9.0)[:, None])
    result = read_target(rows, found)
    assert (result["target"], result["range"], result["num_train"]) == ("speed", [10.0, 50.0], 4)
    assert list(result["parts"]) == ["test", "unknown", "val"]
    test = result["parts"]["test"]
    assert test["num_rows"] == 2
    assert test["num_without_training_row_in_cluster"] == 0
    assert test["mae"]["cluster_mean_label"]["value"] == pytest.approx((6 + 4) / 2)  # 15 and 40
    assert test["mae"]["nearest_train"]["value"] == pytest.approx((29 + 6) / 2)  # 50 for both
    assert test["mae"]["cluster_id"]["value"] == pytest.approx((11 + 6) / 2)  # 10 and 50
    assert test["baselines"]["constant_median"] == pytest.approx((4 + 19) / 2)
    assert test["baselines"]["random_training_label"] == pytest.approx(
        np.abs(np.subtract.outer([21.0, 44.0], [10.0, 20.0, 30.0, 50.0])).mean()
    )
    assert test["baselines"]["uniform_random_bin"] == pytest.approx(
        np.abs(np.subtract.outer([21.0, 44.0], np.linspace(10, 50, 1000))).mean()
    )
    assert test["baselines"]["class_mean_oracle"] == pytest.approx(11.5)
    assert result["parts"]["val"]["mae"]["cluster_mean_label"] == {
        "value": 3.0,
        "low": None,
        "high": None,
        "interval": "fewer than 2 groups",
        "drawn": 1,
    }
    bounds = test["mae"]["nearest_train"]
    assert bounds["low"] < bounds["value"] < bounds["high"]


def test_unused_rows_are_judged_by_nobody_and_judge_nobody() -> None:
    """Cutting unknown classes out of a set leaves their training clips 'unused'."""
    splits = ["train", "train", "test", "unused", "unused"]
    rows, found = _read([0, 0, 0, 0, 0], [10.0, 20.0, 30.0, 900.0, 900.0], splits)
    result = read_target(rows, found)
    assert (list(result["parts"]), result["range"]) == (["test"], [10.0, 20.0])
    alone, found = _read([0, 0, 0], [10.0, 20.0, 900.0], ["", "", "unused"])
    assert read_target(alone, found)["parts"]["held-out groups"]["num_rows"] == 2
    protocol = make_protocol(_rows(np.eye(4), ["a", "b", "a", "z"], ["", "", "unknown", "unused"]))
    assert protocol.judged.tolist() == protocol.fitted.tolist() == [0, 1]


def test_published_range_is_used_for_its_target() -> None:
    rows, found = _read([0, 1, 1], [300.0, 400.0, 500.0], ["train", "train", "test"], target_name="kcal")
    assert read_target(rows, found)["range"] == [0.0, 1000.0]
    assert read_target(rows, found)["parts"]["test"]["mae"]["cluster_id"]["value"] == 500.0


@pytest.mark.parametrize("splits", [["train"] * 3, ["test"] * 3])
def test_target_of_one_split_is_judged_by_other_groups(splits: list[str]) -> None:
    rows, found = _read([0, 0, 0], [10.0, 20.0, 60.0], splits, groups=["g", "h", "h"])
    result = read_target(rows, found)
    (name,) = result["parts"]
    assert name == "held-out groups" if splits[0] == "train" else name
    part = result["parts"]["held-out groups"]
    assert part["mae"]["cluster_mean_label"]["value"] == pytest.approx((30 + 10 + 50) / 3)
    short, one = _read([0, 0], [10.0, NAN], ["train", "train"])
    assert read_target(short, one) == {"target": "speed", "parts": {}, "num_train": 1}


def test_interval_of_a_reading_is_over_groups() -> None:
    random = np.random.default_rng(0)
    num = 60
    target = (np.repeat(random.normal(size=12), 5) * 10 + random.normal(size=num)).tolist()
    vectors = random.normal(size=(num, 2))
    splits = ["train"] * 10 + ["test"] * 50
    grouped = [f"g{i // 5}" for i in range(num)]
    wide = _read([0] * num, target, splits, vectors=vectors, groups=grouped)
    narrow = _read([0] * num, target, splits, vectors=vectors)
    bounds = [read_target(*one)["parts"]["test"]["mae"]["cluster_mean_label"] for one in (wide, narrow)]
    assert bounds[0]["value"] == pytest.approx(bounds[1]["value"])
    assert bounds[0]["high"] - bounds[0]["low"] > 1.4 * (bounds[1]["high"] - bounds[1]["low"])


def test_percentiles_of_a_reading_are_those_of_the_metrics() -> None:
    values, groups = np.random.default_rng(1).normal(size=30), np.arange(30) // 3 + 5
    found = cluster_reading._mean_with_interval(values, groups, 4)
    expected = intervals.mean_estimate(values, groups - 5, seed=4)
    assert (found["value"], found["low"], found["high"], found["interval"], found["drawn"]) == expected
    assert found["drawn"] == 10


# --- clusters read as labels


def test_agreement_by_hand() -> None:
    labels = np.array(["a", "a", "b", "b"])
    same = read_labels(np.array([1, 1, 0, 0]), labels)
    assert same["value"] == {"nmi": pytest.approx(1.0), "ari": pytest.approx(1.0), "purity": 1.0}
    mixed = read_labels(np.array([0, 0, 0, 1]), labels)["value"]
    assert mixed["purity"] == 0.75
    assert read_labels(np.array([0, 1, 2, 2]), labels)["value"]["purity"] == 1.0  # of clusters, not of classes
    assert 0 < mixed["nmi"] < 1
    assert cluster_purities(np.array([0, 0, 0, 2]), labels, 4)[:3].tolist() == pytest.approx(
        [2 / 3, NAN, 1.0], nan_ok=True
    )


def test_shuffled_labels_say_what_chance_gives() -> None:
    random = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])[random.integers(3, size=300)]
    clusters = random.integers(100, size=300)
    found = read_labels(clusters, labels, seed=1)
    assert found["value"]["purity"] == pytest.approx(found["shuffled_labels"]["purity"], abs=0.08)
    assert abs(found["shuffled_labels"]["ari"]) < 0.02
    assert found == read_labels(clusters, labels, seed=1)
    assert found["shuffled_labels"] != read_labels(clusters, labels, seed=2)["shuffled_labels"]
    planted = read_labels(np.unique(labels, return_inverse=True)[1], labels)
    assert planted["value"]["ari"] > planted["shuffled_labels"]["ari"] + 0.9


def test_silhouette_where_it_is_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.array([[0.0], [0.1], [9.0], [9.1]])
    assert silhouette(vectors, np.array([0, 0, 1, 1])) == pytest.approx(0.9888, abs=1e-3)
    assert silhouette(vectors, np.array([0, 0, 0, 0])) is None
    assert silhouette(vectors, np.arange(4)) is None
    assert silhouette(vectors, np.array([0, 1, 2, 2])) is not None
    monkeypatch.setattr(cluster_reading, "SILHOUETTE_ROWS", 40)
    random = np.random.default_rng(0)
    many, clusters = random.normal(size=(90, 2)) + 6 * (np.arange(90) % 2)[:, None], np.arange(90) % 2
    first = silhouette(many, clusters, seed=1)
    assert first == silhouette(many, clusters, seed=1)
    assert first != silhouette(many, clusters, seed=2)
