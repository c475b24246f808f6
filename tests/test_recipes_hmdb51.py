"""The recipes of HMDB51 as data: every published number, the split of each row, and what every row trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reelbank.cli import main
from reelbank.heads import TrainConfig
from reelbank.heads.recipes import RECIPES, STUDIES

OURS = {one.name: one for one in STUDIES["hmdb51"]}
REPORTED = {"accuracy": 55.63, "loss": 1.6278, "macro_f1": 0.5522, "weighted_f1": 0.5437}


def _options(name: str, row: str) -> dict[str, Any]:
    recipe = OURS[f"hmdb51/{name}"]
    return {**recipe.options, **next(one for one in recipe.rows if one.name == row).options}


def test_the_table_of_recipes_has_them() -> None:
    assert set(OURS) == {"hmdb51/googlenet", "hmdb51/from-scratch", "hmdb51/beyond"}
    assert set(OURS) <= set(RECIPES)


@pytest.mark.parametrize("name", sorted(OURS))
def test_published_numbers_are_printed_with_their_rows(name: str) -> None:
    printed = json.loads(CliRunner().invoke(main, ["recipes", name, "--json"]).stdout)
    values = {row["name"]: row["published"]["values"] for row in printed["rows"] if row["published"]["values"]}
    assert (
        values
        == {
            "hmdb51/googlenet": {"mean-mlp-random": REPORTED},
            "hmdb51/from-scratch": {"first-trial": {"accuracy": 7.0}},
            "hmdb51/beyond": {},
        }[name]
    )


def test_the_reported_accuracy_is_that_of_395_of_710_clips() -> None:
    assert round(100 * 395 / 710, 2) == REPORTED["accuracy"]


def test_every_network_is_trained_on_both_splits() -> None:
    for name in ("googlenet", "from-scratch"):
        rows = [row for row in OURS[f"hmdb51/{name}"].rows if row.name != "first-trial"]
        by_split = {
            split: [{**row.options, "split_by": None} for row in rows if row.options["split_by"] == split]
            for split in ("random:0.1:test", "groups:0.1:test")
        }
        assert by_split["random:0.1:test"] == by_split["groups:0.1:test"]
        assert len(rows) == 2 * len(by_split["random:0.1:test"])
    assert len(OURS["hmdb51/from-scratch"].rows) == 1 + 2 * 3 * 4


def test_variants_differ_in_what_they_are_called_by() -> None:
    plain = _options("from-scratch", "model-2-plain-random")
    assert plain["train_clips"] == 30 * 51
    for variant, more in (
        ("weights", {"class_weights": "balanced"}),
        ("augmented", {"class_weights": "balanced", "pixel_augment": ("flip", "crop", "brightness")}),
        ("dropout", {"class_weights": "balanced", "head_option": ("net=2", "dropout=0.3")}),
    ):
        assert _options("from-scratch", f"model-2-{variant}-random") == {**plain, **more}
    assert _options("from-scratch", "first-trial") == _options("from-scratch", "model-1-plain-random")


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_row_is_a_valid_training(name: str) -> None:
    recipe = OURS[name]
    for row in recipe.rows:
        config = TrainConfig.of(store=(Path("a"),), **{**recipe.options, **row.options})
        assert config.data.target == "none"
        if name != "hmdb51/beyond":
            assert (config.optimizer.lr, config.optimizer.batch, config.optimizer.epochs) == (1e-4, 8, 10)


def test_beyond_pairs_each_split_and_has_the_leaky_one_beside() -> None:
    rows = OURS["hmdb51/beyond"].rows
    assert {row.options["split_by"] for row in rows} == {
        "split_1", "split_2", "split_3", "groups:0.1:test", "random:0.1:test",
    }  # fmt: skip
    assert all(row.stores == "all" for row in rows)
    by_name = {row.name: row for row in rows}
    for row in rows:
        if row.against:
            assert by_name[row.against].options["split_by"] == row.options["split_by"]
    assert sum(bool(row.against) for row in rows) == 5
