"""Runs a recipe: the rows of a named experiment as trainings, one run directory each, and the page about them.

The directory:

`config.json`   (written first) format_version · kind "recipe" · config: every TrainConfig field
`rows/<row>/seed=<n>/`  a run directory each (without a report); rows with the same options share one
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
from reelbank.heads.events import Event, Progress
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.prepared import Prepared, prepare
from reelbank.heads.recipes import Published, Recipe, Row, recipe, refuse_decided
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.recipes.judging import selecting_value, summarize
from reelbank.heads.recipes.kmeans import read_clusters
from reelbank.heads.recipes.report import write_recipe_page
from reelbank.heads.recipes.rows import FORMAT_VERSION, Trained
from reelbank.heads.recipes.tables import latex_table, markdown_table, text_table
from reelbank.heads.runs.directory import open_directory, read_json, refuse_other_config, write_json
from reelbank.heads.runs.watching import resumable, watched
from reelbank.heads.sweeps.grid import value_text
from reelbank.heads.sweeps.sweep import EXECUTORS, executor_name, shared_folder
from reelbank.store.options import flat, options

QUICK_SHARE = 0.05  # of the epochs
QUICK_CLIPS = 64
QUICK_LEAST_EPOCHS = 2
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


def run_recipe(config: RecipeConfig, progress: Progress | None = None) -> RecipeResult:
    """Trains the rows of `config.recipe` and writes their report.

    With `--resume` finished rows are kept and the others go on from their checkpoints.

    Args:
        config: stores, repeats, selection, device and workers; the recipe decides the fields of its rows.
        progress: called with an Event after every training.

    Raises:
        TrainingError: an unknown recipe, a field that the recipe decides itself, a store without a numeric target, a
            known test part or unknown activities, and what `train_head` raises for every row. What the stores cannot
            give to some rows only stands in recipe.json as their error.
    """
    chosen = recipe(config.recipe)
    _refuse_decided(config, chosen)
    begun = time.perf_counter()
    first = prepare(_alone(config, chosen.rows[0] if chosen.rows else _step_rows(chosen, {}, 0)[0], chosen), progress)
    require_two_tests(first, chosen.name)
    stores = "+".join(path.stem for path in config.train.data.store)
    directory = open_directory(config.train.run, f"{stores}-{config.recipe.replace('/', '-')}", config)
    write_json(
        directory / "config.json",
        {"format_version": FORMAT_VERSION, "kind": "recipe", "config": config.to_json()},
    )
    if chosen.kind == "kmeans":
        results = read_clusters(config, chosen, first, progress)
    else:
        state = _Run(config=config, recipe=chosen, directory=directory, progress=progress)
        with resumable(directory), shared_folder(directory) as folder:
            trained = state.stepwise(folder) if chosen.steps else state.whole(folder)
        results = summarize(config, chosen, trained, first)
    results = {
        **results,
        "map": vector_map(first, config.train.seed),
        "seconds": round(time.perf_counter() - begun, 1),
        "run": directory.name,
    }
    write_json(directory / "recipe.json", results)
    _write_report(directory, markdown=config.markdown, latex=config.latex)
    return RecipeResult(directory=directory, results=results)


def _write_report(directory: Path, *, markdown: bool, latex: bool) -> Path:
    """Writes the page and the pictures of a finished recipe, and the tables asked for; returns the page."""
    data = read_json(directory / "recipe.json")
    if markdown:
        (directory / "table.md").write_text(markdown_table(data), encoding="utf-8")
    if latex:
        (directory / "table.tex").write_text(latex_table(data), encoding="utf-8")
    return write_recipe_page(directory)


def _refuse_decided(config: RecipeConfig, chosen: Recipe) -> None:
    """An option that the recipe sets itself must not be asked for: one of the two would be ignored."""
    values = flat(config.train)
    asked = (name for name, one in options(TrainConfig).items() if values[name] != one.default)
    refuse_decided(chosen.name, asked)


def require_two_tests(prepared: Prepared, name: str) -> None:
    """Raises TrainingError unless there are a numeric target, a known test part and unknown activities.

    `name` of the recipe.
    """
    if prepared.bins is None:
        if prepared.config.data.target == "none":
            raise TrainingError(f"--recipe {name} predicts a numeric target; leave out --target none")
        raise TrainingError(
            f"--recipe {name} needs a numeric target such as kcal; the store has none (--target-columns names them "
            "when a store is made)"
        )
    splits = prepared.table.splits
    found = ", ".join(f"{split!r} ({(splits == split).sum()})" for split in sorted(set(splits.tolist())))
    for split, what in (("test", "clips of activities that training knows"), ("unknown", "clips of other activities")):
        if not (splits == split).any():
            raise TrainingError(
                f"--recipe {name} reports two test sets, and the store has no split {split!r} ({what}); found {found}"
            )
    values = prepared.target_values
    assert values is not None
    for split in ("test", "unknown"):
        if not np.isfinite(values[splits == split]).any():
            raise TrainingError(
                f"--recipe {name}: no clip of split {split!r} has a target {prepared.bins.target!r}; fill the column"
            )


def _alone(config: RecipeConfig, row: Row, chosen: Recipe) -> TrainConfig:
    """The training of one row with its first seed, without a run directory."""
    values = {**chosen.options, **row.options}
    if config.train.data.select_on == "reported-set":
        values["keep"] = "last"  # the publication restores the last weights, not the best (SYSTEMS.md 1.9)
    if config.quick:
        values = quick_options(values, config.train)
    stores = config.train.data.store
    store = {"all": stores, "first": stores[:1], "last": stores[-1:]}[row.stores]
    taps = config.train.features.tap
    own = {"report": False, "overwrite": False, "resume": False, "run": None, "store": store, "tap": ()}
    made = config.train.but(**{**own, **values})
    return made.but(tap=_taps_of(store, taps)) if taps else made


def _taps_of(store: Sequence[Path], taps: Sequence[str]) -> tuple[str, ...]:
    """Those of `taps` that `store` holds; a tap that none of them holds is refused where it is read."""
    import reelbank.store

    held = {name for path in store for name in reelbank.store.open(path).taps}
    return tuple(tap for tap in taps if tap in held) or tuple(taps)


def quick_options(options: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Options of the short form: a twentieth of the epochs, patience with them, at most 64 training clips."""
    epochs = options.get("epochs", config.optimizer.epochs)
    short = {**options, "epochs": max(QUICK_LEAST_EPOCHS, round(QUICK_SHARE * epochs))}
    for name in ("step_epochs", "patience_epochs", "early_stop_epochs"):
        if options.get(name):
            short[name] = max(1, round(QUICK_SHARE * options[name]))
    short["train_clips"] = min(config.features.train_clips or QUICK_CLIPS, QUICK_CLIPS)
    return short


def _step_rows(chosen: Recipe, point: Mapping[str, Any], position: int) -> list[Row]:
    """The rows of one step of stepwise tuning, from the values kept so far."""
    step = chosen.steps[position]
    others = [
        f"{_short(other.field)} {_cell(point[other.field])}"
        for other in chosen.steps
        if other.field != step.field and other.field in point
    ]
    return [
        Row(
            name=f"{position + 1}-{step.field}-{value_text(value).replace(':', '-')}",
            cells={"varied": _short(step.field), "value": _cell(value), "others": ", ".join(others)},
            options={**point, step.field: value},
            published=published,
        )
        for value, published in zip(step.values, step.published or [Published()] * len(step.values), strict=True)
    ]


def _short(name: str) -> str:
    return {"weight_decay": "wd"}.get(name, name)


def _cell(value: Any) -> str:
    """A value as the published table writes it: 1e-4, (0.9, 0.999)."""
    if isinstance(value, tuple):
        return f"({', '.join(f'{part:g}' for part in value)})"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if abs(value) < 0.01 else f"{value:g}"


@dataclass(kw_only=True)
class _Run:
    """A recipe under way; `done` {options as text: the row that has them}."""

    config: RecipeConfig
    recipe: Recipe
    directory: Path
    progress: Progress | None

    def __post_init__(self) -> None:
        self.done: dict[str, Trained] = {}
        self.not_run: set[Path] = set()
        self.finished = 0

    def whole(self, folder: Path) -> list[Trained]:
        """Every row."""
        return self._train(list(self.recipe.rows), folder)

    def stepwise(self, folder: Path) -> list[Trained]:
        """One group after the other, each from the best value so far."""
        point = {step.field: self.recipe.options.get(step.field) for step in self.recipe.steps}
        everything: list[Trained] = []
        for position, step in enumerate(self.recipe.steps):
            rows = self._train(_step_rows(self.recipe, point, position), folder)
            judged = [selecting_value(self.config, one) for one in rows]
            best = int(np.argmin(judged))
            if not np.isfinite(judged[best]):
                raise TrainingError(f"no value of {step.field} could be trained: {rows[0].error or 'all overfit'}")
            point[step.field] = step.values[best]
            everything += [replace(one, step=position, chosen=i == best) for i, one in enumerate(rows)]
        return everything

    def _train(self, rows: Sequence[Row], folder: Path) -> list[Trained]:
        """The rows with their runs; options that a row before had are not trained again."""
        fresh: dict[str, tuple[Row, list[TrainConfig]]] = {}
        keys = []
        for row in rows:
            alone = _alone(self.config, row, self.recipe)
            key = json.dumps({**alone.to_json(), "seed": None}, sort_keys=True)
            keys.append(key)
            if key not in self.done and key not in fresh:
                fresh[key] = (row, self._members(row, alone))
        errors = self._train_members([config for _, members in fresh.values() for config in members], folder)
        for key, (row, members) in fresh.items():
            runs = [config.run.given_directory for config in members]
            error = next((errors[run] for run in runs if errors.get(run)), "")
            self.done[key] = Trained(
                row=row, runs=() if error else tuple(runs), error=error, not_run=not self.not_run.isdisjoint(runs)
            )
        made = []
        for row, key in zip(rows, keys, strict=True):
            one = self.done[key]
            made.append(one if one.row is row else replace(one, row=row, shared_with=one.row.name))
        return made

    def _members(self, row: Row, alone: TrainConfig) -> list[TrainConfig]:
        folder = self.directory / "rows" / row.name
        seeds = self.config.members.seeds(self.config.train.seed)
        return [alone.but(seed=seed, run=folder / f"seed={seed}") for seed in seeds]

    def _train_members(self, members: Sequence[TrainConfig], folder: Path) -> dict[Path, str]:
        """{run: why it could not be trained, '' if it could}."""
        name = executor_name(self.config.members, self.config.train.run.device)
        outcome: dict[Path, str] = {}
        wanted = []
        for config in members:
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
            except TrainingError as error:
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
            self._tell(run, f"failed: {error}" if error else "trained")

        with watched(able, outcome, self._show):
            EXECUTORS[name](able, folder, self.config.members.workers, done)
        return outcome

    def _tell(self, run: Path, what: str) -> None:
        self.finished += 1
        self._show(f"{run.parent.name} {run.name} {what}")

    def _show(self, message: str) -> None:
        if self.progress is not None:
            total = max(self.recipe.num_rows * self.config.members.repeats, self.finished)
            self.progress(Event(stage="recipe", done=self.finished, total=total, message=message))


def vector_map(prepared: Prepared, seed: int) -> dict[str, Any]:
    """t-SNE of the clips' mean vectors: {x, y, labels, splits, stores, note}; empty where there are too few."""
    from reelbank.heads.probes.embedding import MIN_ROWS, tsne

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
