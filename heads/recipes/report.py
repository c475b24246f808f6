"""The page of a recipe: one self-contained HTML file and its pictures as PNG, drawn from the files of the recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.recipes import figures
from reelbank.heads.recipes.rows import SPLITS, epochs_of, predictions
from reelbank.heads.recipes.tables import LEGEND, num_leading, quick_warning, table_of
from reelbank.heads.reports import html
from reelbank.heads.reports.drawing import Heading, png
from reelbank.heads.reports.figures import scatter_by_class
from reelbank.heads.runs.directory import read_json

CAPTIONS = {
    "loss.png": "Training and validation loss of every row that was trained; the dot is the epoch that it keeps",
    "mae.png": "Validation MAE of every row that was trained; dashed: the constant predictor on the same clips",
    "distributions.png": "Predicted and true values of both test sets: the row named, in grey the others, cut at the "
    "top where they say about the same for every clip",
    "classes.png": "Mean absolute error by class. The oracle says the mean of the clips of that class in the test set: "
    "0 for one clip",
    "calibration.png": "Calibration: on the diagonal, predicted distributions are as wide as they should be; above it "
    "the true values are lower than predicted, below it higher",
    "tsne.png": "t-SNE of the mean vectors by class, of the first row's stores",
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
    if quick_warning(data):
        warning = f"{warning} QUICK form: no reproduction.".strip()
    return Heading(source=f"{data['recipe']} · {' + '.join(data['stores'])}", count=count, warning=warning)


def _pictures(directory: Path, data: Mapping[str, Any]) -> dict[str, bytes]:
    unit = data["target"]["unit"] or data["target"]["name"]
    drawn: dict[str, Any] = {}
    if data["kind"] == "train":
        drawn |= _row_pictures(directory, data, unit)
    else:
        parts = {
            part: {
                "truth": np.array(values["truth"]),
                "best": np.array(values[data["best"]]),
                "others": [np.array(values[name]) for name in values if name not in ("truth", data["best"])],
            }
            for part, values in data["readings"].items()
        }
        drawn |= _error_pictures(data, parts, unit)
    clips = data.get("map") or {}
    if clips:
        points = np.array([clips["x"], clips["y"]]).T
        shown = [label or "no label" for label in clips["labels"]]
        heading = _heading({**data, "stores": clips.get("stores", data["stores"])}, clips["note"])
        drawn["tsne.png"] = scatter_by_class(points, shown, clips["splits"], title="t-SNE by class", heading=heading)
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
    heading = _heading(data)
    shared: dict[str, Any] = {
        "settings": {row["name"]: _settings(row["cells"]) for row in data["rows"]},
        "keeps_last": data["select_on"] == "reported-set",
        "unit": unit,
        "heading": heading,
    }
    constant = _validation_constant(own[next(iter(own))][0])
    return {
        "loss.png": figures.curves(epochs, kind="loss", constant=None, **shared),
        "mae.png": figures.curves(epochs, kind="mae", constant=constant, **shared),
        **_error_pictures(data, parts, unit),
        "calibration.png": figures.calibration(
            {part: chosen[split][2] for part, split in SPLITS.items()}, best=best, heading=heading
        ),
    }


def _error_pictures(data: Mapping[str, Any], parts: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Distributions and errors by class; `parts` as `figures.distributions` takes them."""
    everything = np.concatenate([values for part in parts.values() for values in (part["truth"], part["best"])])
    within = everything.min() >= 0 and everything.max() <= 1000 and data["target"]["unit"] == "kcal/h"
    limits = (0.0, 1000.0) if within else (float(everything.min()), float(everything.max()) + 1e-9)
    name = data["target"]["name"]
    counted = _heading(data, ", ".join(f"{len(values['truth'])} {part}" for part, values in parts.items()) + " clips")
    return {
        "distributions.png": figures.distributions(
            parts, best=data["best"], limits=limits, name=unit if unit.startswith(name) else f"{name} ({unit})",
            heading=_heading(data),
        ),
        "classes.png": figures.class_errors(data["classes"], best=data["best"], unit=unit, heading=counted),
    }  # fmt: skip


def _settings(cells: Mapping[str, str]) -> str:
    """What tells a row's curve from the others; the epochs stand on the axis."""
    if "varied" in cells:
        return f"{cells['varied']} {cells['value']}; {cells['others']}"
    return ", ".join(text for name, text in cells.items() if name not in ("figure", "epochs") and text)


def _validation_constant(run: Path) -> float | None:
    """MAE of the training median on the clips of the validation curve; in the published protocol those of the test."""
    splits = read_json(run / "results.json")["splits"]
    value: float | None = splits.get("val", splits["test"])["baselines"].get("constant_median", {}).get("mae")
    return value


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
    lead = num_leading(data)
    # A baseline's name takes the columns that tell rows apart, and the one that would say "baseline".
    rows = [[row[0], *[""] * lead, *row[lead + 1 :]] if row[lead] == "baseline" else row for row in rows]
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
    warnings = [data["warning"], quick_warning(data)]
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
    class_head = ["class", "activities", "clips", data["best"], "constant", "class-mean oracle"]
    body = (
        html.paragraphs(data["sentences"], kind="verdict")
        + html.paragraphs([data["text"]])
        + html.section(
            "Theirs, ours, baselines",
            html.table(head, rows, lead=lead + 1),
            html.paragraphs([LEGEND + "."], kind="soft"),
        )
        + html.section("Pictures", *(html.picture(drawn[name], CAPTIONS[name]) for name in CAPTIONS if name in drawn))
        + html.section("Error by class", html.table(class_head, class_rows))
        + html.section("What was run", html.table(["", ""], facts))
        + html.section("Notes", html.items(data["notes"]))
        + html.section("Rows", html.details("options of every row", json.dumps(_options(data), indent=1)))
    )
    return html.document(
        title=f"{data['recipe']}: {data['title']}",
        subtitle=" + ".join(data["stores"]),
        warnings=warnings,
        body=body,
    )


def _options(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    keys = ("name", "options", "runs", "epochs", "best_epoch", "overfit", "seconds", "shared_with")
    return [{key: row[key] for key in keys if row.get(key) not in (None, "")} for row in data["rows"]]
