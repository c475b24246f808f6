"""What Ego-RNN gains by its second stage, by motion maps and by order, on the rendered first-person set."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from reelbank.docs.evidence_heads import run

ROOT = Path(__file__).resolve().parents[1]
STORES = ("resnet34", "motion-map", "warp-flow")
COLUMNS = ("accuracy", "pair_accuracy")


def egocentric(folder: Path) -> list[dict[str, Any]]:
    """The rows of `egocentric/rendered`; what lies in `folder` is kept. An hour and a half on two cores."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, *options in (("rendered",), ("other", "--seed", "7", "--clips", "320")):
        if not (folder / name / "manifest.csv").exists():
            run(folder, "reelbank", "manifest", "synth-gtea61", name, *options)
    weights = "resnet34-rendered.pth"
    if not (folder / weights).exists():
        run(folder, sys.executable, str(ROOT / "benchmarks" / "rendered_backbone.py"), "other", weights)
    if not all((folder / f"{name}.zarr").exists() for name in STORES):
        options = ["--manifest", "rendered/manifest.csv", "--sampling", "uniform:7", "--weights", weights]
        models = ["--model", "resnet34", "--tap", "resnet34=layer3", "--model", "motion-map"]
        run(folder, "featurize", *options, *models, "--model", "warp-flow", "--tap", "warp-flow=hof")
    if not (folder / "run" / "recipe.json").exists():
        stores = [word for name in STORES for word in ("--store", f"{name}.zarr")]
        resume = ("--resume",) if (folder / "run").exists() else ()
        run(folder, "train-head", "--recipe", "egocentric/rendered", *stores, "--run", "run", *resume)
    found = json.loads((folder / "run" / "recipe.json").read_text())
    return [
        {
            "id": row["name"],
            "what": row["cells"]["what"],
            "stage": row["cells"]["stage"],
            **{key: row["ours"][key] for key in COLUMNS},
            "against": row["against"],
            "repeats": found["repeats"],
            "seconds": row["seconds"] / found["repeats"],
        }
        for row in found["rows"]
    ]


def egocentric_table(rows: list[dict[str, Any]]) -> str:
    """A line per row: both accuracies, and what it gains on the row that lacks one thing."""
    lines = [
        "| row | accuracy | within pairs | gained on | accuracy | within pairs | seconds of a training |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        values = [_value(row[key]) for key in COLUMNS]
        other = row["against"]
        gains = ["", "", ""]
        if other:
            gains = [f"`{other['name']}`", *(_gain(other["columns"][key]) for key in COLUMNS)]
        lines.append(f"| `{row['id']}`: {row['what']} | {' | '.join([*values, *gains])} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def _value(found: dict[str, Any]) -> str:
    deviation = "" if found["deviation"] is None else f" ± {found['deviation']:.1f}"
    return f"{found['value']:.1f}{deviation} [{found['low']:.1f}, {found['high']:.1f}]"


def _gain(found: dict[str, Any]) -> str:
    return f"{found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
