"""An export as one safetensors file: tensors `<clip id>/<tap>`, `<clip id>/step_seconds`, `<clip id>/frame_index`.

The header, which the format wants first and whole, names every tensor; its metadata hold under `reelbank` the header
of the export and under `clips` the table of clips as JSON. For int8, `int8/<tap>/scale` stands in the metadata too.
Tap names have no slash, so the last one parts clip and tap whatever the clip id is. Tensors lie in the order of their
item sizes, the largest first, so that every one is aligned.
Format: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.store.errors import StoreError
from reelbank.store.exchange.selection import Selection
from reelbank.store.exchange.table import plain_value

DTYPE_NAMES = {
    "bool": "BOOL",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "int64": "I64",
    "int8": "I8",
    "uint8": "U8",
}
TIME_DTYPES = {"step_seconds": "<f8", "frame_index": "<i8"}
MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own readers


def write_safetensors(selection: Selection, path: Path) -> None:
    """Writes the file. Raises StoreError where its header would be longer than readers accept."""
    entries: dict[str, Any] = {"__metadata__": _metadata(selection)}
    position = 0

    def declare(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        nonlocal position
        end = position + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": DTYPE_NAMES[dtype.name], "shape": list(shape), "data_offsets": [position, end]}
        position = end

    taps = sorted(selection.taps, key=lambda tap: -selection.dtype(tap).itemsize)
    for i in selection.done:
        for name, dtype in TIME_DTYPES.items():
            declare(f"{selection.clip_ids[i]}/{name}", np.dtype(dtype), (int(selection.num_steps[i]),))
    for tap in taps:
        for i in selection.done:
            shape = (int(selection.num_steps[i]), *tap.shape)
            declare(f"{selection.clip_ids[i]}/{tap.name}", selection.dtype(tap), shape)
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER_BYTES:
        raise StoreError(
            f"{len(selection.done)} clips make a safetensors header of {len(header)} bytes, readers stop at "
            f"{MAX_HEADER_BYTES}; use --format hdf5 --layout array"
        )
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for i in selection.done:
            times = selection.times(i)
            for name, dtype in TIME_DTYPES.items():
                file.write(times[name].astype(dtype).tobytes())
        for tap in taps:
            for count, i in enumerate(selection.done, start=1):
                for block in selection.blocks(tap, i):
                    file.write(np.ascontiguousarray(block).tobytes())
                if tap is taps[-1]:
                    selection.tell(count)


def _metadata(selection: Selection) -> dict[str, str]:
    """{name: text}: the format allows nothing but text here."""
    table = {name: [plain_value(value) for value in values] for name, values in selection.columns.items()}
    metadata = {"format": "np", "reelbank": json.dumps(selection.header), "clips": json.dumps(table)}
    for tap, channels in selection.channels.items():
        metadata[f"int8/{tap}/scale"] = json.dumps(channels.scale.tolist())
        metadata[f"int8/{tap}/offset"] = json.dumps(channels.offset.tolist())
    return metadata
