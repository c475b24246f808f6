"""Measures what the docs say about accuracy, writes docs/evidence.json and renews the tables of Measured and README.

Eight questions, answered by the product's own commands, all of them or those named:

- `synth`: on rendered clips whose class is their motion, does a motion feature beat appearance, and does appearance
  add to it? The same of kcal, on known and on unknown motions.
- `fight`: on a real labelled set (fight / no fight, with REELBANK_DATA set), does the line from video to head find
  signal, and none where labels are shuffled? What does appearance add to motion?
- `precision`: what do bf16, `--resize fast` and int8 change of trained features and of the head on them, on both sets?
- `defaults`: is `train-head` without options better than it was, than a constant, than the best of a sweep?
- `labels`: what does a guesser score on the public calorie labels of Vid2Burn (with REELBANK_DATA set)?
- `egocentric`: what do the second stage, motion maps and the order of frames give on the rendered first-person set? It
  takes an hour and a half on two cores; with `--work DIR` as the next one.
- `two-stream`: what does mid fusion gain on its streams, on the rendered set that neither alone can name? It takes half
  an hour on two cores; with `--work DIR` as the next one.
- `calories`: does `calories/beyond` beat the constant and every row of the tables on unknown motions, on the rendered
  set that it was made with and on another? It takes two hours on two cores; with `--work DIR` what lies there already
  is kept, and a run that was killed goes on.

`--every 8` tries the first four on each eighth clip, and writes nothing into the docs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.docs import evidence_heads as heads
from reelbank.docs.evidence_defaults import chosen_table, defaults, defaults_table
from reelbank.docs.evidence_egocentric import egocentric, egocentric_table
from reelbank.docs.evidence_heads import fresh, run
from reelbank.docs.evidence_two_stream import two_stream, two_stream_table
from reelbank.heads.judging import baselines
from reelbank.manifests.datasets.vid2burn import read_lists

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "evidence.json"
PAGE, README = ROOT / "docs" / "measured.md", ROOT / "README.md"
KCAL_BINS = np.arange(1000.0)  # the index of a bin as kcal, as the published value has it
# The set that the rows of `calories/beyond` were chosen with, and one that was rendered after that.
CALORIES_SETS: tuple[dict[str, Any], ...] = (
    {"id": "the set it was chosen with", "clips": 800, "seed": 0, "models": ("resnet18", "flow")},
    {"id": "a later set", "clips": 1600, "seed": 11, "models": ("flow",)},
)


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


TABLES: dict[Path, dict[str, tuple[tuple[str, ...], Callable[[list[dict[str, Any]]], str]]]] = {
    PAGE: {
        "evidence": (("synth", "fight"), heads.accuracy_table),
        "kcal": (("synth",), heads.kcal_table),
        "precision": (("precision",), heads.precision_table),
        "defaults": (("defaults",), defaults_table),
        "chosen": (("defaults",), chosen_table),
        "labels": (("labels",), labels_table),
        "calories": (("calories",), calories_table),
        "egocentric": (("egocentric",), egocentric_table),
        "two-stream": (("two-stream",), two_stream_table),
    },
    README: {"defaults": (("defaults",), defaults_table)},
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
    names = ("synth", "fight", "precision", "defaults", "labels", "egocentric", "two-stream", "calories")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--work", type=Path, help="folder that is kept; default: a temporary one")
    parser.add_argument("--every", type=int, default=1, help="take each N-th clip of a set, and write nothing")
    given = parser.parse_args()
    if unknown := sorted(set(given.parts) - set(names)):
        parser.error(f"{unknown[0]!r} is not one of {', '.join(names)}")
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"dates": {}}
    data = os.environ.get("REELBANK_DATA")
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.work or Path(temporary)).resolve()
        measures: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "synth": lambda: heads.synth(fresh(work / "synth"), given.every),
            "fight": lambda: heads.fight(fresh(work / "fight"), Path(str(data)), given.every),
            "precision": lambda: heads.precision(work / "precision", Path(data) if data else None, given.every),
            "defaults": lambda: defaults(work / "defaults", Path(data) if data else None, given.every),
            "labels": lambda: labels(Path(str(data))),
            "calories": lambda: calories(work),
            "egocentric": lambda: egocentric(work / "egocentric"),
            "two-stream": lambda: two_stream(work / "two-stream"),
        }
        for name in given.parts or names:
            if name in ("fight", "labels") and not data:
                print(f"REELBANK_DATA is not set: {name} is left out", file=sys.stderr)
                continue
            started = time.monotonic()
            found[name] = measures[name]()
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
            if given.every > 1:
                print(json.dumps(found[name], indent=1))
                continue
            found["dates"][name] = datetime.now(UTC).date().isoformat()
            RESULT.write_text(json.dumps(found, indent=1) + "\n")
    for path in TABLES if given.every == 1 else ():
        path.write_text(renewed(path, found))


if __name__ == "__main__":
    main()
