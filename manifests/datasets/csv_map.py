"""Any table with other column names, mapped to a manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reelbank.manifests.datasets.cutting import cut_unknown
from reelbank.manifests.manifest import FIELDS, SECONDS_FIELDS, Manifest, ManifestError
from reelbank.manifests.reading import read_any_table
from reelbank.manifests.validation import DECIMAL_COMMA, Table, from_table

MOST_GROUPS = 10  # named in a note


def read_csv(
    file: str | os.PathLike[str],
    *,
    mapping: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    target_columns: Sequence[str] | None = None,
    allow_group_overlap: bool = False,
    unknown: Sequence[str] = (),
    seed: int = 0,
) -> Manifest:
    """Read a table whose columns have other names.

    Args:
        file: CSV (separated by semicolons or tabs, numbers may have decimal commas), JSON Lines or Parquet.
        mapping: manifest column -> column of the file, e.g. `{"video": "file", "group": "scene_group"}`. One
            column may serve several. Columns that are not mapped keep their name.
        root: the folder that the paths are relative to and may not leave; None: the file's own folder.
        target_columns: names after the mapping; None: `kcal`, else those that begin with `target`.
        allow_group_overlap: a group on both sides of a split becomes a note.
        unknown: classes that become split `unknown`; the others are cut 80/20 into train and test by group. Clips
            of these classes whose group trains are `unused`, unless `allow_group_overlap`.
        seed: of that cut.

    Raises:
        ManifestError: a mapped column is not there, or the mapped table is wrong; names file and line.
    """
    path = Path(file)
    given, separator = read_any_table(path)
    table, notes = mapped(given, mapping or {})
    if separator:
        notes.append(f"columns of {path} are separated by {separator}; decimal commas of numbers are read as points")
        table = _with_points(table, (*SECONDS_FIELDS, *(target_columns or ())))
    notes += _hints(table)
    folder = path.parent if root is None else Path(root)
    if not folder.is_dir():
        raise ManifestError(f"root {folder} is not a folder; it is where the videos of {path} should lie")
    if unknown:
        table, note = _with_splits(table, unknown, seed=seed, share_groups=allow_group_overlap)
        notes.append(note)
    manifest = from_table(
        table,
        path=None,
        root=folder,
        restricted=root is not None,
        target_columns=target_columns,
        allow_group_overlap=allow_group_overlap,
    )
    return replace(manifest, notes=(*notes, *manifest.notes))


def mapped(table: Table, mapping: Mapping[str, str]) -> tuple[Table, list[str]]:
    """The table with its columns renamed, and notes on those that had to give way.

    A column of the file whose name the mapping gives to another one is kept as `<name>_original`.

    Raises:
        ManifestError: the mapping names a column that the file has not.
    """
    absent = sorted({theirs for theirs in mapping.values() if theirs not in table.columns})
    if absent:
        raise ManifestError(
            f"{table.source}: the mapping asks for column {absent[0]!r}; "
            f"the file has {', '.join(sorted(table.columns)) or 'none'}"
        )
    names = dict(mapping)
    notes = []
    for column in table.columns:
        if mapping.get(column, column) != column:
            kept = f"{column}_original"
            while kept in names or kept in table.columns:
                kept += "_original"
            names[kept] = column
            notes.append(f"column {column!r} of {table.source} is kept as {kept!r}: {mapping[column]!r} took its name")
        elif column not in mapping.values():
            names[column] = column
    rows = tuple((number, {ours: cells[theirs] for ours, theirs in names.items()}) for number, cells in table.rows)
    return replace(table, columns=tuple(names), rows=rows), notes


def _with_points(table: Table, names: Sequence[str]) -> Table:
    """The table with `1,5` as `1.5` in the columns that hold numbers."""
    numeric = {name for name in table.columns if name in names or name == "kcal" or name.startswith("target")}
    rows = tuple(
        (number, {name: _with_point(cell) if name in numeric else cell for name, cell in cells.items()})
        for number, cells in table.rows
    )
    return replace(table, rows=rows)


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if DECIMAL_COMMA.match(cell.strip()) else cell


def _hints(table: Table) -> list[str]:
    """Columns that were perhaps meant to be ours."""
    notes = []
    for name in table.columns:
        ours = name.lower()
        if ours != name and ours in (*FIELDS, "kcal") and ours not in table.columns:
            notes.append(f"column {name!r} is kept as text: only {ours!r} has a meaning (--map {ours}={name})")
    others = [name for name in table.columns if name.lower() not in (*FIELDS, "kcal")]
    if "label" not in map(str.lower, table.columns) and others:
        notes.append(f"there is no column 'label': no clip has a class (--map label=COLUMN, of {', '.join(others)})")
    return notes


def _with_splits(table: Table, unknown: Sequence[str], *, seed: int, share_groups: bool) -> tuple[Table, str]:
    """The table with a column `split`, and a sentence about it."""
    if "split" in table.columns:
        raise ManifestError(
            f"{table.source}: --unknown makes the column 'split', and the file has one; leave --unknown out, or "
            "rename that column"
        )
    if "label" not in table.columns:
        raise ManifestError(f"{table.source}: --unknown names classes, and no column is the label; --map label=COLUMN")
    labels = [cells["label"].strip() for _, cells in table.rows]
    if absent := sorted(set(unknown) - set(labels)):
        raise ManifestError(
            f"{table.source}: --unknown {absent[0]!r} is no class of column 'label'; "
            f"there are {', '.join(sorted({label for label in labels if label})) or 'none'}"
        )
    if not set(labels) - set(unknown):
        raise ManifestError(
            f"{table.source}: --unknown names every class ({', '.join(sorted(set(labels)))}): nothing is left to train "
            "on; name fewer"
        )
    groups = [cells.get("group", "") or cells.get("video", "") for _, cells in table.rows]
    splits = cut_unknown(labels, groups, unknown=frozenset(unknown), seed=seed, share_groups=share_groups)
    for split, reason in (
        ("test", "no group can be tested without taking a class from training"),
        ("unknown", "every group with these classes trains too (--allow-group-overlap takes them all the same)"),
    ):
        if split not in splits:
            raise ManifestError(
                f"{table.source}: --unknown leaves no clip in split {split!r}: {reason}; "
                "write a column 'split' with train, test and unknown yourself"
            )
    rows = tuple((n, cells | {"split": split}) for (n, cells), split in zip(table.rows, splits, strict=True))
    held = sorted({group for group, split in zip(groups, splits, strict=True) if split == "test"})
    shown = ", ".join(held[:MOST_GROUPS]) + (f" and {len(held) - MOST_GROUPS} more" if len(held) > MOST_GROUPS else "")
    known = splits.count("train") + splits.count("test")
    note = (
        f"split was made of --unknown: of {known} clips of other classes {splits.count('test')} are test, by whole "
        f"groups (seed {seed}: {shown})"
    )
    left = {label for label, split in zip(labels, splits, strict=True) if split == "unknown"}
    if lost := sorted(set(unknown) - left):
        note += f"; no clip of {', '.join(lost)} is in 'unknown'"
    if unused := splits.count("unused"):
        note += (
            f"; {unused} clips of unknown classes are 'unused', because their groups train "
            "(--allow-group-overlap, here and with featurize, takes them as 'unknown')"
        )
    return replace(table, columns=(*table.columns, "split"), rows=rows), note
