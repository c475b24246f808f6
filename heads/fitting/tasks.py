"""What one output is fitted to without gradients, and how well given probabilities do at it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reelbank.heads.examples.targets import Bins
from reelbank.heads.judging.metrics import point_estimate

STRATA = 5  # parts of a target's range that folds spread evenly
LEAST = 1e-6  # of a probability whose logarithm judges a candidate


@dataclass(frozen=True, kw_only=True)
class Task:
    """One output of a head over the clips of a table.

    Attributes:
        kind: `classes`, `labels` (several per clip) or `target`.
        columns: K, classes or bins.
        truth: int64 (N,) class, -1 where unknown | float32 (N, K) 0 or 1 | float64 (N,) value, NaN where empty.
        known: bool (N,), which clips say something.
        weights: float64 (N,), what a clip counts.
        bins: of a target.
        estimate: the value that a distribution over bins stands for.
    """

    kind: str
    columns: int
    truth: NDArray[np.generic]
    known: NDArray[np.bool_]
    weights: NDArray[np.float64]
    bins: Bins | None = None
    estimate: str = "median"

    def entries(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(place in `rows`, column) of every label of the clips `rows`."""
        if self.kind == "labels":
            place, column = np.nonzero(self.truth[rows])
            return place, column
        own = np.arange(len(rows))
        if self.bins is None:
            return own, self.truth[rows].astype(np.int64)
        return own, self.bins.nearest(self.truth[rows].astype(np.float64))

    def marginal(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Frequencies of the columns among the clips `rows`, float64 (K,)."""
        place, column = self.entries(rows)
        weights = self.weights[rows]
        counts = np.bincount(column, weights=weights[place], minlength=self.columns)
        frequencies: NDArray[np.float64] = counts / weights.sum()
        return frequencies

    def loss(self, probabilities: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """What judges candidates, of each clip (n,): nats (mean over the labels where there are several), or units."""
        if self.bins is not None:
            error: NDArray[np.float64] = np.abs(self.values(probabilities) - self.truth[rows].astype(np.float64))
            return error
        p = np.clip(probabilities, LEAST, 1 - LEAST)
        if self.kind == "labels":
            truth = self.truth[rows].astype(np.float64)
            mean: NDArray[np.float64] = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean(axis=1)
            return mean
        nats: NDArray[np.float64] = -np.log(p[np.arange(len(rows)), self.truth[rows].astype(np.int64)])
        return nats

    def values(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values that distributions over the bins (n, K) stand for."""
        assert self.bins is not None
        return point_estimate(probabilities, self.bins.values(), self.estimate)

    def strata(self) -> NDArray[np.str_]:
        """What folds spread evenly, of each clip (N,): the class, the most unusual label, a fifth of the range."""
        if self.kind == "classes":
            return self.truth.astype(str)
        if self.kind == "labels":
            rare = self.truth[self.known].sum(axis=0)
            order = np.argsort(rare, kind="stable")
            first = self.truth[:, order].argmax(axis=1)
            return np.where(self.truth.any(axis=1), order[first], -1).astype(str)
        edges = np.quantile(self.truth[self.known].astype(np.float64), np.linspace(0, 1, STRATA + 1)[1:-1])
        return np.searchsorted(edges, self.truth.astype(np.float64)).astype(str)
