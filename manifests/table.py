"""A table of text cells, before any meaning is given to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from reelbank.manifests.manifest import ManifestError


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text.

    Attributes:
        source: the file (or folder) that messages name.
        place: what `rows` are numbered by: `line` for text files, `row` for Parquet.
        columns: names in the order of the file.
        rows: (1-based line or row, cells by column); an absent cell is "".
        notes: what was mended on the way here, one short line each.
        decimal: what parts the decimals of its numbers: `point`, or '' where only the numbers can tell.

    Raises:
        ManifestError: two columns have one name: a row could hold only one of them.
    """

    source: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]
    place: str = "line"
    notes: tuple[str, ...] = ()
    decimal: str = "point"

    def __post_init__(self) -> None:
        doubled = sorted(name for name, count in Counter(self.columns).items() if count > 1)
        if doubled:
            raise ManifestError(f"{self.source}: column {doubled[0]!r} is there twice; names must differ")

    def at(self, number: int) -> str:
        """`manifest.csv, line 12`: the start of every message about a row."""
        return f"{self.source}, {self.place} {number}"

    def cells(self, name: str) -> list[str]:
        """The cells of one column that hold something, without outer spaces."""
        return [cell for _, row in self.rows if (cell := row.get(name, "").strip())]
