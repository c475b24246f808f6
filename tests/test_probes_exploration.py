"""Exploration: numbers that a reader can check by hand, no feature read, pictures for few and many classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_stores import clustered_store
from remembered import write_store

from reelbank.heads.probes import exploration_figures
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.exploration import SIZES, Exploration, explore, sentences, summary
from reelbank.heads.probes.probe import probe
from reelbank.heads.reports.drawing import Heading
from reelbank.store.reader import Store

HEADING = Heading(source="toy.zarr", count="n = 6 clips")


def _found(
    *,
    labels: list[str],
    splits: list[str],
    target: list[float] | None = None,
    name: str = "kcal",
    seconds: list[float] | None = None,
) -> Exploration:
    num = len(labels)
    unknown = np.full(num, np.nan)
    sizes = dict.fromkeys(SIZES, unknown) | {"duration_seconds": np.array(seconds or unknown)}
    return Exploration(
        labels=np.array(labels, dtype=str),
        splits=np.array(splits, dtype=str),
        groups=np.array([""] * num, dtype=str),
        target=None if target is None else np.array(target),
        target_name="" if target is None else name,
        sizes=sizes,
        status={"done": num, "failed": 0, "missing": 0},
    )


SMALL = {
    "labels": ["walk", "walk", "run", "run", "sit", ""],
    "splits": ["train", "test", "train", "train", "unknown", "train"],
    "target": [250.0, 350.0, 700.0, 800.0, np.nan, 99.0],
    "seconds": [1.0, 2.0, 3.0, 4.0, 5.0, np.nan],
}


def test_numbers_are_those_of_the_columns() -> None:
    found = _found(**SMALL).to_json()
    assert found["num_clips"] == 6 and found["num_unlabelled"] == 1 and found["num_groups"] == 0
    assert found["splits"] == {"train": 4, "test": 1, "unknown": 1}
    assert found["classes"] == {"run": {"train": 2}, "sit": {"unknown": 1}, "walk": {"train": 1, "test": 1}}
    run = found["target"]["classes"]["run"]
    assert set(run) == {"all", "train"}
    assert (run["train"]["n"], run["train"]["mean"], run["train"]["std"]) == (2, 750.0, 50.0)
    assert found["target"]["classes"]["sit"] == {}
    assert set(found["target"]["splits"]) == {"all", "train", "test"}
    assert found["sizes"]["duration_seconds"]["all"]["median"] == 3.0
    assert set(found["sizes"]) == {"duration_seconds"}
    json.dumps(found, allow_nan=False)


def test_sentences_name_the_extremes() -> None:
    assert list(sentences(_found(**SMALL).to_json())) == [
        "6 clips (train 4, test 1, unknown 1), 3 classes: sit has the fewest (1), run the most (2).",
        "kcal 99 to 800, median 350; duration 1 to 5 s, median 3 s (5 clips with features).",
    ]
    even = _found(labels=["a", "b"], splits=["train", "train"])
    assert list(sentences(even.to_json())) == ["2 clips (train 2), 2 classes."]


def test_summary_agrees_with_numpy() -> None:
    values = np.random.default_rng(0).normal(size=101)
    found = summary(np.concatenate([values, [np.nan]]))
    assert found["n"] == 101
    assert found["std"] == pytest.approx(np.std(values))
    quartiles = [found[name] for name in ("min", "q1", "median", "q3", "max")]
    assert quartiles == pytest.approx(np.percentile(values, [0, 25, 50, 75, 100]))


@pytest.mark.parametrize(
    ("name", "values", "low", "high", "counts"),
    [
        ("kcal", [0.0, 99.9, 100.0, 1000.0], 0, 1000, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("kcal", [351.0, 351.0], 300, 400, [2]),
        ("kcal_per_hour", [100.0, 200.0], 100, 200, [2]),
        ("target_speed", [-1.0, 0.0, 3.0], -1, 3, [1, 0, 1, 0, 0, 0, 0, 1]),
        ("target_x", [2.0], 2, 3, [1]),
    ],
)
def test_ranges_cover_every_value_once(name: str, values: list[float], low: float, high: float, counts: Any) -> None:
    found = _found(labels=["a"] * len(values), splits=["train"] * len(values), target=values, name=name)
    edges, number = found.ranges()
    assert (edges[0], edges[-1]) == (low, high)
    assert number.tolist() == counts and number.sum() == len(values)
    assert len(edges) == len(number) + 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("kcal", [1.0, 5e9]),  # joules: a hundred wide there would be fifty million
        ("kcal", [-1e300, 1e300]),
        ("speed", [-1.7e308, 1.7e308]),
        ("speed", [1e16, 1e16 + 2]),
        ("speed", [1e300, 1e300]),
        ("speed", [0.0, 5e-324]),
        ("speed", [1e-310, 2e-310]),
    ],
)
def test_ranges_of_any_numbers_are_few_and_hold_them(name: str, values: list[float]) -> None:
    edges, number = _found(labels=["a", "a"], splits=["train", "train"], target=values, name=name).ranges()
    assert len(number) <= 10 and number.sum() == 2
    assert np.isfinite(edges).all() and (edges[1:] > edges[:-1]).all()


def test_explore_takes_every_clip_of_the_manifest_and_sizes_of_done_ones(tmp_path: Path) -> None:
    features = [np.zeros((3, 2), np.float16), np.zeros((5, 2), np.float16), None]
    clips = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "group": "g", "kcal": 100.0 * i} for i in range(3)]
    found = explore(write_store(tmp_path / "s.zarr", {"x": features}, clips))
    assert found.labels.tolist() == ["a", "b", "a"]
    assert found.status == {"done": 2, "failed": 1, "missing": 0}
    np.testing.assert_array_equal(found.sizes["num_frames"], [3, 5, np.nan])
    assert found.to_json()["num_groups"] == 1
    assert not np.isfinite(found.sizes["width_px"]).any()
    store = Store(tmp_path / "s.zarr")
    with pytest.raises(ValueError, match="--label kcal: this column is numeric"):
        explore(store, label="kcal")
    with pytest.raises(ValueError, match=r"--target heat: .* it has kcal"):
        explore(store, target="heat")
    assert explore(store, target="none").target is None


def test_probe_explore_alone_reads_no_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clustered_store(tmp_path / "toy.zarr", num_clips=24, unknown_class=True, weights="random")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a feature was read")

    for name in ("read", "gather", "mean", "std", "thumbnail"):
        monkeypatch.setattr(Store, name, refuse)
    monkeypatch.setattr("reelbank.heads.probes.embedding.tsne", refuse)
    events = []
    result = probe(ProbeConfig(store=tmp_path / "toy.zarr", explore=True, out=tmp_path / "out"), events.append)
    assert [event.stage for event in events] == ["explore", "report"]
    assert {event.total for event in events} == {2}
    names = {path.name for path in result.out.iterdir()}
    pictures = {"class-counts.png", "target-distribution.png", "target-by-class.png", "target-ranges.png"}
    assert names == {*pictures, "clip-sizes.png", "index.html", "results.json"} == set(result.results["files"])
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(stored["analyses"]) == {"explore"}
    assert (stored["num_rows"], stored["num_dimensions"], stored["config"]["tap"]) == (24, None, None)
    assert "24 clips (train" in result.text() and "kcal " in result.text()
    page = result.page.read_text()
    assert ">Exploration</h2>" in page and "class_3" in page and "RANDOM WEIGHTS" in page
    assert page.count("data:image/png;base64,") == len(result.pictures) == 5


def test_probe_explore_beside_others_counts_clips_without_features_too(tmp_path: Path) -> None:
    features = [np.random.default_rng(i).normal(size=(2, 4)).astype(np.float16) for i in range(12)]
    clips = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "group": f"g{i}"} for i in range(13)]
    write_store(tmp_path / "s.zarr", {"x": [*features, None]}, clips)
    result = probe(ProbeConfig(store=tmp_path / "s.zarr", explore=True, kmeans=2, out=tmp_path / "out"))
    assert result.results["num_rows"] == 12
    assert result.results["analyses"]["explore"]["num_clips"] == 13
    assert (tmp_path / "out" / "coordinates.csv").is_file()
    # A later probe without it leaves none of its pictures behind.
    probe(ProbeConfig(store=tmp_path / "s.zarr", kmeans=2, out=tmp_path / "out"))
    assert not (tmp_path / "out" / "clip-sizes.png").exists()


def test_explore_works_where_no_clip_has_features(tmp_path: Path) -> None:
    clips = [{"clip_id": f"c{i}", "label": "a", "kcal": 1.0} for i in range(2)]
    write_store(tmp_path / "s.zarr", {"x": [np.zeros((1, 2), np.float16), None]}, clips)
    store = Store(tmp_path / "s.zarr")
    store.clips.status[:] = 2
    found = explore(store)
    assert found.to_json()["sizes"] == {}
    assert set(exploration_figures.draw_exploration(found, HEADING)) == {
        *("class-counts.png", "target-distribution.png", "target-by-class.png", "target-ranges.png")
    }


@pytest.mark.parametrize("num_classes", [1, 70])
def test_pictures_are_drawn_for_any_number_of_classes(num_classes: int) -> None:
    random = np.random.default_rng(0)
    number = np.arange(4 * num_classes) % num_classes
    found = _found(
        labels=[f"$class_{i}" for i in number],
        splits=random.choice(["train", "test", "unknown"], len(number)).tolist(),
        target=(100 + 10 * number + random.normal(size=len(number))).tolist(),
        seconds=random.gamma(2, 2, len(number)).tolist(),
    )
    drawn = exploration_figures.draw_exploration(found, HEADING)
    assert set(drawn) == {
        *("class-counts.png", "target-distribution.png", "target-by-class.png", "target-ranges.png"),
        *("clip-sizes.png", "class-durations.png"),
    }
    assert all(content.startswith(b"\x89PNG") and len(content) > 5000 for content in drawn.values())


def test_class_means_are_drawn_at_the_means_of_their_split() -> None:
    values, labels = np.array([1.0, 3.0, 10.0, 20.0]), np.array(["a", "a", "b", "b"])
    splits = np.array(["train", "train", "train", "test"])
    axes = exploration_figures.class_means(values, labels, splits, name="kcal", heading=HEADING).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    points = {bar.get_label(): bar.lines[0].get_xdata().tolist() for bar in axes.containers}
    assert points == {"train": [2.0, 10.0], "test": [20.0]}
    spread = axes.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert spread.tolist() == [1.0, 3.0]
