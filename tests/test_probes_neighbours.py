"""Nearest neighbours and the linear probe: parity with scikit-learn, groups never on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_stores import clustered_store

from reelbank.heads.probes.neighbours import knn, knn_votes, linear, make_protocol, nearest_donor
from reelbank.heads.probes.rows import ProbeRows, load_rows


def _load(path: Path, **more: Any) -> ProbeRows:
    options = {"tap": "pool", "level": "clip", "view": 0, "normalize": "zscore", "label_column": "label"}
    return load_rows(clustered_store(path, **more), **options, target_column=None)  # type: ignore[arg-type]


def test_votes_equal_those_of_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    random = np.random.default_rng(0)
    donors, queries = random.normal(size=(200, 8)), random.normal(size=(60, 8))
    classes = random.integers(4, size=200)
    votes = knn_votes(queries, donors, classes, np.full(60, -1), np.arange(200), k=7, num_classes=4)
    theirs = KNeighborsClassifier(7, metric="cosine").fit(donors, classes).predict_proba(queries) * 7
    assert np.array_equal(np.floor(votes), theirs.round())
    assert votes.sum(axis=1).max() < 8


def test_equal_votes_are_decided_by_similarity() -> None:
    donors = np.array([[1.0, 0.0], [0.8, 0.6]])
    votes = knn_votes(
        np.array([[1.0, 0.1]]), donors, np.array([1, 0]), np.array([9]), np.array([0, 1]), k=2, num_classes=2
    )
    assert votes.argmax(axis=1).tolist() == [1]


def test_own_group_never_votes() -> None:
    vectors = np.eye(4)[[0, 0, 1, 2]]
    groups = np.array([0, 0, 1, 2])
    votes = knn_votes(vectors, vectors, np.array([0, 0, 1, 1]), groups, groups, k=1, num_classes=2)
    assert votes[:2].argmax(axis=1).tolist() == [1, 1]
    assert nearest_donor(vectors, vectors, groups, groups)[:2].tolist() != [0, 0]
    assert nearest_donor(vectors[:1], vectors[:1], groups[:1], groups[:1]).tolist() == [-1]


@pytest.mark.parametrize("run", [knn, linear], ids=["knn", "linear"])
def test_planted_classes_are_found_and_shuffled_ones_are_not(tmp_path: Path, run: Any) -> None:
    arguments = (5,) if run is knn else ()
    rows = _load(tmp_path / "a.zarr", num_clips=160)
    result = run(rows, make_protocol(rows), *arguments)
    accuracy = result["metrics"]["accuracy"]
    assert accuracy["low"] > result["baselines"]["majority_class"]["accuracy"]
    shuffled = np.random.default_rng(0).permutation(rows.labels)
    noise = ProbeRows(**{**vars(rows), "labels": shuffled})
    accuracy = run(noise, make_protocol(noise), *arguments)["metrics"]["accuracy"]
    assert accuracy["low"] <= 0.25 + 0.05


@pytest.mark.parametrize(
    ("splits", "reported", "num_judged"),
    [
        (("train", "train", "val", "test"), "test", 12),
        (("train", "val"), "val", 28),
        (("train",), "held-out groups", 60),
        (("test",), "held-out groups", 60),
    ],
)
def test_protocol_follows_the_splits_there_are(
    tmp_path: Path, splits: tuple[str, ...], reported: str, num_judged: int
) -> None:
    rows = _load(tmp_path / "a.zarr", splits=splits)
    protocol = make_protocol(rows)
    assert protocol.reported == reported
    assert len(protocol.judged) == num_judged
    assert not set(protocol.choosing) & set(protocol.judged)
    for result in (knn(rows, protocol, 3), linear(rows, protocol)):
        assert result["num_rows"] == num_judged
        assert np.sum(result["confusion"]["counts"]) == num_judged
        assert 0 <= result["metrics"]["accuracy"]["value"] <= 1


def test_unknown_split_is_neither_fitted_nor_judged(tmp_path: Path) -> None:
    rows = _load(tmp_path / "a.zarr", unknown_class=True)
    protocol = make_protocol(rows)
    used = np.concatenate([protocol.fitted, protocol.judged, protocol.choosing])
    assert "unknown" not in rows.splits[used]
    assert "class_3" not in knn(rows, protocol, 3)["confusion"]["labels"]


def test_k_above_the_fitted_rows_is_clipped_and_said(tmp_path: Path) -> None:
    rows = _load(tmp_path / "a.zarr", num_clips=24)
    result = knn(rows, make_protocol(rows), 500)
    assert (result["k"], result["k_asked"]) == (16, 500)


def test_no_labels_is_refused_with_the_way_out(tmp_path: Path) -> None:
    rows = _load(tmp_path / "a.zarr")
    bare = ProbeRows(**{**vars(rows), "labels": np.full(len(rows), "")})
    with pytest.raises(ValueError, match="labelled rows of at least 2 groups"):
        knn(bare, make_protocol(bare), 5)
