"""Stacks and memory: how many models are planned for, and what happens when they do not fit all the same."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import config, planted_store, sweep_config

from reelbank.heads import TrainingError, sweep, train_head
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.judging import intervals
from reelbank.heads.sweeps import stack, stacked
from reelbank.heads.sweeps.stack import Needs, Stack
from reelbank.heads.sweeps.stacked import TOLERANCE, train_stacked
from reelbank.heads.training import trainer
from reelbank.heads.training.job import make_job
from reelbank.heads.training.memory import Allocations, does_not_fit
from reelbank.heads.training.trainer import Trainer
from reelbank.manifests.events import Event

OPTIONS: dict[str, Any] = {"head": "mlp", "bins": 11, "batch": 8, "lr": 0.01, "epochs": 3, "early_stop_epochs": 0}
FULL = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("store") / "s.zarr", num=48)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 4)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 4)


def _train(store: Path, folder: Path, points: Sequence[dict[str, Any]]) -> tuple[dict[int, str | None], list[str]]:
    """Trains members stacked; what came of each, and what was said of all."""
    told: dict[int, str | None] = {}
    notes: list[str] = []
    configs = [config(store=(store,), run=folder / f"m{i}", **{**OPTIONS, **point}) for i, point in enumerate(points)]
    train_stacked(configs, folder, 1, told.__setitem__, notes.append)
    return told, notes


def _epochs(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _assert_equal_runs(run: Path, other: Path) -> None:
    for ours, theirs in zip(_epochs(run), _epochs(other), strict=True):
        assert (ours["fold"], ours["epoch"]) == (theirs["fold"], theirs["epoch"])
        for name in ("train_loss", "val_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=TOLERANCE)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the stacks that are trained."""
    found: list[int] = []
    train = stacked._train_stack

    def counted(job: Any, units: Sequence[Any], most_validated: int) -> None:
        found.append(len(units))
        train(job, units, most_validated)

    monkeypatch.setattr(stacked, "_train_stack", counted)
    return found


def _run_out(
    monkeypatch: pytest.MonkeyPatch, most: int, error: Callable[[], Exception], *, after_steps: int = 0
) -> list[weakref.ref[Stack]]:
    """Steps of more than `most` models at once fail from `after_steps` on; returns the stacks that were made."""
    made: list[weakref.ref[Stack]] = []
    step = Stack._step

    def failing(self: Stack, index: torch.Tensor, update: Callable[[], None]) -> torch.Tensor:
        if all(one() is not self for one in made):
            gc.collect(0)
            assert all(one() is None for one in made), "what did not fit is still held"
            made.append(weakref.ref(self))
        if len(index) > most and self._steps >= after_steps:
            raise error()
        return step(self, index, update)

    monkeypatch.setattr(Stack, "_step", failing)
    return made


@pytest.mark.parametrize(
    ("error", "after_steps"),
    [
        (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 0),
        (lambda: RuntimeError(FULL), 3),  # in the second epoch: what the first noted counts no more
    ],
)
def test_a_stack_that_does_not_fit_is_halved_and_gives_the_same_numbers(
    error: Callable[[], Exception],
    after_steps: int,
    store: Path,
    tmp_path: Path,
    sizes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [{"lr": 0.01 + i / 1000, "folds": 2, "keep": "last"} for i in range(5)]
    assert _train(store, tmp_path / "whole", points) == (dict.fromkeys(range(5)), [])
    assert sizes == [5, 5]  # each fold has clips of its own
    sizes.clear()
    _run_out(monkeypatch, 2, error, after_steps=after_steps)
    told, notes = _train(store, tmp_path / "halved", points)
    assert told == dict.fromkeys(range(5))
    assert sizes == [5, 3, 2, 2, 1] * 2
    assert [note.partition(":")[0] for note in notes[:2]] == [
        f"The memory of cpu does not suffice for a stack of {count} members" for count in (5, 3)
    ]
    assert [note.rpartition(", ")[2] for note in notes] == ["at most 3 at once.", "at most 2 at once."] * 2
    for position in range(5):
        run = tmp_path / "halved" / f"m{position}"
        assert [(line["fold"], line["epoch"]) for line in _epochs(run)] == [(f, e) for f in (0, 1) for e in (1, 2, 3)]
        _assert_equal_runs(run, tmp_path / "whole" / f"m{position}")


def test_members_that_had_ended_are_not_trained_again(
    store: Path, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[dict[str, Any]] = [{"epochs": 1}, {"epochs": 3}, {"epochs": 3, "lr": 0.02}]
    _run_out(monkeypatch, 1, MemoryError, after_steps=6)
    made: list[int] = []
    start = Trainer.__init__

    def counted(self: Trainer, job: Any) -> None:
        made.append(job.config.optimizer.epochs)
        start(self, job)

    monkeypatch.setattr(Trainer, "__init__", counted)
    told, notes = _train(store, tmp_path, points)
    assert told == dict.fromkeys(range(3))
    assert sizes == [3, 1, 1]
    assert made == [1, 1, 3, 3, 3, 3]  # one is measured; two had to begin again
    assert len(notes) == 1
    assert [len(_epochs(tmp_path / f"m{position}")) for position in range(3)] == [1, 3, 3]


def test_the_last_of_a_stack_is_tried_alone_before_it_fails(
    store: Path, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what the members that have ended still hold, even one may not fit."""
    step, start = Stack._step, Stack.__init__

    def counted(self: Stack, trainers: Sequence[Trainer], most_validated: int) -> None:
        start(self, trainers, most_validated)
        vars(self)["begun_with"] = len(trainers)

    def failing(self: Any, index: torch.Tensor, update: Callable[[], None]) -> torch.Tensor:
        if self.begun_with == 2 and len(index) == 1:
            raise MemoryError
        return step(self, index, update)

    monkeypatch.setattr(Stack, "__init__", counted)
    monkeypatch.setattr(Stack, "_step", failing)
    assert _train(store, tmp_path, [{"epochs": 1}, {"epochs": 2}])[0] == {0: None, 1: None}
    assert sizes == [2, 1]


def test_a_member_that_does_not_fit_alone_fails_and_the_others_go_on(
    store: Path, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Stack._step

    def failing(self: Stack, index: torch.Tensor, update: Callable[[], None]) -> torch.Tensor:
        if any(one.job.config.seed == 1 for one in self._trainers):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, index, update)

    monkeypatch.setattr(Stack, "_step", failing)
    told, _ = _train(store, tmp_path, [{"seed": seed} for seed in range(3)])
    sentence = "the memory of cpu does not suffice to train with 8 clips per step; pass a smaller --batch"
    assert told == {0: None, 1: sentence, 2: None}
    assert sizes == [3, 2, 1, 1, 1]
    assert not (tmp_path / "m1" / "results.json").exists()


def test_nothing_that_can_be_measured_or_loaded_is_each_members_failure(
    store: Path, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_out(monkeypatch, 0, MemoryError)
    told, notes = _train(store, tmp_path / "a", [{"seed": seed} for seed in range(2)])
    assert [str(error)[:33] for error in told.values()] == ["the memory of cpu does not suffice"[:33]] * 2
    assert (sizes, notes) == ([1, 1], [])

    def full(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stacked, "make_job", full)
    told, notes = _train(store, tmp_path / "b", [{"seed": seed} for seed in range(2)])
    assert len([error for error in told.values() if error]) == 2
    assert (sizes, notes) == ([1, 1], [])


def test_another_error_is_none_of_memory(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_out(monkeypatch, 1, lambda: RuntimeError("device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        _train(store, tmp_path, [{"seed": seed} for seed in range(2)])


def test_a_sweep_tells_and_writes_that_stacks_were_halved(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_out(monkeypatch, 1, MemoryError)
    events: list[Event] = []
    asked = sweep_config(
        store=(store,), run=tmp_path / "s", executor="stacked", sweep=("lr=0.01,0.02",), **{**OPTIONS, "epochs": 1}
    )
    results = sweep(asked, events.append).results
    (note,) = results["notes"]
    assert "for a stack of 2 members" in note
    assert [event.note for event in events if event.note] == [note]
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["notes"] == [note]


# --- the plan


@pytest.mark.parametrize(
    ("device", "free", "size", "most_validated"),
    [
        ("cuda:0", 2000, 10, 20),  # 0.8 of it; a model takes 100 + 60, its validation 100 + 30
        ("cuda:0", 100, 1, 1),
        ("cpu", 2000, 6, 13),
        ("cpu", None, 2**32 // 160, (2**32 - 2**32 // 160 * 100) // 30),
        ("cpu", 2**40, 2**32 // 160, (2**32 - 2**32 // 160 * 100) // 30),
    ],
)
def test_as_many_models_are_planned_for_as_memory_is_meant_for(
    device: str, free: int | None, size: int, most_validated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked, "free_bytes", lambda name: free if name == device else None)
    monkeypatch.setattr(stacked, "Trainer", lambda job: job)
    monkeypatch.setattr(Stack, "needs", lambda one: Needs(kept=100, step=60, validation=30))
    job: Any = type("Job", (), {"device": torch.device(device)})
    assert stacked._plan(job) == stacked._Plan(size=size, most_validated=most_validated)


@pytest.mark.parametrize("head", ["mlp", "attentive", "conv-aggregation", "additive"])
def test_needs_are_those_of_a_larger_stack_per_model(head: str, store: Path, tmp_path: Path) -> None:
    """What is measured of one model, times K, is what K models take, to a quarter."""
    prepared = prepare(config(store=(store,), run=tmp_path, **{**OPTIONS, "head": head}))
    job = make_job(prepared, prepared.partitions[0])
    one = Trainer(job)
    before = one.flat.values.detach().clone()
    needs = Stack.needs(one)
    assert torch.equal(one.flat.values, before)
    whole = Stack([Trainer(job) for _ in range(6)], 6)
    index = torch.stack([one.draw_order()[:8] for _ in range(6)])
    with Allocations() as step:
        whole._step(index, whole._update_at([0.0] * 6))
    with Allocations() as validation:
        whole._validate()
    assert step.most / 6 == pytest.approx(needs.step, rel=0.25)
    assert validation.most / 6 <= 1.25 * needs.validation
    assert needs.kept == before.numel() * 4 * (5 + 2 * 2)


def test_few_models_are_validated_at_once_where_memory_is_short(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [{"lr": 0.01 + i / 1000} for i in range(5)]
    _train(store, tmp_path / "all", points)
    monkeypatch.setattr(stacked, "_plan", lambda job: stacked._Plan(size=5, most_validated=2))
    counts: list[int] = []
    parts = stack.in_parts

    def counted(*arguments: Any) -> dict[str, torch.Tensor]:
        logits = parts(*arguments)
        counts.append(len(logits["label"]))
        return logits

    monkeypatch.setattr(stack, "in_parts", counted)
    _train(store, tmp_path / "few", points)
    assert counts == [2, 2, 1] * 3
    for position in range(5):
        _assert_equal_runs(tmp_path / "few" / f"m{position}", tmp_path / "all" / f"m{position}")


# --- one training


def test_a_training_that_does_not_fit_says_what_to_do(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Trainer, index: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(FULL)

    monkeypatch.setattr(Trainer, "_gradient", full)
    with pytest.raises(TrainingError, match=r"the memory of cpu .* 8 clips per step; pass a smaller --batch$"):
        train_head(config(store=(store,), run=tmp_path / "r", **OPTIONS))
    asked = sweep_config(store=(store,), run=tmp_path / "s", executor="processes", workers=1, sweep=("lr=1,2",))
    with pytest.raises(TrainingError, match=r"no combination of the sweep could be trained.*pass a smaller --batch"):
        sweep(asked)


def test_evaluation_takes_smaller_parts_where_memory_is_short(store: Path, tmp_path: Path) -> None:
    prepared = prepare(config(store=(store,), run=tmp_path, **OPTIONS))
    one = Trainer(make_job(prepared, prepared.partitions[0]))
    resident, index = one.job.resident, torch.arange(13)
    expected = trainer.forward(one.head, resident, index)
    sizes: list[int] = []

    def logits_of(part: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(part))
        if len(part) > 4:
            raise MemoryError
        made: dict[str, torch.Tensor] = one.head(*resident.inputs(one.head, part))
        return made

    found = trainer.in_parts(logits_of, index, 10)
    assert sizes == [10, 5, 2, 2, 2, 2, 2, 2, 1]
    torch.testing.assert_close(found, expected)
    with pytest.raises(MemoryError):
        trainer.in_parts(lambda part: (_ for _ in ()).throw(MemoryError()), index[:1], 10)


def test_a_training_on_a_gpu_is_told_of_the_cpu() -> None:
    said = (
        "the memory of cuda:1 does not suffice to train with 64 clips per step; pass a smaller --batch, or --device cpu"
    )
    assert str(does_not_fit(torch.device("cuda", 1), 64)) == said
