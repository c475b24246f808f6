"""The table of a recipe as text, Markdown and LaTeX."""

from __future__ import annotations

from typing import Any

import pytest

from reelbank.heads.recipes import options
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
    assert '<td colspan="2">constant</td><td class="n">2</td>' in made


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-3, "1e-3"), (1e-9, "1e-9"), ((0.85, 0.995), "(0.85, 0.995)"), (2.5e-4, "2.5e-4"), (0.5, "0.5")],
)
def test_values_are_written_as_published(value: Any, text: str) -> None:
    assert options.cell(value) == text
