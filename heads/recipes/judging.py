"""What a recipe has found: its rows judged, beside what was published. The content of recipe.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.recipes import Recipe
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.recipes.rows import FORMAT_VERSION, SPLITS, Trained, absolute_interval, epochs_of, read_split
from reelbank.heads.recipes.tables import COLUMNS, interval_text
from reelbank.heads.runs.directory import read_json

OVERFIT_PENALTY = 1e6  # in target units: an overfit row is chosen only where every row overfits


def selecting_value(config: RecipeConfig, one: Trained) -> float:
    """What chooses among rows, the lower the better, inf for a row that failed.

    The validation MAE at the epoch whose weights are kept; in the published protocol the MAE of the unknown test set.
    A row that overfits comes after all that do not (SYSTEMS.md 1.15).
    """
    if not one.runs:
        return math.inf
    values = []
    for run in one.runs:
        results = read_json(run / "results.json")
        training = results["training"]
        if config.train.data.select_on == "reported-set":
            value = results["splits"]["unknown"]["metrics"]["mae"]["value"]
        else:
            kept = read_json(run / "config.json")["config"]["keep"]
            epoch = training["best_epoch"] if kept == "best" else training["epochs_run"]
            value = next(line["val_mae"] for line in epochs_of(run) if line["epoch"] == epoch)
        values.append((math.inf if value is None else value) + OVERFIT_PENALTY * training["overfit"])
    return float(np.mean(values))


def summarize(config: RecipeConfig, recipe: Recipe, trained: Sequence[Trained], prepared: Prepared) -> dict[str, Any]:
    """The content of recipe.json.

    format_version · recipe · title · text · features · quick · select_on · selection (sentence) · repeats · warning ·
    target {name, unit} · counts · constant: training median · baselines {known, unknown: {name: {metric: value}}} ·
    constant_intervals {known, unknown: {value, low, high}} · rows [{name, cells, step, chosen, shared_with, error,
    not_run: the stores lack what it asks for, options, published, ours {column: {value, low, high, deviation}},
    spc_values {known, unknown: Spearman over clips}, against_constant {known, unknown: {difference, low, high (paired),
    verdict "beats" | "unclear" | "worse", apart: ours lies wholly below}}, epochs, best_epoch, overfit, seconds, runs}]
    · proposed: the recipe's own row, '' for none · best: that one, else what selection prefers · against_tables, see
    there · classes [{label, split, clips, ours, constant, oracle}] · sentences · notes
    """
    done = [one for one in trained if one.runs]
    if not done:
        raise_all_failed(recipe, trained)
    reference = read_json(done[0].runs[0] / "results.json")
    values = [selecting_value(config, one) for one in trained]
    best = next((one for one in done if one.row.name == recipe.proposed), trained[int(np.argmin(values))])
    proposed = recipe.proposed if best.row.name == recipe.proposed else ""
    assert prepared.target_values is not None
    constant = float(np.median(prepared.target_values[prepared.partitions[0].train]))
    intervals = {
        part: absolute_interval(np.abs(clips.truth - constant), clips.groups, config.train.seed)
        for part, clips in ((part, read_split(done[0].runs, split)) for part, split in SPLITS.items())
    }
    rows = [_row_entry(config, one, constant, intervals, is_best=one is best) for one in trained]
    data = {
        "format_version": FORMAT_VERSION,
        "kind": "train",
        **about(config, recipe, warning=reference["warning"]),
        "target": {"name": reference["target_name"], "unit": reference["target_unit"]},
        "counts": reference["counts"],
        "constant": constant,
        "baselines": {part: reference["splits"][split]["baselines"] for part, split in SPLITS.items()},
        "constant_intervals": intervals,
        "rows": rows,
        "best": best.row.name,
        "proposed": proposed,
        "against_tables": against_tables(config, done, best) if proposed else None,
        "classes": _classes(best, constant, prepared),
    }
    return {**data, "sentences": sentences(data), "notes": _notes(config, recipe, reference)}


def raise_all_failed(recipe: Recipe, trained: Sequence[Trained]) -> None:
    """Raises TrainingError with the first reason."""
    from reelbank.heads.errors import TrainingError

    raise TrainingError(f"no row of {recipe.name} could be trained; the first: {trained[0].error}")


def about(config: RecipeConfig, recipe: Recipe, *, warning: str) -> dict[str, Any]:
    """What recipe.json says of the recipe and how it was asked for."""
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "text": recipe.text,
        "features": recipe.features,
        "stores": [path.name for path in config.train.data.store],
        "quick": config.quick,
        "select_on": config.train.data.select_on,
        "selection": _selection(config),
        "repeats": config.members.repeats,
        "warning": warning,
    }


def _selection(config: RecipeConfig) -> str:
    if config.train.data.select_on == "reported-set":
        return (
            "Published protocol (--select-on reported-set): schedules watch the known test set, the last weights are "
            "kept, and the row with the lowest error on the unknown test set is called best. The numbers are too good "
            "for clips that nobody has seen."
        )
    return (
        "Epochs, schedules and the best row are chosen on a validation part of train; both test sets are reported once."
    )


def _row_entry(
    config: RecipeConfig, one: Trained, constant: float, intervals: Mapping[str, Any], *, is_best: bool
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": one.row.name,
        "cells": dict(one.row.cells),
        "step": one.step,
        "chosen": one.chosen or (one.step < 0 and is_best),
        "shared_with": one.shared_with,
        "error": one.error,
        "not_run": one.not_run,
        "options": {name: list(v) if isinstance(v, tuple) else v for name, v in one.row.options.items()},
        "published": asdict(one.row.published),
    }
    if not one.runs:
        return {**entry, "ours": {}, "against_constant": {}, "runs": []}
    finished = [read_json(run / "results.json") for run in one.runs]
    ours: dict[str, Any] = {}
    against: dict[str, Any] = {}
    for column in COLUMNS:
        found = [results["splits"][SPLITS[column.split]]["metrics"].get(column.metric) for results in finished]
        known = [one_metric["value"] for one_metric in found if one_metric and one_metric["value"] is not None]
        if not known:
            continue
        first = found[0] if len(found) == 1 else {"low": None, "high": None}
        ours[column.key] = {
            "value": column.scale * float(np.mean(known)),
            "low": None if first["low"] is None else column.scale * first["low"],
            "high": None if first["high"] is None else column.scale * first["high"],
            "deviation": column.scale * float(np.std(known, ddof=1)) if len(known) > 1 else None,
        }
    for part, split in SPLITS.items():
        clips = read_split(one.runs, split)
        ours[f"mae_{part}"] |= absolute_interval(clips.errors, clips.groups, config.train.seed)
        paired = absolute_interval(clips.errors - np.abs(clips.truth - constant), clips.groups, config.train.seed)
        against[part] = beside_constant(paired, ours[f"mae_{part}"], intervals[part])
    training = [results["training"] for results in finished]
    return {
        **entry,
        "ours": ours,
        "spc_values": {part: _mean_metric(finished, split, "spc_values") for part, split in SPLITS.items()},
        "against_constant": against,
        "epochs": training[0]["epochs_run"],
        "best_epoch": training[0]["best_epoch"],
        "overfit": any(t["overfit"] for t in training),
        "seconds": round(sum(t["seconds"] for t in training), 2),
        "num_parameters": training[0]["num_parameters"],
        "runs": [str(run.relative_to(run.parents[2])) for run in one.runs],
    }


def _mean_metric(finished: Sequence[Mapping[str, Any]], split: str, metric: str) -> float | None:
    found = [results["splits"][split]["metrics"].get(metric) for results in finished]
    values = [one["value"] for one in found if one and one["value"] is not None]
    return float(np.mean(values)) if values else None


def against_tables(config: RecipeConfig, done: Sequence[Trained], proposed: Trained) -> dict[str, Any] | None:
    """The proposed row against the published settings that do best on unknown activities; None without such rows.

    {name, value, low, high: MAE of the best of them; difference, difference_low, difference_high: ours minus theirs,
    paired by clip; apart: whether our interval lies wholly below theirs}.
    """
    tables = [one for one in done if one.row.reference]
    if not tables:
        return None
    ours = read_split(proposed.runs, "unknown")
    theirs = {one.row.name: read_split(one.runs, "unknown") for one in tables}
    name = min(theirs, key=lambda key: theirs[key].errors.mean())
    best = absolute_interval(theirs[name].errors, theirs[name].groups, config.train.seed)
    paired = absolute_interval(ours.errors - theirs[name].errors, ours.groups, config.train.seed)
    high = absolute_interval(ours.errors, ours.groups, config.train.seed)["high"]
    if paired["low"] is None or high is None or best["low"] is None:
        return None
    renamed = {"difference": paired["value"], "difference_low": paired["low"], "difference_high": paired["high"]}
    return {"name": name, **best, **renamed, "apart": high < best["low"]}


def beside_constant(
    paired: Mapping[str, float | None], ours: Mapping[str, float | None], constant: Mapping[str, float | None]
) -> dict[str, Any]:
    """A row's entry of `against_constant`, from its paired difference and the intervals of both."""
    low, high = paired["low"], paired["high"]
    verdict = "unclear"
    if low is not None and high is not None:
        verdict = "beats" if high < 0 else "worse" if low > 0 else "unclear"
    own, limit = ours["high"], constant["low"]
    apart = own is not None and limit is not None and own < limit
    return {"difference": paired["value"], "low": low, "high": high, "verdict": verdict, "apart": apart}


def _classes(best: Trained, constant: float, prepared: Prepared) -> list[dict[str, Any]]:
    """Mean absolute error of each class of both test sets: the best row, the constant, the class-mean oracle."""
    table = prepared.table
    label_of = dict(zip(table.clip_ids.tolist(), table.labels.tolist(), strict=True))
    entries = []
    for part, split in SPLITS.items():
        clips = read_split(best.runs, split)
        labels = np.array([label_of[clip] for clip in clips.clip_ids.tolist()], dtype=str)
        entries += class_entries(part, labels, clips.truth, clips.errors, constant)
    return entries


def class_entries(
    part: str, labels: np.ndarray, truth: np.ndarray, errors: np.ndarray, constant: float
) -> list[dict[str, Any]]:
    """One entry of `classes` for each label of a test set; arrays (n,) of its clips."""
    entries = []
    for label in np.unique(labels):
        own = labels == label
        entries.append(
            {
                "label": str(label),
                "split": part,
                "clips": int(own.sum()),
                "ours": float(errors[own].mean()),
                "constant": float(np.abs(truth[own] - constant).mean()),
                "oracle": float(np.abs(truth[own] - truth[own].mean()).mean()),
            }
        )
    return entries


def sentences(data: Mapping[str, Any]) -> list[str]:
    """Plain sentences: which rows beat the constant predictor on each test set, and which do not."""
    unit = data["target"]["unit"] or "target units"
    said = []
    for part in SPLITS:
        rows = [row for row in data["rows"] if row["ours"] and not row.get("shared_with")]  # each training once
        groups: dict[str, list[str]] = {"beats": [], "unclear": [], "worse": []}
        for row in rows:
            groups[row["against_constant"][part]["verdict"]].append(row["name"])
        constant = data["constant_intervals"][part]
        what = f"the constant predictor ({data['constant']:.0f} {unit}: MAE {interval_text(constant)})"
        if not groups["beats"]:
            said.append(f"On {part} activities no row beats {what}.")
        else:
            said.append(f"On {part} activities {len(groups['beats'])} of {len(rows)} rows beat {what}.")
            if others := groups["unclear"] + groups["worse"]:
                shown = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
                said.append(
                    f"On {part} activities {shown} does not beat it." if len(others) == 1 else f"These do not: {shown}."
                )
    best = next(row for row in data["rows"] if row["name"] == data["best"])
    kind = "proposed row" if data.get("proposed") else "best row"
    if data["kind"] == "kmeans":
        kind = "row with the lowest error on known activities"
    for part in SPLITS:
        entry = best["against_constant"][part]
        text = f"The {kind}, {best['name']}, has MAE {interval_text(best['ours'][f'mae_{part}'])} on {part} activities"
        if entry["low"] is not None:
            text += f", {entry['difference']:+.1f} {unit} against the constant ({entry['low']:+.1f} to "
            text += f"{entry['high']:+.1f}, paired)"
        said.append(f"{text}{_overlap(best['ours'][f'mae_{part}'], data['constant_intervals'][part])}.")
    if tables := data.get("against_tables"):
        said.append(
            f"Best row of the tables on unknown activities, taken by that very error: {tables['name']}, MAE "
            f"{interval_text(tables)}. {best['name']}, proposed by the recipe, differs by {tables['difference']:+.1f} "
            f"({tables['difference_low']:+.1f} to {tables['difference_high']:+.1f}, paired)"
            f"{_overlap(best['ours']['mae_unknown'], tables)}."
        )
    if best.get("spc_values"):  # the text of the publication means this one, its tables behave like the other
        texts = [f"{value:.3f} on {part}" for part, value in best["spc_values"].items() if value is not None]
        said.append(f"Spearman over clips, {best['name']}: {' and '.join(texts)} activities (the tables': over bins).")
    overfit = [row["name"] for row in data["rows"] if row.get("overfit")]
    if overfit:
        said.append(f"Overfit (final validation loss more than 5 % above its minimum): {', '.join(overfit)}.")
    return said + _losses(data["rows"])


def _overlap(ours: Mapping[str, Any], constant: Mapping[str, Any]) -> str:
    limits = (ours["low"], ours["high"], constant["low"], constant["high"])
    if None in limits:
        return ""
    apart = limits[1] < limits[2] or limits[3] < limits[0]
    return f"; the two intervals {'do not overlap' if apart else 'overlap'}"


def _losses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which rows have no result, by reason."""
    names: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["error"]:
            names.setdefault(("Not run" if row["not_run"] else "Failed", row["error"]), []).append(row["name"])
    return [
        f"{what} ({len(lost)} of {len(rows)} rows): {', '.join(lost)}: {reason}"
        for (what, reason), lost in names.items()
    ]


def _notes(config: RecipeConfig, recipe: Recipe, reference: Mapping[str, Any]) -> list[str]:
    notes = list(recipe.notes)
    if config.quick:
        notes.insert(
            0,
            "QUICK: a twentieth of the epochs and at most 64 training clips. The numbers show that the recipe runs; "
            "they are no reproduction.",
        )
    notes += [
        f"The publication used {recipe.features}. Its data are not these: theirs and ours compare in kind only.",
        "SPC is Spearman's correlation over the bins of each clip, as the published tables appear to have it.",
        "Intervals: 95 %, bootstrap over groups; with repeats, of the clip's mean error over them.",
    ]
    return notes + [note for note in reference["notes"] if note not in notes]
