"""Runs a recipe: the rows of a named experiment as trainings, one run directory each, and the page about them.

The directory:

`config.json`   (written first) format_version · kind "recipe" · config: every TrainConfig field
`rows/<row>/seed=<n>/`  a run directory each (without a report, and finished without last.safetensors); rows with the
    same options, seeds and runs that they start from share one
`recipe.json`   (written last) see `reelbank.heads.recipes.judging.summarize`
`report.html`, `figures/*.png`, on request `table.md` and `table.tex`
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.prepared import Prepared, prepare
from reelbank.heads.recipes import recipe
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.recipes.inputs import require
from reelbank.heads.recipes.judging import preference, read_rows, summarize
from reelbank.heads.recipes.options import Asked, asked_of, members, refuse_asked, row_config, settings_of, step_rows
from reelbank.heads.recipes.passes import projected
from reelbank.heads.recipes.recipe import Recipe, RecipeRow, waves
from reelbank.heads.recipes.report import write_recipe_page
from reelbank.heads.recipes.rows import FORMAT_VERSION, TrainedRow
from reelbank.heads.recipes.seeing import draw_grad_cams
from reelbank.heads.recipes.stores import GivenStores
from reelbank.heads.recipes.tables import latex_table, markdown_table, text_table
from reelbank.heads.runs.directory import (
    not_finished,
    open_directory,
    refuse_other_config,
    resumable,
    write_json,
)
from reelbank.heads.runs.watching import watched
from reelbank.heads.sweeps.sweep import EXECUTORS, executor_name, shared_folder
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.files import write_whole
from reelbank.store.processes import leave_if_importing

MAP_CLIPS = 5000  # more points than that fill a picture, and cost minutes
MAP_SEED, MAP_PERPLEXITY = 123, 30.0  # SYSTEMS.md 1.13


@dataclass(frozen=True, kw_only=True)
class RecipeResult:
    """A finished recipe.

    Attributes:
        directory: where its files lie.
        results: the content of recipe.json.
    """

    directory: Path
    results: Mapping[str, Any]

    @property
    def has_failures(self) -> bool:
        """Whether a row could not be trained; recipe.json says why."""
        return any(row["error"] for row in self.results["rows"])

    def text(self) -> str:
        """The table for a terminal, the sentences, and where the files are."""
        return text_table(self.directory, self.results)


@with_bar("recipe")
def run_recipe(config: RecipeConfig, progress: Progress | None = None) -> RecipeResult:
    """Trains the rows of `config.recipe` and writes their report.

    With `config.resume` finished rows are kept and the others go on from their checkpoints.

    Args:
        config: stores, repeats, selection, device and workers; the recipe decides the fields of its rows.
        progress: called with an Event after every training.

    Raises:
        TrainingError: an unknown recipe, a field that the recipe decides itself, stores without what its study reports
            (a numeric target, a part, groups), and what `train_head` raises for every row. What the stores cannot give
            to some rows only stands in recipe.json as their error.
    """
    leave_if_importing()
    chosen, asked = recipe(config.recipe), asked_of(config)
    refuse_asked(config, chosen)
    begun = time.perf_counter()
    given = GivenStores(config, chosen)
    first = _first_prepared(config, chosen, given, progress)
    require(first, chosen, asked)
    name = f"{'+'.join(path.stem for path in asked.stores)}-{chosen.name.replace('/', '-')}"
    directory = open_directory(config.train.run, name, config)
    not_finished(directory, "recipe.json")
    write_json(
        directory / "config.json",
        {"format_version": FORMAT_VERSION, "kind": "recipe", "config": config.to_json()},
    )
    if chosen.kind == "read":
        results = read_rows(asked, chosen, first, progress)
    else:
        state = _RecipeRun(config=config, recipe=chosen, given=given, directory=directory, progress=progress)
        with resumable(directory), shared_folder(directory) as folder:
            trained = state.stepwise(folder) if chosen.steps else state.whole(folder)
        results = summarize(asked, chosen, trained, first)
        if config.quick and chosen.reads_arrays:
            results = projected(results, config, chosen, trained, given)
    results = {
        **results,
        "map": vector_map(first, asked.seed),
        "grad_cam": draw_grad_cams(directory, chosen, results),
        "seconds": round(time.perf_counter() - begun, 1),
        "run": directory.name,
    }
    write_json(directory / "recipe.json", results)
    _write_report(directory, results, asked, config.train.run.figures)
    return RecipeResult(directory=directory, results=results)


def _first_prepared(config: RecipeConfig, chosen: Recipe, given: GivenStores, progress: Progress | None) -> Prepared:
    """The first row that the stores have all for. Raises what the first row raises where there is none."""
    errors: list[TrainingError] = []
    free = [row for row in chosen.of_first_set if all(_is_optional(chosen, name) for name in row.starts_from)]
    rows = free or step_rows(chosen, {}, 0)
    for row in rows:
        try:
            return prepare(row_config(config, row, chosen, given), progress)
        except TrainingError as error:
            if row.stores != "matching":
                raise
            errors.append(error)
    raise errors[0]


def _is_optional(chosen: Recipe, name: str) -> bool:
    return next(row.is_optional for row in chosen.rows if row.name == name)


def _write_report(directory: Path, data: Mapping[str, Any], asked: Asked, figures_kind: str) -> Path:
    """Writes the page and the pictures of a finished recipe, and the tables asked for; returns the page."""
    if asked.markdown:
        write_whole(directory / "table.md", markdown_table(data))
    if asked.latex:
        write_whole(directory / "table.tex", latex_table(data))
    return write_recipe_page(directory, figures_kind=figures_kind)


@dataclass(kw_only=True)
class _RecipeRun:
    """A recipe under way; `done` {options as text: the row that has them}."""

    config: RecipeConfig
    recipe: Recipe
    given: GivenStores
    directory: Path
    progress: Progress | None

    def __post_init__(self) -> None:
        self.done: dict[str, TrainedRow] = {}
        self.not_run: set[Path] = set()
        self.finished = 0

    def whole(self, folder: Path) -> list[TrainedRow]:
        """Every row."""
        return self._train(list(self.recipe.rows), folder)

    def stepwise(self, folder: Path) -> list[TrainedRow]:
        """One group after the other, each from the best value so far."""
        point = {step.field: self.recipe.options.get(step.field) for step in self.recipe.steps}
        everything: list[TrainedRow] = []
        for position, step in enumerate(self.recipe.steps):
            rows = self._train(step_rows(self.recipe, point, position), folder)
            on_reported_sets = asked_of(self.config).on_reported_sets
            judged = [preference(self.recipe.study, one, on_reported_sets=on_reported_sets) for one in rows]
            best = judged.index(min(judged))
            if not np.isfinite(judged[best][1]):
                raise TrainingError(f"no value of {step.field} could be trained: {rows[0].error or 'all overfit'}")
            point[step.field] = step.values[best]
            everything += [replace(one, step=position, chosen=i == best) for i, one in enumerate(rows)]
        return everything

    def _train(self, rows: Sequence[RecipeRow], folder: Path) -> list[TrainedRow]:
        """The rows with their runs, each after those it starts from."""
        made: dict[str, TrainedRow] = {}
        for wave in waves(rows):
            made |= self._train_wave(wave, made, folder)
        return [made[row.name] for row in rows]

    def _train_wave(
        self, rows: Sequence[RecipeRow], made: Mapping[str, TrainedRow], folder: Path
    ) -> dict[str, TrainedRow]:
        """Rows that wait for none of each other; options that a row before had are not trained again."""
        fresh: dict[str, tuple[RecipeRow, list[TrainConfig]]] = {}
        settings: dict[str, dict[str, Any]] = {}
        keys: dict[str, str] = {}
        found: dict[str, TrainedRow] = {}
        for row in rows:
            bases = [made[name] for name in row.starts_from if made[name].runs or not made[name].row.is_optional]
            alone = self._asked_of(row, bases)
            if isinstance(alone, TrainedRow):
                found[row.name] = alone
                continue
            own = members(
                self.config, alone, self.directory / "rows" / row.name, [base.runs for base in bases]
            )  # fmt: skip
            begins = [list(map(str, one.head.init_from)) for one in own] if bases else []
            key = keys[row.name] = json.dumps([alone.to_json(), *begins], sort_keys=True)
            if key not in self.done and key not in fresh:
                fresh[key] = (row, own)
                settings[key] = settings_of(alone, [base.row.name for base in bases])
        errors = self._train_members([config for _, own in fresh.values() for config in own], folder)
        for key, (row, own) in fresh.items():
            runs = [config.run.given_directory for config in own]
            error = next((errors[run] for run in runs if errors.get(run)), "")
            self.done[key] = TrainedRow(
                row=row,
                runs=() if error else tuple(runs),
                settings=settings[key],
                error=error,
                not_run=not self.not_run.isdisjoint(runs),
            )
        for row in rows:
            if row.name not in found:
                one = self.done[keys[row.name]]
                found[row.name] = one if one.row is row else replace(one, row=row, shared_with=one.row.name)
        return found

    def _asked_of(self, row: RecipeRow, bases: Sequence[TrainedRow]) -> TrainConfig | TrainedRow:
        """What is trained for `row`; the row as it stands where nothing can be."""
        if self.config.quick and self.recipe.reads_arrays and row.name not in self.recipe.trained_in_short:
            return TrainedRow(row=row, runs=(), left_out=True)
        for base in bases:
            if not base.runs:
                what = "was not run" if base.not_run else "failed"
                return self._lost(row, f"it starts from {base.row.name}, which {what}: {base.error}")
        try:
            self.given.read_by(row, {**self.recipe.options, **row.options})
        except TrainingError as error:
            return self._lost(row, str(error))
        return row_config(self.config, row, self.recipe, self.given)

    def _lost(self, row: RecipeRow, error: str) -> TrainedRow:
        self._show(f"{row.name} not run: {error}")
        return TrainedRow(row=row, runs=(), error=error, not_run=True)

    def _train_members(self, configs: Sequence[TrainConfig], folder: Path) -> dict[Path, str]:
        """{run: why it could not be trained, '' if it could}."""
        heads = [config.head for config in configs]
        name = executor_name(self.config.members, self.config.train.run.device, heads)
        outcome: dict[Path, str] = {}
        wanted = []
        for config in configs:
            run = config.run.given_directory
            if (run / "results.json").exists():
                refuse_other_config(run, config)
                outcome[run] = ""
                self._tell(run, "kept")
            else:
                wanted.append(config.but(resume=(run / "config.json").exists()))
        # What the stores cannot give is said before anything is trained, and costs only the rows that ask for it.
        cache, able = FeatureCache(folder), []
        for config in wanted:
            run = config.run.given_directory
            try:
                prepare(config, None, cache)
            except ValueError as error:  # weights that are not here are no fault of the options
                outcome[run] = str(error)
                self.not_run.add(run)
                self._tell(run, f"not run: {error}")
            else:
                able.append(config)
        if not able:
            return outcome

        def done(position: int, error: str | None) -> None:
            run = able[position].run.given_directory
            outcome[run] = error or ""
            if not error:
                _forget_progress(run)
            self._tell(run, f"failed: {error}" if error else "trained")

        with watched(able, outcome, self._show):
            EXECUTORS[name](able, folder, self.config.members.workers, done, lambda text: self._show(note=text))
        return outcome

    def _tell(self, run: Path, what: str) -> None:
        self.finished += 1
        self._show(f"{run.parent.name} {run.name} {what}")

    def _show(self, message: str = "", note: str = "") -> None:
        if self.progress is not None:
            short = self.recipe.trained_in_short if self.config.quick and self.recipe.reads_arrays else None
            rows = self.recipe.num_rows if short is None else len(short)
            total = max(rows * self.config.members.repeats, self.finished)
            self.progress(Event(stage="recipe", done=self.finished, total=total, message=message, note=note))


def _forget_progress(run: Path) -> None:
    """Leaves out where a finished training stands: a recipe trains it no further, and it is three times its weights."""
    for left in run.rglob("last.safetensors"):
        left.unlink()


def vector_map(prepared: Prepared, seed: int) -> dict[str, Any]:
    """t-SNE of the clips' mean vectors: {x, y, labels, splits, stores, note}; empty of arrays and of too few clips."""
    from reelbank.heads.probes.embedding import MIN_ROWS, tsne

    if prepared.arrays is not None:
        return {}
    table = prepared.table
    vectors = np.concatenate([prepared.features.means[key] for key in sorted(prepared.features.means)], axis=1)
    rows = np.arange(len(table))
    if len(rows) > MAP_CLIPS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAP_CLIPS, replace=False))
    vectors = vectors[rows] - vectors[rows].mean(axis=0)
    spread = vectors.std(axis=0)
    vectors = vectors / np.where(spread > 0, spread, 1.0)
    if len(rows) < MIN_ROWS or not vectors.any():
        return {}
    made = tsne(vectors.astype(np.float32), perplexity=MAP_PERPLEXITY, seed=MAP_SEED)
    return {
        "x": [round(float(value), 3) for value in made.coordinates[:, 0]],
        "y": [round(float(value), 3) for value in made.coordinates[:, 1]],
        "labels": table.labels[rows].tolist(),
        "splits": table.splits[rows].tolist(),
        "stores": [path.name for path in prepared.config.data.store],
        "note": f"perplexity {made.perplexity:.0f}, seed {MAP_SEED}, {len(rows)} of {len(table)} clips",
    }
