"""The numbers of a row: each column of its study with an interval, and beside its guesser. Functions on predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reelbank.heads.judging.evaluation import number
from reelbank.heads.judging.intervals import group_numbers, mean_interval
from reelbank.heads.judging.metrics import mean_where_defined
from reelbank.heads.judging.paired import disagreement, over_repeats
from reelbank.heads.recipes.measures import Clips, Training
from reelbank.heads.recipes.rows import Predicted
from reelbank.heads.recipes.study import Column, Study

Array = np.ndarray


def measured(study: Study, column: Column, said: Predicted, seed: int) -> dict[str, Any] | None:
    """{value, low, high, deviation, num_groups} of a column; None where it has no value.

    value: mean over repeats. low, high: 95 % interval, of the clip's mean over the repeats; null where no mean over
    clips gives the metric and there are repeats, and with fewer than two groups. deviation: standard deviation over
    repeats, null for one. num_groups: what the interval draws.
    """
    if column.part not in said.clips:
        return None
    measure, repeats = study.measure(column), said.clips[column.part]
    if measure is None:
        return _of_results(column, said)
    if measure.per_clip is None:
        assert measure.whole is not None
        found = [measure.whole(clips) for clips in repeats]
        return _entry(column, found, None, said.num_groups[column.part])
    values = [measure.per_clip(clips) for clips in repeats]
    units = [units_of(column, clips, own)[0] for clips, own in zip(repeats, values, strict=True)]
    _, groups = units_of(column, repeats[0], values[0])
    found = [mean_where_defined(own) for own in units]
    if not np.isfinite(found).any():
        return None
    interval = interval_of(np.mean(units, axis=0), groups, seed)
    return _entry(column, found, interval, interval["num_groups"])


def units_of(column: Column, clips: Clips, values: Array) -> tuple[Array, Array]:
    """What a column is the mean of, (m,), and the group that each belongs to: clips, or with `over` folds their means.

    Args:
        values: one per clip, (n,).
    """
    groups = clips.groups
    if column.group:
        own = clips.texts("group") == column.group
        return values[own], groups[own]
    if column.over == "clips":
        return values, groups
    folds = clips.texts("fold")
    names = np.unique(folds)
    return np.array([mean_where_defined(values[folds == name]) for name in names]), names


def interval_of(values: Array, groups: Array, seed: int) -> dict[str, Any]:
    """{value, low, high, num_groups}: the mean of `values` with its interval over groups."""
    value, low, high = mean_interval(values, group_numbers(groups.tolist()), seed=seed)
    defined = np.unique(groups[~np.isnan(values)])
    return {"value": number(value), "low": number(low), "high": number(high), "num_groups": len(defined)}


def _of_results(column: Column, said: Predicted) -> dict[str, Any] | None:
    """A metric that only results.json has."""
    if column.over == "folds":
        per_repeat = [[fold.get(column.metric) for fold in folds] for folds in said.folds]
        means = [mean_where_defined(np.array(folds, dtype=np.float64)) for folds in per_repeat if folds]
        return _entry(column, means, None, 0) if means and np.isfinite(means).any() else None
    repeats = [metrics.get(column.metric) for metrics in said.metrics.get(column.part, ())]
    found = [one["value"] for one in repeats if one and one["value"] is not None]
    if not found:
        return None
    interval = repeats[0] if len(repeats) == 1 else None
    return _entry(column, found, interval, said.num_groups[column.part])


def _entry(
    column: Column, found: Sequence[float], interval: Mapping[str, Any] | None, num_groups: int
) -> dict[str, Any] | None:
    scale = column.scale
    values = np.array(found, dtype=np.float64)
    if not np.isfinite(values).any():
        return None
    low, high = (None, None) if interval is None else (interval["low"], interval["high"])
    return {
        "value": scale * float(np.nanmean(values)),
        "low": None if low is None else scale * low,
        "high": None if high is None else scale * high,
        "deviation": scale * float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "num_groups": num_groups,
    }


def guessed(study: Study, column: Column, clips: Clips, training: Training, seed: int) -> dict[str, Any]:
    """What the guesser of a judged column scores: {value, low, high, num_groups}."""
    return scaled(interval_of(*units_of(column, clips, guess_values(study, column, clips, training)), seed), column)


def guess_values(
    study: Study, column: Column, clips: Clips, training: Training, guesser: str = "", metric: str = ""
) -> Array:
    """The measure of `column` for the predictions of its guesser, or of `guesser`: (n,)."""
    measure = study.measure(column)
    assert measure is not None
    assert measure.per_clip is not None
    return measure.per_clip(study.guesser(guesser or column.beats).guess(clips, training))


def own_values(study: Study, column: Column, repeats: Sequence[Clips]) -> Array:
    """The measure of a judged column for a row's predictions, the mean over its repeats: (n,)."""
    measure = study.measure(column)
    assert measure is not None
    assert measure.per_clip is not None
    values: Array = np.mean([measure.per_clip(clips) for clips in repeats], axis=0)
    return values


def beside(study: Study, column: Column, said: Predicted, training: Training, seed: int) -> dict[str, Any]:
    """A row beside the guesser of a judged column: {difference, low, high, verdict, apart}, see `compared`."""
    repeats = said.clips[column.part]
    own, guess = own_values(study, column, repeats), guess_values(study, column, repeats[0], training)
    ours = scaled(interval_of(*units_of(column, repeats[0], own), seed), column)
    paired = scaled(interval_of(*units_of(column, repeats[0], own - guess), seed), column)
    theirs = guessed(study, column, repeats[0], training, seed)
    return compared(paired, ours, theirs, higher_is_better=study.higher_is_better(column))


def against(study: Study, column: Column, said: Predicted, other: Predicted, seed: int) -> dict[str, Any]:
    """A row beside another one: as `beside`, with num_clips and num_groups of the clips that have a value in both.

    Where the column is of hits also `exact`: McNemar's exact test of each repeat beside that repeat of the other row,
    see `over_repeats`; else null.
    """
    ours, theirs = (one.clips[column.part] for one in (said, other))
    places = [{name: i for i, name in enumerate(clips[0].texts("clip_id").tolist())} for clips in (ours, theirs)]
    shared = [name for name in places[0] if name in places[1]]
    own, its = (
        own_values(study, column, clips)[[place[name] for name in shared]]
        for clips, place in zip((ours, theirs), places, strict=True)
    )
    clips = ours[0].take(np.array([places[0][name] for name in shared], dtype=np.int64))
    paired, *alone = (
        scaled(interval_of(*units_of(column, clips, values), seed), column) for values in (own - its, own, its)
    )
    found = compared(paired, *alone, higher_is_better=study.higher_is_better(column))
    return {
        **found,
        "num_clips": int((~np.isnan(own - its)).sum()),
        "num_groups": paired["num_groups"],
        "exact": _exact(study, column, ours, theirs, [[place[name] for name in shared] for place in places]),
    }


def _exact(
    study: Study, column: Column, ours: Sequence[Clips], theirs: Sequence[Clips], places: Sequence[Sequence[int]]
) -> dict[str, Any] | None:
    measure = study.measure(column)
    if measure is None or measure.per_clip is None or not measure.is_hit:
        return None
    values = [
        [measure.per_clip(clips)[rows] for clips in row] for row, rows in zip((ours, theirs), places, strict=True)
    ]
    return over_repeats([disagreement(this, other) for this, other in zip(*values, strict=False)])


def compared(
    paired: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any], *, higher_is_better: bool
) -> dict[str, Any]:
    """Ours minus theirs, clip by clip, and what it says.

    {difference, low, high · verdict: `beats` or `worse` where the interval of the difference lies on one side of 0,
    else `unclear` · apart: the two intervals do not meet, and ours is the better one}.
    """
    low, high = paired["low"], paired["high"]
    verdict = "unclear"
    if low is not None and high is not None:
        above, below = ("beats", "worse") if higher_is_better else ("worse", "beats")
        verdict = above if low > 0 else below if high < 0 else "unclear"
    near, far = (ours["low"], theirs["high"]) if higher_is_better else (ours["high"], theirs["low"])
    apart = near is not None and far is not None and (near > far if higher_is_better else near < far)
    return {"difference": paired["value"], "low": low, "high": high, "verdict": verdict, "apart": apart}


def scaled(interval: Mapping[str, Any], column: Column) -> dict[str, Any]:
    """The interval in the column's scale."""
    names = ("value", "low", "high")
    return {
        key: column.scale * value if key in names and value is not None else value for key, value in interval.items()
    }


def fold_values(column: Column, study: Study, said: Predicted) -> dict[str, float | None]:
    """{fold: value} of a judged column; a fold is called by its group where it has one only."""
    repeats = said.clips[column.part]
    values = own_values(study, column, repeats)
    folds, groups = repeats[0].texts("fold"), repeats[0].texts("group")
    found = {}
    for fold in np.unique(folds).tolist():
        inside = np.unique(groups[folds == fold]).tolist()
        name = inside[0] if len(inside) == 1 and inside[0] else f"fold {fold}"
        found[name] = number(column.scale * mean_where_defined(values[folds == fold]))
    return {name: found[name] for name in sorted(found, key=lambda name: (len(name), name))}
