"""The questions `synth`, `fight` and `precision` of `docs/evidence.py`: heads on trained features, and their tables."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from reelbank import store
from reelbank.heads.judging.intervals import group_numbers, mean_interval

SYNTH_CLIPS = 360


def run(folder: Path, *command: str) -> None:
    """A command in `folder`, shown. Raises CalledProcessError where it fails."""
    print("$", *command, flush=True)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def measure(folder: Path, name: str, *command: str, against: str = "") -> dict[str, Any]:
    """One head; its reported accuracy with the interval, beside the baseline and another run on the same clips."""
    run(folder, *command, "--run", f"runs/{name}", "--overwrite")
    results = _results(folder, name)
    split = results["splits"][results["reported"]]
    accuracy = split["metrics"]["accuracy"]
    return {
        "id": name,
        "command": " ".join(command),
        "accuracy": accuracy["value"],
        "interval": [accuracy["low"], accuracy["high"]],
        "baseline": split["baselines"]["majority_class"]["accuracy"],
        "num_clips": split["num_clips"],
        "num_groups": split["num_groups"],
        "random_weights": bool(results["warning"]),
        **({"against": against, "gain": _gain(folder, name, against)} if against else {}),
    }


def _results(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "runs" / name / "results.json").read_text())
    return found


def _gain(folder: Path, name: str, against: str) -> list[float]:
    """[accuracy of a run less that of another, low, high]: 95 % over groups, of the differences clip by clip."""
    reported = _results(folder, name)["reported"]
    ours, theirs = (_predictions(folder / "runs" / run / "predictions.csv", reported) for run in (name, against))
    clips = sorted(ours)
    gains = np.array([int(ours[clip]["correct"]) - int(theirs[clip]["correct"]) for clip in clips], np.float64)
    return list(mean_interval(gains, group_numbers([ours[clip]["group"] for clip in clips]), seed=0))


def _predictions(path: Path, split: str) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["clip_id"]: row for row in csv.DictReader(file) if row["split"] == split}


def make_manifest(folder: Path, name: str, data: Path | None, every: int) -> None:
    """manifest.csv of the set `name`, `synth` or `fight`, in `folder`; of each `every`-th clip."""
    if name == "synth":
        run(folder, "reelbank", "manifest", "synth", ".", "--clips", str(SYNTH_CLIPS))
    else:
        index, mapping = str(Path(str(data)) / "fight_surv" / "index.csv"), ("video=file", "group=scene_group")
        maps = [part for pair in mapping for part in ("--map", pair)]
        run(folder, "reelbank", "manifest", "csv", index, *maps, "--out", "manifest.csv")
    header, *rows = (folder / "manifest.csv").read_text().splitlines(keepends=True)
    (folder / "manifest.csv").write_text("".join([header, *rows[::every]]))


def _stores(*models: str) -> list[str]:
    return [part for model in models for part in ("--store", f"{model}.zarr")]


def synth(folder: Path, every: int) -> list[dict[str, Any]]:
    make_manifest(folder, "synth", None, every)
    run(folder, "featurize", "--model", "flow", "--model", "lite")
    run(folder, "featurize", "--model", "lite", "--sampling", "position:0.5", "--out", "still-{model}.zarr")
    rows = []
    for models in (("flow",), ("lite",), ("flow", "lite"), ("still-lite",)):
        name = f"synth-{'-'.join(models)}"
        line = ("train-head", *_stores(*models), "--target", "none", "--folds", "5")
        row = measure(folder, name, *line, against="" if models == ("flow",) else "synth-flow")
        if models != ("still-lite",):
            run(folder, "train-head", *_stores(*models), "--run", f"runs/{name}-kcal", "--overwrite")
            splits = _results(folder, f"{name}-kcal")["splits"]
            row["kcal"] = {
                part: [
                    splits[part]["baselines"]["constant_median"]["mae"],
                    *(splits[part]["metrics"]["mae"][key] for key in ("value", "low", "high")),
                ]
                for part in ("test", "unknown")
            }
        rows.append(row)
    return rows


def fight(folder: Path, data: Path, every: int) -> list[dict[str, Any]]:
    make_manifest(folder, "fight", data, every)
    run(folder, "featurize", "--model", "flow", "--model", "lite")
    rows = []
    for models in (("flow",), ("lite",), ("flow", "lite")):
        line, name = ("train-head", *_stores(*models), "--folds", "5"), f"fight-{'-'.join(models)}"
        rows.append(measure(folder, name, *line, against="" if models == ("flow",) else "fight-flow"))
    line = ("train-head", *_stores("flow", "lite"), "--folds", "5", "--shuffle-labels")
    return [*rows, measure(folder, "fight-shuffled", *line)]


def precision(work: Path, data: Path | None, every: int) -> list[dict[str, Any]]:
    """Every change of CHANGES on every set: how close the features stay, and what becomes of the head."""
    rows = []
    for name in ("synth", "fight") if data else ("synth",):
        folder = fresh(work / name)
        make_manifest(folder, name, data, every)
        run(folder, "featurize", "--model", "flow", "--model", "lite")
        for change, models in CHANGES.items():
            for model in models:
                target, file = f"{model}-{change}.zarr", f"{model}.safetensors"
                if change == "int8":
                    run(folder, "reelbank", "store", "export", f"{model}.zarr", file, *_INT8)
                    run(folder, "reelbank", "store", "import", file, target)
                else:
                    options = ("--precision", "bf16") if change == "bf16" else ("--resize", change)
                    run(folder, "featurize", "--model", model, *options, "--out", target)
        for model in ("flow", "lite"):
            line = ("--folds", "5", "--target", "none")
            before = measure(folder, model, "train-head", *_stores(model), *line)
            for change in (change for change, models in CHANGES.items() if model in models):
                changed = f"{model}-{change}"
                row = measure(folder, changed, "train-head", *_stores(changed), *line, against=model)
                row |= {
                    "set": f"{name}, {row['num_clips']} clips",
                    "model": model,
                    "change": change,
                    "before": before["accuracy"],
                }
                rows.append(row | {"cosines": _cosines(folder / f"{model}.zarr", folder / f"{changed}.zarr")})
    return rows


CHANGES = {"bf16": ("lite",), "fast": ("flow", "lite"), "int8": ("flow", "lite")}
"""{change: the backbones that it concerns}; flow is no network, so that no precision changes it."""
_INT8 = ("--format", "safetensors", "--dtype", "int8")


def _cosines(before: Path, after: Path) -> list[float]:
    """[lowest, mean] over all steps of the cosine between two stores, both less the mean step of the first.

    What all steps share says nothing about a clip, and would hide what a change does to the rest.
    """
    one, other = store.open(before), store.open(after)
    tap, places = one.default_tap, {clip: row for row, clip in enumerate(other.column("clip_id").tolist())}
    rows = [(row, places[one.column("clip_id")[row]]) for row in one.done_rows().tolist()]
    a = np.concatenate([one.read(tap, row)[0] for row, _ in rows]).astype(np.float64)
    b = np.concatenate([other.read(tap, row)[0] for _, row in rows])
    mean = a.mean(axis=0)
    a, b = a - mean, b.astype(np.float64) - mean
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return [float(cosines.min()), float(cosines.mean())]


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    head = ["run", "accuracy", "95 % interval", "majority class", "difference to flow", "clips, groups"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        low, high = row["interval"]
        note = " (random weights)" if row["random_weights"] else ""
        lines.append(
            f"| {row['id']}{note} | {row['accuracy']:.3f} | {low:.3f} to {high:.3f} | {row['baseline']:.3f} "
            f"| {_signed(row['gain']) if 'gain' in row else ''} | {row['num_clips']}, {row['num_groups']} |"
        )
    return "\n".join(lines)


def _signed(gain: list[float]) -> str:
    value, low, high = gain
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def kcal_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| rendered set, MAE in kcal/h | known motions | constant | unknown motions | constant |",
        "|---" * 5 + "|",
    ]
    for row in (row for row in rows if "kcal" in row):
        cells = []
        for constant, value, low, high in (row["kcal"][part] for part in ("test", "unknown")):
            cells += [f"{value:.0f}" + (f" [{low:.0f}, {high:.0f}]" if low is not None else ""), f"{constant:.0f}"]
        lines.append(f"| {row['id']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def precision_table(rows: list[dict[str, Any]]) -> str:
    head = ["set", "features", "change", "centred cosine, lowest", "mean", "accuracy before", "after", "difference"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    said = {
        "bf16": "`--precision bf16`",
        "fast": "`--resize fast`",
        "int8": "exported as int8",
    }
    for row in rows:
        lowest, mean = row["cosines"]
        lines.append(
            f"| {row['set']} | `{row['model']}` | {said[row['change']]} | {lowest:.4f} | {mean:.5f} "
            f"| {row['before']:.3f} | {row['accuracy']:.3f} | {_signed(row['gain'])} |"
        )
    return "\n".join(lines)


def fresh(folder: Path) -> Path:
    """`folder`, made now: nothing of an earlier run is measured again."""
    folder.mkdir(parents=True)
    return folder
