"""Delimited text as programs and spreadsheets of many countries write it: which encoding, separator, header, rows.

What a file needs to be read as it was meant is done here for every reader of tables, and said in `Table.notes`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from reelbank.manifests.files import regular
from reelbank.manifests.manifest import FIELDS, ManifestError
from reelbank.manifests.table import Table

SEPARATORS = {",": ("commas", "a comma"), ";": ("semicolons", "a semicolon"), "\t": ("tabs", "a tab"), "|": ("|", "|")}
"""{what parts cells: (what a note calls it, what a cell may hold in quotes only)}, the likeliest first."""
SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
"""{suffix: what parts the cells of such a file unless its lines say otherwise}."""

_SAMPLE_ROWS = 200
_SEP_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?[;,\t]*\r?\n', re.IGNORECASE)
_BREAK = re.compile(r"[\r\n]")  # two bytes that look like the mark of UTF-16 make no table
# Four letters in a row beyond ASCII are no western word: another encoding (Cyrillic, Greek, Chinese) or no text.
_NOT_WESTERN = re.compile(r"[^\x00-\x7f]{4}|[\x00-\x08\x0e-\x1f]")


def read_delimited(path: Path) -> Table:
    """The cells of a CSV or TSV file. A line `sep=;` of Excel is heeded, empty rows and columns are left out.

    Raises:
        ManifestError: not text, empty, a row with more or fewer cells than the header, an unclosed quote.
    """
    text, note = text_of(path, legacy=True)
    notes = [note] if note else []
    usual = SUFFIXES.get(path.suffix.lower(), ",")
    said = _SEP_LINE.match(text)
    body = text[said.end() :] if said else text
    if not body.strip():
        raise ManifestError(f"{path} is empty; its first line should name the columns, at least clip_id,video")
    separator = said[1] if said else _likeliest(body, usual)
    called, cell_of = SEPARATORS.get(separator, (repr(separator), repr(separator)))
    if separator != usual:
        notes.append(f"columns of {path} are separated by {called}")
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    empty: list[int] = []
    for line, cells in _rows(path, body, separator, first_line=2 if said else 1):
        if not any(cell.strip() for cell in cells):
            empty.append(line)
        elif not header:
            header = [name.strip() for name in cells]
            if header != cells:
                notes.append(f"outer spaces of column names of {path} were removed")
        elif len(cells) != len(header):
            raise ManifestError(
                f"{path}, line {line}: {len(cells)} cells, but the header names {len(header)} columns; "
                f"a cell that holds {cell_of} needs quotes"
            )
        else:
            rows.append((line, cells))
    if empty:
        notes.append(f"left out: {len(empty)} empty rows of {path}, the first on line {empty[0]}")
    used = [i for i, name in enumerate(header) if name or any(cells[i].strip() for _, cells in rows)]
    if len(used) < len(header):
        notes.append(f"left out: {len(header) - len(used)} empty columns of {path}")
    return Table(
        source=path,
        columns=tuple(header[i] for i in used),
        rows=tuple((line, {header[i]: cells[i] for i in used}) for line, cells in rows),
        notes=tuple(notes),
        decimal="point" if separator == "," else "",  # a comma that parts cells parts no decimals
    )


def text_of(path: Path, *, legacy: bool = False) -> tuple[str, str]:
    """The text of a UTF-8 file, and a note where it was none.

    Args:
        path: the file.
        legacy: also take what spreadsheets write that is no UTF-8: UTF-16 with its mark, and Windows-1252.

    Raises:
        ManifestError: it is neither; names the line.
    """
    data = regular(path).read_bytes()
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        if legacy and (found := _legacy(data)) is not None:
            text, encoding = found
            word = next((word for word in text.split() if not word.isascii()), "")
            example = f", such as {word[:40]!r}" if word else ""
            return text, f"{path} is not UTF-8: its letters are read as {encoding}{example}"
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _legacy(data: bytes) -> tuple[str, str] | None:
    has_mark = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding, name in [("utf-16", "UTF-16")] if has_mark else [("cp1252", "Windows-1252")]:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            return None
        is_text = _BREAK.search(text) if has_mark else not _NOT_WESTERN.search(text)
        return (text, name) if is_text else None
    return None


def _likeliest(text: str, usual: str) -> str:
    """What parts the cells: names of ours in the header count first, then the lines that agree with the header."""

    def rank(separator: str) -> tuple[bool, int, float, bool, int]:
        rows = list(islice(_sample(text, separator), _SAMPLE_ROWS))
        header, lengths = (rows[0] if rows else []), [len(row) for row in rows[1:]]
        known = sum(name.strip().lower() in FIELDS for name in header)
        agreeing = sum(length == len(header) for length in lengths) / max(1, len(lengths))
        return len(header) > 1, known, agreeing, separator == usual, len(header)

    best = max(SEPARATORS, key=rank)
    return best if rank(best)[0] else usual


def _sample(text: str, separator: str) -> Iterator[list[str]]:
    try:
        yield from (cells for cells in _reader(text, separator) if any(map(str.strip, cells)))
    except csv.Error:
        yield []  # a line that agrees with no header


def _reader(text: str, separator: str) -> Iterator[list[str]]:
    # A quote behind a separator and a space opens a cell for every program but this module's default.
    spaced = re.search(rf'{re.escape(separator)} +"', text.lstrip().partition("\n")[0]) is not None
    return csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator, skipinitialspace=spaced)


def _rows(path: Path, text: str, separator: str, *, first_line: int) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of all that are not blank; the line is that of the row's start: a quoted cell may hold breaks."""
    reader = _reader(text, separator)
    line = first_line
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = first_line + reader.line_num  # type: ignore[attr-defined]
    except csv.Error as error:
        raise ManifestError(f"{path}, line {line}: not CSV ({error}); look for an unclosed quote") from error
