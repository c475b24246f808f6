"""Stepwise tuning, with an executor that writes the losses it is told: each step starts from the winner so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from planted import RUN_CONFIG, planted_store, run_line, run_results, sweep_config

from reelbank.heads import SweepResult, TrainConfig, TrainingError, sweep
from reelbank.heads.reports import run_page
from reelbank.heads.sweeps import sweep as sweep_module
from reelbank.heads.sweeps.member_pool import MEMBER_MODULES
from reelbank.heads.sweeps.report import sweep_text
from reelbank.manifests.events import Event

Told = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("store") / "s.zarr", num=48)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The members that were trained, in order."""
    return []


def _told(monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]], told: Told) -> None:
    """Members get the validation numbers of `told`({lr, weight_decay, batch, seed}); None: the member fails."""

    def execute(
        configs: Sequence[TrainConfig],
        folder: Path,
        workers: int,
        done: Callable[[int, str | None], None],
        note: Callable[[str], None],
    ) -> None:
        for position, one in enumerate(configs):
            asked = one.to_json()
            assert folder.is_dir()
            assert folder.parent == Path(asked["run"]).parents[1]  # what members share lies within the sweep
            point = {name: asked[name] for name in ("lr", "weight_decay", "batch", "seed", "sigma", "epochs")}
            point["resume"] = one.run.resume
            trained.append(point)
            numbers = told(point)
            if numbers is None:
                done(position, "it burnt")
                continue
            run = Path(asked["run"])
            run.mkdir(parents=True, exist_ok=True)
            line = {"fold": None, "epoch": 1, "val_loss": 1.0, "val_accuracy": 0.5, "val_mae": 50.0, **numbers}
            (run / "metrics.jsonl").write_text(json.dumps(run_line(**line)) + "\n")
            (run / "config.json").write_text(json.dumps({**RUN_CONFIG, "config": asked}))
            metrics = {"metrics": {"accuracy": {"value": point["lr"]}}}
            results = {"folds": [], "reported": "test", "splits": {"test": metrics}}
            training = {"best_epoch": 1, "epochs_run": 1, "seconds": 1.0}
            (run / "results.json").write_text(json.dumps(run_results(**results, training=training)))
            done(position, None)

    monkeypatch.setattr(sweep_module, "EXECUTORS", {"processes": execute})
    monkeypatch.setattr(sweep_module, "import_ahead", lambda modules: None)
    monkeypatch.setattr(sweep_module, "draw", lambda results, prepared: b"picture" if results["winner"] else b"")


def _sweep(store: Path, run: Path, **options: Any) -> Any:
    return _result(store, run, **options).results


def _result(store: Path, run: Path, events: list[Event] | None = None, **options: Any) -> SweepResult:
    asked = sweep_config(store=(store,), run=run, executor="processes", **options)
    return sweep(asked, None if events is None else events.append)


AXES = ("lr=0.1,0.2,0.3", "weight_decay=0.5,0.6", "batch=4,8")


def test_each_step_starts_from_the_winner_so_far(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    losses = {0.1: 3.0, 0.2: 1.0, 0.3: 2.0}

    def told(point: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"val_loss": losses[point["lr"]] - point["weight_decay"] + point["batch"] / 100}

    _told(monkeypatch, trained, told)
    results = _sweep(store, tmp_path / "s", sweep=AXES, stepwise=True, weight_decay=0.25, batch=16)
    tried = [(point["lr"], point["weight_decay"], point["batch"]) for point in trained]
    assert tried == [
        *((0.1, 0.25, 16), (0.2, 0.25, 16), (0.3, 0.25, 16)),
        *((0.2, 0.5, 16), (0.2, 0.6, 16)),
        *((0.2, 0.6, 4), (0.2, 0.6, 8)),
    ]
    assert results["steps"] == [
        {"field": "lr", "chosen": "0.2", "val_loss": pytest.approx(1.0 - 0.25 + 0.16)},
        {"field": "weight_decay", "chosen": "0.6", "val_loss": pytest.approx(1.0 - 0.6 + 0.16)},
        {"field": "batch", "chosen": "4", "val_loss": pytest.approx(1.0 - 0.6 + 0.04)},
    ]
    assert results["winner"]["values"] == {"lr": "0.2", "weight_decay": "0.6", "batch": "4"}
    assert results["winner"]["metrics"]["accuracy"]["mean"] == 0.2
    assert len(results["members"]) == 7


def test_a_step_is_decided_among_its_own_members(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    """A second step that only makes things worse keeps its best all the same; the winner is then an earlier one."""

    def told(point: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"val_loss": 1.0 if point["weight_decay"] == 0.25 else 2.0 + point["weight_decay"]}

    _told(monkeypatch, trained, told)
    results = _sweep(store, tmp_path / "s", sweep=AXES[:2], stepwise=True, weight_decay=0.25)
    assert [step["chosen"] for step in results["steps"]] == ["0.1", "0.5"]
    assert [step["val_loss"] for step in results["steps"]] == [1.0, 2.5]
    assert results["winner"]["values"] == {"lr": "0.1", "weight_decay": "0.25"}


def test_values_already_trained_are_not_trained_again(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    _told(monkeypatch, trained, lambda point: {"val_loss": point["lr"] + point["weight_decay"]})
    results = _sweep(store, tmp_path / "s", sweep=AXES[:2], stepwise=True, weight_decay=0.5)
    assert len(trained) == 4  # lr 0.1 with weight decay 0.5 is in both steps
    assert [step["chosen"] for step in results["steps"]] == ["0.1", "0.5"]


def test_steps_average_over_repeats_and_take_the_metric_of_the_sweep(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    lucky = {(0.1, 3): 0.9, (0.1, 4): 0.1, (0.2, 3): 0.6, (0.2, 4): 0.6, (0.3, 3): 0.5, (0.3, 4): 0.5}

    def told(point: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"val_loss": point["lr"], "val_accuracy": lucky[point["lr"], point["seed"]], "val_mae": point["lr"]}

    _told(monkeypatch, trained, told)
    options = {"sweep": AXES[:1], "stepwise": True, "repeats": 2, "seed": 3}
    by_accuracy = _sweep(store, tmp_path / "a", **options, sweep_by="val_accuracy")
    assert by_accuracy["steps"] == [{"field": "lr", "chosen": "0.2", "val_accuracy": pytest.approx(0.6)}]
    assert _sweep(store, tmp_path / "b", **options)["steps"] == [{"field": "lr", "chosen": "0.1", "val_loss": 0.1}]
    # a field that changes the loss is judged by the error of the target
    changing = _sweep(store, tmp_path / "c", sweep=("lr=0.1,0.2", "sigma=3,4"), stepwise=True, seed=3)
    assert [list(step) for step in changing["steps"]] == [["field", "chosen", "val_mae"]] * 2


def test_failed_members_lose_and_all_failed_is_an_error(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    _told(monkeypatch, trained, lambda point: None if point["lr"] == 0.1 else {"val_loss": point["lr"]})
    results = _sweep(store, tmp_path / "s", sweep=AXES[:1])
    assert results["winner"]["values"] == {"lr": "0.2"}
    assert results["notes"] == ["1 of 3 members could not be trained; sweep.json says why."]
    assert results["steps"] == []
    _told(monkeypatch, trained, lambda point: None)
    with pytest.raises(TrainingError, match="the first: it burnt"):
        _sweep(store, tmp_path / "t", sweep=AXES[:1])


def test_a_finished_sweep_has_its_files_and_pages_of_the_winner_alone(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    pages: list[Path] = []
    monkeypatch.setattr(run_page, "write_run_report", lambda path, **kind: pages.append(path))
    _told(monkeypatch, trained, lambda point: None if point["lr"] == 0.1 else {"val_loss": point["lr"]})
    run = tmp_path / "s"
    result = _result(store, run, sweep=AXES[:1], repeats=2, report=True)
    assert result.has_failures
    assert result.winner["members"] == ["lr=0.2,seed=0", "lr=0.2,seed=1"]
    assert pages == [run / "members" / name for name in result.winner["members"]]
    assert json.loads((run / "sweep.json").read_text()) == result.results
    assert (run / "sweep.png").read_bytes() == b"picture"
    assert (run / "sweep.csv").read_text().startswith("name,lr,seed,status,")
    assert result.text() == sweep_text(run, result.results)
    assert 0 <= result.results["seconds"] < 1000
    _told(monkeypatch, trained, lambda point: {"val_loss": point["lr"]})
    pages.clear()
    assert not _result(store, tmp_path / "t", sweep=AXES[:1]).has_failures
    assert pages == []


def test_a_sweep_with_an_impossible_member_writes_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    _told(monkeypatch, trained, lambda point: {"val_loss": 1.0})
    with pytest.raises(TrainingError, match="must be above 0"):
        _sweep(store, tmp_path / "s", sweep=("lr=0.1,-1",), stepwise=True)
    assert not (tmp_path / "s").exists()
    assert trained == []


def test_resumed_sweep_trains_what_is_missing_and_judges_all(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    _told(monkeypatch, trained, lambda point: {"val_loss": point["lr"]})
    _sweep(store, tmp_path / "s", sweep=AXES[:1])
    trained.clear()
    _told(monkeypatch, trained, lambda point: {"val_loss": 0.01})
    results = _sweep(store, tmp_path / "s", sweep=("lr=0.1,0.2,0.3,0.4",), resume=True)
    assert [point["lr"] for point in trained] == [0.4]
    assert results["winner"]["values"] == {"lr": "0.4"}
    assert [one["mean"] for one in results["combinations"]] == [0.01, 0.1, 0.2, 0.3]
    with pytest.raises(TrainingError, match="trained with other options"):
        _sweep(store, tmp_path / "s", sweep=AXES[:1], resume=True, batch=4)
    other = planted_store(tmp_path / "other.zarr", num=48, more={1: {"label": "class 0"}})
    with pytest.raises(TrainingError, match=r"the stores of .* have changed .*; start another sweep"):
        _sweep(other, tmp_path / "s", sweep=AXES[:1], resume=True)


def test_members_with_fewer_epochs_than_now_asked_for_are_continued_and_no_others(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    def told(point: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"val_loss": point["lr"] if point["epochs"] == 3 else 1 - point["lr"]}

    _told(monkeypatch, trained, told)
    assert _sweep(store, tmp_path / "s", sweep=AXES[:1], epochs=3)["winner"]["values"] == {"lr": "0.1"}
    assert {point["resume"] for point in trained} == {False}
    trained.clear()
    again = _sweep(store, tmp_path / "s", sweep=AXES[:1], epochs=3, resume=True)
    assert trained == []
    assert [one["mean"] for one in again["combinations"]] == [0.1, 0.2, 0.3]
    (tmp_path / "s" / "members" / "lr=0.2,seed=0" / "results.json").unlink()  # it was killed before its end
    _sweep(store, tmp_path / "s", sweep=("lr=0.1,0.2,0.3,0.4",), epochs=3, resume=True)
    assert [(point["lr"], point["resume"]) for point in trained] == [(0.2, True), (0.4, False)]
    trained.clear()
    longer = _sweep(store, tmp_path / "s", sweep=("lr=0.1,0.2,0.3,0.4",), epochs=4, resume=True)
    assert [(point["lr"], point["epochs"], point["resume"]) for point in trained] == [
        (lr, 4, True) for lr in (0.1, 0.2, 0.3, 0.4)
    ]
    assert longer["winner"]["values"] == {"lr": "0.4"}


def test_every_member_is_told_of_once_with_its_loss(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    def told(point: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return None if point["lr"] == 0.3 else {"val_loss": point["lr"] / 3}

    def heard(run: Path, **options: Any) -> list[Event]:
        events: list[Event] = []
        _result(store, run, events, **options)
        return [event for event in events if event.stage == "sweep"]

    _told(monkeypatch, trained, told)
    whole = heard(tmp_path / "s", sweep=AXES[:1])
    assert whole == [
        Event(
            stage="sweep",
            done=1,
            total=3,
            message="member 1 of 3 (lr=0.1,seed=0) val_loss 0.03333",
            values={"val_loss": 0.1 / 3},
        ),
        Event(
            stage="sweep",
            done=2,
            total=3,
            message="member 2 of 3 (lr=0.2,seed=0) val_loss 0.06667",
            values={"val_loss": 0.2 / 3},
        ),
        Event(stage="sweep", done=3, total=3, message="member 3 of 3 (lr=0.3,seed=0) failed: it burnt", values={}),
    ]
    kept = heard(tmp_path / "s", sweep=AXES[:1], resume=True)  # what is kept is told of too; what failed is tried again
    assert [event.message for event in kept] == [event.message for event in whole]
    steps = heard(tmp_path / "t", sweep=AXES[:2], stepwise=True, repeats=2)
    assert [(event.done, event.total) for event in steps] == [(done, 10) for done in range(1, 11)]
    both = heard(tmp_path / "u", sweep=AXES[:2], stepwise=True, weight_decay=0.5)  # one member is in both steps
    assert [(event.done, event.total) for event in both] == [(done, 5) for done in range(1, 5)]


def test_members_under_way_are_told_of_until_they_have_ended(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    watched: list[list[Path]] = []

    @contextmanager
    def watch(configs: Sequence[TrainConfig], ended: set[Path], tell: Callable[[str], None]) -> Iterator[None]:
        runs = [one.run.given_directory for one in configs]
        assert not ended
        tell("some epochs")
        yield
        tell("more epochs")
        assert ended == set(runs)
        watched.append(runs)

    monkeypatch.setattr(sweep_module, "watched", watch)
    _told(monkeypatch, trained, lambda point: None if point["lr"] == 0.3 else {"val_loss": 1.0})
    events: list[Event] = []
    _result(store, tmp_path / "s", events, sweep=AXES[:1])
    assert watched == [[tmp_path / "s" / "members" / f"lr={lr},seed=0" for lr in (0.1, 0.2, 0.3)]]
    told = [event for event in events if "epochs" in event.message]
    assert told == [
        Event(stage="sweep", done=0, total=3, message="some epochs"),
        Event(stage="sweep", done=3, total=3, message="more epochs"),
    ]
    _result(store, tmp_path / "t", sweep=AXES[:1])  # nobody listens


def test_what_the_first_member_cannot_be_given_is_an_error_of_the_sweep(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    _told(monkeypatch, trained, lambda point: {"val_loss": 1.0})
    with pytest.raises(TrainingError, match="nope"):
        _sweep(store, tmp_path / "s", sweep=("tap=nope,cls",))
    assert trained == []
    assert len(_sweep(store, tmp_path / "t", sweep=("tap=cls,nope",))["members"]) == 2


def test_a_sweep_says_what_it_is_and_leaves_nothing_that_members_shared(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    _told(monkeypatch, trained, lambda point: {"val_loss": 1.0})
    run = tmp_path / "s"
    _sweep(store, run, sweep=AXES[:1], repeats=2, stepwise=True, sweep_by="val_loss")
    found = json.loads((run / "config.json").read_text())
    digest = found.pop("data_digest")
    asked = sweep_config(
        store=(store,), run=run, executor="processes", sweep=AXES[:1], repeats=2, stepwise=True, sweep_by="val_loss"
    )
    assert found == {"format_version": 1, "kind": "sweep", "config": asked.to_json()}
    assert len(digest) > 20
    for left in (run / ".shared-old", run / ".shared-older"):  # by a sweep that was killed
        left.mkdir()
        (left / "features").write_text("x")
    _sweep(store, run, sweep=AXES[:1], resume=True)
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json", "members", "sweep.csv", "sweep.json", "sweep.png",
    ]  # fmt: skip
    assert json.loads((run / "config.json").read_text())["data_digest"] == digest


def test_what_no_run_could_be_judged_by_is_said_before_there_is_a_directory(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    _told(monkeypatch, trained, lambda point: {"val_loss": 1.0})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "loss_that_fails.py").write_text("def loss(logits, p):\n    raise RuntimeError('it burnt')\n")
    with pytest.raises(Exception, match="it burnt"):
        _sweep(store, tmp_path / "s", sweep=AXES[:1], loss="loss_that_fails:loss")
    with pytest.raises(TrainingError, match="--metric mae judges the target, which this run does not train"):
        _sweep(store, tmp_path / "s", sweep=AXES[:1], metric=("mae",), target="none")
    assert not (tmp_path / "s").exists()
    assert trained == []


@pytest.mark.parametrize("executor", ["processes", "stacked"])
def test_the_executor_asked_for_trains_and_processes_alone_import_ahead(
    executor: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    _told(monkeypatch, trained, lambda point: {"val_loss": 1.0})
    imported: list[tuple[str, ...]] = []
    monkeypatch.setattr(sweep_module, "import_ahead", imported.append)
    both = {"processes": _other, "stacked": _other, executor: sweep_module.EXECUTORS["processes"]}
    monkeypatch.setattr(sweep_module, "EXECUTORS", both)
    asked = sweep_config(store=(store,), run=tmp_path / "s", sweep=AXES[:1], executor=executor, workers=3)
    assert sweep(asked).results["executor"] == executor
    assert imported == ([MEMBER_MODULES] if executor == "processes" else [])


def _other(*arguments: Any) -> None:
    raise AssertionError("another executor was asked for")


def test_members_are_trained_as_asked_or_as_the_device_prefers(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(executor: str, device: str) -> str:
        return sweep_module.executor_name(sweep_config(executor=executor).members, device, [])

    monkeypatch.setattr(sweep_module, "resolve_device", lambda name: name)
    assert [of("auto", device) for device in ("cpu", "cuda", "cuda:1")] == ["processes", "stacked", "stacked"]
    assert [of(name, "cuda") for name in ("processes", "stacked")] == ["processes", "stacked"]
    assert of("stacked", "cpu") == "stacked"
