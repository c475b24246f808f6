"""t-SNE and UMAP: a map better than its start, the same on every run."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from reelbank.heads.probes import embedding
from reelbank.heads.probes.analyses import maps
from reelbank.heads.probes.embedding import Embedding, tsne, umap


def _clusters(num_rows: int = 300, num_classes: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=num_rows)
    return random.normal(size=(num_classes, 60))[labels] * 1.5 + random.normal(size=(num_rows, 60)), labels


def _knn_accuracy(points: np.ndarray, labels: np.ndarray) -> float:
    distances = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return float(np.mean(labels[distances.argmin(axis=1)] == labels))


@pytest.mark.parametrize("method", ["barnes-hut", "fft"])
def test_map_separates_what_its_start_does_not(method: str) -> None:
    rows, labels = _clusters()
    # The FFT form costs the same for few rows as for thousands: fewer steps are enough to see it work.
    num_iterations = 500 if method == "barnes-hut" else 300
    found = tsne(rows, perplexity=10, num_iterations=num_iterations, method=method)
    start, final = _knn_accuracy(found.start, labels), _knn_accuracy(found.coordinates, labels)
    assert start < 0.75
    assert final > start + 0.2
    assert final > 0.95
    assert found.method == method


@pytest.mark.parametrize("method", ["barnes-hut", "fft"])
def test_same_seed_gives_the_same_map(method: str) -> None:
    rows, _ = _clusters(num_rows=80)
    first, second = (tsne(rows, num_iterations=251, seed=3, method=method) for _ in range(2))
    assert np.array_equal(first.coordinates, second.coordinates)
    assert first.kl_divergence == second.kl_divergence


def test_without_opentsne_scikit_learn_stands_in_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = SimpleNamespace(rows=_Rows(_clusters(num_rows=40)[0]), options={"perplexity": 5.0}, seed=0)
    assert embedding.has_fft()
    assert maps.tsne_map(asked).notes == []  # type: ignore[arg-type]
    monkeypatch.setattr(embedding, "FFT_FROM_ROWS", 30)
    monkeypatch.setattr(maps, "FFT_FROM_ROWS", 30)
    monkeypatch.setitem(sys.modules, "openTSNE", None)  # as an import finds it that is not there
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (note,) = maps.tsne_map(asked).notes  # type: ignore[arg-type]
    assert note == "The t-SNE is scikit-learn's: openTSNE, which is faster above 30 rows, is not installed."
    with pytest.raises(ValueError, match="openTSNE's, which is not installed here"):
        tsne(asked.rows.vectors, method="fft")


class _Rows:
    """Of a question: its vectors."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.clip_rows = vectors, np.arange(len(vectors))
        self.labels = np.array(["a", "b"])[self.clip_rows % 2]

    def __len__(self) -> int:
        return len(self.vectors)


def test_perplexity_is_clipped_and_both_values_kept() -> None:
    rows, _ = _clusters(num_rows=31)
    found = tsne(rows, perplexity=30, num_iterations=260)
    assert (found.perplexity_asked, found.perplexity) == (30, 10)


def test_pca_keeps_at_most_fifty_dimensions_and_says_how_much_they_hold() -> None:
    rows, _ = _clusters()
    found = tsne(rows, num_iterations=260)
    assert found.pca_dimensions == 50
    assert 0.5 < found.pca_variance < 1
    assert found.start[:, 0].std() == pytest.approx(1e-4)


def test_one_dimension_still_gives_a_plane() -> None:
    found = tsne(np.linspace(0, 1, 40)[:, None], num_iterations=300)
    assert isinstance(found, Embedding)
    assert np.isfinite(found.coordinates).all()
    assert found.coordinates[:, 1].std() > 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((3, 2)), r"3 rows found, at least 5 needed.*--level step"),
        (np.ones((20, 4)), "all 20 rows are equal"),
        (np.array([[0.0, 1.0]] * 8 + [[np.inf, 0.0]]), "row 8 holds NaN or Inf"),
        (np.zeros(9), "expected"),
    ],
)
def test_rows_that_cannot_be_mapped_are_refused(rows: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tsne(rows)


def test_divergence_below_zero_is_not_shown() -> None:
    """Barnes-Hut's approximation of it is negative where rows repeat."""
    rows = np.repeat(np.random.default_rng(0).normal(size=(3, 6)), 20, axis=0)
    found = maps.tsne_map(SimpleNamespace(rows=_Rows(rows), options={"perplexity": 30.0}, seed=0))  # type: ignore[arg-type]
    assert found.numbers["kl_divergence"] is None
    assert found.sentences[0] == "t-SNE of 60 rows: perplexity 19.6667 (30 asked)."
    assert any("approximation of it is below 0" in note for note in found.notes)


def test_umap_separates_what_its_start_does_not_and_is_the_same_again() -> None:
    pytest.importorskip("umap")
    rows, labels = _clusters()
    found, again = (umap(rows, neighbours=10, seed=3) for _ in range(2))
    assert np.array_equal(found.coordinates, again.coordinates)
    assert not np.array_equal(found.coordinates, umap(rows, neighbours=10, seed=4).coordinates)
    assert _knn_accuracy(found.start, labels) < 0.75
    assert _knn_accuracy(found.coordinates, labels) > 0.95


@pytest.mark.parametrize(
    ("rows", "used", "said"),
    [
        (_clusters(num_rows=5)[0], 4, ["UMAP: 15 neighbours were asked, 4 used: 5 rows allow no more."]),
        (np.repeat(_clusters(num_rows=3)[0], 20, axis=0), 15, ["UMAP: 57 of 60 rows equal an earlier one"]),
        (np.linspace(0, 1, 40)[:, None], 15, []),
    ],
    ids=["few", "equal", "one dimension"],
)
def test_umap_of_few_or_equal_rows_is_a_map_and_says_so(rows: np.ndarray, used: int, said: list[str]) -> None:
    pytest.importorskip("umap")
    options = {"umap_neighbors": 15, "umap_min_dist": 0.1}
    found = maps.umap_map(SimpleNamespace(rows=_Rows(rows), options=options, seed=0))  # type: ignore[arg-type]
    assert found.coordinates is not None and found.coordinates.shape == (len(rows), 2)
    assert np.isfinite(found.coordinates).all() and (np.ptp(found.coordinates, axis=0) > 0).all()
    assert (found.numbers["neighbours_asked"], found.numbers["neighbours"]) == (15, used)
    assert len(found.notes) == len(said)
    assert all(note.startswith(begin) for note, begin in zip(found.notes, said, strict=True))


def test_umap_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = SimpleNamespace(rows=_Rows(_clusters(num_rows=40)[0]), options={}, seed=0)
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (lambda: maps.check_umap(asked), lambda: umap(asked.rows.vectors)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"--umap needs umap-learn, .* pip install reelbank\[umap\]"):
            call()
