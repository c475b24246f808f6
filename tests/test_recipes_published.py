"""The published numbers of the calorie recipes, digit by digit."""

from __future__ import annotations

import pytest

from reelbank.heads.recipes import RECIPES, STUDIES

COLUMNS = ("accuracy", "mae_known", "spc_known", "nll_known", "mae_unknown", "spc_unknown", "nll_unknown")


@pytest.mark.parametrize(
    ("table", "sums"),
    [
        ("3.1", (590, 3530, 4.571, 158.95, 4979, 1.23, 241.87)),
        ("3.2", (1675, 11061, 13.357, 530.42, 14451, 6.264, 854.358)),
        ("3.3", (529, 3746, 4.969, 162.1, 4358, 0.99, 243.89)),
    ],
)
def test_every_published_number_of_a_table_stands_in_its_row(table: str, sums: tuple[float, ...]) -> None:
    """Sums of a column, each number times the number of its row: one wrong digit or two swapped rows change them."""
    rows = RECIPES[f"calories/table-{table}"].rows
    for column, expected in zip(COLUMNS, sums, strict=True):
        found = sum(i * row.published.values[column] for i, row in enumerate(rows, start=1))
        assert found == pytest.approx(expected, abs=1e-6), column


def test_every_published_number_of_the_stepwise_table_stands_beside_its_value() -> None:
    steps = RECIPES["calories/table-3.4-stepwise"].steps
    cells = {
        (step.field, value): tuple(published.values.get(key) for key in ("mae_known", "mae_unknown"))
        for step in steps
        for value, published in zip(step.values, step.published, strict=True)
    }
    assert cells == {
        ("lr", 1e-3): (None, None),
        ("lr", 1e-4): (155, 191),
        ("lr", 1e-5): (220, 238),
        ("weight_decay", 1e-4): (172, 213),
        ("weight_decay", 1e-5): (155, 191),
        ("weight_decay", 1e-6): (153, 190),
        ("betas", (0.85, 0.995)): (172, 199),
        ("betas", (0.9, 0.999)): (153, 190),
        ("betas", (0.98, 0.9995)): (160, 242),
        ("eps", 1e-7): (154, 206),
        ("eps", 1e-8): (153, 190),
        ("eps", 1e-9): (149, 200),
    }


def test_rows_of_the_second_table_have_their_schedules_and_stop_epochs() -> None:
    table = RECIPES["calories/table-3.2"]
    found = []
    for row in table.rows:
        options = {**table.options, **row.options}
        schedule = (options["factor"], options["patience_epochs"]) if "schedule" in options else None
        found.append((options["loss"], schedule, options["epochs"], options["lr"], options["weight_decay"]))
    assert found == [
        ("kld", None, 200, 1e-4, 1e-5),
        ("kld", (0.5, 5), 88, 1e-4, 1e-5),
        ("kld", (0.5, 10), 167, 1e-4, 1e-5),
        ("kld", (0.5, 15), 173, 1e-4, 1e-5),
        ("jsd", None, 200, 1e-4, 1e-5),
        ("jsd", None, 300, 1e-4, 1e-5),
        ("jsd", (0.5, 15), 159, 1e-4, 1e-5),
        ("jsd", (0.5, 50), 223, 1e-4, 1e-5),
        ("ce", None, 200, 1e-4, 1e-5),
        ("ce", (0.75, 15), 187, 1e-4, 1e-5),
        ("ce", (0.75, 15), 98, 2e-4, 1e-6),
    ]


def test_every_published_figure_of_a_run_is_in_a_recipe() -> None:
    rows = {row.cells["figure"] for recipe in STUDIES["calories"] for row in recipe.rows if "figure" in row.cells}
    assert rows == {f"3.{i}" for i in (*range(1, 36), 48, 49)}
    assert "figures 3.36 to 3.39" in " ".join(RECIPES["calories/table-3.3"].notes)
    assert "figures 3.40 to 3.47" in " ".join(RECIPES["calories/table-3.4-stepwise"].notes)
