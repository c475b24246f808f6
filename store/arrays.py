"""Arrays of a store that are read through zarr-python: what zarr.json asks for is judged before it is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.files import read_json, reading

MAX_CHUNK_VALUES = 2**28
"""Of an array that is read as a whole: a value for each step of each clip of a unit fits many times over."""
MAX_AXIS = 2**48


class Described(Protocol):
    """What this version makes of an array: `layout.Definition`."""

    @property
    def dtype(self) -> str: ...
    @property
    def tail(self) -> tuple[int, ...]: ...
    @property
    def dimensions(self) -> tuple[str, ...]: ...


def open_array(path: Path) -> Any:
    """The array in the folder `path`, to be read. Raises StoreError naming it if it is damaged."""
    import zarr

    check_array(path, read_json(path / "zarr.json"))
    with reading(path / "zarr.json"):
        return zarr.open_array(path, mode="r")


def read_rows(path: Path, start: int, stop: int, definition: Described | None) -> NDArray[Any]:
    """Rows of an array; fill past its end.

    Args:
        definition: what this version makes of it, so that its other axes are known; None where it is not of it.

    Raises:
        StoreError: the array is damaged; it is named.
    """
    array = open_array(path)
    if definition is not None:
        axes = zip(definition.dimensions[1:], definition.tail, strict=True)
        wanted = [None if name == "step" else size for name, size in axes]  # the axis of steps grows
        found = array.shape[1:]
        if len(found) != len(wanted) or any(b not in (None, a) for a, b in zip(found, wanted, strict=True)):
            raise StoreError(f"{path}: shape = {array.shape}, expected (clip, {wanted}): it is damaged")
        if (array.dtype.kind in "TUO") != (definition.dtype == "str") or array.dtype.kind in "SVO":
            raise StoreError(f"{path} holds {array.dtype}, expected {definition.dtype}: it is damaged")
    with reading(path):
        values = np.asarray(array[start:stop])
        if (short := stop - start - len(values)) <= 0:
            return values
        return np.concatenate([values, np.full((short, *values.shape[1:]), array.fill_value, dtype=values.dtype)])


def check_array(path: Path, meta: Mapping[str, Any]) -> None:
    """Raises StoreError unless zarr.json describes an array whose sizes make sense."""
    with reading(path / "zarr.json"):
        shape, chunks = meta["shape"], meta["chunk_grid"]["configuration"]["chunk_shape"]
        for sizes, least in ((shape, 0), (chunks, 1)):
            if not isinstance(sizes, list) or not all(
                isinstance(n, int) and not isinstance(n, bool) and least <= n <= MAX_AXIS for n in sizes
            ):
                raise StoreError(f"{path / 'zarr.json'}: {str(sizes)[:60]} are no sizes of axes: it is damaged")
        if len(shape) != len(chunks):
            raise StoreError(f"{path / 'zarr.json'}: {shape = } and {chunks = } do not fit: it is damaged")
        codecs = meta["codecs"]
        sharded = isinstance(codecs, list) and codecs and codecs[0].get("name") == "sharding_indexed"
        if not sharded and math.prod(chunks) > MAX_CHUNK_VALUES:
            raise StoreError(f"{path / 'zarr.json'}: a chunk of {chunks} is too large: it is damaged")
