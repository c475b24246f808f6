"""An export as one HDF5 file.

Both layouts hold `reelbank` (the header as JSON text), `manifest/<column>` and `ledger/<name>` (one value per clip of
the manifest) and, for int8, `int8/<tap>/scale` and `offset`.

groups: `clips/<name>` per clip with features, attributes clip_id, label, split, group and targets; in it a dataset
    (T, *axes) per tap, step_seconds and frame_index (T,).
array: `features/<tap>` (all steps, *axes), `step_seconds` and `frame_index` (all steps,), `start` and `length` (one
    per row of `manifest/`): clip i is `features/<tap>[start[i] : start[i] + length[i]]`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import h5py
import numpy as np
from numpy.typing import NDArray

from reelbank.store.exchange.selection import Selection
from reelbank.store.exchange.table import file_name

TEXT_ATTRIBUTES = ("label", "split", "group")


def write_groups(selection: Selection, path: Path) -> None:
    """A group per clip."""
    with _written(path) as (file, check):
        _describe(file, selection)
        clips = file.create_group("clips")
        for count, i in enumerate(selection.done, start=1):
            group = clips.create_group(file_name(selection.clip_ids[i]))
            group.attrs["clip_id"] = selection.clip_ids[i]
            for name in TEXT_ATTRIBUTES:
                group.attrs[name] = str(selection.columns[f"manifest/{name}"][i])
            for name in selection.store.target_names:
                group.attrs[name] = float(selection.columns[f"manifest/{name}"][i])
            for tap in selection.taps:
                shape = (int(selection.num_steps[i]), *tap.shape)
                dataset = group.create_dataset(tap.name, shape=shape, dtype=selection.dtype(tap))
                _fill(dataset, selection, tap, i, 0, check)
            for name, values in selection.times(i).items():
                group.create_dataset(name, data=values)
            check()
            selection.tell(count)


def write_array(selection: Selection, path: Path) -> None:
    """One array per tap, and where in it each clip lies."""
    length = selection.num_steps
    start = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64) if len(length) else length
    total = int(length.sum())
    with _written(path) as (file, check):
        _describe(file, selection)
        file.create_dataset("start", data=start)
        file.create_dataset("length", data=length)
        times = {
            "step_seconds": file.create_dataset("step_seconds", shape=(total,), dtype="float64"),
            "frame_index": file.create_dataset("frame_index", shape=(total,), dtype="int64"),
        }
        features = file.create_group("features")
        arrays = {
            tap.name: features.create_dataset(tap.name, shape=(total, *tap.shape), dtype=selection.dtype(tap))
            for tap in selection.taps
        }
        for count, i in enumerate(selection.done, start=1):
            for tap in selection.taps:
                _fill(arrays[tap.name], selection, tap, i, int(start[i]), check)
            for name, values in selection.times(i).items():
                times[name][int(start[i]) : int(start[i]) + len(values)] = values
            check()
            selection.tell(count)


@contextmanager
def _written(path: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """An open HDF5 file that is written to `path`, and what raises OSError if the disk did not take all so far.

    The HDF5 library dies of a segmentation fault when it cannot write what it still holds while it closes a file
    (HDF5 1.14), so it never hears of an error: it is remembered here, and what follows is kept in memory.
    """
    with path.open("w+b", buffering=0) as raw:
        target = _Target(raw)
        with h5py.File(target, "w") as file:
            yield file, target.raise_error
        target.raise_error()


class _Target:
    """What h5py writes to, with the methods that it wants of a file: a file until it takes no more, then memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._at, self._end = file, 0, 0
        self._error: OSError | None = None
        self._rest: list[tuple[int, bytes]] = []

    def raise_error(self) -> None:
        """Raises what went wrong."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._error is None:
            try:
                _write_all(self._file.fileno(), view, self._at)
            except OSError as error:
                self._error = error
        if self._error is not None:
            self._rest.append((self._at, bytes(view)))
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def read(self, num_bytes: int) -> bytes:
        data = bytearray(num_bytes)
        self.readinto(data)
        return bytes(data)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        found = os.pread(self._file.fileno(), len(view), self._at)
        view[: len(found)] = found
        for at, data in self._rest:
            first, end = max(at, self._at), min(at + len(data), self._at + len(view))
            if first < end:
                view[first - self._at : end - self._at] = data[first - at : end - at]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        if self._error is None:
            try:
                os.ftruncate(self._file.fileno(), size)
            except OSError as error:
                self._error = error
        self._end = size
        return size

    def flush(self) -> None:
        """Nothing waits here."""


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while len(view):
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _fill(dataset: Any, selection: Selection, tap: Any, i: int, start: int, check: Callable[[], None]) -> None:
    for block in selection.blocks(tap, i):
        dataset[start : start + len(block)] = block
        check()
        start += len(block)


def _describe(file: Any, selection: Selection) -> None:
    file.create_dataset("reelbank", data=json.dumps(selection.header), dtype=h5py.string_dtype())
    for name, values in selection.columns.items():
        folder, _, own = name.partition("/")
        dataset = file.create_dataset(f"{folder}/{quote(own, safe=' ').replace('.', '%2E')}", **_column(values))
        dataset.attrs["name"] = own
    for tap, channels in selection.channels.items():
        file.create_dataset(f"int8/{tap}/scale", data=channels.scale)
        file.create_dataset(f"int8/{tap}/offset", data=channels.offset)


def _column(values: NDArray[Any]) -> dict[str, Any]:
    if values.dtype.kind != "O":
        return {"data": values}
    return {"data": [str(value) for value in values], "dtype": h5py.string_dtype(), "shape": values.shape}
