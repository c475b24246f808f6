"""Probes: k-means with 1,000 clusters and t-SNE of 20,000 rows, against scikit-learn.

scikit-learn's k-means is run with `n_init` 1 and multiplied where 30 would take too long: its starts are independent.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.benchmarks.measuring import Stage, Timing, interleaved, main
from reelbank.heads.probes.embedding import tsne
from reelbank.heads.probes.kmeans import kmeans

INERTIA_MARGIN = 1.005


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        n_init: starts of our k-means.
        peer_n_init: starts of scikit-learn's; its seconds are multiplied by n_init / peer_n_init.
    """

    rows: int
    dimension: int
    clusters: int
    n_init: int
    peer_n_init: int
    tsne_rows: int
    tsne_iterations: int
    repeats: int


SIZES = {
    "tiny": Size(
        rows=200, dimension=32, clusters=20, n_init=3, peer_n_init=1, tsne_rows=120, tsne_iterations=260, repeats=1
    ),
    "normal": Size(
        rows=2476, dimension=1536, clusters=1000, n_init=30, peer_n_init=1, tsne_rows=20_000, tsne_iterations=300,
        repeats=1,
    ),
    "full": Size(
        rows=2476, dimension=1536, clusters=1000, n_init=30, peer_n_init=30, tsne_rows=20_000, tsne_iterations=1000,
        repeats=1,
    ),
}  # fmt: skip


def measure(scale: str, work: Path) -> Stage:
    """All probe rows."""
    size, stage = SIZES[scale], Stage()
    stage.inputs["clustered"] = {"rows": size.rows, "dimension": size.dimension, "planted_clusters": 300}
    stage.inputs["tsne"] = {"rows": size.tsne_rows, "dimension": 384, "planted_clusters": 27}
    _kmeans(stage, size)
    _tsne(stage, size)
    return stage


def clustered(rows: int, dimension: int, clusters: int) -> npt.NDArray[np.float32]:
    """Gaussian clusters (rows, dimension) of unequal size."""
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(clusters, dimension))
    labels = (clusters * generator.beta(1, 1.6, rows)).astype(int)
    points = centers[labels] + generator.normal(size=(rows, dimension)) * 0.8
    return np.asarray(points, np.float32)


def _kmeans(stage: Stage, size: Size) -> None:
    from sklearn.cluster import KMeans

    rows = clustered(size.rows, size.dimension, 300)
    kmeans(rows[:50], 5)  # imports
    found: dict[str, float] = {}

    def ours() -> None:
        found["ours"] = kmeans(rows, size.clusters, n_init=size.n_init).inertia

    def theirs(kind: str) -> None:
        peer: Any = KMeans(size.clusters, n_init=size.peer_n_init, random_state=0)
        found[kind] = float(peer.fit(rows.astype(kind)).inertia_)

    times = interleaved(
        {"ours": ours, "float64": lambda: theirs("float64"), "float32": lambda: theirs("float32")},
        size.repeats,
        warm=False,
    )
    factor = size.n_init / size.peer_n_init
    note = "" if factor == 1 else f"scaled down: n_init {size.n_init}, peer's {size.peer_n_init} times {factor:g}"
    what = f"k-means, K = {size.clusters}, n = {size.rows}, D = {size.dimension}, n_init {size.n_init}"
    for kind, target in (("float64", ">= 40"), ("float32", ">= 70")):
        peer_times = Timing(seconds=tuple(value * factor for value in times[kind].seconds))
        stage.compare(
            f"probe.kmeans.{kind}", what, times["ours"], f"scikit-learn, {kind} input", peer_times, target, note
        )
    stage.quality(
        "probe.kmeans.inertia", "inertia against scikit-learn's", found["ours"] / found["float64"], "scikit-learn",
        f"<= {INERTIA_MARGIN}",
    )  # fmt: skip


def _tsne(stage: Stage, size: Size) -> None:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = clustered(size.tsne_rows, 384, 27)
    importlib.import_module("openTSNE")  # not charged

    def theirs() -> None:
        reduced = PCA(50, random_state=0).fit_transform(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            TSNE(init="pca", max_iter=size.tsne_iterations, random_state=0, n_jobs=2).fit_transform(reduced)

    times = interleaved(
        {"ours": lambda: tsne(rows, num_iterations=size.tsne_iterations, method="fft"), "theirs": theirs},
        size.repeats,
        warm=False,
    )
    note = "" if size.tsne_iterations == 1000 else f"scaled down: {size.tsne_iterations} iterations on both sides"
    what = f"t-SNE of {size.tsne_rows} x 384, PCA to 50 first"
    stage.compare("probe.tsne", what, times["ours"], "scikit-learn Barnes-Hut", times["theirs"], ">= 1.5", note)


if __name__ == "__main__":
    main("probe", measure, __doc__)
