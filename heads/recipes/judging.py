"""What a recipe has found: its rows judged, beside what was published. The content of recipe.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.recipes.inputs import about_inputs, training_of
from reelbank.heads.recipes.measures import Training
from reelbank.heads.recipes.numbers import (
    against,
    beside,
    compared,
    fold_values,
    guess_values,
    guessed,
    interval_of,
    measured,
    own_values,
    scaled,
    units_of,
)
from reelbank.heads.recipes.options import Asked
from reelbank.heads.recipes.recipe import Recipe
from reelbank.heads.recipes.rows import FORMAT_VERSION, Predicted, TrainedRow, epochs_of, predicted, trainings_of
from reelbank.heads.recipes.sentences import notes, quick_text, selection_sentence, sentences
from reelbank.heads.recipes.study import Study
from reelbank.heads.stored import read_results
from reelbank.manifests.events import Progress

Reader = Callable[[Asked, Recipe, Prepared, Progress | None], tuple[dict[str, Predicted], dict[str, Any]]]
"""Gives {row: what it says} where nothing is trained, and of recipe.json warning, baselines, notes and what else."""


def preference(study: Study, one: TrainedRow, *, on_reported_sets: bool) -> tuple[float, float]:
    """What chooses among rows, the lower the better: (share of runs that overfit, value); inf for a row that failed.

    The value is the study's selecting one, on validation, at the epoch whose weights are kept; in the published
    protocol that of a reported column.
    """
    if not one.runs or one.row.stores == "other-set":
        return math.inf, math.inf
    chosen = study.selection
    overfit = [training["overfit"] for run in one.runs for training in trainings_of(run)]
    if on_reported_sets:
        column = study.column(chosen.column)
        found = measured(study, column, predicted(study, one.runs), 0)
        value, higher = math.nan if found is None else found["value"], study.higher_is_better(column)
    else:
        per_run = [_kept_value(one, run, chosen.validation) for run in one.runs]
        value, higher = float(np.mean(per_run)), chosen.validation == "val_accuracy"
    if not math.isfinite(value):
        return float(np.mean(overfit)) if chosen.avoids_overfit else 0.0, math.inf
    return (float(np.mean(overfit)) if chosen.avoids_overfit else 0.0), -value if higher else value


def _kept_value(one: TrainedRow, run: Any, name: str) -> float:
    """The validation number of a run at the epoch that it keeps, the mean over its folds."""
    values = []
    for lines, training in zip(epochs_of(run), trainings_of(run), strict=True):
        epoch = training["best_epoch"] if one.settings["keep"] != "last" else training["epochs_run"]
        value = next(line[name] for line in lines if line["epoch"] == epoch)
        values.append(math.nan if value is None else value)
    return float(np.mean(values))


def summarize(asked: Asked, recipe: Recipe, trained: Sequence[TrainedRow], prepared: Prepared) -> dict[str, Any]:
    """The content of recipe.json.

    format_version · kind: `train`, or `read` where nothing is trained · recipe · title · text · features · shape ·
    stores · quick · quick_says: what that is · select_on · selection (sentence) · repeats · seed · warning · study
    (`Study.to_json`) · target {name, unit} · counts · inputs, see `inputs.about_inputs` · baselines {part: {name:
    {metric: value}}} · judged {key of a column: {guesser, says, value, low, high, num_groups}}: what its guesser
    scores · interval_units: `groups` or `clips` · projected: what the short form measured, see `passes.projected` ·
    rows [{name, cells, step, chosen, shared_with, error, not_run: the stores lack what it asks for, left_out: by the
    short form, starts_from, options, settings, published {values, outcome}, ours {key: {value, low, high, deviation,
    num_groups}}, at_chosen_epoch: {key: the same} with the weights of the epoch chosen on validation, {} where the row
    keeps those or no other ones, beside {key: {difference, low, high (paired), verdict "beats" | "unclear" | "worse",
    apart: ours lies wholly on the better side}}, against {name of another row, columns {key: the same, num_clips,
    num_groups, exact: see `numbers.against`}} or {}, folds {key: {fold: value}}, group_overlap of results.json,
    epochs, best_epochs [of every run and
    fold], overfit, seconds, num_parameters, runs}] · best: the proposed row, else what selection prefers · best_is:
    what to call it · proposed: the recipe's own row, '' for none · against_references, see there · compared · classes
    [{label, part, clips, ours, guesses {guesser: value}}] · readings {part: {truth, row: values}}, where nothing is
    trained · sentences · notes
    """
    done = [one for one in trained if one.runs]
    judged = [one for one in done if one.row.stores != "other-set"]
    if not judged:
        raise TrainingError(f"no row of {recipe.name} could be trained; the first: {_first_error(trained)}")
    study = recipe.study
    by_clip = asked.on_reported_sets and study.selection.protocol_by_clip
    reference = read_results(judged[0].runs[0])
    keys = [preference(study, one, on_reported_sets=asked.on_reported_sets) for one in trained]
    best = next((one for one in done if one.row.name == recipe.proposed), trained[keys.index(min(keys))])
    proposed = recipe.proposed if best.row.name == recipe.proposed else ""
    found = _Found(
        said={one.row.name: predicted(study, one.runs, by_clip=by_clip) for one in done},
        later={
            one.row.name: predicted(study, one.runs, at_chosen_epoch=True, by_clip=by_clip)
            for one in done
            if not asked.on_reported_sets and _has_other_epoch(one)
        },
        training=training_of(prepared),
    )
    header = {
        "warning": " ".join(dict.fromkeys(filter(None, (read_results(one.runs[0])["warning"] for one in judged)))),
        "target": {"name": reference["target_name"] or "", "unit": reference["target_unit"] or ""},
        "counts": reference["counts"],
        "baselines": {part.name: reference["splits"].get(part.split, {}).get("baselines", {}) for part in study.parts},
        "notes": [*study.tells(found.training), *reference["notes"]],
        "interval_units": "clips" if by_clip else "groups",
        "best": best.row.name,
        "best_is": "proposed row" if proposed else "best row",
        "proposed": proposed,
        "references": {one.row.name: one.settings["keep"] for one in done if one.row.reference and proposed},
    }
    return _content(asked, recipe, trained, prepared, found, header)


def _first_error(trained: Sequence[TrainedRow]) -> str:
    return next((one.error for one in trained if one.error), "")


def read_rows(asked: Asked, recipe: Recipe, prepared: Prepared, progress: Progress | None = None) -> dict[str, Any]:
    """The content of recipe.json of a recipe that trains nothing: its reader gives what the rows say."""
    module, _, name = recipe.reader.partition(":")
    reader: Reader = getattr(import_module(module), name)
    said, header = reader(asked, recipe, prepared, progress)
    study = recipe.study
    found = _Found(said=said, later={}, training=training_of(prepared))
    column = study.judged[0]
    values = {
        row: entry["value"] * (-1 if study.higher_is_better(column) else 1)
        for row, one in said.items()
        if (entry := measured(study, column, one, asked.seed)) is not None
    }
    extreme = "highest" if study.higher_is_better(column) else "lowest"
    measure = study.measure(column)
    assert measure is not None
    header = {
        "best": min(values, key=lambda row: values[row]),
        "best_is": f"row with the {extreme} {measure.title} on {study.part(column.part).said}",
        "proposed": "",
        "references": {},
        "interval_units": "groups",
        **header,
    }
    rows = [TrainedRow(row=row, runs=()) for row in recipe.rows]
    return _content(asked, recipe, rows, prepared, found, header)


class _Found:
    """What rows predict, as they keep their weights and at the epoch chosen on validation, and what training knows."""

    def __init__(self, said: Mapping[str, Predicted], later: Mapping[str, Predicted], training: Training) -> None:
        self.said, self.later, self.training = said, later, training


def _content(
    asked: Asked,
    recipe: Recipe,
    trained: Sequence[TrainedRow],
    prepared: Prepared,
    found: _Found,
    header: Mapping[str, Any],
) -> dict[str, Any]:
    study, best = recipe.study, header["best"]
    apart = {one.row.name for one in trained if one.row.stores == "other-set"}
    first = next(said for name, said in found.said.items() if name not in apart)
    judged = {}
    for column in study.judged:
        clips = first.clips[column.part][0]
        says = study.guesser(column.beats).says(found.training, header["target"]["unit"])
        judged[column.key] = {
            "guesser": column.beats,
            "says": says,
            **guessed(study, column, clips, found.training, asked.seed),
        }
    data = {
        "format_version": FORMAT_VERSION,
        "kind": recipe.kind,
        "recipe": recipe.name,
        "title": recipe.title,
        "text": recipe.text,
        "features": recipe.features,
        "shape": None if recipe.shape is None else list(recipe.shape),
        "stores": [path.name for path in asked.stores],
        "quick": asked.quick and recipe.kind == "train",
        "quick_says": quick_text(recipe) if asked.quick and recipe.kind == "train" else "",
        "select_on": asked.select_on,
        "selection": selection_sentence(recipe, trained, on_reported_sets=asked.on_reported_sets),
        "repeats": asked.repeats,
        "seed": asked.seed,
        "study": study.to_json(),
        "inputs": about_inputs(asked, recipe),
        **{name: value for name, value in header.items() if name not in ("notes", "references")},
        "judged": judged,
        "rows": [_row_entry(asked, study, one, found, is_best=one.row.name == best) for one in trained],
        "against_references": _against_references(study, found, best, header["references"], asked.seed),
        "compared": [name for name in recipe.compared if name in found.said],
        "classes": _classes(study, found.said[best], found.training),
    }
    return {**data, "sentences": sentences(data), "notes": notes(data, recipe, header["notes"])}


def _has_other_epoch(one: TrainedRow) -> bool:
    """Whether a row keeps the last epoch's weights, and validation chose another epoch in one of its runs."""
    return one.settings["keep"] == "last" and any(
        training["best_epoch"] != training["epochs_run"] for run in one.runs for training in trainings_of(run)
    )


def _row_entry(asked: Asked, study: Study, one: TrainedRow, found: _Found, *, is_best: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": one.row.name,
        "cells": dict(one.row.cells),
        "step": one.step,
        "chosen": one.chosen or (one.step < 0 and is_best and bool(one.runs)),
        "shared_with": one.shared_with,
        "error": one.error,
        "not_run": one.not_run,
        "left_out": one.left_out,
        "starts_from": list(one.row.starts_from),
        "options": {name: list(v) if isinstance(v, tuple) else v for name, v in one.row.options.items()},
        "settings": dict(one.settings),
        "published": one.row.published.to_json(),
        "ours": {},
        "at_chosen_epoch": {},
        "beside": {},
        "against": {},
        "folds": {},
        "group_overlap": {},
        "runs": [],
    }
    if one.row.name not in found.said:
        return entry
    said, later = found.said[one.row.name], found.later.get(one.row.name)
    columns = (*study.columns, *study.beside)
    entry["ours"] = _values(study, columns, said, asked.seed)
    if later is not None:
        entry["at_chosen_epoch"] = _values(study, columns, later, asked.seed)
    if one.row.stores != "other-set":  # guessers know the labels of the first set
        entry["beside"] = {
            column.key: beside(study, column, said, found.training, asked.seed) for column in study.judged
        }
    if other := found.said.get(one.row.against):
        columns_of = {column.key: against(study, column, said, other, asked.seed) for column in study.judged}
        entry["against"] = {"name": one.row.against, "columns": columns_of}
    if not one.runs:
        return entry
    trainings = [training for run in one.runs for training in trainings_of(run)]
    finished = [read_results(run)["training"] for run in one.runs]
    if one.settings["folds"]:
        entry["folds"] = {column.key: fold_values(column, study, said) for column in study.judged if not column.group}
    return {
        **entry,
        "group_overlap": read_results(one.runs[0]).get("group_overlap", {}),
        "epochs": [training["epochs_run"] for training in trainings],
        "best_epochs": [training["best_epoch"] for training in trainings],
        "overfit": any(training["overfit"] for training in trainings),
        "seconds": round(sum(training["seconds"] for training in finished), 2),
        "num_parameters": finished[0]["num_parameters"],
        "runs": [str(run.relative_to(run.parents[2])) for run in one.runs],
    }


def _values(study: Study, columns: Sequence[Any], said: Predicted, seed: int) -> dict[str, Any]:
    return {
        column.key: value
        for column in columns
        if (value := measured(study, column, said, seed)) is not None
    }  # fmt: skip


def _against_references(
    study: Study, found: _Found, best: str, references: Mapping[str, str], seed: int
) -> dict[str, Any] | None:
    """The proposed row against the published setting that does best by the study's reported column; None without any.

    Each of them at its last epoch and at the one chosen on validation: the strongest is the one to beat.
    {name, epoch: `last` or `chosen`, key: of the column; value, low, high, num_groups: of the best of them; difference,
    difference_low, difference_high: ours minus theirs, paired by clip; verdict, apart as in `beside`}.
    """
    column = study.column(study.selection.column)
    if not references or not column.beats:
        return None
    higher = study.higher_is_better(column)
    values = {
        (name, epoch): own_values(study, column, said.clips[column.part])
        for name, keep in references.items()
        for epoch, said in (
            ("last" if keep == "last" else "chosen", found.said[name]),
            ("chosen", found.later.get(name)),
        )
        if said is not None
    }
    sign = -1 if higher else 1
    strongest = min(values, key=lambda key: sign * float(np.nanmean(values[key])))
    ours = own_values(study, column, found.said[best].clips[column.part])
    clips = found.said[best].clips[column.part][0]

    def interval(per_clip: np.ndarray) -> dict[str, Any]:
        return scaled(interval_of(*units_of(column, clips, per_clip), seed), column)

    theirs, paired = interval(values[strongest]), interval(ours - values[strongest])
    if paired["low"] is None:
        return None
    verdict = compared(paired, interval(ours), theirs, higher_is_better=higher)
    renamed = {"difference": paired["value"], "difference_low": paired["low"], "difference_high": paired["high"]}
    return {
        "name": strongest[0],
        "epoch": strongest[1],
        "key": column.key,
        **theirs,
        **renamed,
        "verdict": verdict["verdict"],
        "apart": verdict["apart"],
    }


def _classes(study: Study, said: Predicted, training: Training) -> list[dict[str, Any]]:
    """The first judged column of each part, class by class: the best row and the guessers of `Study.by_class`."""
    entries = []
    for part in study.parts:
        column = next((one for one in study.judged if one.part == part.name), None)
        if column is None or not study.by_class:
            continue
        repeats = said.clips[part.name]
        ours = own_values(study, column, repeats)
        guesses = {name: guess_values(study, column, repeats[0], training, guesser=name) for name in study.by_class}
        labels = repeats[0].texts("label")
        for label in np.unique(labels[~np.isnan(ours)]).tolist():
            own = (labels == label) & ~np.isnan(ours)
            entries.append(
                {
                    "label": label,
                    "part": part.name,
                    "clips": int(own.sum()),
                    "ours": column.scale * float(ours[own].mean()),
                    "guesses": {name: column.scale * float(v[own].mean()) for name, v in guesses.items()},
                }
            )
    return entries
