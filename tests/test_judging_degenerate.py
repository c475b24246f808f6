"""Degenerate stores: every number of a run or a probe is in its range, or absent, or the command says why it refuses.

A table of stores (constant, repeated, tiny, one-sided) times what is asked of them; results.json is walked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import config
from remembered import write_store

from reelbank.heads import TrainingError, train_head
from reelbank.heads.judging import intervals
from reelbank.heads.judging.evaluation import summary_text
from reelbank.heads.probes import exploration_figures
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.probe import probe
from reelbank.heads.reports import drawing, figures

INF = math.inf
NAN = math.nan

Clips = list[dict[str, Any]]
Steps = list[np.ndarray]


def _usual(splits: Sequence[str] = ("train",) * 8 + ("val",) * 4 + ("test",) * 6) -> tuple[Clips, Steps]:
    """Two classes that are easy to tell apart, kcal that follows them, two clips of a group each."""
    random = np.random.default_rng(len(splits))
    clips = [
        {"clip_id": f"c{i}", "split": split, "label": "ab"[i % 2], "group": f"{split}{i // 2}", "kcal": 200.0 + 9 * i}
        for i, split in enumerate(splits)
    ]
    return clips, [random.normal(size=(2, 5)) + 3 * (i % 2) for i in range(len(splits))]


def _with(**fields: Callable[[int, Mapping[str, Any]], Any]) -> tuple[Clips, Steps]:
    clips, steps = _usual()
    given = [{**clip, **{name: value(i, clip) for name, value in fields.items()}} for i, clip in enumerate(clips)]
    return given, steps


def _features(of: Callable[[int, np.ndarray], np.ndarray]) -> tuple[Clips, Steps]:
    clips, steps = _usual()
    return clips, [of(i, array) for i, array in enumerate(steps)]


STORES: dict[str, Callable[[], tuple[Clips, Steps]]] = {
    "usual": _usual,
    "constant features": lambda: _features(lambda i, a: np.ones_like(a)),
    "zero features": lambda: _features(lambda i, a: np.zeros_like(a)),
    "constant in training": lambda: _features(lambda i, a: a if i >= 8 else np.ones_like(a)),
    "two distinct rows": lambda: _features(lambda i, a: np.full_like(a, i % 2)),
    "nearly constant features": lambda: _features(lambda i, a: 1 + 1e-7 * a),
    "huge features": lambda: _features(lambda i, a: 1e4 * a),
    "tiny features": lambda: _features(lambda i, a: 1e-30 * a),
    "one dimension": lambda: _features(lambda i, a: a[:1, :1]),
    "one class": lambda: _with(label=lambda i, clip: "a"),
    "one class in test": lambda: _with(label=lambda i, clip: "a" if clip["split"] == "test" else clip["label"]),
    "another class in test": lambda: _with(label=lambda i, clip: "z" if i == 17 else clip["label"]),
    "no labels in test": lambda: _with(label=lambda i, clip: "" if clip["split"] == "test" else clip["label"]),
    "each clip a class": lambda: _with(label=lambda i, clip: f"k{i % 8}"),
    "all wrong": lambda: _with(label=lambda i, clip: "ba"[i % 2] if clip["split"] == "test" else clip["label"]),
    "constant target": lambda: _with(kcal=lambda i, clip: 300.0),
    "constant target in test": lambda: _with(kcal=lambda i, clip: 300.0 if clip["split"] == "test" else clip["kcal"]),
    "no target in test": lambda: _with(kcal=lambda i, clip: NAN if clip["split"] == "test" else clip["kcal"]),
    "one target in test": lambda: _with(
        kcal=lambda i, clip: NAN if clip["split"] == "test" and i < 17 else clip["kcal"]
    ),
    "no target": lambda: _with(kcal=lambda i, clip: NAN),
    "target outside the bins": lambda: _with(kcal=lambda i, clip: clip["kcal"] + 5000 * (clip["split"] == "test")),
    "one group": lambda: _with(group=lambda i, clip: clip["split"]),
    "no groups": lambda: _with(group=lambda i, clip: ""),
    "only training": lambda: _with(split=lambda i, clip: "train"),
    "no training": lambda: _with(split=lambda i, clip: "test"),
    "no splits": lambda: _with(split=lambda i, clip: "extra"),
    "unknown alone beside": lambda: _with(split=lambda i, clip: "unknown" if i >= 12 else clip["split"]),
    "unused": lambda: _with(split=lambda i, clip: "unused" if i >= 15 else clip["split"]),
    "one clip": lambda: _usual(("train",)),
    "two clips": lambda: _usual(("train", "test")),
    "three clips": lambda: _usual(("train", "train", "test")),
    "three clips, all parts": lambda: _usual(("train", "val", "test")),
    "four clips": lambda: _usual(("train", "train", "val", "test")),
    "five training clips": lambda: _usual(("train",) * 5),
}

ASKED: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "classes": lambda store, out: _train(store, out, target="none"),
    "target": lambda store, out: _train(store, out, label="none", estimate="expectation"),
    "distribution": lambda store, out: _train(store, out, label="none", loss="kld"),
    "folds": lambda store, out: _train(store, out, folds=3),
    "probe": lambda store, out: _probe(store, out, tsne=True, kmeans=2, explore=True, knn=3, linear=True),
}
ALONE: dict[str, dict[str, Any]] = {
    "tsne": {"tsne": True},
    "kmeans": {"kmeans": 2, "explore": True},
    "neighbours": {"knn": 3, "linear": True},
}
"""Parts of "probe", asked one by one where a store is too small for all at once."""


def _train(store: Path, out: Path, **options: Any) -> dict[str, Any]:
    usual = {"head": "linear", "epochs": 3, "bins": 11, "batch": 8, "lr": 0.05}
    return dict(train_head(config(store=(store,), run=out, **{**usual, **options})).results)


def _probe(store: Path, out: Path, **options: Any) -> dict[str, Any]:
    return probe(ProbeConfig(store=store, out=out, device="cpu", **options)).results


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 60)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 40)


RANGES = {
    **dict.fromkeys(
        ("accuracy", "macro_f1", "weighted_f1", "top5_accuracy", "precision", "recall", "f1", "share"), (0, 1)
    ),
    **dict.fromkeys(("purity", "nmi", "pca_variance", "val_accuracy"), (0, 1)),
    **dict.fromkeys(("overlap", "overlap_permuted", "nearest_share"), (0, 1)),
    **dict.fromkeys(("spread", "spread_permuted"), (0, INF)),
    **dict.fromkeys(("spc_values", "spc_bins", "ari", "silhouette"), (-1, 1)),
    **dict.fromkeys(("mae", "mae_bins", "nll", "nll_mean", "kl_divergence", "inertia", "std", "seconds"), (0, INF)),
    **dict.fromkeys(("cluster_mean_label", "nearest_train", "cluster_id", "shuffled_cluster_id"), (0, INF)),
    **dict.fromkeys(("perplexity", "num_clips", "num_groups", "n", "count", "drawn", "num_rows"), (0, INF)),
}


def _numbers(value: Any, name: str = "", metric: str = "") -> Iterator[tuple[str, str, float]]:
    """(path, the metric that it is of or '', number) of every number below `value`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            known = key if key in RANGES else metric if key in ("value", "low", "high") else ""
            yield from _numbers(inner, f"{name}.{key}", known)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _numbers(inner, f"{name}[{place}]", "")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, metric, float(value)


def _intervals(value: Any, name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        if {"value", "low", "high"} <= set(value):
            yield name, value
        for key, inner in value.items():
            yield from _intervals(inner, f"{name}.{key}")


def _check(results: Mapping[str, Any]) -> None:
    for path, metric, number in _numbers(results):
        assert math.isfinite(number), f"{path} is {number}"
        low, high = RANGES.get(metric, (-INF, INF))
        assert low <= number <= high, f"{path} is {number}, a {metric} from {low} to {high}"
    for path, found in _intervals(results):
        bounds = found["low"], found["high"]
        if found["value"] is None or None in bounds:
            assert bounds == (None, None), f"{path} is {found}"
            assert found["interval"] in (intervals.NO_GROUPS, intervals.ALL_ALIKE, intervals.UNDEFINED), path
            continue
        assert bounds[0] <= found["value"] <= bounds[1], f"{path} is {found}"
        assert bounds[0] < bounds[1], f"{path} of {found['drawn']} groups is sure: {found}"
        assert found["drawn"] > 1, f"{path} is {found}"
        assert found["interval"] in (intervals.BOOTSTRAP, intervals.WILSON), path


def _write(path: Path, name: str) -> Path:
    clips, steps = STORES[name]()
    write_store(path, {"f": [array.astype(np.float32) for array in steps]}, clips)
    return path


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("store") / "s.zarr", request.param)


def _answered(ask: Callable[[Path, Path], dict[str, Any]], store: Path, out: Path) -> bool:
    """Whether there is an answer; its numbers are in range, and a refusal is a sentence."""
    try:
        results = ask(store, out)
    except (TrainingError, ValueError) as error:
        said = str(error)
        assert type(error) in (TrainingError, ValueError), said
        assert len(said.split()) > 5, said  # not an exception of numpy's
        return False
    _check(results)
    _check(json.loads((out / "results.json").read_text()))
    return True


@pytest.mark.parametrize("asked", ASKED)
def test_every_number_is_in_its_range_or_absent(
    store: Path, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (drawing, figures, exploration_figures):  # figures are made, and not rendered: that takes the time
        monkeypatch.setattr(module, "png", lambda figure: b"")
    if not _answered(ASKED[asked], store, tmp_path / "out") and asked == "probe":
        for name, options in ALONE.items():
            _answered(lambda store, out, options=options: _probe(store, out, **options), store, tmp_path / name)


WORDS = re.compile(r"\b(nan|inf|None)\b")


@pytest.mark.parametrize(
    "name", ["constant target in test", "no target in test", "one group", "three clips, all parts"]
)
def test_pages_of_degenerate_runs_show_numbers_or_dashes(name: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "s.zarr", name)
    results = _train(path, tmp_path / "run", label="none", report=True)
    shown = [(tmp_path / "run" / "report.html").read_text(), summary_text(tmp_path / "run", results)]
    _probe(path, tmp_path / "probe", kmeans=2)
    shown.append((tmp_path / "probe" / "index.html").read_text())
    for text in shown:
        found = re.sub(r"<pre.*?</pre>|data:image[^\"]*", "", text, flags=re.DOTALL)
        assert not WORDS.findall(found)


def test_what_says_nothing_is_absent_with_a_reason(tmp_path: Path) -> None:
    found = {}
    for name in ("one class", "two clips", "constant features"):
        found[name] = _probe(_write(tmp_path / f"{name}.zarr", name), tmp_path / name, kmeans=2)
    assert "labels" not in found["one class"]["analyses"]["kmeans"]
    assert any(note.startswith("NMI, ARI and purity are not shown") for note in found["one class"]["notes"])
    said = "kcal is not read from the clusters: that needs it in 2 training rows, found 1."
    assert said in found["two clips"]["notes"]
    assert any(
        note.startswith("All 18 rows are equal (--normalize zscore)") for note in found["constant features"]["notes"]
    )
