"""Manifests from and to files: CSV, JSON Lines and Parquet.

One format is one row of `FORMATS`. All of them become a `Table` of text cells first, so a manifest means the
same whatever it is kept in. Every table of reelbank is read here.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reelbank.manifests.delimited import SUFFIXES, read_delimited, text_of
from reelbank.manifests.files import kind_of, write_whole, writing
from reelbank.manifests.manifest import FIELDS, PATH_COLUMNS, Clip, Manifest, ManifestError
from reelbank.manifests.table import Table
from reelbank.manifests.validation import from_table

_NO_PYARROW = "Parquet needs pyarrow, which is an extra: pip install reelbank[parquet]"

SPREADSHEETS = (".ods", ".xls", ".xlsb", ".xlsm", ".xlsx")

Cell = str | float | None


def read(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    target_columns: str | Sequence[str] | None = None,
    allow_group_overlap: bool = False,
) -> Manifest:
    """Read and check a manifest.

    Args:
        path: `.csv`, `.tsv` or `.txt`, `.jsonl` or `.ndjson`, `.parquet`. What a CSV needed to be read as it was
            meant (another separator, decimal commas) stands in the notes.
        root: the folder that `video` and the other path columns are relative to, and that none of them may
            leave; None: relative to the manifest's own folder, and absolute paths are taken as they are.
        target_columns: column or columns of numbers; None: `kcal`, else those that begin with `target`.
        allow_group_overlap: a group on both sides of a split becomes a note of the manifest, not an error.

    Raises:
        ManifestError: the file is missing or unreadable, or the table is wrong; names file and line.
    """
    path = Path(path)
    folder = path.parent if root is None else Path(root)
    if root is not None and not folder.is_dir():
        raise ManifestError(f"root {folder} is not a folder; it is where the videos of {path} should lie")
    return from_table(
        read_table(path),
        path=path,
        root=folder,
        restricted=root is not None,
        target_columns=(target_columns,) if isinstance(target_columns, str) else target_columns,
        allow_group_overlap=allow_group_overlap,
    )


def read_table(path: Path) -> Table:
    """The cells of a file as text, whatever its columns mean; `.tsv` and `.txt` are read besides `FORMATS`.

    Raises:
        ManifestError: no such file, another suffix, or not a table of that format.
    """
    read_cells = read_delimited if path.suffix.lower() in SUFFIXES else _format(path, SUFFIXES).read
    if not path.is_file():
        found = kind_of(path) or ("a folder" if path.is_dir() else "nothing")
        raise ManifestError(f"no manifest at {path} ({found} is there); `reelbank manifest` writes one")
    try:
        return read_cells(path)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror or error}") from error


def write(manifest: Manifest, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a manifest that `read(path)` gives back, and make it appear whole or not at all.

    Relative paths are rewritten for the new folder: relative where the file lies below it, else absolute.

    Args:
        manifest: what to write; its notes are not kept.
        path: `.csv`, `.jsonl` or `.ndjson`, `.parquet`.
        overwrite: replace a file that is there.

    Raises:
        ManifestError: the file is there and `overwrite` is not set, or its suffix is not in `FORMATS`.
    """
    path = Path(path)
    form = _format(path)
    if path.exists() and not overwrite:
        raise ManifestError(f"{path} is there already; remove it, choose another name or pass --overwrite")
    columns = _columns_to_write(manifest)
    clips = [_rebased(clip, manifest.root, path.parent) for clip in manifest.clips]
    rows = [[_cell(clip, name) for name in columns] for clip in clips]
    data = form.write(columns, rows)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def _read_jsonl(path: Path) -> Table:
    text, _ = text_of(path)
    columns: dict[str, None] = {}
    rows: list[tuple[int, dict[str, str]]] = []
    # Only \n ends a line: JSON may hold U+2028 and other characters that str.splitlines() would cut at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        at = f"{path}, line {number}"
        try:
            pairs = json.loads(line, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
            raise ManifestError(f"{at}: not JSON ({error}); every line is one object") from error
        if not isinstance(pairs, _Pairs):
            raise ManifestError(f'{at}: {type(pairs).__name__}, expected an object such as {{"clip_id": ...}}')
        cells: dict[str, str] = {}
        for name, value in pairs:
            if name in cells:
                raise ManifestError(f"{at}: {name!r} is there twice")
            cells[name] = _as_text(at, name, value)
        columns.update(dict.fromkeys(cells))
        rows.append((number, cells))
    if not rows:
        raise ManifestError(f"{path} is empty; every line should be one JSON object with clip_id and video")
    return Table(source=path, columns=tuple(columns), rows=_filled(columns, rows))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as written: a dict would hide a key that is there twice."""


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ManifestError(f"{path}: {_NO_PYARROW}") from error
    if path.stat().st_size == 0:
        raise ManifestError(f"{path} is empty; it should be a Parquet table with clip_id and video")
    try:
        # ParquetFile, not read_table: that one would take `key=value` folder names for columns.
        with pq.ParquetFile(path) as file:
            content = file.read()
        # By column: as a list of dicts, one of two columns of the same name would vanish.
        columns = [column.to_pylist() for column in content.columns]
    except (pa.ArrowException, ValueError, OverflowError) as error:  # the latter: text that is not UTF-8, dates
        raise ManifestError(f"{path}: not a Parquet table of texts and numbers ({error})") from error
    names = tuple(content.column_names)
    rows = []
    for number in range(1, content.num_rows + 1):
        values = {name: column[number - 1] for name, column in zip(names, columns, strict=True)}
        at = f"{path}, row {number}"
        rows.append((number, {name: _as_text(at, name, value) for name, value in values.items()}))
    return Table(source=path, columns=names, rows=tuple(rows), place="row")


def _filled(columns: dict[str, None], rows: list[tuple[int, dict[str, str]]]) -> tuple[tuple[int, dict[str, str]], ...]:
    return tuple((number, {name: cells.get(name, "") for name in columns}) for number, cells in rows)


def _as_text(at: str, name: str, value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return "" if math.isnan(value) else repr(value)
        case list() | dict() | bytes():
            raise ManifestError(f"{at}: {name!r} holds a {type(value).__name__}; a cell is a text or a number")
    return str(value)


def _write_csv(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bytes:
    buffer = io.StringIO(newline="")
    # Python 3.11 quotes a lone \r only where the line terminator holds one: written with both, ended by \n.
    lines = csv.writer(buffer, lineterminator="\r\n")
    parts = []
    for row in [columns, *rows]:
        buffer.seek(0)
        buffer.truncate()
        lines.writerow(["" if cell is None else cell for cell in row])
        parts.append(buffer.getvalue().removesuffix("\r\n") + "\n")
    return "".join(parts).encode("utf-8")


def _write_jsonl(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bytes:
    objects = (dict(zip(columns, row, strict=True)) for row in rows)
    return "".join(json.dumps(cells, ensure_ascii=False) + "\n" for cells in objects).encode("utf-8")


def _write_parquet(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ManifestError(_NO_PYARROW) from error
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(columns)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class _Format:
    read: Callable[[Path], Table]
    write: Callable[[Sequence[str], Sequence[Sequence[Cell]]], bytes]


FORMATS = {
    ".csv": _Format(read=read_delimited, write=_write_csv),
    ".jsonl": _Format(read=_read_jsonl, write=_write_jsonl),
    ".ndjson": _Format(read=_read_jsonl, write=_write_jsonl),
    ".parquet": _Format(read=_read_parquet, write=_write_parquet),
}


def _format(path: Path, more: Collection[str] = ()) -> _Format:
    """The row of a path's suffix; `more` are suffixes that its caller takes besides."""
    suffix = path.suffix.lower()
    form = FORMATS.get(suffix)
    if form is None:
        hint = "; save the sheet as CSV" if suffix in SPREADSHEETS else ""
        known = ", ".join(sorted({*FORMATS, *more}))
        raise ManifestError(f"{path}: {'a table' if more else 'a manifest'}'s name ends in one of {known}{hint}")
    return form


def _columns_to_write(manifest: Manifest) -> list[str]:
    """Optional columns only where a clip fills them."""
    used = ["clip_id", "video", "split", "label"]
    for name in ("start_seconds", "end_seconds", "group"):
        if any(getattr(clip, name) not in (None, "") for clip in manifest.clips):
            used.append(name)
    return [*used, *manifest.target_names, *manifest.text_columns]


def _cell(clip: Clip, name: str) -> Cell:
    if name in FIELDS:
        value: Cell = getattr(clip, name)
        return value
    if name in clip.targets:
        return None if math.isnan(clip.targets[name]) else clip.targets[name]
    return clip.text[name]


def _rebased(clip: Clip, root: Path, folder: Path) -> Clip:
    """The clip with its paths relative to another folder, or absolute where they lie outside it."""
    # Lexical, not resolved: a link below the folder stays the link that the user made.
    root, folder = Path(os.path.abspath(root)), Path(os.path.abspath(folder))  # noqa: PTH100
    if root == folder:
        return clip

    def moved(cell: str) -> str:
        if not cell:
            return cell
        target = Path(os.path.normpath(root / cell))
        return target.relative_to(folder).as_posix() if target.is_relative_to(folder) else str(target)

    text = {name: moved(cell) if name in PATH_COLUMNS else cell for name, cell in clip.text.items()}
    return replace(clip, video=moved(clip.video), text=text)
