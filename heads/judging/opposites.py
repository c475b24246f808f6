"""Classes that are each other's opposite by their names, and whether a head tells such a pair apart.

`open_jar` and `close_jar` show the same things in another order: what tells them apart is motion, and an accuracy over
all classes hides whether a head has learnt it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

WITHIN_PAIR = "within_pair"
"""The column of predictions.csv that says whether a clip's class was told from its opposite."""
WORDS = (("open", "close"), ("take", "put"), ("fold", "unfold"), ("on", "off"))
_PARTNER = {one: other for pair in WORDS for one, other in (pair, pair[::-1])}
_LETTERS = re.compile(r"([^\W_]+)")


def partner(name: str, names: Sequence[str]) -> str:
    """The class of `names` that has the opposite word in the place of one of `name`'s, and all else the same; or ''."""
    known = {other.lower(): other for other in names}
    parts = _LETTERS.split(name.lower())
    for place, word in enumerate(parts):
        other = "".join([*parts[:place], _PARTNER.get(word, ""), *parts[place + 1 :]])
        if word in _PARTNER and other in known:
            return known[other]
    return ""


def pairs(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Every pair of `names`, each once, in their order."""
    found = [(name, partner(name, names)) for name in names]
    return tuple((one, other) for one, other in found if other and names.index(one) < names.index(other))


def told_apart(probabilities: np.ndarray, truth: str, names: Sequence[str]) -> bool | None:
    """Whether the true class is more probable than its partner, whatever else is; None for a class without one.

    Args:
        probabilities: (K,) of the classes `names`.
    """
    other = partner(truth, names) if truth in names else ""
    if not other:
        return None
    return bool(probabilities[names.index(truth)] > probabilities[names.index(other)])
