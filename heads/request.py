"""What the command `train-head` is asked for: one training, a sweep of them, or a recipe. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from reelbank.heads.config import TrainConfig, stage_settings
from reelbank.heads.errors import TrainingError
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.sweeps.config import SweepConfig
from reelbank.store.options import options

WHICH_STAGE = frozenset({"head", "head_option", "stage"})
CONFIGS = (TrainConfig, SweepConfig, RecipeConfig)
"""The fields of these are the options of the command."""


def request(
    values: Mapping[str, Any], given: Set[str] | None = None, recorded: Set[str] = frozenset()
) -> TrainConfig | SweepConfig | RecipeConfig:
    """The configuration that the options of the command ask for: by --recipe, by --sweep and --repeats, or neither.

    Args:
        values: {name: value} of the options of `CONFIGS`.
        given: names of those that somebody gave: the settings of a head's stage, and a recipe's own number of repeats,
            hold for the others. None: all.
        recorded: names of those that a record gave which is replayed. Where `given` names another head or stage, its
            settings hold instead of the recorded ones.

    Raises:
        TrainingError: an option that has no meaning beside the others, or a value that cannot be used.
    """
    kind: type[TrainConfig | SweepConfig | RecipeConfig] = TrainConfig
    if values.get("recipe") is not None:
        kind = RecipeConfig
    elif values.get("sweep") or values.get("stepwise") or values.get("repeats", 1) > 1:
        kind = SweepConfig
    own = options(kind)
    for name, value in values.items():
        if name not in own:
            _refuse_unless_default(name, value, kind)
    asked = {name: value for name, value in values.items() if name in own}
    if given is not None:
        asked = {name: value for name, value in asked.items() if name in given or name in recorded}
        if WHICH_STAGE & given:
            other = stage_settings(asked)
            asked = {name: value for name, value in asked.items() if name in given or name not in other}
    return kind.of(**asked)


def _refuse_unless_default(name: str, value: Any, kind: type) -> None:
    """Raises TrainingError for an option that `kind` does not have: it would be ignored."""
    owners = [config for config in CONFIGS if name in options(config)]
    one = options(owners[0])[name]
    if value in (one.default, None):
        return
    if kind is RecipeConfig:
        raise TrainingError(f"--recipe says itself what is trained; leave {one.flag} out, or leave --recipe out")
    wanted = ["--recipe NAME"] if RecipeConfig in owners else []
    wanted += ["--sweep FIELD=A,B,C or --repeats"] if SweepConfig in owners else []
    hint = "; `reelbank recipes` lists them" if owners == [RecipeConfig] else ""
    raise TrainingError(f"{one.flag} belongs to {' or '.join(wanted)}{hint}")
