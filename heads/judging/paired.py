"""Two classifiers on the same clips: McNemar's exact test, and what published accuracies alone leave of it.

Of clips on which both are right, or both wrong, nothing follows. If neither is better, each clip on which exactly one
is right is a fair coin: with b clips that only the first gets right and c that only the second does, b is binomial
(b + c, 1/2) (McNemar 1947; exact: Cochran 1950). Clips count as independent of each other. An interval over groups,
which stands beside it, does not take them so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Clips on which exactly one of two classifiers is right.

    Attributes:
        only_this: that only the first gets right.
        only_other: that only the second gets right.
    """

    only_this: int
    only_other: int

    @property
    def p(self) -> float:
        """See `mcnemar_exact`."""
        return mcnemar_exact(self.only_this, self.only_other)

    def to_json(self) -> dict[str, Any]:
        """{only_this, only_other, p}."""
        return {"only_this": self.only_this, "only_other": self.only_other, "p": self.p}


def mcnemar_exact(only_this: int, only_other: int) -> float:
    """Two-sided p of McNemar's exact test, 0 < p <= 1; 1 for as many on either side, and for none.

    p = min(1, 2 * sum over i <= min(b, c) of C(b + c, i) / 2 ** (b + c)), in whole numbers until the last division.

    Raises:
        ValueError: a negative count.
    """
    if min(only_this, only_other) < 0:
        raise ValueError(f"{only_this = }, {only_other = }: counts of clips are 0 or more")
    total, term, tail = only_this + only_other, 1, 0
    for i in range(min(only_this, only_other) + 1):
        tail += term
        term = term * (total - i) // (i + 1)
    # Below the least float above 0 it is that: a p is never 0.
    p: float = 2 * tail / 2**total
    return max(min(1.0, p), 5e-324)


def disagreement(this: np.ndarray, other: np.ndarray) -> Disagreement:
    """Counts of two classifiers' hits.

    Args:
        this, other: 1 where right, 0 where wrong, NaN for a clip that does not count: (N,) in the same order. A clip
            counts where both have a value.

    Raises:
        ValueError: another value, or other clips.
    """
    if this.shape != other.shape or this.ndim != 1:
        raise ValueError(f"{this.shape = }, {other.shape = }: expected (N,) of the same clips")
    both = ~(np.isnan(this) | np.isnan(other))
    pair = np.stack([this[both], other[both]])
    if not np.isin(pair, (0.0, 1.0)).all():
        raise ValueError("hits are 0 or 1; this is no share of clips")
    first, second = pair > 0
    return Disagreement(only_this=int((first & ~second).sum()), only_other=int((second & ~first).sum()))


def over_repeats(repeats: Sequence[Disagreement]) -> dict[str, Any]:
    """{only_this, only_other, p of the repeat in the middle, repeats: the same of each}.

    Repeats judge the same clips, so their p are not independent, and counts summed over them would call a clip several
    clips. The repeat in the middle by p (of an even number the larger p of the two) is shown as it is: half of the
    repeats or more say no less than it does.
    """
    ordered = sorted(repeats, key=lambda one: one.p)
    middle = ordered[len(ordered) // 2]
    return {**middle.to_json(), "repeats": [one.to_json() for one in repeats]}


@dataclass(frozen=True, kw_only=True)
class PublishedPair:
    """Two published accuracies of the same clips, whose predictions nobody has.

    Attributes:
        right: clips that the first gets right.
        other_right: clips that the second gets right.
        clips: evaluated clips.
    """

    right: int
    other_right: int
    clips: int

    def __post_init__(self) -> None:
        if not 0 <= min(self.right, self.other_right) <= max(self.right, self.other_right) <= self.clips:
            raise ValueError(f"{self.right} and {self.other_right} right of {self.clips} clips cannot be")

    @classmethod
    def of(cls, share: float, other_share: float, clips: int) -> PublishedPair:
        """Of accuracies from 0 to 1, as the nearest whole numbers of clips."""
        return cls(right=round(share * clips), other_right=round(other_share * clips), clips=clips)

    @property
    def difference(self) -> int:
        """How many clips more the first gets right."""
        return self.right - self.other_right

    @property
    def least(self) -> int:
        """The fewest clips on which they can disagree."""
        return abs(self.difference)

    @property
    def most(self) -> int:
        """The most clips on which they can disagree."""
        better, worse = max(self.right, self.other_right), min(self.right, self.other_right)
        return 2 * min(better, self.clips - worse) - self.least

    def p(self, disagree: int) -> float:
        """McNemar's p if they disagree on so many clips. It rises with their number.

        Raises:
            ValueError: a number on which they cannot.
        """
        if not self.least <= disagree <= self.most or (disagree - self.least) % 2:
            raise ValueError(
                f"{self.right} and {self.other_right} right of {self.clips} clips: they disagree on {self.least}, "
                f"{self.least + 2}, ... or {self.most} clips, not on {disagree}"
            )
        return mcnemar_exact((disagree + self.difference) // 2, (disagree - self.difference) // 2)

    def sentence(self, disagree: int | None = None) -> str:
        """What can be said of the difference; `disagree`: a number of clips that is taken as an example."""
        said = f"{self.right} against {self.other_right} of {self.clips} clips right, {self.difference:+d}: "
        said += f"the exact test p lies between {p_text(self.p(self.least))} and {p_text(self.p(self.most))}"
        said += ", depending on which clips each gets right"
        if disagree is None:
            return f"{said}."
        first, second = (disagree + self.difference) // 2, (disagree - self.difference) // 2
        return f"{said}; p {_equals(self.p(disagree))} if {first} against {second} disagree."


def p_text(p: float) -> str:
    """'0.34', '0.0021', '< 0.0001'."""
    if p < 1e-4:
        return "< 0.0001"
    return f"{p:.2f}" if p >= 0.0995 else f"{p:.2g}"


def exact_text(found: Mapping[str, Any]) -> str:
    """'only this row right on 40, only the other on 31, exact test p = 0.34', of a `Disagreement` as JSON types."""
    text = f"only this row right on {found['only_this']}, only the other on {found['only_other']}, exact test p "
    return f"{text}{_equals(found['p'])}"


def _equals(p: float) -> str:
    return p_text(p) if p < 1e-4 else f"= {p_text(p)}"
