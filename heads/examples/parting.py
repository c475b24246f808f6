"""Other parts than the store's own: of another column, or drawn, by clips or by whole groups (--split-by).

A draw follows from --seed and the ids of the clips or groups, not from their order. Published systems that draw by
clips judge clips whose source they have trained on; `overlap` counts them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.label_sets import strata
from reelbank.heads.split_rules import SplitRule
from reelbank.manifests.drawing import drawn_by_class, drawn_order, quotas

KEPT = "unknown"
"""Clips of classes that training must not see are no part of a draw."""


def parted(
    table: ClipTable, rule: SplitRule, groups: NDArray[np.str_], *, seed: int, separator: str | None = None
) -> tuple[ClipTable, tuple[str, ...]]:
    """(`table` with the splits of `rule`, the sentence for the report that says so).

    Args:
        groups: `effective_groups` of the clips.
        separator: of several labels of one clip, see `TrainConfig.separator`.

    Raises:
        TrainingError: a column that is not there, or a share that cannot be held out without losing a class.
    """
    if rule.is_own:
        return table, ()
    if rule.kind == "column":
        return replace(table, splits=_column(table, rule.text)), (
            f"Splits are those of the column {rule.text!r}, not the store's own (--split-by).",
        )
    rows = np.flatnonzero(table.splits != KEPT)
    labels, classes = np.unique(strata(table.labels, separator)[rows], return_inverse=True)
    if rule.kind == "random":
        held = drawn_clips(table.clip_ids[rows].tolist(), classes, math.ceil(rule.share * len(rows)), seed)
        how = "drawn class by class whatever their group"
    else:
        held = drawn_groups(groups[rows].tolist(), classes, float(rule.share), seed)
        how = f"{len(np.unique(groups[rows][held]))} whole groups drawn with an eye to their classes"
    if not held.any():
        raise TrainingError(
            f"--split-by {rule.text}: of {len(rows)} clips in {len(np.unique(groups[rows]))} groups and {len(labels)} "
            "classes none can be held out without losing a class; ask for another share, or add clips"
        )
    splits = table.splits.astype(object)
    splits[rows] = np.where(held, rule.part, "train")
    return replace(table, splits=splits.astype(str)), (
        f"{int(held.sum())} of {len(rows)} clips, {how}, are split {rule.part!r} and the others 'train', whatever the "
        f"store's own split says (--split-by {rule.text}, seed {seed}).",
    )


def drawn_clips(clip_ids: Sequence[str], classes: NDArray[np.int64], count: int, seed: int) -> NDArray[np.bool_]:
    """`count` of the clips, of each class its share to the nearest whole clip (N,); every class keeps one clip.

    Raises TrainingError where the classes cannot give as many.
    """
    labels = classes.astype(str).tolist()
    of_class = quotas(Counter(labels), count, seed)
    if of_class is None:
        raise TrainingError(
            f"{count} of {len(classes)} clips cannot be held out: each of {len(np.unique(classes))} classes keeps a "
            "clip in training; ask for a smaller share (--split-by)"
        )
    return np.array(drawn_by_class(clip_ids, labels, of_class, seed), dtype=bool)


def drawn_groups(groups: Sequence[str], classes: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """About `share` of the clips in whole groups (N,); every class keeps a clip.

    Groups are gone through in a drawn order, and one is held out if that brings the held clips of its classes nearer to
    their share, by the sum of squares over the size of the class.
    """
    names, of_clip = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.zeros((len(names), int(classes.max()) + 1))
    np.add.at(counts, (of_clip, classes), 1)
    sizes = counts.sum(axis=0)
    held, chosen = np.zeros_like(sizes), np.zeros(len(names), dtype=bool)
    for group in drawn_order(names.tolist(), seed):
        own = counts[group]
        nearer = ((2 * (held - share * sizes) + own) * own / sizes).sum() < 0
        if nearer and (held + own < sizes)[own > 0].all():
            held += own
            chosen[group] = True
    found: NDArray[np.bool_] = chosen[of_clip]
    return found


def _column(table: ClipTable, name: str) -> NDArray[np.str_]:
    store = table.sources[0].store
    texts = [column for column in store.column_names if store.column(column).dtype.kind != "f"]
    if name not in texts:
        raise TrainingError(
            f"--split-by {name}: {store.path} has no such text column, and it is no rule either; its columns are "
            f"{', '.join(sorted(texts))}, rules are random:SHARE[:test] and groups:SHARE[:test]"
        )
    values: NDArray[np.str_] = store.column(name)[table.rows[0]].astype(str)
    return values
