"""Writes the tables of benchmarks from benchmarks/results/*.json: all rows into the docs, a few into README.

Each stands between two markers. `python benchmarks/readme.py` renews both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reelbank.benchmarks.measuring import RESULTS

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
ROOT = Path(__file__).parent.parent
PAGE, README = ROOT / "docs" / "measured.md", ROOT / "README.md"
ORDER = (
    "decode",
    "featurize",
    "store",
    "durability",
    "train",
    "sweep",
    "probe",
    "precision",
    "memory",
    "egocentric",
    "hmdb51",
    "gpu",
)
# README's rows: one or two of each stage on a CPU, met or missed.
HEADLINES = (
    *("decode.sparse.h264-60s", "decode.all.h264-60s", "featurize.googlenet.forward", "store.warm.zarr"),
    *("store.warm.h5py", "train.epoch", "sweep.best", "probe.kmeans.float64"),
)
HEAD = "| measure | against | ours | theirs | ratio | target | |\n|---|---|---|---|---|---|---|"


def regenerate(results: Path, page: Path = PAGE, readme: Path = README) -> None:
    """Replaces what stands between the markers of `page` (all rows) and of `readme` (HEADLINES).

    Raises:
        ValueError: a file does not hold both markers once, in order.
    """
    replace(page, table(results))
    replace(readme, headlines(results))


def replace(path: Path, content: str, begin: str = BEGIN, end: str = END) -> None:
    """Replaces what stands between two markers. Raises ValueError unless each is there once, in order."""
    text = path.read_text()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{path}: expected one {begin} and after it one {end}")
    head, tail = text.partition(begin)[0], text.partition(end)[2]
    path.write_text(f"{head}{begin}\n{content}\n{end}{tail}")


def headlines(results: Path) -> str:
    """Markdown of the rows of HEADLINES that were measured, in their order."""
    rows = {row["id"]: row for path in results.glob("*.json") for row in json.loads(path.read_text())["rows"]}
    return _table([rows[name] for name in HEADLINES if name in rows])


def _table(rows: list[dict[str, Any]]) -> str:
    return "\n".join([HEAD, *map(_line, rows)])


def table(results: Path) -> str:
    """Markdown of all stages in `results`."""
    stages = [json.loads(path.read_text()) for path in results.glob("*.json")]
    stages.sort(key=lambda stage: ORDER.index(stage["stage"]))
    parts = []
    # Stages that were measured on the same machine on the same day share a sentence.
    sentences: dict[str, list[str]] = {}
    for stage in stages:
        sentences.setdefault(_where(stage), []).append(stage["stage"])
    for sentence, names in sentences.items():
        parts.append(f"{', '.join(names)}: {sentence}")
    parts.append(
        "Ratios are of medians of interleaved runs; with a target `<=` of our time to the peer's, with `>=` how many "
        "times faster ours is.\n"
    )
    head = "\n\n".join([*parts[:-1], parts[-1].rstrip()])
    rows = _table([row for stage in stages for row in stage["rows"]])
    return "\n\n".join([head, rows, *_projections(results / "projections")])


def _projections(folder: Path) -> list[str]:
    """A paragraph per file: what was measured, and what it would come to."""
    found = []
    for data in (json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))):
        measured, peer, projected = data["measured"], data["measured_peer"], data["projection"]
        found.append(
            f"Projection, not a measurement: {data['what']} ({data['rows_of_the_table']} rows of the table) would take "
            f"{projected['hours_on_2_cores']:.0f} hours on two cores, one after another with a DataLoader "
            f"{projected['peer_hours_one_by_one']:.0f} hours. Measured: {measured['epochs']} epochs of "
            f"{measured['steps_per_epoch']} steps, {measured['seconds_per_step']:.2f} s per step on one thread, "
            f"the peer ({peer['what']}) {peer['seconds_per_step']:.2f} s."
        )
    return found


def _where(stage: dict[str, Any]) -> str:
    machine, versions = stage["machine"], stage["versions"]
    card = f", {machine['gpu']}" if "gpu" in machine else ""
    packages = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "av", "torchcodec", "zarr") if name in versions
    )
    return (
        f"{machine['cores']} cores of {machine['cpu']}{card}, {machine['memory_gib']:g} GiB, {packages}; "
        f"{stage['date']}, `--scale {stage['scale']}`."
    )


def _line(row: dict[str, Any]) -> str:
    verdict = {None: "", True: "met", False: "**missed**"}[row["met"]]
    note = f" ({row['note']})" if row["note"] else ""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
    cells = (
        row["measure"] + note, row["peer"], _seconds(row["ours"]), _seconds(row["theirs"]), ratio, row["target"] or "",
        verdict,
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


if __name__ == "__main__":
    regenerate(RESULTS)
