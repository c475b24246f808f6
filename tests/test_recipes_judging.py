"""Numbers of rows and what is said of them: last epoch and chosen epoch, intervals and their groups, verdicts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_stores import calorie_store, run_calories, shorten

from reelbank.heads.judging.paired import Disagreement, over_repeats
from reelbank.heads.recipes import recipe, report, sentences
from reelbank.heads.recipes.measures import GUESSERS, MEASURES, Clips, Training
from reelbank.heads.recipes.numbers import compared
from reelbank.heads.recipes.tables import markdown_table, table_of
from reelbank.heads.reports.wording import DASH


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Table 3.3 with rates so high that validation prefers an early epoch."""
    folder = tmp_path_factory.mktemp("judged")
    store = calorie_store(folder / "toy.zarr", views=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reelbank.heads.recipes.quick.QUICK_SHARE", 0.04)
        return run_calories(store, folder / "run", "table-3.3")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _mae(rows: list[dict[str, str]], split: str) -> float:
    own = [row for row in rows if row["split"] == split]
    return float(np.mean([abs(float(row["target"]) - float(row["predicted_target"])) for row in own]))


def test_a_published_row_is_judged_at_its_last_epoch_and_beside_it_at_the_chosen_one(finished: Any) -> None:
    differing = 0
    for row in finished.results["rows"]:
        folder = finished.directory / row["runs"][0]
        results = json.loads((folder / "results.json").read_text())
        assert row["epochs"] == [results["training"]["epochs_run"]] == [8]
        assert row["best_epochs"] == [results["training"]["best_epoch"]]
        last, best = _rows(folder / "predictions.csv"), _rows(folder / "predictions-best-epoch.csv")
        assert row["ours"]["mae_known"]["value"] == pytest.approx(_mae(last, "test"))
        if row["epochs"] == row["best_epochs"]:
            assert row["at_chosen_epoch"] == {}
            assert last == best
            continue
        differing += last != best
        found = row["at_chosen_epoch"]
        assert found["mae_unknown"]["value"] == pytest.approx(_mae(best, "unknown"))
        stored = results["at_best_epoch"]["splits"]["test"]["metrics"]["nll"]["value"]
        assert found["nll_known"]["value"] == pytest.approx(stored)
        assert found["nll_known"]["value"] != row["ours"]["nll_known"]["value"]
    assert differing


def test_the_epochs_stand_in_a_column(finished: Any) -> None:
    data = finished.results
    head, lines = table_of(data)
    place = head.index("epoch")
    kinds = [line[head.index("")] for line in lines]
    assert kinds.count("ours") == len(data["rows"])
    assert kinds.count("at chosen epoch") == sum(bool(row["at_chosen_epoch"]) for row in data["rows"]) > 0
    for row, line in zip(data["rows"], [line for line in lines if line[1] == "ours"], strict=True):
        assert line[place] == str(row["epochs"][0])
    chosen = [str(row["best_epochs"][0]) for row in data["rows"] if row["at_chosen_epoch"]]
    assert [line[place] for line in lines if line[1] == "at chosen epoch"] == chosen
    assert "at chosen epoch: the same training with the weights of the epoch" in markdown_table(data)
    assert data["selection"].startswith("Every row is judged at its own last epoch;")


def test_the_best_row_is_the_one_that_validation_prefers_at_its_last_epoch(finished: Any) -> None:
    found = {}
    for row in finished.results["rows"]:
        folder = finished.directory / row["runs"][0]
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found[row["name"]] = (float(row["overfit"]), lines[-1]["val_mae"])
    assert finished.results["best"] == min(found, key=lambda name: found[name])


def test_every_interval_says_how_many_groups_it_draws(finished: Any) -> None:
    data = finished.results
    assert {row["ours"][key]["num_groups"] for row in data["rows"] for key in ("mae_known", "mae_unknown")} == {4}
    head, _ = table_of(data)
    assert "MAE known (4 groups)" in head
    about = [text for text in data["sentences"] if "constant predictor (" in text]
    assert about
    assert all("; 4 groups]" in text for text in about)
    warning = "FEW GROUPS: 4 groups on known activities and 4 groups on unknown activities"
    page = (finished.directory / "report.html").read_text()
    for text in (page, finished.text(), markdown_table(data)):
        assert warning in text


def test_the_page_says_what_was_run(finished: Any) -> None:
    page = (finished.directory / "report.html").read_text()
    for fact in (
        *("parameters", "optimiser", "learning rate", "batch", "normalisation", "zscore", "weights kept", "last"),
        *("adam, betas (0.9, 0.999), eps 1e-8", "rmsprop, alpha 0.99", "conv-aggregation", "1e-4", "each once"),
        *("sampling all: 4 steps of 6 numbers; published: 160 steps of 1536",),
    ):
        assert fact in page, fact
    assert any("not the published shape of 160 steps of 1536" in note for note in finished.results["notes"])


def test_enough_groups_are_no_warning(finished: Any) -> None:
    data = json.loads(json.dumps(finished.results))
    for entry in data["judged"].values():
        entry["num_groups"] = sentences.FEW_GROUPS
    assert sentences.few_groups(data) == []
    data["judged"]["mae_known"]["num_groups"] = 1
    assert "FEW GROUPS: 1 group on known activities." in sentences.few_groups(data)[0]


@pytest.mark.parametrize(
    ("ours", "constant", "said"),
    [
        ((1.0, 2.0), (3.0, 4.0), "do not overlap"),
        ((5.0, 6.0), (3.0, 4.0), "do not overlap"),
        ((1.0, 3.5), (3.0, 4.0), "intervals overlap"),
        ((None, None), (3.0, 4.0), ""),
    ],
)
def test_intervals_on_either_side_do_not_overlap(
    ours: tuple[float, float], constant: tuple[float, float], said: str
) -> None:
    text = sentences.overlap(*({"low": low, "high": high} for low, high in (ours, constant)))
    assert text.endswith(said)
    assert bool(text) == bool(said)


def _interval(low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": 0.0, "low": low, "high": high}


@pytest.mark.parametrize(
    ("paired", "ours", "theirs", "higher", "verdict", "apart"),
    [
        ((-3, -1), (1, 2), (3, 4), False, "beats", True),
        ((-3, -1), (1, 3.5), (3, 4), False, "beats", False),
        ((1, 3), (5, 6), (3, 4), False, "worse", False),
        ((-1, 1), (1, 2), (1, 2), False, "unclear", False),
        ((1, 3), (5, 6), (3, 4), True, "beats", True),
        ((1, 3), (3.5, 6), (3, 4), True, "beats", False),
        ((-3, -1), (1, 2), (3, 4), True, "worse", False),
        ((-1, 1), (5, 6), (3, 4), True, "unclear", True),
        ((None, None), (None, None), (None, None), True, "unclear", False),
        ((None, None), (None, None), (None, None), False, "unclear", False),
    ],
)
def test_a_verdict_knows_which_way_is_better(
    paired: Any, ours: Any, theirs: Any, higher: bool, verdict: str, apart: bool
) -> None:
    found = compared(_interval(*paired), _interval(*ours), _interval(*theirs), higher_is_better=higher)
    assert (found["verdict"], found["apart"]) == (verdict, apart)


COLUMNS = ("clip_id", "group", "label", "predicted", "correct", "target", "predicted_target")
LINES = (("a", "g", "x", "x", "1", "1", "3"), ("b", "", "y", "x", "0", "", "4"), ("c", "g", "y", "y", "", "5", "4"))
CLIPS = Clips.of([dict(zip(COLUMNS, line, strict=True)) for line in LINES], COLUMNS)
TRAINING = Training(labels=np.array(["y", "", "x", "y", "x"]), targets=np.array([1.0, 2.0, np.nan, 9.0, 4.0]))


def _values(name: str, clips: Clips) -> list[float]:
    per_clip = MEASURES[name].per_clip
    assert per_clip is not None
    return per_clip(clips).tolist()


def test_measures_leave_out_clips_that_cannot_be_judged() -> None:
    assert _values("accuracy", CLIPS) == pytest.approx([1, 0, np.nan], nan_ok=True)
    assert _values("mae", CLIPS) == pytest.approx([2, np.nan, 1], nan_ok=True)
    assert CLIPS.groups.tolist() == ["g:g", "c:b", "g:g"]


def test_guessers_say_what_they_know_of_training() -> None:
    constant, commonest = GUESSERS["constant_median"], GUESSERS["majority_class"]
    assert constant.guess(CLIPS, TRAINING).numbers("predicted_target").tolist() == [3, 3, 3]
    assert constant.says(TRAINING, "kcal/h") == "3 kcal/h"
    assert constant.says(TRAINING, "") == "3 target units"
    assert commonest.guess(CLIPS, TRAINING).texts("predicted").tolist() == ["x"] * 3  # the first of equals
    assert commonest.says(TRAINING, "") == "'x'"
    oracle = GUESSERS["class_mean_oracle"].guess(CLIPS, TRAINING)
    assert oracle.numbers("predicted_target").tolist() == [1, 5, 5]


def test_a_column_that_predictions_lack_is_named() -> None:
    with pytest.raises(ValueError, match="no column 'target_cdf'; they have clip_id, correct"):
        CLIPS.numbers("target_cdf")


def test_guessers_score_what_a_run_says_of_its_baselines(finished: Any) -> None:
    data = finished.results
    stored = json.loads((finished.directory / data["rows"][0]["runs"][0] / "results.json").read_text())
    for part, split in (("known", "test"), ("unknown", "unknown")):
        expected = stored["splits"][split]["baselines"]["constant_median"]["mae"]
        assert data["judged"][f"mae_{part}"]["value"] == pytest.approx(expected)
        oracle = [(e["clips"], e["guesses"]["class_mean_oracle"]) for e in data["classes"] if e["part"] == part]
        mean = sum(count * value for count, value in oracle) / sum(count for count, _ in oracle)
        assert mean == pytest.approx(stored["splits"][split]["baselines"]["class_mean_oracle"]["mae"])


@pytest.fixture
def paired(finished: Any) -> dict[str, Any]:
    """The table with its second row against its first: two repeats, of which the one that says less is shown."""
    data: dict[str, Any] = json.loads(json.dumps(finished.results))
    first, second = data["rows"][:2]
    found = {"difference": 9.0, "low": -2.5, "high": 20.5, "verdict": "unclear", "num_clips": 360, "num_groups": 7}
    exact = over_repeats([Disagreement(only_this=40, only_other=31), Disagreement(only_this=60, only_other=31)])
    columns = {column["key"]: {**found, "exact": None} for column in sentences.judged_columns(data)}
    columns["mae_known"]["exact"] = exact
    second["against"] = {"name": first["name"], "columns": columns}
    return data


def test_counts_and_p_of_the_exact_test_stand_beside_the_interval(paired: dict[str, Any]) -> None:
    said = [text for text in sentences.sentences(paired) if "clip by clip" in text]
    assert len(said) == 2
    assert said[0].endswith("only this row right on 40, only the other on 31, exact test p = 0.34.")
    assert "(-2.5 to +20.5; 360 clips of 7 groups, no clear difference)" in said[0]
    assert "exact" not in said[1]
    page = report._comparisons(paired)
    assert page.index("only this row right") < page.index(">40<") < page.index(">31<") < page.index(">0.34<")
    notes = sentences.notes(paired, recipe("calories/table-3.3"), ())
    (note,) = [note for note in notes if note.startswith("Exact test")]
    assert "independent" in note
    assert "Each repeat is tested" in note
    for columns in (row["against"]["columns"] for row in paired["rows"] if row["against"]):
        for one in columns.values():
            one.pop("exact")  # of a version without the test
    assert not any(
        "exact" in text
        for text in (*sentences.sentences(paired), *sentences.notes(paired, recipe("calories/table-3.3"), ()))
    )
    assert "Row against row" in report._comparisons(paired)


def test_a_difference_without_an_interval_is_said_with_its_clips(paired: dict[str, Any]) -> None:
    """Of one group there is none to draw."""
    columns = paired["rows"][1]["against"]["columns"]
    columns["mae_known"] |= {"low": None, "high": None, "num_groups": 1}
    columns["mae_unknown"] |= {"difference": None, "low": None, "high": None}
    first, second = (text for text in sentences.sentences(paired) if "clip by clip" in text)
    assert "+9.0 kcal/h (no interval: 360 clips of 1 group); only this row right on 40" in first
    assert second.endswith(f" {DASH}.")
