"""Sweeps: the grid, both executors against training alone, resumption, what is chosen and said."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from remembered import write_store
from safetensors.torch import load_file

from reelbank.heads import SweepConfig, SweepResult, TrainConfig, TrainingError, sweep, train_head
from reelbank.heads.optimizers import OPTIMIZERS
from reelbank.heads.sweeps.grid import SWEEPABLE_FIELDS, combinations, members_of, parse_axes, parse_value, value_text
from reelbank.heads.sweeps.stacked import TOLERANCE
from reelbank.manifests.events import Event
from reelbank.store.options import options as options_of_config

pytestmark = pytest.mark.usefixtures("pictures_not_rendered")

FREE: dict[str, Any] = {"report": False, "epochs": 3, "bins": 20, "batch": 16, "checkpoint_seconds": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 clips of 3 classes in groups of 5, with kcal; every fifth group validates, every fifth tests."""
    random = np.random.default_rng(0)
    clips, features = [], []
    for i in range(150):
        kind, part = i % 3, (i // 5) % 5
        split = ("train", "train", "train", "val", "test")[part]
        clips.append(
            {"clip_id": f"c{i}", "split": split, "label": f"k{kind}", "group": f"g{i // 5}", "kcal": 200.0 + 100 * kind}
        )
        steps = random.normal(size=(3, 8))
        steps[:, kind] += 1.5
        features.append(steps.astype(np.float16))
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    write_store(path, {"cls": features}, clips)
    return path


def _config(store: Path, run: Path, **options: Any) -> SweepConfig:
    return SweepConfig.of(store=(store,), run=run, **{**FREE, **options})


def _epochs(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def _alone(result: SweepResult, name: str, run: Path) -> Path:
    """Trains the configuration of member `name` again, by itself."""
    stored = json.loads((result.directory / "members" / name / "config.json").read_text())["config"]
    return train_head(TrainConfig.from_json(stored).but(run=run, resume=False)).directory


def _assert_equal_runs(a: Path, b: Path, folders: tuple[str, ...] = (".",)) -> None:
    assert _epochs(a) == _epochs(b)
    assert (a / "predictions.csv").read_bytes() == (b / "predictions.csv").read_bytes()
    for folder in folders:
        for name in ("best.safetensors", "last.safetensors"):
            left, right = load_file(a / folder / name), load_file(b / folder / name)
            assert left.keys() == right.keys()
            assert all(torch.equal(left[key], right[key]) for key in left)


def test_processes_give_the_bits_of_training_alone(store: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    config = _config(store, tmp_path / "s", sweep=("lr=1e-2,1e-3", "normalize=zscore,l2"), workers=2)
    result = sweep(config, events.append)
    names = [member["name"] for member in result.results["members"]]
    assert len(names) == len(set(names)) == 4
    for i, name in enumerate(sorted(names)):
        _assert_equal_runs(result.directory / "members" / name, _alone(result, name, tmp_path / str(i)))
    done = [event.done for event in events if event.stage == "sweep"]
    assert list(dict.fromkeys(done)) == [1, 2, 3, 4]  # said again while the next lasts long
    assert not list(result.directory.glob(".shared-*"))


@pytest.mark.parametrize(
    "options",
    [
        {"sweep": ("lr=3e-3,1e-3", "weight_decay=0,1e-3"), "repeats": 2},
        {"sweep": ("betas=0.9:0.999,0.8:0.9", "eps=1e-8,1e-3", "epochs=2,4")},
        {
            "sweep": ("schedule=none,step,plateau", "early_stop=1,20"),
            "step_epochs": 1,
            "patience_epochs": 0,
            "lr": 0.01,
        },
        {"sweep": ("lr=1e-3,3e-3",), "folds": 2, "repeats": 2, "keep": "last"},
        {"sweep": ("lr=1e-3,3e-3", "aggregation=adaptive,flatten"), "head": "conv-aggregation"},
        {"sweep": ("lr=1e-3,3e-3", "trunk=separate,shared"), "loss": "jsd", "label_smoothing": 0.1},
        {"sweep": ("lr=1e-3,3e-3", "reduction=sum,mean"), "loss": "kld", "class_weights": "balanced", "head": "linear"},
        {"sweep": ("lr=1e-3,3e-3", "head=mlp,attentive"), "augment": ("noise=0.1",), "balance": "group", "epochs": 2},
        *({"sweep": ("lr=1e-3,3e-3",), "optimizer": name, "epochs": 2} for name in OPTIMIZERS),
    ],
    ids=str,
)
def test_stacked_agrees_with_training_alone(options: dict[str, Any], store: Path, tmp_path: Path) -> None:
    result = sweep(_config(store, tmp_path / "s", executor="stacked", **options))
    assert not result.has_failures
    members = sorted(result.results["members"], key=lambda member: member["name"])
    for i, member in enumerate(members[:: -(-len(members) // 3)]):  # three of them: each trains once more
        run, alone = result.directory / "members" / member["name"], _alone(result, member["name"], tmp_path / str(i))
        for ours, theirs in zip(_epochs(run), _epochs(alone), strict=True):
            assert ours["learning_rate"] == theirs["learning_rate"]
            assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=TOLERANCE)
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=TOLERANCE)
        folder = "fold-1" if "folds" in options else "."
        left, right = load_file(run / folder / "last.safetensors"), load_file(alone / folder / "last.safetensors")
        assert {n for n in left if not n.startswith("optimizer")} == {n for n in right if not n.startswith("optimizer")}


def test_stacked_member_can_be_continued(store: Path, tmp_path: Path) -> None:
    sweep(_config(store, tmp_path / "s", executor="stacked", sweep=("lr=1e-3,3e-3",), epochs=2))
    longer = _config(
        store, tmp_path / "s", executor="processes", workers=1, sweep=("lr=1e-3,3e-3",), epochs=4, resume=True
    )
    again = sweep(longer)
    assert [member["epochs_run"] for member in again.results["members"]] == [4, 4]
    name = again.results["members"][0]["name"]
    alone = _epochs(_alone(again, name, tmp_path / "alone"))
    for ours, theirs in zip(_epochs(again.directory / "members" / name), alone, strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=TOLERANCE)


def test_winner_is_chosen_on_validation_and_only_it_is_reported(store: Path, tmp_path: Path) -> None:
    config = _config(store, tmp_path / "s", sweep=("lr=1e-5,1e-2",), repeats=2, workers=1, report=True)
    result = sweep(config)
    ranked = result.results["combinations"]
    assert [one["values"]["lr"] for one in ranked] == ["0.01", "1e-05"]
    losses = [member["val_loss"] for member in result.results["members"] if member["values"]["lr"] == "0.01"]
    assert ranked[0]["mean"] == pytest.approx(np.mean(losses))
    assert ranked[0]["deviation"] == pytest.approx(np.std(losses, ddof=1))
    assert result.winner["values"] == {"lr": "0.01"}
    tests = [
        json.loads((result.directory / "members" / name / "results.json").read_text())["splits"]["test"]["metrics"]
        for name in result.winner["members"]
    ]
    assert result.winner["metrics"]["accuracy"]["mean"] == pytest.approx(
        np.mean([t["accuracy"]["value"] for t in tests])
    )
    text = result.text()
    assert "chosen on validation; test is reported once, for the winner alone" in text
    assert text.count("test accuracy") == 1
    for name in ("sweep.json", "sweep.csv", "sweep.png"):
        assert str(result.directory / name) in text
        assert (result.directory / name).stat().st_size > 0
    with (result.directory / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["lr"] for row in rows] == ["0.01", "0.01", "1e-05", "1e-05"]
    assert not {"accuracy", "mae"} & set(rows[0])
    pages = sorted(path.parent.name for path in result.directory.glob("members/*/report.html"))
    assert pages == sorted(result.winner["members"])
    assert (result.directory / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_losses_of_different_kinds_are_not_compared(store: Path, tmp_path: Path) -> None:
    both = sweep(_config(store, tmp_path / "a", sweep=("loss=ce,jsd",), workers=1, epochs=1))
    assert both.results["selection"]["metric"] == "val_mae"
    assert "cannot be compared" in both.results["selection"]["sentence"]
    classes = _config(store, tmp_path / "b", sweep=("loss=ce,jsd",), target="none", workers=1, epochs=1)
    assert sweep(classes).results["selection"]["metric"] == "val_accuracy"


def test_stepwise_keeps_each_winner_and_repeats_nothing(store: Path, tmp_path: Path) -> None:
    config = _config(store, tmp_path / "s", stepwise=True, sweep=("lr=1e-5,1e-2", "weight_decay=1e-5,0.5"), workers=1)
    result = sweep(config)
    assert [step["field"] for step in result.results["steps"]] == ["lr", "weight_decay"]
    assert result.results["steps"][0]["chosen"] == "0.01"
    assert len(result.results["members"]) == 3  # lr 0.01 with weight decay 1e-05 is in both steps
    assert result.winner["values"]["lr"] == "0.01"


def test_failed_members_are_rows_with_a_reason(store: Path, tmp_path: Path) -> None:
    for executor in ("processes", "stacked"):
        config = _config(
            store, tmp_path / executor, executor=executor, workers=1, optimizer="sgd", sweep=("lr=1e-3,1e30",)
        )
        result = sweep(config)
        assert result.has_failures
        assert [member["status"] for member in result.results["members"]] == ["done", "failed"]
        assert "a smaller --lr" in result.results["members"][1]["error"]
        assert result.winner["values"] == {"lr": "0.001"}
        assert "1 of 2 members could not be trained" in result.text()
    with pytest.raises(TrainingError, match="no combination of the sweep could be trained"):
        sweep(_config(store, tmp_path / "all", workers=1, optimizer="sgd", sweep=("lr=1e29,1e30",)))


def test_killed_sweep_goes_on_with_what_is_missing(store: Path, tmp_path: Path) -> None:
    options = {"sweep": ["lr=1e-2,1e-3,1e-4,1e-5"], "workers": 2, "epochs": 20, "early_stop_epochs": 0, "batch": 4}
    code = (
        "import json, sys; from pathlib import Path; from reelbank.heads import SweepConfig, sweep\n"
        "if __name__ == '__main__':\n"
        "    options = json.loads(sys.argv[3]); options['sweep'] = tuple(options['sweep'])\n"
        "    sweep(SweepConfig.of(store=(Path(sys.argv[1]),), run=Path(sys.argv[2]), **options))\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    run = tmp_path / "s"
    arguments = [sys.executable, str(script), str(store), str(run), json.dumps({**FREE, **options})]
    process = subprocess.Popen(arguments, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(run.glob("members/*/results.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while _alive(process.pid):  # the workers end with their parent
        assert time.monotonic() < deadline
        time.sleep(0.05)
    finished = {path.parent.name: path.stat().st_mtime_ns for path in run.glob("members/*/results.json")}
    assert 0 < len(finished) < 4
    config = _config(store, run, resume=True, **{**options, "sweep": tuple(options["sweep"]), "workers": 1})
    result = sweep(config)
    for name, moment in finished.items():
        assert (run / "members" / name / "results.json").stat().st_mtime_ns == moment
    whole = sweep(config.but(run=tmp_path / "whole", resume=False))
    for member in result.results["members"]:
        _assert_equal_runs(run / "members" / member["name"], whole.directory / "members" / member["name"])
    assert result.results["combinations"] == whole.results["combinations"]
    assert not list(run.glob(".shared-*"))


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_resumed_sweep_may_grow_but_not_change(store: Path, tmp_path: Path) -> None:
    config = _config(store, tmp_path / "s", sweep=("lr=1e-2,1e-3",), workers=1, epochs=1)
    sweep(config)
    with pytest.raises(TrainingError, match="exists; pass --resume"):
        sweep(config)
    with pytest.raises(TrainingError, match="batch: the run has 16, asked 8"):
        sweep(config.but(resume=True, batch=8))
    moments = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("members/*/results.json")}
    grown = sweep(config.but(resume=True, sweep=("lr=1e-2,1e-3,1e-4",)))
    assert len(grown.results["members"]) == 3
    assert all(path.stat().st_mtime_ns == moment for path, moment in moments.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("speed=1,2", "'speed' is not a field of training; these can be swept: .*lr.*weight_decay"),
        ("store=a,b", "'store' cannot vary within a sweep"),
        ("seed=1,2", "for several seeds use --repeats"),
        ("lr", "not of the form FIELD=A,B,C"),
        ("lr=", "empty value"),
        ("lr=1e-3,,1", "empty value"),
        ("lr=fast", "lr: 'fast' is not a number"),
        ("batch=1.5", "batch: '1.5' is not a whole number"),
        ("betas=0.9", "is not a pair A:B"),
        ("milestones=3+x", "whole numbers joined"),
        ("lr=1e-3,0.001", "gives a value twice"),
        ("head=mlp,gru", "no head 'gru'; choose one of"),
        ("lr=-1", "--lr -1.0 must be above 0"),
    ],
)
def test_impossible_sweeps_are_refused_before_anything_is_written(
    given: str, message: str, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=message):
        sweep(_config(store, tmp_path / "s", sweep=(given,)))
    assert not (tmp_path / "s").exists()


def test_bad_counts_are_refused(store: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"repeats": 0}, "--repeats 0 must be 1 or more"),
        ({"stepwise": True}, "--stepwise tunes the fields of --sweep"),
        ({"workers": -1}, "--workers -1 must be 0 or more"),
        ({"executor": "threads"}, "'threads' is not one of auto, processes, stacked"),
    ):
        with pytest.raises(TrainingError, match=message):
            _config(store, tmp_path / "s", **options)
    with pytest.raises(TrainingError, match=r"gives 'lr' twice"):
        sweep(_config(store, tmp_path / "s", sweep=("lr=1,2", "lr=3,4")))


DEFAULTS = {name: one.default for name, one in options_of_config(SweepConfig).items() if name in SWEEPABLE_FIELDS}


@pytest.mark.parametrize("name", [name for name, default in DEFAULTS.items() if default not in (None, ())])
def test_a_sweepable_field_takes_its_own_default(name: str) -> None:
    assert parse_value(name, value_text(DEFAULTS[name])) == DEFAULTS[name]


def test_members_are_named_by_their_values(store: Path, tmp_path: Path) -> None:
    config = _config(store, tmp_path, sweep=("tap=cls,a/b+c", "early-stop=5"), repeats=2)
    axes = parse_axes(config.sweep)
    assert [axis.field for axis in axes] == ["tap", "early_stop_epochs"]
    names = [member.name for member in members_of(config, combinations(axes), tmp_path)]
    assert names[:2] == ["tap=cls,early_stop_epochs=5,seed=0", "tap=cls,early_stop_epochs=5,seed=1"]
    assert len(set(names)) == 4
    assert not any("/" in name for name in names)


def test_command_trains_a_sweep(store: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from reelbank.cli import train_head as command

    arguments = ["--store", str(store), "--run", str(tmp_path / "s"), "--sweep", "lr=1e-2,1e-3", "--epochs", "1"]
    done = CliRunner().invoke(command, [*arguments, "--workers", "1", "--bins", "20", "--no-report"])
    assert done.exit_code == 0, done.output
    assert "Winner: lr 0.01" in done.output
    wrong = CliRunner().invoke(command, [*arguments[:4], "--sweep", "speed=1"])
    assert wrong.exit_code == 2
    assert "these can be swept" in wrong.output


def test_ended_processes_leave_nothing_running(store: Path, tmp_path: Path) -> None:
    """An error in the caller's progress callback ends the pool at once."""

    def stop(event: Event) -> None:
        if event.stage == "sweep":
            raise RuntimeError("enough")

    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    options = {"sweep": ("lr=1e-2,1e-3,1e-4",), "workers": 2, "epochs": 2}
    with pytest.raises(RuntimeError, match="enough"):
        sweep(_config(store, tmp_path / "s", **options), stop)
    assert not list((tmp_path / "s").glob(".shared-*"))
    assert signal.getsignal(signal.SIGINT) is before
