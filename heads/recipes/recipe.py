"""What a recipe is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reelbank.heads.recipes.study import Study

Stores = Literal["all", "first", "last", "matching", "other-set"]
"""Which of the given stores a row reads; `matching`: those that have what its head reads, of a head on arrays, and
clips of the first store; `other-set`: of those that have none of its clips, as of another data set."""
SEED_BLOCK = 1000
"""Seeds of one block: more than anybody repeats a row."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the publication prints for a row.

    Attributes:
        values: {key of a column of the study: number}, as printed.
        outcome: in words, where there is only a curve.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    outcome: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {"values": dict(self.values), "outcome": self.outcome}


@dataclass(frozen=True, kw_only=True)
class RecipeRow:
    """One training of a recipe.

    Attributes:
        name: unique in the recipe; also the folder of its runs, so letters, digits, `.`, `_` and `-`.
        cells: what the publication's table has in the leading columns, {column: text}.
        options: TrainConfig fields; of a head that is trained in stages the stage's settings too, none is filled in.
        stores: which of the given stores it reads.
        starts_from: names of rows before it whose runs it starts from (`--init-from`), each repeat from theirs.
        is_optional: whether rows that start from it begin without it where the stores do not have what it reads.
        against: a row before it that it is compared with clip by clip: what one thing that it has more is worth.
        reference: whether it is a row of a published table, which a proposed row is compared with.
        seed_block: 0: the seeds of --seed on; 1: other ones, 1000 further, for a row whose training would otherwise
            be step by step that of another row.
    """

    name: str
    cells: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    published: Published = Published()
    stores: Stores = "first"
    starts_from: tuple[str, ...] = ()
    is_optional: bool = False
    against: str = ""
    reference: bool = False
    seed_block: int = 0

    def to_json(self) -> dict[str, Any]:
        """The row as JSON types."""
        return {
            "name": self.name,
            "cells": dict(self.cells),
            "options": dict(self.options),
            "published": self.published.to_json(),
            "stores": self.stores,
            "starts_from": list(self.starts_from),
            "is_optional": self.is_optional,
            "against": self.against,
            "reference": self.reference,
            "seed_block": self.seed_block,
        }


@dataclass(frozen=True, kw_only=True)
class Step:
    """One group of stepwise tuning: `field` takes each of `values`, the best one is kept."""

    field: str
    values: tuple[Any, ...]
    published: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        if self.published and len(self.published) != len(self.values):
            raise ValueError(f"step {self.field}: {len(self.values)} values, {len(self.published)} published ones")

    def to_json(self) -> dict[str, Any]:
        """The step as JSON types."""
        return {
            "field": self.field,
            "values": list(self.values),
            "published": [published.to_json() for published in self.published],
        }


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named experiment.

    Attributes:
        name: `study/experiment`.
        study: how it is judged and shown.
        title: one line.
        text: what is trained, in sentences for the report.
        features: what the publication's features were, in words: any store runs.
        shape: (steps, numbers per step) of the publication's features; None: not said.
        options: TrainConfig fields of every row.
        rows: trainings; empty where there are `steps`.
        steps: stepwise tuning, in this order.
        reader: `module:function` that gives the rows' predictions where nothing is trained (see `judging.read_rows`);
            '' trains.
        proposed: the row that the recipe stands for, whatever validation says; '' lets validation choose.
        compared: rows whose predictions are drawn below each other.
        repeats: how often a row is trained where --repeats does not say it.
        corners: of a grid, the rows that --quick trains, with those they start from; () for all.
        seen_classes: whose Grad-CAM is drawn, of every row; where the clips have none of them, the first of theirs.
        notes: sentences for the report.
    """

    name: str
    study: Study
    title: str
    text: str
    features: str
    shape: tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[RecipeRow, ...] = ()
    steps: tuple[Step, ...] = ()
    reader: str = ""
    proposed: str = ""
    compared: tuple[str, ...] = ()
    repeats: int = 1
    corners: tuple[str, ...] = ()
    seen_classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"recipe {self.name}: two rows of one name")
        if missing := [name for name in (self.proposed, *self.compared, *self.corners) if name and name not in names]:
            raise ValueError(f"recipe {self.name}: no row {missing[0]!r}")
        for place, row in enumerate(self.rows):
            if row.against and row.against not in names[:place]:
                raise ValueError(f"recipe {self.name}: {row.name} is against {row.against}, which is no row before it")
            if later := [name for name in row.starts_from if name not in names[:place]]:
                raise ValueError(f"recipe {self.name}: {row.name} starts from {later[0]!r}, which is no row before it")
        published = [(row.name, row.published) for row in self.rows]
        published += [(step.field, one) for step in self.steps for one in step.published]
        for name, one in published:
            if strange := sorted(set(one.values) - self.study.keys):
                raise ValueError(
                    f"recipe {self.name}, {name}: published value of {strange[0]!r}, which is no column of study "
                    f"{self.study.name}; there are {', '.join(sorted(self.study.keys))}"
                )

    @property
    def kind(self) -> Literal["read", "train"]:
        """Whether rows are trained, or read from the store."""
        return "read" if self.reader else "train"

    @property
    def of_first_set(self) -> tuple[RecipeRow, ...]:
        """The rows that are judged: those of the set that the first store is of."""
        return tuple(row for row in self.rows if row.stores != "other-set")

    @property
    def reads_arrays(self) -> bool:
        """Whether its heads read maps, frames and fields, so that --quick counts how often a clip is trained on."""
        return any(row.stores in ("matching", "other-set") for row in self.rows)

    def with_bases(self, names: Iterable[str]) -> frozenset[str]:
        """The rows `names`, those they start from, and so on."""
        found = set(names)
        for row in reversed(self.rows):  # a row stands after those it starts from
            if row.name in found:
                found |= set(row.starts_from)
        return frozenset(found)

    @property
    def trained_in_short(self) -> frozenset[str]:
        """The rows that --quick trains."""
        return self.with_bases(self.corners or [row.name for row in self.rows])

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return len(self.rows) + sum(len(step.values) for step in self.steps)

    @property
    def fields(self) -> frozenset[str]:
        """TrainConfig fields that the recipe decides."""
        return (
            frozenset(self.options)
            | {name for row in self.rows for name in row.options}
            | {s.field for s in self.steps}
            | ({"folds"} if self.study.folds else frozenset())
            | ({"init_from"} if any(row.starts_from for row in self.rows) else frozenset())
        )

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON types."""
        return {
            "name": self.name,
            "study": self.study.to_json(),
            "title": self.title,
            "text": self.text,
            "features": self.features,
            "shape": None if self.shape is None else list(self.shape),
            "options": dict(self.options),
            "rows": [row.to_json() for row in self.rows],
            "steps": [step.to_json() for step in self.steps],
            "kind": self.kind,
            "proposed": self.proposed,
            "compared": list(self.compared),
            "repeats": self.repeats,
            "corners": list(self.corners),
            "seen_classes": list(self.seen_classes),
            "notes": list(self.notes),
        }


def waves(rows: Sequence[RecipeRow]) -> list[list[RecipeRow]]:
    """`rows` in groups that are trained one after the other: each after the rows that it starts from."""
    place: dict[str, int] = {}
    for row in rows:
        place[row.name] = 1 + max((place[name] for name in row.starts_from), default=-1)
    return [[row for row in rows if place[row.name] == number] for number in range(max(place.values(), default=-1) + 1)]


def cell(value: Any) -> str:
    """A value as published tables write it: 1e-4, (0.9, 0.999)."""
    if isinstance(value, tuple):
        return f"({', '.join(f'{part:g}' for part in value)})"
    if not value:
        return "0"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if abs(value) < 0.01 else f"{value:g}"
