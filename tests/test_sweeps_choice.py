"""Which member of a sweep wins: by its mean over repeats and folds, in the metric's own direction, on validation."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import BINS, clips, config, partition, prepared, run_line, run_results, sweep_config

from reelbank.heads import TrainingError
from reelbank.heads.sweeps.grid import SWEEPABLE_FIELDS, Axis, Member, combinations, members_of, parse_axes
from reelbank.heads.sweeps.report import (
    HIGHER_IS_BETTER,
    Combination,
    Trial,
    choose,
    criterion,
    ranked,
    summarize,
    sweep_text,
    trial_of,
    write_csv,
)

NAN = float("nan")
LOSS_FIELDS = (
    *("loss", "class_loss", "bins", "range", "sigma", "target_labels", "reduction", "class_weights"),
    "label_smoothing",
)


def _member(lr: float, seed: int = 0, folder: Path | None = None, **options: Any) -> Member:
    name = f"lr={lr:g},seed={seed}"
    run = None if folder is None else folder / "members" / name
    return Member(name=name, values={"lr": lr}, seed=seed, config=config(lr=lr, seed=seed, run=run, **options))


def _trial(lr: float, value: float, *, seed: int = 0, metric: str = "val_loss", error: str | None = None) -> Trial:
    return Trial(member=_member(lr, seed), error=error, **{metric: value})


def _order(found: Sequence[Combination]) -> list[float]:
    return [one.values["lr"] for one in found]


def test_direction_of_every_selecting_metric() -> None:
    assert HIGHER_IS_BETTER == {"val_accuracy": True, "val_loss": False, "val_mae": False}


@pytest.mark.parametrize(
    ("metric", "order"), [("val_accuracy", [2, 3, 1]), ("val_loss", [1, 3, 2]), ("val_mae", [1, 3, 2])]
)
def test_best_comes_first_in_the_direction_of_the_metric(metric: str, order: list[float]) -> None:
    trials = [_trial(lr, value, metric=metric) for lr, value in ((1, 0.2), (2, 0.9), (3, 0.5))]
    assert _order(ranked(trials, metric)) == order
    assert choose(trials, metric).values == {"lr": order[0]}


def test_only_the_metric_asked_for_chooses() -> None:
    member_1, member_2 = _member(1), _member(2)
    trials = [
        Trial(member=member_1, error=None, val_loss=1.0, val_accuracy=0.1, val_mae=9.0),
        Trial(member=member_2, error=None, val_loss=2.0, val_accuracy=0.9, val_mae=1.0),
    ]
    assert [choose(trials, metric).values["lr"] for metric in ("val_loss", "val_accuracy", "val_mae")] == [1, 2, 2]


def test_repeats_are_averaged_before_they_are_compared() -> None:
    """The single best run belongs to the combination that is worse on the whole, and the single worst too."""
    lucky = [(1, 0.1), (1, 0.9), (1, 0.8)]
    steady = [(2, 0.5), (2, 0.5), (2, 0.5)]
    trials = [_trial(lr, value, seed=i) for i, (lr, value) in enumerate([*lucky, *steady])]
    found = ranked(trials, "val_loss")
    assert _order(found) == [2, 1]
    assert [one.mean for one in found] == [pytest.approx(0.5), pytest.approx(0.6)]
    assert found[1].deviation == pytest.approx(np.std([0.1, 0.9, 0.8], ddof=1))
    assert [trial.seed for trial in (t.member for t in found[1].trials)] == [0, 1, 2]
    accurate = [_trial(lr, value, seed=i, metric="val_accuracy") for i, (lr, value) in enumerate([*lucky, *steady])]
    assert choose(accurate, "val_accuracy").values == {"lr": 1}


def test_one_run_has_no_deviation() -> None:
    (only,) = ranked([_trial(1, 0.5)], "val_loss")
    assert math.isnan(only.deviation)
    assert only.mean == 0.5


def test_the_first_of_equals_wins() -> None:
    for metric in HIGHER_IS_BETTER:
        trials = [_trial(lr, value, metric=metric) for lr, value in ((3, 0.7), (1, 0.5), (2, 0.5), (4, 0.5))]
        equal = [lr for lr in _order(ranked(trials, metric)) if lr != 3]
        assert equal == [1, 2, 4]


@pytest.mark.parametrize("metric", sorted(HIGHER_IS_BETTER))
def test_failed_and_undefined_members_come_last_and_never_win(metric: str) -> None:
    trials = [
        _trial(1, NAN, metric=metric),
        _trial(2, 0.5, metric=metric, error="lost", seed=0),
        _trial(3, 0.5, metric=metric, seed=0),
        _trial(3, 0.1, metric=metric, seed=1, error="lost"),  # one repeat lost: the mean of the others is no mean
        _trial(4, 123.0, metric=metric),
        _trial(5, math.inf, metric=metric),
        _trial(6, -math.inf, metric=metric),
    ]
    assert choose(trials, metric).values == {"lr": 4}
    assert _order(ranked(trials, metric)) == [4, 1, 2, 3, 5, 6]
    assert math.isnan(ranked(trials, metric)[3].mean)


def test_no_member_to_choose_is_an_error_with_the_first_reason() -> None:
    with pytest.raises(TrainingError, match=r"judged by val_loss; the first: it burnt$"):
        choose([_trial(1, NAN), _trial(2, 0.1, error="it burnt"), _trial(3, 0.1, error="another")], "val_loss")
    with pytest.raises(TrainingError, match=r"the first: val_mae is undefined$"):
        choose([_trial(1, NAN, metric="val_mae")], "val_mae")


# --- what chooses


def test_criterion_is_the_loss_unless_the_sweep_changes_it() -> None:
    def of(field: str, has_target: bool, sweep_by: str = "auto") -> tuple[str, str]:
        return criterion(
            sweep_by,
            [Axis(field="lr", values=(1.0,)), Axis(field=field, values=())],
            has_target=has_target,
        )

    for has_target in (False, True):
        assert of("head", has_target) == ("val_loss", "the loss that training lowers")
        assert of("sigma", has_target, "val_accuracy") == ("val_accuracy", "as asked for by --sweep-by")
    for field in LOSS_FIELDS:
        why = f"losses of different {field} cannot be compared"
        assert of(field, True) == ("val_mae", why)
        assert of(field, False) == ("val_accuracy", why)
    for field in set(SWEEPABLE_FIELDS) - set(LOSS_FIELDS):
        assert of(field, True)[0] == "val_loss", field
    several = [Axis(field=field, values=()) for field in ("sigma", "loss", "lr", "reduction", "bins", "range")]
    assert criterion("auto", several, has_target=True)[1] == (
        "losses of different bins, loss, range, reduction, sigma cannot be compared"
    )
    assert criterion("auto", [Axis(field="sigma", values=())])[0] == "val_accuracy"


# --- what a member is credited with


def _write_run(folder: Path, lines: Sequence[dict[str, Any]], results: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(run_line(**line)) + "\n" for line in lines))
    (folder / "results.json").write_text(json.dumps(run_results(**results)))


def _line(epoch: int, loss: float, fold: int | None = None, **more: Any) -> dict[str, Any]:
    return {"fold": fold, "epoch": epoch, "val_loss": loss, "val_accuracy": None, "val_mae": 10 * loss, **more}


@pytest.mark.parametrize(("keep", "loss"), [("best", 1.0), ("last", 3.0)])
def test_member_has_the_numbers_of_the_epoch_that_it_keeps(keep: str, loss: float, tmp_path: Path) -> None:
    member = _member(1, folder=tmp_path, keep=keep)
    training = {"best_epoch": 2, "epochs_run": 3, "seconds": 1.5}
    lines = [_line(1, 2.0), _line(2, 1.0), _line(3, 3.0)]
    _write_run(tmp_path / "members" / member.name, lines, {"folds": [], "training": training})
    trial = trial_of(member, None)
    assert (trial.val_loss, trial.val_mae, trial.best_epoch, trial.epochs_run, trial.seconds) == (
        *(loss, 10 * loss, 2, 3, 1.5),
    )
    assert math.isnan(trial.val_accuracy)
    assert trial.error is None


def test_member_with_folds_has_the_mean_over_all_of_them(tmp_path: Path) -> None:
    member = _member(1, folder=tmp_path)
    folds = [{"fold": f, "best_epoch": best, "epochs_run": run} for f, best, run in ((0, 1, 2), (1, 2, 3), (2, 2, 4))]
    lines = [
        *(_line(1, 1.0, 0, val_accuracy=0.5), _line(2, 9.0, 0, val_accuracy=0.9)),
        *(_line(1, 8.0, 1, val_accuracy=0.1), _line(2, 4.0, 1, val_accuracy=0.7)),
        *(_line(1, 5.0, 2, val_accuracy=0.2), _line(2, 1.0, 2, val_accuracy=0.9)),
    ]
    training = {"seconds": 2.0, "best_epoch": 9, "epochs_run": 9}
    _write_run(tmp_path / "members" / member.name, lines, {"folds": folds, "training": training})
    trial = trial_of(member, None)
    assert (trial.val_loss, trial.val_accuracy, trial.val_mae) == (2.0, pytest.approx(0.7), 20.0)
    assert (trial.best_epoch, trial.epochs_run) == (1, 2)


def test_a_fold_without_a_number_leaves_the_member_without_one(tmp_path: Path) -> None:
    member = _member(1, folder=tmp_path)
    folds = [{"fold": f, "best_epoch": 1, "epochs_run": 1} for f in (0, 1)]
    lines = [_line(1, 1.0, 0), {**_line(1, 2.0, 1), "val_mae": None}]
    _write_run(tmp_path / "members" / member.name, lines, {"folds": folds, "training": {"seconds": 2.0}})
    trial = trial_of(member, None)
    assert trial.val_loss == 1.5
    assert math.isnan(trial.val_mae)


def test_failed_member_has_its_reason_and_no_number(tmp_path: Path) -> None:
    trial = trial_of(_member(1, folder=tmp_path), "no memory")
    assert trial.error == "no memory"
    assert all(math.isnan(value) for value in (trial.val_loss, trial.val_accuracy, trial.val_mae))
    assert (trial.best_epoch, trial.epochs_run, trial.seconds) == (0, 0, 0.0)


# --- what sweep.json says


def _finished(folder: Path, reported: str, mae: float | None, accuracy: float = 0.5) -> dict[str, Any]:
    entry = {"metrics": {"accuracy": {"value": accuracy}, "mae": {"value": mae}}}
    other = {"metrics": {"accuracy": {"value": 0.99}, "mae": {"value": 0.01}}}
    return {"reported": reported, "splits": {"val": other, "unknown": other, reported: entry}}


def _summary(
    folder: Path, *, reported: str = "test", tests: Sequence[float | None] = (7.0, 9.0), **options: Any
) -> Any:
    """Four members: lr 1 wins on validation (2.0 on average against 3.0) and is worse on test."""
    asked = sweep_config(sweep=("lr=1,2",), repeats=2, **options)
    axes = parse_axes(asked.sweep)
    trials = []
    for lr, seed, loss, mae in (
        (1.0, 0, 1.0, tests[0]),
        (1.0, 1, 3.0, tests[1]),
        (2.0, 0, 2.9, 1.0),
        (2.0, 1, 3.1, 1.0),
    ):
        member = _member(lr, seed, folder)
        _write_run(folder / "members" / member.name, [], _finished(folder, reported, mae, accuracy=loss / 10))
        trials.append(
            Trial(member=member, error=None, val_loss=loss, val_mae=NAN, best_epoch=3, epochs_run=5, seconds=1.0)
        )
    parts = (partition([0], [1], [2]),)
    case = prepared(clips(["a", "b", "a"], values=[1.0, 2.0, 3.0]), classes=("a", "b"), bins=BINS, partitions=parts)
    return summarize(asked, case, axes, trials, [], run="sweep", executor="processes")


def test_only_the_winner_is_reported_on_test_with_mean_and_deviation(tmp_path: Path) -> None:
    found = _summary(tmp_path)
    assert found["winner"]["values"] == {"lr": "1"}
    assert found["winner"]["members"] == ["lr=1,seed=0", "lr=1,seed=1"]
    assert found["winner"]["value"] == 2.0
    assert found["winner"]["reported"] == "test"
    assert found["winner"]["metrics"] == {
        "accuracy": {"mean": pytest.approx(0.2), "deviation": pytest.approx(np.std([0.1, 0.3], ddof=1)), "count": 2},
        "mae": {"mean": 8.0, "deviation": pytest.approx(math.sqrt(2)), "count": 2},
    }
    assert found["selection"] == {
        "metric": "val_loss",
        "higher_is_better": False,
        "sentence": (
            "The winner has the best validation loss (mean of 2 seeds; the loss that training lowers), chosen on "
            "validation; test is reported once, for the winner alone."
        ),
    }
    assert [(one["values"], one["mean"], one["failed"]) for one in found["combinations"]] == [
        ({"lr": "1"}, 2.0, 0),
        ({"lr": "2"}, 3.0, 0),
    ]
    assert found["combinations"][0]["deviation"] == pytest.approx(math.sqrt(2))
    assert "1.0" not in json.dumps(found["combinations"][1])  # no test number of a loser
    assert found["notes"] == []
    assert (found["format_version"], found["weights_are_random"], found["warning"]) == (1, False, "")
    assert (found["repeats"], found["executor"], found["run"], found["fields"]) == (
        2,
        "processes",
        "sweep",
        {"lr": ["1", "2"]},
    )
    assert [member["name"] for member in found["members"]][:2] == found["winner"]["members"]
    assert {member["status"] for member in found["members"]} == {"done"}
    assert found["members"][0] == {
        "name": "lr=1,seed=0",
        "values": {"lr": "1"},
        "seed": 0,
        "status": "done",
        "error": "",
        "val_loss": 1.0,
        "val_accuracy": None,
        "val_mae": None,
        "best_epoch": 3,
        "epochs_run": 5,
        "seconds": 1.0,
    }


def test_winner_is_reported_by_its_mean_over_seeds(tmp_path: Path) -> None:
    asked, trials = sweep_config(sweep=("lr=1,2",), repeats=3), []
    for seed, mae in ((0, 1.0), (1, 2.0), (2, 9.0)):
        member = _member(1, seed, tmp_path)
        _write_run(tmp_path / "members" / member.name, [], _finished(tmp_path, "test", mae))
        trials.append(Trial(member=member, error=None, val_loss=1.0))
    case = prepared(clips(["a", "b"]), classes=("a", "b"))
    found = summarize(asked, case, parse_axes(asked.sweep), trials, [], run="r", executor="stacked")
    assert found["winner"]["metrics"]["mae"] == {"mean": 4.0, "deviation": pytest.approx(math.sqrt(19)), "count": 3}


@pytest.mark.parametrize(("bins", "metric"), [(BINS, "val_mae"), (None, "val_accuracy")])
def test_sweep_over_losses_is_judged_by_what_the_run_predicts(bins: Any, metric: str, tmp_path: Path) -> None:
    asked, trials = sweep_config(sweep=("loss=ce,jsd",)), []
    for loss, value in (("ce", 0.2), ("jsd", 0.4)):
        run = tmp_path / loss
        _write_run(run, [], _finished(tmp_path, "test", 1.0))
        member = Member(name=loss, values={"loss": loss}, seed=0, config=config(loss=loss, run=run))
        trials.append(Trial(member=member, error=None, val_loss=value, val_accuracy=value, val_mae=value))
    case = prepared(clips(["a", "b"], values=[1.0, 2.0]), classes=("a", "b"), bins=bins)
    found = summarize(asked, case, parse_axes(asked.sweep), trials, [], run="r", executor="stacked")
    assert found["selection"]["metric"] == metric
    assert found["selection"]["higher_is_better"] == (metric == "val_accuracy")
    assert found["winner"]["values"] == {"loss": "ce" if metric == "val_mae" else "jsd"}


def test_undefined_numbers_of_the_winner_are_left_out_of_its_mean(tmp_path: Path) -> None:
    one = _summary(tmp_path / "one", tests=(None, 9.0))["winner"]["metrics"]["mae"]
    assert one == {"mean": 9.0, "deviation": None, "count": 1}
    none = _summary(tmp_path / "none", tests=(None, None))["winner"]["metrics"]["mae"]
    assert none == {"mean": None, "deviation": None, "count": 0}


def test_sentence_says_where_the_winner_was_chosen(tmp_path: Path) -> None:
    chosen = "The winner has the best validation loss (mean of 2 seeds; the loss that training lowers)"
    same = _summary(tmp_path / "a", select_on="reported-set")["selection"]["sentence"]
    assert same == f"{chosen}, chosen on the reported set itself (--select-on reported-set): its numbers are too good."
    only = _summary(tmp_path / "b", reported="val")["selection"]["sentence"]
    assert only == f"{chosen}; only validation is reported, on the very clips that chose the winner."


def test_failures_are_counted_and_named(tmp_path: Path) -> None:
    asked = sweep_config(sweep=("lr=1,2",), optimizer="sgd")
    member = _member(1, folder=tmp_path)
    _write_run(tmp_path / "members" / member.name, [], _finished(tmp_path, "test", 4.0))
    done = Trial(member=member, error=None, val_loss=1.0, val_accuracy=0.25)
    trials = [_trial(2, NAN, error="it burnt"), done, _trial(2, NAN, seed=1, error="again")]
    case = prepared(clips(["a", "b"]), classes=("a", "b"))
    found = summarize(asked, case, parse_axes(asked.sweep), trials, [{"field": "lr"}], run="r", executor="stacked")
    assert found["notes"] == ["2 of 3 members could not be trained; sweep.json says why."]
    assert [one["failed"] for one in found["combinations"]] == [0, 2]
    assert found["combinations"][1]["mean"] is None
    assert [(member["status"], member["error"]) for member in found["members"]] == [
        ("done", ""),
        ("failed", "it burnt"),
        ("failed", "again"),
    ]
    assert found["steps"] == [{"field": "lr"}]
    assert found["selection"]["sentence"].startswith("The winner has the best validation loss (one seed;")
    write_csv(tmp_path / "sweep.csv", found)
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("name", "lr", "seed", "status", "val_loss", "val_accuracy", "val_mae", "best_epoch", "epochs_run"),
        *("seconds", "error"),
    ]
    assert [(row["lr"], row["val_loss"], row["val_accuracy"], row["error"]) for row in rows] == [
        ("1", "1.0", "0.25", ""),
        ("2", "", "", "it burnt"),
        ("2", "", "", "again"),
    ]
    text = sweep_text(tmp_path, found)
    row = next(line for line in text.split("\n") if line.startswith("│ 2"))
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["2", "", "", "2", "2"]
    assert "\n2 of 3 members could not be trained; sweep.json says why.\n" in text
    alone = {**found, "winner": {**found["winner"], "values": {}}}
    assert "Winner: the one configuration\n" in sweep_text(tmp_path, alone)


def test_text_shows_the_ranking_and_the_winner(tmp_path: Path) -> None:
    text = sweep_text(tmp_path, _summary(tmp_path)).split("\n")
    table = [line for line in text if line.startswith(("│ 1", "│ 2"))]
    assert [[cell.strip() for cell in line.strip("│").split("│")] for line in table] == [
        ["1", "2", "1.414", "2", ""],
        ["2", "3", "0.1414", "2", ""],
    ]
    assert text[0].startswith("2 combinations by validation loss, best first")
    after = text[text.index("Winner: lr 1") :]
    assert after[2:4] == [
        "  test accuracy            0.2 +- 0.1414 over 2 seeds",
        "  test mean absolute error 8 +- 1.414 over 2 seeds",
    ]
    assert after[6] == f"Sweep: {tmp_path / 'sweep.json'}, {tmp_path / 'sweep.csv'}, {tmp_path / 'sweep.png'}"
    assert after[4:6] == [f"Runs of the winner: {tmp_path / 'members' / f'lr=1,seed={seed}'}" for seed in (0, 1)]


# --- the grid


def test_grid_has_every_combination_with_every_seed(tmp_path: Path) -> None:
    asked = sweep_config(sweep=("lr=1,2", "batch=4,8,16"), repeats=3, seed=5, resume=False)
    points = combinations(parse_axes(asked.sweep))
    assert points == [{"lr": lr, "batch": batch} for lr in (1.0, 2.0) for batch in (4, 8, 16)]
    members = members_of(asked, points, tmp_path)
    assert len(members) == len({member.name for member in members}) == 18
    assert [member.seed for member in members[:4]] == [5, 6, 7, 5]
    assert members[0].name == "lr=1,batch=4,seed=5"
    assert combinations([]) == [{}]
    assert members[-1].values == {"lr": 2.0, "batch": 16}
