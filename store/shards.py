"""Zarr v3 shards without zarr-python: written whole, read through the shard's own index.

A shard of the `sharding_indexed` codec (zarr-specs, codecs/sharding-indexed v1.0) is its chunks back to
back, then per chunk (offset, nbytes) as little-endian u64 in C order of the chunk grid, then the crc32c
of that index as u32. zarr-python costs about a millisecond per read call and rewrites a shard for each
chunk; reading the index ourselves makes shuffled reads as fast as np.memmap, and the files stay plain Zarr.

What is in the page cache is copied by the calling thread. What is not is read by a few threads at once: page
faults of a memory map fetch 128 KiB at a time and one after another, which takes about three times as long.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelbank.store.arrays import check_array
from reelbank.store.errors import StoreError
from reelbank.store.files import replacing
from reelbank.store.spec import DTYPES
from reelbank.store.sums import crc32c, read_summed, write_summed

ABSENT = 2**64 - 1
MAX_CHUNKS, MAX_CHUNK_BYTES = 2**26, 2**31
"""Of one shard and of one chunk: more is a damaged file."""


READ_THREADS = 4
READ_AHEAD_BYTES = mmap.PAGESIZE * 32
"""What Linux fetches for one page fault by default: chunks up to this size gain nothing from asking ahead."""


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
    """One zstd-1 frame with its checksum, as Zarr's `zstd` codec writes it."""
    from numcodecs.zstd import Zstd

    return bytes(Zstd(level=ZSTD_LEVEL, checksum=True).encode(data))


def has_checksum(frame: bytes | memoryview) -> bool:
    """Whether a zstd frame carries a checksum of its content, which any decoder compares (RFC 8878, 3.1.1.1.1.5)."""
    return len(frame) > 4 and bool(frame[4] & 4)


def decompress(data: bytes | memoryview, nbytes: int) -> memoryview:
    """The `nbytes` bytes of one zstd frame, which says how many it would have. Raises StoreError if it is damaged."""
    from numcodecs.zstd import Zstd

    out = bytearray(nbytes)
    try:
        Zstd(level=ZSTD_LEVEL).decode(bytes(data), out=out)
        return memoryview(out)
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
    """One shard file; its index is read and checked once. The file stays open while the shard is in use."""

    def __init__(self, path: Path, num_chunks: int) -> None:
        """Opens `path`. Raises StoreError if the file is shorter than its index or the index is damaged."""
        self.path = path
        size = num_chunks * 16 + 4
        # Without O_NONBLOCK a FIFO would be waited for; it has no bytes and is damage like any other.
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        weakref.finalize(self, os.close, self.descriptor)
        length = os.fstat(self.descriptor).st_size
        if length < size:
            raise StoreError(f"{path} has {length} bytes, fewer than its index of {size}: it is damaged")
        raw = os.pread(self.descriptor, size, length - size)
        index = np.frombuffer(raw[:-4], dtype="<u8").reshape(num_chunks, 2)
        if crc32c(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise StoreError(f"{path}: the shard index does not match its crc32c: it is damaged")
        present = index[:, 0] != ABSENT
        # Each against the file before their sum, which could be past 2^64 and small again.
        if (index[present] > length - size).any() or (index[present].sum(axis=1) > length - size).any():
            raise StoreError(f"{path}: the shard index points past the file: it is damaged")
        self.spans = [
            (int(start), int(start + count)) if there else None
            for (start, count), there in zip(index.tolist(), present.tolist(), strict=True)
        ]
        self._touched = bytearray(num_chunks)

    @cached_property
    def _map(self) -> mmap.mmap:
        return mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)

    @cached_property
    def _view(self) -> memoryview:
        return memoryview(self._map)

    def chunk(self, flat: int) -> memoryview | None:
        """Encoded bytes of the chunk at a flat position, mapped and not copied; None if it is absent."""
        span = self.spans[flat]
        if span is None:
            return None
        start, stop = span
        if not self._touched[flat]:
            self._touched[flat] = 1
            if stop - start > READ_AHEAD_BYTES:
                page = start - start % mmap.PAGESIZE
                self._map.madvise(mmap.MADV_WILLNEED, page, stop - page)
        return self._view[start:stop]

    def copied(self, flat: int) -> bytes | None:
        """The same bytes read from the file: what is read once need not stay mapped."""
        span = self.spans[flat]
        return None if span is None else os.pread(self.descriptor, span[1] - span[0], span[0])


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Bytes of a shard and where they go; `into` (n,) uint8 is filled from `offset` on."""

    shard: Shard
    offset: int
    into: NDArray[np.uint8]


def read_pieces(pieces: Sequence[Piece]) -> None:
    """Fills every piece: from the page cache at once, what is not there by `READ_THREADS` threads.

    The threads live as long as the call: a pool that outlived it would hang a process forked later.

    Raises:
        StoreError: a file ends early.
    """
    missing = [piece for piece in pieces if not _read_cached(piece)]
    if len(missing) < 2:
        for piece in missing:
            _read(piece)
        return
    with ThreadPoolExecutor(min(READ_THREADS, len(missing)), thread_name_prefix="read") as threads:
        for _ in threads.map(_read, missing):
            pass


def _read_cached(piece: Piece) -> bool:
    """Whether the whole piece was in the page cache and is read; False too where the system cannot tell."""
    flag = getattr(os, "RWF_NOWAIT", None)
    if flag is None:
        return False
    try:
        return os.preadv(piece.shard.descriptor, [piece.into.data], piece.offset, flag) == len(piece.into)
    except OSError:  # EAGAIN: not cached; EOPNOTSUPP: this file system cannot tell
        return False


def _read(piece: Piece) -> None:
    done = 0
    while done < len(piece.into):
        count = os.preadv(piece.shard.descriptor, [piece.into[done:].data], piece.offset + done)
        if count == 0:
            raise StoreError(f"{piece.shard.path} ends at byte {piece.offset + done}: it is damaged")
        done += count


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
    meta = read_summed(folder / "zarr.json")
    try:
        check_array(folder, meta)
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
        _check_grid(folder, grid)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{folder}/zarr.json does not describe a sharded Zarr v3 array: {error}") from error
    return grid, meta


def _check_grid(folder: Path, grid: Grid) -> None:
    """Raises StoreError for a grid that cuts nothing, or cuts a shard into more pieces than one can have."""
    sizes = (grid.shape, grid.shard, grid.chunk)
    if {len(size) for size in sizes} != {len(grid.shape)} or len(grid.shape) < 3 or grid.dtype not in DTYPES:
        raise StoreError(f"{folder}/zarr.json: {grid} is no array of features: it is damaged")
    for shard, chunk in zip(grid.shard, grid.chunk, strict=True):
        if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1 or shard % chunk:
            raise StoreError(
                f"{folder}/zarr.json: chunks {grid.chunk} do not divide shards {grid.shard}: it is damaged"
            )
    if math.prod(grid.chunk_grid) > MAX_CHUNKS or grid.chunk_nbytes > MAX_CHUNK_BYTES:
        raise StoreError(f"{folder}/zarr.json: shards {grid.shard} of chunks {grid.chunk} are too large: it is damaged")


def grow(folder: Path, minimum: Iterable[int | None]) -> None:
    """Makes the array at least as large as `minimum` (None: leave the axis); chunks that are absent are fill."""
    path = folder / "zarr.json"
    meta = read_summed(path)
    shape = [old if new is None else max(old, new) for old, new in zip(meta["shape"], minimum, strict=True)]
    if shape != meta["shape"]:
        write_summed(path, {**meta, "shape": shape})
