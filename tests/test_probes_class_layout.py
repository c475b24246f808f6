"""How classes lie: spread and overlap worked out by hand, what chance gives, degenerate rows, highlighted classes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_stores import clustered_store

from reelbank.heads.probes import class_layout as module
from reelbank.heads.probes.class_layout import class_layout, page, sentences
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.probe import probe
from reelbank.heads.probes.rows import ProbeRows
from reelbank.heads.probes.scatter import item, legend
from reelbank.heads.reports.drawing import GREY, Heading
from reelbank.heads.reports.figures import scatter_by_class
from reelbank.store import open as open_store


def rows_of(vectors: Any, labels: Sequence[str], clips: Sequence[int] | None = None) -> ProbeRows:
    values = np.array(vectors, dtype=np.float32)
    values = values[:, None] if values.ndim == 1 else values
    numbers = np.arange(len(labels)) if clips is None else np.array(clips)
    names = np.array([f"c{i}" for i in numbers], dtype=str)
    return ProbeRows(
        vectors=values, clip_rows=numbers.astype(np.int64), steps=np.full(len(labels), -1), clip_ids=names,
        labels=np.array(labels, dtype=str), splits=np.array(["train"] * len(labels)), groups=names,
        target=None, target_name="", notes=(),
    )  # fmt: skip


def entries(rows: ProbeRows) -> dict[str, dict[str, Any]]:
    return {one["label"]: one for one in class_layout(rows, 0)["classes"]}


def test_spread_and_overlap_are_those_of_the_formulas() -> None:
    """On a line: a at 0, 1, 2; b at 10, 14; c at 2.4 alone. The mean of all is 4.9."""
    values, labels = [0.0, 1, 2, 10, 14, 2.4], ["a", "a", "a", "b", "b", "c"]
    found = entries(rows_of(values, labels))
    whole = np.abs(np.array(values) - np.mean(values)).mean()
    assert found["a"]["spread"] == pytest.approx((1 + 0 + 1) / 3 / whole)
    assert found["b"]["spread"] == pytest.approx(2 / whole)
    assert found["c"]["spread"] is None, "its mean is itself"
    # 0 and 1 are nearest to each other's class, 2 to c; 10 and 14 to each other; c to a.
    assert (found["a"]["overlap"], found["a"]["nearest_class"]) == (pytest.approx(1 / 3), "c")
    assert (found["b"]["overlap"], found["b"]["nearest_class"], found["b"]["nearest_share"]) == (0, None, None)
    assert (found["c"]["overlap"], found["c"]["nearest_class"], found["c"]["nearest_share"]) == (1, "a", 1)
    assert [one["rows"] for one in found.values()] == [3, 2, 1]


def test_rows_of_the_own_clip_are_no_neighbours() -> None:
    """Clips of two steps each, whose classes would not overlap if a step counted as the neighbour of its twin."""
    rows = rows_of([0.0, 0, 1, 1, 9, 9, 10, 10.5], [*"aabbaabb"], clips=[0, 0, 1, 1, 2, 2, 3, 3])
    found = entries(rows)
    assert (found["a"]["overlap"], found["b"]["overlap"]) == (1, 1)
    assert (found["a"]["rows"], found["a"]["clips"]) == (4, 2)
    alone = rows_of([0.0, 0, 1], [*"aab"], clips=[0, 0, 0])
    assert all(one["overlap"] is one["nearest_class"] is None for one in entries(alone).values())


def test_permuted_labels_are_what_every_permutation_gives_on_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all 10 ways to give 2 of 5 clips the label a."""
    monkeypatch.setattr(module, "PERMUTATIONS", 4000)
    values = np.array([0.0, 1, 3, 7, 15])
    found = entries(rows_of(values, [*"aabbb"]))
    nearest = np.array([1, 0, 1, 2, 3])
    whole = np.abs(values - values.mean()).mean()
    spreads, overlaps = [], []
    for pair in itertools.combinations(range(5), 2):
        own = values[list(pair)]
        spreads.append(np.abs(own - own.mean()).mean() / whole)
        overlaps.append(np.mean([nearest[i] not in pair for i in pair]))
    assert found["a"]["spread_permuted"] == pytest.approx(np.mean(spreads), rel=0.05)
    assert found["a"]["overlap_permuted"] == pytest.approx(np.mean(overlaps), rel=0.05)


def test_classes_that_are_planted_lie_as_planted_and_shuffled_ones_as_chance_has_it() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([*"tdxy"], 30)
    vectors = random.normal(size=(120, 6))
    vectors[:30] = vectors[:30] * 0.1 + 8  # tight, apart
    vectors[30:60] *= 4  # dispersed
    found = entries(rows_of(vectors, labels.tolist()))
    assert min(found, key=lambda name: found[name]["spread"]) == "t"
    assert max(found, key=lambda name: found[name]["spread"]) == "d"
    assert found["t"]["overlap"] == 0
    assert (found["x"]["nearest_class"], found["y"]["nearest_class"]) == ("y", "x")
    assert found["x"]["overlap"] > 0.3
    said = list(sentences(class_layout(rows_of(vectors, labels.tolist()), 0)))
    assert said[0].startswith("Tightest classes: t 0.0") and "most dispersed: d " in said[0]
    assert said[1].startswith("Most separate classes: t 0.00") and "(mostly " in said[1]
    shuffled = entries(rows_of(vectors, random.permutation(labels).tolist()))
    for one in shuffled.values():
        assert one["overlap"] == pytest.approx(one["overlap_permuted"], abs=0.2)
        assert one["spread"] == pytest.approx(one["spread_permuted"], abs=0.25)


@pytest.mark.parametrize("scale", [1e-30, 1e15])
def test_scale_of_the_features_changes_nothing(scale: float) -> None:
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(20, 3)), [*"ab"] * 10
    plain, scaled = (entries(rows_of(vectors * factor, labels)) for factor in (1, scale))
    for name, one in plain.items():
        assert scaled[name]["spread"] == pytest.approx(one["spread"], rel=1e-5)
        assert scaled[name]["overlap"] == one["overlap"]


@pytest.mark.parametrize(
    ("rows", "absent"),
    [
        (rows_of([1.0, 2, 3], [*"aaa"]), "1 class among the rows"),
        (rows_of([1.0, 2, 3], ["", "", ""]), "no classes among the rows"),
        (rows_of([1.0, 1, 1], [*"aab"]), "all labelled rows are equal"),
    ],
)
def test_where_there_is_nothing_to_say_it_is_absent_with_the_reason(rows: ProbeRows, absent: str) -> None:
    found = class_layout(rows, 0)
    assert (found["absent"], found["classes"]) == (absent, [])
    assert list(sentences(found)) == [f"How the classes lie is not judged: {absent}."]
    assert page(found) == ""


def test_rows_without_a_label_do_not_count_and_classes_of_one_row_have_no_spread() -> None:
    found = class_layout(rows_of([0.0, 1, 2, 50], ["a", "b", "c", ""]), 0)
    assert found["num_rows"] == 3
    assert {one["label"]: one["spread"] for one in found["classes"]} == {"a": None, "b": None, "c": None}
    assert all(one["overlap"] == 1 for one in found["classes"])
    assert [text[:13] for text in sentences(found)] == ["Most separate"]


def test_of_very_many_rows_a_sample_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 30)
    random = np.random.default_rng(0)
    rows = rows_of(random.normal(size=(100, 3)), [*"ab"] * 50)
    found = class_layout(rows, 0)
    assert found["num_rows"] == 30 == sum(one["rows"] for one in found["classes"])
    assert found == class_layout(rows, 0)


@pytest.mark.parametrize("count", [15, 16])
def test_table_has_the_most_overlapping_first_and_of_many_classes_opens_on_a_click(count: int) -> None:
    random = np.random.default_rng(0)
    labels = [f"k{i:02d}" for i in range(count) for _ in range(4)]
    vectors = random.normal(size=(len(labels), 3))
    vectors[:4] += 100
    text = page(class_layout(rows_of(vectors, labels), 0))
    assert ("<details>" in text) == (count == 16)
    assert text.index(">k01<") < text.rindex(">k00</th>") and text.rindex('<th scope="row">') < text.rindex(">k00</th>")


# --- in a probe


def test_numbers_stand_beside_the_map_in_results_and_page(tmp_path: Path) -> None:
    clustered_store(tmp_path / "s.zarr", num_clips=40, num_classes=4)
    result = probe(ProbeConfig(store=tmp_path / "s.zarr", tsne=True, out=tmp_path / "out"))
    found = result.results["analyses"]["tsne"]["class_layout"]
    assert [one["label"] for one in found["classes"]] == result.results["labels"]
    assert any(text.startswith("Tightest classes: ") for text in result.verdict)
    assert 'id="classes-in-feature-space"' in result.page.read_text(encoding="utf-8")


def test_highlighted_classes_alone_have_colours(tmp_path: Path) -> None:
    store = clustered_store(tmp_path / "s.zarr", num_clips=40, num_classes=4)
    asked = {"store": tmp_path / "s.zarr", "tsne": True, "out": tmp_path / "out"}
    names = probe(ProbeConfig(**asked)).results["labels"]
    chosen = (names[2], names[0])
    result = probe(ProbeConfig(**asked, highlight=chosen))
    assert "2 other classes" in result.page.read_text(encoding="utf-8")
    labels = np.array([names[i % 4] for i in range(40)])
    shown = legend(labels, chosen)
    assert [name for name, *_ in shown] == [names[0], names[2], "2 other classes"]
    assert [color == GREY for _, color, _ in shown] == [False, False, True]
    rows = replace(rows_of(np.zeros(40), labels.tolist()), highlight=chosen)
    made, _ = item(open_store(tmp_path / "s.zarr"), rows, np.random.default_rng(0).normal(size=(40, 2)))
    (source,) = (one for one in _dicts(made) if {"color", "label"} <= set(one))
    gray = [color == GREY for color in source["color"]]
    assert gray == [label not in chosen for label in source["label"]] == sorted(gray, reverse=True), "coloured on top"
    figure = scatter_by_class(
        np.random.default_rng(0).normal(size=(40, 2)), labels.tolist(), ["train"] * 40, title="t",
        heading=Heading(source="s", count="n"), numbered=True, highlight=chosen,
    )  # fmt: skip
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *(f"0 {names[0]}", f"1 {names[2]}", "2 other classes"),
    ]
    assert store is not None


def _dicts(value: Any) -> list[dict[str, Any]]:
    """Every mapping inside JSON, those of bokeh's `entries` too."""
    if isinstance(value, dict):
        own = dict(value["entries"]) if value.get("type") == "map" and "entries" in value else value
        return [own, *(found for part in value.values() for found in _dicts(part))]
    return [found for part in value for found in _dicts(part)] if isinstance(value, list) else []


def test_highlight_of_no_class_or_without_a_map_is_refused(tmp_path: Path) -> None:
    clustered_store(tmp_path / "s.zarr", num_clips=12, num_classes=3)
    with pytest.raises(ValueError, match=r"--highlight 'class O': no row is of that class; the nearest of 3 classes"):
        probe(ProbeConfig(store=tmp_path / "s.zarr", tsne=True, highlight=("class O",), out=tmp_path / "out"))
    for asked in ({"knn": 3}, {"explore": True}):
        with pytest.raises(ValueError, match="--highlight colours classes in a map"):
            ProbeConfig(store=tmp_path / "s.zarr", highlight=("a",), **asked)
    ProbeConfig(store=tmp_path / "s.zarr", highlight=("a",))  # by default there is a map
