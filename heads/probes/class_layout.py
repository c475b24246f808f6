"""How classes lie among each other in feature space, in numbers: what a map of the rows shows only roughly.

Of each class, with x_i its rows, m its mean, and d Euclidean distance:

    spread   mean of d(x_i, m) over the mean distance of all labelled rows from their mean: 1 is as wide as everything
    overlap  share of its rows whose nearest row of another clip is of another class

Both depend on how many rows a class has: a small one is nearer to its own mean, and finds fewer rows of its own. So the
same numbers stand beside them with the labels of clips permuted, the mean over PERMUTATIONS of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.probes.neighbours import nearest_donor
from reelbank.heads.reports.html import folded, paragraphs, section, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reelbank.heads.probes.rows import ProbeRows

PERMUTATIONS = 20
MOST_ROWS = 20_000
"""Of more rows a seeded sample is looked at: distances are of all pairs."""
NAMED = 3
"""Classes that a sentence names at either end."""
OPEN_CLASSES = 15
"""Of more classes the table opens on a click."""


def class_layout(rows: ProbeRows, seed: int) -> dict[str, Any]:
    """{num_rows, num_permutations, absent, classes: [entry]} of the labelled rows.

    entry: {label, rows, clips, spread, spread_permuted, overlap, overlap_permuted, nearest_class, nearest_share}, in
    alphabetical order. nearest_class: the other class that is nearest most often, the first of equals; nearest_share:
    of how many of the rows. spread is null of a class with one row, whose mean it is; overlap where no row has another
    clip beside it. absent: why there are no entries, '' else.
    """
    chosen = np.flatnonzero(rows.labels != "")
    if len(chosen) > MOST_ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MOST_ROWS, replace=False))
    found: dict[str, Any] = {"num_rows": len(chosen), "num_permutations": PERMUTATIONS, "absent": "", "classes": []}
    names, numbers = np.unique(rows.labels[chosen], return_inverse=True)
    vectors = rows.vectors[chosen].astype(np.float64)
    if len(names) < 2:
        return {**found, "absent": f"{len(names) or 'no'} {'class' if len(names) == 1 else 'classes'} among the rows"}
    if not np.ptp(vectors, axis=0).any():
        return {**found, "absent": "all labelled rows are equal"}
    clips, of_clip = np.unique(rows.clip_rows[chosen], return_inverse=True)
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.abs(vectors).max()  # no square is so small or large that it is lost
    nearest = nearest_donor(vectors, vectors, of_clip, of_clip)
    own = _Layout(vectors, nearest, len(names))
    spread, overlap = own.of(numbers)
    label_of_clip = np.zeros(len(clips), dtype=np.int64)
    label_of_clip[of_clip] = numbers
    random = np.random.default_rng(seed)
    drawn = [own.of(random.permutation(label_of_clip)[of_clip]) for _ in range(PERMUTATIONS)]
    by_chance = [_mean_of([one[kind] for one in drawn]) for kind in range(2)]
    entries = []
    for k, name in enumerate(names.tolist()):
        inside = numbers == k
        others = numbers[nearest[inside & (nearest >= 0)]]
        counts = np.bincount(others[others != k], minlength=len(names))
        best = int(counts.argmax())
        entries.append(
            {
                "label": name,
                "rows": int(inside.sum()),
                "clips": len(np.unique(of_clip[inside])),
                "spread": _number(spread[k]),
                "spread_permuted": _number(by_chance[0][k]),
                "overlap": _number(overlap[k]),
                "overlap_permuted": _number(by_chance[1][k]),
                "nearest_class": names[best].item() if counts[best] else None,
                "nearest_share": float(counts[best] / len(others)) if counts[best] else None,
            }
        )
    return {**found, "classes": entries}


class _Layout:
    """Spread and overlap of classes (K,) for any labels of the same rows (R, D); NaN where there is none."""

    def __init__(self, vectors: NDArray[np.float64], nearest: NDArray[np.int64], num_classes: int) -> None:
        self.vectors, self.nearest, self.num_classes = vectors, nearest, num_classes
        self.whole = float(np.linalg.norm(vectors, axis=1).mean())  # their mean is the origin

    def of(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(spread, overlap) where row i is of class `numbers[i]`."""
        counts = np.bincount(numbers, minlength=self.num_classes)
        order = np.argsort(numbers, kind="stable")
        means = np.zeros((self.num_classes, self.vectors.shape[1]))
        there = np.flatnonzero(counts)
        starts = np.concatenate([[0], np.cumsum(counts[there])[:-1]])
        means[there] = np.add.reduceat(self.vectors[order], starts, axis=0) / counts[there][:, None]
        distances = np.linalg.norm(self.vectors - means[numbers], axis=1)
        judged = self.nearest >= 0
        crossing = judged & (numbers != numbers[self.nearest])
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.bincount(numbers, distances, self.num_classes) / counts / self.whole
            overlap = np.bincount(numbers[crossing], minlength=self.num_classes) / np.bincount(
                numbers[judged], minlength=self.num_classes
            )
        return np.where(counts > 1, spread, np.nan), overlap


def _mean_of(values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of each class over the permutations in which it has one."""
    table = np.stack(values)
    there = ~np.isnan(table)
    return np.where(there.any(axis=0), np.where(there, table, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1), np.nan)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """Which classes are tightest and most dispersed, which overlap most and least, each with what chance gives."""
    if found["absent"]:
        yield f"How the classes lie is not judged: {found['absent']}."
        return
    for key, most, least, what in (
        ("spread", "most dispersed", "Tightest classes", "spread, 1 is that of all rows"),
        ("overlap", "most overlapping", "Most separate classes", "share of rows whose nearest is of another class"),
    ):
        known = [entry for entry in found["classes"] if entry[key] is not None]
        if len(known) < 2:
            continue
        ordered = sorted(known, key=lambda entry: (entry[key], entry["label"]))
        count = min(NAMED, len(ordered) // 2)
        chance = np.mean([entry[f"{key}_permuted"] for entry in known])
        yield (
            f"{least}: {', '.join(_named(entry, key) for entry in ordered[:count])}; {most}: "
            f"{', '.join(_named(entry, key) for entry in ordered[::-1][:count])} "
            f"({what}; permuted labels {chance:.2f})."
        )


def _named(entry: Mapping[str, Any], key: str) -> str:
    other = f" (mostly {entry['nearest_class']})" if key == "overlap" and entry["nearest_class"] else ""
    return f"{entry['label']} {entry[key]:.2f}{other}"


def page(found: Mapping[str, Any]) -> str:
    """The part of the page: a table of all classes, those that overlap most first."""
    if found["absent"]:
        return ""
    head = [
        "class", "rows", "clips", "spread", "permuted labels", "overlap", "permuted labels", "mostly with",
        "share of rows",
    ]  # fmt: skip
    ordered = sorted(found["classes"], key=lambda one: (one["overlap"] is None, -(one["overlap"] or 0), one["label"]))
    names = ("spread", "spread_permuted", "overlap", "overlap_permuted", "nearest_class", "nearest_share")
    content = table(head, [[one["label"], one["rows"], one["clips"], *map(one.get, names)] for one in ordered])
    if len(ordered) > OPEN_CLASSES:
        content = folded(f"spread and overlap of {len(ordered)} classes", content)
    about = (
        "Spread: mean distance of a class's rows from their mean, over that of all rows from theirs: 1 is as wide as "
        "everything. Overlap: share of its rows whose nearest row of another clip (Euclidean) is of another class. "
        "Both are of the features, not of the map. Beside them what permuted labels give, the mean over "
        f"{found['num_permutations']} permutations."
    )
    return section("Classes in feature space", paragraphs([about], kind="soft"), content)
