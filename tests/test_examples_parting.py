"""Parts that --split-by asks for: another column, clips drawn by class, whole groups; and that leaks are told."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelbank.heads import TrainConfig, train_head
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.parting import drawn_clips, drawn_groups
from reelbank.heads.reports.wording import warnings_first
from reelbank.heads.split_rules import SplitRule, parse_split_rule
from reelbank.store.testing import write_store

SECOND = ("train", "test", "unused", "val")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 clips of 3 classes in 30 groups, parted by groups; `split_2` is another column, a tenth is of new classes."""
    rng = np.random.default_rng(0)
    clips: list[dict[str, Any]] = [
        {
            "clip_id": f"c{i}",
            "label": "abc"[i % 3],
            "group": f"film {i // 5}",
            "split": "test" if i // 5 % 5 == 0 else "train",
            "split_2": SECOND[i // 10 % 4],
            "rated": float(i),
        }
        for i in range(150)
    ]
    clips += [
        {"clip_id": f"u{i}", "label": "z", "split": "unknown", "split_2": "unused", "rated": 0.0} for i in range(9)
    ]
    features = [rng.normal(size=(2, 4)).astype(np.float32) + i % 3 for i in range(len(clips))]
    path = tmp_path_factory.mktemp("s") / "s.zarr"
    write_store(path, {"cls": features}, clips)
    return path


def config(store: Path, **values: Any) -> TrainConfig:
    given = {"store": (store,), "head": "linear", "target": "none", "epochs": 2, "report": False}
    return TrainConfig.of(**{**given, **values})


def parts(store: Path, split_by: str, **values: Any) -> tuple[Any, Any, list[str]]:
    """(table, the partition, notes)."""
    table, found = FeatureCache().clips(config(store, split_by=split_by, **values))
    return table, found.partitions[0], found.notes


# --- the rule


def test_rules_are_read_and_others_refused() -> None:
    assert parse_split_rule("split").is_own
    assert parse_split_rule("split_2") == SplitRule(text="split_2")
    one = parse_split_rule("random:0.1:test")
    assert (one.kind, one.share, one.part, one.is_own) == ("random", Fraction(1, 10), "test", False)
    assert parse_split_rule("groups:1/4").part == "val"
    for text in ("random:0", "random:1", "random:x", "groups:", "random:0.1:train", "random:1/0", ""):
        with pytest.raises(TrainingError, match=r"--split-by .*random:SHARE"):
            parse_split_rule(text)


def test_folds_beside_and_columns_that_are_none_are_refused(store: Path) -> None:
    with pytest.raises(TrainingError, match=r"--split-by random:0\.1 with --folds 3"):
        config(store, split_by="random:0.1", folds=3)
    with pytest.raises(TrainingError, match=r"--split-by split_3: .* no such text column.* split_2"):
        parts(store, "split_3")
    with pytest.raises(TrainingError, match=r"--split-by rated: .* no such text column"):
        parts(store, "rated")


# --- what is drawn


def test_the_published_count_is_held_out_of_7091() -> None:
    classes = np.random.default_rng(0).integers(0, 51, 7091)
    rule = parse_split_rule("random:0.1")
    held = drawn_clips([str(i) for i in range(7091)], classes, math.ceil(rule.share * 7091), 42)
    assert held.sum() == 710
    each = np.bincount(classes[held], minlength=51)
    assert np.abs(each - 0.1001 * np.bincount(classes)).max() < 1


@pytest.mark.parametrize("seed", range(4))
def test_clips_are_drawn_exactly_by_class_and_follow_from_seed_and_id(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = np.unique(rng.integers(0, 8, 90), return_inverse=True)[1]
    ids = [f"c{i}" for i in range(90)]
    for count in (1, 9, 45, 80):
        held = drawn_clips(ids, classes, count, seed)
        assert held.sum() == count
        assert np.abs(np.bincount(classes[held], minlength=8) - count / 90 * np.bincount(classes)).max() <= 1 + 1e-9
        assert len(np.unique(classes[~held])) == classes.max() + 1
        order = rng.permutation(90)
        again = drawn_clips([ids[i] for i in order], classes[order], count, seed)
        assert (again == held[order]).all()
    assert (drawn_clips(ids, classes, 45, seed) != drawn_clips(ids, classes, 45, seed + 1)).any()
    with pytest.raises(TrainingError, match="90 of 90 clips cannot be held out"):
        drawn_clips(ids, classes, 90, seed)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_whole_and_classes_about_even(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [f"g{i}" for i in rng.integers(0, 200, 1000)]
    classes = np.array([int(name[1:]) % 5 if rng.random() < 0.7 else int(rng.integers(5)) for name in groups])
    held = drawn_groups(groups, classes, share, seed)
    assert not {g for g, h in zip(groups, held, strict=True) if h} & {
        g for g, h in zip(groups, held, strict=True) if not h
    }
    assert abs(held.mean() - share) < 0.03
    of_class = np.bincount(classes[held], minlength=5) / np.bincount(classes)
    assert np.abs(of_class - share).max() < 0.06
    for most in (share, 0.8):
        lone = drawn_groups(["a", "a", "b", "b"], np.array([0, 0, 1, 1]), most, seed)
        assert not lone.any(), "a class would be lost with its only group"


# --- parts of a run


def test_parts_of_each_rule(store: Path) -> None:
    table, own, notes = parts(store, "split")
    assert (table.splits[own.test] == "test").all()
    assert not any("--split-by" in note for note in notes)
    table, own, notes = parts(store, "split_2")
    assert [len(rows) for rows in (own.train, own.val, own.test)] == [40, 30, 40]
    assert "Splits are those of the column 'split_2', not the store's own (--split-by)." in notes
    assert "No clip of test is of a group that was trained on." in notes
    table, own, notes = parts(store, "random:0.1")
    assert (len(own.train), len(own.val), len(own.test), len(own.unknown)) == (135, 15, 0, 9)
    assert np.bincount(np.unique(table.labels[own.val], return_inverse=True)[1]).tolist() == [5, 5, 5]
    assert any("15 of 150 clips, drawn class by class whatever their group" in note for note in notes)
    assert any(note.startswith("WARNING: ") and "clips of val" in note for note in notes)
    table, own, notes = parts(store, "groups:0.2:test", seed=1)
    assert len(own.val) and abs(len(own.test) - 30) <= 10 and len(own.unknown) == 9
    assert not set(table.groups[own.test]) & set(table.groups[[*own.train, *own.val]])
    assert any("whole groups drawn" in note and "seed 1" in note for note in notes)
    assert not any(note.startswith("WARNING") for note in notes)


def test_a_leak_is_in_the_results_the_summary_and_at_the_top_of_the_page(store: Path, tmp_path: Path) -> None:
    done = train_head(config(store, split_by="random:0.2:test", run=tmp_path / "leaky", report=True))
    results = json.loads((tmp_path / "leaky" / "results.json").read_text())
    entry = results["group_overlap"]["test"]
    assert entry["clips"] == 30
    assert entry["share"] == entry["shared"] / 30 > 0.6
    loud, _ = warnings_first(results["notes"])
    (warning,) = [note for note in loud if "both sides of train and test" in note]
    assert f"{entry['shared']} of 30 clips of test" in warning
    assert warning in done.text()
    page = (tmp_path / "leaky" / "report.html").read_text()
    assert page.index("both sides of train and test") < page.index("<h2")
    clean = train_head(config(store, run=tmp_path / "clean"))
    assert clean.results["group_overlap"] == {
        "val": {"clips": results_val(clean), "shared": 0, "share": 0.0},
        "test": {"clips": 30, "shared": 0, "share": 0.0},
        "unknown": {"clips": 9, "shared": 0, "share": 0.0},
    }
    assert not any("trained on" in note for note in clean.results["notes"])
    folded = train_head(config(store, folds=3, run=tmp_path / "folds"))
    assert folded.results["group_overlap"]["test"] == {"clips": 150, "shared": 0, "share": 0.0}


def results_val(done: Any) -> int:
    return int(done.results["counts"]["val"])
