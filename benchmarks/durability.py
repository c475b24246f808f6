"""What it costs that a power cut loses nothing: writing with the flushes as they are, with none, and with more.

The store flushes what a commit of a unit renames; staged clips are not flushed, they are checked before they count.
The peers are the same code with `os.fsync` doing nothing, and with every staged clip flushed too. `frames:112` computes
almost nothing, so the share of the flushes is the greatest that there is. Times depend on the disk below --work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.benchmarks.measuring import Stage, interleaved, main
from reelbank.benchmarks.rendering import properties, render
from reelbank.extract import FeaturizeConfig, featurize
from reelbank.store import staging
from reelbank.store.files import sync
from reelbank.store.testing import write_store

MODEL = "frames:112"
FILE_FRAMES = 90
STEPS, DIMENSION = 16, 1024


@dataclass(frozen=True, kw_only=True)
class Size:
    """Videos, clips of them, clips of synthetic features, and repeats."""

    files: int
    clips: int
    written_clips: int
    repeats: int


SIZES = {
    "tiny": Size(files=1, clips=2, written_clips=4, repeats=1),
    "normal": Size(files=12, clips=96, written_clips=1024, repeats=5),
    "full": Size(files=12, clips=480, written_clips=4096, repeats=9),
}


def measure(scale: str, work: Path) -> Stage:
    """All rows."""
    size, stage = SIZES[scale], Stage()
    files = [render(work, "mpeg4-avi", num_frames=FILE_FRAMES, seed=seed) for seed in range(size.files)]
    stage.inputs["mpeg4-avi"] = properties(files[0]) | {"files": size.files}
    folder = work / "durability"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _featurize(stage, folder, [files[i % size.files] for i in range(size.clips)], size.repeats)
        _write(stage, folder, size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return stage


def _featurize(stage: Stage, folder: Path, clips: list[Path], repeats: int) -> None:
    manifest, out = folder / "manifest.csv", folder / "s.zarr"
    lines = [f"c{i:04d},{clip.resolve()},train,x" for i, clip in enumerate(clips)]
    manifest.write_text("\n".join(["clip_id,video,split,label", *lines]) + "\n")

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        report = featurize(FeaturizeConfig(model=(MODEL,), manifest=manifest, root=Path("/"), out=str(out)))
        if report.has_failures:
            raise AssertionError(report.text())

    times = interleaved({"ours": run, "none": _under(no_flushes, run)}, repeats)
    what = f"featurize {MODEL}, {len(clips)} clips of 320x240, 16 frames"
    stage.compare("durability.featurize", what, times["ours"], "without any flush", times["none"])
    again = interleaved({"ours": _again(manifest, out), "none": _under(no_flushes, _again(manifest, out))}, repeats)
    stage.compare(
        "durability.nothing-to-do", "the same command again", again["ours"], "without any flush", again["none"]
    )


def _again(manifest: Path, out: Path) -> Callable[[], Any]:
    return lambda: featurize(FeaturizeConfig(model=(MODEL,), manifest=manifest, root=Path("/"), out=str(out)))


def _write(stage: Stage, folder: Path, size: Size) -> None:
    out = folder / "w.zarr"
    features: Mapping[str, Any] = {
        "pool": list(np.random.default_rng(0).normal(size=(size.written_clips, STEPS, DIMENSION)).astype(np.float16))
    }
    clips = [{"clip_id": f"c{i:05d}"} for i in range(size.written_clips)]

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        write_store(out, features, clips, fixed_steps=STEPS)

    actions = {"ours": run, "none": _under(no_flushes, run), "clip": _under(staged_flushed, run)}
    times = interleaved(actions, size.repeats)
    what = f"writing a store of {size.written_clips} clips x {STEPS} x {DIMENSION} float16, flushed per unit"
    stage.compare("durability.unit", what, times["ours"], "without any flush", times["none"])
    stage.compare("durability.clip", "the same", times["ours"], "every staged clip flushed too", times["clip"])


@contextmanager
def no_flushes() -> Iterator[None]:
    """Nothing waits for the disk."""
    original = os.fsync
    os.fsync = lambda descriptor: None
    try:
        yield
    finally:
        os.fsync = original


@contextmanager
def staged_flushed() -> Iterator[None]:
    """Every staged clip is on the disk before it counts."""
    original = staging._write_record

    def durably(folder: Path, outcome: staging.Outcome) -> None:
        for file in folder.iterdir():
            sync(file)
        original(folder, outcome)
        for path in (folder / staging.RECORD, folder, folder.parent):
            sync(path)

    staging._write_record = durably
    try:
        yield
    finally:
        staging._write_record = original


def _under(how: Callable[[], Any], action: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> None:
        with how():
            action()

    return run


if __name__ == "__main__":
    main("durability", measure, __doc__)
