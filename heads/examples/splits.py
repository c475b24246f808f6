"""Which clips train, which choose the best epoch, which are reported. Groups are never cut.

A clip without a group is its own group; whether that happened is said in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from reelbank.heads.config import DataConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.label_sets import strata

VALIDATION_SHARE = 0.2
MOST_TRIED_FOLDS = 20  # where another number is looked for
KNOWN_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Positions of the clips of each part, int64, sorted.

    Attributes:
        fold: number of the fold, None without folds.
        val: clips that choose the best epoch; with `--select-on reported-set` the same as the reported part.
        val_is_reported: whether `val` is the very part that the run reports.
        notes: sentences for the report.
    """

    fold: int | None
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    unknown: np.ndarray
    val_is_reported: bool = False
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a run's clips.

    Attributes:
        groups: `effective_groups` of the clips (N,).
        partitions: one, or one for each fold.
        eligible: clips that train some partition, before --train-clips draws of them, int64, sorted.
    """

    groups: np.ndarray
    partitions: tuple[Partition, ...]
    eligible: np.ndarray

    @property
    def trained(self) -> np.ndarray:
        """Clips that train some partition, int64, sorted."""
        return _trained(self.partitions)

    @property
    def notes(self) -> list[str]:
        """Sentences for the report."""
        return list(dict.fromkeys(note for part in self.partitions for note in part.notes))


def parts_of(
    table: ClipTable,
    data: DataConfig,
    *,
    train_clips: int,
    seed: int,
    separator: str | None = None,
    needs_val: bool = True,
    notes: Sequence[str] = (),
) -> Parts:
    """Which clips of `table` train, select and are reported. Raises what `make_partitions` raises.

    Args:
        needs_val: see `make_partitions`.
        separator: of several labels of one clip, see `TrainConfig.separator`.
        notes: sentences for the report about the splits of `table`.
    """
    labels = strata(table.labels, separator)
    groups = effective_groups(table.groups.tolist(), table.clip_ids.tolist())
    partitions = make_partitions(
        splits=table.splits,
        labels=labels,
        groups=groups,
        folds=data.folds,
        select_on=data.select_on,
        seed=seed,
        needs_val=needs_val,
        notes=notes,
    )
    eligible = _trained(partitions)
    if train_clips:
        partitions = tuple(replace(part, train=thinned(part.train, labels, train_clips, seed)) for part in partitions)
    if most := data.judge_clips:
        partitions = tuple(
            replace(
                part,
                val=thinned(part.val, labels, most, seed),
                test=thinned(part.test, labels, most, seed),
                unknown=thinned(part.unknown, labels, most, seed),
                notes=(*part.notes, f"At most {most} clips of each other part are judged (--judge-clips)."),
            )
            for part in partitions
        )
    return Parts(groups=groups, partitions=partitions, eligible=eligible)


def _trained(partitions: Sequence[Partition]) -> np.ndarray:
    return np.unique(np.concatenate([part.train for part in partitions]))


def effective_groups(groups: Sequence[str], clip_ids: Sequence[str]) -> np.ndarray:
    """The group of each clip, or its own id where it has none; prefixed, so that the two cannot meet."""
    return np.array(
        [f"g:{group}" if group else f"c:{clip}" for group, clip in zip(groups, clip_ids, strict=True)],
        dtype=str,
    )


def count_groups(groups: np.ndarray, rows: np.ndarray) -> int | None:
    """How many of `effective_groups` the clips `rows` have; None where no clip at all has a group."""
    if all(name.startswith("c:") for name in groups.tolist()):
        return None
    return len(np.unique(groups[rows]))


def assign_folds(labels: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Fold of each clip, int64 (N,): groups stay whole, classes spread as evenly as that allows.

    Greedy: groups in a seeded order, those with the most uneven classes first, each to the fold where the spread of
    class shares over folds grows least (the rule of scikit-learn's StratifiedGroupKFold; ties go to the smaller fold).

    Raises:
        TrainingError: fewer groups than folds.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    if len(names) < num_folds:
        raise TrainingError(
            f"{num_folds} folds need at least {num_folds} groups, found {len(names)}; use fewer folds or add groups"
        )
    classes = np.unique(labels, return_inverse=True)[1]
    num_classes = int(classes.max()) + 1
    counts = np.zeros((len(names), num_classes))
    np.add.at(counts, (group_of, classes), 1)
    shares = counts / counts.sum(axis=0)  # of each class, how much lies in the group
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    filled = np.zeros((num_folds, num_classes))
    sizes = np.zeros(num_folds)
    fold_of = np.empty(len(names), dtype=np.int64)
    left = len(names)
    for group in order:
        empty = sizes == 0
        # As many groups left as folds without one: the rest must fill those.
        candidates = np.flatnonzero(empty) if left <= empty.sum() else np.arange(num_folds)
        spread = _spread_after(filled, shares[group], candidates)
        close = candidates[np.isclose(spread, spread.min())]
        fold = close[np.argmin(sizes[close])]
        filled[fold] += shares[group]
        sizes[fold] += counts[group].sum()
        fold_of[group] = fold
        left -= 1
    result: np.ndarray = fold_of[group_of]
    return result


def _spread_after(filled: np.ndarray, added: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Sum over classes of the variance over folds, were `added` put into each candidate: (len(candidates),).

    The mean over folds is the same whichever fold is chosen, so only the squares matter.
    """
    gains: np.ndarray = ((filled[candidates] + added) ** 2 - filled[candidates] ** 2).sum(axis=1)
    return gains


def hold_out(rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, validation rows): about 20 % of `rows` by whole groups, classes as even as that allows.

    A group without which a class would leave the training part stays in it.

    Raises:
        TrainingError: no group can be given up.
    """
    here_labels, here_groups = labels[rows], groups[rows]
    num_parts = min(round(1 / VALIDATION_SHARE), len(np.unique(here_groups)))
    if num_parts >= 2:
        parts = assign_folds(here_labels, here_groups, num_parts, seed)
        candidates = [_without_needed_groups(parts == part, here_labels, here_groups) for part in range(num_parts)]
        candidates = [held for held in candidates if held.any()]
        if candidates:
            held = min(candidates, key=lambda held: abs(held.mean() - VALIDATION_SHARE))
            return rows[~held], rows[held]
    raise TrainingError(
        f"no validation part can be cut from {len(rows)} training clips in {len(np.unique(here_groups))} groups "
        "without losing a class; give the manifest a 'val' split, or more clips of other groups"
    )


def _held_out(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int, *, needed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`hold_out`; where it is impossible and not `needed`, all of `rows` and nothing."""
    try:
        return hold_out(rows, labels, groups, seed)
    except TrainingError:
        if needed:
            raise
        return rows, rows[:0]


def _without_needed_groups(held: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """`held` (n,) bool less the groups without which a class would have no clip outside."""
    held = held.copy()
    for group in np.unique(groups[held]):
        own = groups == group
        if not np.isin(labels[own], labels[~held]).all():
            held &= ~own
    return held


def thinned(rows: np.ndarray, labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of `rows`, ascending: drawn class by class in turns, so that every class keeps a clip."""
    order = np.random.default_rng(seed).permutation(rows)
    turns = np.empty(len(order), dtype=np.int64)
    for label in np.unique(labels[order]):
        places = np.flatnonzero(labels[order] == label)
        turns[places] = np.arange(len(places))
    return np.sort(order[np.argsort(turns, kind="stable")[:most]])


def make_partitions(
    *,
    splits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    folds: int,
    select_on: str,
    seed: int,
    needs_val: bool = True,
    notes: Sequence[str] = (),
) -> tuple[Partition, ...]:
    """One partition, or one for each of `folds`.

    Args:
        splits, labels, groups: of each clip, str arrays (N,); groups from `effective_groups`.
        select_on: `validation` or `reported-set`.
        needs_val: whether a head cannot do without validation clips; if it can, and none can be cut from the training
            clips without losing a class, there are none.
        notes: sentences that come before those about the parts.

    Raises:
        TrainingError: an empty training part, too few groups.
    """
    said = list(notes)
    if others := sorted(set(splits.tolist()) - {*KNOWN_SPLITS, "unknown"}):
        count = int(np.isin(splits, others).sum())
        said.append(f"{count} clips of other splits ({', '.join(map(repr, others))}) are not used.")
    if folds:
        return _folds(splits, labels, groups, folds, select_on, seed, said, needs_val=needs_val)
    return (_single(splits, labels, groups, select_on, seed, said, needs_val=needs_val),)


def _single(
    splits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    select_on: str,
    seed: int,
    notes: list[str],
    *,
    needs_val: bool,
) -> Partition:
    train, val, test, unknown = (np.flatnonzero(splits == name) for name in (*KNOWN_SPLITS, "unknown"))
    if not len(train):
        found = (
            ", ".join(f"{name!r} ({(splits == name).sum()})" for name in sorted(set(splits.tolist())))
            or "no clip at all"
        )
        raise TrainingError(f"the split 'train' holds no usable clip, found {found}; featurize it, or use --folds K")
    reported = test if len(test) else val
    if select_on == "reported-set":
        if not len(reported):
            raise TrainingError(
                "--select-on reported-set needs clips in split 'test' or 'val'; found only training clips"
            )
        if len(test) and len(val):
            notes.append(f"The {len(val)} clips of split 'val' are not used: the best epoch is chosen on 'test'.")
        val = reported
    elif not len(val):
        train, val = _held_out(train, labels, groups, seed, needed=needs_val or not len(test))
        whole = len(train) + len(val)
        notes.append(
            f"The store has no split 'val': {len(val)} of {whole} training clips, in whole groups, were held out for "
            "validation."
            if len(val)
            else f"The store has no split 'val', and none can be cut from its {whole} training clips: all are fitted."
        )
    if not len(test):
        notes.append("The store has no split 'test': the numbers are those of the validation clips.")
    return Partition(
        fold=None,
        train=train,
        val=val,
        test=test,
        unknown=unknown,
        val_is_reported=select_on == "reported-set" or not len(test),
        notes=tuple(notes),
    )


def _folds(
    splits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    folds: int,
    select_on: str,
    seed: int,
    notes: list[str],
    *,
    needs_val: bool,
) -> tuple[Partition, ...]:
    rows = np.flatnonzero(np.isin(splits, KNOWN_SPLITS))
    if not len(rows):
        raise TrainingError(f"--folds {folds}: no usable clip in the splits train, val and test")
    parts = assign_folds(labels[rows], groups[rows], folds, seed)
    unknown = np.flatnonzero(splits == "unknown")
    names, group_of = np.unique(groups[unknown], return_inverse=True)
    # Each unknown clip is judged by one fold's model, so that every pooled number is of single models.
    unknown_part = (np.random.default_rng(seed).permutation(len(names)) % folds)[group_of] if len(names) else group_of
    notes.append(
        f"{folds}-fold cross-validation over groups: every clip is predicted once, by a model that "
        "saw no clip of its group."
    )
    if len(unknown):
        notes.append("Each clip of split 'unknown' is predicted by the model of one fold.")
    partitions = []
    for fold in range(folds):
        rest, test = rows[parts != fold], rows[parts == fold]
        train, val = rest, test
        if select_on != "reported-set":
            try:
                train, val = _held_out(rest, labels, groups, seed + 1 + fold, needed=needs_val)
            except TrainingError as error:
                raise _impossible(rows, labels, groups, folds, fold, seed) from error
        partitions.append(
            Partition(
                fold=fold,
                train=train,
                val=val,
                test=test,
                unknown=unknown[unknown_part == fold],
                val_is_reported=select_on == "reported-set",
                notes=tuple(notes),
            )
        )
    return tuple(partitions)


def _impossible(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int, fold: int, seed: int
) -> TrainingError:
    """What is said where a fold leaves no validation part: another number of folds, where one does."""
    num_groups = len(np.unique(groups[rows]))
    others = [other for other in range(2, min(num_groups, MOST_TRIED_FOLDS) + 1) if other != folds]
    others.sort(key=lambda other: abs(other - folds))
    found = next((other for other in others if _can_fold(rows, labels, groups, other, seed)), None)
    advice = "add clips of other groups" if found is None else f"pass --folds {found}, or add clips of other groups"
    return TrainingError(
        f"--folds {folds}: what fold {fold} leaves of {len(rows)} clips in {num_groups} groups gives no validation "
        f"part without losing a class; {advice}"
    )


def _can_fold(rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> bool:
    parts = assign_folds(labels[rows], groups[rows], folds, seed)
    try:
        for fold in range(folds):
            hold_out(rows[parts != fold], labels, groups, seed + 1 + fold)
    except TrainingError:
        return False
    return True
