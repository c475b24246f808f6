"""An export as one Parquet table for programs that show embeddings: a row per clip with features.

Columns: those of the manifest (`clip_id`, `video`, `label`, `split`, `group`, times, targets, texts), `num_steps`,
`duration_seconds`, `vector` (the mean of the clip's steps, a list of float32 of one size), `thumbnail` ({bytes: JPEG,
path}, as Hugging Face's data sets have pictures; null where the store has none), and with a probe what its
coordinates.csv gives of a clip: `x`, `y`, `cluster`, `umap_x`, ... embedding-atlas reads all of it as it is
(https://apple.github.io/embedding-atlas/data-formats.html). Steps are not in it, so it cannot be imported again.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.exchange.table import is_plain
from reelbank.store.files import reading, regular
from reelbank.store.layout import DONE

if TYPE_CHECKING:
    from reelbank.store.exchange.selection import Selection
    from reelbank.store.reader import Store

NO_PYARROW = "--format parquet needs pyarrow, which is an extra: pip install reelbank[parquet]"
LEDGER_COLUMNS = ("num_steps", "duration_seconds")
OWN_COLUMNS = (*LEDGER_COLUMNS, "thumbnail", "vector")
OF_ROWS = ("clip_id", "step", "split", "label", "group", "target")
"""Columns of a probe's coordinates.csv that say which row it is."""
JPEG_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What a probe says of clips: {column: {clip id: value, a number where all are}}."""

    columns: dict[str, dict[str, float | str]]

    @property
    def clip_ids(self) -> set[str]:
        """Of the clips that it says something of."""
        return {clip_id for values in self.columns.values() for clip_id in values}


def read_probe(folder: Path, store: Store) -> Mapped:
    """The coordinates that a probe of `store` left in `folder`.

    Raises:
        StoreError: no probe there, one of another store or of steps, or one that made no map.
    """
    results, table = folder / "results.json", folder / "coordinates.csv"
    if not (results.is_file() and table.is_file()):
        raise StoreError(f"--probe {folder} holds no coordinates.csv and results.json: no probe that read features")
    with reading(folder, StoreError):
        digest = json.loads(regular(results).read_text(encoding="utf-8"))["spec_digest"]
        with regular(table).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    if digest != store.spec_digest:
        raise StoreError(f"--probe {folder} is of a store with other features than {store.path}; probe this one")
    if any(row["step"] for row in rows):
        raise StoreError(f"--probe {folder} maps steps, and the table has a row per clip; probe with --level clip")
    columns: dict[str, dict[str, float | str]] = {}
    for name in (name for name in (rows[0] if rows else {}) if name not in OF_ROWS):
        texts = {row["clip_id"]: row[name] for row in rows}
        try:
            columns[name] = {clip_id: float(text) for clip_id, text in texts.items()}
        except ValueError:
            columns[name] = {**texts}
    if not columns:
        raise StoreError(f"--probe {folder} made no map; run probe with --tsne or --umap")
    return Mapped(columns=columns)


def usable_rows(store: Store, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Those of `rows` that have a mean, and why others are left out: {reason: clips}."""
    is_done, has_steps = store.clips.status[rows] == DONE, store.clips.num_steps[rows] > 0
    left_out = {"without features": int((~is_done).sum()), "no steps": int((is_done & ~has_steps).sum())}
    return rows[is_done & has_steps], {reason: count for reason, count in left_out.items() if count}


def unmapped(store: Store, rows: NDArray[np.int64], probe: Mapped) -> tuple[str, ...]:
    """A sentence where clips of the table are not in the probe."""
    count = sum(str(name) not in probe.clip_ids for name in store.column("clip_id")[rows])
    return (f"{count} of {len(rows)} clips are not in the probe: their x and y are null",) if count else ()


def write_parquet(selection: Selection, path: Path, probe: Mapped | None) -> None:
    """Writes the table, one unit of the store at a time. Raises StoreError where pyarrow is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise StoreError(NO_PYARROW) from error
    store, (tap,), rows = selection.store, selection.taps, selection.rows
    store.means(tap.name, 0, 0, selection.view)  # raises where the tap has none
    columns = {name: values for name in store.column_names if is_plain(values := store.column(name))}
    if taken := sorted(set(columns) & set(OWN_COLUMNS)):
        raise StoreError(f"manifest column {taken[0]!r} has the name of a column that the table has of its own")
    given = probe.columns if probe else {}
    mapped = {name if name not in columns else f"probe_{name}": values for name, values in given.items()}
    kinds = {name: pa.float64() if values.dtype.kind == "f" else pa.string() for name, values in columns.items()}
    kinds |= {"num_steps": pa.int64(), "duration_seconds": pa.float64()}
    kinds |= {name: pa.float64() if _is_numeric(values) else pa.string() for name, values in mapped.items()}
    kinds |= {"thumbnail": pa.struct([("bytes", pa.binary()), ("path", pa.string())])}
    kinds |= {"vector": pa.list_(pa.float32(), tap.shape[0])}
    schema = pa.schema(list(kinds.items()), metadata={"reelbank": json.dumps(selection.header)})
    done = 0
    with pq.ParquetWriter(path, schema) as writer:
        for part in np.split(rows, np.flatnonzero(np.diff(rows // store.geometry.unit_clips)) + 1):
            if not len(part):
                continue
            clip_ids = [str(name) for name in columns["clip_id"][part]]
            cells: dict[str, Any] = {name: _plain(values[part]) for name, values in columns.items()}
            cells |= {name: _plain(store.clips.arrays[name][part]) for name in LEDGER_COLUMNS}
            cells |= {name: [values.get(clip_id) for clip_id in clip_ids] for name, values in mapped.items()}
            cells["thumbnail"] = [_picture(store.thumbnail(row)) for row in part.tolist()]
            first = int(part[0])
            means = store.means(tap.name, first, int(part[-1]) + 1, selection.view)[part - first]
            arrays = [pa.array(cells[name], kind) for name, kind in kinds.items() if name != "vector"]
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(means.reshape(-1), pa.float32()), tap.shape[0]))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            done += len(part)
            selection.tell(done)


def _is_numeric(values: dict[str, float | str]) -> bool:
    return all(isinstance(value, float) for value in values.values())


def _plain(values: NDArray[Any]) -> list[Any]:
    """Cells as Python has them; NaN, which means that nothing is known, is null."""
    return [None if value != value else value for value in values.tolist()]


def _picture(rgb: NDArray[np.uint8]) -> dict[str, Any] | None:
    """A thumbnail as Hugging Face's data sets have pictures; None for one that is black, which no clip has."""
    if not rgb.any():
        return None
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return {"bytes": buffer.getvalue(), "path": None}
