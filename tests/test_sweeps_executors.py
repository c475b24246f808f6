"""Both ways of training members: each gets the numbers, the weights and the end that it would have alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planted import config, planted_store

from reelbank.heads import TrainConfig, TrainingError, train_head
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.judging import intervals
from reelbank.heads.runs.directory import read_json
from reelbank.heads.stored import read_tensors
from reelbank.heads.sweeps import member_pool, stacked
from reelbank.heads.sweeps.stacked import TOLERANCE, train_stacked
from reelbank.store.errors import StoreError

OPTIONS: dict[str, Any] = {"head": "mlp", "bins": 11, "batch": 8, "lr": 0.01, "epochs": 4, "early_stop_epochs": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("store") / "s.zarr", num=48)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bound is looked at here, and drawing is what takes the time."""
    monkeypatch.setattr(intervals, "RESAMPLES", 4)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 4)


def _configs(store: Path, folder: Path, points: Sequence[dict[str, Any]]) -> list[TrainConfig]:
    return [config(store=(store,), run=folder / f"m{i}", **{**OPTIONS, **point}) for i, point in enumerate(points)]


def _stack(store: Path, folder: Path, points: Sequence[dict[str, Any]]) -> list[tuple[int, str | None]]:
    """Trains members stacked; what was said of them, in order."""
    told: list[tuple[int, str | None]] = []
    train_stacked(_configs(store, folder, points), folder, 1, lambda position, error: told.append((position, error)))
    return told


def _epochs(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _predicted(run: Path) -> list[str]:
    with (run / "predictions.csv").open(newline="") as file:
        return [row["predicted"] + row.get("predicted_target", "") for row in csv.DictReader(file)]


def _assert_near(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        near = isinstance(value, float) or name == "learning_rates"
        assert found[name] == (pytest.approx(value, rel=TOLERANCE) if near else value), name


def _assert_as_alone(store: Path, run: Path, alone: Path, point: dict[str, Any]) -> None:
    train_head(config(store=(store,), run=alone, **{**OPTIONS, **point}))
    ours, theirs = _epochs(run), _epochs(alone)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in ("fold", "epoch", "best", "learning_rate"):
            assert one[name] == other[name], name
        for name in ("train_loss", "val_loss", "val_accuracy", "val_mae"):
            number = other[name]
            assert one[name] == (number if number is None else pytest.approx(number, rel=TOLERANCE)), name
    assert _predicted(run) == _predicted(alone)
    for name in ("best.safetensors", "last.safetensors"):
        folders = sorted(path.parent.name for path in alone.glob(f"fold-*/{name}")) or ["."]
        for folder in folders:
            (left, head), (right, expected) = (read_tensors(where / folder / name) for where in (run, alone))
            _assert_near(head, expected)
            for key in (key for key in right if not key.startswith("optimizer.")):
                torch.testing.assert_close(left[key], right[key], rtol=0.01, atol=1e-3)
    found, wanted = (read_json(where / "results.json") for where in (run, alone))
    for name in ("epochs_run", "best_epoch", "stopped_early", "overfit"):
        assert found["training"][name] == wanted["training"][name], name


POINTS: list[dict[str, Any]] = [
    {"lr": 0.02, "epochs": 5, "early_stop_epochs": 2},
    {"lr": 0.001, "epochs": 3},
    {"lr": 0.02, "epochs": 6, "keep": "last", "seed": 3},
    {"lr": 0.01, "epochs": 4, "weight_decay": 0.5, "schedule": "step", "step_epochs": 1},
]


def test_members_of_one_stack_end_when_each_would_end_alone(store: Path, tmp_path: Path) -> None:
    told = _stack(store, tmp_path, POINTS)
    assert told == [(position, None) for position in range(4)]
    for position, point in enumerate(POINTS):
        _assert_as_alone(store, tmp_path / f"m{position}", tmp_path / f"alone{position}", point)
    training = [read_json(tmp_path / f"m{position}" / "results.json")["training"] for position in range(4)]
    assert any(one["best_epoch"] < one["epochs_run"] for one in training), "best and last must differ somewhere"
    assert all(one["seconds"] > 0 for one in training)


def test_folds_of_stacked_members_are_trained_and_written_in_their_order(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [{"folds": 2, "lr": lr, "epochs": 2, "keep": "last"} for lr in (0.02, 0.001)]
    assert _stack(store, tmp_path, points) == [(0, None), (1, None)]
    _assert_as_alone(store, tmp_path / "m0", tmp_path / "alone", points[0])
    assert [(line["fold"], line["epoch"]) for line in _epochs(tmp_path / "m1")] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_member_that_diverges_fails_once_and_disturbs_no_other(store: Path, tmp_path: Path) -> None:
    points = [{"folds": 2, "epochs": 2, "optimizer": "sgd", "lr": lr} for lr in (0.001, 1e30, 0.002)]
    told = _stack(store, tmp_path, points)
    assert [position for position, _ in told] == [1, 0, 2]
    error = dict(told)[1]
    assert error is not None
    assert "a smaller --lr" in error
    assert not (tmp_path / "m1" / "results.json").exists()
    _assert_as_alone(store, tmp_path / "m2", tmp_path / "alone", points[2])


def test_time_of_a_stack_is_shared_among_its_members(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(100, 200))
    monkeypatch.setattr(stacked, "time", SimpleNamespace(perf_counter=lambda: float(next(moments))))
    _stack(store, tmp_path, [{"head": "linear", "epochs": 2}, {"head": "linear", "lr": 0.1, "epochs": 1}])
    found = [[line["seconds"] for line in _epochs(tmp_path / name)] for name in ("m0", "m1")]
    assert found == [[0.5, 1.0], [0.5]]  # a second each epoch, of two members and then of one
    # 100 begin, 101 and 102 the first epoch, 103 and 104 the second, 105 the end
    assert [read_json(tmp_path / name / "results.json")["training"]["seconds"] for name in ("m0", "m1")] == [2.5] * 2


def test_members_that_cannot_share_a_stack_are_trained_apart(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stack shares is what all of it is trained on: another batch, loss, head or order of labels is its own."""
    stacks: list[list[int]] = []
    monkeypatch.setattr(
        stacked, "_train_group", lambda group, done, note: stacks.append([unit.run.position for unit in group])
    )
    same = [
        {"lr": 0.1},
        {"lr": 0.2, "seed": 4, "weight_decay": 0.3, "epochs": 9, "keep": "last", "early_stop_epochs": 3},
    ]
    others: list[dict[str, Any]] = [
        *({"batch": 4}, {"loss": "jsd"}, {"head": "linear"}, {"bins": 12}, {"normalize": "l2"}, {"optimizer": "sgd"}),
        *({"target": "none"}, {"shuffle_labels": True}, {"shuffle_labels": True, "seed": 5}),
    ]
    _stack(store, tmp_path, [*same, *others])
    assert stacks == [[0, 1], *([position] for position in range(2, 2 + len(others)))]


def test_a_head_that_cannot_be_stacked_is_trained_by_itself(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[str] = []

    def train(one: TrainConfig, cache: FeatureCache) -> str | None:
        alone.append(one.run.given_directory.name)
        return "it burnt"

    monkeypatch.setattr(stacked, "train_member", train)
    flat = {"head": "conv-aggregation", "aggregation": "flatten"}
    told = _stack(store, tmp_path, [{"epochs": 1}, flat])
    assert (alone, told) == (["m1"], [(1, "it burnt"), (0, None)])


def test_a_stack_of_one_member_keeps_the_epoch_with_the_lowest_loss(store: Path, tmp_path: Path) -> None:
    """Of classes that are easy to tell: losses fall below accuracies and rise again, while accuracies do not."""
    point = {"target": "none", "lr": 0.02, "epochs": 6}
    assert _stack(store, tmp_path, [point]) == [(0, None)]
    _assert_as_alone(store, tmp_path / "m0", tmp_path / "alone", point)
    epochs = _epochs(tmp_path / "m0")
    best = min(epochs, key=lambda line: line["val_loss"])
    assert 1 < best["epoch"] < 6
    assert best["val_loss"] < best["val_accuracy"]


# --- processes


class _Pool:
    """A pool that works at once, in this process."""

    made: list[int]
    broken = False

    def __init__(self, workers: int, *, mp_context: Any, initializer: Callable[..., None], initargs: Any) -> None:
        _Pool.made.append(workers)
        assert initargs[0].name == "shared"

    def submit(self, work: Callable[[Any], Any], argument: Any) -> Future[Any]:
        found: Future[Any] = Future()
        if _Pool.broken:
            found.set_exception(BrokenProcessPool())
        else:
            found.set_result(work(argument))
        return found

    def shutdown(self, cancel_futures: bool = False) -> None:
        pass


@pytest.mark.parametrize(
    ("workers", "threads", "members", "made"),
    [
        (1, 1, 3, []),
        (2, 1, 3, [2]),
        (5, 1, 3, [3]),
        (0, 1, 9, [6]),
        (0, 2, 9, [3]),
        (0, 4, 9, []),
        (0, 7, 9, []),
        (0, 1, 1, []),
        (3, 1, 1, []),
    ],
)
def test_workers_are_as_asked_or_as_many_as_cores_allow(
    workers: int, threads: int, members: int, made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each member's outcome is told under its own position, however it was trained."""
    monkeypatch.setattr(member_pool, "ProcessPoolExecutor", _Pool)
    monkeypatch.setattr(member_pool, "available_cores", lambda: 6)
    monkeypatch.setattr(_Pool, "made", [], raising=False)

    def train(one: TrainConfig, cache: FeatureCache) -> None:
        if one.optimizer.lr == 2:
            raise TrainingError("it burnt")

    monkeypatch.setattr(member_pool, "train_with", train)
    monkeypatch.setattr(member_pool, "_cache", FeatureCache())
    configs = [config(lr=float(position + 1), threads=threads) for position in range(members)]
    told: dict[int, str | None] = {}
    folder = tmp_path / "shared"
    member_pool.train_in_processes(configs, folder, workers, told.__setitem__)
    assert told == {position: "it burnt" if position == 1 else None for position in range(members)}
    assert _Pool.made == made


def test_a_process_that_died_is_an_error_and_no_failed_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_pool, "ProcessPoolExecutor", _Pool)
    monkeypatch.setattr(_Pool, "made", [], raising=False)
    monkeypatch.setattr(_Pool, "broken", True)
    told: dict[int, str | None] = {}
    with pytest.raises(TrainingError, match="a process of the sweep died"):
        member_pool.train_in_processes([config()] * 2, tmp_path / "shared", 2, told.__setitem__)
    assert told == {}
    monkeypatch.setattr(member_pool, "train_with", _no_store)
    with pytest.raises(StoreError):  # no fault of the member's: it is not one of its results
        member_pool.train_member(config(), FeatureCache())


def _no_store(one: TrainConfig, cache: FeatureCache) -> None:
    raise StoreError("gone")
