"""Any table with other column names, mapped to a manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reelbank.manifests.manifest import Manifest, ManifestError
from reelbank.manifests.reading import read_table
from reelbank.manifests.validation import Table, from_table


def read_csv(
    file: str | os.PathLike[str],
    *,
    mapping: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    target_columns: Sequence[str] | None = None,
    allow_group_overlap: bool = False,
) -> Manifest:
    """Read a table whose columns have other names.

    Args:
        file: CSV, JSON Lines or Parquet.
        mapping: manifest column -> column of the file, e.g. `{"video": "file", "group": "scene_group"}`. One
            column may serve several. Columns that are not mapped keep their name.
        root: the folder that the paths are relative to and may not leave; None: the file's own folder.
        target_columns: names after the mapping; None: `kcal`, else those that begin with `target`.
        allow_group_overlap: a group on both sides of a split becomes a note.

    Raises:
        ManifestError: a mapped column is not there, or the mapped table is wrong; names file and line.
    """
    path = Path(file)
    table, notes = mapped(read_table(path), mapping or {})
    folder = path.parent if root is None else Path(root)
    if not folder.is_dir():
        raise ManifestError(f"root {folder} is not a folder; it is where the videos of {path} should lie")
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
