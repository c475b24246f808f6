"""Arrays whose chunks are files: everything but features and thumbnails, a value or a row per clip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelbank.store import chunks
from reelbank.store.arrays import check_array
from reelbank.store.errors import DAMAGED, StoreError
from reelbank.store.files import STUMBLES
from reelbank.store.sums import read_summed


class Described(Protocol):
    """What this version makes of an array: `layout.Definition`."""

    @property
    def dtype(self) -> str: ...
    @property
    def tail(self) -> tuple[int, ...]: ...
    @property
    def dimensions(self) -> tuple[str, ...]: ...


class PlainArray:
    """One array, opened by its folder; its chunks are the units of the store."""

    def __init__(self, folder: Path, *, writable: bool = False) -> None:
        """Opens it. Raises StoreError if its zarr.json is absent or damaged."""
        self.folder, self._writable = folder, writable
        self.document = read_summed(folder / "zarr.json")
        check_array(folder, self.document)
        with _named(folder):
            self._plan = chunks.plan(self.document)
            held: Any = self._plan or self._array
            self.shape: tuple[int, ...] = tuple(held.shape)
            self.dtype: np.dtype[Any] = held.dtype
            self.fill = self._array.fill_value if self._plan is None else self._plan.fill
            self.unit_clips = int(self.document["chunk_grid"]["configuration"]["chunk_shape"][0]) if self.shape else 1

    @cached_property
    def _array(self) -> Any:
        import zarr

        from reelbank.store.durable import DurableStore

        # Chunks are written where every value is fill, too: one that is not there has been lost. zarr-python 3.1 takes
        # this from its global settings alone.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_array(DurableStore(self.folder), mode="r+" if self._writable else "r")

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows (n, ...), fewer where the array ends before. Raises StoreError if a chunk is damaged."""
        with _named(self.folder):
            if self._plan is not None:
                return self._plan.read(self.folder, start, stop)
            return np.asarray(self._array[start:stop])

    def read_sound(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Rows as `read` gives them, fill where a chunk is damaged, and (n,) whether a row is of such a chunk."""
        try:
            values = self.read(start, stop)
            return values, np.zeros(len(values), dtype=bool)
        except StoreError:
            parts, lost = [], []
            for first in range(start, min(stop, self.shape[0]), self.unit_clips):
                last = min(first + self.unit_clips, stop, self.shape[0])
                try:
                    parts.append(self.read(first, last))
                    lost.append(np.zeros(last - first, dtype=bool))
                except StoreError:
                    dtype = np.dtypes.StringDType() if self.dtype.kind in "TUO" else self.dtype
                    parts.append(np.full((last - first, *self.shape[1:]), self.fill, dtype=dtype))
                    lost.append(np.ones(last - first, dtype=bool))
            return np.concatenate(parts), np.concatenate(lost)

    def write(self, start: int, values: NDArray[Any]) -> None:
        """Writes rows from `start` on; chunks that they fill are not read.

        Raises StoreError if a chunk that they do not fill is damaged, or the array was opened for reading.
        """
        with _named(self.folder):
            if self._plan is None or not self._writable:  # the latter is refused there
                self._array[start : start + len(values)] = values
            else:
                self._plan.write(self.folder, start, values)

    def require_defined(self, definition: Described) -> None:
        """Raises StoreError unless its axes after `clip` and its kind of values are those of this version."""
        axes = zip(definition.dimensions[1:], definition.tail, strict=True)
        wanted = [None if name == "step" else size for name, size in axes]  # the axis of steps grows
        found = self.shape[1:]
        if len(found) != len(wanted) or any(b not in (None, a) for a, b in zip(found, wanted, strict=True)):
            raise StoreError(f"{self.folder}: shape = {self.shape}, expected (clip, {wanted}): {DAMAGED}")
        if (self.dtype.kind in "TUO") != (definition.dtype == "str") or self.dtype.kind in "SVO":
            raise StoreError(f"{self.folder} holds {self.dtype}, expected {definition.dtype}: {DAMAGED}")

    @property
    def is_summed(self) -> bool:
        """Whether every chunk has a checksum."""
        return "crc32c" in [codec.get("name") for codec in self.document["codecs"]]

    def chunk_path(self, unit: int) -> Path:
        """File of the first chunk of a unit."""
        return self.folder.joinpath("c", str(unit), *("0" for _ in self.shape[1:]))

    def require_stored(self, start: int, stop: int) -> None:
        """Raises StoreError if a chunk of these rows is not there: it would read as fill."""
        for unit in range(start // self.unit_clips, -(-stop // self.unit_clips)):
            if not self.chunk_path(unit).is_file():
                raise StoreError(f"{self.chunk_path(unit)} is not there: {DAMAGED}")

    def damaged_units(self, num_clips: int) -> Iterator[tuple[int, StoreError]]:
        """(unit, error) of each that cannot be read."""
        for unit in range(-(-num_clips // self.unit_clips)):
            try:
                self.read(unit * self.unit_clips, min((unit + 1) * self.unit_clips, num_clips))
            except StoreError as error:
                yield unit, error


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Gives the sentence of a damaged array to what zarr-python raises over it."""
    try:
        yield
    except StoreError:
        raise
    except STUMBLES as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        if "checksum" in said:
            raise StoreError(f"{folder}: bytes do not match their crc32c: {DAMAGED}") from error
        raise StoreError(f"{folder} cannot be read ({said}): {DAMAGED}") from error
