"""Measures what the docs say about accuracy, writes docs/evidence.json and renews the tables of Measured and README.

Four questions, answered by the product's own commands, all of them or those named:

- `synth`: on rendered clips whose class is their motion, does a motion feature beat a single frame?
- `fight`: on a real labelled set (fight / no fight, with REELBANK_DATA set), does the line from video to head find
  signal, and none where labels are shuffled?
- `labels`: what does a guesser score on the public calorie labels of Vid2Burn (with REELBANK_DATA set)?
- `calories`: does `calories/beyond` beat the constant and every row of the tables on unknown motions, on the rendered
  set that it was made with and on another? It takes two hours on two cores; with `--work DIR` what lies there already
  is kept, and a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.judging import baselines
from reelbank.manifests.datasets.vid2burn import read_lists

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "evidence.json"
PAGE, README = ROOT / "docs" / "measured.md", ROOT / "README.md"
SYNTH_CLIPS = 360
KCAL_BINS = np.arange(1000.0)  # the index of a bin as kcal, as the published value has it
# The set that the rows of `calories/beyond` were chosen with, and one that was rendered after that.
CALORIES_SETS: tuple[dict[str, Any], ...] = (
    {"id": "the set it was chosen with", "clips": 800, "seed": 0, "models": ("resnet18", "flow")},
    {"id": "a later set", "clips": 1600, "seed": 11, "models": ("flow",)},
)


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


def labels(data: Path) -> list[dict[str, Any]]:
    """Guessers on Vid2Burn's label file: as it is (they see what they are judged on), and cut 80/20 by recording."""
    listed = read_lists(data / "splits" / "vid2burn" / "calact_fluctuate.csv", seed=0)
    of = {split: [e for e in listed if e.split == split] for split in ("train", "test", "unknown")}
    known = of["train"] + of["test"]
    rows = []
    for name, seen, judged in (("as it is", known, known), ("80/20 by recording, seed 0", of["train"], of["test"])):
        train, test, unknown = (np.array([e.kcal for e in part]) for part in (seen, judged, of["unknown"]))
        rows.append(
            {
                "id": name,
                "num_clips": [len(train), len(test), len(unknown)],
                "median": float(np.median(train)),
                "constant": [baselines.constant_median(train, part)["mae"] for part in (test, unknown)],
                "random_bin": [
                    baselines.uniform_random_bin(np.arange(1000.0), part)["mae"] for part in (test, unknown)
                ],
                "random_label": [baselines.random_training_label(train, part)["mae"] for part in (test, unknown)],
                "oracle": baselines.class_mean_oracle([e.activity for e in judged], test)["mae"],
            }
        )
    return rows


def calories(work: Path) -> list[dict[str, Any]]:
    """`calories/beyond` on each of CALORIES_SETS, in a folder of `work` each."""
    rows = []
    for given in CALORIES_SETS:
        folder = work / f"{given['clips']}-{given['seed']}"
        folder.mkdir(parents=True, exist_ok=True)
        stores = []
        if not (folder / "manifest.csv").exists():
            run(
                folder,
                "reelbank",
                "manifest",
                "synth",
                ".",
                "--clips",
                str(given["clips"]),
                "--seed",
                str(given["seed"]),
            )
        for model in given["models"]:
            run(folder, "featurize", "--model", model, *(() if model == "flow" else ("--weights", "random")))
            stores += ["--store", f"{model}.zarr"]
        resume = ("--resume",) if (folder / "run").exists() else ()
        run(folder, "train-head", "--recipe", "calories/beyond", *stores, "--run", "run", *resume)
        results = json.loads((folder / "run" / "recipe.json").read_text())
        ours = {row["name"]: row["ours"]["mae_unknown"] for row in results["rows"]}
        against, name = results["against_references"], results["proposed"]
        if not name:
            sys.exit(f"the proposed row of calories/beyond was not trained: {results['sentences'][-1]}")
        rows.append(
            {
                "id": given["id"],
                "clips": given["clips"],
                "seed": given["seed"],
                "models": list(given["models"]),
                "num_unknown": results["counts"]["unknown"],
                "constant": results["judged"]["mae_unknown"],
                "tables": {key: against[key] for key in ("name", "epoch", "value", "low", "high")},
                "proposed": {"name": name, **ours[name]},
                "against_constant": next(
                    row["beside"]["mae_unknown"] for row in results["rows"] if row["name"] == name
                ),
                "against_tables": against,
            }
        )
    return rows


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    lines = ["| run | accuracy | 95 % interval | majority class | clips, groups |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row["interval"]
        note = " (random weights)" if row["random_weights"] else ""
        lines.append(
            f"| {row['id']}{note} | {row['accuracy']:.3f} | {low:.3f} to {high:.3f} | {row['baseline']:.3f} "
            f"| {row['num_clips']}, {row['num_groups']} |"
        )
    return "\n".join(lines)


def labels_table(rows: list[dict[str, Any]]) -> str:
    heads = ["labels of Vid2Burn", "constant, known", "unknown", "random bin, known", "unknown"]
    heads += ["training label, known", "unknown", "class mean, known"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        pairs = [row["constant"], row["random_bin"], row["random_label"]]
        cells = [f"{value:.1f}" for pair in pairs for value in pair] + [f"{row['oracle']:.1f}"]
        lines.append(f"| {row['id']}: constant {row['median']:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def calories_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| rendered set, unknown motions | constant | best row of the tables, by this very error | `additive` |",
        "|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['id']}: {row['clips']} clips, seed {row['seed']}, {' and '.join(row['models'])} "
            f"| {_interval(row['constant'])} | {_interval(row['tables'])} ({row['tables']['name']}) "
            f"| {_interval(row['proposed'])} |"
        )
    return "\n".join(lines)


def _interval(found: dict[str, Any]) -> str:
    return f"{found['value']:.0f} [{found['low']:.0f}, {found['high']:.0f}]"


def headline_table(rows: list[dict[str, Any]]) -> str:
    """README's rows: the default settings on either set, and the control."""
    return accuracy_table([row for row in rows if row["id"] in ("synth-flow", "fight-mean", "fight-shuffled")])


TABLES: dict[Path, dict[str, tuple[tuple[str, ...], Callable[[list[dict[str, Any]]], str]]]] = {
    PAGE: {
        "evidence": (("synth", "fight"), accuracy_table),
        "labels": (("labels",), labels_table),
        "calories": (("calories",), calories_table),
    },
    README: {"evidence": (("synth", "fight"), headline_table)},
}
"""{file: {marker: (questions whose rows it shows, what writes them)}}."""


def renewed(path: Path, found: dict[str, list[dict[str, Any]]]) -> str:
    """The text of a file of TABLES with every table between its two marks as `found` has it."""
    text = path.read_text()
    for name, (parts, table) in TABLES[path].items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, rest = text.split(begin)
        rows = [row for part in parts for row in found.get(part, [])]
        text = f"{before}{begin}\n{table(rows)}\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("synth", "fight", "labels", "calories")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--work", type=Path, help="folder that is kept; default: a temporary one")
    given = parser.parse_args()
    if unknown := sorted(set(given.parts) - set(names)):
        parser.error(f"{unknown[0]!r} is not one of {', '.join(names)}")
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"dates": {}}
    data = os.environ.get("REELBANK_DATA")
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.work or Path(temporary)).resolve()
        measures: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "synth": lambda: synth(_fresh(work / "synth")),
            "fight": lambda: fight(_fresh(work / "fight"), Path(str(data))),
            "labels": lambda: labels(Path(str(data))),
            "calories": lambda: calories(work),
        }
        for name in given.parts or names:
            if name in ("fight", "labels") and not data:
                print(f"REELBANK_DATA is not set: {name} is left out", file=sys.stderr)
                continue
            found[name] = measures[name]()
            found["dates"][name] = datetime.now(UTC).date().isoformat()
            RESULT.write_text(json.dumps(found, indent=1) + "\n")
    for path in TABLES:
        path.write_text(renewed(path, found))


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
