"""The table of a recipe as text, Markdown and LaTeX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reelbank.heads.recipes import options, tables
from reelbank.heads.recipes.tables import latex_text
from reelbank.heads.reports import html


def test_latex_text_has_no_commands_in_it() -> None:
    assert latex_text("a_b & 5 % ±† --select-on {x} <1>") == (
        r"a\_b \& 5 \% $\pm$$\dagger$ -{}-select-on \{x\} $<$1$>$"
    )
    assert latex_text("\\") == r"\textbackslash{}"


def test_the_name_of_a_baseline_runs_over_the_leading_columns() -> None:
    made = html.table(["a", "b", "c"], [["x", "y", 1], ["constant", "", 2], ["", "z", 3]], lead=2)
    assert made.count("colspan") == 1
    assert '<th scope="row" colspan="2">constant</th><td class="n">2</td>' in made


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-3, "1e-3"), (1e-9, "1e-9"), ((0.85, 0.995), "(0.85, 0.995)"), (2.5e-4, "2.5e-4"), (0.5, "0.5")],
)
def test_values_are_written_as_published(value: Any, text: str) -> None:
    assert options.cell(value) == text


def test_table_too_wide_for_a_terminal_breaks_its_headings_and_puts_remarks_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = [f"{measure} {part}" for part in ("known", "unkn.") for measure in ("acc.", "MAE", "Spearman", "NLL")]
    head = ["loss", "epochs", "", *columns, "epoch", "remark"]
    rows = [
        ["KLD", "200", "theirs", *["0.123"] * 8, "", ""],
        ["", "", "ours", *["0.123"] * 8, "10 to 20", "kept, at the epoch chosen on validation"],
        ["constant: median of train", "", tables.BASELINE, *["128"] * 8, "", ""],
    ]
    monkeypatch.setattr(tables, "table_of", lambda *given, **more: (head, rows))
    monkeypatch.setattr(tables, "num_leading", lambda data: 2)
    for name in ("quick_warning", "legend", "few_groups", "leaks"):
        monkeypatch.setattr(tables, name, lambda data: "")
    data = {"recipe": "r", "title": "t", "warning": "", "sentences": [], "selection": ""}
    lines = tables.text_table(Path("x"), data).split("\n\n")[0].splitlines()[1:]
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["loss", "epochs", *["acc.", "MAE", "Spearman", "NLL"] * 2, "epoch"]
    assert lines[1].split() == [*["known"] * 4, *["unkn."] * 4]
    assert lines[2].index("0.123") == lines[3].index("0.123") == lines[0].index("acc.") == lines[-1].index("128")
    assert "    kept, at the epoch chosen on validation" in lines
