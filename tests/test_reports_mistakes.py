"""The page of the worst mistakes: which clips, in which order, how many pictures, and when there is no page."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import config
from remembered import write_store

from reelbank.heads import train_head
from reelbank.heads.reports.clip_rows import ClipRow
from reelbank.heads.reports.mistakes_page import MOST_THUMBNAILS, by_class, write_mistakes
from reelbank.heads.reports.run_page import write_run_report


def row(clip_id: str, label: str, predicted: str, probability: float | None, **other: Any) -> ClipRow:
    given: dict[str, Any] = {
        "group": "", "split": "test", "true_probability": None if probability is None else round(1 - probability, 6),
        "correct": predicted == label, "target": None, "predicted_target": None, "error": None,
    }  # fmt: skip
    return ClipRow(clip_id=clip_id, label=label, predicted=predicted, probability=probability, **{**given, **other})


class Pictures:
    """Thumbnails of every clip."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.notes: dict[str, None] = {}

    def of(self, clip_id: str) -> str:
        self.asked.append(clip_id)
        return "data:image/jpeg;base64,AAAA"


def written(folder: Path, rows: list[ClipRow], pictures: Any = None) -> str:
    path = write_mistakes(folder, rows, "test", pictures or Pictures(), title="Mistakes of r", subtitle="s.zarr")
    return "" if path is None else path.read_text(encoding="utf-8")


def test_classes_with_most_mistakes_come_first_and_in_them_the_most_certain() -> None:
    rows = [
        row("r", "a", "a", 0.99),
        *(row(f"a{i}", "a", "b", 0.5 + 0.1 * i) for i in range(3)),
        row("c0", "c", "a", 0.9), row("b1", "b", "a", 0.95), row("b0", "b", "c", 0.95),
    ]  # fmt: skip
    found = by_class(rows)
    assert {label: [one.clip_id for one in own] for label, own in found.items()} == {
        "a": ["a2", "a1", "a0"], "b": ["b0", "b1"], "c": ["c0"],
    }  # fmt: skip
    assert list(found) == ["a", "b", "c"]


def test_each_clip_has_its_classes_and_both_probabilities(tmp_path: Path) -> None:
    rows = [row(f"a{i}", "a", "b", 0.5 + 0.01 * i) for i in range(10)] + [row("right", "a", "a", 0.9)]
    rows += [row("new", "z", "b", 0.7, true_probability=None), row("val", "a", "b", 0.99, split="val")]
    text = written(tmp_path, rows)
    assert "Split test: 11 of 12 clips are taken for another class." in text
    assert "a: 10 of 11 clips wrong" in text and "z: 1 of 1 clip wrong" in text
    assert re.findall(r"<b>(\w+)</b>", text) == [*(f"a{i}" for i in range(9, 1, -1)), "new"]
    assert "<b>a9</b> predicted b, probability 0.59; true a, probability 0.41<" in text
    assert "<b>new</b> predicted b, probability 0.70; true z, which training never saw<" in text


@pytest.mark.parametrize("num_classes", [12, 13, 51, 150])
def test_twelve_classes_are_open_and_no_page_has_more_than_two_hundred_pictures(
    num_classes: int, tmp_path: Path
) -> None:
    rows = [row(f"k{k:03d}-{i}", f"k{k:03d}", "other", 0.9 - 0.01 * i) for k in range(num_classes) for i in range(9)]
    pictures = Pictures()
    text = written(tmp_path, rows, pictures)
    assert text.count("<details>") == num_classes - 12
    assert text.partition("<details>")[0].count("<img") == 12 * 8
    assert text.count("<img") == len(pictures.asked) <= MOST_THUMBNAILS
    assert text.count("<img") == {12: 96, 13: 104, 51: 96 + 39 * 2, 150: 200}[num_classes]
    assert len(re.findall(r"<b>k\d+-\d</b>", text)) == 8 * num_classes, "the others are text"


@pytest.mark.parametrize(
    "rows",
    [
        [row("a", "", "", None, correct=None, target=3.0, predicted_target=4.0, error=1.0)],  # a target alone
        [row("a", "x;y", "x", None, correct=False)],  # several labels per clip
        [row("a", "", "b", 0.9, correct=None)],  # no label
        [],
    ],
)
def test_where_no_clip_is_judged_by_one_class_there_is_no_page(rows: list[ClipRow], tmp_path: Path) -> None:
    assert written(tmp_path, rows) == ""
    assert not (tmp_path / "mistakes.html").exists()


def test_page_without_a_mistake_says_so(tmp_path: Path) -> None:
    text = written(tmp_path, [row("a", "b", "b", 0.9)])
    assert "Split test: 0 of 1 clips are taken for another class." in text and "<img" not in text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pictures_not_rendered: None) -> Path:
    """A run on noise of three classes, whose clips have thumbnails."""
    folder = tmp_path_factory.mktemp("mistaken")
    random = np.random.default_rng(0)
    clips = [
        {"clip_id": f"c{i}", "split": ("train", "val", "test")[i % 3], "label": "abc"[i // 3 % 3], "group": f"g{i}",
         "kcal": 100.0 + i}
        for i in range(54)
    ]  # fmt: skip
    features = [random.normal(size=(2, 4)).astype(np.float32) for _ in clips]
    pictures = [np.full((72, 96, 3), 40 + i, np.uint8) for i in range(len(clips))]
    write_store(folder / "s.zarr", {"pool": features}, clips, thumbnails=pictures)
    options = {"head": "linear", "epochs": 2, "lr": 0.1, "batch": 8, "bins": 5, "target": "none", "report": True}
    train_head(config(store=(folder / "s.zarr",), run=folder / "run", **options))
    train_head(
        config(store=(folder / "s.zarr",), run=folder / "kcal", **{**options, "target": "kcal", "label": "none"})
    )
    return folder / "run"


def test_a_run_ends_with_the_page_and_links_it(run: Path) -> None:
    text, report = ((run / name).read_text(encoding="utf-8") for name in ("mistakes.html", "report.html"))
    assert 'href="./report.html"' in text
    assert 'href="./mistakes.html">mistakes of every class' in report
    with (run / "predictions.csv").open(newline="") as file:
        rows = [one for one in csv.DictReader(file) if one["split"] == "test"]
    wrong = [one for one in rows if one["correct"] == "0"]
    assert f"Split test: {len(wrong)} of {len(rows)} clips" in text
    assert {one["clip_id"] for one in wrong} >= set(re.findall(r"<b>(c\d+)</b>", text))
    assert text.count('src="data:image/jpeg;base64,') == text.count("<li><img")
    for one in wrong:
        said = f"predicted {one['predicted']}, probability {float(one['probability']):.2f}; true {one['label']}"
        if f"<b>{one['clip_id']}</b>" in text:
            assert f"<b>{one['clip_id']}</b> {said}, probability {float(one['true_probability']):.2f}" in text
    kcal = run.parent / "kcal"
    assert not (kcal / "mistakes.html").exists()
    assert "mistakes of every class" not in (kcal / "report.html").read_text(encoding="utf-8")


def test_probability_of_the_true_class_is_that_of_the_prediction_where_it_is_right(run: Path) -> None:
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {one["correct"] for one in rows} == {"0", "1"}
    for one in rows:
        same = one["true_probability"] == one["probability"]
        assert same == (one["correct"] == "1")
        assert float(one["true_probability"]) + float(one["probability"]) * (one["correct"] == "0") <= 1 + 1e-5


def test_run_whose_store_is_gone_has_the_page_as_text(run: Path, tmp_path: Path) -> None:
    gone = shutil.copytree(run, tmp_path / "gone")
    described = json.loads((gone / "config.json").read_text())
    described["stores"][0]["path"] = str(tmp_path / "nowhere.zarr")
    (gone / "config.json").write_text(json.dumps(described))
    write_run_report(gone)
    text = (gone / "mistakes.html").read_text(encoding="utf-8")
    assert "<img" not in text and "<li><b>c" in text
    assert "nowhere.zarr cannot be opened" in text


def test_names_that_try_to_be_markup_change_no_element_of_the_page(tmp_path: Path) -> None:
    hostile = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
    counts = []
    for name in ("tame", hostile):
        rows = [row(f"{name}{k}", f"{name}{k}", name, 0.9) for k in range(14)]
        counts.append(Counter(re.findall(r"<(\w+)", written(tmp_path, rows))))
    assert counts[0] == counts[1]
