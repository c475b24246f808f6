"""Which clips train, choose, and are reported, on cases small enough to write the answer down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from planted import clips, config, partition, prepared

from reelbank.heads import TrainingError
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.features import Features
from reelbank.heads.examples.labelling import Labelling, label_clips
from reelbank.heads.examples.normalization import Normalization, fit_normalization
from reelbank.heads.examples.overlap import overlap_notes
from reelbank.heads.examples.splits import (
    KNOWN_SPLITS,
    VALIDATION_SHARE,
    Partition,
    Parts,
    assign_folds,
    effective_groups,
    hold_out,
    make_partitions,
    parts_of,
    thinned,
)
from reelbank.heads.training.job import make_job


def _make(
    splits: list[str] | np.ndarray,
    labels: list[str] | np.ndarray | None = None,
    groups: list[str] | np.ndarray | None = None,
    *,
    folds: int = 0,
    select_on: str = "validation",
    seed: int = 0,
) -> tuple[Partition, ...]:
    num = len(splits)
    return make_partitions(
        splits=np.array(splits),
        labels=np.array(labels if labels is not None else ["a", "b"] * num)[:num],
        groups=np.array(groups if groups is not None else [f"c:{i}" for i in range(num)]),
        folds=folds,
        select_on=select_on,
        seed=seed,
    )


def test_constants_are_those_of_the_documentation() -> None:
    assert KNOWN_SPLITS == ("train", "val", "test")
    none = np.array([], dtype=np.int64)
    plain = Partition(fold=None, train=none, val=none, test=none, unknown=none)
    assert (plain.val_is_reported, plain.notes) == (False, ())
    assert VALIDATION_SHARE == 0.2


def test_each_part_holds_the_clips_of_its_split() -> None:
    (part,) = _make(["test", "train", "unknown", "val", "train", "other", "test"])
    found = {name: getattr(part, name).tolist() for name in ("train", "val", "test", "unknown")}
    assert found == {"train": [1, 4], "val": [3], "test": [0, 6], "unknown": [2]}
    assert (part.fold, part.val_is_reported) == (None, False)


def test_selecting_on_the_reported_set_takes_test_or_else_val() -> None:
    (part,) = _make(["train", "train", "val", "test", "test", "val", "val"], select_on="reported-set")
    assert part.val.tolist() == part.test.tolist() == [3, 4]
    assert part.train.tolist() == [0, 1]  # the split `val` is neither trained on nor used
    assert part.val_is_reported
    assert part.notes == ("The 3 clips of split 'val' are not used: the best epoch is chosen on 'test'.",)
    (only,) = _make(["train", "train", "val"], select_on="reported-set")
    assert (only.val.tolist(), only.test.tolist(), only.val_is_reported) == ([2], [], True)
    assert only.notes == ("The store has no split 'test': the numbers are those of the validation clips.",)
    (without,) = _make(["train", "train", "test"], select_on="reported-set")
    assert without.notes == ()
    with pytest.raises(TrainingError, match="needs clips in split 'test' or 'val'"):
        _make(["train"] * 4, select_on="reported-set")


def test_validation_is_cut_from_training_clips_where_there_is_none() -> None:
    groups = [f"g:{i // 2}" for i in range(20)] + ["g:t"] * 2
    (part,) = _make(["train"] * 20 + ["test"] * 2, groups=groups)
    assert sorted([*part.train, *part.val]) == list(range(20))
    assert len(part.val) == 4
    assert part.test.tolist() == [20, 21]
    assert not part.val_is_reported
    assert part.notes == (
        "The store has no split 'val': 4 of 20 training clips, in whole groups, were held out for validation.",
    )


def test_groups_on_both_sides_are_named_up_to_three() -> None:
    groups = ["g:a", "g:b", "g:c", "g:d", "g:a", "g:d", "g:b", "g:c"]
    (part,) = _make(["train"] * 4 + ["val", "test", "test", "unknown"], groups=groups)
    found = tuple(overlap_notes(np.array(groups), part, refit=False, always=True))
    said = "are of a group that was trained on, so the numbers of"
    assert found == (
        "WARNING: 1 group(s) are on both sides of train and val ('a'): 1 of 1 clips of val (100.0 %) "
        f"{said} val are too good.",
        "WARNING: 2 group(s) are on both sides of train and test ('b', 'd'): 2 of 2 clips of test (100.0 %) "
        f"{said} test are too good.",
        "WARNING: 1 group(s) are on both sides of train and unknown ('c'): 1 of 1 clips of unknown (100.0 %) "
        f"{said} unknown are too good.",
    )
    every = [f"g:{name}" for name in "abcd"]
    groups = [*every, *every, "g:z"]
    (many,) = _make(["train"] * 4 + ["val"] * 4 + ["test"], groups=groups)
    (note,) = overlap_notes(np.array(groups), many, refit=False, always=False)
    assert "4 group(s) are on both sides of train and val ('a', 'b', 'c')" in note


def test_effective_groups_never_meet() -> None:
    found = effective_groups(["g", "", "a", ""], ["a", "g", "b", "c:g"])
    assert found.tolist() == ["g:g", "c:g", "g:a", "c:c:g"]


def test_what_cannot_be_parted_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"holds no usable clip, found 'test' \(1\), 'val' \(2\); featurize"):
        _make(["val", "test", "val"])
    (part,) = _make(["train", "odd", "val", "test", "even", "odd"])
    assert part.notes == ("3 clips of other splits ('even', 'odd') are not used.",)
    with pytest.raises(TrainingError, match="found no clip at all"):
        _make([])
    with pytest.raises(TrainingError, match="--folds 2: no usable clip"):
        _make(["unknown", "other"], folds=2)


# --- folds


def test_two_folds_of_four_groups_by_hand() -> None:
    """Each class is in two groups: any even cut puts one of either on each side."""
    labels = np.array(["a", "a", "b", "b"])
    for seed in range(8):
        fold = assign_folds(labels, np.array(["g1", "g2", "g3", "g4"]), 2, seed)
        assert sorted(fold[:2].tolist()) == sorted(fold[2:].tolist()) == [0, 1]


def test_the_most_uneven_groups_are_placed_first() -> None:
    """A large group of one class fills a fold; the small ones of that class go to the other."""
    labels = np.array(["a"] * 6 + ["a"] * 2 + ["a"] * 2 + ["a"] * 2 + ["b"] * 4)
    groups = np.array(["big"] * 6 + ["s1"] * 2 + ["s2"] * 2 + ["s3"] * 2 + ["b1", "b2", "b3", "b4"])
    for seed in range(8):
        fold = assign_folds(labels, groups, 2, seed)
        assert (fold[6:12] == 1 - fold[0]).all()
        assert np.bincount(fold[12:], minlength=2).tolist() == [2, 2]


def test_ties_go_to_the_smaller_fold() -> None:
    """Class shares are even whichever fold a group goes to, so the sizes decide."""
    fold = assign_folds(np.array(["a"] * 7), np.array(list("abcdefg")), 3, 0)
    assert sorted(np.bincount(fold, minlength=3).tolist()) == [2, 2, 3]


def _folds_by_the_rule(labels: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> list[int]:
    """The rule written plainly: the most uneven groups first, each where the variance of class shares grows least."""
    names, classes = sorted(set(groups.tolist())), sorted(set(labels.tolist()))
    counts = {g: [int(((groups == g) & (labels == c)).sum()) for c in classes] for g in names}
    totals = [int((labels == c).sum()) for c in classes]
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    order.sort(key=lambda g: -float(np.std(counts[g])))
    shares = np.zeros((num_folds, len(classes)))
    clips_in, fold_of = [0] * num_folds, {}
    for placed, group in enumerate(order):
        empty = [fold for fold in range(num_folds) if clips_in[fold] == 0]
        open_folds = empty if len(order) - placed <= len(empty) else list(range(num_folds))
        spreads = {}
        for fold in open_folds:
            tried = shares.copy()
            tried[fold] += np.array(counts[group]) / totals
            spreads[fold] = tried.var(axis=0).sum()
        least = min(spreads.values())
        close = [fold for fold in open_folds if spreads[fold] - least < 1e-9]
        fold = min(close, key=lambda one: (clips_in[one], one))
        shares[fold] += np.array(counts[group]) / totals
        clips_in[fold] += sum(counts[group])
        fold_of[group] = fold
    return [fold_of[group] for group in groups.tolist()]


@settings(deadline=None, max_examples=120, derandomize=True)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 5), st.integers(0, 12))
def test_folds_are_those_of_the_rule(seed: int, folds: int, num_classes: int, more_groups: int) -> None:
    random = np.random.default_rng(seed)
    num_groups = folds + more_groups
    group = np.r_[np.arange(num_groups), random.integers(num_groups, size=int(random.integers(0, 60)))]
    class_of = random.integers(num_classes, size=num_groups)[group]
    label = np.where(random.random(len(group)) < 0.6, class_of, random.integers(num_classes, size=len(group)))
    labels, groups = np.array([f"k{i}" for i in label]), np.array([f"g{i:02d}" for i in group])
    assert assign_folds(labels, groups, folds, seed).tolist() == _folds_by_the_rule(labels, groups, folds, seed)


@pytest.mark.parametrize("seed", range(4))
def test_no_fold_is_left_empty_however_uneven_the_groups(seed: int) -> None:
    labels = np.array(["a"] * 50 + ["b"] * 3)
    groups = np.array(["big"] * 50 + ["s1", "s2", "s3"])
    for folds in (2, 3, 4):
        assert len(np.unique(assign_folds(labels, groups, folds, seed))) == folds


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 6), st.booleans())
def test_every_clip_is_tested_once_and_never_beside_its_group(seed: int, folds: int, reported: bool) -> None:
    random = np.random.default_rng(seed)
    num_groups = 3 * folds + int(random.integers(2, 12))
    group = np.r_[np.arange(num_groups), random.integers(num_groups, size=60)]
    labels = np.array(["x", "y"])[random.integers(2, size=len(group))]
    split_of = np.array(["train", "val", "test", "unknown", "odd"])[random.integers(5, size=num_groups)]
    split_of[: 2 * folds + 2] = "train"
    splits, groups = split_of[group], np.array([f"g:{i}" for i in group])
    parts = _make(
        splits, labels, groups, folds=folds, select_on="reported-set" if reported else "validation", seed=seed
    )
    known, unknown = np.flatnonzero(np.isin(splits, KNOWN_SPLITS)), np.flatnonzero(splits == "unknown")
    assert [part.fold for part in parts] == list(range(folds))
    assert sorted(np.concatenate([part.test for part in parts]).tolist()) == known.tolist()
    assert sorted(np.concatenate([part.unknown for part in parts]).tolist()) == unknown.tolist()
    for part in parts:
        seen = set(groups[part.train])
        assert not seen & set(groups[part.test])
        assert len(part.train)
        assert len(part.val)
        assert part.val_is_reported == reported
        if reported:
            assert part.val.tolist() == part.test.tolist()
            assert sorted([*part.train, *part.test]) == known.tolist()
        else:
            assert not (seen | set(groups[part.test])) & set(groups[part.val])
            assert sorted([*part.train, *part.val, *part.test]) == known.tolist()
    for group_name in set(groups[unknown].tolist()):
        holders = [part.fold for part in parts if group_name in groups[part.unknown]]
        assert len(holders) == 1


def test_unknown_clips_are_spread_over_the_folds_by_group() -> None:
    splits = ["train"] * 12 + ["unknown"] * 12
    groups = [f"g:{i}" for i in range(12)] + [f"g:u{i // 2}" for i in range(12)]
    parts = _make(splits, groups=groups, folds=3)
    assert [len(part.unknown) for part in parts] == [4, 4, 4]
    assert parts[0].notes == (
        "3-fold cross-validation over groups: every clip is predicted once, by a model that saw no clip of its group.",
        "Each clip of split 'unknown' is predicted by the model of one fold.",
    )
    without = _make(["train"] * 12, folds=3)
    assert len(without[0].notes) == 1
    assert all(len(part.unknown) == 0 for part in without)
    other = _make(splits, groups=groups, folds=3, seed=1)
    assert [part.unknown.tolist() for part in other] != [part.unknown.tolist() for part in parts]


def test_validation_of_each_fold_is_drawn_by_its_own_seed() -> None:
    groups = [f"g:{i}" for i in range(40)]
    parts = _make(["train"] * 40, groups=groups, folds=2, seed=3)
    for part in parts:
        rest = np.setdiff1d(np.arange(40), part.test)
        labels = np.array(["a", "b"] * 20)
        train, val = hold_out(rest, labels, np.array(groups), 3 + 1 + (part.fold or 0))
        assert (part.train.tolist(), part.val.tolist()) == (train.tolist(), val.tolist())


# --- held-out part


def test_held_out_rows_are_positions_of_the_table() -> None:
    rows = np.array([3, 5, 7, 9, 11, 13, 15, 17, 19, 21])
    labels, groups = np.array(["a", "b"] * 11), np.array([f"g{i}" for i in range(22)])
    train, val = hold_out(rows, labels, groups, 0)
    assert sorted([*train, *val]) == rows.tolist()
    assert len(val) == 2


def test_held_out_part_is_the_one_closest_to_a_fifth() -> None:
    """Three groups of 60, 22 and 18 clips: the fifth is 20, and 18 or 22 are as near as it gets."""
    sizes = {"a": 60, "b": 22, "c": 15}
    groups = np.array([name for name, size in sizes.items() for _ in range(size)])
    labels = np.array(["x", "y"] * 60)[: len(groups)]
    for seed in range(4):
        _, val = hold_out(np.arange(len(groups)), labels, groups, seed)
        assert set(groups[val]) == {"b"}  # 22 of 97 is nearer to 19.4 than 15


def test_classes_that_one_group_alone_holds_stay_in_training() -> None:
    labels = np.array(["r1", "r1", "r2", "r2", "a", "a", "a", "a"])
    groups = np.array(["g1", "g1", "g2", "g2", "g3", "g3", "g4", "g4"])
    for seed in range(6):
        train, val = hold_out(np.arange(8), labels, groups, seed)
        assert {"r1", "r2"} <= set(labels[train].tolist())
        assert set(groups[val].tolist()) in ({"g3"}, {"g4"})
    with pytest.raises(TrainingError, match="no validation part can be cut from 4 training clips in 2 groups"):
        hold_out(np.arange(4), labels, groups, 0)


def test_group_with_one_class_that_is_needed_and_one_that_is_not_stays_whole() -> None:
    """It would be the fifth asked for; without it there would be no clip of class `rare` to train on."""
    labels = np.array(["rare", "a", *["a"] * 8])
    groups = np.array(["g1", "g1", *["g2"] * 4, *["g3"] * 4])
    for seed in range(6):
        train, val = hold_out(np.arange(10), labels, groups, seed)
        assert {0, 1} <= set(train.tolist())
        assert len(val) == 4


def test_two_groups_of_one_class_leave_one_to_train() -> None:
    """Both might be held out together: then the class would be gone, so only one of them is."""
    labels = np.array(["a", "a"])
    train, val = hold_out(np.arange(2), labels, np.array(["g1", "g2"]), 0)
    assert (len(train), len(val)) == (1, 1)


def test_thinned_rows_are_drawn_class_by_class() -> None:
    labels = np.array(["a"] * 10 + ["b"] * 3 + ["c"] * 1)
    rows = np.arange(14)
    for most, expected in ((3, [1, 1, 1]), (5, [2, 2, 1]), (7, [3, 3, 1]), (9, [5, 3, 1])):
        found = thinned(rows, labels, most, 0)
        assert found.tolist() == sorted(set(found.tolist()))
        assert [(labels[found] == name).sum() for name in "abc"] == expected
    assert thinned(rows, labels, 99, 0).tolist() == rows.tolist()
    draws = {tuple(thinned(rows, labels, 4, seed).tolist()) for seed in range(20)}
    assert len(draws) > 5
    only = thinned(np.array([2, 4, 11]), labels, 2, 0)
    assert set(only.tolist()) < {2, 4, 11}
    assert 11 in only


# --- the parts of a run, and what their clips are labelled with


def _parts(table: ClipTable, *, train_clips: int = 0, seed: int = 0, **options: Any) -> Parts:
    return parts_of(table, config(**options).data, train_clips=train_clips, seed=seed)


def test_parts_are_made_from_the_columns_of_the_table() -> None:
    splits = ["train", "train", "test", "train", "val", "unknown"]
    found = _parts(clips(list("ababab"), splits=splits, groups=["g", "", "h", "g", "", "i"]))
    assert found.groups.tolist() == ["g:g", "c:c1", "g:h", "g:g", "c:c4", "g:i"]
    (part,) = found.partitions
    assert (part.train.tolist(), part.val.tolist(), part.test.tolist()) == ([0, 1, 3], [4], [2])
    assert found.eligible.tolist() == found.trained.tolist() == [0, 1, 3]
    assert found.notes == []
    same = clips(list("ababab"), splits=splits)
    (reported,) = _parts(same, select_on="reported-set").partitions
    assert reported.val.tolist() == [2]


def test_folds_of_a_run_are_those_of_its_seed_and_labels() -> None:
    table = clips(["a", "b", "c"] * 10, splits=["train"] * 30, groups=[f"g{i // 2}" for i in range(30)])
    for seed in (0, 5):
        found = _parts(table, folds=3, seed=seed)
        folds = assign_folds(table.labels, found.groups, 3, seed)
        assert [part.test.tolist() for part in found.partitions] == [
            np.flatnonzero(folds == f).tolist() for f in range(3)
        ]
        assert found.trained.tolist() == sorted({row for part in found.partitions for row in part.train.tolist()})
        assert len(found.notes) == 1  # said once, not once per fold


def test_fewer_training_clips_leave_every_other_part_as_it_is() -> None:
    table = clips(["a", "b", "c", "d"] * 10, splits=(["train"] * 3 + ["test"]) * 10)
    whole, drawn = _parts(table), _parts(table, train_clips=8)
    (part,) = drawn.partitions
    assert len(part.train) == 8
    assert set(part.train.tolist()) <= set(whole.partitions[0].train.tolist())
    assert part.test.tolist() == whole.partitions[0].test.tolist()
    assert part.val.tolist() == whole.partitions[0].val.tolist()
    assert drawn.trained.tolist() == part.train.tolist()
    assert drawn.eligible.tolist() == whole.trained.tolist()
    assert {table.labels[row] for row in part.train} == set(table.labels[whole.trained].tolist())
    assert part.train.tolist() != _parts(table, train_clips=8, seed=3).partitions[0].train.tolist()


SIX = ["train", "train", "train", "val", "test", "unknown"]


def _labelling(labels: Sequence[str], values: Sequence[float] | None = None, **options: Any) -> Labelling:
    table = clips(labels, splits=SIX, values=values)
    asked = config(**options)
    return label_clips(asked.data, asked.objective, table, _parts(table, **options))


def test_classes_and_bins_are_those_of_the_training_clips() -> None:
    found = _labelling(["b", "a", "b", "a", "a", "other"], [3.0, 5.0, 9.0, -50.0, 99.0, 1000.0])
    assert found.labels == ("a", "b")
    assert found.bins is not None
    assert (found.bins.low, found.bins.high, found.bins.target) == (3.0, 9.0, "speed")
    assert found.notes == ()


def test_test_parts_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"none of the 1 clips of split 'test' has a class that training knows"):
        _labelling(["b", "a", "b", "a", "new", "other"])
    with pytest.raises(TrainingError, match=r"none of the 1 clips of the validation part has a class that training"):
        _labelling(["b", "a", "b", "new", "a", "other"])
    nan = float("nan")
    with pytest.raises(TrainingError, match=r"none of the 1 validation clips has a target 'speed'"):
        _labelling(["b", "a", "b", "a", "a", ""], [1.0, 2.0, 3.0, nan, 4.0, nan])
    with pytest.raises(TrainingError, match=r"none of the 1 validation clips has a label"):
        _labelling(["b", "a", "b", "", "a", ""])
    assert _labelling(["b", "a", "b", "", "a", ""], [1.0, 2.0, 3.0, 4.0, nan, nan]).labels == ("a", "b")


def test_validation_clips_of_which_some_have_a_label_can_choose() -> None:
    table = clips(["a", "b", "a", "", "b"], splits=["train", "train", "val", "val", "test"])
    asked = config()
    assert label_clips(asked.data, asked.objective, table, _parts(table)).labels == ("a", "b")


def test_training_clips_must_have_what_is_trained() -> None:
    nan = float("nan")
    with pytest.raises(TrainingError, match=r"'speed' is empty or not finite in 1 of 3 training clips \('c1'\)"):
        _labelling(["b", "a", "b", "a", "a", ""], [1.0, nan, 3.0, 4.0, 4.0, nan])
    with pytest.raises(
        TrainingError, match=r"2 of 3 training clips lie outside 2:3 \('c0', 'c2'; all go from 1 to 5\)"
    ):
        _labelling(["b", "a", "b", "a", "a", ""], [1.0, 2.0, 5.0, 4.0, 4.0, nan], range=(2.0, 3.0))
    with pytest.raises(TrainingError, match=r"'speed' reaches 1e\+39 in the training clips; .* float32"):
        _labelling(["b", "a", "b", "a", "a", ""], [1.0, 2.0, -1e39, 4.0, 4.0, nan])
    ends = _labelling(["b", "a", "b", "a", "a", ""], [2.0, 2.5, 3.0, 4.0, 4.0, nan], range=(2.0, 3.0)).bins
    assert ends is not None  # a target at an end of the range is within it
    assert (ends.low, ends.high) == (2.0, 3.0)
    with pytest.raises(TrainingError, match=r"1 of 3 training clips have no label"):
        _labelling(["b", "", "b", "a", "a", ""])
    with pytest.raises(TrainingError, match=r"needs at least 2 classes in the training part, found only 'b'"):
        _labelling(["b", "b", "b", "b", "b", ""])
    with pytest.raises(TrainingError, match="--label none needs a target column"):
        _labelling(["b", "a", "b", "b", "b", ""], label="none")
    with pytest.raises(TrainingError, match="--target mass: the store has no such target column; it has speed"):
        _labelling(["b", "a", "b", "b", "b", ""], [1.0] * 6, target="mass")


def test_outputs_are_those_that_are_asked_for_and_there() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    labels = ["b", "a", "b", "a", "a", "new"]
    assert _labelling(labels, values, target="none").bins is None
    assert _labelling(labels).bins is None
    assert _labelling(labels, values, label="none").labels is None
    named = _labelling(labels, values, target="speed", range=(0.0, 8.0), bins=5, sigma=2.0, target_labels="hard").bins
    assert named is not None
    assert (named.low, named.high, named.num_bins, named.sigma_bins, named.labels) == (0.0, 8.0, 5, 2.0, "hard")
    bare = _labelling([""] * 6, values)
    assert bare.labels is None
    assert bare.notes == ("No training clip has a label: only the target is trained.",)


def test_classes_that_a_fold_never_trains_on_are_named() -> None:
    labels = ["a", "b"] * 6 + ["rare"] * 2
    table = clips(labels, splits=["train"] * 14, groups=[f"g{i}" for i in range(12)] + ["r", "r"])
    asked = config(folds=3)
    parts = _parts(table, folds=3)
    (holder,) = [part.fold for part in parts.partitions if 12 in part.test]
    found = label_clips(asked.data, asked.objective, table, parts)
    assert found.labels == ("a", "b", "rare")  # one vocabulary for all folds
    assert found.notes == (f"Fold {holder} is tested on 1 classes it never trains on ('rare').",)


def test_classes_of_one_of_two_folds_are_named_and_of_many_clips_the_first() -> None:
    labels = ["a", "b"] * 6 + ["rare"] * 2
    table = clips(labels, splits=["train"] * 14, groups=[f"g{i}" for i in range(12)] + ["r", "r"])
    asked = config(folds=2)
    parts = _parts(table, folds=2)
    assert len(parts.partitions) == 2
    (holder,) = [part.fold for part in parts.partitions if 12 in part.test]
    found = label_clips(asked.data, asked.objective, table, parts)
    assert found.notes == (f"Fold {holder} is tested on 1 classes it never trains on ('rare').",)
    values = [float("nan")] * 5 + [1.0]
    table = clips(["a", "b"] * 3, splits=["train"] * 5 + ["val"], values=values)
    with pytest.raises(TrainingError, match=r"in 5 of 5 training clips \('c0', 'c1', 'c2', \.\.\.\)"):
        label_clips(config().data, config().objective, table, _parts(table))


# --- normalisation


def _features(steps: list[np.ndarray]) -> Features:
    longest = max(len(one) for one in steps)
    arrays = np.zeros((len(steps), longest, steps[0].shape[1]), dtype=np.float32)
    for i, one in enumerate(steps):
        arrays[i, : len(one)] = one
    lengths = np.array([len(one) for one in steps])
    return Features(
        arrays={"cls": torch.from_numpy(arrays)},
        mask=torch.from_numpy(np.arange(longest) < lengths[:, None]),
        means={"cls": np.stack([one.mean(axis=0) for one in steps])},
        variances={"cls": np.stack([one.var(axis=0) for one in steps])},
        num_steps=lengths,
    )


def _steps() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(loc=i, scale=1 + i, size=(2 + 3 * i, 3)) for i in range(5)]


def test_statistics_are_those_of_all_steps_of_the_training_clips() -> None:
    steps = _steps()
    found = fit_normalization(_features(steps), np.array([1, 3]), "zscore")
    every = np.concatenate([steps[1], steps[3]])
    np.testing.assert_allclose(found.mean["cls"], every.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.scale["cls"], every.std(axis=0), rtol=1e-5)


def test_other_clips_do_not_move_the_statistics() -> None:
    steps = _steps()
    before = fit_normalization(_features(steps), np.array([1, 3]), "zscore")
    for i in (0, 2, 4):
        steps[i] = steps[i] * 100 + 7
    after = fit_normalization(_features(steps), np.array([1, 3]), "zscore")
    assert torch.equal(before.mean["cls"], after.mean["cls"])
    assert torch.equal(before.scale["cls"], after.scale["cls"])


def test_a_dimension_that_never_changes_is_taken_to_be_as_the_others() -> None:
    steps = [np.array([[5.0, 1.0, 1000.0], [5.0, 3.0, 1000.0005]]), np.array([[5.0, 5.0, 1000.0]])]
    found = fit_normalization(_features(steps), np.array([0, 1]), "zscore")
    usual = pytest.approx(np.std([1, 3, 5]))
    assert found.scale["cls"].tolist() == [usual, usual, usual]  # the last is below the rounding of what is stored
    values = found.apply({"cls": torch.tensor([[[5.0, 3.0, 1000.0]]])}, torch.ones(1, 1, dtype=torch.bool))["cls"]
    np.testing.assert_allclose(values[0, 0], [0.0, 0.0, 0.0], atol=1e-3)


def test_features_that_never_change_are_shifted_only() -> None:
    scale = fit_normalization(_features([np.full((2, 3), 7.0)] * 2), np.array([0, 1]), "zscore").scale["cls"]
    assert scale.tolist() == [1.0, 1.0, 1.0]


def test_a_deviation_below_a_millionth_of_the_mean_is_noise() -> None:
    means, deviations = np.array([1000.0, 1000.0, -1000.0]), np.array([1.5e-3, 7e-4, 7e-4])
    steps = [(means + deviations)[None], (means - deviations)[None]]
    scale = fit_normalization(_features(steps), np.array([0, 1]), "zscore").scale["cls"]
    assert scale.tolist() == pytest.approx([0.0015, 0.0015, 0.0015])


@pytest.mark.parametrize(("num_clips", "share"), [(4, 0.1), (100, 0.1), (400, 0.05), (10_000, 0.01)])
def test_no_deviation_is_much_less_than_the_usual_one(num_clips: int, share: float) -> None:
    deviations = np.array([1.0, 2.0, 4.0, 0.5, 7e-8])
    signs = np.where(np.arange(num_clips) % 2, 1.0, -1.0)[:, None, None]
    steps = list(signs * deviations)
    scale = fit_normalization(_features(steps), np.arange(num_clips), "zscore").scale["cls"]
    assert scale.tolist() == pytest.approx([1.0, 2.0, 4.0, 0.5, share * 1.0], rel=1e-5)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(2, 12), st.integers(1, 8)), elements=st.floats(-1e3, 1e3, width=32)),
    st.floats(1e-6, 1e6),
)
@example(values=np.array([[0.0], [1e-45]], np.float32), unit=1.0)
def test_unseen_values_of_a_usual_size_stay_small(values: np.ndarray, unit: float) -> None:
    """Whatever the training clips are: a clip that is a usual deviation away is ten away at most, in any unit."""
    steps = [row[None].astype(np.float64) * unit for row in values]
    found = fit_normalization(_features(steps), np.arange(len(steps)), "zscore")
    std = np.stack([one[0] for one in steps]).std(axis=0)
    changing = std[std > 1e-6 * np.abs(found.mean["cls"].numpy())]
    usual = float(np.median(changing)) if len(changing) else 1.0
    assert (usual / found.scale["cls"].numpy().astype(np.float64) <= 10.001 * max(1, len(steps) ** 0.5 / 10)).all()


def test_normalised_training_steps_have_mean_zero_and_deviation_one() -> None:
    steps = _steps()
    features = _features(steps)
    rows = np.array([0, 2, 4])
    applied = fit_normalization(features, rows, "zscore").apply(features.arrays, features.mask)["cls"]
    valid = applied[rows][features.mask[rows]].numpy()
    np.testing.assert_allclose(valid.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(valid.std(axis=0), 1, atol=1e-5)
    assert (applied[~features.mask] == 0).all()  # padding stays zero


def test_other_kinds_have_no_statistics() -> None:
    features = _features(_steps())
    for kind in ("l2", "none"):
        found = fit_normalization(features, np.array([0]), kind)
        assert (found.kind, found.mean, found.scale) == (kind, {}, {})
    one = {"x": torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])}
    mask = torch.tensor([[True, False]])
    l2 = Normalization(kind="l2", mean={}, scale={}).apply(one, mask)["x"]
    assert l2.tolist() == [[[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]]
    none = Normalization(kind="none", mean={}, scale={}).apply({"x": one["x"].half()}, mask)["x"]
    assert none.tolist() == [[[3.0, 4.0], [0.0, 0.0]]]
    assert none.dtype == torch.float32
    pooled = Normalization(kind="none", mean={}, scale={}).apply({"x": one["x"][:, :1]}, mask[:, 1:])["x"]
    assert pooled.tolist() == [[[3.0, 4.0]]]  # a pooled clip has one step, which is never padding


def test_moving_statistics_keeps_them() -> None:
    found = fit_normalization(_features(_steps()), np.array([0, 1]), "zscore")
    moved = found.to(torch.device("cpu"))
    assert moved.kind == "zscore"
    assert torch.equal(moved.mean["cls"], found.mean["cls"])
    assert torch.equal(moved.scale["cls"], found.scale["cls"])


# --- what a training is given


def test_job_trains_and_normalises_by_its_own_training_rows() -> None:
    parts = (partition([0, 1, 2], [3], [4], fold=0), partition([2, 3, 4], [1], [0], fold=1))
    case = prepared(clips(["a", "b", "a", "b", "a"]), classes=("a", "b"), partitions=parts)
    means = np.arange(20.0).reshape(5, 4) ** 2
    object.__setattr__(case.features, "means", {"cls": means})
    for part in parts:
        job = make_job(case, part)
        assert (job.train.tolist(), job.val.tolist(), job.fold) == (part.train.tolist(), part.val.tolist(), part.fold)
        np.testing.assert_allclose(job.resident.normalization.mean["cls"], means[part.train].mean(axis=0))
        assert job.draw_weights is None
        assert job.labels.classes is not None
        assert job.labels.classes.tolist() == [0, 1, 0, 1, 0]


def test_shuffled_labels_are_permuted_within_their_part_and_tests_keep_theirs() -> None:
    num = 30
    labels = [f"k{i}" for i in range(num)]
    part = partition(range(20), range(20, 26), range(26, num))
    case = prepared(clips(labels), classes=tuple(sorted(labels)), partitions=(part,), shuffle_labels=True)
    numbers = make_job(case, part).labels.classes
    plain = make_job(prepared(clips(labels), classes=tuple(sorted(labels)), partitions=(part,)), part).labels.classes
    assert numbers is not None
    assert plain is not None
    assert sorted(numbers[:20].tolist()) == sorted(plain[:20].tolist())
    assert sorted(numbers[20:26].tolist()) == sorted(plain[20:26].tolist())
    assert numbers[:20].tolist() != plain[:20].tolist()
    assert numbers[20:26].tolist() != plain[20:26].tolist()
    assert numbers[26:].tolist() == plain[26:].tolist()
    reported = partition(range(20), range(20, num), range(20, num), val_is_reported=True)
    kept = make_job(
        prepared(clips(labels), classes=tuple(sorted(labels)), partitions=(reported,), shuffle_labels=True), reported
    )
    assert kept.labels.classes is not None
    assert kept.labels.classes[20:].tolist() == plain[20:].tolist()  # a reported part is judged by its own labels
