"""Checksums: of bytes, and of JSON documents, which carry their own.

A document of Zarr (`zarr.json`) has its sum among its attributes, where other programs leave it alone; any other
document among its fields. It is over the parsed content, so blanks do not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google_crc32c import extend, value
from numpy.typing import NDArray

from reelbank.store.errors import DAMAGED, StoreError
from reelbank.store.files import read_json, write_json

KEY = "crc32c"


def crc32c(data: bytes | memoryview) -> int:
    """crc32c (Castagnoli, RFC 3720) of `data`."""
    return int(value(_summable(data)))


def crc32c_extend(crc: int, data: bytes | memoryview) -> int:
    """crc32c of what was already summed in `crc`, followed by `data`."""
    return int(extend(crc, _summable(data)))


def crc32c_of(array: NDArray[Any], crc: int = 0) -> int:
    """crc32c of what was summed in `crc`, followed by the bytes of `array` in C order."""
    if array.size == 0:
        return crc
    return int(extend(crc, np.ascontiguousarray(array).reshape(-1).view(np.uint8)))


def _summable(data: bytes | memoryview) -> Any:
    """The same bytes without a copy: google_crc32c refuses a memoryview and takes the array over it."""
    return data if isinstance(data, bytes) or len(data) == 0 else np.frombuffer(data, np.uint8)


def write_summed(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a JSON document with its sum, in one step."""
    write_json(path, with_sum(document))


def with_sum(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its sum; one that it has already is replaced."""
    bare = _without_sum(document)
    total = f"{_sum_of(bare):08x}"
    if "zarr_format" in bare:
        return {**bare, "attributes": {**bare.get("attributes", {}), KEY: total}}
    return {**bare, KEY: total}


def read_summed(path: Path) -> dict[str, Any]:
    """The document without its sum, which is compared where there is one. Raises StoreError if it is damaged."""
    return read_and_ask(path)[0]


def read_and_ask(path: Path) -> tuple[dict[str, Any], bool]:
    """What `read_summed` gives, and whether the document carries a sum."""
    document = read_json(path)
    if not isinstance(document.get("attributes", {}), dict):
        raise StoreError(f"{path} has attributes that are no JSON object: {DAMAGED}")
    bare, told = _without_sum(document), sum_in(document)
    if told is not None and told != f"{_sum_of(bare):08x}":
        raise StoreError(f"{path} does not match its crc32c: {DAMAGED}")
    return bare, told is not None


def sum_in(document: Mapping[str, Any]) -> str | None:
    """The sum that a document carries; None if it has none."""
    holder = document.get("attributes", {}) if "zarr_format" in document else document
    return str(holder[KEY]) if KEY in holder else None


def _without_sum(document: Mapping[str, Any]) -> dict[str, Any]:
    bare = {name: held for name, held in document.items() if name != KEY}
    if "attributes" in bare:
        bare["attributes"] = {name: held for name, held in bare["attributes"].items() if name != KEY}
    return bare


def _sum_of(bare: dict[str, Any]) -> int:
    return crc32c(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode())
