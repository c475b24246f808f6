"""How many judged clips are of a group that training has seen: their numbers are too good for clips of new groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.heads.examples.splits import Partition, Parts, count_groups

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Of the clips of one part.

    Attributes:
        clips: that are judged.
        shared: those of them whose group trained; None where no clip at all has a group.
        groups: names of those groups.
    """

    clips: int
    shared: int | None
    groups: tuple[str, ...]

    @property
    def share(self) -> float | None:
        """Of the judged clips."""
        return None if self.shared is None or not self.clips else self.shared / self.clips

    def to_json(self) -> dict[str, Any]:
        """{clips, shared, share}."""
        return {"clips": self.clips, "shared": self.shared, "share": self.share}


def overlap(groups: NDArray[np.str_], judged: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Overlap:
    """Of one part, over folds: (training clips, judged clips) of each; groups from `effective_groups`."""
    pairs = list(judged)
    clips = sum(len(rows) for _, rows in pairs)
    if count_groups(groups, np.arange(len(groups))) is None:
        return Overlap(clips=clips, shared=None, groups=())
    seen = [np.isin(groups[rows], groups[train]) for train, rows in pairs]
    names = {name for (_, rows), own in zip(pairs, seen, strict=True) for name in groups[rows][own].tolist()}
    return Overlap(clips=clips, shared=sum(int(own.sum()) for own in seen), groups=tuple(sorted(names)))


def fitted_rows(partition: Partition, *, refit: bool) -> NDArray[np.int64]:
    """The clips that reported weights are fitted to; `refit`: also those of validation, where others are reported."""
    both = refit and not partition.val_is_reported
    rows: NDArray[np.int64] = np.union1d(partition.train, partition.val) if both else partition.train
    return rows


def with_overlap(parts: Parts, *, refit: bool, always: bool) -> Parts:
    """`parts` with `overlap_notes`; folds keep groups whole."""
    partitions = tuple(
        part
        if part.fold is not None
        else replace(part, notes=(*part.notes, *overlap_notes(parts.groups, part, refit=refit, always=always)))
        for part in parts.partitions
    )
    return replace(parts, partitions=partitions)


def overlap_notes(groups: NDArray[np.str_], partition: Partition, *, refit: bool, always: bool) -> list[str]:
    """A warning for each part that shares groups with training; with `always` a sentence of the others, too."""
    parts: Mapping[str, NDArray[np.int64]] = {name: getattr(partition, name) for name in ("val", "test", "unknown")}
    notes = []
    for name, rows in parts.items():
        is_test = name == "val" and partition.val_is_reported and len(partition.test)
        if not len(rows) or is_test:
            continue
        train = partition.train if name == "val" else fitted_rows(partition, refit=refit)
        found = overlap(groups, [(train, rows)])
        if found.shared:
            shown = ", ".join(repr(group[2:]) for group in found.groups[:SHOWN])
            notes.append(
                f"WARNING: {len(found.groups)} group(s) are on both sides of train and {name} ({shown}): "
                f"{found.shared} of {found.clips} clips of {name} ({100 * (found.share or 0):.1f} %) are of a group "
                f"that was trained on, so the numbers of {name} are too good."
            )
        elif always and found.shared is not None:
            notes.append(f"No clip of {name} is of a group that was trained on.")
    return notes
