"""What mid fusion gains on each of its streams, on the rendered set that neither stream alone can name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from reelbank.docs.evidence_heads import run

ROOT = Path(__file__).resolve().parents[1]
STORES = ("frames-squash224", "flow")


def two_stream(folder: Path) -> list[dict[str, Any]]:
    """The rows of `two-stream/rendered`; what lies in `folder` is kept. Half an hour on two cores."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, *options in (("rendered", "--subjects", "20", "--clips-per-class", "60"), ("other", "--seed", "7")):
        if not (folder / name / "manifest.csv").exists():
            run(folder, "reelbank", "manifest", "synth-hmdb51", name, *options)
    weights = "googlenet-rendered.pth"
    if not (folder / weights).exists():
        script = str(ROOT / "benchmarks" / "rendered_backbone.py")
        run(folder, sys.executable, script, "other", weights, "--backbone", "googlenet")
    if not (folder / "clips.csv").exists():
        held_out = ("--groups", "films", "--val-share", "0.15", "--val-by", "group")
        run(folder, "reelbank", "manifest", "hmdb51", "rendered", *held_out, "--out", "clips.csv")
    manifest = ("--manifest", "clips.csv")
    if not (folder / "frames-squash224.zarr").exists():
        sampling = "position:0,0.25,0.5,0.75,1"
        run(folder, "featurize", *manifest, "--model", "frames:squash224", "--sampling", sampling)
    if not (folder / "flow.zarr").exists():
        flow = ("--model", "flow", "--tap", "flow", "--sampling", "first:8", "--out", "flow.zarr")
        run(folder, "featurize", *manifest, *flow)
    if not (folder / "run" / "recipe.json").exists():
        stores = [word for name in STORES for word in ("--store", f"{name}.zarr")]
        resume = ("--resume",) if (folder / "run").exists() else ()
        asked = ("--recipe", "two-stream/rendered", "--backbone-weights", weights, "--run", "run")
        run(folder, "train-head", *asked, *stores, *resume)
    found = json.loads((folder / "run" / "recipe.json").read_text())
    return [
        {
            "id": row["name"],
            "accuracy": row["ours"]["accuracy"],
            "against": row["against"],
            "seconds": row["seconds"] / found["repeats"],
        }
        for row in found["rows"]
    ]


def two_stream_table(rows: list[dict[str, Any]]) -> str:
    """A line per row: its accuracy, and what it gains on the stream that it is compared with."""
    lines = [
        "| row | accuracy | gained on | accuracy | only it right | only the other | p, exact test | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own, other = row["accuracy"], row["against"]
        gains = [""] * 5
        if other:
            one = other["columns"]["accuracy"]
            exact = one["exact"]
            gain = f"{one['difference']:+.1f} [{one['low']:+.1f}, {one['high']:+.1f}]"
            gains = [f"`{other['name']}`", gain, str(exact["only_this"]), str(exact["only_other"]), f"{exact['p']:.1e}"]
        value = f"{own['value']:.1f} [{own['low']:.1f}, {own['high']:.1f}]"
        lines.append(f"| `{row['id']}` | {value} | {' | '.join(gains)} | {row['seconds']:.0f} |")
    return "\n".join(lines)
