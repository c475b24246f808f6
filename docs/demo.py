"""`make demo`: the whole line, by the same commands that a user types.

Renders a small labelled video set (or takes --videos, a folder of classes), extracts optical-flow histograms,
which need no weights, trains a head, probes the store, and says where everything is.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

MODEL = "flow"


def run(*command: str, into: Path, statuses: tuple[int, ...] = (0,)) -> str:
    """Shows a command, runs it in the folder `into` and returns what it printed; progress goes to the terminal."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    done = subprocess.run(command, cwd=into, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout if "--json" not in command else "", end="", flush=True)
    if done.returncode not in statuses:
        sys.exit(f"the command failed with exit status {done.returncode}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs featurize, train-head and probe on a small set.")
    parser.add_argument("--videos", type=Path, help="folder with a sub-folder of videos per class")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of everything made")
    parser.add_argument("--clips", type=int, default=120, help="clips to render")
    options = parser.parse_args()
    folder: Path = options.out / options.videos.resolve().name if options.videos else options.out / "synth"
    folder.mkdir(parents=True, exist_ok=True)
    if options.videos:
        source = str(options.videos.resolve())
        line = ("reelbank", "manifest", "folder", source, "--out", "manifest.csv", "--overwrite", "--json")
        made = json.loads(run(*line, into=folder))
        print(f"{made['num_clips']} clips, {len(made['classes'])} classes")
        if made["warning"]:  # told already, and training would fail after minutes of extraction
            sys.exit("the demo trains a head, so it ends here")
    else:
        clips = ("--clips", str(options.clips))
        run("reelbank", "manifest", "synth", ".", *clips, "--overwrite", into=folder)
    # Exit status 1: some clips failed. They are listed, and the demo goes on with the others.
    run("featurize", "--model", MODEL, into=folder, statuses=(0, 1))
    store = f"{MODEL}.zarr"
    train = ("train-head", "--store", store, "--loss", "jsd", "--run", "runs/demo", "--overwrite")
    run(*train, into=folder)
    info = json.loads(run("reelbank", "store", "info", store, "--json", into=folder))
    clusters = max(2, min(20, info["counts"]["done"] // 5))
    run("probe", "--store", store, "--tsne", "--kmeans", str(clusters), "--knn", "5", into=folder)
    results = json.loads((folder / "runs" / "demo" / "results.json").read_text())
    print("\n" + "=" * 80)
    for name, text in {
        "store": folder / store,
        "run": folder / "runs" / "demo",
        "result": results["verdict"],
        "report": folder / "runs" / "demo" / "report.html",
        "probe": folder / f"{MODEL}-probe" / "index.html",
        "pictures": ", ".join(sorted(p.name for p in (folder / f"{MODEL}-probe").glob("*.png"))),
    }.items():
        print(f"{name + ':':<10}{text}")


if __name__ == "__main__":
    main()
