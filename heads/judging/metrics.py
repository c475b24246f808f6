"""Metrics of predictions, as pure functions on arrays.

Conventions: N clips; class probabilities (N, K) and true class numbers (N,), -1 for a class that training never saw
(always wrong); bin probabilities (N, K), true values (N,) in target units, label distributions (N, K). Results are
floats; NaN means undefined, which is written where it can happen. Nothing is rounded or scaled to percent.

Formulas: SYSTEMS.md 1.10. Parity with scikit-learn and scipy is a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reelbank.heads.errors import TrainingError
from reelbank.heads.judging.by_class import macro_f1, weighted_f1
from reelbank.heads.judging.class_losses import NLL_CLIP, cross_entropies, cross_entropies_on_softmax
from reelbank.heads.judging.label_sets import LabelScores, macro_ap, macro_f1_at_half, micro_f1_at_half
from reelbank.manifests.plugins import Plugin
from reelbank.manifests.registry import Registry

__all__ = ["METRICS", "ClassScores", "LabelScores", "Metric", "TargetScores", "evaluate", "names_of"]

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Predictions of the class output: `probabilities` (N, K), `truth` (N,) int64, -1 unknown."""

    probabilities: Array
    truth: Array

    def __post_init__(self) -> None:
        _same_rows(self.probabilities, self.truth)

    @property
    def predicted(self) -> Array:
        """Most probable class of each clip, int64 (N,); the first of equals."""
        numbers: Array = self.probabilities.argmax(axis=1)
        return numbers


@dataclass(frozen=True, kw_only=True)
class TargetScores:
    """Predictions of the binned target.

    `probabilities` (N, K), `bin_values` (K,) and `truth` (N,) in target units, `labels` (N, K) softened truth,
    `estimate` what `predicted` is (`point_estimate`).
    """

    probabilities: Array
    bin_values: Array
    truth: Array
    labels: Array
    estimate: str = "argmax"

    def __post_init__(self) -> None:
        _same_rows(self.probabilities, self.truth)
        if self.labels.shape != self.probabilities.shape:
            raise ValueError(f"{self.labels.shape = }, {self.probabilities.shape = }: expected the same (N, K)")

    @property
    def predicted(self) -> Array:
        """The value that each clip's distribution stands for, (N,)."""
        return point_estimate(self.probabilities, self.bin_values, self.estimate)


def point_estimate(probabilities: Array, bin_values: Array, kind: str) -> Array:
    """One value per distribution, (N, K) and (K,) -> (N,).

    argmax: the value of the most probable bin, the lowest of equals; expectation: the mean, which has the least squared
    error if the distribution is right; median: the first bin at which half of the mass is reached, which has the least
    absolute error.
    """
    values: Array
    if kind == "expectation":
        values = probabilities @ bin_values
    elif kind == "median":
        values = quantile(probabilities, bin_values, 0.5)
    else:
        values = bin_values[probabilities.argmax(axis=1)]
    return values


def quantile(probabilities: Array, bin_values: Array, level: float) -> Array:
    """The first bin of each distribution at which `level` of its mass is reached, (N, K) and (K,) -> (N,)."""
    sums = probabilities.cumsum(axis=1)
    values: Array = bin_values[(sums >= level * sums[:, -1:]).argmax(axis=1)]
    return values


def _same_rows(probabilities: Array, truth: Array) -> None:
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1]:
        raise ValueError(f"{probabilities.shape = }, {truth.shape = }: expected (N, K) and (N,)")


def hits(scores: ClassScores) -> Array:
    """1.0 where the most probable class is the true one, else 0.0: (N,)."""
    right: Array = (scores.predicted == scores.truth).astype(np.float64)
    return right


def top5_hits(scores: ClassScores) -> Array:
    """1.0 where the true class is among the five most probable: (N,). All known classes if there are at most 5."""
    order = np.argsort(-scores.probabilities, axis=1, kind="stable")[:, :5]
    right: Array = (order == scores.truth[:, None]).any(axis=1).astype(np.float64)
    return right


def absolute_errors(scores: TargetScores) -> Array:
    """|predicted value - truth| in target units: (N,)."""
    errors: Array = np.abs(scores.predicted - scores.truth)
    return errors


def absolute_bin_errors(scores: TargetScores) -> Array:
    """|most probable bin - most probable bin of the label| in bins: (N,)."""
    bins = np.abs(scores.probabilities.argmax(axis=1) - scores.labels.argmax(axis=1))
    errors: Array = bins.astype(np.float64)
    return errors


def average_ranks(values: Array) -> Array:
    """Ranks from 1 along the last axis, equal values sharing their mean rank: float64, the same shape."""
    flat = values.reshape(-1, values.shape[-1])
    ranks = np.empty(flat.shape)
    first = np.ones(flat.shape[1], dtype=bool)
    for row, out in zip(flat, ranks, strict=True):
        order = np.argsort(row, kind="stable")
        ordered = row[order]
        first[1:] = ordered[1:] != ordered[:-1]
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], len(row))
        out[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return ranks.reshape(values.shape)


def correlation(a: Array, b: Array) -> Array:
    """Pearson's r along the last axis; NaN where one side is constant or has fewer than 2 entries."""
    a = a - a.mean(axis=-1, keepdims=True)
    b = b - b.mean(axis=-1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 0, (a * b).sum(axis=-1) / scale, np.nan)


def spc_values(truth: Array, predicted: Array) -> float:
    """Spearman's rank correlation of predicted and true values over clips.

    NaN for fewer than 2 clips, and where all predictions or all truths are equal.
    """
    if len(truth) < 2:
        return float("nan")
    return float(correlation(average_ranks(predicted), average_ranks(truth)))


def spc_bins_per_clip(scores: TargetScores) -> Array:
    """Spearman's rank correlation of predicted and label distribution over the bins of each clip: (N,).

    NaN for a clip whose prediction is uniform. This is what the code of Vid2Burn reports as SPC.
    """
    return correlation(average_ranks(scores.probabilities), average_ranks(scores.labels))


def nll_per_clip(scores: TargetScores) -> Array:
    """sum_n -[p log q + (1 - p) log(1 - q)], q clipped to [1e-15, 1 - 1e-15], in nats: (N,)."""
    q = np.clip(scores.probabilities.astype(np.float64), NLL_CLIP, 1 - NLL_CLIP)
    result: Array = -(scores.labels * np.log(q) + (1 - scores.labels) * np.log1p(-q)).sum(axis=1)
    return result


def nll_mean_per_clip(scores: TargetScores) -> Array:
    """`nll_per_clip` as the mean over bins, not their sum: (N,)."""
    means: Array = nll_per_clip(scores) / scores.probabilities.shape[1]
    return means


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A row of the metrics table; exactly one of `per_clip` and `whole` is given.

    Attributes:
        output: what it judges: `label` (ClassScores), `labels` (LabelScores: several of one clip) or `target`
            (TargetScores).
        higher_is_better: the direction.
        unit: `fraction`, `target` (the target's own unit), `bins`, `nats` or `correlation`; a plug-in may have another.
        per_clip: scores -> (N,), whose mean over the clips where it is defined is the metric.
        whole: (truth, predicted) -> float, where no mean over clips gives it: (N,) both, of `labels` (N, K) both.
        centred: whether the resamples of an interval are moved so that their mean is the value: clips that are drawn
            twice make the metric higher.
        summary: one line for `reelbank metrics`.
        above_classes: with this number of classes or fewer it says nothing, and is not reported.
        on_request: whether only runs that ask for it (--metric) report it.
    """

    output: str
    higher_is_better: bool
    unit: str
    per_clip: Callable[..., Array] | None = None
    whole: Callable[[Array, Array], float] | None = None
    centred: bool = False
    summary: str = ""
    above_classes: int = 0
    on_request: bool = False

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise ValueError(f"metric: {self.output = } is not one of {', '.join(OUTPUTS)}")
        if (self.per_clip is None) == (self.whole is None):
            raise ValueError("metric: exactly one of per_clip and whole is needed")

    def says_something(self, num_classes: int) -> bool:
        """Whether a report of a head of so many classes shows it."""
        return self.output != "label" or num_classes > self.above_classes


OUTPUTS = ("label", "labels", "target")
Scores = ClassScores | LabelScores | TargetScores

_ROWS = {
    "accuracy": Metric(
        output="label",
        higher_is_better=True,
        unit="fraction",
        per_clip=hits,
        summary="clips whose most probable class is the true one",
    ),
    "top5_accuracy": Metric(
        output="label",
        higher_is_better=True,
        unit="fraction",
        per_clip=top5_hits,
        above_classes=5,
        summary="clips whose true class is among the five most probable",
    ),
    "macro_f1": Metric(
        output="label", higher_is_better=True, unit="fraction", whole=macro_f1, summary="mean of the classes' F1"
    ),
    "cross_entropy": Metric(
        output="label",
        higher_is_better=False,
        unit="nats",
        per_clip=cross_entropies,
        on_request=True,
        summary="cross-entropy of the classes, mean over clips",
    ),
    "ce_on_softmax": Metric(
        output="label",
        higher_is_better=False,
        unit="nats",
        per_clip=cross_entropies_on_softmax,
        on_request=True,
        summary="the same with probabilities in the place of logits, which the loss ce-on-softmax minimises",
    ),
    "weighted_f1": Metric(
        output="label",
        higher_is_better=True,
        unit="fraction",
        whole=weighted_f1,
        on_request=True,
        summary="mean of the classes' F1, each by its number of clips",
    ),
    "macro_ap": Metric(
        output="labels",
        higher_is_better=True,
        unit="fraction",
        whole=macro_ap,
        centred=True,
        summary="several labels per clip: mean of the classes' average precision (mAP)",
    ),
    "micro_f1_at_half": Metric(
        output="labels",
        higher_is_better=True,
        unit="fraction",
        whole=micro_f1_at_half,
        summary="several labels per clip: F1 of all labels of probability 0.5 or more",
    ),
    "macro_f1_at_half": Metric(
        output="labels",
        higher_is_better=True,
        unit="fraction",
        whole=macro_f1_at_half,
        summary="several labels per clip: mean of the classes' F1 at probability 0.5",
    ),
    "mae": Metric(
        output="target",
        higher_is_better=False,
        unit="target",
        per_clip=absolute_errors,
        summary="mean absolute error of the predicted value",
    ),
    "mae_bins": Metric(
        output="target",
        higher_is_better=False,
        unit="bins",
        per_clip=absolute_bin_errors,
        summary="mean distance of the most probable bin from the label's",
    ),
    "spc_values": Metric(
        output="target",
        higher_is_better=True,
        unit="correlation",
        whole=spc_values,
        summary="rank correlation of predicted and true values over clips",
    ),
    "spc_bins": Metric(
        output="target",
        higher_is_better=True,
        unit="correlation",
        per_clip=spc_bins_per_clip,
        summary="mean rank correlation of predicted and label distribution over bins",
    ),
    "nll": Metric(
        output="target",
        higher_is_better=False,
        unit="nats",
        per_clip=nll_per_clip,
        summary="cross-entropy of every bin against the label distribution, summed over bins",
    ),
    "nll_mean": Metric(
        output="target",
        higher_is_better=False,
        unit="nats",
        per_clip=nll_mean_per_clip,
        summary="`nll` as the mean over bins",
    ),
}


def _guarded(plugin: Plugin, row: Metric) -> Metric:
    """A plug-in's row, whose mistakes name it."""
    per_clip, whole = row.per_clip, row.whole
    if whole is not None:

        def whole_of(truth: Array, predicted: Array) -> float:
            with plugin.running("whole(truth, predicted)"):
                return float(whole(truth, predicted))

        return replace(row, whole=whole_of)
    assert per_clip is not None

    def values_of(scores: Scores) -> Array:
        with plugin.running("per_clip(scores)"):
            values: Any = per_clip(scores)
        if getattr(values, "shape", None) != scores.truth.shape:
            given = getattr(values, "shape", type(values).__name__)
            raise plugin.wrong(f"per_clip gave {given} for {len(scores.truth)} clips, expected {scores.truth.shape}")
        return np.asarray(values, np.float64)

    return replace(row, per_clip=values_of)


METRICS: Registry[Metric] = Registry(
    _ROWS, kind="metric", group="reelbank.metrics", row_type=Metric, error=TrainingError, guarded=_guarded
)


def names_of(output: str, more: Iterable[str] = ()) -> tuple[str, ...]:
    """The metrics that judge `output`: those that are always reported, then those of `more`, in that order."""
    always = (name for name in METRICS if not METRICS.row(name).on_request)
    return tuple(name for name in dict.fromkeys((*always, *more)) if METRICS.row(name).output == output)


def mean_where_defined(values: Array) -> float:
    """Mean of the entries that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def per_clip_values(name: str, scores: Scores) -> Array | None:
    """Metric `name` of every clip, (N,); None where it is none of single clips."""
    metric = METRICS.row(name)
    return None if metric.per_clip is None else metric.per_clip(scores)


def whole_value(name: str, truth: Array, predicted: Array) -> float:
    """Metric `name` of all clips at once, where it is not a mean over them."""
    metric = METRICS.row(name)
    assert metric.whole is not None
    return float(metric.whole(truth, predicted))


def evaluate(name: str, scores: Scores) -> float:
    """Metric `name` of `scores`."""
    values = per_clip_values(name, scores)
    return whole_value(name, scores.truth, scores.predicted) if values is None else mean_where_defined(values)
