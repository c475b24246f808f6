"""Parts and folds: groups are never cut, classes stay even, and what was done is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.overlap import overlap, overlap_notes
from reelbank.heads.examples.splits import Partition, assign_folds, effective_groups, hold_out, make_partitions


def _clips(num: int = 120, num_groups: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups; clips of a group share their class more often than not."""
    random = np.random.default_rng(seed)
    group = random.integers(num_groups, size=num)
    label = np.where(random.random(num) < 0.7, group % 3, random.integers(3, size=num))
    return np.array([f"k{i}" for i in label]), np.array([f"g:{i}" for i in group])


def _make(
    splits: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, folds: int = 0, select_on: str = "validation"
) -> tuple[Partition, ...]:
    return make_partitions(splits=splits, labels=labels, groups=groups, folds=folds, select_on=select_on, seed=0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_keep_groups_whole_and_classes_even(seed: int, folds: int) -> None:
    labels, groups = _clips(num=600, num_groups=100, seed=seed)
    fold = assign_folds(labels, groups, folds, seed)
    for group in np.unique(groups):
        assert len(np.unique(fold[groups == group])) == 1
    assert np.bincount(fold, minlength=folds).min() > 0.4 * len(labels) / folds
    for label in np.unique(labels):
        shares = np.bincount(fold[labels == label], minlength=folds) / (labels == label).sum()
        assert np.abs(shares - 1 / folds).max() < 0.1


def test_folds_by_clip_are_as_even_as_counts_allow() -> None:
    labels = np.array(["a"] * 20 + ["b"] * 40)
    fold = assign_folds(labels, np.arange(60).astype(str), 5, 0)
    assert np.bincount(fold[:20]).tolist() == [4] * 5
    assert np.bincount(fold[20:]).tolist() == [8] * 5


def test_as_many_folds_as_groups_fills_every_fold() -> None:
    labels = np.array(["a"] * 50 + ["b"] * 3)
    groups = np.array(["big"] * 50 + ["s1", "s2", "s3"])
    assert sorted(np.unique(assign_folds(labels, groups, 4, 0))) == [0, 1, 2, 3]


def test_folds_depend_on_the_seed_only() -> None:
    labels, groups = _clips()
    assert (assign_folds(labels, groups, 5, 1) == assign_folds(labels, groups, 5, 1)).all()
    assert (assign_folds(labels, groups, 5, 1) != assign_folds(labels, groups, 5, 2)).any()


def test_too_few_groups_for_the_folds_is_an_error_with_both_numbers() -> None:
    with pytest.raises(TrainingError, match="5 folds need at least 5 groups, found 2"):
        assign_folds(np.array(["a", "b", "a"]), np.array(["x", "y", "x"]), 5, 0)


@pytest.mark.parametrize("seed", range(5))
def test_held_out_part_is_a_fifth_in_whole_groups_and_loses_no_class(seed: int) -> None:
    labels, groups = _clips(seed=seed)
    rows = np.arange(len(labels))
    train, val = hold_out(rows, labels, groups, seed)
    assert sorted([*train, *val]) == rows.tolist()
    assert not set(groups[train]) & set(groups[val])
    assert set(labels[train]) == set(labels)
    assert 0.1 < len(val) / len(rows) < 0.3


def test_group_that_alone_holds_a_class_stays_in_training() -> None:
    labels = np.array(["a"] * 10 + ["b"] * 10 + ["rare"] * 2)
    groups = np.array([f"g{i % 5}" for i in range(20)] + ["only"] * 2)
    train, _ = hold_out(np.arange(22), labels, groups, 0)
    assert "rare" in labels[train]


def test_training_part_of_one_group_cannot_be_cut() -> None:
    with pytest.raises(TrainingError, match="no validation part can be cut from 3 training clips in 1 groups"):
        hold_out(np.arange(3), np.array(["a", "b", "a"]), np.array(["x"] * 3), 0)


def test_splits_of_the_store_are_used_as_they_are() -> None:
    splits = np.array(["train"] * 4 + ["val"] * 2 + ["test"] * 2 + ["unknown"] * 2)
    (part,) = _make(splits, np.array(list("ababababcd")), np.arange(10).astype(str))
    assert [len(rows) for rows in (part.train, part.val, part.test, part.unknown)] == [4, 2, 2, 2]
    assert part.notes == ()
    assert not part.val_is_reported


def test_missing_validation_and_test_are_made_up_for_and_said() -> None:
    labels, groups = _clips()
    (part,) = _make(np.full(120, "train"), labels, groups)
    assert len(part.val) > 0
    assert len(part.test) == 0
    assert part.val_is_reported
    assert "no split 'val'" in part.notes[0]
    assert "no split 'test'" in part.notes[1]


def test_selecting_on_the_reported_set_keeps_all_training_clips() -> None:
    labels, groups = _clips()
    splits = np.where(np.char.endswith(groups, "1"), "test", "train")
    (part,) = _make(splits, labels, groups, select_on="reported-set")
    assert (part.val == part.test).all()
    assert len(part.train) == (splits == "train").sum()
    assert part.val_is_reported


def test_empty_training_part_names_what_is_there() -> None:
    with pytest.raises(TrainingError, match=r"'train' holds no usable clip, found 'test' \(2\)"):
        _make(np.array(["test", "test"]), np.array(["a", "b"]), np.array(["x", "y"]))


def test_group_on_both_sides_is_in_the_notes() -> None:
    splits = np.array(["train"] * 6 + ["val"] * 2 + ["test"] * 2)
    groups = np.array([f"g:{i}" for i in (0, 1, 2, 3, 4, 5, 6, 7, 0, 8)])
    (part,) = _make(splits, np.array(list("ab" * 5)), groups)
    assert overlap_notes(groups, part, refit=False, always=False) == [
        "WARNING: 1 group(s) are on both sides of train and test ('0'): 1 of 2 clips of test (50.0 %) are of a group "
        "that was trained on, so the numbers of test are too good."
    ]
    said = overlap_notes(groups, part, refit=False, always=True)
    assert "No clip of val is of a group that was trained on." in said
    val = replace(part, test=part.val, val=part.test)
    assert "on both sides of train and test" not in "".join(overlap_notes(groups, val, refit=False, always=False))
    assert overlap(groups, [(part.train, part.test)]).to_json() == {"clips": 2, "shared": 1, "share": 0.5}


def test_a_refitted_head_has_seen_the_groups_of_validation() -> None:
    groups = np.array(["g:0", "g:1", "g:2", "g:2"])
    splits = np.array(["train", "train", "val", "test"])
    (part,) = _make(splits, np.array(list("abab")), groups)
    assert overlap_notes(groups, part, refit=False, always=False) == []
    (note,) = overlap_notes(groups, part, refit=True, always=False)
    assert "1 of 1 clips of test (100.0 %)" in note


def test_without_any_group_nothing_is_said_of_overlap() -> None:
    groups = np.array(["c:0", "c:1", "c:2"])
    (part,) = _make(np.array(["train", "train", "test"]), np.array(list("aba")), groups, select_on="reported-set")
    assert overlap_notes(groups, part, refit=False, always=True) == []
    assert overlap(groups, [(part.train, part.test)]).to_json() == {"clips": 1, "shared": None, "share": None}


@pytest.mark.parametrize("select_on", ["validation", "reported-set"])
def test_every_known_clip_is_tested_once_by_a_fold_that_never_saw_its_group(select_on: str) -> None:
    labels, groups = _clips()
    splits = np.array(["train", "val", "test", "unknown"])[np.arange(120) % 4]
    parts = _make(splits, labels, groups, folds=5, select_on=select_on)
    tested = np.concatenate([part.test for part in parts])
    assert sorted(tested) == np.flatnonzero(splits != "unknown").tolist()
    assert sorted(np.concatenate([part.unknown for part in parts])) == np.flatnonzero(splits == "unknown").tolist()
    for part in parts:
        assert not set(groups[part.test]) & set(groups[part.train])
        if select_on == "validation":
            assert not set(groups[part.val]) & (set(groups[part.train]) | set(groups[part.test]))


def test_clip_without_group_is_its_own_and_no_group_can_be_named_like_it() -> None:
    assert len(set(effective_groups(["", "", "c:a"], ["a", "b", "x"]))) == 3


def test_clips_of_other_splits_are_left_out_and_counted() -> None:
    splits = np.array(["train"] * 4 + ["val"] * 2 + ["test"] * 2 + ["extra"] * 3)
    (part,) = _make(splits, np.array(list("ab" * 5 + "a")), np.arange(11).astype(str))
    assert part.notes == ("3 clips of other splits ('extra') are not used.",)


@pytest.mark.parametrize(("labels", "folds", "other"), [("aabb", 2, 4), ("abcd", 2, None)])
def test_folds_that_leave_no_validation_part_name_a_number_that_does(
    labels: str, folds: int, other: int | None
) -> None:
    """And never the set that is reported: choosing on it is a leak."""
    table = np.full(len(labels), "train"), np.array(list(labels)), np.arange(len(labels)).astype(str)
    with pytest.raises(TrainingError, match=f"--folds {folds}: what fold 0 leaves of") as raised:
        _make(*table, folds=folds)
    said = str(raised.value)
    assert "reported-set" not in said
    if other is None:
        assert said.endswith("without losing a class; add clips of other groups")
    else:
        assert said.endswith(f"pass --folds {other}, or add clips of other groups")
        assert len(_make(*table, folds=other)) == other


def test_no_error_about_parts_recommends_the_reported_set() -> None:
    with pytest.raises(TrainingError, match="no validation part can be cut") as raised:
        _make(np.array(["train", "train", "test"]), np.array(list("aba")), np.array(list("xyz")))
    assert "reported-set" not in str(raised.value)
    assert "give the manifest a 'val' split" in str(raised.value)
