"""Several labels of one clip: a cell of the label column that holds them with a separator between.

An empty cell says that nothing is known of the clip; the separator alone says that it has none of the classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def labels_in(cell: str, separator: str) -> tuple[str, ...]:
    """The labels of a cell, each once, in its order; spaces around them do not count."""
    return tuple(dict.fromkeys(label for part in cell.split(separator) if (label := part.strip())))


def names_in(cells: Iterable[str], separator: str | None) -> set[str]:
    """The classes that any of `cells` names; without a separator each cell is one."""
    if separator is None:
        return set(cells)
    return {label for cell in cells for label in labels_in(cell, separator)}


def matrix(cells: Sequence[str], names: Sequence[str], separator: str) -> NDArray[np.bool_]:
    """Which clip has which of the classes `names`: (N, K). Other labels are left out."""
    places = {name: place for place, name in enumerate(names)}
    found = np.zeros((len(cells), len(names)), dtype=np.bool_)
    for row, cell in enumerate(cells):
        for label in labels_in(cell, separator):
            if label in places:
                found[row, places[label]] = True
    return found


def combined_note(labels: Iterable[str], separator: str, advice: str) -> list[str]:
    """The sentence about classes that look like several labels of a clip; [] where none does."""
    names = sorted(set(labels) - {""})
    several = [name for name in names if len(labels_in(name, separator)) > 1]
    if not several:
        return []
    return [
        f"{len(several)} of {len(names)} classes hold {separator!r} (the first: {several[0]!r}) and count as classes "
        f"of their own; {advice}."
    ]


def strata(cells: NDArray[np.str_], separator: str | None) -> NDArray[np.str_]:
    """What parts are balanced by, (N,): of each clip its rarest label, the first of equals; an empty cell stays empty.

    The cells themselves would not do: most combinations stand in one clip. Without a separator it is the cells.
    """
    if separator is None:
        return cells
    sets = [labels_in(cell, separator) for cell in cells.tolist()]
    counts = Counter(label for labels in sets for label in labels)
    rarest = [min(labels, key=lambda label: (counts[label], label), default="") for labels in sets]
    return np.array(rarest, dtype=str)


def joined(present: NDArray[np.bool_], names: Sequence[str], separator: str) -> list[str]:
    """A cell for each row of `present` (N, K), as `labels_in` reads it: the separator alone where none is."""
    return [separator.join(names[place] for place in np.flatnonzero(row).tolist()) or separator for row in present]
