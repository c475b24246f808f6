"""Chunks of plain arrays read without zarr-python, which takes some 0.7 ms for each.

A store of all frames of its clips has a unit for every ten of them, and a chunk of twenty arrays for every unit:
opening one took seconds. Only the codecs that this project writes are read here; `plan` says of others that it does not
know them, and zarr-python reads those.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import DAMAGED, StoreError
from reelbank.store.files import regular
from reelbank.store.sums import crc32c

NUMBERS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip
TEXT = "string"
_FILLS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SUM_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the chunks of one array are cut and coded.

    Attributes:
        shape: of the array; the clip axis is the first.
        chunk: sizes of one chunk, which is a file.
        dtype: of the values, in the order of bytes in which they are stored.
        fill: what stands for a chunk that is not there.
        is_zstd: whether a chunk is a zstd frame.
        is_summed: whether its crc32c follows it.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    is_zstd: bool
    is_summed: bool

    def read(self, folder: Path, start: int, stop: int) -> NDArray[Any]:
        """Rows (n, ...) of the array in `folder`, fewer where it ends before.

        Raises:
            StoreError: bytes do not match their sum.
            ValueError, RuntimeError: they are not what the codecs make.
        """
        start, stop = min(start, self.shape[0]), min(stop, self.shape[0])
        unit, tail = self.chunk[0], self.shape[1:]
        out = np.full((max(stop - start, 0), *tail), self.fill, dtype=self.dtype)
        grid = [range(-(-size // cut)) for size, cut in zip(tail, self.chunk[1:], strict=True)]
        for first in range(start // unit, -(-stop // unit)):
            rows = slice(max(first * unit, start) - start, min((first + 1) * unit, stop) - start)
            for position in itertools.product(*grid):
                values = self._chunk(folder.joinpath("c", str(first), *map(str, position)))
                if values is None:
                    continue
                spans = [slice(i * cut, (i + 1) * cut) for i, cut in zip(position, self.chunk[1:], strict=True)]
                into = out[(rows, *spans)]
                skipped = rows.start + start - first * unit
                into[...] = values[(slice(skipped, skipped + len(into)), *(slice(n) for n in into.shape[1:]))]
        return out

    def _chunk(self, path: Path) -> NDArray[Any] | None:
        try:
            data = regular(path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None  # as zarr-python takes it
        if self.is_summed:
            data, told = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
            if told != crc32c(data).to_bytes(_SUM_BYTES, "little"):
                raise StoreError(f"{path.parents[len(self.shape)]}: bytes do not match their crc32c: {DAMAGED}")
        if self.is_zstd:
            from numcodecs.zstd import Zstd

            data = bytes(Zstd().decode(data))
        if self.dtype.kind == "T":
            from numcodecs.vlen import VLenUTF8

            return np.asarray(VLenUTF8().decode(data)).astype(self.dtype).reshape(self.chunk)
        return np.frombuffer(data, dtype=self.dtype).reshape(self.chunk)


def plan(document: Mapping[str, Any]) -> Plan | None:
    """How to read the array of a zarr.json that `arrays.check_array` accepts; None where zarr-python must."""
    kind, codecs = document["data_type"], document["codecs"]
    names = [codec["name"] for codec in codecs]
    is_text = kind == TEXT
    if names[0] != ("vlen-utf8" if is_text else "bytes") or names[1:] not in (
        [], ["zstd"], ["crc32c"], ["zstd", "crc32c"],
    ):  # fmt: skip
        return None
    encoding = document["chunk_key_encoding"]
    if (
        not (is_text or kind in NUMBERS)
        or codecs[0].get("configuration", {}).get("endian", "little") != "little"
        or document["chunk_grid"]["name"] != "regular"
        or (encoding["name"], encoding.get("configuration", {}).get("separator", "/")) != ("default", "/")
        or document.get("storage_transformers")
        or not document["shape"]
    ):
        return None
    dtype: np.dtype[Any] = np.dtypes.StringDType() if is_text else np.dtype(kind).newbyteorder("<")
    given = document["fill_value"]
    if isinstance(given, str) != is_text and not (dtype.kind == "f" and given in _FILLS):
        return None
    return Plan(
        shape=tuple(document["shape"]),
        chunk=tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
        dtype=dtype,
        fill=given if is_text else dtype.type(_FILLS[given] if isinstance(given, str) else given),
        is_zstd="zstd" in names,
        is_summed="crc32c" in names,
    )
