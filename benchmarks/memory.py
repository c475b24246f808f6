"""Peak memory of `featurize` against the length of a clip and against the number of clips.

DIS flow of every frame pair of a long clip and of a short one; DIS flow of many short clips and of few. The peak is
that of all processes of the run together: the sum of the largest resident set of each, polled from /proc, so pages
that they share count several times.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from reelbank.benchmarks.measuring import Stage, main
from reelbank.benchmarks.rendering import properties, render
from reelbank.extract import FeaturizeConfig, featurize

POLL_SECONDS = 0.1
START = "spawn"
"""How the process of a run is started: so that it begins with nothing."""
RATE_FPS = 30
SHORT_FRAMES = 8
TARGET = "<= 1.10"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Minutes of the short and the long clip; numbers of few and many clips."""

    minutes: tuple[float, float]
    clips: tuple[int, int]


SIZES = {
    "tiny": Size(minutes=(0.02, 0.04), clips=(2, 4)),
    "normal": Size(minutes=(0.25, 0.5), clips=(50, 150)),
    "full": Size(minutes=(1.0, 20.0), clips=(500, 5000)),
}


def measure(scale: str, work: Path) -> Stage:
    """Both rows."""
    size, stage = SIZES[scale], Stage()
    if not Path("/proc/self/status").is_file():
        stage.skip("memory.peak", "peak memory of featurize", "itself", "this system has no /proc", TARGET)
        return stage
    longs = [render(work, "mpeg4-avi", num_frames=round(m * 60 * RATE_FPS)) for m in size.minutes]
    short = render(work, "mpeg4-avi", num_frames=SHORT_FRAMES)
    stage.inputs = {f"long {i}": properties(path) for i, path in enumerate(longs)} | {"short": properties(short)}
    peaks = [_peak_mb(work, [path], "all") for path in longs]
    _compare(stage, "length", "flow:dis of every frame of one clip", peaks, size.minutes, "min")
    peaks = [_peak_mb(work, [short] * count, "uniform:4") for count in size.clips]
    _compare(stage, "count", f"flow:dis of clips of {SHORT_FRAMES} frames, 2 workers", peaks, size.clips, "clips")
    return stage


def _compare(
    stage: Stage, name: str, what: str, peaks: list[float], amounts: tuple[float, float], unit: str
) -> None:  # fmt: skip
    small, large = amounts
    stage.quality(
        f"memory.{name}", f"peak memory, {what}: {large:g} {unit}", peaks[1] / peaks[0], f"{small:g} {unit}", TARGET,
        f"{peaks[1]:.0f} MB against {peaks[0]:.0f} MB",
    )  # fmt: skip


def _peak_mb(work: Path, clips: list[Path], sampling: str) -> float:
    """Peak of a run in a process of its own."""
    folder = work / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = [f"c{i:05d},{clip.resolve()},train,x" for i, clip in enumerate(clips)]
    (folder / "manifest.csv").write_text("\n".join(["clip_id,video,split,label", *rows]) + "\n")
    process = multiprocessing.get_context(START).Process(target=_run, args=(folder, sampling))
    process.start()
    peaks: dict[int, float] = {}
    done = threading.Event()
    while not done.wait(POLL_SECONDS):
        for pid in _family(process.pid or 0):
            peaks[pid] = max(peaks.get(pid, 0.0), status_mb("VmHWM", pid))
        if not process.is_alive():
            done.set()
    process.join()
    shutil.rmtree(folder)
    if process.exitcode:
        raise RuntimeError(f"featurize ended with exit code {process.exitcode}")
    return sum(peaks.values())


def _run(folder: Path, sampling: str) -> None:
    config = FeaturizeConfig(
        model=("flow:dis",), manifest=folder / "manifest.csv", root=Path("/"), out=str(folder / "flow.zarr"),
        sampling=(sampling,), workers=2,
    )  # fmt: skip
    report = featurize(config)
    assert not report.has_failures, report.text()


def _family(root: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            status = _status(int(entry.name))
            parents[int(entry.name)] = int(status.get("PPid", "0"))
    family = [root]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def status_mb(field: str, pid: int | None = None) -> float:
    """A size that the kernel tells of a process, this one by default; 0 for one that is gone.

    Args:
        field: `VmHWM`, its largest resident set so far; `RssAnon`, what it has now without pages of files.
    """
    return int(_status(os.getpid() if pid is None else pid).get(field, "0 kB").split()[0]) / 1024


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


if __name__ == "__main__":
    main("memory", measure, __doc__)
