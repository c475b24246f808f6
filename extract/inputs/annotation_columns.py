"""What the columns of an annotation table are called, where it does not use our names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reelbank.extract.errors import DecodeError
from reelbank.extract.inputs.keypoints import slot_of

FRAME, BOX = "frame", ("box_x0", "box_y0", "box_x1", "box_y1")
POINT_PARTS = ("x", "y", "score")
ANY = "*"
_SHOWN = 5


def parse(pairs: Sequence[str]) -> dict[str, str]:
    """{our name: theirs} of texts `OURS=THEIRS`; one `*` on both sides stands for the name of a point.

    Raises:
        ValueError: another text, or a name of ours that no annotation has.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not equals or not ours or not theirs:
            raise ValueError(f"--map {pair!r}: expected OURS=THEIRS, such as frame=frame_no or *_x=*.x")
        name, _, part = ours.rpartition("_")
        if ours not in (FRAME, *BOX) and not (part in POINT_PARTS and (name == ANY or _is_point(name))):
            raise ValueError(
                f"--map {pair!r}: {ours!r} is none of {FRAME}, {', '.join(BOX)} and NAME_x, NAME_y, NAME_score of a "
                "point; * stands for NAME"
            )
        if (name == ANY) != (theirs.count(ANY) == 1) or theirs.count(ANY) > 1:
            raise ValueError(f"--map {pair!r}: * stands once on both sides, or on none")
        if ours in mapping:
            raise ValueError(f"--map {pair!r}: {ours} is {mapping[ours]!r} already; map each once")
        mapping[ours] = theirs
    if doubled := [theirs for theirs in mapping.values() if list(mapping.values()).count(theirs) > 1]:
        raise ValueError(f"--map: {doubled[0]!r} is mapped twice")
    return mapping


def our_names(path: Path, columns: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """{our name: column} of a table; where there is a mapping, columns that are neither mapped nor ours are left out.

    Raises:
        DecodeError: columns of one name, a mapped column that is not there, two that would be one.
    """
    if len(set(columns)) != len(columns):
        raise DecodeError(path, "two columns have the same name")
    if not mapping:
        return {column: column for column in columns}
    found: dict[str, str] = {}
    for ours, theirs in mapping.items():
        if ANY not in theirs:
            if theirs not in columns:
                raise _absent(path, ours, theirs, columns)
            found[ours] = theirs
    for ours, theirs in mapping.items():
        before, star, after = theirs.partition(ANY)
        if not star:
            continue
        matches = {
            ours.replace(ANY, column[len(before) : len(column) - len(after)]): column
            for column in columns
            if column.startswith(before) and column.endswith(after) and len(column) > len(before) + len(after)
            and _is_point(column[len(before) : len(column) - len(after)])
        }  # fmt: skip
        if not matches:
            raise _absent(path, ours, theirs, columns)
        found = matches | found  # what was mapped by its own name stays
    taken = set(found.values())
    for column in columns:
        if column not in taken and _is_ours(column):
            if column in found:
                raise DecodeError(path, f"columns {found[column]!r} (--map) and {column!r} are both {column}")
            found[column] = column
    return found


def _absent(path: Path, ours: str, theirs: str, columns: Sequence[str]) -> DecodeError:
    listed = ", ".join(columns[:_SHOWN])
    return DecodeError(path, f"--map {ours}={theirs}: no such column; the first are {listed or 'none'}")


def _is_ours(column: str) -> bool:
    name, _, part = column.rpartition("_")
    return column in (FRAME, *BOX) or (part in POINT_PARTS and _is_point(name))


def _is_point(name: str) -> bool:
    try:
        slot_of(name)
    except KeyError:
        return False
    return True
