"""What the zarr.json of an array asks for, judged before it is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reelbank.store.errors import StoreError
from reelbank.store.files import reading

MAX_CHUNK_VALUES = 2**28
"""Of an array that is read as a whole: a value for each step of each clip of a unit fits many times over."""
MAX_AXIS = 2**48


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
