"""What is said of predictions: a table of 80 columns, a summary beside who never looks, JSON and CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelbank.heads.runs.predictions import PredictResult


def result(**more: Any) -> PredictResult:
    options: dict[str, Any] = {
        "clip_ids": np.array(["c0", "c1", "c2", "c3", "c4"]),
        "splits": np.array(["test", "test", "val", "unknown", "test"]),
        "labels": np.array(["a", "b", "a", "new", ""]),
        "predicted": np.array(["a", "a", "b", "a", "a"]),
        "probability": np.array([0.5, 0.75, 1.0, 0.75, 0.625]),
        "probabilities": {"label": np.array([[0.5, 0.5], [0.75, 0.25], [0.0, 1.0], [0.75, 0.25], [0.625, 0.375]])},
        "class_names": ("a", "b"),
        "target_name": "kcal",
        "target_unit": "kcal/h",
        "predicted_target": np.array([1.0, 2.5, 3.0, 4.0, 1234567.0]),
        "target_bounds": np.array([[0.5, 1.5], [2, 3], [3, 3], [1, 10], [1e6, 2e6]]),
        "targets": np.array([2.0, 2.5, np.nan, 4.0, np.nan]),
        "durations_seconds": np.array([1.0, 2.0, np.nan, 60.0, 754.4]),
        "trained_folds": np.zeros(5, dtype=bool),
        "left_out": (),
        "warning": "",
        "notes": (),
    }
    return PredictResult(**{**options, **more})


def test_summary_of_a_store_counts_classes_and_stands_beside_who_never_looks() -> None:
    lines = result(notes=("NOTE.",)).text().split("\n")
    assert lines == [
        "5 clips predicted: a 4, b 1.",
        "split    labelled  accuracy  one class  with target  MAE kcal/h  one value",
        "test            2     0.500      0.500            2       0.500      0.250",
        "unknown                                           1       0.000      0.000",
        "val             1     0.000      1.000",
        "one class, one value: what who looks at no video gets, who knows the most",
        "  frequent class and the median of these very clips.",
        "NOTE.",
    ]
    assert result(warning="W").text().startswith("W\n5 clips")
    data = result(warning="W", left_out=(("failed", 2),), notes=("NOTE.",)).to_json()
    assert data == {
        "num_clips": 5,
        "classes": ["a", "b"],
        "class_counts": {"a": 4, "b": 1},
        "target_name": "kcal",
        "target_unit": "kcal/h",
        "interval_levels": [0.05, 0.95],
        "accuracy_by_split": {"test": 0.5, "val": 0.0},
        "judged_by_split": {
            "test": {
                "num_labelled": 2,
                "accuracy": 0.5,
                "accuracy_most_frequent": 0.5,
                "num_targets": 2,
                "mae": 0.5,
                "mae_median": 0.25,
            },
            "unknown": {"num_targets": 1, "mae": 0.0, "mae_median": 0.0},
            "val": {"num_labelled": 1, "accuracy": 0.0, "accuracy_most_frequent": 1.0},
        },
        "left_out": [{"reason": "failed", "count": 2}],
        "warning": "W",
        "notes": ["NOTE."],
    }


def test_nothing_is_judged_where_nothing_is_known() -> None:
    unknown = result(labels=np.full(5, ""), targets=None)
    assert unknown.text() == "5 clips predicted: a 4, b 1."
    assert (unknown.judged_by_split(), unknown.accuracy_by_split()) == ({}, {})
    trained = result(trained_folds=np.ones(5, dtype=bool))
    assert trained.judged_by_split() == {}


ASKED = {"is_per_clip": True, "failures": {"broken": "no video stream"}, "notes": ("1 clips are left out: failed: x.",)}


def test_each_clip_that_was_asked_for_is_a_row() -> None:
    assert result(**ASKED, labels=np.full(5, ""), targets=None).text().split("\n") == [
        "clip  class     p  or     p     kcal/h       5% to 95%",
        "c0    a      0.50  b   0.50          1      0.5 to 1.5",
        "c1    a      0.75  b   0.25        2.5          2 to 3",
        "c2    b      1.00  a   0.00          3          3 to 3",
        "c3    a      0.75  b   0.25          4         1 to 10",
        "c4    a      0.62  b   0.38  1.235e+06  1e+06 to 2e+06",
        "broken: failed, no video stream",
        "Each clip is given one of the 2 classes (a, b), whatever it shows.",
        "5% to 95% of the distribution that the head predicts: what it believes, not a",
        "  test.",
        "1 clips are long (the first, c4, 754 s), and what is said is of the whole. For",
        "  parts, give a table of clips (a CSV of video, start_seconds, end_seconds) in",
        "  place of the videos.",
    ]
    rows = result(**ASKED).to_json()["clips"]
    assert rows[1] == {
        "clip_id": "c1",
        "predicted": "a",
        "probability": 0.75,
        "runner_up": "b",
        "runner_up_probability": 0.25,
        "predicted_kcal": 2.5,
        "interval": [2.0, 3.0],
    }
    assert rows[-1] == {"clip_id": "broken", "failed": "no video stream"}


@pytest.mark.parametrize(
    ("more", "first"),
    [
        ({"predicted": None, "probability": None, "class_names": None}, "clip     kcal/h       5% to 95%"),
        ({"predicted_target": None, "target_bounds": None}, "clip  class     p  or     p"),
        ({"target_name": "weight", "target_unit": ""}, "clip  class     p  or     p     weight       5% to 95%"),
        ({"target_name": "mass", "target_unit": "g"}, "clip  class     p  or     p   mass (g)       5% to 95%"),
        ({"separator": "|", "probability": None, "predicted_target": None}, "clip  labels"),
    ],
)
def test_table_has_the_outputs_of_the_head(more: dict[str, Any], first: str) -> None:
    assert result(**{**ASKED, **more}).text().split("\n")[0] == first


def test_labels_of_a_clip_that_may_have_several_stand_with_their_probabilities() -> None:
    probabilities = {"label": np.array([[0.9, 0.6], [0.1, 0.2], [0.4, 0.5], [0.9, 0.1], [0.3, 0.3]])}
    predicted = np.array(["a|b", "", "b", "a", ""])
    several = result(
        **ASKED, separator="|", probability=None, predicted=predicted, probabilities=probabilities,
        predicted_target=None, target_bounds=None,
    )  # fmt: skip
    assert [line.split(maxsplit=1)[1] for line in several.text().split("\n")[1:6]] == [
        *("a 0.90, b 0.60", "none", "b 0.50", "a 0.90", "none"),
    ]
    assert several.class_counts() == {"a": 2, "b": 2}
    assert several.rows()[1]["probabilities"] == {"a": 0.1, "b": 0.2}


def test_long_names_fit_80_columns_and_keep_what_tells_them_apart() -> None:
    clips = np.array([f"a very long folder of somebody/and one below it/recording number {i}" for i in range(5)])
    names = ("standing up and sitting down again", "walking up and down the whole staircase")
    lines = result(**ASKED, clip_ids=clips, class_names=names, predicted=np.array(names)[[0, 0, 1, 0, 0]]).text()
    table = lines.split("\n")[:6]
    assert max(map(len, lines.split("\n"))) <= 80
    assert [line.split("  ")[0][:3] for line in table[1:]] == ["..."] * 5
    assert [line.split("  ")[0][-1] for line in table[1:]] == list("01234")
    assert "standing" in table[1]


def test_csv_has_a_row_for_each_clip_and_the_reason_of_those_that_failed(tmp_path: Path) -> None:
    result(**ASKED).write_csv(tmp_path / "a.csv")
    rows = list(csv.reader((tmp_path / "a.csv").read_text().splitlines()))
    assert rows[0] == [
        *("clip_id", "split", "label", "predicted", "probability", "runner_up", "runner_up_probability"),
        *("predicted_kcal", "predicted_kcal_low", "predicted_kcal_high", "failed"),
    ]
    assert rows[1] == ["c0", "test", "a", "a", "0.500000", "b", "0.500000", "1", "0.5", "1.5", ""]
    assert rows[6] == ["broken", *[""] * 9, "no video stream"]
