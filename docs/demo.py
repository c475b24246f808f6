"""`make demo`: the whole line, by the same commands that a user types.

Renders a small labelled video set (or takes --videos, a folder of classes), extracts appearance (`lite`, whose ImageNet
weights are installed) and motion (`flow`, which needs none), trains a head on both stores as train-head does without
options, probes each, and says what the head is worth beside its baselines, where everything is and what to type next.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODELS = ("lite", "flow")
CLIPS = 300
"""As many as give the test split five subjects: an interval over fewer says nothing."""


def run(*command: str, into: Path, statuses: tuple[int, ...] = (0,)) -> str:
    """Shows a command, runs it in the folder `into` and returns what it printed; progress goes to the terminal."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    done = subprocess.run(command, cwd=into, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout if "--json" not in command else "", end="", flush=True)
    if done.returncode not in statuses:
        sys.exit(f"the command failed with exit status {done.returncode}")
    return done.stdout


def sentences(results: Mapping[str, Any]) -> list[str]:
    """The verdict of a run, one sentence per split and measure."""
    said = results["verdict"]
    return re.split(r"(?<=\.) (?=(?:test|val|unknown)\b)", said) if isinstance(said, str) else list(said)


def found(folder: Path, videos: Path) -> dict[str, str]:
    """What there is after all steps: {word: text} of the last lines."""
    trained, probes = folder / "runs" / "demo", [folder / f"{model}-probe" for model in MODELS]
    results = json.loads((trained / "results.json").read_text())
    said = sentences(results)
    if "unknown" in results["splits"]:
        said.append("(test: subjects that training never saw; unknown: motions that it never saw, which have no class)")
    pictures = sum(len(list(place.rglob("*.png"))) for place in (trained, *probes))
    one = next((path for path in sorted(videos.rglob("*")) if path.is_file()), Path("some.mp4"))
    program = Path(sys.executable).with_name("reelbank")
    shown = os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)
    return {
        "result": "\n          ".join(said),
        "report": str(trained / "report.html"),
        "probes": ", ".join(str(place / "index.html") for place in probes),
        "pictures": f"{pictures} in {trained / 'figures'}, {', '.join(map(str, probes))}",
        "stores": ", ".join(str(folder / f"{model}.zarr") for model in MODELS),
        "next": shlex.join([shown, "predict", "--run", str(trained), str(one)]),
    }


def main() -> None:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description="Runs featurize, train-head and probe on a small set.")
    parser.add_argument("--videos", type=Path, help="folder with a sub-folder of videos per class")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of everything made")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips to render")
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
    run("featurize", *(word for model in MODELS for word in ("--model", model)), into=folder, statuses=(0, 1))
    stores = [f"{model}.zarr" for model in MODELS]
    train = ("train-head", *(word for store in stores for word in ("--store", store)))
    run(*train, "--run", "runs/demo", "--overwrite", into=folder)
    for store in stores:
        info = json.loads(run("reelbank", "store", "info", store, "--json", into=folder))
        clusters = str(max(2, min(20, info["counts"]["done"] // 5)))
        run("probe", "--store", store, "--tsne", "--kmeans", clusters, "--knn", "5", into=folder)
    print("\n" + "=" * 80)
    for name, text in found(folder, options.videos or folder / "videos").items():
        print(f"{name + ':':<10}{text}")
    print(f"{'took:':<10}{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
