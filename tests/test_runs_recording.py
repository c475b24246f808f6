"""What a run writes while it trains: its log, its checkpoints, what it goes on from, what it predicts in the end."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from planted import BINS, clips, config, partition, prepared

from reelbank.heads import TrainConfig, TrainingError
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.judging.evaluation import Predictions
from reelbank.heads.runs import recording, watching
from reelbank.heads.runs.checkpoints import Predictor, saved_epoch
from reelbank.heads.runs.recording import EpochLog, Recording, fold_folder, log_line
from reelbank.heads.runs.results import Trained
from reelbank.heads.runs.watching import epochs_text, watched
from reelbank.heads.stored import read_tensors
from reelbank.heads.training.job import make_job
from reelbank.heads.training.trainer import EpochRecord, Trainer, probabilities
from reelbank.manifests.events import Event

NAN = float("nan")
PART = partition([0, 1, 2, 3], [4, 5, 6], [7, 8], [9])


def _case(parts: Sequence[Any] = (PART,), **options: Any) -> Prepared:
    """Ten clips with features of their own."""
    table = clips(["a", "b"] * 4 + ["a", "new"], values=[float(i) for i in range(10)])
    one = prepared(
        table, classes=("a", "b"), bins=BINS, partitions=tuple(parts),
        **{"head": "linear", "epochs": 5, "batch": 2, "lr": 0.3, "early_stop_epochs": 0, **options},
    )  # fmt: skip
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 1, 4)).astype(np.float32))
    means = {"cls": values[:, 0].double().numpy()}
    return replace(one, features=replace(one.features, arrays={"cls": values}, means=means))


def _train(folder: Path, case: Prepared, progress: Any = None) -> list[Trained]:
    folder.mkdir(exist_ok=True)
    with Recording(folder, case, progress) as record:
        return [record.train(part, Trainer(make_job(case, part))) for part in case.partitions]


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is read once before the first epoch and once after each, and goes on by a second."""

    def ticks() -> Iterator[float]:
        second = 100.0
        while True:
            yield second
            second += 1.0

    moments = ticks()
    monkeypatch.setattr(recording, "time", SimpleNamespace(perf_counter=lambda: next(moments)))


def test_line_of_an_epoch_has_its_numbers_and_null_for_none() -> None:
    record = EpochRecord(
        epoch=3, learning_rate=0.5, train_loss=1.0, val_loss=2.0, val_accuracy=0.25, val_mae=NAN, best=True
    )
    assert log_line(record) == {
        "epoch": 3, "learning_rate": 0.5, "train_loss": 1.0, "val_loss": 2.0, "val_accuracy": 0.25, "val_mae": None,
        "best": True,
    }  # fmt: skip


def test_every_epoch_is_a_line_and_an_event(clock: None, tmp_path: Path) -> None:
    parts = [replace(PART, fold=0), replace(PART, fold=1)]
    events: list[Event] = []
    _train(tmp_path / "run", _case(parts, folds=2, epochs=3, early_stop_epochs=1, lr=1.0), events.append)
    lines = _lines(tmp_path / "run")
    epochs = [(line["fold"], line["epoch"]) for line in lines]
    first = sum(fold == 0 for fold, _ in epochs)
    assert first < 3, "the first fold must stop early, or its epochs are not told from those that it might have"
    assert epochs == [(0, epoch + 1) for epoch in range(first)] + [
        (1, epoch + 1) for epoch in range(len(lines) - first)
    ]
    assert {line["seconds"] for line in lines} == {1.0}
    assert [(event.stage, event.done, event.total) for event in events] == [
        ("train", 3 * fold + epoch, 6) for fold, epoch in epochs
    ]
    assert [dict(event.values) for event in events] == [
        {"train_loss": line["train_loss"], "val_loss": line["val_loss"]} for line in lines
    ]
    assert [path.name for path in sorted((tmp_path / "run").iterdir())] == ["fold-0", "fold-1", "metrics.jsonl"]
    assert fold_folder(tmp_path, PART) == tmp_path
    assert fold_folder(tmp_path, parts[1]) == tmp_path / "fold-1"


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, [1, 2, 3, 4, 5]), (2.0, [2, 4, 5]), (2.5, [3, 5]), (99.0, [5])])
def test_checkpoints_are_as_far_apart_as_asked_and_the_last_is_always_written(
    seconds: float, saved: list[int], clock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    write = recording.save_progress

    def noted(path: Path, trainer: Trainer) -> None:
        assert path == tmp_path / "last.safetensors"
        found.append(trainer.state.epoch)
        write(path, trainer)

    monkeypatch.setattr(recording, "save_progress", noted)
    _train(tmp_path, _case(checkpoint_seconds=seconds))
    assert found == saved
    assert saved_epoch(tmp_path / "last.safetensors") == 5


def _assert_equal(found: Trained, wanted: Trained) -> None:
    assert found.predictions.keys() == wanted.predictions.keys()
    for name, part in wanted.predictions.items():
        for output, values in part.probabilities.items():
            assert np.array_equal(found.predictions[name].probabilities[output], values)
    for name in ("epoch", "best_epoch", "best_loss", "last_loss", "stopped_early", "finished"):
        assert getattr(found.state, name) == getattr(wanted.state, name), name


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_run_that_was_killed_goes_on_as_if_it_never_stopped(optimizer: str, clock: None, tmp_path: Path) -> None:
    """It has a checkpoint of epoch 2 and a line of epoch 3; in the second fold nothing yet."""
    parts = [replace(PART, fold=0), replace(PART, fold=1, train=np.array([0, 1, 2]))]
    options = {
        "folds": 2,
        "checkpoint_seconds": 2.0,
        "optimizer": optimizer,
        "schedule": "plateau",
        "patience_epochs": 0,
    }

    def stop(event: Event) -> None:
        if event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut", _case(parts, **options), stop)
    assert saved_epoch(tmp_path / "cut" / "fold-0" / "last.safetensors") == 2
    assert [line["epoch"] for line in _lines(tmp_path / "cut")] == [1, 2, 3]
    events: list[Event] = []
    resumed = _train(tmp_path / "cut", _case(parts, **options, resume=True, run=tmp_path), events.append)
    assert [event.done for event in events] == list(range(3, 11))
    whole = _train(tmp_path / "whole", _case(parts, **options))
    assert _lines(tmp_path / "cut") == _lines(tmp_path / "whole")
    for found, wanted in zip(resumed, whole, strict=True):
        _assert_equal(found, wanted)
    # a finished run that is asked for again trains nothing
    again = _train(tmp_path / "cut", _case(parts, **options, resume=True, run=tmp_path), events.append)
    assert len(events) == 8
    for found, wanted in zip(again, whole, strict=True):
        _assert_equal(found, wanted)
    # without --resume nothing is gone on from: the log begins anew
    _train(tmp_path / "cut", _case(parts, **{**options, "epochs": 1}))
    assert [(line["fold"], line["epoch"]) for line in _lines(tmp_path / "cut")] == [(0, 1), (1, 1)]


def test_checkpoint_of_other_weights_is_refused_with_what_to_do(tmp_path: Path) -> None:
    _train(tmp_path, _case(epochs=1))
    with pytest.raises(TrainingError, match=r"do not fit head 'mlp', perhaps another version .* with --overwrite"):
        _train(tmp_path, _case(head="mlp", resume=True, run=tmp_path))


# --- what is predicted


def _of(trainer: Trainer, part: Predictions) -> bool:
    """Whether a part is what the head, as it is now, says of those clips."""
    now = probabilities(trainer.head, trainer.job.resident, part.rows)
    return all(np.array_equal(now[name], values) for name, values in part.probabilities.items())


def _epoch_of(head: torch.nn.Module) -> float:
    """Of a head that `_kept` trained."""
    return next(head.parameters()).flatten()[-1].item()


def _kept(tmp_path: Path, losses: Sequence[float], **options: Any) -> tuple[Trained, Trainer]:
    """What is kept of a training that was told these validation losses; its last weight in epoch n is n."""
    case = _case(epochs=len(losses), **options)
    case = replace(case, features=replace(case.features, unit_steps=True))
    trainer = Trainer(make_job(case, PART))
    for epoch, loss in enumerate(losses, start=1):
        with torch.no_grad():
            for value in trainer.head.parameters():
                value.copy_(torch.linspace(0.0, epoch, value.numel()).reshape(value.shape))
        trainer.record(0.1, [9.0, loss, 0.5, 7.0])
    return recording.keep_trained(case, PART, trainer, trainer, tmp_path), trainer


def test_run_that_keeps_the_best_epoch_predicts_with_it_alone(tmp_path: Path) -> None:
    kept, trainer = _kept(tmp_path, [3.0, 1.0, 2.0])
    assert {name: part.rows.tolist() for name, part in kept.predictions.items()} == {
        "val": [4, 5, 6], "test": [7, 8], "unknown": [9],
    }  # fmt: skip
    assert kept.at_best_epoch is None
    assert kept.state.best_epoch == 2
    assert _epoch_of(trainer.head) == 2
    for name, part in kept.predictions.items():
        assert part.split == name
        assert part.folds.tolist() == [-1] * len(part.rows)
        assert _of(trainer, part)
    saved = read_tensors(tmp_path / "best.safetensors")[0]
    assert all(torch.equal(saved[f"head.{name}"], value) for name, value in trainer.head.state_dict().items())
    assert kept.state.best_weights == {}  # they need memory no longer


def test_run_that_keeps_the_last_epoch_predicts_with_both(tmp_path: Path) -> None:
    kept, trainer = _kept(tmp_path, [3.0, 1.0, 2.0], keep="last")
    assert kept.at_best_epoch is not None
    assert kept.at_best_epoch.keys() == kept.predictions.keys()
    for name, part in kept.at_best_epoch.items():
        assert _of(trainer, part)  # the head was left with the best epoch's weights
        assert not _of(trainer, kept.predictions[name])
    saved = Predictor.load(tmp_path / "best.safetensors")
    assert (_epoch_of(trainer.head), _epoch_of(saved.head)) == (2, 3)
    for part in kept.predictions.values():
        assert _of(SimpleNamespace(head=saved.head, job=trainer.job), part)  # type: ignore[arg-type]
    same, _ = _kept(tmp_path, [3.0, 2.0, 1.0], keep="last")
    assert same.at_best_epoch is same.predictions


def test_predictor_says_how_it_reads_features(tmp_path: Path) -> None:
    options = {"pool": "mean+std", "segments": "segments:4:stride=2", "estimate": "median", "normalize": "zscore"}
    _kept(tmp_path, [1.0], **options)
    saved = Predictor.load(tmp_path / "best.safetensors")
    assert (saved.head_name, saved.pool, saved.segments, saved.estimate) == (
        *("linear", "mean+std", "segments:4:stride=2", "median"),
    )
    assert (saved.labels, saved.bins, saved.unit_steps, saved.sources) == (("a", "b"), BINS, True, ())
    case = _case()
    assert torch.allclose(saved.normalization.mean["cls"], case.features.arrays["cls"][:4, 0].mean(dim=0), atol=1e-6)
    _kept(tmp_path, [1.0])
    assert Predictor.load(tmp_path / "best.safetensors").segments is None


@pytest.mark.parametrize(
    ("part", "splits"),
    [
        (partition([0, 1], [2], [3], [4]), ["val", "test", "unknown"]),
        (partition([0, 1], [2, 3], [2, 3], [4], val_is_reported=True), ["test", "unknown"]),  # they are the same clips
        (partition([0, 1], [2, 3], [], [4], val_is_reported=True), ["val", "unknown"]),
        (partition([0, 1], [2], [], []), ["val"]),
        (partition([0, 1], [2], [3], [], fold=1), ["val", "test", "unknown"]),  # pooled later, so none may be missing
    ],
)
def test_every_reported_part_is_predicted_once(part: Any, splits: list[str], tmp_path: Path) -> None:
    (kept,) = _train(tmp_path, _case([part], epochs=1, folds=2 if part.fold is not None else 0))
    assert list(kept.predictions) == splits
    for name, found in kept.predictions.items():
        assert found.rows.tolist() == getattr(part, name).tolist()
        assert found.folds.tolist() == [-1 if part.fold is None else part.fold] * len(found.rows)
        assert set(found.probabilities) <= {"label", "target"}
        assert all(math.isclose(sum(row), 1.0) for row in found.probabilities["label"]) if len(found.rows) else True


def test_log_is_on_the_disk_line_by_line(tmp_path: Path) -> None:
    log = EpochLog(tmp_path / "metrics.jsonl")
    for epoch in (1, 2):
        log.append({"fold": None, "epoch": epoch})
        assert [line["epoch"] for line in _lines(tmp_path)] == list(range(1, epoch + 1))
    with pytest.raises(ValueError, match="JSON"):
        log.append({"fold": None, "epoch": NAN})
    log.close()
    log.close()
    log.keep({None: 1})
    log.append({"fold": None, "epoch": 7})
    log.close()
    assert [line["epoch"] for line in _lines(tmp_path)] == [1, 7]
    assert list(tmp_path.iterdir()) == [tmp_path / "metrics.jsonl"]


# --- what is said of trainings under way


def test_runs_under_way_are_named_with_their_epochs(tmp_path: Path) -> None:
    def asked(name: str, lines: int | None, **options: Any) -> TrainConfig:
        run = tmp_path / "rows" / name
        run.mkdir(parents=True)
        if lines is not None:
            (run / "metrics.jsonl").write_text("{}\n" * lines + "{cut")
        return config(run=run, epochs=7, **options)

    runs = [asked("a", 3), asked("b", None), asked("c", 5, folds=4), asked("d", 1), asked("e", 2)]
    assert epochs_text([]) == epochs_text(runs[1:2]) == ""  # it has not begun
    assert epochs_text(runs[:2]) == "rows/a: epoch 3 of 7"
    assert epochs_text(runs[:3]) == "rows/a: epoch 3 of 7, rows/c: epoch 5 of 28"
    (tmp_path / "rows" / "e" / "results.json").write_text("{}")
    assert epochs_text(runs) == "rows/a: epoch 3 of 7, rows/c: epoch 5 of 28, rows/d: epoch 1 of 7"
    more = [asked("f", 4), asked("g", 6)]
    three = "rows/a: epoch 3 of 7, rows/c: epoch 5 of 28, rows/d: epoch 1 of 7"
    assert epochs_text([*runs, *more]) == f"{three} and 2 more"
    ended = {runs[0].run.given_directory, more[0].run.given_directory}
    assert epochs_text([*runs, *more], ended) == three.split(", ", 1)[1] + ", rows/g: epoch 6 of 7"


def test_watching_tells_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert watching.WATCH_SECONDS == 10.0
    monkeypatch.setattr(watching, "WATCH_SECONDS", 0.001)
    heard, told, ended = threading.Event(), [], set[Path]()
    (tmp_path / "metrics.jsonl").write_text("{}\n")

    def tell(text: str) -> None:
        told.append((text, threading.current_thread() is threading.main_thread()))
        heard.set()

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="inside"), watched([config(run=tmp_path, epochs=2)], ended, tell):
        assert heard.wait(5)
        raise RuntimeError("inside")
    assert threading.active_count() == before
    assert set(told) == {(f"{tmp_path.parent.name}/{tmp_path.name}: epoch 1 of 2", False)}
    ended.add(tmp_path)
    told.clear()

    def nothing(configs: Sequence[TrainConfig], ended: set[Path]) -> str:
        heard.set()
        return ""

    monkeypatch.setattr(watching, "epochs_text", nothing)
    heard.clear()
    with watched([config(run=tmp_path)], ended, tell):
        assert heard.wait(5)
    assert told == []  # there is nothing to say
