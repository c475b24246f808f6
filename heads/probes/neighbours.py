"""Probes that need no trained head: nearest neighbours and a linear classifier, judged as a head would be.

Fitted on the training rows and judged on the test rows of the store; where it has no test split, on the
validation rows; where it has neither, each group is judged by the others. Groups are never on both sides.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.examples.splits import assign_folds, count_groups
from reelbank.heads.judging.baselines import of_classes
from reelbank.heads.judging.evaluation import number
from reelbank.heads.judging.intervals import estimate, group_numbers
from reelbank.heads.judging.metrics import METRICS, ClassScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reelbank.heads.probes.rows import ProbeRows

LINEAR_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse L2 strengths C tried by the linear probe."""

LINEAR_FOLDS = 5
_BLOCK_ELEMENTS = 32_000_000
"""Entries of one (queries, donors) block of similarities: 128 MB in float32."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Who is judged by whom.

    Attributes:
        judged: (J,) int64 rows that are judged.
        fitted: (F,) int64 rows that may be fitted on; a row is never judged by its own group.
        choosing: (C,) int64 rows that choose a setting, disjoint from `judged`; empty: chosen inside `fitted`.
        reported: 'test', 'val' or 'held-out groups'.
        sentence: for the report.
    """

    judged: NDArray[np.int64]
    fitted: NDArray[np.int64]
    choosing: NDArray[np.int64]
    reported: str
    sentence: str


def make_protocol(rows: ProbeRows) -> Protocol:
    """The protocol the splits of `rows` allow. Rows without a label or of 'unknown' or 'unused' are left out."""
    labelled = rows.labels != ""
    train, val, test = (np.flatnonzero(labelled & (rows.splits == name)) for name in ("train", "val", "test"))
    if len(train) and len(test):
        sentence = f"Fitted on {len(train)} training rows, judged on {len(test)} test rows."
        return Protocol(judged=test, fitted=train, choosing=val, reported="test", sentence=sentence)
    if len(train) and len(val):
        sentence = f"No test split: fitted on {len(train)} training rows, judged on {len(val)} validation rows."
        return Protocol(judged=val, fitted=train, choosing=val[:0], reported="val", sentence=sentence)
    every = np.flatnonzero(labelled & ~np.isin(rows.splits, ("unknown", "unused")))
    sentence = (
        f"No train and test split together: each of {len(np.unique(rows.groups[every]))} groups "
        "(clips, where there are no groups) is judged by the others."
    )
    return Protocol(judged=every, fitted=every, choosing=every[:0], reported="held-out groups", sentence=sentence)


def knn(rows: ProbeRows, protocol: Protocol, k: int, *, seed: int = 0) -> dict[str, Any]:
    """Accuracy of a vote of the k most similar rows (cosine) of other groups, beside trivial baselines.

    Returns the JSON of `judgement`, with `k` (at most the rows there are) and `k_asked`.

    Raises:
        ValueError: nothing to judge or to vote.
    """
    classes, numbers = _classes(rows, protocol)
    effective = min(k, len(protocol.fitted))
    votes = knn_votes(
        rows.vectors[protocol.judged],
        rows.vectors[protocol.fitted],
        numbers[protocol.fitted],
        group_numbers(rows.groups.tolist())[protocol.judged],
        group_numbers(rows.groups.tolist())[protocol.fitted],
        k=effective,
        num_classes=len(classes),
    )
    result = judgement(rows, protocol, classes, numbers, votes, seed=seed)
    return {"k": effective, "k_asked": k, "similarity": "cosine"} | result


def knn_votes(
    queries: NDArray[np.floating],
    donors: NDArray[np.floating],
    donor_classes: NDArray[np.int64],
    query_groups: NDArray[np.int64],
    donor_groups: NDArray[np.int64],
    *,
    k: int,
    num_classes: int,
) -> NDArray[np.float64]:
    """(J, K) votes of the k donors with the highest cosine, equal votes decided by summed similarity.

    Donors of the query's own group do not vote; a query without any donor left gets zeros.
    """
    donors, queries = _unit(donors), _unit(queries)
    votes = np.zeros((len(queries), num_classes))
    block_rows = max(1, _BLOCK_ELEMENTS // max(1, len(donors)))
    for start in range(0, len(queries), block_rows):
        stop = start + block_rows
        similarity = queries[start:stop] @ donors.T
        similarity[query_groups[start:stop, None] == donor_groups[None, :]] = -np.inf
        nearest = np.argpartition(similarity, -k, axis=1)[:, -k:]
        close = np.take_along_axis(similarity, nearest, axis=1)
        # A vote weighs 1 and (1 + cosine) / 2 <= 1, so all similarities together never outweigh a vote.
        weights = np.where(np.isfinite(close), 1 + (1 + close) / (2 * (k + 1)), 0.0)
        block = votes[start:stop]
        np.add.at(block, (np.arange(len(block))[:, None], donor_classes[nearest]), weights)
    return votes


def nearest_donor(
    queries: NDArray[np.floating],
    donors: NDArray[np.floating],
    query_groups: NDArray[np.int64],
    donor_groups: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(J,) index of the nearest donor (Euclidean) of another group; -1 where there is none."""
    nearest = np.full(len(queries), -1, dtype=np.int64)
    half_norms = 0.5 * np.einsum("fd,fd->f", donors, donors)
    block_rows = max(1, _BLOCK_ELEMENTS // max(1, len(donors)))
    for start in range(0, len(queries) if len(donors) else 0, block_rows):
        stop = start + block_rows
        distance = half_norms - queries[start:stop] @ donors.T
        distance[query_groups[start:stop, None] == donor_groups[None, :]] = np.inf
        best = distance.argmin(axis=1)
        found = np.isfinite(distance[np.arange(len(best)), best])
        nearest[start:stop] = np.where(found, best, -1)
    return nearest


def linear(rows: ProbeRows, protocol: Protocol, *, seed: int = 0) -> dict[str, Any]:
    """Accuracy of a logistic regression (L2) on the vectors, beside trivial baselines.

    C is chosen on the validation rows, or on one of five parts of the fitted rows cut by group. Where
    groups judge each other, in five folds of whole groups.

    Raises:
        ValueError: fewer than two classes or too few groups to fit on.
    """
    classes, numbers = _classes(rows, protocol)
    fits = _fits(rows, protocol, seed)
    require_labels(rows, protocol, seed=seed)
    chosen, converged = [], True
    scores = np.zeros((len(protocol.judged), len(classes)))
    for fitted, judged_places in fits:
        strength = _choose_strength(rows, numbers, fitted, protocol.choosing, seed)
        judged = protocol.judged[judged_places]
        part, ok = _fit_predict(rows.vectors, numbers, fitted, judged, strength, len(classes))
        scores[judged_places] = part
        chosen.append(strength)
        converged &= ok
    result = judgement(rows, protocol, classes, numbers, scores, seed=seed)
    return {"strengths_tried": list(LINEAR_STRENGTHS), "strength": chosen, "converged": converged} | result


def require_labels(rows: ProbeRows, protocol: Protocol, *, seed: int | None = None) -> None:
    """Whether there is something to fit and to judge.

    Args:
        seed: of the linear probe's folds; None: neighbours vote, and nothing is fitted.

    Raises:
        ValueError: rows of fewer than two groups, or with fewer than two labels.
    """
    _, numbers = _classes(rows, protocol)
    fits = [(protocol.fitted, protocol.judged)] if seed is None else _fits(rows, protocol, seed)
    if (found := len(np.unique(numbers[np.concatenate([fitted for fitted, _ in fits])]))) < 2:
        raise ValueError(f"kNN and linear probes need at least 2 labels among the fitted rows, found {found}")


def judgement(
    rows: ProbeRows,
    protocol: Protocol,
    classes: NDArray[np.str_],
    numbers: NDArray[np.int64],
    scores: NDArray[np.float64],
    *,
    seed: int,
) -> dict[str, Any]:
    """Metrics with 95 % group bootstrap intervals beside the baselines, and the confusion matrix, as JSON."""
    judged = ClassScores(probabilities=scores, truth=numbers[protocol.judged])
    groups = group_numbers(rows.groups[protocol.judged].tolist())
    metrics: dict[str, Mapping[str, Any]] = {}
    for name in ("accuracy", "macro_f1"):
        value, low, high, how, drawn = estimate(name, judged, groups, seed=seed)
        metrics[name] = {
            "value": number(value),
            "low": number(low),
            "high": number(high),
            "interval": how,
            "drawn": drawn,
            "higher_is_better": METRICS[name].higher_is_better,
            "unit": METRICS[name].unit,
        }
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (judged.truth, judged.predicted), 1)
    return {
        "reported": protocol.reported,
        "sentence": protocol.sentence,
        "num_rows": len(protocol.judged),
        "num_groups": count_groups(rows.groups, protocol.judged),
        "metrics": metrics,
        "baselines": {
            guess: {name: value for name, value in values.items() if name in metrics}
            for guess, values in of_classes(numbers[protocol.fitted], judged.truth, len(classes)).items()
        },
        "confusion": {"labels": classes.tolist(), "counts": confusion.tolist()},
    }


def _classes(rows: ProbeRows, protocol: Protocol) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Sorted class names of the fitted and judged rows, and the number of every row (-1: another label)."""
    groups = set(rows.groups[protocol.fitted]) | set(rows.groups[protocol.judged])
    if not len(protocol.judged) or not len(protocol.fitted) or len(groups) < 2:
        raise ValueError(
            f"kNN and linear probes need labelled rows of at least 2 groups, found {len(protocol.fitted)} rows to fit "
            f"and {len(protocol.judged)} to judge; give the manifest labels, or leave --knn and --linear out"
        )
    used = np.concatenate([protocol.fitted, protocol.judged])
    classes = np.unique(rows.labels[used])
    places = np.searchsorted(classes, rows.labels).clip(max=len(classes) - 1)
    return classes, np.where(classes[places] == rows.labels, places, -1).astype(np.int64)


def _fits(rows: ProbeRows, protocol: Protocol, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows to fit, places in `judged`) of every fit."""
    if protocol.reported != "held-out groups":
        return [(_of_other_groups(rows, protocol.fitted, protocol.judged), np.arange(len(protocol.judged)))]
    groups, labels = rows.groups[protocol.judged], rows.labels[protocol.judged]
    num_folds = min(LINEAR_FOLDS, len(np.unique(groups)))
    folds = assign_folds(labels, groups, num_folds, seed)
    return [(protocol.judged[folds != f], np.flatnonzero(folds == f)) for f in range(num_folds)]


def _of_other_groups(rows: ProbeRows, fitted: NDArray[np.int64], judged: NDArray[np.int64]) -> NDArray[np.int64]:
    """`fitted` less the rows whose group is among `judged`: a manifest may have been allowed such groups."""
    return fitted[~np.isin(rows.groups[fitted], rows.groups[judged])]


def _choose_strength(
    rows: ProbeRows,
    numbers: NDArray[np.int64],
    fitted: NDArray[np.int64],
    choosing: NDArray[np.int64],
    seed: int,
) -> float:
    """The C with the best accuracy on `choosing`; of equals the smallest, which fits least."""
    if not len(choosing):
        groups = rows.groups[fitted]
        num_parts = min(LINEAR_FOLDS, len(np.unique(groups)))
        if num_parts < 2:
            return 1.0
        parts = assign_folds(rows.labels[fitted], groups, num_parts, seed)
        fitted, choosing = fitted[parts != 0], fitted[parts == 0]
    fitted = _of_other_groups(rows, fitted, choosing)
    if len(np.unique(numbers[fitted])) < 2:
        return 1.0
    accuracies = []
    for strength in LINEAR_STRENGTHS:
        scores, _ = _fit_predict(rows.vectors, numbers, fitted, choosing, strength, int(numbers.max()) + 1)
        accuracies.append(float(np.mean(scores.argmax(axis=1) == numbers[choosing])))
    return LINEAR_STRENGTHS[int(np.argmax(accuracies))]


def _fit_predict(
    vectors: NDArray[np.float32],
    numbers: NDArray[np.int64],
    fitted: NDArray[np.int64],
    judged: NDArray[np.int64],
    strength: float,
    num_classes: int,
) -> tuple[NDArray[np.float64], bool]:
    """(J, K) class probabilities of `judged`, and whether the solver converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scores = np.zeros((len(judged), num_classes))
    if len(np.unique(numbers[fitted])) < 2:
        scores[:, numbers[fitted][0]] = 1.0
        return scores, True
    model = LogisticRegression(C=strength, max_iter=1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(vectors[fitted].astype(np.float64), numbers[fitted])
    scores[:, model.classes_] = model.predict_proba(vectors[judged].astype(np.float64))
    return scores, not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(
        vectors, lengths, out=np.zeros(vectors.shape, dtype=np.float32), where=lengths > 0
    )
    return unit
