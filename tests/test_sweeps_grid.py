"""What a sweep varies: fields, values and members, and the fields that it must not vary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planted import sweep_config

from reelbank.heads import SweepConfig, TrainingError
from reelbank.heads.sweeps.grid import (
    SWEEPABLE_FIELDS,
    combinations,
    members_of,
    parse_axes,
    parse_value,
    value_text,
)
from reelbank.store.options import options


def test_members_that_could_not_be_compared_are_never_made() -> None:
    """Fields that say what is predicted of which clips, what chooses, and where the work is done."""
    fixed = {
        *(
            "store",
            "join",
            "label",
            "target",
            "folds",
            "select_on",
            "judge_clips",
            "shuffle_labels",
            "seed",
            "repeats",
            "sweep_by",
        ),
        *("run", "overwrite", "resume", "report", "device", "threads", "checkpoint_seconds", "sweep", "stepwise"),
    }
    assert not fixed & set(SWEEPABLE_FIELDS)
    assert {"lr", "head", "loss", "sigma", "normalize", "epochs", "keep", "estimate"} <= set(SWEEPABLE_FIELDS)
    for field in fixed:
        with pytest.raises(TrainingError, match=f"'{field}' cannot vary within a sweep"):
            parse_axes((f"{field}=1,2",))


def test_axes_are_in_the_order_given_with_typed_values() -> None:
    axes = parse_axes(("weight-decay=1e-5, 0.5", "--batch=4,8", "head=linear,mlp", "betas=0.8:0.9,0.9:0.99"))
    assert [(axis.field, axis.values) for axis in axes] == [
        ("weight_decay", (1e-5, 0.5)),
        ("batch", (4, 8)),
        ("head", ("linear", "mlp")),
        ("betas", ((0.8, 0.9), (0.9, 0.99))),
    ]
    for given in (" early-stop =3", "early_stop=3", "early_stop_epochs=3", "--early-stop=3"):
        assert parse_axes((given,))[0].field == "early_stop_epochs"
    assert parse_axes(()) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("lr",), r"'lr' is not of the form FIELD=A,B,C"),
        (("some_speed=1",), r"'some_speed' is not a field of training; these can be swept: "),
        (("speed=1",), r"'speed' is not a field of training; these can be swept: "),
        (("seed=1,2",), r"'seed' cannot vary within a sweep; for several seeds use --repeats; these"),
        (("lr=1,2", "lr=3"), r"gives 'lr' twice"),
        (("lr=1,",), r"has an empty value; write lr=A,B,C"),
        (("lr=",), r"has an empty value"),
        (("lr=0.001,1e-3",), r"gives a value twice"),
        (("lr=fast",), r"--sweep lr: 'fast' is not a number"),
        (("batch=1.5",), r"--sweep batch: '1.5' is not a whole number"),
        (("betas=0.9",), r"--sweep betas: '0.9' is not a pair A:B"),
        (("milestones=3+x",), r"--sweep milestones: '3\+x' is not whole numbers joined by '\+'"),
    ],
)
def test_what_is_no_axis_is_refused(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        parse_axes(given)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "1e-3", 0.001),
        ("batch", "16", 16),
        ("head", "mlp", "mlp"),
        ("betas", "0.9:0.95", (0.9, 0.95)),
        ("milestones", "3+7", (3, 7)),
        ("augment", "noise=0.1+shift", ("noise=0.1", "shift")),
        ("segments", "segments:4:stride=2", "segments:4:stride=2"),
        ("report", "True", True),
        ("report", "false", False),
    ],
)
def test_values_are_read_by_the_type_of_their_field_and_written_back(name: str, text: str, value: Any) -> None:
    found = parse_value(name, text)
    assert found == value
    assert type(found) is type(value)
    assert parse_value(name, value_text(value)) == value


def test_text_of_a_number_keeps_every_digit_that_it_needs() -> None:
    texts = {0.001: "0.001", 1e-05: "1e-05", 0.1234567891: "0.1234567891", 2.0: "2", 3: "3"}
    assert {value: value_text(value) for value in texts} == texts
    assert [value_text(value) for value in ((), (1,), (0.5, 0.25), ("a", "b"), True)] == [
        "",
        "1",
        "0.5:0.25",
        "a+b",
        "True",
    ]


def test_last_field_varies_fastest() -> None:
    axes = parse_axes(("lr=1,2", "batch=4,8"))
    assert combinations(axes) == [
        {"lr": 1.0, "batch": 4}, {"lr": 1.0, "batch": 8}, {"lr": 2.0, "batch": 4}, {"lr": 2.0, "batch": 8},
    ]  # fmt: skip


def test_members_are_trained_as_they_would_be_alone(tmp_path: Path) -> None:
    asked = sweep_config(sweep=("lr=0.25",), repeats=2, seed=7, batch=4, overwrite=True, run=tmp_path, report=True)
    first, second = members_of(asked, combinations(parse_axes(asked.sweep)), tmp_path)
    assert (first.name, second.name) == ("lr=0.25,seed=7", "lr=0.25,seed=8")
    assert (first.seed, second.seed, first.values) == (7, 8, {"lr": 0.25})
    own = first.config.to_json()
    assert (own["lr"], own["batch"], own["seed"]) == (0.25, 4, 7)
    assert (own["report"], own["overwrite"], own["resume"]) == (False, False, False)
    assert first.directory == tmp_path / "members" / first.name
    assert second.config.to_json() == {**own, "seed": 8, "run": str(second.directory)}
    (resumed,) = members_of(sweep_config(resume=True, run=tmp_path), [{}], tmp_path)  # each member is asked by itself
    assert resumed.config.run.resume is False


def test_names_are_safe_short_and_different(tmp_path: Path) -> None:
    asked = sweep_config()
    points = [{"segments": f"segments:{i}:stride=2"} for i in (3, 4)] + [{"tap": ("a/b",)}, {"tap": ("a-b",)}]
    points.append({"tap": tuple(f"tap{i}" for i in range(60))})
    names = [member.name for member in members_of(asked, points, tmp_path)]
    assert len(set(names)) == 5
    assert all(len(name) <= 170 and set(name) <= set(ALLOWED) for name in names)
    assert names[3] == "tap=a-b,seed=0"
    assert names[2].startswith("tap=a-b,seed=0-")


ALLOWED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=,.+_-"


def test_a_combination_that_cannot_be_trained_names_its_member(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--lr -1\.0 must be above 0") as caught:
        members_of(sweep_config(), [{"lr": 1.0}, {"lr": -1.0}], tmp_path)
    assert caught.value.__notes__ == ["in member lr=-1,seed=0 of the sweep"]


def test_a_sweep_is_asked_for_with_counts_that_make_sense() -> None:
    plain = sweep_config()
    assert (plain.members.repeats, plain.members.executor, plain.members.workers) == (1, "auto", 0)
    assert (plain.sweep, plain.stepwise, plain.sweep_by) == ((), False, "auto")
    assert list(plain.members.seeds(3)) == [3]
    assert list(sweep_config(repeats=3).members.seeds(5)) == [5, 6, 7]
    for given, message in (
        ({"repeats": 0}, "--repeats 0 must be 1 or more"),
        ({"workers": -1}, "--workers -1 must be 0 or more"),
        ({"executor": "threads"}, "'threads' is not one of auto, processes, stacked"),
        ({"sweep_by": "test_mae"}, "'test_mae' is not one of auto, val_accuracy, val_loss, val_mae"),
        ({"stepwise": True}, "--stepwise tunes the fields of --sweep FIELD=A,B,C; give at least one"),
    ):
        with pytest.raises(TrainingError, match=message):
            sweep_config(**given)
    assert options(SweepConfig)["sweep"].entry.metadata["multiple"]
    varied = sweep_config(sweep=("lr=1,2",), repeats=3, stepwise=True, executor="stacked", sweep_by="val_mae")
    assert varied.identity() == plain.identity() == plain.train.identity()
