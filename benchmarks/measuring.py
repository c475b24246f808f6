"""Interleaved timing, and the rows that a benchmark writes.

Actions that are compared run in turn (A B A B ...) in one process, so that a machine whose speed drifts slows
all of them; ratios are of medians of one run. A ratio is ours / theirs of seconds where the target is a
ceiling (`<= 0.70`), and theirs / ours where it is a floor (`>= 20`, times faster).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
INPUTS = Path(__file__).parent.parent / "build" / "benchmarks"
SCALES = ("full", "normal", "tiny")
VERSIONED = (
    "av", "decord", "h5py", "numpy", "opencv-python-headless", "openTSNE", "reelbank", "scikit-learn", "timm",
    "torch", "torchcodec", "torchvision", "zarr",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one action, one value per repeat."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure: our seconds against a peer's.

    Attributes:
        id: `<stage>.<measure>.<input>`, the same on every machine.
        measure: what was done, for a person.
        ours: median seconds; None where it could not be run.
        peer: against whom.
        theirs: median seconds of the peer; None where it is not installed.
        target: `<= X` or `>= X`; None: reported without a target.
        ratio: see the module; None where a side is missing.
        met: whether the target holds; None where there is nothing to say.
        note: what was scaled down, what was skipped and why.
        spread: (slowest - fastest) / median of either side.
    """

    id: str
    measure: str
    ours: float | None
    peer: str
    theirs: float | None
    target: str | None
    ratio: float | None
    met: bool | None
    note: str = ""
    spread: tuple[float, float] | None = None


@dataclass(kw_only=True)
class Stage:
    """What one script measured.

    Attributes:
        rows: the measures.
        inputs: what they ran on: {name: properties}.
        machine: what `machine()` does not know, such as the name of a GPU.
    """

    rows: list[Row] = field(default_factory=list)
    inputs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    def compare(
        self,
        id: str,
        measure: str,
        ours: Timing | float,
        peer: str,
        theirs: Timing | float,
        target: str | None = None,
        note: str = "",
    ) -> None:
        """Adds a row; a plain number is seconds (or any quantity of which less is better)."""
        mine, other = _median(ours), _median(theirs)
        ratio = other / mine if target is not None and target.startswith(">=") else mine / other
        spread = (ours.spread, theirs.spread) if isinstance(ours, Timing) and isinstance(theirs, Timing) else None
        self.rows.append(
            Row(
                id=id, measure=measure, ours=mine, peer=peer, theirs=other, target=target, ratio=ratio,
                met=None if target is None else meets(ratio, target), note=note, spread=spread,
            )
        )  # fmt: skip

    def quality(self, id: str, measure: str, value: float, peer: str, target: str | None, note: str = "") -> None:
        """Adds a row of a number that has no seconds: a cosine, a quotient of inertias."""
        self.rows.append(
            Row(
                id=id, measure=measure, ours=None, peer=peer, theirs=None, target=target, ratio=value,
                met=None if target is None else meets(value, target), note=note,
            )
        )  # fmt: skip

    def skip(self, id: str, measure: str, peer: str, why: str, target: str | None = None) -> None:
        """Adds a row that says why nothing was measured."""
        self.rows.append(
            Row(id=id, measure=measure, ours=None, peer=peer, theirs=None, target=target, ratio=None, met=None,
                note=f"skipped: {why}")
        )  # fmt: skip


def meets(ratio: float, target: str) -> bool:
    """Whether `ratio` holds `<= X` or `>= X`."""
    sign, bound = target.split()
    return ratio <= float(bound) if sign == "<=" else ratio >= float(bound)


def interleaved(actions: Mapping[str, Callable[[], Any]], repeats: int, *, warm: bool = True) -> dict[str, Timing]:
    """Runs the actions in turn, `repeats` times each; `warm` runs each once before, untimed."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    if warm:
        for action in actions.values():
            action()
    names = list(actions)
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            started = time.perf_counter()
            actions[name]()
            seconds[name].append(time.perf_counter() - started)
    return {name: Timing(seconds=tuple(values)) for name, values in seconds.items()}


def peer(name: str) -> tuple[Any, str]:
    """(module, "") of a peer, or (None, why it cannot be used)."""
    try:
        return importlib.import_module(name), ""
    except ImportError:
        return None, f"{name} is not installed (pip install 'reelbank[bench]')"
    except (OSError, RuntimeError) as error:
        return None, f"{name} does not load here ({str(error).strip().splitlines()[0]})"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**20, 1),
        "avx512_bf16": "avx512_bf16" in flags,
        "load_at_start": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """{distribution: version} of what is installed and matters."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main(stage: str, measure: Callable[[str, Path], Stage], description: str | None) -> None:
    """The command line of one script: measures, prints the rows, writes `<out>/<stage>.json`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scale", choices=SCALES, default="normal", help="full: nothing scaled down; tiny: seconds, for tests"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--work", type=Path, default=INPUTS, help="folder for rendered clips and stores")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    about = machine()
    started = time.monotonic()
    result = measure(arguments.scale, arguments.work)
    write(stage, result, arguments.scale, about | result.machine, time.monotonic() - started, arguments.out)
    for row in result.rows:
        print(line_of(row))


def write(stage: str, result: Stage, scale: str, about: Mapping[str, Any], seconds: float, out: Path) -> Path:
    """Writes the JSON of one stage; a GPU's results carry the card in their name."""
    card = str(about.get("gpu", "")).lower().replace(" ", "-")
    path = out / (f"{stage}-{card}.json" if card else f"{stage}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "stage": stage,
        "scale": scale,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "machine": dict(about),
        "versions": versions(),
        "inputs": {name: dict(properties) for name, properties in result.inputs.items()},
        "rows": [_rounded(asdict(row)) for row in result.rows],
    }
    path.write_text(json.dumps(data, indent=1) + "\n")
    return path


def line_of(row: Row) -> str:
    """One row for the terminal."""
    if row.ratio is None:
        return f"{row.id:36} {row.note}"
    verdict = {None: "", True: "met", False: "MISSED"}[row.met]
    seconds = "" if row.ours is None or row.theirs is None else f"{row.ours:9.4g} s  {row.theirs:9.4g} s"
    return f"{row.id:36} {seconds:26} ratio {row.ratio:7.4g}  {row.target or '':8} {verdict:6} {row.peer} {row.note}"


def _median(value: Timing | float) -> float:
    return value.median if isinstance(value, Timing) else value


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(item) for item in value]
    return value


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
