"""Arrays of a file or folder that is to be imported: found by name, read some steps at a time, never unpickled.

A source gives for every name (a clip id in an export of reelbank, else what the file calls it) one array per tap. An
array of one axis (D,) is one step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelbank.store.description import readable
from reelbank.store.errors import StoreError
from reelbank.store.exchange.quantizing import Channels
from reelbank.store.exchange.table import FORMAT_NAME, FORMAT_VERSION
from reelbank.store.files import free_bytes, regular
from reelbank.store.spec import FeatureSpec

BLOCK_BYTES = 16 << 20
_FREE_LIMIT_BYTES = 10**9
_GROWTH = 20
"""How many times its source a store may be: what compression of features gives is less."""
_STEP_BYTES, _MOMENT_BYTES = 16, 8
DEFAULT_TAP = "features"
"""What the only array per clip is called where nothing names it."""


class Stored(Protocol):
    """One array somewhere in a file."""

    def describe(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Its shape as it is stored, and its dtype."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Entries `start` to `stop` of its first axis."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """When the steps of a clip are; None where the source does not say."""

    step_seconds: NDArray[np.float64] | None = None
    frame_index: NDArray[np.int64] | None = None
    rate_fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class ArraySource:
    """What there is to import.

    Attributes:
        path: the file or folder.
        files: the files that are read.
        arrays: {name: {tap: array}}.
        header: of an export of reelbank, else None; `columns` is then its table of clips.
        channels: {tap: how int8 levels are read}.
        times: of the clip called so.
        form: for messages, `an HDF5 file`, ...
    """

    path: Path
    files: tuple[Path, ...]
    arrays: Mapping[str, Mapping[str, Stored]]
    form: str
    header: Mapping[str, Any] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    channels: Mapping[str, Channels] = field(default_factory=dict)
    times: Callable[[str], Times] = field(default=lambda name: Times())

    def shape(self, name: str, tap: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """((T, *axes), dtype) of one array. Raises StoreError for a scalar."""
        shape, dtype = self.arrays[name][tap].describe()
        if not shape:
            raise StoreError("a single number, expected an array (T, D)")
        return ((1, *shape) if len(shape) == 1 else shape), dtype

    def blocks(self, name: str, tap: str) -> Iterator[NDArray[Any]]:
        """Its steps (n, *axes), int8 levels turned into float32."""
        array = self.arrays[name][tap]
        shape, dtype = self.shape(name, tap)
        if len(array.describe()[0]) == 1:
            yield self._decoded(tap, array.read(0, shape[1])[None])
            return
        size = max(1, BLOCK_BYTES // max(1, int(np.prod(shape[1:])) * dtype.itemsize))
        for start in range(0, shape[0], size):
            yield self._decoded(tap, array.read(start, min(start + size, shape[0])))

    def _decoded(self, tap: str, block: NDArray[Any]) -> NDArray[Any]:
        return self.channels[tap].decode(block) if tap in self.channels else block

    def num_bytes(self) -> int:
        """What its files take on the disk; a file with holes takes less than its length."""
        return sum(min(found.st_size, 512 * found.st_blocks) for found in (file.stat() for file in self.files))

    def sha256(self) -> str:
        """Of the file; of a folder, over the names and sums of its files in the order of their names."""
        sums = {}
        for file in self.files:
            with regular(file).open("rb") as stream:
                sums[file.relative_to(self.path).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
        if self.path.is_file():
            return next(iter(sums.values()))
        return hashlib.sha256(
            "".join(f"{name}\0{total}\n" for name, total in sorted(sums.items())).encode()
        ).hexdigest()


@dataclass(frozen=True, kw_only=True)
class NpyArray:
    """A .npy file."""

    path: Path

    def describe(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        array = self._open()
        return array.shape, array.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return np.array(self._open()[start:stop])

    def read_all(self) -> NDArray[Any]:
        """All of it, whatever its axes."""
        return np.array(self._open())

    def _open(self) -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(regular(self.path), mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise StoreError(f"{self.path.name} is no .npy file of numbers: {error}") from error
        return array


@dataclass(frozen=True, kw_only=True)
class SlicedArray:
    """Rows `start` to `start + length` of the dataset `name` of an open HDF5 file, or all of it.

    The dataset is opened at each use: an open one takes tens of kilobytes, and a file may have one per clip.
    """

    file: Any
    name: str
    start: int = 0
    length: int | None = None

    def describe(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        dataset = self.file[self.name]
        shape = tuple(dataset.shape)
        return (shape if self.length is None else (self.length, *shape[1:])), dataset.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return np.asarray(self.file[self.name][self.start + start : self.start + stop])


@dataclass(frozen=True, kw_only=True)
class SafetensorsArray:
    """A tensor of a safetensors file: raw bytes at a place."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def describe(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return self.shape, np.dtype(self.dtype)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        dtype = np.dtype(self.dtype)
        step = int(np.prod(self.shape[1:]))
        with regular(self.path).open("rb") as file:
            file.seek(self.offset + start * step * dtype.itemsize)
            values = np.fromfile(file, dtype=dtype, count=(stop - start) * step)
        return values.reshape(stop - start, *self.shape[1:])


def load_small(path: Path) -> NDArray[Any]:
    """A .npy file that is held in memory; a length that the file does not have is refused before it is allocated.

    Raises StoreError if it is none.
    """
    return NpyArray(path=path).read_all()


def announced_bytes(spec: FeatureSpec, shapes: Sequence[tuple[str, str, tuple[int, ...], np.dtype[Any]]]) -> int:
    """What the store will take: features, times of steps, and the means of clips."""
    taps = {tap.name: tap for tap in spec.taps}
    total = 0
    for _, name, shape, _ in shapes:
        if name in taps:
            values = math.prod(shape[1:])
            total += shape[0] * (values * np.dtype(taps[name].dtype).itemsize + _STEP_BYTES) + values * _MOMENT_BYTES
    return total


def refuse_size(source: ArraySource, out: Path, num_bytes: int, max_gb: float | None) -> None:
    """Raises StoreError for more than the limit, or than the disk has: a file of a kilobyte can announce terabytes."""
    found = source.num_bytes()
    limit = max(_FREE_LIMIT_BYTES, _GROWTH * found) if max_gb is None else int(max_gb * 1e9)
    if num_bytes > limit:
        raise StoreError(
            f"{source.path} has {readable(found)} on the disk and announces {readable(num_bytes)} of features, more "
            f"than the limit of {readable(limit)}; if that is meant, pass --max-gb {math.ceil(num_bytes / 1e9)}"
        )
    if num_bytes > (free := free_bytes(out)):
        raise StoreError(
            f"{out} could not be written: {source.path} announces {readable(num_bytes)} of features, "
            f"{readable(free)} are free; free some space or choose another place"
        )


def chosen_taps(there: Sequence[str], asked: Sequence[str], path: Path) -> tuple[str, ...]:
    """The taps of an export that are imported. Raises StoreError for one it does not hold."""
    if missing := [tap for tap in asked if tap not in there]:
        raise StoreError(f"--tap {missing[0]}: {path} holds {', '.join(sorted(there))}")
    return tuple(tap for tap in there if not asked or tap in asked)


def check_header(header: Any, path: Path) -> Mapping[str, Any]:
    """The header of an export. Raises StoreError if it is damaged or of a later version."""
    needed = {"spec", "taps", "target_names", "view", "int8_axis", "fixed_steps"}
    if not isinstance(header, dict) or header.get("format") != FORMAT_NAME or not needed <= set(header):
        raise StoreError(f"{path} looks like an export of reelbank, but its header is damaged")
    if header.get("version") != FORMAT_VERSION:
        raise StoreError(
            f"{path} is an export of version {header.get('version')}; this reelbank reads version {FORMAT_VERSION}"
        )
    return header
