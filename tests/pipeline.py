"""What the tests of the extraction pipeline share: a small video set, and what two stores must have in common."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import reelbank.store
from reelbank.extract import FeaturizeConfig, featurize
from reelbank.extract.run import pool, worker
from reelbank.extract.run.report import FeaturizeReport

MODEL = "flow:dis"
COMPARED = ("status", "num_steps", "step_seconds", "frame_index", "reason", "content_hash")


def run(folder: Path, **options: Any) -> FeaturizeReport:
    """`featurize` on folder/manifest.csv into folder/<model>.zarr."""
    settings: dict[str, Any] = {"model": (MODEL,), "manifest": folder / "manifest.csv", "workers": 2}
    settings |= {"out": str(folder / "{model}.zarr"), "sampling": ("uniform:4",)} | options
    return featurize(FeaturizeConfig(**settings))


def run_patched(folder: Path, patch: str, **options: Any) -> dict[str, Any]:
    """`run` whose workers execute `patch` before anything else."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(pool, "work", partial(_patched_work, patch))
        result: dict[str, Any] = json.loads(json.dumps(run(folder, **options).to_json()))
    return result


def _patched_work(patch: str, *arguments: Any) -> None:
    exec(patch, {})
    worker.work(*arguments)


def store_of(folder: Path, model: str = MODEL) -> Path:
    return folder / f"{model.replace(':', '-')}.zarr"


def copy_set(source: Path, target: Path, lines: slice = slice(None)) -> Path:
    """The video set of `source` in `target`, with only `lines` of its manifest."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "videos", target / "videos", copy_function=shutil.copy2)
    write_lines(target, read_lines(source)[0], read_lines(source)[1][lines])
    return target


def read_lines(folder: Path) -> tuple[str, list[str]]:
    header, *rows = (folder / "manifest.csv").read_text().splitlines()
    return header, rows


def write_lines(folder: Path, header: str, rows: list[str]) -> None:
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")


def assert_same_store(one: Path, other: Path) -> None:
    """Everything that DESIGN names bit-identical is, clip by clip, whatever the order of the rows."""
    a, b = reelbank.store.open(one), reelbank.store.open(other)
    rows_b = {clip: row for row, clip in enumerate(b.column("clip_id").tolist())}
    assert set(a.column("clip_id")) == set(rows_b)
    order = [rows_b[clip] for clip in a.column("clip_id")]
    for name in COMPARED:
        left = np.asarray(zarr.open_array(one / "clips" / name, mode="r")[: a.num_clips])
        right = np.asarray(zarr.open_array(other / "clips" / name, mode="r")[: b.num_clips])[order]
        np.testing.assert_array_equal(left, right, err_msg=name)
    for tap in a.taps:
        np.testing.assert_array_equal(a.checksums(tap), b.checksums(tap)[order])
        for row in a.done_rows().tolist():
            np.testing.assert_array_equal(a.read(tap, row), b.read(tap, order[row]))
        if a.taps[tap].is_vector:
            np.testing.assert_array_equal(a.mean(tap), b.mean(tap)[order])
            np.testing.assert_array_equal(a.std(tap), b.std(tap)[order])
