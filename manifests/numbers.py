"""Numbers as people's programs write them, made what `float` reads: decimal commas, thousands, clocks.

A cell that can mean one thing only is read as that. `1.200` and `1,200` may be twelve tenths or twelve hundred: the
other numbers of the column decide, then those of the table, then whoever is asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cache, partial

from reelbank.manifests.manifest import ManifestError
from reelbank.manifests.table import Table

CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d{1,2}(?:[.,]\d+)?)")
DECIMALS = ("comma", "point")

_ODD = re.compile(r"[^\d.eE+-]")
_WHOLE = re.compile(r"[+-]?\d+")
_PARTED = re.compile(r"[+-]?\d{1,3}(?:[ '\u2019\u00a0\u202f]\d{3})+(?:[.,]\d+)?")
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
_COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}|\d*,\d+(?:[eE][+-]?\d+)?)")
_POINT = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:,\d{3}){2,}|(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?)")


def with_plain_numbers(
    table: Table, *, names: Collection[str], seconds: Mapping[str, str], decimal: str | None = None
) -> Table:
    """The table with numbers that `float` reads; what is no number stays for validation to refuse.

    Args:
        table: the cells.
        names: columns of numbers.
        seconds: columns of times, in which clocks `[H:]M:S` are read too: {column: its unit, `s` or `ms`}.
        decimal: what parts decimals where the table does not tell, one of `DECIMALS`.

    Raises:
        ManifestError: a number may mean two things and no other number of the table tells.
    """
    if decimal not in (None, *DECIMALS):
        raise ManifestError(f"decimal = {decimal!r}; choose from {', '.join(DECIMALS)}")
    said: dict[str, str] = {}  # kind of mending -> its first case, as a note
    mended: dict[str, dict[str, str]] = {}
    for name in (name for name in table.columns if name in names or name in seconds):
        if table.decimal and seconds.get(name) != "ms" and not any(map(_ODD.search, table.cells(name))):
            continue  # the common case: as `float` reads it, whatever the other columns hold
        done: dict[str, str] = {}
        decided = cache(partial(_decided, table, name))
        for number, row in table.rows:
            cell = row.get(name, "").strip()
            if cell in done or not cell:
                continue
            part = _decimal_of(cell)
            is_open = part == "either" and not table.decimal
            if part == "either" and not (part := decimal or decided("." in cell)):
                both = " or ".join(sorted((_plain(cell, "point"), _plain(cell, "comma")), key=float))
                raise ManifestError(
                    f"{table.at(number)}: {name} {cell!r} may be {both}, and no other number of the table tells; "
                    "say which with --decimal comma or --decimal point (of `reelbank manifest csv` and `intervals`)"
                )
            new, kind = _read(cell, part, seconds.get(name))
            done[cell] = new
            if kind := kind or ("points are decimal" if is_open else ""):
                said.setdefault(kind, f"{kind}: {cell!r} of {name} is {new}")
        mended[name] = done
    rows = tuple(
        (number, row | {name: done.get(row.get(name, "").strip(), "") for name, done in mended.items()})
        for number, row in table.rows
    )
    return replace(table, rows=rows, notes=(*table.notes, *said.values()), decimal="point")


def is_number(cell: str) -> bool:
    """Whether a cell looks like a number, however it is written."""
    return bool(_WHOLE.fullmatch(cell.strip()) or _decimal_of(cell.strip()))


def _decimal_of(cell: str) -> str:
    """`comma`, `point` or `either`: what parts the decimals of a cell; '' where it has none or is no number."""
    if clock := CLOCK.fullmatch(cell):
        return "comma" if "," in clock[3] else "point" if "." in clock[3] else ""
    cell = _without_spaces(cell)
    kinds = (("either", _EITHER), ("comma", _COMMA), ("point", _POINT))
    return next((kind for kind, pattern in kinds if pattern.fullmatch(cell)), "")


def _evidence(table: Table, names: Collection[str]) -> set[str]:
    return {_decimal_of(cell) for name in names for cell in table.cells(name)} - {"", "either"}


def _decided(table: Table, name: str, has_point: bool) -> str:
    """What parts the decimals of cells that may be two numbers, `1.200` or `1,200`; '' where nothing tells."""
    if own := _evidence(table, [name]):
        return next(iter(own)) if len(own) == 1 else ""
    if table.decimal and has_point:
        return table.decimal
    numeric = [other for other in table.columns if other != name and all(map(_is_timely, table.cells(other)))]
    found = _evidence(table, numeric)
    return next(iter(found)) if len(found) == 1 else ""


def _is_timely(cell: str) -> bool:
    return is_number(cell) or CLOCK.fullmatch(cell) is not None


def _read(cell: str, part: str, unit: str | None) -> tuple[str, str]:
    """What `float` reads for a cell, and the kind of mending; the cell itself where there is nothing to mend."""
    if unit and (clock := CLOCK.fullmatch(cell)):
        minutes = int(clock[1] or 0) * 60 + int(clock[2])
        return _text(minutes * 60 + Decimal(clock[3].replace(",", "."))), "clocks are read as seconds"
    new, kind = cell, ""
    if part and ":" not in cell and (plain := _plain(cell, part)) != cell:
        has_comma = part == "comma" and "," in cell
        new, kind = plain, "decimal commas are read as points" if has_comma else "marks of thousands are taken out"
    elif _PARTED.fullmatch(cell):
        new, kind = _without_spaces(cell), "marks of thousands are taken out"
    if unit == "ms" and (_WHOLE.fullmatch(new) or _POINT.fullmatch(new)):
        return _text(Decimal(new) / 1000), "milliseconds are read as seconds"
    return new, kind


def _plain(cell: str, part: str) -> str:
    cell = _without_spaces(cell)
    return cell.replace(".", "").replace(",", ".") if part == "comma" else cell.replace(",", "")


def _without_spaces(cell: str) -> str:
    return re.sub(r"[ '\u2019\u00a0\u202f]", "", cell) if _PARTED.fullmatch(cell) else cell


def _text(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
