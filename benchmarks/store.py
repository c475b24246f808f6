"""The store: shuffled reads of clips warm and cold, single vectors, whole-shard writes.

Features are synthetic (600 clips x 160 steps x 1536 float16 by default). Peers read the same bytes: np.memmap of one
flat file (the limit), zarr-python on the same store, h5py with one chunk per clip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import reelbank.store
from reelbank.benchmarks.measuring import Stage, Timing, interleaved, main
from reelbank.store.shards import write_shard
from reelbank.store.testing import write_store

TAP, STEPS, DIMENSION = "cls4", 160, 1536
BATCH = 32
NUM_LABELS = 27


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        cold_clips: clips of the store that is read with a cold cache; it must be much larger than one read-ahead.
    """

    clips: int
    cold_clips: int
    cold_reads: int
    written_clips: int
    repeats: int
    cold_repeats: int


SIZES = {
    "tiny": Size(clips=12, cold_clips=12, cold_reads=6, written_clips=4, repeats=2, cold_repeats=1),
    "normal": Size(clips=600, cold_clips=1500, cold_reads=400, written_clips=256, repeats=9, cold_repeats=3),
    "full": Size(clips=2476, cold_clips=2476, cold_reads=600, written_clips=512, repeats=15, cold_repeats=7),
}


@dataclass(frozen=True, kw_only=True)
class Copies:
    """The same features three times."""

    store: Path
    flat: Path
    hdf5: Path
    clips: int


def measure(scale: str, work: Path) -> Stage:
    """All store rows."""
    size, stage = SIZES[scale], Stage()
    copies = prepare(work, size.clips)
    stage.inputs["features"] = {"clips": size.clips, "steps": STEPS, "dimension": DIMENSION, "dtype": "float16"}
    _warm(stage, copies, size)
    _single(stage, copies, size)
    cold = copies if size.cold_clips == size.clips else prepare(work, size.cold_clips)
    _cold(stage, cold, size)
    _write(stage, work, size)
    return stage


def prepare(work: Path, clips: int) -> Copies:
    """The copies of `clips` clips, made unless they are there."""
    import h5py

    folder = work / f"features-{clips}"
    copies = Copies(store=folder / "s.zarr", flat=folder / "flat.bin", hdf5=folder / "chunked.h5", clips=clips)
    if (folder / "complete").exists():
        return copies
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arrays = [features(row) for row in range(clips)]
    about = [
        {"clip_id": f"c{row}", "label": str(row % NUM_LABELS), "split": "train", "kcal": row * 997 % 1000.0}
        for row in range(clips)
    ]
    write_store(copies.store, {TAP: arrays}, about, fixed_steps=STEPS)
    flat = np.memmap(copies.flat, np.float16, "w+", shape=(clips, STEPS, DIMENSION))
    with h5py.File(copies.hdf5, "w") as file:
        data = file.create_dataset(TAP, flat.shape, np.float16, chunks=(1, STEPS, DIMENSION))
        for row, array in enumerate(arrays):
            flat[row] = data[row] = array
    flat.flush()
    (folder / "complete").touch()
    return copies


def features(row: int) -> npt.NDArray[np.float16]:
    """(STEPS, DIMENSION) of one clip: a slow drift in time and per-channel scales."""
    generator = np.random.default_rng(row)
    drift = np.repeat(generator.normal(size=(STEPS // 8, DIMENSION)), 8, axis=0)
    return (drift + 0.3 * generator.normal(size=drift.shape)).astype(np.float16)


def _warm(stage: Stage, copies: Copies, size: Size) -> None:
    """Shuffled clips copied out of the page cache, one per read and in batches."""
    import h5py
    import zarr

    rows = np.random.default_rng(0).permutation(copies.clips).tolist()
    few = rows[: max(1, len(rows) // 8)]
    batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    store = reelbank.store.open(copies.store)
    flat = np.memmap(copies.flat, np.float16, "r", shape=(copies.clips, STEPS, DIMENSION))
    array: Any = zarr.open_array(copies.store / "features" / TAP, mode="r")
    with h5py.File(copies.hdf5) as file:
        data = file[TAP]
        for row in (0, copies.clips - 1):
            _check_same(store.read(TAP, row)[0], flat[row], np.asarray(array[row, 0]), data[row])
        times = interleaved(
            {
                "ours": lambda: _each(rows, lambda row: store.read(TAP, row)[0].copy()),
                "memmap": lambda: _each(rows, lambda row: np.array(flat[row])),
                "h5py": lambda: _each(rows, lambda row: data[row]),
                "zarr": lambda: _each(few, lambda row: array[row, 0]),
                "ours batched": lambda: _each(batches, lambda batch: store.gather(TAP, batch)),
                "memmap batched": lambda: _each(batches, lambda batch: flat[batch]),
            },
            size.repeats,
        )
    by_zarr = Timing(seconds=tuple(value * len(rows) / len(few) for value in times["zarr"].seconds))
    what, ours = "shuffled clips, one per read, page cache warm", times["ours"]
    stage.compare("store.warm.memmap", what, ours, "np.memmap, one flat file", times["memmap"], "<= 1.4")
    note = f"peer scaled down: 1 clip of {len(rows) // len(few)}"
    stage.compare("store.warm.zarr", what, ours, "zarr-python, same store", by_zarr, ">= 20", note)
    stage.compare("store.warm.h5py", what, ours, "h5py, one chunk per clip", times["h5py"], ">= 4")
    what = f"batches of {BATCH} shuffled clips, page cache warm"
    batched = times["memmap batched"]
    stage.compare("store.gather.memmap", what, times["ours batched"], "np.memmap, one flat file", batched, "<= 1.4")


def _each(items: Iterable[Any], read: Callable[[Any], Any]) -> None:
    """Reads the items and keeps none, so that every side writes into memory that it used before."""
    for item in items:
        read(item)


def _single(stage: Stage, copies: Copies, size: Size) -> None:
    """One clip at a time without a copy, as a loop over clips reads them."""
    rows = np.random.default_rng(1).permutation(copies.clips).tolist()
    store = reelbank.store.open(copies.store)
    flat = np.memmap(copies.flat, np.float16, "r", shape=(copies.clips, STEPS, DIMENSION))
    times = interleaved(
        {
            "ours": lambda: [store.read(TAP, row)[0, 7].copy() for row in rows],
            "memmap": lambda: [flat[row, 7].copy() for row in rows],
        },
        size.repeats,
    )
    what = "one vector of a shuffled clip, page cache warm"
    stage.compare("store.vector", what, times["ours"], "np.memmap, one flat file", times["memmap"], "<= 5")


def _cold(stage: Stage, copies: Copies, size: Size) -> None:
    """Each read in a fresh process after the files left the page cache."""
    what = f"{size.cold_reads} shuffled clips, cold page cache, fresh process"
    seconds: dict[str, list[float]] = {"ours": [], "memmap": [], "h5py": []}
    for _ in range(size.cold_repeats):
        for name in seconds:
            for path in [copies.flat, copies.hdf5, *copies.store.rglob("*")]:
                _forget(path)
            command = [sys.executable, __file__, "--cold", name, str(copies.store.parent), str(size.cold_reads)]
            seconds[name].append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    times = {name: Timing(seconds=tuple(values)) for name, values in seconds.items()}
    stage.compare("store.cold.memmap", what, times["ours"], "np.memmap, one flat file", times["memmap"], ">= 2")
    stage.compare("store.cold.h5py", what, times["ours"], "h5py, one chunk per clip", times["h5py"], ">= 1.2")


def _forget(path: Path) -> None:
    """Drops the pages of a file from the page cache."""
    if path.is_file():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cold_read(name: str, folder: Path, reads: int) -> float:
    """Seconds of one cold pass; opening is not in it for any side, since no feature byte is read by it."""
    import h5py

    clips = int(folder.name.removeprefix("features-"))
    rows = np.random.default_rng(2).permutation(clips)[:reads]
    batches = [part.tolist() for part in np.array_split(rows, max(1, len(rows) // BATCH))]
    store = reelbank.store.open(folder / "s.zarr")
    assert len(store.clips.status) == clips  # the ledger is read before the clock starts
    flat = np.memmap(folder / "flat.bin", np.float16, "r", shape=(clips, STEPS, DIMENSION))
    data = h5py.File(folder / "chunked.h5")[TAP]
    reading: dict[str, Callable[[list[int]], Any]] = {
        "ours": lambda batch: store.gather(TAP, batch),
        "memmap": lambda batch: flat[batch],
        "h5py": lambda batch: np.stack([data[row] for row in batch]),
    }
    started = time.perf_counter()
    for batch in batches:
        reading[name](batch)
    return time.perf_counter() - started


def _write(stage: Stage, work: Path, size: Size) -> None:
    """Features in memory to shards in the page cache, neither side flushed to disk."""
    import zarr

    clips, per_shard = size.written_clips, min(64, size.written_clips)
    data = np.stack([features(row) for row in range(min(16, clips))])
    data = np.concatenate([data] * -(-clips // len(data)))[:clips, None]
    folder = work / "written"

    def by_zarr() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        array = zarr.create_array(
            folder, shape=data.shape, dtype="float16", chunks=(1, 1, STEPS, DIMENSION),
            shards=(per_shard, 1, STEPS, DIMENSION), compressors=None, fill_value=0,
        )  # fmt: skip
        for start in range(0, clips, per_shard):
            array[start : start + per_shard] = data[start : start + per_shard]

    def by_reelbank() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for number, start in enumerate(range(0, clips, per_shard)):
            path = folder / "c" / str(number) / "0" / "0" / "0"
            part = data[start : start + per_shard, 0]
            write_shard(path, len(part), lambda flat, part=part: memoryview(part[flat]).cast("B"), durable=False)

    times = interleaved({"ours": by_reelbank, "zarr": by_zarr}, max(2, size.repeats // 2))
    shutil.rmtree(folder, ignore_errors=True)
    what = f"{clips} clips of {STEPS} x {DIMENSION} float16 into whole shards, page cache"
    stage.compare("store.write", what, times["ours"], "zarr-python, same array", times["zarr"], ">= 4")


def _check_same(*arrays: Any) -> None:
    if any(not np.array_equal(arrays[0], other) for other in arrays[1:]):
        raise AssertionError("the copies of the features differ")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cold"]:
        print(cold_read(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
    else:
        main("store", measure, __doc__)
