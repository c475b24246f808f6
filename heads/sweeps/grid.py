"""What a sweep asks for: fields and their values, the members of a grid, their names. No torch is loaded here."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelbank.heads.config import HeadConfig, TrainConfig
from reelbank.heads.defaults import network, resolved
from reelbank.heads.errors import TrainingError
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.objective_config import ObjectiveConfig
from reelbank.heads.optimizers import OptimizerConfig
from reelbank.heads.sweeps.config import SweepConfig
from reelbank.store.options import options

# Members that differ in what is predicted of which clips could not be compared; where and with what is no question.
SWEEPABLE_PARTS = (FeaturesConfig, HeadConfig, ObjectiveConfig, OptimizerConfig)
WHICH_HEAD = frozenset({"head", "head_option"})
STAGE_FIELDS = frozenset({"stage", "init_from"})
"""Which training it is of those that a head needs, one after the other: no choice between values."""
SWEEPABLE_FIELDS = tuple(
    sorted(
        name for name, one in options(TrainConfig).items() if one.part in SWEEPABLE_PARTS and name not in STAGE_FIELDS
    )
)
_NAME_LENGTH = 160


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One swept field and its values, in the order given."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One training of a sweep.

    Attributes:
        name: of its run directory; tells every swept value and the seed.
        values: {field: value} of every swept field.
        config: the training, as it could be run alone.
    """

    name: str
    values: Mapping[str, Any]
    seed: int
    config: TrainConfig

    @property
    def directory(self) -> Path:
        """Its run directory."""
        return self.config.run.given_directory


def parse_axes(sweep: Sequence[str]) -> tuple[Axis, ...]:
    """The fields and values of --sweep, FIELD=A,B,C each.

    Raises:
        TrainingError: no field of that name or one that cannot vary, no value, a value the field cannot take, a
            field or a value given twice.
    """
    axes: list[Axis] = []
    for text in sweep:
        given, separator, listed = text.partition("=")
        if not separator:
            raise TrainingError(f"--sweep {text!r} is not of the form FIELD=A,B,C, e.g. lr=1e-3,1e-4")
        name = _field_name(given.strip())
        if any(axis.field == name for axis in axes):
            raise TrainingError(f"--sweep gives {name!r} twice; put all its values in one list")
        parts = [part.strip() for part in listed.split(",")]
        if not all(parts):
            raise TrainingError(f"--sweep {text!r} has an empty value; write {name}=A,B,C without empty places")
        values = tuple(parse_value(name, part) for part in parts)
        if len(set(values)) < len(values):
            raise TrainingError(f"--sweep {text!r} gives a value twice")
        axes.append(Axis(field=name, values=values))
    return tuple(axes)


def _field_name(given: str) -> str:
    known = options(SweepConfig)
    flags = {one.flag.removeprefix("--"): name for name, one in known.items()}
    name = given if given in flags.values() else flags.get(given.removeprefix("--").replace("_", "-"), given)
    if name in SWEEPABLE_FIELDS:
        return name
    hint = "; for several seeds use --repeats" if name == "seed" else ""
    reason = "cannot vary within a sweep" if name in known else "is not a field of training"
    raise TrainingError(f"--sweep: {given!r} {reason}{hint}; these can be swept: {', '.join(SWEEPABLE_FIELDS)}")


def parse_value(name: str, text: str) -> Any:
    """`text` as a value of field `name`: pairs as A:B, lists joined by '+'. Raises TrainingError if it is none."""
    hint = str(options(TrainConfig)[name].type)
    wanted = "text"
    try:
        if "tuple[float, float]" in hint:
            wanted = "a pair A:B"
            low, high = text.split(":")
            return float(low), float(high)
        if "tuple[int" in hint:
            wanted = "whole numbers joined by '+'"
            return tuple(int(part) for part in text.split("+"))
        if "tuple[str" in hint:
            return tuple(text.split("+"))
        if "bool" in hint:
            wanted = "true or false"
            return {"true": True, "false": False}[text.lower()]
        if "int" in hint:
            wanted = "a whole number"
            return int(text)
        if "float" in hint:
            wanted = "a number"
            return float(text)
    except (ValueError, KeyError):
        raise TrainingError(f"--sweep {name}: {text!r} is not {wanted}") from None
    return text


def combinations(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every combination of values, the last field varying fastest; one empty combination without axes."""
    names = [axis.field for axis in axes]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def members_of(config: SweepConfig, points: Iterable[Mapping[str, Any]], directory: Path) -> list[Member]:
    """As many members as there are repeats for each of `points` ({field: value}).

    Raises TrainingError for a combination that cannot be trained.
    """
    alone = network(config.train).but(report=False, overwrite=False, resume=False)
    made = []
    for values in points:
        for seed in config.members.seeds(alone.seed):
            name = _member_name(values, seed)
            try:
                own = resolved(alone.but(**values, seed=seed, run=directory / "members" / name))
                _refuse_other_settings(alone, own, set(values))
            except TrainingError as error:
                error.add_note(f"in member {name} of the sweep")
                raise
            made.append(Member(name=name, values=dict(values), seed=seed, config=own))
    if len({member.config.separator for member in made}) > 1:
        raise TrainingError(
            "--sweep mixes losses of clips with one label and with several: nothing measures both; sweep each by itself"
        )
    return made


def _refuse_other_settings(shared: TrainConfig, own: TrainConfig, swept: Set[str]) -> None:
    """Raises TrainingError where the stage of a member's head has settings that members do not share."""
    settings, there = own.head.stage_settings, shared.head.stage_settings
    other = sorted(name for name in settings if name not in swept and settings[name] != there.get(name))
    if other:
        raise TrainingError(
            f"--sweep {', '.join(sorted(swept & WHICH_HEAD))}: head {own.head.name!r} is trained in stages, here with "
            f"{other[0]} {settings[other[0]]} of its own, which a sweep does not change; train it by itself, "
            f"or sweep {other[0]} too"
        )


def value_text(value: Any) -> str:
    """A swept value as `parse_value` reads it."""
    if isinstance(value, tuple):
        return (":" if value and isinstance(value[0], float) else "+").join(map(value_text, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _member_name(values: Mapping[str, Any], seed: int) -> str:
    whole = ",".join([*(f"{name}={value_text(value)}" for name, value in values.items()), f"seed={seed}"])
    safe = re.sub(r"[^A-Za-z0-9=,.+_-]", "-", whole)[:_NAME_LENGTH]
    return safe if safe == whole else f"{safe}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
