"""Draws README's picture from what `make demo` left: `python docs/picture.py demo/synth`.

Everything in it is a result of the demo: frames and features of its store, the confusion of its run, the map of its
probe.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

import reelbank.store
from reelbank.store import Store

OUT = Path(__file__).resolve().parent / "pictures" / "line.png"
SIZE_INCHES, DPI = (13.0, 3.9), 100
PANEL_INCHES, GAP_INCHES, LEFT_INCHES, BOTTOM_INCHES = 2.7, 0.62, 0.2, 0.35
INK, MUTED = "#1b1f24", "#57606a"
FRAMES_ACROSS, FRAMES_DOWN, FRAME_GAP_PX = 3, 4, 5


def frames(axes: Axes, store: Store, labels: list[str]) -> str:
    """A sheet of middle frames, one per class."""
    rows = [int(row) for row in store.done_rows()]
    firsts = list({labels[row]: row for row in reversed(rows)}.values())[: FRAMES_ACROSS * FRAMES_DOWN]
    pictures = [store.thumbnail(row) for row in sorted(firsts)]
    height, width, _ = pictures[0].shape
    step_y, step_x = height + FRAME_GAP_PX, width + FRAME_GAP_PX
    sheet = np.full((step_y * FRAMES_DOWN - FRAME_GAP_PX, step_x * FRAMES_ACROSS - FRAME_GAP_PX, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = step_y * (number // FRAMES_ACROSS), step_x * (number % FRAMES_ACROSS)
        sheet[top : top + height, left : left + width] = picture
    axes.imshow(sheet, aspect="auto")
    return f"{len(rows)} clips, each decoded once"


def features(axes: Axes, store: Store, labels: list[str]) -> str:
    """Mean features, a line per clip, by class; each number over its own spread."""
    rows = np.array(sorted(store.done_rows(), key=lambda row: labels[row]))
    tap = store.default_tap
    mean = store.mean(tap)[rows]
    scaled = (mean - mean.mean(axis=0)) / (mean.std(axis=0) + 1e-6)
    axes.imshow(scaled, aspect="auto", cmap="cividis", vmin=-1.5, vmax=2.5, interpolation="nearest")
    return f"{mean.shape[0]} x {mean.shape[1]} numbers of tap {tap}"


def confusion(axes: Axes, run: Path) -> str:
    """True against predicted classes of the reported split."""
    results = json.loads((run / "results.json").read_text())
    split = results["reported"]
    counts = np.array(json.loads((run / "confusion.json").read_text())[split]["counts"])
    axes.imshow(counts, aspect="auto", cmap="Blues")
    found = results["splits"][split]
    accuracy, guess = found["metrics"]["accuracy"]["value"], found["baselines"]["majority_class"]["accuracy"]
    return f"accuracy {accuracy:.2f}; commonest class {guess:.2f}"


def scatter(axes: Axes, coordinates: Path) -> str:
    """The t-SNE map, coloured by class."""
    with coordinates.open(newline="") as file:
        points = list(csv.DictReader(file))
    classes = sorted({point["label"] for point in points})
    colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for number, label in enumerate(classes):
        chosen = [(float(point["x"]), float(point["y"])) for point in points if point["label"] == label]
        x, y = np.array(chosen).T
        axes.scatter(x, y, s=26, color=colours[number % len(colours)], linewidths=0)
    axes.margins(0.08)
    return f"t-SNE, {len(classes)} classes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the demo's folder, with flow.zarr, runs/demo and flow-probe")
    folder: Path = parser.parse_args().folder
    store = reelbank.store.open(folder / "flow.zarr")
    labels = [str(label) for label in store.column("label")]
    figure = plt.figure(figsize=SIZE_INCHES, facecolor="white")
    panels: list[tuple[str, Callable[[Axes], str]]] = [
        ("manifest", lambda axes: frames(axes, store, labels)),
        ("featurize", lambda axes: features(axes, store, labels)),
        ("train-head", lambda axes: confusion(axes, folder / "runs" / "demo")),
        ("probe", lambda axes: scatter(axes, folder / "flow-probe" / "coordinates.csv")),
    ]
    wide, high = SIZE_INCHES
    for number, (title, draw) in enumerate(panels):
        left = LEFT_INCHES + number * (PANEL_INCHES + GAP_INCHES)
        axes = figure.add_axes((left / wide, BOTTOM_INCHES / high + 0.06, PANEL_INCHES / wide, PANEL_INCHES / high))
        below = draw(axes)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color("#d0d7de")
        axes.set_title(title, fontsize=19, family="monospace", color=INK, pad=9)
        axes.set_xlabel(below, fontsize=12.5, color=MUTED, labelpad=7)
        if number:
            middle = (left - GAP_INCHES / 2) / wide
            figure.text(middle, 0.49, "→" if number < 3 else "or", fontsize=30 if number < 3 else 14,
                        color=MUTED, ha="center", va="center")  # fmt: skip
    OUT.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    # 256 colours: a third of the bytes. Maximum coverage keeps the rare colours of the map apart.
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
