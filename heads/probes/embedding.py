"""Maps of feature vectors: PCA, then t-SNE (scikit-learn's Barnes-Hut or openTSNE's FFT form) or umap-learn's UMAP.

t-SNE: van der Maaten and Hinton, JMLR 9 (2008); Barnes-Hut: van der Maaten, JMLR 15 (2014); FFT:
Linderman et al., Nature Methods 16 (2019). UMAP: McInnes, Healy and Melville, arXiv:1802.03426. Both start from the
first two principal components, which keeps the coarse layout meaningful and the result reproducible (Kobak and Berens,
Nature Comm. 10, 2019; Kobak and Linderman, Nature Biotech. 39, 2021). UMAP's own start, spectral, stumbles over few or
equal rows.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PCA_DIMENSIONS = 50
FFT_FROM_ROWS = 10_000
"""Above this many rows openTSNE's FFT form is the faster one; below it scikit-learn's Barnes-Hut is."""

MIN_ROWS = 5
ONE_THREAD_UP_TO_ROWS = 3000
"""Up to this many rows a second OpenMP thread gains little, and on a busy machine waiting for it costs up to 7x."""

EXACT_NEIGHBOURS_UP_TO_ROWS = 50_000
START_SPREAD = 1e-4
"""Standard deviation of the start's first column: the value both libraries use."""

TsneMethod = Literal["auto", "barnes-hut", "fft"]


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A two-dimensional map and how it was made; what was asked stands beside what was done.

    Attributes:
        coordinates: (n, 2) float64.
        start: (n, 2) float64, the first two principal components, scaled as t-SNE started from them.
        perplexity_asked: as asked.
        perplexity: as used; at most (n - 1) / 3.
        kl_divergence: final Kullback-Leibler divergence in nats. Comparable only at the same perplexity. None where the
            libraries' approximation of it is negative, which no divergence is.
        pca_dimensions: components kept before t-SNE.
        pca_variance: share of the variance those components keep, in [0, 1].
        method: 'barnes-hut' (scikit-learn) or 'fft' (openTSNE).
        seed: as asked.
    """

    coordinates: NDArray[np.float64]
    start: NDArray[np.float64]
    perplexity_asked: float
    perplexity: float
    kl_divergence: float | None
    pca_dimensions: int
    pca_variance: float
    method: str
    seed: int


def tsne(
    rows: NDArray[np.floating],
    *,
    perplexity: float = 30.0,
    num_iterations: int = 1000,
    seed: int = 0,
    method: TsneMethod = "auto",
) -> Embedding:
    """Maps (n, D) rows to the plane.

    Args:
        rows: (n, D), finite, n >= 5.
        perplexity: effective number of neighbours; clipped to (n - 1) / 3, as van der Maaten advises.
        num_iterations: gradient steps in all, the first 250 with early exaggeration.
        seed: same rows, seed and library versions give the same map.
        method: 'barnes-hut', 'fft', or 'auto' (fft above `FFT_FROM_ROWS` rows, where `has_fft`).

    Raises:
        ValueError: too few rows, NaN or Inf, rows that are all equal, or a method that is not here.
    """
    check_rows(rows, perplexity)
    if num_iterations <= 250:
        raise ValueError(f"t-SNE: {num_iterations = }; the first 250 are early exaggeration, ask for more")
    reduced, variance = _principal_components(rows, seed)
    start = _start(reduced, seed)
    effective = min(float(perplexity), (len(rows) - 1) / 3)
    if method == "auto":
        method = "fft" if len(rows) > FFT_FROM_ROWS and has_fft() else "barnes-hut"
    if method == "fft" and not has_fft():
        raise ValueError("t-SNE: method 'fft' is openTSNE's, which is not installed here; ask for 'barnes-hut'")
    run = _fft if method == "fft" else _barnes_hut
    coordinates, divergence = run(reduced, start, effective, num_iterations, seed)
    return Embedding(
        coordinates=coordinates,
        start=start,
        perplexity_asked=float(perplexity),
        perplexity=effective,
        # Both libraries sum it over threads: the digits past these depend on the order.
        kl_divergence=round(divergence, 6) if divergence >= 0 else None,
        pca_dimensions=reduced.shape[1],
        pca_variance=variance,
        method=method,
        seed=seed,
    )


def has_fft() -> bool:
    """Whether openTSNE is here: there are machines for which it has no wheel."""
    return importlib.util.find_spec("openTSNE") is not None


@dataclass(frozen=True, kw_only=True)
class UmapEmbedding:
    """A two-dimensional map by UMAP and how it was made.

    Attributes:
        coordinates: (n, 2) float64.
        start: (n, 2) float64, the first two principal components, where it started.
        neighbours_asked: as asked.
        neighbours: as used; at most n - 1.
        min_dist: least distance of points in the map, of a spread of 1.
        pca_dimensions, pca_variance: as of `Embedding`.
        seed: as asked.
    """

    coordinates: NDArray[np.float64]
    start: NDArray[np.float64]
    neighbours_asked: int
    neighbours: int
    min_dist: float
    pca_dimensions: int
    pca_variance: float
    seed: int


def umap(rows: NDArray[np.floating], *, neighbours: int = 15, min_dist: float = 0.1, seed: int = 0) -> UmapEmbedding:
    """Maps (n, D) rows to the plane by UMAP, in one thread: with more it is another map on every run.

    Args:
        rows: (n, D), finite, n >= 5.
        neighbours: of each row, itself included as umap-learn counts; clipped to n - 1.
        min_dist: least distance of points in the map.
        seed: same rows, seed and library versions give the same map.

    Raises:
        ValueError: as `tsne`, or umap-learn is not installed.
    """
    check_rows(rows, name="UMAP")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries for parts of it that are not used
        try:
            from umap import UMAP
        except ImportError as error:
            raise ValueError(NO_UMAP) from error
    reduced, variance = _principal_components(rows, seed)
    start = _start(reduced, seed)
    used = min(neighbours, len(rows) - 1)
    model = UMAP(n_neighbors=used, min_dist=min_dist, init=start.astype(np.float32), random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coordinates = np.asarray(model.fit_transform(reduced.astype(np.float32)), dtype=np.float64)
    return UmapEmbedding(
        coordinates=coordinates,
        start=start,
        neighbours_asked=neighbours,
        neighbours=used,
        min_dist=min_dist,
        pca_dimensions=reduced.shape[1],
        pca_variance=variance,
        seed=seed,
    )


NO_UMAP = "--umap needs umap-learn, which is an extra: pip install reelbank[umap]"


def has_umap() -> bool:
    """Whether umap-learn is here. It is looked for and not imported, which takes seconds."""
    return importlib.util.find_spec("umap") is not None


def check_rows(rows: NDArray[np.floating], perplexity: float = 1.0, *, name: str = "t-SNE") -> None:
    """Whether (n, D) rows can be mapped. Raises ValueError as `tsne` does; `name` is what the sentence begins with."""
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{name}: {rows.shape = }, expected (n, D)")
    if len(rows) < MIN_ROWS:
        raise ValueError(
            f"{name}: {len(rows)} rows found, at least {MIN_ROWS} needed; "
            "add clips, or pass --level step, which maps steps instead of clips"
        )
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"{name}: row {bad} holds NaN or Inf; run `reelbank store verify` on the store")
    if np.ptp(rows, axis=0).max() == 0:
        raise ValueError(f"{name}: all {len(rows)} rows are equal; there is nothing to map")
    if perplexity <= 0:
        raise ValueError(f"{name}: {perplexity = }; it must be above 0")


def _principal_components(rows: NDArray[np.floating], seed: int) -> tuple[NDArray[np.float64], float]:
    from sklearn.decomposition import PCA

    dimensions = min(PCA_DIMENSIONS, *rows.shape)
    pca = PCA(n_components=dimensions, random_state=seed)
    reduced = pca.fit_transform(rows.astype(np.float64))
    return np.ascontiguousarray(reduced, dtype=np.float64), min(float(pca.explained_variance_ratio_.sum()), 1.0)


def _start(reduced: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    start = reduced[:, :2] / np.std(reduced[:, 0]) * START_SPREAD
    if start.shape[1] == 1 or np.std(start[:, 1]) == 0:
        # On a line the gradient never leaves it: a seeded breath of noise opens the second dimension.
        noise = np.random.default_rng(seed).normal(scale=START_SPREAD / 100, size=len(start))
        start = np.stack([start[:, 0], noise], axis=1)
    return np.ascontiguousarray(start)


def _barnes_hut(
    reduced: NDArray[np.float64],
    start: NDArray[np.float64],
    perplexity: float,
    num_iterations: int,
    seed: int,
) -> tuple[NDArray[np.float64], float]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = TSNE(
        n_components=2,
        perplexity=perplexity,
        init=start.astype(np.float32),
        max_iter=num_iterations,
        random_state=seed,
        n_jobs=-1,
    )
    with threadpool_limits(limits=1 if len(reduced) <= ONE_THREAD_UP_TO_ROWS else None, user_api="openmp"):
        coordinates = model.fit_transform(reduced)
    return coordinates.astype(np.float64), float(model.kl_divergence_)


def _fft(
    reduced: NDArray[np.float64],
    start: NDArray[np.float64],
    perplexity: float,
    num_iterations: int,
    seed: int,
) -> tuple[NDArray[np.float64], float]:
    from openTSNE import TSNE

    model = TSNE(
        n_components=2,
        perplexity=perplexity,
        initialization=start.copy(),
        early_exaggeration_iter=250,
        n_iter=num_iterations - 250,
        negative_gradient_method="fft",
        # The approximate index is built by several threads at once: only there for sizes that need it.
        neighbors="exact" if len(reduced) <= EXACT_NEIGHBOURS_UP_TO_ROWS else "approx",
        random_state=seed,
        n_jobs=1 if len(reduced) <= ONE_THREAD_UP_TO_ROWS else -1,
    )
    fitted = model.fit(reduced)
    return np.asarray(fitted, dtype=np.float64), float(fitted.kl_divergence)
