"""The sentences that a reader believes: each says what the interval says, on either side and in either direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import BINS, clips, predictions, prepared, sure_of

from reelbank.heads.judging.evaluation import (
    class_scores,
    number,
    split_results,
    summary_text,
    unseen_label_notes,
    verdict,
)
from reelbank.heads.judging.intervals import interval_notes
from reelbank.heads.judging.metrics import METRICS
from reelbank.heads.reports.wording import TITLES, few_groups, warnings_first, with_interval, with_unit
from reelbank.heads.sweeps.report import HIGHER_IS_BETTER


def _entry(value: float, low: float | None, high: float | None, guess: float, *, metric: str = "accuracy") -> Any:
    """The entry of a split in results.json with one metric and its baseline."""
    baseline = "majority_class" if metric == "accuracy" else "constant_median"
    measured = {
        "value": value,
        "low": low,
        "high": high,
        "interval": "bootstrap" if low is not None and high is not None else "fewer than 2 groups",
        "drawn": 12,
        "higher_is_better": metric == "accuracy",
        "unit": "fraction" if metric == "accuracy" else "kcal/h",
    }
    return {"num_groups": 12, "metrics": {metric: measured}, "baselines": {baseline: {metric: guess}}}


def test_split_that_cannot_be_judged_is_said() -> None:
    entry = {"num_clips": 3, "num_groups": 2, "metrics": {}, "baselines": {}}
    one = prepared(clips(["a"]), classes=("a", "b"))
    assert verdict(one, {"test": entry}, "test") == "test is not judged: none of its 3 clips has a label."


def _said(entry: Any, reported: str = "test", **options: Any) -> str:
    return verdict(prepared(clips(["a"]), **options), {reported: entry}, reported)


BEATS, WORSE, UNCLEAR = "beats the", "is worse than the", "does not clearly beat the"
TAIL = {BEATS: ".", WORSE: ".", UNCLEAR: ": the interval contains it."}


@pytest.mark.parametrize(
    ("low", "high", "guess", "said"),
    [
        (0.401, 0.6, 0.4, BEATS),
        (0.4, 0.6, 0.4, UNCLEAR),  # an interval that ends at the guess contains it
        (0.399, 0.6, 0.4, UNCLEAR),
        (0.3, 0.6, 0.599, UNCLEAR),
        (0.3, 0.6, 0.6, UNCLEAR),
        (0.3, 0.6, 0.601, WORSE),
        (0.5, 0.5, 0.5, UNCLEAR),
    ],
)
def test_accuracy_verdict_follows_the_interval(low: float, high: float, guess: float, said: str) -> None:
    expected = (
        f"test accuracy 0.500 (95 % interval {low:.3f} to {high:.3f}, 12 groups) {said} majority class baseline "
        f"{guess:.3f}{TAIL[said]}"
    )
    assert _said(_entry(0.5, low, high, guess)) == expected


@pytest.mark.parametrize(
    ("low", "high", "guess", "said"),
    [
        (40.0, 59.9, 60.0, BEATS),
        (40.0, 60.0, 60.0, UNCLEAR),
        (40.0, 60.1, 60.0, UNCLEAR),
        (40.1, 60.0, 40.0, WORSE),
        (40.0, 60.0, 40.0, UNCLEAR),
        (39.9, 60.0, 40.0, UNCLEAR),
    ],
)
def test_error_verdict_is_that_of_accuracy_upside_down(low: float, high: float, guess: float, said: str) -> None:
    expected = (
        f"test mean absolute error 50.0 kcal/h (95 % interval {low:.1f} to {high:.1f}, 12 groups) {said} "
        f"constant median baseline {guess:.1f} kcal/h{TAIL[said]}"
    )
    assert _said(_entry(50.0, low, high, guess, metric="mae")) == expected


@pytest.mark.parametrize(("metric", "value"), [("accuracy", 0.5), ("mae", 5.0)])
@pytest.mark.parametrize("guess", [0.4, 0.5, 5.0, 6.0])
def test_without_an_interval_nothing_is_called_better(metric: str, value: float, guess: float) -> None:
    for low, high in ((None, None), (0.0, None), (None, 9.0)):
        said = _said(_entry(value, low, high, guess, metric=metric))
        assert said.endswith("neither is called better, as there is no interval (fewer than 2 groups).")
        assert not any(word in said for word in (BEATS, WORSE, UNCLEAR))


def test_verdict_names_the_reported_split_then_unknown_and_no_other() -> None:
    one = prepared(clips(["a"]))
    entry = _entry(0.9, 0.8, 1.0, 0.5)
    both = {**entry, "metrics": {**entry["metrics"], **_entry(5, 4, 6, 9, metric="mae")["metrics"]}}
    both["baselines"] = {**entry["baselines"], "constant_median": {"mae": 9.0}}
    splits = {"val": entry, "unknown": _entry(5, 4, 6, 3, metric="mae"), "test": both}
    said = verdict(one, splits, "test").split(". ")
    named = [sentence.split(" 0")[0].split(" 5")[0] for sentence in said]
    assert named == ["test accuracy", "test mean absolute error", "unknown mean absolute error"]
    assert "beats" in said[0]
    assert "beats" in said[1]
    assert "is worse than" in said[2]
    assert verdict(one, splits, "val").startswith("val accuracy")
    assert verdict(one, splits, "val").count("accuracy") == 1
    assert verdict(one, {"unknown": splits["unknown"]}, "unknown").count("unknown mean absolute error") == 1
    assert verdict(one, {}, "test") == ""


def test_unit_is_said_for_errors_only_and_left_out_where_there_is_none() -> None:
    entry = _entry(5.0, 4.0, 6.0, 9.0, metric="mae")
    entry["metrics"]["mae"]["unit"] = ""
    assert _said(entry).startswith("test mean absolute error 5.000 (95 %")
    assert _said(entry).endswith("baseline 9.000.")


@pytest.mark.parametrize(
    ("value", "shown"), [(9.9994, "9.999"), (10.0, "10.0"), (-9.5, "-9.500"), (-10.0, "-10.0"), (0.5, "0.500")]
)
def test_numbers_have_three_decimals_below_ten(value: float, shown: str) -> None:
    assert f"test accuracy {shown} " in _said(_entry(value, None, None, 0.0))


def test_control_and_random_weights_come_before_any_number() -> None:
    entry = _entry(0.9, 0.8, 1.0, 0.5)
    table = clips(["a"], random_backbones=("toy", "real", "able"))
    warning = "RANDOM WEIGHTS: able, toy was never trained; numbers from it say nothing about the published model."
    control = "CONTROL: the training labels were shuffled; nothing above a baseline is to be expected."
    assert prepared(table).warning == warning
    assert prepared(clips(["a"], random_backbones=("real",))).warning == ""
    said = verdict(prepared(table, shuffle_labels=True), {"test": entry}, "test")
    assert said.startswith(f"{warning} {control} test accuracy 0.900")
    assert "CONTROL" not in _said(entry)
    assert _said(entry, shuffle_labels=True).startswith(control)


def test_undefined_is_null_and_never_a_number() -> None:
    assert [number(value) for value in (float("nan"), float("inf"), -float("inf"), 0.0, -2)] == [
        *[None, None, None],
        *[0.0, -2.0],
    ]


def _measured(value: float | None, low: float | None, high: float | None, unit: str) -> dict[str, Any]:
    return {
        "value": value,
        "low": low,
        "high": high,
        "higher_is_better": True,
        "unit": unit,
        "interval": "bootstrap",
        "drawn": 7,
    }


def test_summary_shows_every_metric_beside_its_own_baselines(tmp_path: Path) -> None:
    results = {
        "verdict": "VERDICT.",
        "splits": {
            "test": {
                "num_clips": 30,
                "num_groups": 7,
                "metrics": {
                    "accuracy": _measured(0.5, 0.4, 0.61, "fraction"),
                    "mae": _measured(50.0, 40.0, 61.0, "kcal/h"),
                    "spc_values": _measured(None, None, None, "correlation"),
                    "nll": _measured(6.0, None, None, "nats"),
                },
                "baselines": {
                    "majority_class": {"accuracy": 0.34},
                    "uniform_random_class": {"accuracy": 0.25},
                    "constant_median": {"mae": 70.0},
                },
            }
        },
        "selection": {"sentence": "SELECTED."},
        "notes": ["NOTE 1.", "NOTE 2."],
    }
    accuracy = f"{'0.500 [0.400, 0.610; 7 groups]':<40}majority class 0.340, uniform random class 0.250"
    lines = [
        "VERDICT.",
        "",
        "test: 30 clips, 7 groups",
        f"  {'accuracy, 0 to 1':<36} {accuracy}",
        f"  {'mean absolute error, kcal/h':<36} {'50.0 [40.0, 61.0; 7 groups]':<40}constant median 70.0",
        f"  {'rank correlation over clips, -1 to 1':<36} undefined",
        f"  {'cross-entropy, sum over bins, nats':<36} 6.000",
        "",
        "SELECTED.",
        "NOTE 1.",
        "NOTE 2.",
        f"Run: {tmp_path}",
    ]
    assert summary_text(tmp_path, results).split("\n") == lines
    (tmp_path / "report.html").write_text("")
    assert summary_text(tmp_path, results).split("\n") == [*lines, f"Report: {tmp_path / 'report.html'}"]


# --- what the notes say of clips that count otherwise

CLASSES = ("a", "b")


def test_notes_count_clips_that_metrics_treat_specially() -> None:
    nan = float("nan")
    table = clips(["a", "new", "", "b", "new", ""], values=[1.0, nan, 11.0, -1.0, 10.0, nan])
    one = prepared(table, classes=CLASSES, bins=BINS)
    part = predictions(range(6), label=sure_of([0] * 6, 2), target=sure_of([0] * 6, 11))
    assert unseen_label_notes(one, part) == [
        "2 clips of 'test' have a label that training never saw; they count as wrong.",
        "2 clips of 'test' have no label; class metrics leave them out.",
        "2 clips of 'test' have no target; its metrics leave them out.",
        "2 clips of 'test' have a target outside 0 to 10; no bin can predict them exactly.",
    ]


def test_notes_say_nothing_of_a_clean_split() -> None:
    one = prepared(clips(["a", "b"], values=[0.0, 10.0]), classes=CLASSES, bins=BINS)
    part = predictions(range(2), label=sure_of([0, 1], 2), target=sure_of([0, 1], 11))
    assert unseen_label_notes(one, part) == []
    only_classes = prepared(clips(["a", "b"]), classes=CLASSES)
    assert unseen_label_notes(only_classes, predictions(range(2), label=sure_of([0, 1], 2))) == []


def test_known_classes_in_the_unknown_split_are_said() -> None:
    one = prepared(clips(["new", "b", "a"], splits=["unknown"] * 3), classes=CLASSES)
    part = predictions(range(3), split="unknown", label=sure_of([0, 1, 0], 2))
    assert unseen_label_notes(one, part) == [
        "2 clips of 'unknown' have a class that training knows (the first: 'b'): its numbers are not those of unknown "
        "classes alone."
    ]
    clean = predictions([0], split="unknown", label=sure_of([0], 2))
    assert unseen_label_notes(one, clean) == []
    without_classes = prepared(clips(["a"], values=[1.0]), bins=BINS)
    assert unseen_label_notes(without_classes, predictions([0], split="unknown", target=sure_of([1], 11))) == []


def test_unknown_split_is_never_judged_by_class() -> None:
    """Even where its labels are known: it would flatter a number that is about other classes."""
    one = prepared(clips(["a", "b"]), classes=CLASSES)
    probabilities = sure_of([0, 1], 2)
    assert class_scores(one, predictions([0, 1], split="unknown", label=probabilities)) is None
    assert class_scores(one, predictions([0, 1], split="test", label=probabilities)) is not None
    novel = prepared(clips(["x", "y"]), classes=CLASSES)
    assert class_scores(novel, predictions([0, 1], label=probabilities)) is None
    np.testing.assert_array_equal(probabilities.argmax(axis=1), [0, 1])


@pytest.mark.parametrize(("num_groups", "units"), [(12, "groups"), (None, "clips")])
@pytest.mark.parametrize(("drawn", "few"), [(2, True), (4, True), (5, False)])
def test_an_interval_over_few_groups_calls_nothing_better(
    drawn: int, few: bool, num_groups: int | None, units: str
) -> None:
    """It is the groups that a metric draws that count, not those of the split: some may have no target."""
    entry = _entry(0.5, 0.4, 0.6, 0.3) | {"num_groups": num_groups}
    entry["metrics"]["accuracy"]["drawn"] = drawn
    said = _said(entry)
    assert f"0.400 to 0.600, {drawn} {units})" in said
    assert said.endswith(f": an interval over {drawn} {units} says too little to call either better.") == few
    assert (BEATS in said) != few
    notes = interval_notes({"test": entry, "val": entry})
    caution = f"Intervals of 'test' over {drawn} {units}, of 'val' over {drawn} {units} say little"
    assert [note.split(":")[0] for note in notes] == ([caution] if few else [])


def test_intervals_that_are_no_bootstrap_are_said_once(tmp_path: Path) -> None:
    entry = _entry(1.0, 0.76, 1.0, 0.3)
    entry["metrics"]["accuracy"]["interval"] = "Wilson"
    entry["metrics"]["macro_f1"] = _measured(1.0, None, None, "fraction") | {
        "interval": "every resample gives the same value"
    }
    assert "(95 % Wilson interval 0.760 to 1.000, 12 groups) beats the" in _said(entry)
    assert interval_notes({"test": entry, "val": entry}) == [
        "Intervals marked Wilson are his for a share of groups or clips: there every resample gives the same value.",
        "No interval is given for macro F1 on 'test'; macro F1 on 'val': every resample gives the same value.",
    ]
    results = {
        "verdict": "",
        "splits": {"test": {**entry, "num_clips": 12}},
        "notes": [],
        "selection": {"sentence": ""},
    }
    assert "accuracy, 0 to 1 1.000 [0.760, 1.000; Wilson, 12 groups]" in summary_text(tmp_path, results)
    assert with_interval(entry["metrics"]["accuracy"]) == "1 [0.76, 1; Wilson, 12 groups]"


@pytest.mark.parametrize(("num_classes", "shown"), [(2, False), (5, False), (6, True)])
def test_top_five_of_five_classes_is_not_reported(num_classes: int, shown: bool) -> None:
    classes = [f"c{i}" for i in range(num_classes)]
    one = prepared(clips(classes), classes=tuple(classes))
    entry = split_results(one, predictions(range(num_classes), label=np.eye(num_classes)), np.arange(num_classes))
    guesses = [name for values in entry["baselines"].values() for name in values]
    assert [("top5_accuracy" in names) for names in (entry["metrics"], guesses)] == [shown, shown]


def test_every_metric_and_baseline_has_words() -> None:
    one = prepared(clips(["a", "b"] * 6, values=[1.0] * 12), classes=CLASSES, bins=BINS)
    part = predictions(range(12), label=sure_of([0, 1] * 6, 2), target=sure_of([1] * 12, 11))
    names = {*METRICS, *split_results(one, part, np.arange(12))["baselines"], *HIGHER_IS_BETTER}
    assert names <= set(TITLES)
    assert all("_" not in title for title in TITLES.values())
    assert with_unit("mae", "kcal/h") == "mean absolute error, kcal/h"
    assert with_unit("accuracy", "fraction") == "accuracy, 0 to 1"
    assert with_unit("mae", "") == "mean absolute error"
    assert with_unit("mine:ROW", "m_s") == "mine:ROW, m_s"  # of a plug-in


def test_what_says_little_is_a_warning_of_the_page() -> None:
    entry = _entry(0.5, 0.4, 0.6, 0.3)
    entry["metrics"]["accuracy"]["drawn"] = 3
    (said,) = few_groups({"test": entry})
    assert said == "Intervals of 'test' over 3 groups say little: read no difference out of them."
    assert warnings_first(["b", said, "b"]) == ([said], ["b"])
