"""Whole trainings: their reported numbers worked out again from predictions.csv and the manifest with numpy."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import config, planted_store
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

import reelbank.store
from reelbank.heads import TrainingError, predict, train_head
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.judging import intervals
from reelbank.heads.judging.evaluation import summary_text
from reelbank.heads.runs.run import RunResult

OPTIONS: dict[str, Any] = {"head": "linear", "epochs": 8, "bins": 21, "batch": 8, "lr": 0.05, "early_stop_epochs": 0}


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 100)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 20)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("store") / "s.zarr")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("small") / "s.zarr", num=48)


def _train(store: Path, run: Path, **options: Any) -> dict[str, Any]:
    train_head(config(store=(store,), run=run, **{**OPTIONS, **options}))
    return json.loads((run / "results.json").read_text())  # type: ignore[no-any-return]


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _epochs(run: Path, fold: int | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["fold"] == fold]


def _column(path: Path, name: str) -> np.ndarray:
    return np.asarray(reelbank.store.open(path).column(name))


def _check_split(store: Path, rows: list[dict[str, str]], entry: dict[str, Any], known: np.ndarray) -> None:
    """Every number of a split again, from the rows of predictions.csv and the clips that a baseline may know."""
    labels, kcal = _column(store, "label"), _column(store, "kcal").astype(float)
    truth = np.array([float(row["target"]) for row in rows])
    predicted = np.array([float(row["predicted_target"]) for row in rows])
    metrics, guesses = entry["metrics"], entry["baselines"]
    assert entry["num_clips"] == len(rows)
    assert entry["num_groups"] == len({row["group"] for row in rows})
    assert metrics["mae"]["value"] == pytest.approx(np.abs(truth - predicted).mean(), abs=1e-3)
    assert metrics["spc_values"]["value"] == pytest.approx(spearmanr(truth, predicted).statistic)
    constant = np.median(kcal[known])
    assert guesses["constant_median"]["mae"] == pytest.approx(np.abs(truth - constant).mean(), abs=1e-3)
    pairs = np.abs(truth[:, None] - kcal[known])
    assert guesses["random_training_label"]["mae"] == pytest.approx(pairs.mean(), abs=1e-3)
    every_bin = np.abs(truth[:, None] - np.linspace(0, 1000, 21))
    assert guesses["uniform_random_bin"]["mae"] == pytest.approx(every_bin.mean(), abs=1e-3)
    for name, measured in metrics.items():
        if measured["low"] is not None and name != "nll":
            assert measured["low"] <= measured["value"] <= measured["high"], name
    if rows[0]["split"] == "unknown":
        assert "accuracy" not in metrics
        assert "majority_class" not in guesses
        return
    names, said = np.array([row["label"] for row in rows]), np.array([row["predicted"] for row in rows])
    assert [row["correct"] for row in rows] == [str(int(ok)) for ok in names == said]
    assert metrics["accuracy"]["value"] == pytest.approx((names == said).mean())
    assert metrics["macro_f1"]["value"] == pytest.approx(f1_score(names, said, average="macro"))
    values, counts = np.unique(labels[known].astype(str), return_counts=True)
    majority = values[counts.argmax()]
    assert guesses["majority_class"]["accuracy"] == pytest.approx((names == majority).mean())
    assert guesses["uniform_random_class"]["accuracy"] == pytest.approx(1 / 3)
    means = {name: truth[names == name].mean() for name in set(names.tolist())}
    oracle = np.abs(truth - np.array([means[name] for name in names])).mean()
    assert guesses["class_mean_oracle"]["mae"] == pytest.approx(oracle, abs=1e-3)


def test_every_reported_number_follows_from_the_predictions(store: Path, tmp_path: Path) -> None:
    results = _train(store, tmp_path / "run")
    rows, splits = _rows(tmp_path / "run"), _column(store, "split")
    assert results["reported"] == "test"
    for split in ("val", "test", "unknown"):
        own = [row for row in rows if row["split"] == split]
        assert len(own) == (splits == split).sum()
        _check_split(store, own, results["splits"][split], np.flatnonzero(splits == "train"))
    assert len(rows) == (splits != "train").sum()  # no training clip is ever reported
    text = RunResult(directory=tmp_path / "run", results=results).text()
    assert text == summary_text(tmp_path / "run", results)
    assert text.startswith(results["verdict"])


def test_kept_epoch_is_the_one_with_the_lowest_validation_loss(store: Path, tmp_path: Path) -> None:
    overfitting = {"head": "mlp", "lr": 3e-3}
    results = _train(store, tmp_path / "run", **overfitting)
    epochs = _epochs(tmp_path / "run")
    losses = [line["val_loss"] for line in epochs]
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1, "the case must tell best from first and last"
    assert results["training"]["best_epoch"] == best + 1
    assert results["training"]["epochs_run"] == 8
    assert [line["best"] for line in epochs] == [loss < min([9e9, *losses[:i]]) for i, loss in enumerate(losses)]
    # the predictor is that of the best epoch: its validation numbers are those of that line of the log
    metrics = results["splits"]["val"]["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(epochs[best]["val_accuracy"])
    assert metrics["mae"]["value"] == pytest.approx(epochs[best]["val_mae"], rel=1e-4)
    assert results["training"]["overfit"] == (losses[-1] > 1.05 * losses[best])
    last = _train(store, tmp_path / "last", **overfitting, keep="last")
    assert _epochs(tmp_path / "last")[-1]["val_loss"] == losses[-1]
    assert last["splits"]["val"]["metrics"]["mae"]["value"] == pytest.approx(epochs[-1]["val_mae"], rel=1e-4)
    assert last["training"]["best_epoch"] == best + 1


def test_folds_judge_every_clip_by_a_model_that_never_saw_its_group(store: Path, tmp_path: Path) -> None:
    results = _train(store, tmp_path / "run", folds=3)
    rows, splits = _rows(tmp_path / "run"), _column(store, "split")
    groups = dict(zip(_column(store, "clip_id").tolist(), _column(store, "group").tolist(), strict=True))
    known = np.flatnonzero(splits != "unknown")
    own = [row for row in rows if row["split"] == "test"]
    assert sorted(row["clip_id"] for row in own) == sorted(_column(store, "clip_id")[known].tolist())
    _check_split(store, own, results["splits"]["test"], known)
    unknown = [row for row in rows if row["split"] == "unknown"]
    assert len(unknown) == (splits == "unknown").sum()
    _check_split(store, unknown, results["splits"]["unknown"], known)
    assert set(results["splits"]) == {"test", "unknown"}
    fold_of_group: dict[str, str] = {}
    for row in rows:
        assert fold_of_group.setdefault(groups[row["clip_id"]], row["fold"]) == row["fold"]
    for entry in results["folds"]:
        mine = [row for row in own if row["fold"] == str(entry["fold"])]
        assert entry["test"] == len(mine)
        assert entry["train"] + entry["val"] + entry["test"] == len(known)
        accuracy = np.mean([row["correct"] == "1" for row in mine])
        assert entry["metrics"]["accuracy"] == pytest.approx(accuracy)
        errors = [abs(float(row["target"]) - float(row["predicted_target"])) for row in mine]
        assert entry["metrics"]["mae"] == pytest.approx(np.mean(errors), abs=1e-3)
        losses = [line["val_loss"] for line in _epochs(tmp_path / "run", entry["fold"])]
        assert entry["best_epoch"] == int(np.argmin(losses)) + 1
    # each fold's saved head gives the numbers it is credited with, and no other fold's does
    again = predict(tmp_path / "run", store)
    assert any("Mean of the heads of 3 folds" in note for note in again.notes)


def _changed(folder: Path, clip: int, **fields: Any) -> Path:
    return planted_store(folder / "s.zarr", num=48, more={clip: fields})


# clips of group 0-2 train, 3 val, 4 test, 5 unknown (4 clips each)
@pytest.mark.parametrize(("clip", "split"), [(13, "val"), (16, "test"), (20, "unknown")])
def test_labels_outside_training_change_no_weight(clip: int, split: str, small: Path, tmp_path: Path) -> None:
    assert _column(small, "split")[clip] == split
    other = "class 0" if _column(small, "label")[clip] != "class 0" else "class 1"
    changed = _changed(tmp_path, clip, label=other, kcal=990.0)
    _train(small, tmp_path / "a", epochs=1)
    _train(changed, tmp_path / "b", epochs=1)
    for a, b in zip(_rows(tmp_path / "a"), _rows(tmp_path / "b"), strict=True):
        assert (a["predicted"], a["probability"], a["predicted_target"]) == (
            *(b["predicted"], b["probability"], b["predicted_target"]),
        )
        assert (a["label"] == b["label"]) == (a["clip_id"] != f"c{clip:03d}")


def test_a_run_does_not_go_on_with_other_labels(small: Path, tmp_path: Path) -> None:
    _train(small, tmp_path / "run", epochs=1)
    _train(small, tmp_path / "run", epochs=2, resume=True)
    for clip, fields in (
        (16, {"label": "class 0"}),
        (1, {"kcal": 990.0}),
        (2, {"group": "s99"}),
        (13, {"split": "test"}),
    ):
        (tmp_path / str(clip)).mkdir()
        changed = _changed(tmp_path / str(clip), clip, **fields)
        with pytest.raises(TrainingError, match=r"the stores of .* have changed .*; start another run"):
            _train(changed, tmp_path / "run", epochs=3, resume=True)


def test_labels_of_training_clips_do_change_the_weights(small: Path, tmp_path: Path) -> None:
    _train(small, tmp_path / "a", epochs=1)
    _train(_changed(tmp_path, 1, label="class 0", kcal=990.0), tmp_path / "b", epochs=1)
    probabilities = [[row["probability"] for row in _rows(tmp_path / name)] for name in ("a", "b")]
    assert probabilities[0] != probabilities[1]


def test_store_without_test_reports_validation_and_says_so(tmp_path: Path) -> None:
    store = planted_store(tmp_path / "s.zarr", num=48, splits=("train", "train", "val"))
    results = _train(store, tmp_path / "run", epochs=2)
    assert results["reported"] == "val"
    assert set(results["splits"]) == {"val"}
    assert results["selection"]["sentence"].startswith("Only validation is reported: the best epoch's weights")
    assert results["verdict"].startswith("val accuracy")
    _check_split(
        store, _rows(tmp_path / "run"), results["splits"]["val"], np.flatnonzero(_column(store, "split") == "train")
    )


def test_selection_on_the_reported_set_reports_it_once(store: Path, tmp_path: Path) -> None:
    results = _train(store, tmp_path / "run", select_on="reported-set", epochs=3)
    assert set(results["splits"]) == {"test", "unknown"}
    assert results["selection"]["select_on"] == "reported-set"
    epochs = _epochs(tmp_path / "run")
    best = int(np.argmin([line["val_loss"] for line in epochs]))
    assert results["splits"]["test"]["metrics"]["accuracy"]["value"] == pytest.approx(epochs[best]["val_accuracy"])


def test_folds_with_a_clip_that_no_fold_trains_on_are_judged(tmp_path: Path) -> None:
    """In two folds a clip may validate in one and be tested in the other: it needs neither label nor target."""
    store = planted_store(tmp_path / "full.zarr", num=48, splits=("train",))
    results = _train(store, tmp_path / "full", folds=2, epochs=1)
    assert results["splits"]["test"]["num_clips"] == 48
    parts = prepare(config(store=(store,), folds=2, **OPTIONS)).partitions
    trained = np.unique(np.concatenate([part.train for part in parts]))
    never = int(np.setdiff1d(np.arange(48), trained)[0])
    bare = planted_store(tmp_path / "bare.zarr", num=48, splits=("train",), more={never: {"kcal": float("nan")}})
    results = _train(bare, tmp_path / "bare", folds=2, epochs=1)
    entry = results["splits"]["test"]
    kcal = _column(bare, "kcal").astype(float)
    assert np.isnan(kcal).sum() == 1
    finite = kcal[np.isfinite(kcal)]
    assert entry["baselines"]["constant_median"]["mae"] == pytest.approx(
        np.abs(finite - np.median(finite)).mean(), abs=1e-3
    )
    assert "1 clips of 'test' have no target; its metrics leave them out." in results["notes"]


def test_numbers_at_the_best_epoch_are_beside_those_of_the_last_one_where_it_is_kept(
    small: Path, tmp_path: Path
) -> None:
    """With --keep last both are reported; a run that keeps its best epoch has nothing to add."""
    options = {"head": "mlp", "lr": 0.01, "epochs": 20, "shuffle_labels": True}
    last = _train(small, tmp_path / "last", keep="last", **options)
    best = _train(small, tmp_path / "best", keep="best", **options)
    assert best["at_best_epoch"] is None
    assert last["training"]["best_epoch"] == best["training"]["best_epoch"] < last["training"]["epochs_run"]
    assert last["at_best_epoch"]["splits"] == best["splits"]
    assert last["at_best_epoch"]["folds"] == []
    assert last["splits"] != best["splits"]


def test_result_of_a_run_is_what_its_file_says(small: Path, tmp_path: Path) -> None:
    began = time.perf_counter()
    found = train_head(config(store=(small,), run=tmp_path / "run", **OPTIONS))
    written = json.loads((tmp_path / "run/results.json").read_text())
    assert (found.directory, found.results) == (tmp_path / "run", written)
    assert found.has_failures is False
    assert found.verdict == written["verdict"]
    assert written["format_version"] == 1
    assert 0 <= written["training"]["seconds"] <= time.perf_counter() - began
