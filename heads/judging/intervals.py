"""Intervals over groups: whole groups are drawn, because clips of one group are not independent.

Where every resample gives the same value, as at a perfect score, the bootstrap would be [1, 1] of any number of groups.
A share of clips then gets Wilson's score interval, which knows that number; other metrics get none, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from reelbank.heads.judging.metrics import METRICS, Scores, mean_where_defined, per_clip_values, whole_value
from reelbank.heads.reports.wording import FEW_GROUPS as FEW_GROUPS
from reelbank.heads.reports.wording import few_groups, title

RESAMPLES = 2000
WHOLE_RESAMPLES = 500
LEVEL = 0.95
BOOTSTRAP = "bootstrap"
WILSON = "Wilson"
NO_GROUPS = "fewer than 2 groups"
ALL_ALIKE = "every resample gives the same value"
UNDEFINED = "undefined in most resamples"
Z = 1.959963984540054  # the normal's 97.5th percentile
FEW_GROUPS_SAY = f"An interval over fewer than {FEW_GROUPS} groups says little: read no difference out of it."
TABLE_ENTRIES = 4_000_000  # draws held at once: bounds the memory for many groups


class Estimate(NamedTuple):
    """A metric and its interval.

    Attributes:
        low, high: NaN where there is no interval.
        how: BOOTSTRAP or WILSON; without an interval the reason: NO_GROUPS, ALL_ALIKE or UNDEFINED.
        num_groups: groups with a defined clip: what the interval draws.
    """

    value: float
    low: float
    high: float
    how: str
    num_groups: int


def interval_notes(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences about intervals that say little, are Wilson's or are left out, of {split: entry of results.json}."""
    notes, wilson_used, alike = few_groups(splits), False, {}
    for split, entry in splits.items():
        measured = {name: one for name, one in entry["metrics"].items() if one["value"] is not None}
        wilson_used |= any(one["interval"] == WILSON for one in measured.values())
        if names := [title(name) for name, one in measured.items() if one["interval"] == ALL_ALIKE]:
            alike[split] = f"{', '.join(names)} on {split!r}"
    if wilson_used:
        notes.append(f"Intervals marked Wilson are his for a share of groups or clips: there {ALL_ALIKE}.")
    if alike:
        notes.append(f"No interval is given for {'; '.join(alike.values())}: {ALL_ALIKE}.")
    return notes


def group_numbers(groups: Sequence[str]) -> np.ndarray:
    """Groups as numbers 0 .. G - 1 in sorted order, int64 (N,)."""
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].astype(np.int64)


def interval(name: str, scores: Scores, groups: np.ndarray, *, seed: int) -> tuple[float, float, float]:
    """(value, low, high) of `estimate`."""
    return estimate(name, scores, groups, seed=seed)[:3]


def estimate(name: str, scores: Scores, groups: np.ndarray, *, seed: int) -> Estimate:
    """Metric `name` with its percentile bootstrap interval.

    Groups are drawn with replacement, as many as there are (Efron 1979); 2,000 resamples, 500 for metrics that no
    mean over clips gives. There is none for fewer than 2 groups with a defined clip and where most resamples are
    undefined. Where all are alike a share of clips has Wilson's interval over the groups (Wilson 1927).

    Args:
        groups: number of each clip's group, int64 (N,).
        seed: the same seed gives the same interval.
    """
    num_groups = int(groups.max()) + 1 if len(groups) else 0
    per_clip = per_clip_values(name, scores)
    if per_clip is not None:
        return mean_estimate(per_clip, groups, seed=seed, is_share=METRICS.row(name).unit == "fraction")
    random = np.random.default_rng(seed)
    truth, predicted = scores.truth, scores.predicted
    value = whole_value(name, truth, predicted)
    members = [np.flatnonzero(groups == group) for group in range(num_groups)]
    samples = np.full(WHOLE_RESAMPLES, np.nan)
    for i in range(WHOLE_RESAMPLES if num_groups > 1 else 0):
        drawn = np.concatenate([members[g] for g in random.integers(num_groups, size=num_groups)])
        samples[i] = whole_value(name, truth[drawn], predicted[drawn])
    if METRICS.row(name).centred:
        # In truth equal scores are rare; in a resample the copies of a clip have one. On noise, 4 to 12 % of the
        # intervals of 10 classes lay above what a random order has, 0 to 2 % after this.
        samples = np.clip(samples + (value - mean_where_defined(samples)), 0.0, 1.0)
    return _between(value, samples, num_groups, is_share=False)


def mean_interval(per_clip: np.ndarray, groups: np.ndarray, *, seed: int) -> tuple[float, float, float]:
    """(value, low, high) of `mean_estimate`; three times the value where every resample gives it.

    It is for differences of two predictions, too: where these are the same, 0 from 0 to 0 is the answer.
    """
    found = mean_estimate(per_clip, groups, seed=seed)
    return (found.value,) * 3 if found.how == ALL_ALIKE else found[:3]


def mean_estimate(per_clip: np.ndarray, groups: np.ndarray, *, seed: int, is_share: bool = False) -> Estimate:
    """The mean of `per_clip` (N,) with its interval, as `estimate` gives it; `is_share`: of zeros and ones."""
    defined = ~np.isnan(per_clip)
    num_groups = int(groups.max()) + 1 if len(groups) else 0
    samples = _resampled_means(per_clip, groups, num_groups, seed)
    return _between(mean_where_defined(per_clip), samples, len(np.unique(groups[defined])), is_share=is_share)


def _between(value: float, samples: np.ndarray, num_groups: int, *, is_share: bool) -> Estimate:
    """The interval that resamples of `value` give."""
    none = float("nan"), float("nan")
    found = samples[~np.isnan(samples)]
    if num_groups < 2:
        return Estimate(value, *none, NO_GROUPS, num_groups)
    if len(found) < WHOLE_RESAMPLES // 2 or np.isnan(value):
        return Estimate(value, *none, UNDEFINED, num_groups)
    if np.ptp(found) <= 1e-9 * max(abs(value), 1e-9):
        if is_share:
            return Estimate(value, *wilson(value, num_groups), WILSON, num_groups)
        return Estimate(value, *none, ALL_ALIKE, num_groups)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # Resamples of a metric that is no mean may all lie to one side of it.
    return Estimate(value, min(float(low), value), max(float(high), value), BOOTSTRAP, num_groups)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share among `count` independent trials (J. Am. Stat. Assoc. 22, 1927)."""
    centre = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * np.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return max(0.0, min(float(centre - half), share)), min(1.0, max(float(centre + half), share))


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
