"""Events for TensorBoard: what metrics.jsonl and results.json hold, read back by TensorBoard's own reader."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from planted import planted_store

from reelbank.heads import SweepConfig, TrainConfig, TrainingError, sweep, train_head
from reelbank.heads.runs.tensorboard import FOLDER, TAGS

pytest.importorskip("tensorboard")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("events") / "s.zarr", num=48)


def _config(store: Path, folder: Path, **options: Any) -> TrainConfig:
    asked = {"head": "linear", "loss": "ce", "epochs": 3, "early_stop_epochs": 0, "report": False, "tensorboard": True}
    return TrainConfig.of(store=(store,), run=folder / "run", **asked | options)


def _events(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(folder))
        found.Reload()
    return found


def _scalars(folder: Path, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in _events(folder).Scalars(tag)}


def _lines(run: Path, fold: int | None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["fold"] == fold]


def _agrees(run: Path, fold: int | None, events: Path) -> None:
    """The events of a partition are its lines of metrics.jsonl."""
    for key, tag in TAGS.items():
        wanted = {line["epoch"]: line[key] for line in _lines(run, fold) if line[key] is not None}
        if wanted:
            assert _scalars(events, tag) == pytest.approx(wanted, rel=1e-6), tag
        else:
            assert tag not in _events(events).Tags()["scalars"]


def test_epochs_hyperparameters_and_outcome_of_a_run_are_read_back(store: Path, tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    result = train_head(_config(store, tmp_path, lr=0.25))
    _agrees(result.directory, None, result.directory / FOLDER)
    best = result.results["training"]["best_epoch"]
    for split, entry in result.results["splits"].items():
        for name, metric in entry["metrics"].items():
            if metric["value"] is not None:
                found = _scalars(result.directory / FOLDER, f"{split}/{name}")
                assert found == pytest.approx({best: metric["value"]}, rel=1e-6)
    summary = _events(result.directory / FOLDER).summary_metadata["_hparams_/session_start_info"]
    given = HParamsPluginData.FromString(summary.plugin_data.content).session_start_info.hparams
    assert given["lr"].number_value == 0.25
    assert given["head"].string_value == "linear"
    assert "run" not in given and "device" not in given


def test_folds_have_a_run_of_their_own(store: Path, tmp_path: Path) -> None:
    result = train_head(_config(store, tmp_path, folds=2))
    for fold in result.results["folds"]:
        events = result.directory / FOLDER / f"fold-{fold['fold']}"
        _agrees(result.directory, fold["fold"], events)
        found = _scalars(events, "test/accuracy")
        assert found == pytest.approx({fold["best_epoch"]: fold["metrics"]["accuracy"]}, rel=1e-6)


@pytest.mark.parametrize("executor", ["processes", "stacked"])
def test_members_of_a_sweep_have_a_run_of_their_own(store: Path, tmp_path: Path, executor: str) -> None:
    options = {"head": "linear", "loss": "ce", "epochs": 2, "report": False, "tensorboard": True, "repeats": 2}
    result = sweep(SweepConfig.of(store=(store,), run=tmp_path / "runs", executor=executor, workers=1, **options))
    members = sorted(path.parent for path in result.directory.rglob("metrics.jsonl"))
    assert len(members) == 2
    for member in members:
        _agrees(member, None, member / FOLDER)


@pytest.mark.parametrize("before", [True, False])
def test_resumed_run_has_each_epoch_once(store: Path, tmp_path: Path, before: bool) -> None:
    first = train_head(_config(store, tmp_path, epochs=2, tensorboard=before))
    assert (first.directory / FOLDER).exists() == before
    result = train_head(_config(store, tmp_path, epochs=4, resume=True))
    assert len(_lines(result.directory, None)) == 4
    _agrees(result.directory, None, result.directory / FOLDER)
    assert len(_events(result.directory / FOLDER).Scalars("loss/train")) == 4


def test_run_without_it_writes_none(store: Path, tmp_path: Path) -> None:
    assert not (train_head(_config(store, tmp_path, tensorboard=False)).directory / FOLDER).exists()


def test_missing_tensorboard_names_the_extra(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"--tensorboard needs .*: pip install reelbank\[tensorboard\]"):
        _config(store, tmp_path)
    assert not (tmp_path / "run").exists()
