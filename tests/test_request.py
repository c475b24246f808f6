"""What `train-head` is asked for: which configuration its options make, and mixes that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.request import CONFIGS, request
from reelbank.heads.run_config import RunConfig
from reelbank.heads.sweeps.config import SweepConfig
from reelbank.heads.sweeps.grid import members_of, parse_axes
from reelbank.store.options import flat, options

STORE = (Path("s.zarr"),)
DEFAULTS = {name: one.default for config in CONFIGS for name, one in options(config).items()} | {
    "store": STORE,
    "recipe": None,
}
"""What the command hands over where nothing but --store is given."""


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, TrainConfig),
        ({"repeats": 3}, SweepConfig),
        ({"sweep": ("lr=1,2",)}, SweepConfig),
        ({"recipe": "calories/table-3.1", "quick": True, "repeats": 2}, RecipeConfig),
    ],
)
def test_options_make_the_configuration_that_they_ask_for(given: dict[str, Any], kind: type) -> None:
    made = request({**DEFAULTS, **given, "lr": 0.5})
    assert type(made) is kind
    values = flat(made)
    assert values["lr"] == 0.5
    assert {name: values[name] for name in given} == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quick": True}, "--quick belongs to --recipe NAME; `reelbank recipes` lists them"),
        ({"markdown": True}, "--markdown belongs to --recipe NAME"),
        ({"latex": True, "repeats": 2}, "--latex belongs to --recipe NAME"),
        ({"recipe": "r", "sweep": ("lr=1,2",)}, "--recipe says itself what is trained; leave --sweep out"),
        ({"recipe": "r", "stepwise": True}, "leave --stepwise out"),
        ({"recipe": "r", "sweep_by": "val_mae"}, "leave --sweep-by out"),
        ({"stepwise": True}, "--stepwise tunes the fields of --sweep"),
        ({"workers": 2}, "--workers belongs to --recipe NAME or --sweep FIELD=A,B,C or --repeats"),
        ({"executor": "stacked"}, "--executor belongs to"),
        ({"sweep_by": "val_mae"}, "--sweep-by belongs to --sweep"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        request({**DEFAULTS, **given})


def test_a_mix_of_kinds_cannot_be_written() -> None:
    for kind, name in (
        (TrainConfig, "recipe"),
        (TrainConfig, "sweep"),
        (SweepConfig, "recipe"),
        (RecipeConfig, "sweep"),
    ):
        with pytest.raises(TypeError, match=f"{kind.__name__} has no option '{name}'"):
            kind.of(store=STORE, **{name: "x"})
    with pytest.raises(TypeError, match="recipe"):
        RecipeConfig.of(store=STORE)


@pytest.mark.parametrize("config", CONFIGS)
def test_flat_values_make_the_same_configuration(config: Any) -> None:
    given = {"store": STORE, "lr": 0.5, "bins": 7, "seed": 3} | ({"recipe": "r"} if config is RecipeConfig else {})
    made = config.of(**given)
    assert config.of(**flat(made)) == made
    assert made.but(lr=0.1).but(lr=0.5) == made
    assert flat(made.but(tap=("a",)))["tap"] == ("a",)


def test_every_option_lies_in_one_part() -> None:
    for config in CONFIGS:
        names = [f"{one.part.__name__}.{one.entry.name}" for one in options(config).values()]
        assert len(set(names)) == len(names)
    assert len(options(TrainConfig)) == 72
    assert len({one.flag for config in CONFIGS for one in options(config).values()}) == 83


def test_a_resumed_run_may_differ_in_its_run_part_alone() -> None:
    """And in how long it trains and where its stores lie."""
    train = TrainConfig.of(store=STORE)
    free = {name for name, one in options(TrainConfig).items() if one.part is RunConfig} | {"epochs", "store"}
    assert set(train.identity()) == set(options(TrainConfig)) - free
    assert train.identity() == train.but(epochs=7, store=(Path("moved.zarr"),), device="cpu", threads=2).identity()
    assert train.identity() != train.but(lr=0.5).identity()
    sweep = SweepConfig.of(store=STORE, sweep=("lr=1,2",))
    assert sweep.identity() == sweep.but(sweep=("lr=1,2,3",), repeats=2, workers=1).identity() == train.identity()
    recipe = RecipeConfig.of(store=STORE, recipe="r")
    assert recipe.identity() == recipe.but(markdown=True, repeats=2).identity()
    assert recipe.identity() != recipe.but(quick=True).identity() != recipe.but(recipe="s", quick=True).identity()


@pytest.mark.parametrize(
    ("more", "repeats"), [({}, 3), ({"repeats": 1}, 1), ({"quick": True}, 1), ({"quick": True, "repeats": 2}, 2)]
)
def test_a_recipe_has_its_own_number_of_repeats_where_none_is_given(more: dict[str, Any], repeats: int) -> None:
    given = {"store": STORE, "recipe": "egocentric/figure-7", **more}
    made = request({**DEFAULTS, **given}, set(given))
    assert isinstance(made, RecipeConfig)
    assert made.members.repeats == repeats


# --- settings of a head's stage (array_head.py: lr 0.02 in stage 1, 0.01 in stage 2, batch 8 in both)

STAGED = {"store": STORE, "head": "array_head:ROW"}


def asked(given: dict[str, Any], recorded: dict[str, Any] | None = None) -> dict[str, Any]:
    return flat(request({**DEFAULTS, **(recorded or {}), **given}, set(given), set(recorded or {}) - set(given)))


@pytest.mark.parametrize("more", [{}, {"repeats": 3}, {"sweep": ("batch=4,8",)}])
def test_settings_of_a_stage_hold_for_what_is_not_given(more: dict[str, Any]) -> None:
    for given, lr in (({}, 0.02), ({"stage": "2"}, 0.01), ({"stage": "2", "lr": 0.3}, 0.3)):
        values = asked({**STAGED, **given, **more})
        assert (values["lr"], values["batch"], values["keep"]) == (lr, 8, "best-accuracy"), given
    for kind in (TrainConfig, SweepConfig):
        assert flat(kind.of(**STAGED, stage="2"))["lr"] == 0.01


def test_a_replay_keeps_what_its_record_was_asked_for() -> None:
    record = TrainConfig.of(**STAGED, lr=0.3, epochs=7).to_json()
    assert {name: asked({"run": Path("b")}, record)[name] for name in ("lr", "epochs")} == {"lr": 0.3, "epochs": 7}
    other = asked({"stage": "2", "batch": 2}, record)
    assert (other["lr"], other["epochs"], other["batch"]) == (0.01, 3, 2)


def test_a_sweep_does_not_vary_stages() -> None:
    for field in ("stage=1,2", "init-from=a,b"):
        with pytest.raises(TrainingError, match="cannot vary within a sweep"):
            parse_axes((field,))
    linear = TrainConfig.of(store=STORE, head="linear")
    for head in (TrainConfig.of(**STAGED), linear):
        sweep = SweepConfig(train=head)
        other = "linear" if head is not linear else "array_head:ROW"
        points = [{"head": other}]
        if other == "linear":
            assert members_of(sweep, points, Path("s"))[0].config.head.name == "linear"
            continue
        said = "--sweep head: head 'array_head:ROW' is trained in stages, here with batch 8 of its own"
        with pytest.raises(TrainingError, match=said):
            members_of(sweep, points, Path("s"))
    same = members_of(SweepConfig(train=TrainConfig.of(**STAGED)), [{"lr": 0.5}], Path("s"))
    assert (same[0].config.optimizer.lr, same[0].config.optimizer.batch) == (0.5, 8)
