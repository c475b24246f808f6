"""The table of backbones for a person: taps, shapes, bytes, weights, licence."""

from __future__ import annotations

from typing import Any

from reelbank.extract.backbones import BACKBONES, describe, names

COLUMNS = ("backbone", "tap (* default)", "one step", "dtype", "bytes", "licence of weights")


def rows() -> list[tuple[str, ...]]:
    """One row per tap of every backbone."""
    found: list[tuple[str, ...]] = []
    for name in names():
        info = describe(name).to_json()
        licence = ", ".join(weights["licence"] for weights in info["weights"][:1]) or "needs no weights"
        for tap in info["taps"]:
            mark = " *" if tap["name"] in info["default_taps"] else ""
            shape = " x ".join(map(str, tap["shape"]))
            found.append((name, tap["name"] + mark, shape, tap["dtype"], f"{tap['bytes_per_step']:,}", licence))
    return found


def text(width: int | None = None) -> str:
    """The table and a sentence per family; `width` in characters, None for the terminal's."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Backbones", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows():
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    summaries = "\n".join(f"{name}: {row.summary}" for name, row in sorted(BACKBONES.items()))
    return f"{captured.get().rstrip()}\n{summaries}"


def to_json() -> dict[str, Any]:
    """{name: description}."""
    return {name: describe(name).to_json() for name in names()}
