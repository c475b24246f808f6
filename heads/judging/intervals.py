"""Bootstrap intervals over groups: whole groups are drawn, because clips of one group are not independent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from reelbank.heads.judging.metrics import METRICS, Scores, mean_where_defined, per_clip_values, whole_value

RESAMPLES = 2000
WHOLE_RESAMPLES = 500
LEVEL = 0.95
FEW_GROUPS = 5
"""Below this an interval that draws groups says next to nothing."""
FEW_GROUPS_SAY = f"An interval over fewer than {FEW_GROUPS} groups says little: read no difference out of it."
TABLE_ENTRIES = 4_000_000  # draws held at once: bounds the memory for many groups


def group_numbers(groups: Sequence[str]) -> np.ndarray:
    """Groups as numbers 0 .. G - 1 in sorted order, int64 (N,)."""
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].astype(np.int64)


def interval(name: str, scores: Scores, groups: np.ndarray, *, seed: int) -> tuple[float, float, float]:
    """Metric `name` with its percentile bootstrap interval: (value, low, high).

    Groups are drawn with replacement, as many as there are (Efron 1979); 2,000 resamples, 500 for metrics that no
    mean over clips gives. The bounds are NaN for fewer than 2 groups with a defined clip and where most resamples are
    undefined.

    Args:
        groups: number of each clip's group, int64 (N,).
        seed: the same seed gives the same interval.
    """
    num_groups = int(groups.max()) + 1 if len(groups) else 0
    random = np.random.default_rng(seed)
    per_clip = per_clip_values(name, scores)
    if per_clip is not None:
        value = mean_where_defined(per_clip)
        samples = _resampled_means(per_clip, groups, num_groups, seed)
    else:
        truth, predicted = scores.truth, scores.predicted
        value = whole_value(name, truth, predicted)
        members = [np.flatnonzero(groups == group) for group in range(num_groups)]
        samples = np.full(WHOLE_RESAMPLES, np.nan)
        for i in range(WHOLE_RESAMPLES if num_groups > 1 else 0):
            drawn = np.concatenate([members[g] for g in random.integers(num_groups, size=num_groups)])
            samples[i] = whole_value(name, truth[drawn], predicted[drawn])
    samples = samples[~np.isnan(samples)]
    enough = num_groups > 1 and len(samples) >= WHOLE_RESAMPLES // 2
    if not enough:
        return value, float("nan"), float("nan")
    if METRICS.row(name).centred:
        # In truth equal scores are rare; in a resample the copies of a clip have one. On noise, 4 to 12 % of the
        # intervals of 10 classes lay above what a random order has, 0 to 2 % after this.
        samples = np.clip(samples + (value - samples.mean()), 0.0, 1.0)
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value, float(low), float(high)


def mean_interval(per_clip: np.ndarray, groups: np.ndarray, *, seed: int) -> tuple[float, float, float]:
    """The mean of `per_clip` (N,) with its interval, as `interval` gives it: (value, low, high)."""
    num_groups = int(groups.max()) + 1 if len(groups) else 0
    samples = _resampled_means(per_clip, groups, num_groups, seed)
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return mean_where_defined(per_clip), float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return mean_where_defined(per_clip), float(low), float(high)


def _resampled_means(per_clip: np.ndarray, groups: np.ndarray, num_groups: int, seed: int) -> np.ndarray:
    """Means of the resamples from sums and counts per group: no row is copied.

    None where fewer than 2 groups have a defined clip: every resample would be the mean of the same group.
    """
    defined = ~np.isnan(per_clip)
    sums = np.bincount(groups[defined], weights=per_clip[defined], minlength=num_groups)
    counts = np.bincount(groups[defined], minlength=num_groups).astype(np.float64)
    if (counts > 0).sum() < 2:
        return np.empty(0)
    means = []
    for times in _draws(num_groups, seed):
        total = times @ counts
        means.append(np.divide(times @ sums, total, out=np.full(len(times), np.nan), where=total > 0))
    return np.concatenate(means)


def _draws(num_groups: int, seed: int) -> Iterator[np.ndarray]:
    """How often each resample has each group, float64 (R, G) at a time, RESAMPLES rows in all."""
    size = max(1, TABLE_ENTRIES // num_groups)
    if size >= RESAMPLES:
        yield _only_draws(num_groups, seed)
        return
    random = np.random.default_rng(seed)
    for start in range(0, RESAMPLES, size):
        yield _drawn(random, num_groups, min(size, RESAMPLES - start))


@lru_cache(maxsize=1)
def _only_draws(num_groups: int, seed: int) -> np.ndarray:
    """Kept for the next metric and the next member of a sweep: drawing costs a hundred times what a mean does."""
    return _drawn(np.random.default_rng(seed), num_groups, RESAMPLES)


def _drawn(random: np.random.Generator, num_groups: int, size: int) -> np.ndarray:
    return random.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=size).astype(np.float64)
