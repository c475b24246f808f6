"""An export as one HDF5 file.

Both layouts hold `reelbank` (the header as JSON text), `manifest/<column>` and `ledger/<name>` (one value per clip of
the manifest) and, for int8, `int8/<tap>/scale` and `offset`.

groups: `clips/<name>` per clip with features, attributes clip_id, label, split, group and targets; in it a dataset
    (T, *axes) per tap, step_seconds and frame_index (T,).
array: `features/<tap>` (all steps, *axes), `step_seconds` and `frame_index` (all steps,), `start` and `length` (one
    per row of `manifest/`): clip i is `features/<tap>[start[i] : start[i] + length[i]]`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import numpy as np
from numpy.typing import NDArray

from reelbank.store.exchange.selection import Selection
from reelbank.store.exchange.table import file_name

TEXT_ATTRIBUTES = ("label", "split", "group")


def write_groups(selection: Selection, path: Path) -> None:
    """A group per clip."""
    with h5py.File(path, "w") as file:
        _describe(file, selection)
        clips = file.create_group("clips")
        for count, i in enumerate(selection.done, start=1):
            group = clips.create_group(file_name(selection.clip_ids[i]))
            group.attrs["clip_id"] = selection.clip_ids[i]
            for name in TEXT_ATTRIBUTES:
                group.attrs[name] = str(selection.columns[f"manifest/{name}"][i])
            for name in selection.store.target_names:
                group.attrs[name] = float(selection.columns[f"manifest/{name}"][i])
            for tap in selection.taps:
                shape = (int(selection.num_steps[i]), *tap.shape)
                _fill(group.create_dataset(tap.name, shape=shape, dtype=selection.dtype(tap)), selection, tap, i, 0)
            for name, values in selection.times(i).items():
                group.create_dataset(name, data=values)
            selection.tell(count)


def write_array(selection: Selection, path: Path) -> None:
    """One array per tap, and where in it each clip lies."""
    length = selection.num_steps
    start = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64) if len(length) else length
    total = int(length.sum())
    with h5py.File(path, "w") as file:
        _describe(file, selection)
        file.create_dataset("start", data=start)
        file.create_dataset("length", data=length)
        times = {
            "step_seconds": file.create_dataset("step_seconds", shape=(total,), dtype="float64"),
            "frame_index": file.create_dataset("frame_index", shape=(total,), dtype="int64"),
        }
        features = file.create_group("features")
        arrays = {
            tap.name: features.create_dataset(tap.name, shape=(total, *tap.shape), dtype=selection.dtype(tap))
            for tap in selection.taps
        }
        for count, i in enumerate(selection.done, start=1):
            for tap in selection.taps:
                _fill(arrays[tap.name], selection, tap, i, int(start[i]))
            for name, values in selection.times(i).items():
                times[name][int(start[i]) : int(start[i]) + len(values)] = values
            selection.tell(count)


def _fill(dataset: Any, selection: Selection, tap: Any, i: int, start: int) -> None:
    for block in selection.blocks(tap, i):
        dataset[start : start + len(block)] = block
        start += len(block)


def _describe(file: Any, selection: Selection) -> None:
    file.create_dataset("reelbank", data=json.dumps(selection.header), dtype=h5py.string_dtype())
    for name, values in selection.columns.items():
        folder, _, own = name.partition("/")
        dataset = file.create_dataset(f"{folder}/{quote(own, safe=' ').replace('.', '%2E')}", **_column(values))
        dataset.attrs["name"] = own
    for tap, channels in selection.channels.items():
        file.create_dataset(f"int8/{tap}/scale", data=channels.scale)
        file.create_dataset(f"int8/{tap}/offset", data=channels.offset)


def _column(values: NDArray[Any]) -> dict[str, Any]:
    if values.dtype.kind != "O":
        return {"data": values}
    return {"data": [str(value) for value in values], "dtype": h5py.string_dtype(), "shape": values.shape}
