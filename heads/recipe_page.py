"""The page of a recipe: one self-contained HTML file and its pictures as PNG, drawn from the files of the recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads import page, recipe_pictures
from reelbank.heads.directory import read_json
from reelbank.heads.drawing import Heading, png
from reelbank.heads.pictures import scatter_by_class
from reelbank.heads.recipe_report import SPLITS, epochs_of, predictions
from reelbank.heads.recipe_tables import LEGEND, table_of

CAPTIONS = {
    "loss.png": "Training and validation loss of every row",
    "mae.png": "Validation MAE of every row; dashed: the constant predictor on the known test set",
    "distributions.png": "Predicted and true values of both test sets: the best row, in grey the others",
    "classes.png": "Mean absolute error by class",
    "calibration.png": "Calibration: on the diagonal, predicted distributions are as wide as they should be",
    "tsne.png": "t-SNE of the mean vectors by class",
}


def write_recipe_page(directory: Path) -> Path:
    """Writes `report.html` and `figures/*.png` of a finished recipe; returns the page.

    Raises TrainingError where `recipe.json` is missing.
    """
    data = read_json(directory / "recipe.json")
    drawn = _pictures(directory, data)
    folder = directory / "figures"
    folder.mkdir(exist_ok=True)
    for name, content in drawn.items():
        (folder / name).write_bytes(content)
    path = directory / "report.html"
    path.write_text(_page(data, drawn), encoding="utf-8")
    return path


def _heading(data: Mapping[str, Any], count: str = "") -> Heading:
    warning = data["warning"]
    if data["quick"]:
        warning = f"{warning} QUICK form: no reproduction.".strip()
    return Heading(source=f"{data['recipe']} · {' + '.join(data['stores'])}", count=count, warning=warning)


def _pictures(directory: Path, data: Mapping[str, Any]) -> dict[str, bytes]:
    unit = data["target"]["unit"] or data["target"]["name"]
    drawn: dict[str, Any] = {}
    if data["kind"] == "train":
        drawn |= _row_pictures(directory, data, unit)
    clips = data.get("map") or {}
    if clips:
        points = np.array([clips["x"], clips["y"]]).T
        shown = [label or "no label" for label in clips["labels"]]
        drawn["tsne.png"] = scatter_by_class(
            points, shown, clips["splits"], title="t-SNE by class", heading=_heading(data, clips["note"])
        )
    return {name: png(drawn[name]) for name in CAPTIONS if name in drawn}


def _row_pictures(directory: Path, data: Mapping[str, Any], unit: str) -> dict[str, Any]:
    rows = {row["name"]: [directory / run for run in row["runs"]] for row in data["rows"] if row["runs"]}
    own = {row["name"]: rows[row["name"]] for row in data["rows"] if row["runs"] and not row["shared_with"]}
    epochs = {name: [epochs_of(run) for run in runs] for name, runs in own.items()}
    best = data["best"]
    found = {name: _by_split(runs[0]) for name, runs in own.items()}
    chosen = found.get(best) or _by_split(rows[best][0])
    parts = {
        part: {
            "truth": chosen[split][0],
            "best": chosen[split][1],
            "others": [values[split][1] for name, values in found.items() if name != best],
        }
        for part, split in SPLITS.items()
    }
    everything = np.concatenate([values for part in parts.values() for values in (part["truth"], part["best"])])
    within = everything.min() >= 0 and everything.max() <= 1000 and data["target"]["unit"] == "kcal/h"
    limits = (0.0, 1000.0) if within else (float(everything.min()), float(everything.max()) + 1e-9)
    constant = data["constant_intervals"]["known"]["value"]
    heading = _heading(data)
    counted = _heading(data, f"n = {len(chosen['test'][0])} known, {len(chosen['unknown'][0])} unknown clips")
    return {
        "loss.png": recipe_pictures.curves(epochs, kind="loss", constant=None, heading=heading),
        "mae.png": recipe_pictures.curves(epochs, kind="mae", constant=constant, heading=heading),
        "distributions.png": recipe_pictures.distributions(
            parts, best=best, limits=limits, name=f"{data['target']['name']} ({unit})", heading=heading
        ),
        "classes.png": recipe_pictures.class_errors(data["classes"], best=best, unit=unit, heading=counted),
        "calibration.png": recipe_pictures.calibration(
            {part: chosen[split][2] for part, split in SPLITS.items()}, best=best, heading=heading
        ),
    }


def _by_split(run: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """{split: (truth, predicted, mass of the prediction below the truth)} of the clips that have a target."""
    columns = ("target", "predicted_target", "target_cdf")
    rows = [row for row in predictions(run) if row["target"]]
    found = {}
    for split in SPLITS.values():
        own = [row for row in rows if row["split"] == split]
        truth, predicted, mass = (np.array([float(row[name]) for row in own]) for name in columns)
        found[split] = truth, predicted, mass
    return found


def _page(data: Mapping[str, Any], drawn: Mapping[str, bytes]) -> str:
    head, rows = table_of(data)
    counts = data["counts"]
    parts = ", ".join(f"{name} {counts[name]}" for name in ("train", "val", "test", "unknown") if counts.get(name))
    facts = [
        ("stores", ", ".join(data["stores"])),
        ("clips", parts),
        ("published features", data["features"]),
        ("repeats", str(data["repeats"])),
        ("selection", data["selection"]),
        ("time", f"{data.get('seconds', 0):.0f} s"),
    ]
    warnings = [data["warning"]]
    if data["quick"]:
        warnings.append("QUICK form: a twentieth of the epochs on at most 64 training clips; no reproduction.")
    if data["select_on"] == "reported-set":
        warnings.append("Selected on the reported sets, as published: the numbers are too good.")
    class_rows = [
        [
            entry["label"] or "no label",
            entry["split"],
            entry["clips"],
            entry["ours"],
            entry["constant"],
            entry["oracle"],
        ]
        for entry in data.get("classes", [])
    ]
    class_head = ["class", "activities", "clips", "best row", "constant", "class-mean oracle"]
    body = (
        page.paragraphs(data["sentences"], kind="verdict")
        + page.paragraphs([data["text"]])
        + page.section("Theirs, ours, baselines", page.table(head, rows), page.paragraphs([LEGEND + "."], kind="soft"))
        + page.section("Pictures", *(page.picture(drawn[name], CAPTIONS[name]) for name in CAPTIONS if name in drawn))
        + page.section("Error by class", page.table(class_head, class_rows))
        + page.section("What was run", page.table(["", ""], facts))
        + page.section("Notes", page.items(data["notes"]))
        + page.section("Rows", page.details("options of every row", json.dumps(_options(data), indent=1)))
    )
    return page.document(
        title=f"{data['recipe']}: {data['title']}",
        subtitle=" + ".join(data["stores"]),
        warnings=warnings,
        body=body,
    )


def _options(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    keys = ("name", "options", "runs", "epochs", "best_epoch", "overfit", "seconds", "shared_with")
    return [{key: row[key] for key in keys if row.get(key) not in (None, "")} for row in data["rows"]]
