"""Zarr v3 shards without zarr-python: written whole, read through the shard's own index.

A shard of the `sharding_indexed` codec (zarr-specs, codecs/sharding-indexed v1.0) is its chunks back to
back, then per chunk (offset, nbytes) as little-endian u64 in C order of the chunk grid, then the crc32c
of that index as u32. zarr-python costs about a millisecond per read call and rewrites a shard for each
chunk; reading the index ourselves makes shuffled reads as fast as np.memmap, and the files stay plain Zarr.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from google_crc32c import extend, value
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.files import read_json, replacing, write_json

ABSENT = 2**64 - 1


def crc32c(data: bytes | memoryview) -> int:
    """crc32c (Castagnoli, RFC 3720) of `data`."""
    return int(value(bytes(data)))


def crc32c_extend(crc: int, data: bytes | memoryview) -> int:
    """crc32c of what was already summed in `crc`, followed by `data`."""
    return int(extend(crc, bytes(data)))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How one array is cut: shape, shard shape and chunk shape, all of the same length.

    Attributes:
        shape: (clip, view, step, *axes) or fewer axes; the clip axis is the first.
        shard: sizes of one file.
        chunk: sizes of one piece inside it; divides `shard`.
        compressed: whether chunks are zstd frames.
    """

    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    compressed: bool

    @property
    def chunk_grid(self) -> tuple[int, ...]:
        """Number of chunks of one shard along each axis."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of one uncompressed chunk."""
        return int(np.prod(self.chunk)) * np.dtype(self.dtype).itemsize

    def shard_path(self, folder: Path, position: tuple[int, ...]) -> Path:
        """File of the shard at `position` of the shard grid."""
        return folder.joinpath("c", *(str(p) for p in position))


ZSTD_LEVEL = 1


def compress(data: bytes) -> bytes:
    """One zstd-1 frame, as Zarr's `zstd` codec writes it."""
    from numcodecs.zstd import Zstd

    return bytes(Zstd(level=ZSTD_LEVEL).encode(data))


def decompress(data: bytes | memoryview) -> bytes:
    """The bytes of one zstd frame. Raises StoreError if it is damaged."""
    from numcodecs.zstd import Zstd

    try:
        return bytes(Zstd(level=ZSTD_LEVEL).decode(bytes(data)))
    except (RuntimeError, ValueError) as error:
        raise StoreError(f"a compressed chunk is damaged: {error}") from error


class Chunks(Protocol):
    """Where the encoded bytes of the chunk at a flat position of the chunk grid come from; None if absent."""

    def __call__(self, flat: int) -> bytes | memoryview | None: ...


def write_shard(path: Path, num_chunks: int, chunks: Chunks, *, durable: bool = True) -> int:
    """Writes a whole shard and renames it into place; one chunk is in memory at a time.

    Args:
        path: file to write.
        num_chunks: chunks of the shard, absent ones included.
        chunks: asked once per flat position, ascending.
        durable: fsync before the rename.

    Returns:
        Number of chunks present.
    """
    index = np.full((num_chunks, 2), ABSENT, dtype="<u8")
    offset = 0
    with replacing(path, durable=durable) as file:
        for flat in range(num_chunks):
            data = chunks(flat)
            if data is None:
                continue
            file.write(data)
            index[flat] = offset, len(data)
            offset += len(data)
        raw = index.tobytes()
        file.write(raw + np.uint32(crc32c(raw)).astype("<u4").tobytes())
    return int((index[:, 0] != ABSENT).sum())


class Shard:
    """One shard file, memory-mapped; its index is read and checked once."""

    def __init__(self, path: Path, num_chunks: int) -> None:
        """Maps `path`. Raises StoreError if the file is shorter than its index or the index is damaged."""
        self.path = path
        size = num_chunks * 16 + 4
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length < size:
                raise StoreError(f"{path} has {length} bytes, fewer than its index of {size}: it is damaged")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.view = memoryview(self._map)
        raw = self.view[length - size : length - 4]
        stored = int(np.frombuffer(self.view[length - 4 :], dtype="<u4")[0])
        if crc32c(raw) != stored:
            raise StoreError(f"{path}: the shard index does not match its crc32c: it is damaged")
        self.index: NDArray[np.uint64] = np.frombuffer(raw, dtype="<u8").reshape(num_chunks, 2)
        present = self.index[:, 0] != ABSENT
        self.spans = [
            (int(start), int(start + count)) if there else None
            for (start, count), there in zip(self.index.tolist(), present.tolist(), strict=True)
        ]
        if present.any() and int(self.index[present].sum(axis=1).max()) > length - size:
            raise StoreError(f"{path}: the shard index points past the file: it is damaged")

    def chunk(self, flat: int) -> memoryview | None:
        """Encoded bytes of the chunk at a flat position, without a copy; None if it is absent."""
        span = self.spans[flat]
        return None if span is None else self.view[span[0] : span[1]]


def open_shard(path: Path, num_chunks: int) -> Shard | None:
    """The shard at `path`, or None where no such file was written (all fill values)."""
    try:
        return Shard(path, num_chunks)
    except FileNotFoundError:
        return None


def read_grid(folder: Path) -> tuple[Grid, dict[str, Any]]:
    """The grid of the sharded array in `folder`, and its metadata.

    Raises:
        StoreError: if the array is not sharded with the codecs that this reader knows.
    """
    meta = read_json(folder / "zarr.json")
    try:
        (codec,) = meta["codecs"]
        inner = codec["configuration"]
        names = [c["name"] for c in inner["codecs"]]
        if codec["name"] != "sharding_indexed" or names not in (["bytes"], ["bytes", "zstd"]):
            raise StoreError(f"{folder}: codecs {codec['name']} {names} are not those of a reelbank store")
        if inner.get("index_location", "end") != "end":
            raise StoreError(f"{folder}: the shard index is not at the end of the file")
        grid = Grid(
            shape=tuple(meta["shape"]),
            shard=tuple(meta["chunk_grid"]["configuration"]["chunk_shape"]),
            chunk=tuple(inner["chunk_shape"]),
            dtype=meta["data_type"],
            compressed="zstd" in names,
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{folder}/zarr.json does not describe a sharded Zarr v3 array: {error}") from error
    return grid, meta


def grow(folder: Path, minimum: Iterable[int | None]) -> None:
    """Makes the array at least as large as `minimum` (None: leave the axis); chunks that are absent are fill."""
    path = folder / "zarr.json"
    meta = read_json(path)
    shape = [old if new is None else max(old, new) for old, new in zip(meta["shape"], minimum, strict=True)]
    if shape != meta["shape"]:
        write_json(path, {**meta, "shape": shape})
