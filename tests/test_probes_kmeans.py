"""k-means: as good as scikit-learn's, the same on every run, and honest where it cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from reelbank.heads.probes.kmeans import Clustering, kmeans

METHODS = ("blocked", "gram")


def _rows(num_rows: int = 600, num_dimensions: int = 24, num_centers: int = 30, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centers = random.normal(size=(num_centers, num_dimensions)) * 2 + 50
    return centers[random.integers(num_centers, size=num_rows)] + random.normal(size=(num_rows, num_dimensions))


@pytest.mark.parametrize("num_clusters", [8, 60, 250])
def test_inertia_equals_that_of_scikit_learn(num_clusters: int) -> None:
    from sklearn.cluster import KMeans

    rows = _rows()
    ours = [kmeans(rows, num_clusters, seed=seed).inertia for seed in range(6)]
    theirs = [KMeans(num_clusters, n_init=1, random_state=seed).fit(rows).inertia_ for seed in range(6)]
    # Two random starts of one algorithm: single seeds scatter, the means and the best agree.
    assert np.mean(ours) <= np.mean(theirs) * 1.005
    assert min(ours) <= min(theirs) * 1.01


@pytest.mark.parametrize("method", METHODS)
def test_clusters_found_are_the_planted_ones(method: str) -> None:
    random = np.random.default_rng(1)
    planted = random.integers(5, size=300)
    rows = random.normal(size=(5, 12))[planted] * 20 + random.normal(size=(300, 12))
    found = kmeans(rows, 5, method=method).labels
    pairs = set(zip(planted.tolist(), found.tolist(), strict=True))
    assert len(pairs) == 5


@pytest.mark.parametrize("method", METHODS)
def test_result_is_a_fixed_point_of_lloyd(method: str) -> None:
    rows = _rows()
    result = kmeans(rows, 40, tol=0, method=method)
    assert np.array_equal(result.counts, np.bincount(result.labels, minlength=40))
    for cluster in range(40):
        np.testing.assert_allclose(result.centers[cluster], rows[result.labels == cluster].mean(axis=0))
    distances = ((rows[:, None] - result.centers[None]) ** 2).sum(axis=2)
    assert result.inertia == pytest.approx(distances[np.arange(len(rows)), result.labels].sum())
    # float32 distances decide; a row may sit on a border only to their rounding.
    assert result.inertia <= distances.min(axis=1).sum() * (1 + 1e-5)
    assert np.mean(result.assign(rows) == result.labels) > 0.99


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_gives_the_same_clusters(method: str) -> None:
    rows = _rows()
    first, second, other = (kmeans(rows, 50, seed=seed, method=method) for seed in (3, 3, 4))
    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.centers, second.centers)
    assert not np.array_equal(first.labels, other.labels)


def test_more_starts_are_never_worse() -> None:
    rows = _rows()
    assert kmeans(rows, 40, n_init=8).inertia <= kmeans(rows, 40, n_init=1).inertia * (1 + 1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_unit_and_offset_of_the_features_do_not_matter(scale: float) -> None:
    rows = _rows()
    assert np.array_equal(kmeans(rows, 30).labels, kmeans(rows * scale + 7 * scale, 30).labels)


@pytest.mark.parametrize("method", METHODS)
def test_one_cluster_and_as_many_as_rows_are_exact(method: str) -> None:
    rows = _rows(num_rows=40)
    one = kmeans(rows, 1, method=method)
    assert one.inertia == pytest.approx(((rows - rows.mean(axis=0)) ** 2).sum())
    every = kmeans(rows, 40, method=method)
    assert every.inertia == pytest.approx(0)
    assert sorted(every.labels.tolist()) == list(range(40))


@pytest.mark.parametrize("method", METHODS)
def test_fewer_distinct_rows_than_clusters_leaves_clusters_empty(method: str) -> None:
    rows = np.repeat(_rows(num_rows=5), 4, axis=0)
    result = kmeans(rows, 9, method=method)
    assert int((result.counts > 0).sum()) == 5
    assert result.inertia == pytest.approx(0)
    assert np.isnan(result.centers[result.counts == 0]).all()
    assert np.array_equal(result.assign(rows), result.labels)


def test_empty_cluster_takes_the_farthest_row() -> None:
    import torch

    from reelbank.heads.probes.kmeans_gram import fill_empty

    labels = torch.tensor([0, 0, 0, 2])
    filled = fill_empty(labels, torch.tensor([1.0, 5.0, 2.0, 9.0]), 3)
    # Row 3 is farther, but it is all that cluster 2 has.
    assert filled.tolist() == [0, 1, 0, 2]


def test_blocked_is_as_good_as_gram() -> None:
    rows = _rows(num_rows=900)
    gram = np.mean([kmeans(rows, 60, seed=seed, method="gram").inertia for seed in range(4)])
    blocked = np.mean([kmeans(rows, 60, seed=seed, method="blocked").inertia for seed in range(4)])
    assert blocked == pytest.approx(gram, rel=0.02)


def test_more_clusters_than_rows_names_both_and_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"1000 clusters asked, 40 rows found.*--level step"):
        kmeans(_rows(num_rows=40), 1000)


@pytest.mark.parametrize(
    ("rows", "num_clusters", "message"),
    [
        (np.zeros(4), 2, "expected"),
        (np.array([[0.0], [np.nan], [1.0]]), 2, "row 1 holds NaN or Inf"),
        (np.zeros((4, 2)), 0, "at least 1"),
    ],
)
def test_bad_input_is_refused(rows: np.ndarray, num_clusters: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmeans(rows, num_clusters)


def test_gpu_gives_the_same_inertia_twice() -> None:
    import os

    import torch

    if not torch.cuda.is_available():
        if os.environ.get("REELBANK_REQUIRE_CUDA") == "1":
            pytest.fail("REELBANK_REQUIRE_CUDA=1, and torch sees no GPU")
        pytest.skip("needs a GPU")
    rows = _rows(num_rows=3000)
    for method in METHODS:
        results: list[Clustering] = [kmeans(rows, 200, seed=1, device="cuda", method=method) for _ in range(2)]  # type: ignore[arg-type]
        assert np.array_equal(results[0].labels, results[1].labels)
        assert results[0].inertia == pytest.approx(kmeans(rows, 200, seed=1, method=method).inertia, rel=0.01)  # type: ignore[arg-type]
