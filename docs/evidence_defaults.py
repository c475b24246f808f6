"""The question `defaults` of `docs/evidence.py`: `train-head` without options beside what it was, a sweep, a constant.

Five tasks on three sets: classes and kcal of the rendered set, the real fights, movements of exercises and which way
they go (push, pull, static) from two photographs each. Every head is judged on the same clips, by folds over groups;
every choice is made on training clips, that of the sweep on validation.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from reelbank.docs.evidence_heads import fresh, make_manifest, run

FOLDS = ("--folds", "5")
TASKS: tuple[dict[str, Any], ...] = (
    {"id": "rendered set, 9 motions", "set": "synth", "options": ("--target", "none"), "metric": "accuracy"},
    {"id": "rendered set, kcal/h", "set": "synth", "options": ("--label", "none"), "metric": "mae"},
    {"id": "fights in surveillance", "set": "fight", "options": (), "metric": "accuracy"},
    {"id": "10 exercises, 2 photographs", "set": "exercise10", "options": (), "metric": "accuracy"},
    {"id": "push, pull, static", "set": "force", "options": (), "metric": "accuracy"},
)
MODELS = {"synth": ("flow", "lite"), "fight": ("flow", "lite"), "exercise10": ("lite",), "force": ("lite",)}
LABELS = {"exercise10": "label", "force": "force"}
OLD = ("--head", "mlp")
SWEEP = (
    *("--head", "mlp", "--sweep", "lr=0.0001,0.001,0.01", "--sweep", "weight_decay=1e-05,0.01"),
    *("--sweep", "pool=mean,mean+std"),
)
BASELINES = {"accuracy": "majority_class", "mae": "constant_median"}


def defaults(work: Path, data: Path | None, every: int) -> list[dict[str, Any]]:
    """One row per task: [value, low, high] of the old default, the new one and the sweep's winner; the constant."""
    folders, rows = {}, []
    for name, models in MODELS.items():
        if name != "synth" and data is None:
            continue
        folders[name] = fresh(work / name)
        if name in LABELS:
            _exercises(folders[name], Path(str(data)), LABELS[name], every)
        else:
            make_manifest(folders[name], name, data, every)
        run(folders[name], "featurize", *(part for model in models for part in ("--model", model)))
    for number, task in enumerate(task for task in TASKS if task["set"] in folders):
        folder = folders[task["set"]]
        stores = [part for model in MODELS[task["set"]] for part in ("--store", f"{model}.zarr")]
        line = ("train-head", *stores, *task["options"], *FOLDS, "--no-report", "--overwrite")
        found = {}
        for kind, options in (("old", OLD), ("new", ())):
            run(folder, *line, *options, "--run", f"runs/{number}-{kind}")
            found[kind] = folder / f"runs/{number}-{kind}"
        run(folder, *line, *SWEEP, "--run", f"runs/{number}-sweep")
        winner = json.loads((folder / f"runs/{number}-sweep" / "sweep.json").read_text())["winner"]["members"][0]
        found["sweep"] = folder / f"runs/{number}-sweep" / "members" / winner
        rows.append({**_row(task, found), "models": list(MODELS[task["set"]])})
    return rows


def _row(task: dict[str, Any], runs: dict[str, Path]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": task["id"], "metric": task["metric"]}
    for kind, path in runs.items():
        results = json.loads((path / "results.json").read_text())
        split = results["splits"]["test"]
        metric = split["metrics"][task["metric"]]
        row[kind] = [metric[key] for key in ("value", "low", "high")]
        row["constant"] = split["baselines"][BASELINES[task["metric"]]][task["metric"]]
        row["clips"], row["groups"] = split["num_clips"], split["num_groups"]
        if kind == "new":
            chosen = [entry["chosen"] for entry in results["choices"]]
            row["chosen"] = {name: chosen.count(name) for name in dict.fromkeys(chosen)}
    return row


def _exercises(folder: Path, data: Path, label: str, every: int) -> None:
    """A clip per exercise that has a `label`: its folder of a first and a last photograph."""
    with (data / "exercise10" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"].rpartition("/")[0]: row for row in csv.DictReader(file) if row[label]}
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "video", "label", "group", "rate_fps"])
        for place in list(rows)[::every]:
            row = rows[place]
            where = str(data / "exercise10" / place)
            writer.writerow([place.replace("/", "-"), where, row[label], row["group"], 1])


def defaults_table(rows: list[dict[str, Any]]) -> str:
    """One line per task; every number stands with its interval."""
    head = ["task, 5 folds over groups", "before (`--head mlp`)", "**by default**", "best of 12 `mlp` by validation"]
    lines = ["| " + " | ".join([*head, "constant", "clips, groups"]) + " |", "|---" * 6 + "|"]
    for row in rows:
        cells = [_cell(row["metric"], *row[kind]) for kind in ("old", "new", "sweep")]
        constant = _cell(row["metric"], row["constant"], None, None)
        where = f"{row['id']} ({' + '.join(row['models'])}), {'accuracy' if row['metric'] == 'accuracy' else 'error'}"
        lines.append(f"| {where} | {' | '.join(cells)} | {constant} | {row['clips']}, {row['groups']} |")
    return "\n".join(lines)


def chosen_table(rows: list[dict[str, Any]]) -> str:
    """What inner validation chose in the folds of each task."""
    lines = ["| task | what `--head auto` chose, folds |", "|---|---|"]
    for row in rows:
        chosen = "; ".join(f"{name}: {count}" for name, count in row["chosen"].items())
        lines.append(f"| {row['id']} | {chosen} |")
    return "\n".join(lines)


def _cell(metric: str, value: float, low: float | None, high: float | None) -> str:
    digits = 3 if metric == "accuracy" else 0
    text = f"{value:.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"
