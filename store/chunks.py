"""Chunks of plain arrays without zarr-python, which takes some 0.7 ms to read one and 3 ms to write one.

A store of all frames of its clips has a unit for every ten of them, and a chunk of twenty arrays for every unit:
opening one took seconds. Only the codecs that this project writes are known here; `plan` says so of others, and
zarr-python takes care of those. What is written has the same bytes as what zarr-python writes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import DAMAGED, StoreError
from reelbank.store.files import regular, replacing
from reelbank.store.sums import crc32c

NUMBERS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip
TEXT = "string"
_FILLS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SUM_BYTES = 4
_MOST_LEVEL = 22
_Slices = tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the chunks of one array are cut and coded.

    Attributes:
        shape: of the array; the clip axis is the first.
        chunk: sizes of one chunk, which is a file.
        dtype: of the values, in the order of bytes in which they are stored.
        fill: what stands for a chunk that is not there.
        zstd: level and checksum of the zstd frame that a chunk is; None where it is none.
        is_summed: whether its crc32c follows it.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    zstd: Mapping[str, Any] | None
    is_summed: bool

    def read(self, folder: Path, start: int, stop: int) -> NDArray[Any]:
        """Rows (n, ...) of the array in `folder`, fewer where it ends before.

        Raises:
            StoreError: bytes do not match their sum.
            ValueError, RuntimeError: they are not what the codecs make.
        """
        start, stop = min(start, self.shape[0]), min(stop, self.shape[0])
        out = np.full((max(stop - start, 0), *self.shape[1:]), self.fill, dtype=self.dtype)
        for path, outer, inner in self._pieces(folder, start, stop):
            values = self._chunk(path)
            if values is not None:
                out[outer] = values[inner]
        return out

    def write(self, folder: Path, start: int, values: NDArray[Any]) -> None:
        """Replaces rows from `start` on by `values` (n, ...), each chunk in one step.

        A chunk that has further rows is read for them, and all are before the first is written. Past the end of the
        array a chunk holds fill. Every chunk is written, also one that is all fill.

        Raises:
            StoreError, ValueError, RuntimeError: a chunk that was to be read is damaged, as in `read`.
            ValueError: `values` do not fit into the array.
        """
        stop = start + len(values)
        if values.shape[1:] != self.shape[1:] or not 0 <= start <= stop <= self.shape[0]:
            raise ValueError(f"{values.shape = } from row {start} on, expected rows of an array of {self.shape}")
        values = values.astype(self.dtype, copy=False)
        encoded = []
        for path, outer, inner in self._pieces(folder, start, stop):
            first = start + outer[0].start - inner[0].start
            is_whole = inner[0] == slice(0, min(self.chunk[0], self.shape[0] - first))
            held = None if is_whole else self._chunk(path)
            chunk = np.full(self.chunk, self.fill, dtype=self.dtype) if held is None else held.copy()
            chunk[inner] = values[outer]
            encoded.append((path, self._encoded(chunk)))
        for path, data in encoded:
            with replacing(path) as file:
                file.write(data)

    def _pieces(self, folder: Path, start: int, stop: int) -> Iterator[tuple[Path, _Slices, _Slices]]:
        """Of each chunk of these rows: its file, what of the rows it holds, and where in the chunk that is."""
        if start >= stop:
            return
        unit, tail = self.chunk[0], self.shape[1:]
        grid = [range(-(-size // cut)) for size, cut in zip(tail, self.chunk[1:], strict=True)]
        for number in range(start // unit, -(-stop // unit)):
            first, last = max(number * unit, start), min((number + 1) * unit, stop)
            for position in itertools.product(*grid):
                spans = [
                    slice(i * cut, min((i + 1) * cut, size))
                    for i, cut, size in zip(position, self.chunk[1:], tail, strict=True)
                ]
                outer = slice(first - start, last - start), *spans
                inner = slice(first - number * unit, last - number * unit), *(slice(s.stop - s.start) for s in spans)
                yield folder.joinpath("c", str(number), *map(str, position)), outer, inner

    def _chunk(self, path: Path) -> NDArray[Any] | None:
        try:
            data = regular(path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None  # as zarr-python takes it
        if self.is_summed:
            data, told = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
            if told != crc32c(data).to_bytes(_SUM_BYTES, "little"):
                raise StoreError(f"{path.parents[len(self.shape)]}: bytes do not match their crc32c: {DAMAGED}")
        if self.zstd is not None:
            from numcodecs.zstd import Zstd

            data = bytes(Zstd().decode(data))
        if self.dtype.kind == "T":
            from numcodecs.vlen import VLenUTF8

            return np.asarray(VLenUTF8().decode(data)).astype(self.dtype).reshape(self.chunk)
        return np.frombuffer(data, dtype=self.dtype).reshape(self.chunk)

    def _encoded(self, values: NDArray[Any]) -> bytes:
        if self.dtype.kind == "T":
            from numcodecs.vlen import VLenUTF8

            data = bytes(VLenUTF8().encode(values))
        else:
            data = values.tobytes()
        if self.zstd is not None:
            from numcodecs.zstd import Zstd

            data = bytes(Zstd(**self.zstd).encode(data))
        return data + crc32c(data).to_bytes(_SUM_BYTES, "little") if self.is_summed else data


def plan(document: Mapping[str, Any]) -> Plan | None:
    """How to read and write the array of a zarr.json that `arrays.check_array` accepts; None where zarr-python must."""
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
    zstd = next((codec.get("configuration") for codec in codecs if codec["name"] == "zstd"), None)
    if "zstd" in names and not _is_known(zstd):
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
        zstd=zstd,
        is_summed="crc32c" in names,
    )


def _is_known(zstd: Any) -> bool:
    """Whether a configuration of the codec zstd says what zarr-python lets it say."""
    if not isinstance(zstd, dict) or zstd.keys() != {"level", "checksum"}:
        return False
    return type(zstd["level"]) is int and zstd["level"] <= _MOST_LEVEL and type(zstd["checksum"]) is bool
