"""Measures what README says about accuracy, writes docs/evidence.json and renews README's table from it.

Two questions, answered by the product's own commands:

1. On rendered clips whose class is their motion: does a motion feature beat a single frame?
2. On a real labelled set (fight / no fight, with REELBANK_DATA set): does the line from video to head find signal,
   and none where labels are shuffled?
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "evidence.json"
BEGIN, END = "<!-- evidence:begin -->", "<!-- evidence:end -->"
SYNTH_CLIPS = 360


def run(folder: Path, *command: str) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def measure(folder: Path, name: str, *command: str) -> dict[str, Any]:
    """One head; its reported accuracy with the interval, beside the baseline."""
    run(folder, *command, "--run", f"runs/{name}", "--overwrite")
    results = json.loads((folder / "runs" / name / "results.json").read_text())
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
    }


def synth(folder: Path) -> list[dict[str, Any]]:
    run(folder, "reelbank", "manifest", "synth", ".", "--clips", str(SYNTH_CLIPS))
    run(folder, "featurize", "--model", "flow")
    still = ("featurize", "--weights", "random", "--sampling", "position:0.5")
    run(folder, *still, "--model", "googlenet", "--model", "dinov2", "--out", "still-{model}.zarr")
    head = ("--target", "none", "--folds", "5")
    rows = [measure(folder, "synth-flow", "train-head", "--store", "flow.zarr", *head)]
    for model in ("googlenet", "dinov2"):
        store = f"still-{model}.zarr"
        rows.append(measure(folder, f"synth-still-{model}", "train-head", "--store", store, *head))
    return rows


def fight(folder: Path, data: Path) -> list[dict[str, Any]]:
    index = str(data / "fight_surv" / "index.csv")
    mapping = ("--map", "video=file", "--map", "group=scene_group")
    run(folder, "reelbank", "manifest", "csv", index, *mapping, "--out", "manifest.csv")
    run(folder, "featurize", "--model", "flow")
    head = ("train-head", "--store", "flow.zarr", "--folds", "5")
    return [
        measure(folder, "fight-mean", *head),
        measure(folder, "fight-mean-std", *head, "--pool", "mean+std"),
        measure(folder, "fight-shuffled", *head, "--shuffle-labels"),
    ]


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| run | accuracy | 95 % interval | majority class | clips, groups |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row["interval"]
        note = " (random weights)" if row["random_weights"] else ""
        lines.append(
            f"| {row['id']}{note} | {row['accuracy']:.3f} | {low:.3f} to {high:.3f} | {row['baseline']:.3f} "
            f"| {row['num_clips']}, {row['num_groups']} |"
        )
    return "\n".join(lines)


def main() -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        folders = [Path(made) / name for name in ("synth", "fight")]
        for folder in folders:
            folder.mkdir()
        rows += synth(folders[0])
        if data := os.environ.get("REELBANK_DATA"):
            rows += fight(folders[1], Path(data))
        else:
            print("REELBANK_DATA is not set: the real set is left out", file=sys.stderr)
    RESULT.write_text(json.dumps({"date": datetime.now(UTC).date().isoformat(), "rows": rows}, indent=1) + "\n")
    readme = (ROOT / "README.md").read_text()
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    (ROOT / "README.md").write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}")
    print(table(rows))


if __name__ == "__main__":
    main()
