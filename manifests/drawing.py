"""Which clips are drawn out of many: a hash of seed and name decides, so that the order they come in means nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction


def drawn_order(names: Sequence[str], seed: int) -> list[int]:
    """Places of `names` in a drawn order."""
    return sorted(range(len(names)), key=lambda place: _key(names[place], seed))


def quotas(totals: Mapping[str, int], count: int, seed: int) -> dict[str, int] | None:
    """How many clips of each class are drawn, `count` together: its share, the largest remainders rounded up.

    Every class keeps a clip; of equal remainders the seed decides. None where the classes cannot give as many.

    Args:
        totals: {class: its clips}.
    """
    whole = sum(totals.values())
    exact = {label: Fraction(count * total, whole) for label, total in totals.items()}
    found = {label: min(int(part), totals[label] - 1) for label, part in exact.items()}
    for _ in range(count - sum(found.values())):
        able = [label for label in totals if found[label] < totals[label] - 1]
        if not able:
            return None
        found[max(able, key=lambda label: (exact[label] - found[label], _key(label, seed)))] += 1
    return found


def drawn_by_class(names: Sequence[str], labels: Sequence[str], of_class: Mapping[str, int], seed: int) -> list[bool]:
    """Whether each clip is drawn: of every class as many as `of_class` says."""
    left, drawn = dict(of_class), [False] * len(names)
    for place in drawn_order(names, seed):
        if left[labels[place]]:
            left[labels[place]] -= 1
            drawn[place] = True
    return drawn


def _key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()
