"""An export as .npy files, one per clip and tap.

Beside them `reelbank.json` (the header), `clips.jsonl` (one line per clip of the manifest: its columns, ledger, files,
step_seconds and frame_index) and, for int8, `int8/<tap>.scale.npy` and `.offset.npy`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.store.exchange.selection import HEADER_FILE, FileNames, Selection
from reelbank.store.exchange.table import plain_value
from reelbank.store.spec import TapSpec

CLIPS_FILE = "clips.jsonl"


def write_npy(selection: Selection, folder: Path, names: FileNames) -> None:
    """Writes the folder. `names` are those of the files, unique."""
    folder.mkdir(parents=True)
    done = set(selection.done)
    count = 0
    with (folder / CLIPS_FILE).open("w", encoding="utf-8") as lines:
        for i in range(len(selection.rows)):
            entry: dict[str, Any] = {name: plain_value(values[i]) for name, values in selection.columns.items()}
            if i in done:
                times = selection.times(i)
                entry |= {name: [plain_value(value) for value in values] for name, values in times.items()}
                entry["files"] = {}
                for tap in selection.taps:
                    name = f"{names.taps[tap.name][i]}.npy"
                    entry["files"][tap.name] = name
                    _write_steps(selection, tap, i, folder / name)
                companions = {
                    "fps": np.asarray(selection.columns["ledger/rate_fps"][i], dtype=np.float64),
                    "timestamps_ms": times["step_seconds"] * 1000,
                }
                for kind, files in names.companions.items():
                    np.save(folder / f"{files[i]}.npy", companions[kind])
                count += 1
                selection.tell(count)
            lines.write(json.dumps(entry) + "\n")
    for tap_name, channels in selection.channels.items():
        (folder / "int8").mkdir(exist_ok=True)
        np.save(folder / "int8" / f"{tap_name}.scale.npy", channels.scale)
        np.save(folder / "int8" / f"{tap_name}.offset.npy", channels.offset)
    (folder / HEADER_FILE).write_text(json.dumps(selection.header, indent=1), encoding="utf-8")


def _write_steps(selection: Selection, tap: TapSpec, i: int, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    dtype = selection.dtype(tap)
    shape = (int(selection.num_steps[i]), *tap.shape)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        for block in selection.blocks(tap, i):
            file.write(np.ascontiguousarray(block).tobytes())
