"""Arrays of a file or folder that is to be imported: found by name, read some steps at a time, never unpickled.

A source gives for every name (a clip id in an export of reelbank, else what the file calls it) one array per tap. An
array of one axis (D,) is one step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelbank.store.description import readable
from reelbank.store.errors import StoreError
from reelbank.store.exchange.quantizing import Channels
from reelbank.store.exchange.table import FORMAT_NAME, FORMAT_VERSION
from reelbank.store.files import free_bytes, reading, regular
from reelbank.store.kinds import check_kinds
from reelbank.store.sizes import MAX_STEP_BYTES, MAX_STEPS
from reelbank.store.spec import FeatureSpec

HEADER_KINDS: dict[str, Any] = {
    "format": str, "spec": {"*": object}, "taps": [str], "target_names": [str], "view": int,
    "int8_axis": {"*": int}, "fixed_steps": (int, None), "provenance": {"*": object}, "*": object,
}  # fmt: skip
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
        notes: what of it is not read.
    """

    path: Path
    files: tuple[Path, ...]
    arrays: Mapping[str, Mapping[str, Stored]]
    form: str
    header: Mapping[str, Any] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    channels: Mapping[str, Channels] = field(default_factory=dict)
    times: Callable[[str], Times] = field(default=lambda name: Times())
    notes: tuple[str, ...] = ()

    def shape(self, name: str, tap: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """((T, *axes), dtype) of one array. Raises StoreError for a scalar."""
        shape, dtype = self.arrays[name][tap].describe()
        if not shape:
            raise StoreError("a single number, expected an array (T, D)")
        if shape[0] > MAX_STEPS or math.prod(shape[1:]) * dtype.itemsize > MAX_STEP_BYTES:
            raise StoreError(f"an array of shape {shape} {dtype}, more than a store holds")
        return ((1, *shape) if len(shape) == 1 else shape), dtype

    def blocks(self, name: str, tap: str, first: int = 0, last: int | None = None) -> Iterator[NDArray[Any]]:
        """Its steps (n, *axes) from `first` to before `last` (None: all), int8 levels turned into float32."""
        array = self.arrays[name][tap]
        shape, dtype = self.shape(name, tap)
        if len(array.describe()[0]) == 1:
            yield self._decoded(tap, _whole(array.read(0, shape[1]), shape[1])[None])
            return
        size = max(1, BLOCK_BYTES // max(1, int(np.prod(shape[1:])) * dtype.itemsize))
        end = shape[0] if last is None else last
        for start in range(first, end, size):
            stop = min(start + size, end)
            yield self._decoded(tap, _whole(array.read(start, stop), stop - start))

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


def load_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy file, mapped. Raises StoreError for anything else: a pickle, an archive, objects."""
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(regular(path), mode="r")
    except (
        *(EOFError, MemoryError, OverflowError, RecursionError, SyntaxError, TokenError, TypeError, ValueError),
    ) as error:
        raise StoreError(f"{path.name} is no .npy file of numbers: {error}") from error
    return array


def _whole(values: NDArray[Any], count: int) -> NDArray[Any]:
    """The values. Raises StoreError where there are fewer than the file says."""
    if len(values) != count:
        raise StoreError(f"{count} entries are said to be there, {len(values)} are: the file is damaged")
    return values


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
        return load_npy(self.path)


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
        with self._said():
            dataset = self.file[self.name]
            shape = tuple(dataset.shape or ())
            if self.length is not None and not 0 <= self.start <= self.start + self.length <= shape[0]:
                raise StoreError(f"{self.name} has {shape[0]} entries, not {self.length} from {self.start} on")
            return (shape if self.length is None else (self.length, *shape[1:])), dataset.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        with self._said():
            return np.asarray(self.file[self.name][self.start + start : self.start + stop])

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What the library says of a damaged dataset, as an error of its clip."""
        try:
            with reading(Path(self.name)):
                yield
        except OSError as error:
            raise StoreError(f"{self.name} cannot be read: {error}") from error


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
    try:
        check_kinds(header, HEADER_KINDS, "header")
        if header["format"] != FORMAT_NAME or not 0 <= header["view"] < len(header["spec"].get("views", [""])):
            raise ValueError(f"format {header['format']!r}, view {header['view']}")
        spec = FeatureSpec.from_json(header["spec"])
        names = {tap.name for tap in spec.taps}
        if not header["taps"] or {*header["taps"], *header["int8_axis"]} - names:
            raise ValueError(f"taps {header['taps']} and {sorted(header['int8_axis'])} are not all of the spec")
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} looks like an export of reelbank, but its header is damaged: {error}") from error
    if header.get("version") != FORMAT_VERSION:
        raise StoreError(
            f"{path} is an export of version {header.get('version')}; this reelbank reads version {FORMAT_VERSION}"
        )
    found: Mapping[str, Any] = header
    return found
