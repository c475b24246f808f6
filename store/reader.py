"""Reading a store: rows by memory map or by reads of several threads, everything else through zarr-python."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store import growing, layout
from reelbank.store.arrays import read_rows
from reelbank.store.errors import StoreError
from reelbank.store.layout import COLUMNS, DONE, FAILED, LEDGER, THUMBNAIL_SHAPE, Geometry
from reelbank.store.ledger import Ledger
from reelbank.store.shards import Piece, Shard, decompress, open_shard, read_grid, read_pieces
from reelbank.store.sizes import check_steps
from reelbank.store.spec import FeatureSpec, TapSpec


class Store:
    """A store, read only. Row i is clip i of the store; `done_rows` says which have features."""

    def __init__(self, path: Path | str) -> None:
        """Opens the store at `path`. Raises StoreError if it is not one."""
        self.path = Path(path)
        self._root = layout.read_root(self.path)
        self.num_clips = int(self._root["num_clips"])
        self.spec = FeatureSpec.from_json(self._root["spec"])
        self.spec_digest = str(self._root["spec_digest"]) or self.spec.digest
        self.provenance: dict[str, Any] = dict(self._root["provenance"])
        self.geometry = Geometry.from_json(self._root["geometry"])
        self.manifest_digest = str(self._root["manifest_digest"])
        self.target_names: tuple[str, ...] = tuple(self._root["target_names"])
        self.column_arrays = {name: f"manifest/{array}" for name, array in self._root["columns"].items()}
        self._definitions = layout.definitions(self.spec, self.geometry)
        self._arrays: dict[str, _ShardedArray] = {}
        self._columns: dict[str, NDArray[Any]] = {}
        self._units: dict[str, tuple[int, NDArray[Any]]] = {}
        self._moments: dict[tuple[str, str], NDArray[np.float32]] = {}

    @property
    def taps(self) -> dict[str, TapSpec]:
        """{name: TapSpec} in the order they are stored."""
        return {tap.name: tap for tap in self.spec.taps}

    @property
    def default_tap(self) -> str:
        """The first tap of the spec."""
        return self.spec.taps[0].name

    @property
    def weights_are_random(self) -> bool:
        """Whether the backbone was never trained: no result on such a store says anything about the backbone."""
        return "random" in (self.spec.weights.get("kind"), self.spec.weights.get("of", {}).get("kind"))

    @property
    def column_names(self) -> tuple[str, ...]:
        """Columns of the manifest: those of every store, its targets, and what else it holds."""
        return tuple(sorted({*COLUMNS, *self.target_names, *self.column_arrays}))

    def column(self, name: str) -> NDArray[Any]:
        """One manifest column (num_clips,): float64 for targets and times, else an object array of str.

        A column of a later version has the dtype and axes that it is stored with.
        """
        if name not in self.column_names:
            raise StoreError(f"{self.path} has no manifest column {name!r}; it has {', '.join(self.column_names)}")
        if name not in self._columns:
            kind, array = COLUMNS.get(name), self.column_arrays.get(name)
            if array is not None and growing.is_there(self.path / array):
                values = self._stored(array, 0, self.num_clips)
            elif kind is not None and kind.essential and self.num_clips:
                raise layout.not_there(self.path / (array or f"manifest/{name}"))
            else:
                fill = kind.fill if kind is not None else np.nan if name in self.target_names else ""
                values = np.full(self.num_clips, fill, dtype=object if fill == "" else np.float64)
            self._columns[name] = values.astype(object) if values.dtype.kind in "TU" else values
        return self._columns[name].copy()

    @property
    def absent(self) -> dict[str, str]:
        """{array: its fill value} of what this version would have stored and reads as fill, see `layout`."""
        missing = growing.absent_arrays(self.path, self._definitions)
        found = {name: definition.fill for name, definition in missing.items() if not definition.essential}
        if self.num_clips:
            unlisted = [name for name, kind in COLUMNS.items() if name not in self.column_arrays and not kind.essential]
            found |= {f"manifest/{name}": COLUMNS[name].fill for name in unlisted}
        return {name: "NaN" if fill != fill else repr(fill) for name, fill in found.items()}

    @property
    def essential(self) -> tuple[str, ...]:
        """Arrays that must be there."""
        return growing.essential_arrays(self._root, self._definitions)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Arrays over clips that this version does not know; it reads past them and keeps them."""
        return growing.unknown_arrays(self.path, self._root, self._definitions)

    @property
    def unknown_attributes(self) -> tuple[str, ...]:
        """Root attributes that this version does not know."""
        return growing.unknown_attributes(self._root)

    @cached_property
    def clips(self) -> Ledger:
        """The ledger: what happened to each clip."""
        arrays = {name: self._plain(f"clips/{name}") for name, kind in LEDGER.items() if kind.axis != "step"}
        # The array of features after the ledger: both may grow while they are read.
        if growing.is_there(self.path / "features" / self.default_tap):
            shape = read_grid(self.path / "features" / self.default_tap)[0].shape
            check_steps(self.path, self.default_tap, shape, arrays["num_steps"], arrays["num_views"])
        return Ledger(
            arrays={name: a.astype(object) if LEDGER[name].dtype == "str" else a for name, a in arrays.items()}
        )

    def done_rows(self) -> NDArray[np.int64]:
        """Rows that have features and whose clip is still in the manifest, ascending."""
        return np.flatnonzero((self.clips.status == DONE) & (self.clips.in_manifest == 1))

    @property
    def num_steps(self) -> NDArray[np.int64]:
        """(num_clips,) valid steps of each clip, 0 where there are none."""
        return self.clips.num_steps

    def step_seconds(self, row: int) -> NDArray[np.float64]:
        """(step,) time of each step of one clip, in seconds from the video's first frame."""
        return self._of_clip("step_seconds", row).astype(np.float64)

    def frame_index(self, row: int) -> NDArray[np.int64]:
        """(step,) which frame of the video each step shows, in emission order."""
        return self._of_clip("frame_index", row).astype(np.int64)

    def read(self, tap: str, row: int) -> NDArray[Any]:
        """Features of one clip (view, step, *axes), valid steps only; do not write to the result.

        Raises:
            StoreError: if the tap is unknown or the clip has no features (its status and reason are given).
        """
        array = self._sharded(tap)
        self._require_done(row)
        steps, views = int(self.num_steps[row]), int(self.clips.num_views[row])
        return array.read(row, views, steps)

    def blocks(self, tap: str, row: int, view: int = 0) -> Iterator[NDArray[Any]]:
        """One view of one clip, some steps (n, *axes) at a time and read, not mapped: for passes over whole stores.

        Raises:
            StoreError: as `read`, or the clip has no such view.
        """
        array = self._sharded(tap)
        self._require_done(row)
        if not 0 <= view < int(self.clips.num_views[row]):
            name = str(self.column("clip_id")[row])
            raise StoreError(
                f"clip {name!r} of {self.path} has {int(self.clips.num_views[row])} views, not view {view}"
            )
        return array.blocks(row, view, int(self.num_steps[row]))

    def gather(
        self, tap: str, rows: NDArray[np.int64] | list[int], view: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Features of several clips, zero-padded to the longest of them.

        Returns:
            features (B, T, *axes) and mask (B, T), True where a step is valid.
        """
        array = self._sharded(tap)
        rows = np.asarray(rows, dtype=np.int64)
        self._require_view(view)
        self._require_all_done(rows)
        steps = self.num_steps[rows]
        longest = int(steps.max(initial=0))
        features = np.empty((len(rows), longest, *array.grid.shape[3:]), dtype=array.dtype)
        array.read_many(features, rows.tolist(), view, steps.tolist())
        return features, np.arange(longest) < steps[:, None]

    def mean(self, tap: str, view: int = 0) -> NDArray[np.float32]:
        """(num_clips, D) mean over the valid steps of a vector tap; NaN where a clip has no features."""
        return self._moment("mean", tap, view)

    def std(self, tap: str, view: int = 0) -> NDArray[np.float32]:
        """(num_clips, D) population standard deviation over the valid steps of a vector tap."""
        return self._moment("std", tap, view)

    def checksums(self, tap: str) -> NDArray[np.uint32]:
        """(num_clips, view) crc32c of the valid bytes."""
        name = f"checksums/{self.spec.tap(tap).name}"
        if name not in self._columns:
            self._columns[name] = self._plain(name)
        return self._columns[name]

    def thumbnail(self, row: int) -> NDArray[np.uint8]:
        """(72, 96, 3) uint8 RGB, the clip's middle frame; black where there is none."""
        if not growing.is_there(self.path / "thumbnails" / "rgb"):
            return np.zeros(THUMBNAIL_SHAPE, dtype=np.uint8)
        if "thumbnails" not in self._arrays:
            self._arrays["thumbnails"] = _ShardedArray(self.path / "thumbnails" / "rgb")
        return self._arrays["thumbnails"].row(row)

    # -- inside -----------------------------------------------------------------------------------------

    def _moment(self, kind: str, tap: str, view: int) -> NDArray[np.float32]:
        if not self.spec.tap(tap).is_vector:
            vectors = sorted(t.name for t in self.spec.taps if t.is_vector)
            raise StoreError(f"tap {tap!r} is no vector, so it has no {kind}; vector taps: {', '.join(vectors)}")
        self._require_view(view)
        if (kind, tap) not in self._moments:
            self._moments[kind, tap] = self._plain(f"{kind}/{tap}")
        return self._moments[kind, tap][:, view]

    def _of_clip(self, name: str, row: int) -> NDArray[Any]:
        """(step,) of one clip. A chunk holds a unit and is read as a whole, so the last one is kept."""
        steps = self.num_steps[row]  # IndexError for a row that is not there
        row %= self.num_clips
        unit = self.geometry.unit_of(row)
        if (kept := self._units.get(name)) is None or kept[0] != unit:
            rows = self.geometry.rows_of(unit, self.num_clips)
            kept = unit, self._values(f"clips/{name}", rows.start, rows.stop)
            self._units[name] = kept
        values: NDArray[Any] = kept[1][row % self.geometry.unit_clips, :steps]
        short = int(steps) - len(values)
        return np.concatenate([values, np.full(short, LEDGER[name].fill, values.dtype)]) if short > 0 else values

    def _sharded(self, tap: str) -> _ShardedArray:
        declared = self.spec.tap(tap)
        if tap not in self._arrays:
            ledger = self.clips  # before the array: both may grow while they are read
            array = _ShardedArray(self.path / "features" / tap)
            if not array.grid.shape[3:] == array.grid.shard[3:] == array.grid.chunk[3:] == declared.shape:
                raise StoreError(
                    f"{array.folder}: {array.grid.shape = }, expected {declared.shape} at its end: damaged"
                )
            check_steps(self.path, tap, array.grid.shape, ledger.num_steps, ledger.num_views)
            self._arrays[tap] = array
        return self._arrays[tap]

    def _require_done(self, row: int) -> None:
        if not 0 <= row < self.num_clips:
            raise StoreError(f"row {row} of {self.path}: it has rows 0 to {self.num_clips - 1}")
        if self.clips.status[row] != DONE:
            name = str(self.column("clip_id")[row])
            unsaid = "it failed, and why is not stored" if self.clips.status[row] == FAILED else "not extracted yet"
            reason = str(self.clips.reason[row]) or unsaid
            raise StoreError(f"clip {name!r} has no features in {self.path}: {reason}")

    def _require_all_done(self, rows: NDArray[np.int64]) -> None:
        inside = (rows >= 0) & (rows < self.num_clips)
        done = inside.copy()
        done[inside] = self.clips.status[rows[inside]] == DONE
        if not done.all():
            self._require_done(int(rows[~done][0]))

    def _require_view(self, view: int) -> None:
        if not 0 <= view < len(self.spec.views):
            raise StoreError(f"view {view} of {self.path}: it has views 0 to {len(self.spec.views) - 1}")

    def _plain(self, name: str) -> NDArray[Any]:
        return self._values(name, 0, self.num_clips)

    def _values(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array of this version; fill where it is absent. Raises StoreError if it is essential."""
        definition = self._definitions[name]
        if growing.is_there(self.path / name):
            return self._stored(name, start, stop)
        if definition.essential:
            raise layout.not_there(self.path / name)
        dtype = object if definition.dtype == "str" else definition.dtype
        return np.full((stop - start, *definition.tail), definition.fill, dtype=dtype)

    def _stored(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array that is there; fill past its end."""
        return read_rows(self.path / name, start, stop, self._definitions.get(name))


MAX_OPEN_SHARDS = 256
"""Open files are limited, to 1,024 by default: a shard takes one, and one more when it is mapped."""


class _ShardedArray:
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
