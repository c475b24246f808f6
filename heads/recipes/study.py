"""What a study reports, as data: its parts, columns, baselines, selection, pictures. Its recipes hold the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reelbank.heads.judging.metrics import METRICS
from reelbank.heads.recipes.measures import GUESSERS, MEASURES, Guesser, Measure, Training
from reelbank.heads.reports.wording import title

VALIDATION = {"val_accuracy": "accuracy", "val_loss": "", "val_mae": "mae"}
"""{what metrics.jsonl has of the validation clips: the metric that it is}."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Clips that a study reports under a name.

    Attributes:
        name: in recipe.json and in the keys of pictures.
        split: of the store; with folds `test` is every clip, predicted by the fold that did not train on it.
        said: what a sentence says after "on".
        what: what its clips are, for whoever has a store without them.
        is_needed: False: where a store has no such clips, its columns stay empty.
    """

    name: str
    split: str
    said: str
    what: str = ""
    is_needed: bool = True


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of numbers: published and ours.

    Attributes:
        key: names it in recipe.json and in published values.
        head: its heading.
        part: name of a part.
        metric: of results.json (`heads.judging.metrics.METRICS`), or a measure of the study.
        scale: what ours is multiplied by: 100 where percent are printed.
        digits: after the point; `least_digits` also those of a published value that has fewer.
        beats: the guesser that a row is judged beside, clip by clip; '' only shows the number, without an interval.
        over: `clips`, or `folds`: the mean of the folds' values, each fold counting the same.
        group: only the clips of this group: one of the folds that leave one group out.
    """

    key: str
    head: str
    part: str
    metric: str
    scale: float = 1.0
    digits: int = 0
    least_digits: int = 0
    beats: str = ""
    over: Literal["clips", "folds"] = "clips"
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What chooses the row that is called best.

    Attributes:
        validation: of metrics.jsonl, at the epoch whose weights the row keeps.
        column: what chooses instead where the reported sets select (`--select-on reported-set`).
        avoids_overfit: a row that overfits comes after all that do not.
        protocol: the sentence about the published protocol, for `--select-on reported-set`.
        protocol_options: TrainConfig fields that this protocol has beside it.
        protocol_by_clip: its intervals are over clips, not groups: its test part is one group.
    """

    validation: str
    column: str
    avoids_overfit: bool = False
    protocol: str = "The reported sets choose epochs, schedules and the best row: the numbers are too good."
    protocol_options: Mapping[str, Any] = field(default_factory=dict)
    protocol_by_clip: bool = False


@dataclass(frozen=True, kw_only=True)
class Study:
    """How the recipes of one publication are judged and shown.

    A study of classes alone has recipes with the option `target: none`.

    Attributes:
        name: the family of its recipes.
        parts, columns, selection: see there.
        baselines: {baseline of results.json or guesser: its label}, the last rows of the table, in this order.
        measures: beside `measures.MEASURES`.
        guessers: beside `measures.GUESSERS`.
        beside: columns that are said of the best row in a sentence and stand in no table; what follows in brackets is
            the text of `beside_notes` under the column's metric.
        by_class: {guesser: heading} in the table of classes, beside the best row, for a part's first judged column.
        folds: `groups` leaves one group out at a time, a fold for each; '' takes the store's splits, as a protocol with
            `folds` among its options does.
        needs_target: the stores must have a numeric target.
        axis: limits of pictures of the target, where all of its values lie within.
        captions: {picture: caption}; a study shows those it names, in this order (`gallery.PICTURES`).
        notes: sentences for every report.
        tells: gives more of them, from what training knows.
    """

    name: str
    parts: tuple[Part, ...]
    columns: tuple[Column, ...]
    selection: Selection
    baselines: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    guessers: Mapping[str, Guesser] = field(default_factory=dict)
    beside: tuple[Column, ...] = ()
    beside_notes: Mapping[str, str] = field(default_factory=dict)
    by_class: Mapping[str, str] = field(default_factory=dict)
    folds: Literal["", "groups"] = ""
    needs_target: bool = False
    axis: tuple[float, float] | None = None
    captions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tells: Callable[[Training], tuple[str, ...]] = lambda training: ()

    def __post_init__(self) -> None:
        keys = [column.key for column in (*self.columns, *self.beside)]
        parts = {part.name for part in self.parts}
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"study {self.name}: two columns have the key {key!r}")
        for column in (*self.columns, *self.beside):
            self._check(column, parts)
        if self.selection.validation not in VALIDATION:
            raise ValueError(
                f"study {self.name}: selection by {self.selection.validation!r}, not one of {[*VALIDATION]}"
            )
        if self.selection.column not in keys:
            raise ValueError(
                f"study {self.name}: selection by column {self.selection.column!r}, which it does not have"
            )
        for name in self.by_class:
            self.guesser(name)

    def _check(self, column: Column, parts: set[str]) -> None:
        where = f"study {self.name}, column {column.key}"
        if column.part not in parts:
            raise ValueError(f"{where}: no part {column.part!r}; there are {', '.join(sorted(parts))}")
        measure = self.measure(column)
        if measure is None and column.metric not in METRICS:
            known = sorted({*METRICS, *MEASURES, *self.measures})
            raise ValueError(f"{where}: no metric {column.metric!r}; there are {', '.join(known)}")
        if (column.beats or column.group) and (measure is None or measure.per_clip is None):
            raise ValueError(f"{where}: {column.metric} is no mean over clips; beats and group need one")
        if column.beats and column.group:
            raise ValueError(f"{where}: the clips of one group give no interval, so it is not judged; leave beats out")
        if column.beats:
            self.guesser(column.beats)

    def measure(self, column: Column) -> Measure | None:
        """The measure of a column; None for a metric that only results.json has."""
        return {**MEASURES, **self.measures}.get(column.metric)

    def guesser(self, name: str) -> Guesser:
        """The guesser called `name`. Raises ValueError listing those there are."""
        known = {**GUESSERS, **self.guessers}
        if name not in known:
            raise ValueError(f"study {self.name}: no guesser {name!r}; there are {', '.join(sorted(known))}")
        return known[name]

    def higher_is_better(self, column: Column) -> bool:
        """The direction of a column."""
        measure = self.measure(column)
        return METRICS[column.metric].higher_is_better if measure is None else measure.higher_is_better

    @property
    def judged(self) -> tuple[Column, ...]:
        """The columns that are judged beside a guesser."""
        return tuple(column for column in self.columns if column.beats)

    @property
    def keys(self) -> frozenset[str]:
        """Keys that a publication may have values for."""
        return frozenset(column.key for column in self.columns)

    def column(self, key: str) -> Column:
        """The column called `key`."""
        return next(column for column in (*self.columns, *self.beside) if column.key == key)

    def part(self, name: str) -> Part:
        """The part called `name`."""
        return next(part for part in self.parts if part.name == name)

    def to_json(self) -> dict[str, Any]:
        """What the table, the sentences and the page are written from, as JSON types."""
        return {
            "name": self.name,
            "parts": {part.name: {"split": part.split, "said": part.said} for part in self.parts},
            "columns": [self._column_json(column) for column in self.columns],
            "beside": [
                {**self._column_json(column), "note": self.beside_notes.get(column.metric, "")}
                for column in self.beside
            ],
            "baselines": dict(self.baselines),
            "guessers": {
                name: self.guesser(name).title
                for name in dict.fromkeys([*(column.beats for column in self.judged), *self.by_class])
            },
            "by_class": dict(self.by_class),
            "validation": self.selection.validation,
            "folds": self.folds,
            "axis": None if self.axis is None else list(self.axis),
            "captions": dict(self.captions),
        }

    def _column_json(self, column: Column) -> dict[str, Any]:
        measure = self.measure(column)
        return {
            "key": column.key,
            "head": column.head,
            "part": column.part,
            "metric": column.metric,
            "title": title(column.metric) if measure is None else measure.title,
            "unit": "" if measure is None else measure.unit,
            "scale": column.scale,
            "digits": column.digits,
            "least_digits": column.least_digits,
            "beats": column.beats,
            "over": column.over,
            "group": column.group,
            "higher_is_better": self.higher_is_better(column),
        }
