"""Several labels of one clip: from the cell of the manifest to average precision, report and predictions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import config, sweep_config
from remembered import write_store
from sklearn.metrics import average_precision_score, f1_score

from reelbank.heads import ProbeConfig, TrainingError, predict, probe, sweep, train_head
from reelbank.heads.examples.label_sets import combined_note, joined, labels_in, matrix, names_in, strata
from reelbank.heads.judging import intervals
from reelbank.heads.judging.baselines import of_label_sets
from reelbank.heads.judging.label_sets import (
    LabelScores,
    average_precision,
    average_precisions,
    macro_ap,
    random_precision,
)
from reelbank.heads.judging.metrics import evaluate

NAMES = ("jump", "run", "wave", "Ärger 😀")


@pytest.mark.parametrize(
    ("cell", "separator", "labels"),
    [
        ("jump;wave", ";", ("jump", "wave")),
        (" wave ; jump;wave;; ", ";", ("wave", "jump")),
        ("jump, high;run", ";", ("jump, high", "run")),
        ("jump;wave", "|", ("jump;wave",)),
        ("a || b", "||", ("a", "b")),
        (";", ";", ()),
        ("", ";", ()),
    ],
)
def test_cell_is_taken_apart(cell: str, separator: str, labels: tuple[str, ...]) -> None:
    assert labels_in(cell, separator) == labels
    present = matrix([cell], ("none", *sorted(labels)), separator)
    (again,) = joined(present, ("none", *sorted(labels)), separator)
    assert set(labels_in(again, separator)) == set(labels) and again


def test_parts_are_balanced_by_the_rarest_label() -> None:
    cells = np.array(["a;b", "a", "c;a", "", ";", "b;a", "b"])
    assert strata(cells, ";").tolist() == ["b", "a", "c", "", "", "b", "b"]
    assert strata(cells, None) is cells
    assert names_in(cells.tolist(), ";") == {"a", "b", "c"}


def test_combined_classes_are_said() -> None:
    assert combined_note(["a", "b;", "c", ""], ";", "x") == []
    assert combined_note(["a;b", "c"], ";", "do x")[0].endswith(
        "(the first: 'a;b') and count as classes of their own; do x."
    )


@pytest.mark.parametrize("seed", range(6))
def test_metrics_equal_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.random((40, 5)) < (0.05, 0.2, 0.5, 0.9, 0)
    scores = random.random((40, 5)).round(1 if seed % 2 else 9)  # with ties, and without
    ours = average_precisions(truth, scores)
    known = [k for k in range(5) if truth[:, k].any()]
    expected = [average_precision_score(truth[:, k], scores[:, k]) for k in known]
    assert ours[known] == pytest.approx(expected)
    assert np.isnan(ours[4]) and macro_ap(truth, scores) == pytest.approx(np.mean(expected))
    both = LabelScores(probabilities=scores, truth=truth)
    used = [k for k in range(5) if (truth | (scores >= 0.5))[:, k].any()]
    for kind, columns in (("micro", list(range(5))), ("macro", used)):
        found = f1_score(truth[:, columns], scores[:, columns] >= 0.5, average=kind)
        assert evaluate(f"{kind}_f1_at_half", both) == pytest.approx(found)


def test_degenerate_splits_have_no_number_or_the_right_one() -> None:
    nothing = np.zeros((3, 2), dtype=bool)
    assert np.isnan([evaluate(name, LabelScores(probabilities=nothing * 0.1, truth=nothing)) for name in (
        "macro_ap", "micro_f1_at_half", "macro_f1_at_half")]).all()  # fmt: skip
    assert average_precision(np.array([True, False, False, False]), np.full(4, 0.3)) == 0.25
    assert average_precision(np.array([True]), np.array([0.0])) == 1.0
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3,\)"):
        LabelScores(probabilities=np.zeros((3, 2)), truth=np.zeros(3, dtype=bool))


def test_guess_of_the_prevalence_has_it_as_average_precision() -> None:
    random = np.random.default_rng(0)
    train, test = random.random((50, 3)) < 0.4, random.random((30, 3)) < (0.2, 0.5, 0.7)
    found = of_label_sets(train, test)["training_prevalence"]
    assert found["macro_ap"] == pytest.approx(test.mean(axis=0).mean())
    assert of_label_sets(train, test[:0]) == {"training_prevalence": {}, "random_order": {}}


@pytest.mark.parametrize(("num_positive", "num_clips"), [(1, 1), (1, 7), (2, 24), (9, 10), (10, 10)])
def test_random_order_has_the_mean_over_all_orders(num_positive: int, num_clips: int) -> None:
    random = np.random.default_rng(0)
    truth = np.arange(num_clips) < num_positive
    drawn = [average_precision(truth, random.random(num_clips)) for _ in range(4000)]
    assert random_precision(num_positive, num_clips) == pytest.approx(np.mean(drawn), abs=0.012)
    found = of_label_sets(truth[:, None], truth[:, None])["random_order"]
    assert found == {"macro_ap": random_precision(num_positive, num_clips)}
    assert np.isnan(random_precision(0, num_clips))


def test_noise_is_not_said_to_beat_a_random_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 100)
    beaten = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        truth, scores = random.random((60, 10)) < 0.1, random.random((60, 10))
        value, low, high = intervals.interval(
            "macro_ap", LabelScores(probabilities=scores, truth=truth), np.arange(60), seed=seed
        )
        assert low <= value <= high
        beaten += low > of_label_sets(truth, truth)["random_order"]["macro_ap"]
    assert beaten <= 1


# --- through a run ---------------------------------------------------------------------------------


def cells_of(present: np.ndarray) -> list[str]:
    return ["; ".join(name for name, there in zip(NAMES, row, strict=True) if there) or ";" for row in present]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain.zarr` of 120 clips whose labels are directions that add up, and `kcal.zarr` with a target beside."""
    folder, random = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    present = random.random((120, 4)) < (0.5, 0.4, 0.3, 0.2)
    directions = random.normal(size=(4, 10))
    features = [(row @ directions + random.normal(0, 0.4, (5, 10))).astype(np.float16) for row in present]
    clips: list[dict[str, Any]] = []
    for i, cell in enumerate(cells_of(present)):
        split = "train" if i < 70 else "val" if i < 90 else "test"
        clips.append({"clip_id": f"c{i}", "label": cell, "split": split, "group": f"{split}{i // 3}"})
    clips[95]["label"], clips[96]["label"] = "", "jump;never seen"
    write_store(folder / "plain.zarr", {"cls": features}, clips)
    clips[95]["label"] = clips[96]["label"] = ";"  # with folds every clip trains
    write_store(folder / "kcal.zarr", {"cls": features}, [{**clip, "kcal": 100.0 + i} for i, clip in enumerate(clips)])
    return folder


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["clip_id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def run(stores: Path) -> Path:
    made = config(store=(stores / "plain.zarr",), loss="bce", epochs=40, lr=1e-2, run=stores / "run", report=True)
    return train_head(made).directory


def test_run_reports_average_precision_beside_the_prevalence(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    test = results["splits"]["test"]
    assert list(test["metrics"]) == ["macro_ap", "micro_f1_at_half", "macro_f1_at_half"]
    measured = test["metrics"]["macro_ap"]
    assert 0.85 < measured["low"] <= measured["value"] <= measured["high"] <= 1
    rows = {row["label"]: row for row in test["per_class"]}
    assert sorted(rows) == sorted(NAMES)
    assert np.mean([row["average_precision"] for row in rows.values()]) == pytest.approx(measured["value"])
    shares = [row["share"] for row in rows.values()]
    assert test["baselines"]["training_prevalence"]["macro_ap"] == pytest.approx(np.mean(shares))
    assert rows["jump"]["share"] == rows["jump"]["clips"] / 29  # one clip says nothing
    assert (
        "test mean average precision" in results["verdict"] and "beats the random order baseline" in results["verdict"]
    )
    notes = " ".join(results["notes"])
    assert "training clips have several labels (';' between them). Each label is judged by itself" in notes
    assert "Training never saw 'never seen', which clips of 'test' have: these are not judged." in notes
    assert "1 clips of 'test' have no label" in notes
    assert not (run / "confusion.json").exists()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val_accuracy"] is None and lines[-1]["val_loss"] < lines[0]["val_loss"]


def test_page_has_the_precision_of_each_label_and_no_confusion(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Average precision of each label" in page and "Ärger 😀" in page
    assert "Confusion" not in page


def test_predictions_hold_every_label_with_its_probability(run: Path, stores: Path) -> None:
    rows = rows_of(run / "predictions.csv")
    for row in rows.values():
        chances = {name: float(row[f"probability of {name}"]) for name in NAMES}
        likely = {name for name, p in chances.items() if p >= 0.5}
        assert set(labels_in(row["predicted"], ";")) == likely and row["probability"] == ""
        expected = "" if not row["label"] else str(int(likely == set(labels_in(row["label"], ";"))))
        assert row["correct"] == expected
    assert rows["c96"]["correct"] == "0"
    found = predict(run, stores / "plain.zarr", split="test")
    assert found.macro_ap_by_split()["test"] == pytest.approx(
        json.loads((run / "results.json").read_text())["splits"]["test"]["metrics"]["macro_ap"]["value"]
    )
    assert found.accuracy_by_split() == {} and "mean average precision of split 'test'" in found.text()
    found.write_csv(stores / "predicted.csv")
    for clip, row in rows_of(stores / "predicted.csv").items():
        assert row["predicted"] == rows[clip]["predicted"]
        for name in NAMES:
            stored, again = (float(one[f"probability of {name}"]) for one in (rows[clip], row))
            assert again == pytest.approx(stored, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"store": "kcal", "folds": 3, "target": "none"},
        {"head": "attentive"},
        {"train_clips": 30, "seed": 3},
        {"store": "kcal", "class_loss": "bce", "loss": "ce", "bins": 20},
        {"augment": ("noise",)},
    ],
    ids=str,
)
def test_other_trainings_learn_several_labels(stores: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    name = options.get("store", "plain")
    asked = {"loss": "bce", "epochs": 30, "lr": 1e-2, **options}
    asked.pop("store", None)
    train_head(config(store=(stores / f"{name}.zarr",), run=tmp_path / "run", **asked))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    metrics = results["splits"]["test"]["metrics"]
    assert metrics["macro_ap"]["value"] > 0.8
    assert ("mae" in metrics) == ("class_loss" in options)
    if "folds" in options:
        assert set(results["folds"][0]["metrics"]) == {"macro_ap", "micro_f1_at_half", "macro_f1_at_half"}


def test_shuffled_labels_do_not_beat_the_prevalence(stores: Path, tmp_path: Path) -> None:
    train_head(config(store=(stores / "plain.zarr",), loss="bce", epochs=20, shuffle_labels=True, run=tmp_path / "run"))
    test = json.loads((tmp_path / "run" / "results.json").read_text())["splits"]["test"]
    assert test["metrics"]["macro_ap"]["low"] < test["baselines"]["random_order"]["macro_ap"]


def test_members_are_the_same_in_processes_and_in_a_stack(stores: Path, tmp_path: Path) -> None:
    losses = []
    for executor in ("processes", "stacked"):
        asked = sweep_config(
            store=(stores / "plain.zarr",), loss="bce", epochs=3, sweep=("lr=1e-2,1e-3",), executor=executor, workers=1,
            run=tmp_path / executor,
        )  # fmt: skip
        found = sweep(asked)
        assert "macro_ap" in found.winner["metrics"] and "  test mean average precision " in found.text()
        losses.append([member["val_loss"] for member in found.results["members"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("store", "options", "message"),
    [
        ("plain", {"loss": "bce", "class_loss": "ce"}, "--loss bce is a loss of labels, not of a target"),
        ("plain", {"label_separator": "|"}, "belongs to --loss bce"),
        ("plain", {"loss": "bce", "label_separator": ""}, "--label-separator '' has no meaning"),
        ("plain", {"loss": "bce", "class_weights": "balanced"}, "--class-weights balanced has no meaning"),
        ("plain", {"loss": "bce", "label_smoothing": 0.1}, "--label-smoothing has no meaning"),
        ("plain", {"loss": "bce", "balance": "class"}, "--balance class has no meaning"),
        (
            "plain",
            {"loss": "bce", "metric": ("accuracy",)},
            "--metric accuracy judges the label, which this run does not",
        ),
        ("plain", {"metric": ("macro_ap",)}, "--metric macro_ap judges the labels, which this run does not train"),
        ("kcal", {"loss": "bce"}, "pass --class-loss bce to train both, or --target none"),
        ("kcal", {"class_loss": "bce", "label": "none"}, "--label none has no meaning"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    stores: Path, tmp_path: Path, store: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message.replace("(", r"\(")):
        train_head(config(store=(stores / f"{store}.zarr",), epochs=1, run=tmp_path / "run", **options))


def test_sweep_over_one_label_and_several_is_refused(stores: Path, tmp_path: Path) -> None:
    asked = sweep_config(store=(stores / "plain.zarr",), sweep=("loss=ce,bce",), run=tmp_path / "s")
    with pytest.raises(TrainingError, match="mixes losses of clips with one label and with several"):
        sweep(asked)


def test_cells_that_are_read_as_one_class_or_hold_no_separator_are_said(stores: Path, tmp_path: Path) -> None:
    notes = []
    for number, options in enumerate(({}, {"loss": "bce", "label_separator": "|"})):
        made = config(store=(stores / "plain.zarr",), epochs=1, run=tmp_path / str(number), **options)
        notes.append(" ".join(train_head(made).results["notes"]))
    assert "train them so with --loss bce" in notes[0]
    assert "0 of 70 training clips have several labels ('|' between them); another separator is given by" in notes[1]
    found = probe(ProbeConfig(store=stores / "plain.zarr", knn=3, out=tmp_path / "probe"))
    assert any("`train-head --loss bce` takes them apart" in note for note in found.results["notes"])


def test_labels_that_a_split_lacks_are_named(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cells = {"train": ["a;b", "b;c", "a", ";"] * 3, "val": ["a", "b;a", ";"], "test": ["a;b", "b", ";", "b"]}
    clips = [
        {"clip_id": f"{split}{i}", "split": split, "label": cell}
        for split, given in cells.items()
        for i, cell in enumerate(given)
    ]
    features = [random.normal(size=(2, 4)).astype(np.float16) for _ in clips]
    write_store(tmp_path / "s.zarr", {"cls": features}, clips)
    results = train_head(config(store=(tmp_path / "s.zarr",), loss="bce", epochs=1, run=tmp_path / "run")).results
    assert "No clip of 'test' has 'c': average precision is over the other 2 classes." in results["notes"]
    (absent,) = [row for row in results["splits"]["test"]["per_class"] if row["label"] == "c"]
    assert absent == {"label": "c", "clips": 0, "share": 0.0, "average_precision": None, "random_order": None}
    assert any(note.startswith("In 'test' fewer than 5 groups have 'a', 'b': intervals") for note in results["notes"])


def test_labels_that_every_clip_has_teach_nothing(tmp_path: Path) -> None:
    clips = [{"clip_id": f"c{i}", "split": "train" if i < 6 else "val", "label": "a;b"} for i in range(8)]
    write_store(tmp_path / "s.zarr", {"cls": [np.ones((2, 4), np.float16)] * 8}, clips)
    with pytest.raises(TrainingError, match=r"every training clip has the same labels \('a', 'b'\): nothing to learn"):
        train_head(config(store=(tmp_path / "s.zarr",), loss="bce", epochs=1, run=tmp_path / "run"))


def test_clip_without_a_label_must_not_be_trained_on(tmp_path: Path) -> None:
    clips = [{"clip_id": f"c{i}", "split": "train" if i < 6 else "val", "label": "a;b" if i else ""} for i in range(8)]
    write_store(tmp_path / "s.zarr", {"cls": [np.ones((2, 4), np.float16)] * 8}, clips)
    with pytest.raises(
        TrainingError, match=r"1 of 6 training clips have no label; label them \(';' alone: none of them\)"
    ):
        train_head(config(store=(tmp_path / "s.zarr",), loss="bce", epochs=1, run=tmp_path / "run"))


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (";", "test is not judged: none of its 2 clips has a label."),
        ("", "test is not judged: none of its 2 clips has a label."),
    ],
)
def test_split_without_any_label_is_said_not_to_be_judged(tmp_path: Path, cells: str, sentence: str) -> None:
    given = {"train": ["a;b", "b", "a", ";"], "val": ["a", "b"], "test": [cells] * 2}
    clips = [
        {"clip_id": f"{s}{i}", "split": s, "label": cell} for s, own in given.items() for i, cell in enumerate(own)
    ]
    write_store(tmp_path / "s.zarr", {"cls": [np.eye(2, 4, k=i % 3, dtype=np.float16) for i in range(8)]}, clips)
    made = config(store=(tmp_path / "s.zarr",), loss="bce", epochs=1, run=tmp_path / "run", report=True)
    assert sentence in train_head(made).results["verdict"]
    assert predict(tmp_path / "run", tmp_path / "s.zarr", split="test").macro_ap_by_split() == {}
