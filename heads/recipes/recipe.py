"""What a recipe is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Stores = Literal["all", "first", "last"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the publication prints for a row; None where it prints nothing.

    `accuracy` in percent, MAE in kcal/h, `outcome` in words where there is only a curve.
    """

    accuracy: float | None = None
    mae_known: float | None = None
    spc_known: float | None = None
    nll_known: float | None = None
    mae_unknown: float | None = None
    spc_unknown: float | None = None
    nll_unknown: float | None = None
    outcome: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training of a recipe.

    Attributes:
        name: unique in the recipe; also the folder of its runs, so letters, digits, `.`, `_` and `-`.
        cells: what the publication's table has in the leading columns, {column: text}.
        options: TrainConfig fields.
        stores: which of the given stores it reads.
        reference: whether it is a row of a published table, which a proposed row is compared with.
    """

    name: str
    cells: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    published: Published = Published()
    stores: Stores = "first"
    reference: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """One group of stepwise tuning: `field` takes each of `values`, the best one is kept."""

    field: str
    values: tuple[Any, ...]
    published: tuple[Published, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named experiment.

    Attributes:
        name: `family/experiment`.
        title: one line.
        text: what is trained, in sentences for the report.
        features: what the publication's features were, in words: any store runs.
        options: TrainConfig fields of every row.
        rows: trainings; empty where there are `steps`.
        steps: stepwise tuning, in this order.
        kind: `train`, or `kmeans` where nothing is trained.
        proposed: the row that the recipe stands for, whatever validation says; '' lets validation choose.
        notes: sentences for the report.
    """

    name: str
    title: str
    text: str
    features: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    steps: tuple[Step, ...] = ()
    kind: Literal["kmeans", "train"] = "train"
    proposed: str = ""
    notes: tuple[str, ...] = ()

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
        )

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON types."""
        data: dict[str, Any] = asdict(self)
        return data
