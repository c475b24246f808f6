"""A sharded array: features and thumbnails, read through the indexes of their shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.shards import Piece, Shard, decompress, open_shard, read_grid, read_pieces

MAX_OPEN_SHARDS = 256
"""Open files are limited, to 1,024 by default: a shard takes one, and one more when it is mapped."""


class ShardedArray:
    """One sharded array; shards are opened when a row of theirs is first read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.grid, _ = read_grid(folder)
        self._shards: dict[tuple[int, int], Shard | None] = {}
        self.dtype = np.dtype(self.grid.dtype)
        # Of the grid's own properties, which are worked out at each use.
        self._num_chunks = int(np.prod(self.grid.chunk_grid))
        self._views_and_blocks = self.grid.chunk_grid[1:3]
        self._chunk_nbytes = self.grid.chunk_nbytes

    def row(self, row: int) -> NDArray[Any]:
        """All of one row of an array whose chunk is a row; fill (zeros) if it is absent."""
        unit, local = divmod(row, self.grid.shard[0])
        data = self._chunk(self._shard(unit, 0), local)
        if data is None:
            return np.zeros(self.grid.chunk[1:], dtype=self.dtype)
        return np.frombuffer(data, dtype=self.dtype).reshape(self.grid.chunk[1:])

    def encoded(self, row: int) -> bytes | memoryview | None:
        """The chunk of one row as it is stored, of an array whose chunk is a row; None if it is absent."""
        unit, local = divmod(row, self.grid.shard[0])
        shard = self._shard(unit, 0)
        return None if shard is None else shard.chunk(local)

    def is_zero_after(self, row: int, steps: int) -> bool:
        """Whether all that is stored of a row after its first `steps` steps is zero."""
        size = self.grid.chunk[2]
        for view in range(self.grid.shape[1]):
            for block in range(steps // size, -(-self.grid.shape[2] // size)):
                shard, flat = self._place(row, view, block)
                data = None if shard is None else shard.copied(flat)
                if shard is None or data is None:
                    continue
                values = np.frombuffer(self._decoded(shard, flat, data), np.uint8).reshape(size, -1)
                if values[max(0, steps - block * size) :].any():
                    return False
        return True

    def read(self, row: int, views: int, steps: int) -> NDArray[Any]:
        """(views, steps, *axes); a view of the mapped file where one chunk holds it all."""
        if views == 1 and 0 < steps <= self.grid.chunk[2]:
            return self._block(row, 0, 0)[None, :steps]
        out = np.zeros((views, steps, *self.grid.shape[3:]), dtype=self.dtype)
        for view in range(views):
            self.read_into(out[view], row, view, steps)
        return out

    def read_into(self, out: NDArray[Any], row: int, view: int, steps: int) -> None:
        """Copies the first `steps` steps (T, *axes) of one view into `out`."""
        block = self.grid.chunk[2]
        for start in range(0, steps, block):
            count = min(block, steps - start)
            out[start : start + count] = self._block(row, view, start // block)[:count]

    def blocks(self, row: int, view: int, steps: int) -> Iterator[NDArray[Any]]:
        """The first `steps` steps of one view, one chunk (n, *axes) after the other."""
        size = self.grid.chunk[2]
        for start in range(0, steps, size):
            shard, flat = self._place(row, view, start // size)
            data = None if shard is None else shard.copied(flat)
            if shard is None or data is None:
                raise self._absent(row, view, start // size)
            raw = self._decoded(shard, flat, data)
            yield np.frombuffer(raw, dtype=self.dtype).reshape(self.grid.chunk[2:])[: steps - start]

    def read_many(self, out: NDArray[Any], rows: list[int], view: int, steps: list[int]) -> None:
        """Fills `out` (B, T, *axes): of each row its first steps, then zeros."""
        if out.size == 0:
            return
        for i, count in enumerate(steps):
            out[i, count:] = 0
        if self.grid.compressed:
            for i, (row, count) in enumerate(zip(rows, steps, strict=True)):
                self.read_into(out[i], row, view, count)
            return
        raw = out.reshape(len(out), -1).view(np.uint8)
        step_nbytes = raw.shape[1] // out.shape[1]
        pieces: list[Piece] = []
        for i, (row, count) in enumerate(zip(rows, steps, strict=True)):
            pieces += self._pieces(raw[i, : count * step_nbytes], row, view)
        read_pieces(pieces)

    def _pieces(self, into: NDArray[np.uint8], row: int, view: int) -> list[Piece]:
        """Where the bytes of one view of one row lie; neighbouring chunks are one piece."""
        pieces: list[Piece] = []
        for block, start in enumerate(range(0, len(into), self._chunk_nbytes)):
            shard, flat = self._place(row, view, block)
            span = None if shard is None else shard.spans[flat]
            if shard is None or span is None:
                raise self._absent(row, view, block)
            end = min(start + self._chunk_nbytes, len(into))
            last = pieces[-1] if pieces else None
            if last is not None and last.shard is shard and last.offset + len(last.into) == span[0]:
                pieces[-1] = Piece(shard=shard, offset=last.offset, into=into[start - len(last.into) : end])
            else:
                pieces.append(Piece(shard=shard, offset=span[0], into=into[start:end]))
        return pieces

    def _block(self, row: int, view: int, block: int) -> NDArray[Any]:
        shard, flat = self._place(row, view, block)
        data = self._chunk(shard, flat)
        if data is None:
            raise self._absent(row, view, block)
        return np.frombuffer(data, dtype=self.dtype).reshape(self.grid.chunk[2:])

    def _absent(self, row: int, view: int, block: int) -> StoreError:
        return StoreError(f"{self.folder}: row {row} view {view} block {block} is done, but its chunk is absent")

    def _place(self, row: int, view: int, block: int) -> tuple[Shard | None, int]:
        """The shard that holds a chunk, and the chunk's flat position in it."""
        unit, local = divmod(row, self.grid.shard[0])
        shard_step, inner = divmod(block, self._views_and_blocks[1])
        flat = (local * self._views_and_blocks[0] + view) * self._views_and_blocks[1] + inner
        return self._shard(unit, shard_step), flat

    def _shard(self, unit: int, shard_step: int) -> Shard | None:
        key = unit, shard_step
        if key not in self._shards:
            if len(self._shards) >= MAX_OPEN_SHARDS:
                del self._shards[next(iter(self._shards))]
            tail = (0,) * (len(self.grid.shape) - 3)
            path = self.grid.shard_path(self.folder, (unit, 0, shard_step, *tail))
            self._shards[key] = open_shard(path, self._num_chunks)
        return self._shards[key]

    def _chunk(self, shard: Shard | None, flat: int) -> bytes | memoryview | None:
        data = None if shard is None else shard.chunk(flat)
        return None if shard is None or data is None else self._decoded(shard, flat, data)

    def _decoded(self, shard: Shard, flat: int, data: bytes | memoryview) -> bytes | memoryview:
        raw = decompress(data, self._chunk_nbytes) if self.grid.compressed else data
        if len(raw) != self._chunk_nbytes:
            raise StoreError(f"{shard.path}: chunk {flat} has {len(raw)} bytes, expected {self._chunk_nbytes}")
        return raw
