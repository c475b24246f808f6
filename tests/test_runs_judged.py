"""What a run writes when its training is done: which split is reported, what is said, what the baselines knew."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import BINS, clips, partition, predictions, prepared, sure_of

from reelbank.heads import TrainingError
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.judging import intervals
from reelbank.heads.runs.directory import mass_below, write_finished, write_predictions
from reelbank.heads.runs.recording import EpochLog
from reelbank.heads.runs.results import Trained, finished
from reelbank.heads.runs.run import RunResult
from reelbank.heads.training.trainer import Progression

CLASSES = ("a", "b", "c")
# 0-5 train, 6-7 val, 8-11 test, 12-13 unknown
LABELS = ["a", "a", "b", "c", "a", "b", "b", "c", "b", "b", "a", "c", "new", "new"]
VALUES = [1.0, 2.0, 3.0, 4.0, 10.0, 5.0, 6.0, 7.0, 9.0, 0.0, 2.0, 2.0, 1.0, 8.0]
SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 4 + ["unknown"] * 2
PARTS = {"val": [6, 7], "test": [8, 9, 10, 11], "unknown": [12, 13]}
WHOLE = partition(range(6), **PARTS)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bound is looked at here, and drawing is what takes the time."""
    monkeypatch.setattr(intervals, "RESAMPLES", 4)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 4)


def _case(**options: Any) -> Prepared:
    groups = [f"g{i // 2}" for i in range(14)]
    table = clips(LABELS, splits=SPLITS, values=VALUES, groups=groups)
    return prepared(table, classes=CLASSES, bins=BINS, **{"partitions": (WHOLE,), "notes": ("PREPARED.",), **options})


def _guess(rows: Sequence[int], split: str, fold: int | None = None) -> Any:
    """Always class b and speed 5."""
    folds = [-1 if fold is None else fold] * len(rows)
    return predictions(
        rows, split=split, folds=folds, label=sure_of([1] * len(rows), 3), target=sure_of([5] * len(rows), 11)
    )


def _trained(
    parts: Any = WHOLE, state: Progression | None = None, splits: Sequence[str] = ("val", "test", "unknown")
) -> Trained:
    found = {name: _guess(getattr(parts, name).tolist(), name, parts.fold) for name in splits}
    return Trained(partition=parts, state=state or Progression(epoch=9, best_epoch=4), predictions=found)


def _finish(folder: Path, one: Prepared, trained: Sequence[Trained]) -> dict[str, Any]:
    write_finished(folder, one, finished(folder.name, one, trained, 12.3456))
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- which split is reported, and what the reader is told about the choice


def test_test_is_reported_and_baselines_know_the_training_part_alone(tmp_path: Path) -> None:
    results = _finish(tmp_path, _case(), [_trained()])
    assert results["reported"] == "test"
    assert set(results["splits"]) == {"val", "test", "unknown"}
    median = np.median(VALUES[:6])
    for split, rows in PARTS.items():
        found = results["splits"][split]["baselines"]["constant_median"]["mae"]
        assert found == pytest.approx(np.abs(np.array(VALUES)[rows] - median).mean())
    assert results["splits"]["test"]["baselines"]["majority_class"]["accuracy"] == 0.25  # a: b and c would differ
    assert results["splits"]["test"]["metrics"]["accuracy"]["value"] == 0.5
    assert results["verdict"].count(" accuracy ") == 1
    assert "test accuracy 0.500" in results["verdict"]
    assert "test mean absolute error" in results["verdict"]
    assert "unknown mean absolute error" in results["verdict"]
    assert results["folds"] == []


@pytest.mark.parametrize("held_back", ["val", "test", "unknown"])
def test_labels_outside_training_move_no_baseline(held_back: str, tmp_path: Path) -> None:
    """A label of a clip that is judged may change how wrong a guess is, never the guess."""
    first = PARTS[held_back][0]
    values, labels = list(VALUES), list(LABELS)
    values[first], labels[first] = 10.0, "c"
    table = clips(labels, splits=SPLITS, values=values, groups=[f"g{i // 2}" for i in range(14)])
    changed = prepared(table, classes=CLASSES, bins=BINS, partitions=(WHOLE,))
    before, after = (
        _guesses_elsewhere(tmp_path / name, case, held_back) for name, case in (("a", _case()), ("b", changed))
    )
    assert before == after


def _guesses_elsewhere(folder: Path, case: Prepared, split: str) -> dict[str, Any]:
    folder.mkdir()
    splits = _finish(folder, case, [_trained()])["splits"]
    return {name: entry["baselines"] for name, entry in splits.items() if name != split}


SELECTION = {
    "validation": "Selected on validation, test reported once: {} by the validation loss.",
    "only validation": "Only validation is reported: {} by the loss of the very clips that are reported, so the "
    "numbers are somewhat too good.",
    "reported": (
        "Selected on the reported set itself (--select-on reported-set), as some papers do: {} by the loss there, so "
        "the numbers are too good for clips that nobody has seen."
    ),
}


@pytest.mark.parametrize(("keep", "kept"), [("best", "the best epoch's weights"), ("last", "the last epoch's weights")])
@pytest.mark.parametrize("how", SELECTION)
def test_selection_says_what_chose(how: str, keep: str, kept: str, tmp_path: Path) -> None:
    parts = {
        "validation": partition(range(6), [6, 7], [8, 9, 10, 11]),
        "only validation": partition(range(6), [6, 7], [], [12, 13], val_is_reported=True),
        "reported": partition(range(6), [8, 9, 10, 11], [8, 9, 10, 11], [12, 13], val_is_reported=True),
    }[how]
    splits = {"validation": ("val", "test"), "only validation": ("val", "unknown"), "reported": ("test", "unknown")}[
        how
    ]
    select_on = "reported-set" if how == "reported" else "validation"
    results = _finish(
        tmp_path, _case(keep=keep, select_on=select_on, partitions=(parts,)), [_trained(parts, splits=splits)]
    )
    assert results["selection"] == {
        "select_on": select_on,
        "criterion": "lowest validation loss",
        "sentence": SELECTION[how].format(kept),
    }
    assert results["reported"] == ("val" if how == "only validation" else "test")
    assert results["verdict"].startswith(f"{results['reported']} accuracy")


# --- epochs and overfit


@pytest.mark.parametrize(("last", "overfit"), [(1.0, False), (1.05, False), (1.0501, True), (0.9, False), (2.0, True)])
def test_overfit_is_a_last_loss_more_than_five_percent_above_the_best(
    last: float, overfit: bool, tmp_path: Path
) -> None:
    state = Progression(epoch=9, best_epoch=4, best_loss=1.0, last_loss=last, stopped_early=overfit)
    training = _finish(tmp_path, _case(), [_trained(state=state)])["training"]
    assert training.pop("num_parameters") > 0
    assert training == {
        "seconds": 12.346,
        "epochs_run": 9,
        "best_epoch": 4,
        "stopped_early": overfit,
        "overfit": overfit,
    }


# --- folds


def _folds() -> tuple[list[Trained], Prepared]:
    """Three folds; clips 0-11 are tested once each; the first fold alone judges an unknown clip."""
    parts = [
        partition([4, 5, 6, 7], [8, 9, 10, 11], [0, 1, 2, 3], [13], fold=0),
        partition([0, 1, 2, 3], [8, 9, 10, 11], [4, 5, 6, 7], [12], fold=1),
        partition([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [], fold=2),
    ]
    trained = []
    for part in parts:
        one = _trained(
            part, Progression(epoch=9 + part.fold, best_epoch=4 + part.fold, best_loss=1.0, last_loss=1.02 + part.fold)
        )
        for split, found in one.predictions.items():
            # fold f always predicts class f, and speed f
            num = len(found.rows)
            own = predictions(
                found.rows.tolist(), split=split, folds=[part.fold] * num,
                label=sure_of([part.fold] * num, 3), target=sure_of([part.fold] * num, 11),
            )  # fmt: skip
            one.predictions[split] = own  # type: ignore[index]
        trained.append(one)
    return trained, _case(partitions=tuple(parts))


def test_pooled_folds_have_every_clip_once_by_the_model_that_did_not_see_it(tmp_path: Path) -> None:
    trained, case = _folds()
    results = _finish(tmp_path, case, trained)
    rows = _rows(tmp_path)
    assert [row["clip_id"] for row in rows] == [f"c{i}" for i in range(14)]
    assert [row["split"] for row in rows] == ["test"] * 12 + ["unknown"] * 2
    assert [row["fold"] for row in rows] == ["0"] * 4 + ["1"] * 4 + ["2"] * 4 + ["1", "0"]
    assert [row["predicted"] for row in rows] == ["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["b", "a"]
    truth = np.array(LABELS[:12])
    assert results["splits"]["test"]["metrics"]["accuracy"]["value"] == pytest.approx(
        np.mean(truth == np.repeat(CLASSES, 4))
    )
    assert results["reported"] == "test"
    assert set(results["splits"]) == {"test", "unknown"}  # no validation part is reported beside the folds


def test_baselines_of_folds_know_every_known_clip_and_no_unknown_one(tmp_path: Path) -> None:
    trained, case = _folds()
    results = _finish(tmp_path, case, trained)
    known = np.array(VALUES[:12])
    for split, rows in (("test", list(range(12))), ("unknown", [12, 13])):
        found = results["splits"][split]["baselines"]["constant_median"]["mae"]
        assert found == pytest.approx(np.abs(np.array(VALUES)[rows] - np.median(known)).mean())
    # b is the most frequent of the twelve (5 of 12); a of any single training part
    assert results["splits"]["test"]["baselines"]["majority_class"]["accuracy"] == pytest.approx(5 / 12)
    assert (
        "The baselines know the labels of all folds, which makes them a little stronger than the heads."
        in results["notes"]
    )


def test_baselines_of_folds_count_every_clip_once(tmp_path: Path) -> None:
    """With --train-clips some clips are in fewer folds than others: they weigh no less."""
    trained, _ = _folds()
    parts = [replace(one.partition, train=one.partition.train[:1]) for one in trained]
    fewer = [replace(one, partition=part) for one, part in zip(trained, parts, strict=True)]
    results = _finish(tmp_path, _case(partitions=tuple(parts)), fewer)
    found = results["splits"]["test"]["baselines"]["random_training_label"]["mae"]
    known = np.array(VALUES[:12])
    assert found == pytest.approx(np.abs(known[:, None] - known).mean())


def test_counts_of_folds_are_those_of_the_first(tmp_path: Path) -> None:
    trained, _ = _folds()
    parts = [
        trained[0].partition,
        *(replace(one.partition, train=one.partition.train[:1], val=one.partition.val[:2]) for one in trained[1:]),
    ]
    counts = _finish(tmp_path, _case(partitions=tuple(parts)), trained)["counts"]
    assert (counts["train"], counts["val"], counts["test"], counts["unknown"]) == (4, 4, 12, 2)


def test_folds_are_entries_with_their_own_epochs_and_numbers(tmp_path: Path) -> None:
    trained, case = _folds()
    results = _finish(tmp_path, case, trained)
    assert [entry["fold"] for entry in results["folds"]] == [0, 1, 2]
    assert [entry["best_epoch"] for entry in results["folds"]] == [4, 5, 6]
    assert [entry["epochs_run"] for entry in results["folds"]] == [9, 10, 11]
    assert [entry["overfit"] for entry in results["folds"]] == [False, True, True]
    assert [(entry["train"], entry["val"], entry["test"]) for entry in results["folds"]] == [(4, 4, 4)] * 3
    # a a b c | a b b c | b b a c
    assert [entry["metrics"]["accuracy"] for entry in results["folds"]] == [0.5, 0.5, 0.25]
    assert [entry["metrics"]["mae"] for entry in results["folds"]] == [2.5, 6.0, np.mean([7, 2, 0, 0])]
    assert results["training"]["best_epoch"] == 4
    counts = results["counts"]
    assert {name: counts[name] for name in ("train", "val", "test", "unknown", "clips", "classes", "groups")} == {
        "train": 4,
        "val": 4,
        "test": 12,
        "unknown": 2,
        "clips": 14,
        "classes": 3,
        "groups": 7,
    }


def test_folds_without_unknown_clips_report_no_unknown_split(tmp_path: Path) -> None:
    trained, case = _folds()
    for one in trained:
        one.predictions["unknown"] = predictions(
            [], split="unknown", folds=[], label=np.empty((0, 3)), target=np.empty((0, 11))
        )  # type: ignore[index]
    assert set(_finish(tmp_path, case, trained)["splits"]) == {"test"}


# --- notes, counts, files


def test_results_carry_the_notes_of_every_reported_part(tmp_path: Path) -> None:
    labels = [*LABELS[:8], "zoo", *LABELS[9:12], "a", "new"]
    table = clips(labels, splits=SPLITS, values=VALUES)
    results = _finish(
        tmp_path, prepared(table, classes=CLASSES, bins=BINS, partitions=(WHOLE,), notes=("PREPARED.",)), [_trained()]
    )
    assert results["notes"] == [
        "PREPARED.",
        "1 clips of 'test' have a label that training never saw; they count as wrong.",
        "1 clips of 'unknown' have a class that training knows (the first: 'a'): its numbers are not those of unknown "
        "classes alone.",
        "Intervals of 'val' over 2 clips, of 'test' over 4 clips, of 'unknown' over 2 clips say little: read no "
        "difference out of them.",
        *(note for note in results["notes"] if note.startswith("No interval is given for ")),
    ]
    assert results["counts"] == {
        "clips": 14,
        "train": 6,
        "val": 2,
        "test": 4,
        "unknown": 2,
        "classes": 3,
        "groups": None,
        "left_out": [],
    }
    tables = json.loads((tmp_path / "confusion.json").read_text())
    assert set(tables) == {"val", "test"}
    assert tables["test"]["labels"] == ["a", "b", "c", "zoo"]


def test_shuffled_labels_and_random_weights_are_in_the_results(tmp_path: Path) -> None:
    table = clips(LABELS, splits=SPLITS, values=VALUES, random_backbones=("toy",))
    case = prepared(table, classes=CLASSES, bins=BINS, partitions=(WHOLE,), shuffle_labels=True)
    results = _finish(tmp_path, case, [_trained()])
    assert results["shuffled_labels"] is results["weights_are_random"] is True
    assert results["warning"].startswith("RANDOM WEIGHTS: toy")
    assert results["verdict"].startswith(results["warning"] + " CONTROL:")
    (tmp_path / "real").mkdir()
    real = _finish(tmp_path / "real", _case(), [_trained()])
    assert real["shuffled_labels"] is real["weights_are_random"] is False
    assert real["warning"] == ""
    assert (real["target_name"], real["target_unit"], real["run"]) == ("speed", "", "real")


def test_run_of_classes_alone_has_no_target_and_the_other_way_round(tmp_path: Path) -> None:
    only = prepared(clips(LABELS, splits=SPLITS), classes=CLASSES, partitions=(WHOLE,))
    (tmp_path / "classes").mkdir()
    results = _finish(tmp_path / "classes", only, [_trained()])
    assert results["target_name"] is results["target_unit"] is None
    assert "target" not in _rows(tmp_path / "classes")[0]
    target = prepared(clips([""] * 14, splits=SPLITS, values=VALUES), bins=BINS, partitions=(WHOLE,))
    (tmp_path / "target").mkdir()
    results = _finish(tmp_path / "target", target, [_trained()])
    assert results["counts"]["classes"] == 0
    assert results["verdict"].startswith("test mean absolute error")
    assert not (tmp_path / "target" / "confusion.json").exists()
    row = _rows(tmp_path / "target")[0]
    assert (row["predicted"], row["probability"], row["correct"]) == ("", "", "")


def test_predictions_are_one_row_per_clip_with_these_columns(tmp_path: Path) -> None:
    labels = ["a", "b", "", "new", "b"]
    table = clips(labels, groups=["g", "", "", "h", "h"], values=[1.0, 2.25, float("nan"), 12.0, 5.0])
    case = prepared(table, classes=CLASSES, bins=BINS)
    q = np.zeros((3, 11))
    q[:, [2, 5]] = [0.25, 0.75]
    parts = [
        predictions([1, 2, 3], label=[[0.1, 0.7, 0.2], [0.4, 0.3, 0.3], [0.2, 0.2, 0.6]], target=q),
        predictions([4], split="unknown", folds=[2], label=[[0.0, 1.0, 0.0]], target=q[:1]),
    ]
    write_predictions(tmp_path / "predictions.csv", case, parts)
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines == [
        "clip_id,split,fold,group,label,predicted,probability,correct,true_probability,target,predicted_target,target_cdf",
        "c1,test,,,b,b,0.700000,1,0.700000,2.25,5,0.125000",
        "c2,test,,,,a,0.400000,,,,5,",
        "c3,test,,h,new,c,0.600000,0,,12,5,1.000000",
        "c4,unknown,2,h,b,b,1.000000,,1.000000,5,5,0.625000",
    ]
    assert not list(tmp_path.glob(".*"))
    write_predictions(tmp_path / "median.csv", prepared(table, bins=BINS, estimate="expectation"), parts[1:])
    assert _csv(tmp_path / "median.csv")[0]["predicted_target"] == "4.25"


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_mass_below_counts_the_own_bin_half() -> None:
    q = np.array([0.1, 0.2, 0.3, 0.4, *[0.0] * 7])
    assert mass_below(q, BINS, 2.0) == pytest.approx(0.45)
    assert mass_below(q, BINS, 2.4) == pytest.approx(0.45)
    assert mass_below(q, BINS, 2.6) == pytest.approx(0.8)
    assert mass_below(q, BINS, -3.0) == pytest.approx(0.05)
    assert mass_below(q, BINS, 99.0) == pytest.approx(1.0)


def test_mass_below_is_uniform_where_the_distributions_are_right() -> None:
    random = np.random.default_rng(0)
    q = random.dirichlet(np.ones(11), size=4000)
    drawn = (q.cumsum(axis=1) > random.random((4000, 1))).argmax(axis=1)
    found = [mass_below(row, BINS, float(place)) for row, place in zip(q, drawn, strict=True)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)
    assert np.mean(np.array(found) < 0.25) == pytest.approx(0.25, abs=0.04)


# --- what a result gives to its reader


def test_metric_is_of_the_reported_split_unless_another_is_asked(tmp_path: Path) -> None:
    entry = {
        "val": {"metrics": {"mae": {"value": 1.0}}},
        "test": {"metrics": {"mae": {"value": 2.0}, "nll": {"value": None}}},
    }
    result = RunResult(
        directory=tmp_path, results={"splits": entry, "reported": "test", "verdict": "V", "warning": "W"}
    )
    assert (result.metric("mae"), result.metric("mae", "val"), result.metric("nll")) == (2.0, 1.0, None)
    assert (result.verdict, result.warning) == ("V", "W")
    with pytest.raises(TrainingError, match=r"no metric 'f1' there; it has mae, nll"):
        result.metric("f1")


def test_log_keeps_the_epochs_of_the_last_checkpoint_of_each_fold(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = EpochLog(path)
    log.keep({0: 3})  # there is no file yet
    for fold in (0, 1, 2):
        for epoch in (1, 2, 3):
            log.append({"fold": fold, "epoch": epoch})
    log.close()
    path.write_text(path.read_text() + '{"fold": 0, "epo')
    log.keep({0: 2, 1: 3})
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["fold"], one["epoch"]) for one in kept] == [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]
    log.append({"fold": 2, "epoch": 1})
    log.close()
    assert len(path.read_text().splitlines()) == 6
