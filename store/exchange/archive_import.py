"""Files of one video that hold named arrays: `.npz`, and `.pt` with a tensor or a dict of them. Nothing is unpickled.

Beside features they may hold when each step is (`timestamps_ms`, `timestamps_seconds`, `step_seconds`) and `fps`.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.exchange.import_arrays import Stored, Times
from reelbank.store.files import STUMBLES, regular

SUFFIXES = (".npz", ".pt", ".pth")
SECONDS_OF = {"timestamps_ms": 1e-3, "timestamps_seconds": 1.0, "timestamps_s": 1.0, "step_seconds": 1.0}
WITHOUT_UNIT = ("time", "times", "timestamp", "timestamps")
RATES = ("fps", "rate_fps")
_WHOLE = "tensor"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """What one file holds.

    Attributes:
        features: {key: array}, all that are numbers and no times.
        notes: what of it is not read, and how it would be.
    """

    features: Mapping[str, Stored]
    times: Times
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NpzArray:
    """The array `key` of a .npz file."""

    path: Path
    key: str

    def describe(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with _said(self.path), zipfile.ZipFile(regular(self.path)) as archive, archive.open(f"{self.key}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            return shape, dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        with _said(self.path), zipfile.ZipFile(regular(self.path)) as archive, archive.open(f"{self.key}.npy") as file:
            whole: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            return whole[start:stop]


@dataclass(frozen=True, kw_only=True)
class TorchArray:
    """The tensor `key` of a file that torch.save wrote, or the tensor that it is."""

    path: Path
    key: str

    def describe(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        tensor = self._tensor()
        return tuple(tensor.shape), _numpy(tensor[:0] if tensor.ndim else tensor).dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return _numpy(self._tensor()[start:stop])

    def _tensor(self) -> Any:
        return _tensors(self.path)[self.key]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """In the place of an array of a file that cannot be read: its clip fails with the reason."""

    reason: str

    def describe(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        raise StoreError(self.reason)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        raise StoreError(self.reason)


def entries(path: Path) -> dict[str, Stored]:
    """{key: array} of one file, all of them. Raises StoreError for a damaged file and for one that holds objects."""
    if path.suffix == ".npz":
        with _said(path), zipfile.ZipFile(regular(path)) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        return {key: NpzArray(path=path, key=key) for key in keys}
    return {key: TorchArray(path=path, key=key) for key in _tensors(path)}


def open_archive(path: Path) -> Archive:
    """The features and times of one video's file. Raises StoreError where it holds no features."""
    found = entries(path)
    described = {key: array.describe() for key, array in found.items()}
    seconds: NDArray[np.float64] | None = None
    for key, unit in SECONDS_OF.items():
        if key in found and len(shape := described[key][0]) == 1:
            seconds = found[key].read(0, shape[0]).astype(np.float64) * unit
    rate = next((key for key in RATES if key in found and described[key][0] in ((), (1,))), None)
    beside = {*SECONDS_OF, *WITHOUT_UNIT, *RATES}
    features = {
        key: array
        for key, array in found.items()
        if key not in beside and described[key][0] and described[key][1].kind in "fiub"
    }
    if not features:
        held = ", ".join(f"{key} {shape} {dtype}" for key, (shape, dtype) in described.items()) or "nothing"
        raise StoreError(f"{path.name} holds no array of features (T, D): {held}")
    notes: tuple[str, ...] = ()
    if seconds is None and (vague := [key for key in WITHOUT_UNIT if key in found]):
        notes = (f"{vague[0]!r} is not read, it says no unit; call it timestamps_ms or timestamps_seconds",)
    return Archive(
        features=features,
        times=Times(step_seconds=seconds, rate_fps=None if rate is None else _number(found[rate])),
        notes=notes,
    )


def _number(array: Stored) -> float:
    return float(np.ravel(array.read(0, 1) if array.describe()[0] else _scalar(array))[0])


def _scalar(array: Stored) -> NDArray[Any]:
    if isinstance(array, NpzArray):
        with _said(array.path), np.load(regular(array.path), allow_pickle=False) as file:
            return np.asarray(file[array.key])
    assert isinstance(array, TorchArray)
    return _numpy(_tensors(array.path)[array.key])


def _tensors(path: Path) -> dict[str, Any]:
    """Tensors and numbers of a file of torch, as tensors, mapped where the file's format allows it."""
    import torch

    with _said(path):
        try:
            held = torch.load(regular(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            raise StoreError(
                f"{path.name} holds more than tensors, and objects of a stranger's file could run code; save it again "
                "as torch.save(features) or torch.save({'features': ..., 'timestamps_ms': ...})"
            ) from error
    if isinstance(held, torch.Tensor):
        held = {_WHOLE: held}
    if not isinstance(held, Mapping):
        raise StoreError(f"{path.name} holds a {type(held).__name__}, expected a tensor (T, D) or a dict of tensors")
    if odd := [key for key, value in held.items() if isinstance(value, torch.Tensor) and value.layout != torch.strided]:
        raise StoreError(f"{path.name}: tensor {odd[0]!r} is sparse; save tensor.to_dense()")
    numbers = {str(key): torch.tensor(value) for key, value in held.items() if isinstance(value, int | float)}
    return numbers | {str(key): value for key, value in held.items() if isinstance(value, torch.Tensor)}


def _numpy(tensor: Any) -> NDArray[Any]:
    """The tensor; numpy has no bfloat16, float32 holds each of its values."""
    import torch

    tensor = tensor.detach()
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """What numpy, zipfile and torch say of a file that is none of theirs, as an error of its clip."""
    try:
        yield
    except (*STUMBLES, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path.name} cannot be read: {str(error).strip() or type(error).__name__}") from error


def features_of(files: Mapping[str, Path]) -> Iterator[tuple[str, Archive]]:
    """(name, what its file holds) of each file; one that cannot be read holds an array that says why."""
    for name, file in files.items():
        try:
            yield name, open_archive(file)
        except StoreError as error:
            yield name, Archive(features={"": Unreadable(reason=str(error))}, times=Times())
