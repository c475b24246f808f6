"""Which parts predict an output, decided by inner validation on clips whose labels training may know.

For each kind of predictor and each tap (and all taps side by side) the clips are predicted by fits that saw no clip of
their group. From these predictions follow those of every average of parts, so that candidates cost nothing more. What
is expected to be best is the average over kinds and taps, of a target that of trees over taps; another candidate is
taken where it is better by more than the uncertainty of their difference over groups, and the frequencies of the
training clips where nothing is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reelbank.heads.examples.splits import assign_folds
from reelbank.heads.fitting.forests import fit_trees, number_of_trees
from reelbank.heads.fitting.linear import STRENGTHS, fit_linear
from reelbank.heads.fitting.tasks import Task
from reelbank.heads.models.combination import Constant
from reelbank.heads.models.trees import smoothed

Array = NDArray[np.float64]
Taps = tuple[str, ...]

MOST_FOLDS = 5
MANY_CLIPS, VERY_MANY_CLIPS = 4_000, 20_000
"""From so many clips on there are 3 inner folds, and one part that is held out: their noise is small by then."""
BLOCK = 1024  # clips predicted at once
CONSTANT = "the constant"
WIDENINGS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Spreads of a target's distribution that are tried, as multiples of the width of the labels."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A predictor of one output: its kind, the taps it reads, and for `linear` and `normal` which of the strengths."""

    kind: str
    taps: Taps
    strength: int = 0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Parts whose probabilities are averaged, and what the average is called in a sentence."""

    name: str
    parts: tuple[Part, ...]


@dataclass(kw_only=True)
class Chosen:
    """What inner validation decided of one output.

    Attributes:
        candidate: the one that was taken.
        rows: clips that were judged; `out_of_fold` (n, K) their probabilities by fits that saw none of their group.
        losses: {candidate's name: mean loss there}, in the order of preference; empty where groups are too few for it.
        widening: standard deviation in bins by which the target's distribution is spread, also out of fold.
    """

    candidate: Candidate
    rows: NDArray[np.int64]
    out_of_fold: Array
    losses: Mapping[str, float] = field(default_factory=dict)
    widening: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What fits parts: vectors {tap: (N, D)}, kinds that may be taken, and how trees are grown."""

    vectors: Mapping[str, NDArray[np.float32]]
    kinds: tuple[str, ...]
    trees: int = 0
    leaf: int = 1
    seed: int = 0
    jobs: int = 1

    def columns(self, taps: Taps) -> NDArray[np.float32]:
        """The vectors of `taps` side by side in sorted order, (N, D)."""
        return np.concatenate([self.vectors[tap] for tap in sorted(taps)], axis=1)

    def forest(self, x: NDArray[np.float32], task: Task, rows: NDArray[np.int64], *, share: float = 1.0) -> nn.Module:
        """Trees on the clips `rows` of `x`; `share` of as many as there are in the end."""
        trees = self.trees or number_of_trees(len(rows), x.shape[1], task.columns)
        return fit_trees(
            x, task, rows, trees=max(1, round(trees * share)), leaf=self.leaf, seed=self.seed, jobs=self.jobs
        )

    def of(self, part: Part, task: Task, rows: NDArray[np.int64]) -> nn.Module:
        """The part, fitted to the clips `rows`."""
        if part.kind == "constant":
            made = Constant(task.columns)
            made.probabilities.copy_(torch.from_numpy(task.marginal(rows)))
            return made
        x = self.columns(part.taps)
        if part.kind == "trees":
            return self.forest(x, task, rows)
        return next(islice(fit_linear(x, task, rows), part.strength, None))  # each starts from the one before it


def choose(
    fitting: Fitting,
    task: Task,
    groups: NDArray[np.str_],
    rows: NDArray[np.int64],
    held_out: NDArray[np.int64],
    progress: Callable[[str], None],
) -> Chosen:
    """The candidate for one output, judged on the clips `rows` (all of known label).

    Args:
        groups: of every clip (N,); none is on both sides of a fold.
        held_out: the validation part: of very many clips, those of it that are among `rows` judge.
        progress: told what is being fitted.
    """
    sets = tap_sets(tuple(fitting.vectors))
    folds = inner_folds(task, groups, rows, held_out, fitting.seed)
    if folds is None:
        first = candidates(fitting.kinds, sets, dict.fromkeys(sets, len(STRENGTHS) // 2))[0]
        return Chosen(candidate=first, rows=rows[:0], out_of_fold=np.zeros((0, task.columns)))
    judged = rows[folds >= 0]
    groups_judged, fold_of = groups[judged], folds[folds >= 0]
    single: dict[Part, Array] = {}
    constant = np.zeros((len(judged), task.columns))
    numbers = np.unique(fold_of).tolist()
    for number in numbers:
        seen, held = rows[folds != number], fold_of == number
        constant[held] = task.marginal(seen)
        for taps in sets:
            what = f"{' and '.join(fitting.kinds)} on {' and '.join(taps)}"
            progress(f"inner fold {number + 1} of {len(numbers)}: {what}")
            x = fitting.columns(taps)
            for part, module in _fits(fitting, x, task, seen, taps):
                if part not in single:
                    single[part] = np.zeros((len(judged), task.columns))
                single[part][held] = _predicted(module, x, judged[held])
    strengths = {taps: _strength(single, task, judged, taps) for taps in sets}
    found = {}
    for candidate in candidates(fitting.kinds, sets, strengths):
        found[candidate] = np.mean([single[part] for part in candidate.parts], axis=0)
    losses = {candidate: task.loss(values, judged) for candidate, values in found.items()}
    taken = preferred(losses, groups_judged)
    named = {candidate.name: float(loss.mean()) for candidate, loss in losses.items()}
    of_constant = float(task.loss(constant, judged).mean())
    probabilities = found[taken]
    if of_constant <= named[taken.name]:
        taken, probabilities = Candidate(name=CONSTANT, parts=(Part(kind="constant", taps=()),)), constant
    chosen = Chosen(candidate=taken, rows=judged, out_of_fold=probabilities, losses=named | {CONSTANT: of_constant})
    return chosen if task.bins is None else _widened(chosen, task)


def tap_sets(taps: Taps) -> list[Taps]:
    """Each tap alone, and all side by side."""
    alone: list[Taps] = [(tap,) for tap in sorted(taps)]
    return [*alone, tuple(sorted(taps))] if len(taps) > 1 else alone


def inner_folds(
    task: Task, groups: NDArray[np.str_], rows: NDArray[np.int64], held_out: NDArray[np.int64], seed: int
) -> NDArray[np.int64] | None:
    """Fold of each of `rows`, -1 where it is never judged; None where the groups do not suffice."""
    own = groups[rows]
    count = min(MOST_FOLDS if len(rows) < MANY_CLIPS else 3, len(np.unique(own)))
    if count < 2:
        return None
    if len(rows) < VERY_MANY_CLIPS:
        return assign_folds(task.strata()[rows], own, count, seed)
    among = np.isin(rows, held_out)
    return np.where(among if among.any() else assign_folds(task.strata()[rows], own, count, seed) == 0, 0, -1)


def candidates(kinds: Sequence[str], sets: Sequence[Taps], strengths: Mapping[Taps, int]) -> list[Candidate]:
    """What may be taken, the one that is expected to be best first."""
    alone, joined = [taps for taps in sets if len(taps) == 1], [taps for taps in sets if len(taps) > 1]

    def parts(kinds: Sequence[str], of: Sequence[Taps]) -> tuple[Part, ...]:
        return tuple(
            Part(kind=kind, taps=taps, strength=0 if kind == "trees" else strengths[taps])
            for taps in of
            for kind in kinds
        )

    mixtures: list[tuple[str, ...]] = [tuple(kinds), *((kind,) for kind in kinds)] if len(kinds) > 1 else [tuple(kinds)]
    if "normal" in kinds and len(kinds) > 1:
        # A line through a target's values goes on beyond them, on clips unlike those of training without an end.
        mixtures = [mixtures[1], mixtures[0], *mixtures[2:]]
    names = {mixture: " and ".join(mixture) for mixture in mixtures}
    found = []
    if len(alone) > 1:
        found += [
            Candidate(name=f"{names[mixture]}, the mean over the stores", parts=parts(mixture, alone))
            for mixture in mixtures
        ]
        found += [
            Candidate(name=f"{names[mixture]} on the stores' features side by side", parts=parts(mixture, joined))
            for mixture in mixtures
        ]
    for taps in alone:
        where = f" on {taps[0]} alone" if len(alone) > 1 else ""
        found += [Candidate(name=f"{names[mixture]}{where}", parts=parts(mixture, [taps])) for mixture in mixtures]
    return found


def preferred(losses: Mapping[Candidate, Array], groups: NDArray[np.str_]) -> Candidate:
    """The first candidate, or the best one if it is better by more than the standard error of their difference.

    The error counts groups: clips of one are not independent.
    """
    first = next(iter(losses))
    best = min(losses, key=lambda candidate: float(losses[candidate].mean()))
    difference = losses[first] - losses[best]
    group_of = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(group_of, weights=difference - difference.mean())
    error = float(np.sqrt((sums**2).sum())) / len(difference)
    return best if float(difference.mean()) > error else first


def _widened(chosen: Chosen, task: Task) -> Chosen:
    """With the spread under which the true bins are the most probable out of fold, in nats.

    The values of similar clips say where a target lies, not how far new clips lie from them.
    """
    assert task.bins is not None
    bins = task.bins.nearest(task.truth[chosen.rows].astype(np.float64))
    own = torch.from_numpy(chosen.out_of_fold)
    best, found = np.inf, chosen
    for times in WIDENINGS:
        values = smoothed(own, times * task.bins.sigma_bins).numpy()
        values /= values.sum(axis=1, keepdims=True)
        nats = float(-np.log(values[np.arange(len(bins)), bins].clip(1e-12)).mean())
        if nats < best:
            best = nats
            found = replace(chosen, out_of_fold=values, widening=float(times * task.bins.sigma_bins))
    return found


def _fits(
    fitting: Fitting, x: NDArray[np.float32], task: Task, rows: NDArray[np.int64], taps: Taps
) -> Iterator[tuple[Part, nn.Module]]:
    """Every part on `taps`, whose vectors are `x`."""
    for kind in fitting.kinds:
        if kind == "trees":
            yield Part(kind=kind, taps=taps), fitting.forest(x, task, rows, share=0.5)
        else:
            for strength, module in enumerate(fit_linear(x, task, rows)):
                yield Part(kind=kind, taps=taps, strength=strength), module


@torch.no_grad()
def _predicted(module: nn.Module, x: NDArray[np.float32], rows: NDArray[np.int64]) -> Array:
    parts = [
        module(torch.from_numpy(x[rows[start : start + BLOCK]])).double().numpy()
        for start in range(0, len(rows), BLOCK)
    ]
    return np.concatenate(parts)


def _strength(single: Mapping[Part, Array], task: Task, judged: NDArray[np.int64], taps: Taps) -> int:
    """Which strength is best of the linear predictors on `taps`; the most regularised of equals."""
    own = [(part.strength, values) for part, values in single.items() if part.kind != "trees" and part.taps == taps]
    if not own:
        return 0
    return min(own, key=lambda one: (float(task.loss(one[1], judged).mean()), one[0]))[0]
