"""Which classes of a set are kept, and what they are called: `--classes FILE` and `--rename FILE`."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Collection
from pathlib import Path

from reelbank.manifests.files import regular
from reelbank.manifests.manifest import ManifestError

FilePath = str | os.PathLike[str]


def chosen_classes(
    there: Collection[str], *, classes: FilePath | None = None, rename: FilePath | None = None, dataset: str
) -> dict[str, str]:
    """{class of the set: what it is called}, of those that are kept.

    Args:
        there: the classes of the set.
        classes: a file with a class of the set per line; None: all are kept.
        rename: a file with lines `old,new`; None: they keep their names.
        dataset: the set's name, for messages.

    Returns:
        In the order of the names of the set.

    Raises:
        ManifestError: a file is empty or malformed, names a class twice or one that is not there, or would make one
            class of two.
    """
    kept = sorted(there)
    if classes is not None:
        asked = _read_classes(Path(classes))
        for number, name in asked.items():
            if name not in there:
                raise ManifestError(f"{classes}, line {number}: {_absent(name, kept, dataset)}")
        kept = sorted(asked.values())
    called = {name: name for name in kept}
    if rename is None:
        return called
    line_of: dict[str, int] = {}
    for number, old, new in _read_renames(Path(rename)):
        if old not in called:
            left_out = f"--classes leaves {old!r} out" if old in there else _absent(old, kept, dataset)
            raise ManifestError(f"{rename}, line {number}: {left_out}; only classes that are kept have a name")
        if old in line_of:
            raise ManifestError(f"{rename}, line {number}: {old!r} is renamed on line {line_of[old]} already")
        line_of[old] = number
        called[old] = new
    by_name: dict[str, str] = {}
    for old, new in called.items():
        if new in by_name:
            raise ManifestError(
                f"{rename}: {by_name[new]!r} and {old!r} would both be called {new!r}, and could not be told apart; "
                "give each a name of its own, or leave one out with --classes"
            )
        by_name[new] = old
    return called


def _absent(name: str, there: Collection[str], dataset: str) -> str:
    by_lower = {one.lower(): one for one in there}
    near = [by_lower[one] for one in difflib.get_close_matches(name.lower(), list(by_lower), n=3)]
    meant = f" (near: {', '.join(near)})" if near else ""
    return f"{dataset} has no class {name!r}{meant}; there are {', '.join(sorted(there)) or 'none'}"


def _read_classes(path: Path) -> dict[int, str]:
    """{1-based line: class}."""
    found: dict[int, str] = {}
    for number, line in _lines(path, "a class per line"):
        if line in found.values():
            raise ManifestError(f"{path}, line {number}: class {line!r} is given twice")
        found[number] = line
    return found


def _read_renames(path: Path) -> list[tuple[int, str, str]]:
    """(1-based line, old, new) per line."""
    found = []
    for number, line in _lines(path, "lines `old,new`"):
        cells = [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
        if len(cells) != 2 or not all(cells):
            raise ManifestError(f"{path}, line {number}: {line!r}, expected `old,new`")
        found.append((number, cells[0], cells[1]))
    return found


def _lines(path: Path, expected: str) -> list[tuple[int, str]]:
    """Lines that are neither empty nor begin with `#`, stripped, with their 1-based number."""
    try:
        text = regular(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"the class file {path} cannot be read: {error}") from error
    numbered = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not lines:
        raise ManifestError(f"{path} holds no class; expected {expected}")
    return lines
