"""Rows of a recipe: what their numbers are of, who is beaten, and which row is preferred; all worked out by hand."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import run_line, run_results

from reelbank.heads import RecipeConfig, TrainingError
from reelbank.heads.recipes import judging
from reelbank.heads.recipes import run as recipe_run
from reelbank.heads.recipes.judging import preference
from reelbank.heads.recipes.measures import GUESSERS, MEASURES, Clips, Guesser, Measure, Training
from reelbank.heads.recipes.numbers import (
    against,
    beside,
    compared,
    fold_values,
    guessed,
    measured,
    own_values,
    units_of,
)
from reelbank.heads.recipes.options import asked_of
from reelbank.heads.recipes.recipe import Recipe, RecipeRow, Step
from reelbank.heads.recipes.rows import Predicted, TrainedRow, read_clips
from reelbank.heads.recipes.study import Column, Part, Selection, Study

NAN = float("nan")
NAMES = ("clip_id", "split", "fold", "group", "label", "predicted", "correct", "target", "predicted_target")
#        clip  split   fold group label predicted correct target predicted_target
ROWS = [
    ("c0", "test", "0", "g0", "a", "a", "1", "10", "12"),
    ("c1", "test", "0", "g0", "a", "b", "0", "20", "26"),
    ("c2", "test", "1", "g1", "b", "b", "1", "30", "29"),
    ("c3", "test", "1", "g1", "new", "b", "0", "", "5"),
    ("c4", "test", "1", "g2", "", "a", "", "60", "50"),
]
TRAINING = Training(labels=np.array(["b", "a", "b", "", "a", "c"]), targets=np.array([1.0, 2.0, 30.0, NAN, 40.0, 50.0]))


def _clips(rows: Sequence[Sequence[str]] = ROWS) -> Clips:
    return Clips.of([dict(zip(NAMES, row, strict=True)) for row in rows], NAMES)


def _column(**options: Any) -> Column:
    return Column(**{"key": "mae", "head": "MAE", "part": "test", "metric": "mae", **options})


def _study(*columns: Column, **options: Any) -> Study:
    selection = options.pop("selection", Selection(validation="val_mae", column=columns[0].key))
    return Study(
        name="s", parts=(Part(name="test", split="test", said="the test set"),), columns=columns, selection=selection,
        **options,
    )  # fmt: skip


# --- measures and guessers


def test_measures_are_of_the_clips_that_count() -> None:
    clips = _clips()
    accuracy, error = MEASURES["accuracy"], MEASURES["mae"]
    assert accuracy.per_clip is not None
    assert error.per_clip is not None
    np.testing.assert_array_equal(accuracy.per_clip(clips), [1, 0, 1, 0, NAN])  # no class: neither right nor wrong
    np.testing.assert_array_equal(error.per_clip(clips), [2, 6, 1, NAN, 10])
    assert (accuracy.higher_is_better, error.higher_is_better) == (True, False)
    assert (accuracy.unit, error.unit) == ("", "target")
    with pytest.raises(ValueError, match="give one of per_clip and whole"):
        Measure(title="m", higher_is_better=True)
    with pytest.raises(ValueError, match="give one of per_clip and whole"):
        Measure(title="m", higher_is_better=True, per_clip=np.zeros, whole=lambda clips: 0.0)  # type: ignore[arg-type]


def test_guessers_know_training_labels_and_the_oracle_the_clips_themselves() -> None:
    clips = _clips()
    constant = GUESSERS["constant_median"].guess(clips, TRAINING)
    assert constant.numbers("predicted_target").tolist() == [30.0] * 5  # the median of 1 2 30 40 50
    assert GUESSERS["constant_median"].says(TRAINING, "kcal") == "30 kcal"
    assert GUESSERS["constant_median"].says(TRAINING, "") == "30 target units"
    majority = GUESSERS["majority_class"].guess(clips, TRAINING)
    assert majority.texts("predicted").tolist() == ["a"] * 5  # a and b are as frequent; a clip without a class is none
    assert GUESSERS["majority_class"].says(TRAINING, "") == "'a'"
    nobody = Training(labels=np.array(["", ""]), targets=np.array([NAN, 1.0]))
    assert GUESSERS["majority_class"].guess(clips, nobody).texts("predicted").tolist() == [""] * 5
    oracle = GUESSERS["class_mean_oracle"].guess(clips, TRAINING)
    np.testing.assert_array_equal(oracle.numbers("predicted_target"), [15, 15, 30, NAN, 60])
    assert GUESSERS["class_mean_oracle"].says(TRAINING, "kcal") == ""
    assert clips.numbers("predicted_target").tolist() == [12, 26, 29, 5, 50]  # untouched


def test_columns_are_read_as_they_were_written(tmp_path: Path) -> None:
    with (tmp_path / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows([*ROWS, ("c9", "unknown", "", "", "n", "a", "", "1", "2")])
    clips = read_clips(tmp_path, "test")
    assert clips.texts("clip_id").tolist() == ["c0", "c1", "c2", "c3", "c4"]
    assert read_clips(tmp_path, "unknown").groups.tolist() == ["c:c9"]  # it has no group but itself
    np.testing.assert_array_equal(clips.numbers("target"), [10, 20, 30, NAN, 60])
    assert len(clips.take(np.array([True, False, False, True, False]))) == 2
    assert clips.but(fold="7").texts("fold").tolist() == ["7"] * 5
    with pytest.raises(TrainingError, match="predictions have no column 'speed'; they have clip_id, correct"):
        clips.texts("speed")
    with pytest.raises(TrainingError, match="has no clip of split 'val'"):
        read_clips(tmp_path, "val")


# --- the number of a column


def _said(*repeats: Clips, metrics: Any = (), folds: Any = ()) -> Predicted:
    return Predicted(clips={"test": repeats}, metrics={"test": metrics}, folds=folds)


def test_number_of_a_row_is_the_mean_over_clips_and_then_over_repeats() -> None:
    column = _column()
    study = _study(column)
    worse = _clips([(*row[:-1], str(float(row[-1]) + 4)) for row in ROWS])  # errors 6 10 3 . 6
    one, two = measured(study, column, _said(_clips()), 0), measured(study, column, _said(_clips(), worse), 0)
    assert one is not None
    assert two is not None
    assert (one["value"], one["deviation"], one["num_groups"]) == (4.75, None, 3)
    assert two["value"] == pytest.approx((4.75 + 6.25) / 2)
    assert two["deviation"] == pytest.approx(math.sqrt(2 * 0.75**2))
    assert one["low"] < 4.75 < one["high"]
    np.testing.assert_array_equal(own_values(study, column, (_clips(), worse)), [4, 8, 2, NAN, 8])
    percent = _column(key="acc", metric="accuracy", scale=100)
    found = measured(_study(percent), percent, _said(_clips()), 0)
    assert found is not None
    assert (found["value"], found["num_groups"]) == (50.0, 2)  # the clip without a class is alone in g2
    assert found["high"] <= 100
    assert measured(study, column, _said(_clips([(*row[:-2], "", row[-1]) for row in ROWS])), 0) is None


def test_column_over_folds_counts_each_fold_the_same_and_of_one_group_its_clips_alone() -> None:
    over, group = _column(over="folds"), _column(group="g1")
    errors = np.array([2, 6, 1, NAN, 10])
    assert [part.tolist() for part in units_of(over, _clips(), errors)] == [[4.0, 5.5], ["0", "1"]]
    assert units_of(_column(), _clips(), errors)[1].tolist() == ["g:g0", "g:g0", "g:g1", "g:g1", "g:g2"]
    values, groups = units_of(group, _clips(), errors)
    np.testing.assert_array_equal(values, [1, NAN])
    assert groups.tolist() == ["g:g1", "g:g1"]
    found = measured(_study(over), over, _said(_clips()), 0)
    assert found is not None
    assert (found["value"], found["num_groups"]) == (4.75, 2)
    own = measured(_study(group), group, _said(_clips()), 0)
    assert own is not None
    assert (own["value"], own["low"], own["high"]) == (1.0, None, None)
    # fold 0 has one group and is called by it, fold 1 has two
    assert fold_values(_column(scale=10), _study(_column()), _said(_clips())) == {"g0": 40.0, "fold 1": 55.0}


def test_metrics_that_only_results_have_are_means_over_repeats_or_folds() -> None:
    column, over = _column(key="nll", metric="nll", scale=2), _column(key="nll", metric="nll", over="folds")
    study = _study(column)
    first, second = ({"nll": {"value": value, "low": value - 1, "high": value + 1}} for value in (3.0, 5.0))
    one = measured(study, column, _said(_clips(), metrics=(first,)), 0)
    assert one == {"value": 6.0, "low": 4.0, "high": 8.0, "deviation": None, "num_groups": 3}
    both = measured(study, column, _said(_clips(), _clips(), metrics=(first, second)), 0)
    deviation = pytest.approx(2 * math.sqrt(2))
    assert both == {"value": 8.0, "low": None, "high": None, "deviation": deviation, "num_groups": 3}
    undefined = {"nll": {"value": None, "low": None, "high": None}}
    assert measured(study, column, _said(_clips(), metrics=(undefined,)), 0) is None
    assert measured(study, column, _said(_clips(), metrics=({},)), 0) is None
    folds = ([{"nll": 1.0}, {"nll": 2.0}], [{"nll": 4.0}, {"nll": None}])
    found = measured(study, over, _said(_clips(), folds=folds), 0)
    assert found is not None
    assert found["num_groups"] == 0
    assert (found["value"], found["deviation"]) == (pytest.approx(2.75), pytest.approx(np.std([1.5, 4], ddof=1)))
    assert measured(study, over, _said(_clips(), folds=([],)), 0) is None
    whole = _column(key="most", metric="most")
    most = Measure(
        title="most", higher_is_better=False, whole=lambda clips: float(clips.numbers("predicted_target").max())
    )
    found = measured(_study(whole, measures={"most": most}), whole, _said(_clips()), 0)
    assert found == {"value": 50.0, "low": None, "high": None, "deviation": None, "num_groups": 3}


@pytest.mark.parametrize(
    ("paired", "ours", "theirs", "higher", "verdict", "apart"),
    [
        ((-3, -1), (1, 2), (3, 4), False, "beats", True),
        ((-3, -1), (1, 3.5), (3, 4), False, "beats", False),
        ((-3, 0), (1, 3), (3, 4), False, "unclear", False),
        ((0, 3), (4, 5), (1, 3), True, "unclear", True),
        ((1, 3), (4, 5), (1, 2), False, "worse", False),
        ((1, 3), (4, 5), (1, 4), True, "beats", False),
        ((-3, -1), (1, 2), (3, 4), True, "worse", False),
        ((None, None), (1, 2), (3, 4), False, "unclear", True),
        ((-3, -1), (None, None), (3, 4), False, "beats", False),
        ((-3, -1), (1, 2), (None, None), False, "beats", False),
    ],
)
def test_verdict_is_that_of_the_paired_interval(
    paired: Any, ours: Any, theirs: Any, higher: bool, verdict: str, apart: bool
) -> None:
    entries = [{"value": 9.0, "low": low, "high": high} for low, high in (paired, ours, theirs)]
    found = compared(*entries, higher_is_better=higher)
    assert found == {"difference": 9.0, "low": paired[0], "high": paired[1], "verdict": verdict, "apart": apart}


def test_row_is_beside_its_guesser_clip_by_clip() -> None:
    """The guess is always 30, the median: its errors are 20, 10, 0 and 10; the row has none but 1 in the last."""
    column = _column(beats="constant_median", scale=2)
    study = _study(column)
    targets = (("10", "10"), ("20", "20"), ("30", "30"), ("40", "41"))
    rows = [(f"c{i}", "test", "", f"g{i}", "a", "a", "1", *pair) for i, pair in enumerate(targets)]
    said = _said(_clips(rows))
    theirs = guessed(study, column, _clips(rows), TRAINING, 0)
    assert (theirs["value"], theirs["num_groups"]) == (20.0, 4)
    found = beside(study, column, said, TRAINING, 0)
    assert found["difference"] == 2 * (0.25 - 10)
    assert (found["low"] < -19.5 < found["high"] < 0, found["verdict"], found["apart"]) == (True, "beats", True)
    worse = [(*row[:-1], str(70 - i)) for i, row in enumerate(rows)]
    assert beside(study, column, _said(_clips(worse)), TRAINING, 0)["verdict"] == "worse"
    alone = [(*row[:3], "", *row[4:]) for row in rows]  # without groups: each clip is its own
    assert fold_values(column, study, _said(_clips(alone))) == {"fold ": 0.5}


# --- which row is preferred


def _run(
    folder: Path, folds: Sequence[tuple[int | None, Sequence[float | None], int, bool]], name: str = "val_mae"
) -> Path:
    """A run with folds of (fold, validation numbers of its epochs, best epoch, overfit)."""
    folder.mkdir(parents=True)
    entries, lines = [], []
    for fold, numbers, best, overfit in folds:
        entries.append({"fold": fold, "best_epoch": best, "epochs_run": len(numbers), "overfit": overfit})
        lines += [{"fold": fold, "epoch": epoch, name: value} for epoch, value in enumerate(numbers, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(run_line(**line)) + "\n" for line in lines))
    whole = entries[0]["fold"] is None
    results = {
        "folds": [] if whole else entries, "training": entries[0], "splits": {}, "warning": "", "target_name": "kcal",
        "target_unit": "kcal", "counts": {"clips": 5}, "notes": ["NOTE"],
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(run_results(**results)))
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows(ROWS)
    return folder


def _trained(*runs: Path, keep: str = "best", name: str = "r") -> TrainedRow:
    return TrainedRow(row=RecipeRow(name=name, cells={}, options={}), runs=runs, settings={"keep": keep})


def test_preference_is_the_validation_number_at_the_kept_epoch_averaged(tmp_path: Path) -> None:
    study = _study(_column())
    first = _run(tmp_path / "a", [(None, [5.0, 2.0, 8.0], 2, False)])
    second = _run(tmp_path / "b", [(None, [4.0, 3.0, 6.0], 2, True)])
    assert preference(study, _trained(first, second), on_reported_sets=False) == (0.0, 2.5)
    assert preference(study, _trained(first, second, keep="last"), on_reported_sets=False) == (0.0, 7.0)
    folds = _run(tmp_path / "c", [(0, [5.0, 2.0], 1, True), (1, [1.0, 4.0], 2, False), (2, [3.0], 1, False)])
    assert preference(study, _trained(folds), on_reported_sets=False) == (0.0, 4.0)
    careful = _study(_column(), selection=Selection(validation="val_mae", column="mae", avoids_overfit=True))
    assert preference(careful, _trained(folds), on_reported_sets=False) == (pytest.approx(1 / 3), 4.0)
    assert preference(careful, _trained(first, second), on_reported_sets=False) == (0.5, 2.5)
    lost = _run(tmp_path / "d", [(None, [None, 1.0], 1, True)])
    assert preference(study, _trained(first, lost), on_reported_sets=False) == (0.0, math.inf)
    assert preference(careful, _trained(first, lost), on_reported_sets=False) == (0.5, math.inf)
    assert preference(study, _trained(), on_reported_sets=False) == (math.inf, math.inf)


def test_preference_has_the_direction_of_what_selects(tmp_path: Path) -> None:
    column = _column(key="acc", metric="accuracy", scale=100)
    study = _study(column, selection=Selection(validation="val_accuracy", column="acc", avoids_overfit=True))
    one = _trained(_run(tmp_path / "a", [(None, [0.25, 0.75], 2, True)], "val_accuracy"))
    assert preference(study, one, on_reported_sets=False) == (1.0, -0.75)
    assert preference(study, one, on_reported_sets=True) == (1.0, -50.0)  # of the reported clips themselves
    plain = _study(_column())
    assert preference(plain, one, on_reported_sets=True) == (0.0, 4.75)
    loss = _study(_column(), selection=Selection(validation="val_loss", column="mae"))
    assert preference(
        loss, _trained(_run(tmp_path / "b", [(None, [0.5], 1, False)], "val_loss")), on_reported_sets=False
    ) == (0.0, 0.5)


@pytest.mark.parametrize("on_reported_sets", [False, True])
def test_each_step_of_a_recipe_starts_from_the_value_kept_so_far(
    on_reported_sets: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(share of overfit runs, value) of lr, then of batch: the lower pair wins, the first of equals."""
    keys = {0.1: (1.0, 0.0), 0.2: (0.0, 3.0), 0.3: (0.0, 2.0), 0.4: (0.0, 2.0), 4: (0.0, 9.0), 8: (0.0, 8.0)}
    recipe = Recipe(
        name="s/steps", study=_study(_column()), title="", text="", features="", options={"lr": 0.7, "batch": 16},
        steps=(Step(field="lr", values=(0.1, 0.2, 0.3, 0.4)), Step(field="batch", values=(4, 8))),
    )  # fmt: skip
    tried: list[tuple[float, int]] = []

    def train(state: Any, rows: Sequence[RecipeRow], folder: Path) -> list[TrainedRow]:
        tried.extend((row.options["lr"], row.options["batch"]) for row in rows)
        return [TrainedRow(row=row, runs=(tmp_path,), settings={}) for row in rows]

    def prefer(study: Study, one: TrainedRow, *, on_reported_sets: bool) -> tuple[float, float]:
        heard.add(on_reported_sets)
        return keys[one.row.options["lr" if len(tried) == 4 else "batch"]]

    heard: set[bool] = set()
    monkeypatch.setattr(recipe_run._RecipeRun, "_train", train)
    monkeypatch.setattr(recipe_run, "preference", prefer)
    select_on = "reported-set" if on_reported_sets else "validation"
    asked = RecipeConfig.of(store=(tmp_path,), recipe="calories/table-3.3", select_on=select_on)
    given = recipe_run.GivenStores(asked, recipe)
    state = recipe_run._RecipeRun(config=asked, recipe=recipe, given=given, directory=tmp_path, progress=None)
    found = state.stepwise(tmp_path)
    assert tried == [(0.1, 16), (0.2, 16), (0.3, 16), (0.4, 16), (0.3, 4), (0.3, 8)]
    assert [(one.step, one.chosen) for one in found] == [
        *((0, False), (0, False), (0, True), (0, False)),
        *((1, False), (1, True)),
    ]
    assert heard == {on_reported_sets}
    keys.update(dict.fromkeys(keys, (0.0, math.inf)))
    tried.clear()
    with pytest.raises(TrainingError, match="no value of lr could be trained: all overfit"):
        state.stepwise(tmp_path)


def _header(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """What is decided before the rows are written down."""
    headers: list[Mapping[str, Any]] = []
    monkeypatch.setattr(judging, "training_of", lambda prepared: TRAINING)
    monkeypatch.setattr(judging, "_content", lambda *given: headers.append(given[-1]))
    return headers


@pytest.mark.parametrize("proposed", ["", "b"])
def test_best_row_is_the_proposed_one_or_the_preferred(
    proposed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = _header(monkeypatch)
    rows = [RecipeRow(name=name, cells={}, reference=name != "b") for name in "abc"]
    recipe = Recipe(
        name="s/r", study=_study(_column()), title="", text="", features="", rows=tuple(rows), proposed=proposed
    )
    numbers = {"a": 3.0, "b": 2.0, "c": 1.0}
    trained = [
        TrainedRow(
            row=row,
            runs=(_run(tmp_path / row.name, [(None, [numbers[row.name]], 1, False)]),),
            settings={"keep": "best"},
        )
        for row in rows
    ]
    asked = asked_of(RecipeConfig.of(store=(tmp_path,), recipe="calories/table-3.3"))
    judging.summarize(asked, recipe, trained, None)  # type: ignore[arg-type]
    (header,) = headers
    assert (header["best"], header["best_is"]) == (("b", "proposed row") if proposed else ("c", "best row"))
    assert header["proposed"] == proposed
    assert header["references"] == ({"a": "best", "c": "best"} if proposed else {})
    assert (header["target"], header["counts"], header["notes"]) == (
        *({"name": "kcal", "unit": "kcal"}, {"clips": 5}, ["NOTE"]),
    )
    lost = [TrainedRow(row=row, runs=(), error=f"{row.name} burnt") for row in rows]
    with pytest.raises(TrainingError, match="no row of s/r could be trained; the first: a burnt"):
        judging.summarize(asked, recipe, lost, None)  # type: ignore[arg-type]
    judging.summarize(asked, recipe, [lost[0], trained[1], lost[2]], None)  # type: ignore[arg-type]
    assert headers[-1]["best"] == "b"


def _reader(asked: Any, recipe: Recipe, prepared: Any, progress: Any) -> tuple[dict[str, Predicted], dict[str, Any]]:
    """Two rows that read: errors 1 and 3, accuracies 1 and 0."""
    assert (asked.seed, recipe.name, prepared, progress) == (0, "s/read", None, None)
    said = {}
    for name, error, label in (("near", "1", "a"), ("far", "3", "b")):
        rows = [(f"c{i}", "test", "", f"g{i}", "a", label, "1", "0", error) for i in range(3)]
        said[name] = _said(_clips(rows))
    return said, {"notes": ["READ"]}


@pytest.mark.parametrize(
    ("column", "best", "is_called"),
    [
        (_column(beats="constant_median"), "near", "row with the lowest mean absolute error on the test set"),
        (_column(metric="accuracy", beats="majority_class"), "near", "row with the highest accuracy on the test set"),
    ],
)
def test_best_of_rows_that_are_read_has_the_best_number(
    column: Column, best: str, is_called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = _header(monkeypatch)
    recipe = Recipe(
        name="s/read", study=_study(column), title="", text="", features="", reader=f"{__name__}:_reader",
        rows=tuple(RecipeRow(name=name, cells={}) for name in ("far", "near")),
    )  # fmt: skip
    asked = asked_of(RecipeConfig.of(store=(tmp_path,), recipe="calories/table-3.3"))
    judging.read_rows(asked, recipe, None)  # type: ignore[arg-type]
    assert (headers[0]["best"], headers[0]["best_is"], headers[0]["notes"]) == (best, is_called, ["READ"])


def test_a_row_is_compared_with_another_on_the_clips_of_both() -> None:
    """Whatever their order, and with repeats of which the mean counts."""

    def of(*repeats: Mapping[str, float]) -> Predicted:
        rows = [
            [(name, "test", "", f"g{name}", "a", "a", "1", "0", str(error)) for name, error in errors.items()]
            for errors in repeats
        ]
        return _said(*map(_clips, rows))

    column = _column(beats="constant_median", scale=10)
    ours = of({"c": 1, "a": 2, "b": 3, "d": 9}, {"c": 3, "a": 2, "b": 3, "d": 9})
    theirs = of({"e": 50, "a": 3, "b": 5, "c": 4})
    found = against(_study(column), column, ours, theirs, 0)
    assert (found["difference"], found["num_clips"], found["num_groups"]) == (pytest.approx(-10 * 5 / 3), 3, 3)
    assert -20 <= found["low"] < found["difference"] < found["high"] <= -10
    assert found["verdict"] == "beats"
    assert against(_study(column), column, theirs, ours, 0)["verdict"] == "worse"
    assert against(_study(column), column, ours, ours, 0)["verdict"] == "unclear"
    assert found["exact"] is None


def test_hits_are_compared_by_the_exact_test_repeat_by_repeat() -> None:
    """Also where the rows have other clips, in another order; a clip without a label counts for neither."""

    def of(*repeats: str) -> Predicted:
        """One letter a clip: right (r), wrong (w), none (-)."""
        return _said(
            *(
                _clips(
                    [
                        (f"c{i}", "test", "", f"g{i}", "a" if one != "-" else "", "a" if one == "r" else "b", *end)
                        for i, one in reversed([*enumerate(letters)])
                        for end in [("1" if one == "r" else "" if one == "-" else "0", "", "")]
                    ]
                )
                for letters in repeats
            )
        )

    column = _column(metric="accuracy", beats="majority_class", scale=100)
    found = against(_study(column), column, of("rrrrw-r", "wwwwwwr"), of("wwwrr-", "rrrwww"), 0)
    assert found["num_clips"] == 5
    assert [(one["only_this"], one["only_other"]) for one in found["exact"]["repeats"]] == [(3, 1), (0, 3)]
    assert (found["exact"]["only_this"], found["exact"]["p"]) == (3, 0.625)


def test_proposed_row_is_beside_the_strongest_of_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the references: 2 at the last epoch of a, 1.5 at its chosen one, 3 and no other epoch of b."""

    def of(errors: Sequence[float]) -> Predicted:
        rows = [(f"c{i}", "test", "", f"g{i}", "a", "a", "1", "0", str(error)) for i, error in enumerate(errors)]
        return _said(_clips(rows))

    column = _column(beats="constant_median", scale=10)
    study = _study(column)
    found = judging._Found(
        said={"ours": of([1, 1, 1, 0]), "a": of([2, 2, 2, 2]), "b": of([3, 3, 3, 3])},
        later={"a": of([1, 2, 1, 2])},
        training=TRAINING,
    )

    def against(references: Mapping[str, str]) -> dict[str, Any]:
        entry = judging._against_references(study, found, "ours", references, 0)
        assert entry is not None
        return entry

    best = against({"a": "last", "b": "last"})
    assert (best["name"], best["epoch"], best["value"], best["difference"]) == ("a", "chosen", 15.0, -7.5)
    assert (best["key"], best["num_groups"]) == ("mae", 4)
    assert best["verdict"] == ("beats" if best["difference_high"] < 0 else "unclear")
    other = against({"b": "best"})
    assert (other["name"], other["epoch"], other["value"], other["verdict"], other["apart"]) == (
        *("b", "chosen", 30.0, "beats", True),
    )
    assert against({"b": "last"})["epoch"] == "last"
    assert judging._against_references(study, found, "ours", {}, 0) is None
    unjudged = _study(_column())
    assert judging._against_references(unjudged, found, "ours", {"a": "last"}, 0) is None
    share = _column(key="share", metric="share", beats="half")
    higher = _study(
        share,
        measures={"share": Measure(title="s", higher_is_better=True, per_clip=_negative)},
        guessers={"half": Guesser(title="h", guess=lambda clips, training: clips)},
    )
    entry = judging._against_references(higher, found, "ours", {"a": "last", "b": "last"}, 0)
    assert entry is not None
    assert (entry["name"], entry["epoch"], entry["value"]) == ("a", "chosen", -1.5)


def _negative(clips: Clips) -> np.ndarray:
    found: np.ndarray = -clips.numbers("predicted_target")
    return found


def test_classes_are_judged_one_by_one_beside_their_guessers() -> None:
    column = _column(beats="constant_median", scale=2)
    study = _study(column, by_class={"constant_median": "constant", "class_mean_oracle": "class mean"})
    found = judging._classes(study, _said(_clips()), TRAINING)
    assert found == [
        {"label": "", "part": "test", "clips": 1, "ours": 20.0,
         "guesses": {"constant_median": 60.0, "class_mean_oracle": 0.0}},
        {"label": "a", "part": "test", "clips": 2, "ours": 8.0,
         "guesses": {"constant_median": 30.0, "class_mean_oracle": 10.0}},
        {"label": "b", "part": "test", "clips": 1, "ours": 2.0,
         "guesses": {"constant_median": 0.0, "class_mean_oracle": 0.0}},
    ]  # fmt: skip
    assert judging._classes(_study(column), _said(_clips()), TRAINING) == []


def test_another_epoch_is_judged_where_the_last_is_kept_and_was_not_the_chosen_one(tmp_path: Path) -> None:
    same = _run(tmp_path / "a", [(None, [2.0, 1.0], 2, False)])
    other = _run(tmp_path / "b", [(0, [2.0, 1.0], 2, False), (1, [1.0, 2.0], 1, False)])
    has: Callable[[TrainedRow], bool] = judging._has_other_epoch
    assert [has(_trained(same, keep="last")), has(_trained(same, other, keep="last"))] == [False, True]
    assert not has(_trained(same, other, keep="best"))
