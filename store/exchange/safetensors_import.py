"""safetensors files: exports of reelbank, and one tensor (T, D) per clip."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.store.errors import StoreError
from reelbank.store.exchange.import_arrays import (
    DEFAULT_TAP,
    ArraySource,
    SafetensorsArray,
    Times,
    check_header,
    chosen_taps,
)
from reelbank.store.exchange.quantizing import Channels
from reelbank.store.exchange.safetensors_export import DTYPE_NAMES, MAX_HEADER_BYTES
from reelbank.store.exchange.table import column_from_json
from reelbank.store.files import json_object, regular

DTYPES = {text: name for name, text in DTYPE_NAMES.items()}


def open_safetensors(path: Path, taps: Sequence[str]) -> ArraySource:
    """Finds the tensors of a file. Raises StoreError if it is damaged or holds a dtype that no store has."""
    tensors, metadata = _read_header(path)
    if "reelbank" in metadata and "clips" in metadata:
        return _open_export(path, tensors, metadata, taps)
    if len(taps) > 1:
        raise StoreError(f"{path} has one tensor per clip; give one --tap to name it")
    tap = taps[0] if taps else DEFAULT_TAP
    arrays = {name: {tap: array} for name, array in tensors.items()}
    if not arrays:
        raise StoreError(f"{path} holds no tensor")
    return ArraySource(path=path, files=(path,), arrays=arrays, form="a safetensors file")


def _read_header(path: Path) -> tuple[dict[str, SafetensorsArray], Mapping[str, str]]:
    size = path.stat().st_size
    try:
        with regular(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise StoreError(f"{path} is no safetensors file: its header would be {length} bytes")
            entries: dict[str, Any] = json_object(file.read(length))
        metadata = entries.pop("__metadata__", {})
        tensors = {}
        for name, entry in entries.items():
            if entry["dtype"] not in DTYPES:
                raise StoreError(
                    f"{path}: tensor {name!r} is {entry['dtype']}, which no store holds; save it as F16 or F32"
                )
            dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(int(n) for n in entry["shape"])
            start, end = entry["data_offsets"]
            if min(shape, default=0) < 0 or not 0 <= start <= end <= size - 8 - length:
                raise StoreError(f"{path}: tensor {name!r} lies outside the file: it is damaged")
            if end - start != math.prod(shape) * dtype.itemsize:
                raise StoreError(f"{path}: tensor {name!r} is {shape} {dtype}, but has {end - start} bytes")
            tensors[name] = SafetensorsArray(
                path=path, offset=8 + length + start, shape=shape, dtype=dtype.newbyteorder("<").str
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} is no safetensors file: {error}") from error
    return tensors, metadata


def _open_export(
    path: Path, tensors: Mapping[str, SafetensorsArray], metadata: Mapping[str, str], taps: Sequence[str]
) -> ArraySource:
    try:
        header = check_header(json_object(metadata["reelbank"]), path)
        chosen = chosen_taps(header["taps"], taps, path)
        table = json_object(metadata["clips"])
        columns = {name: column_from_json(name, values, header["target_names"]) for name, values in table.items()}
        channels = {
            tap: Channels(
                scale=np.array(json.loads(metadata[f"int8/{tap}/scale"]), dtype=np.float32),
                offset=np.array(json.loads(metadata[f"int8/{tap}/offset"]), dtype=np.float32),
                axis=int(axis),
            )
            for tap, axis in header["int8_axis"].items()
        }
        arrays = {
            name.removesuffix("/step_seconds"): {
                tap: tensors[f"{name.removesuffix('/step_seconds')}/{tap}"] for tap in chosen
            }
            for name in tensors
            if name.endswith("/step_seconds")
        }
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} looks like an export of reelbank, but is damaged: {error}") from error

    def times(name: str) -> Times:
        seconds, frames = tensors[f"{name}/step_seconds"], tensors[f"{name}/frame_index"]
        return Times(step_seconds=seconds.read(0, seconds.shape[0]), frame_index=frames.read(0, frames.shape[0]))

    return ArraySource(
        path=path,
        files=(path,),
        arrays=arrays,
        form="an export of reelbank",
        header=header,
        columns=columns,
        channels=channels,
        times=times,
    )
