"""What an export says beside its arrays, and how clips are named in files.

Every export of reelbank holds a header (JSON: spec, provenance, taps, view) and a table with a row per clip of the
manifest, failed ones too: its manifest columns, named `manifest/<column>`, and its ledger, named `ledger/<name>`. An
import gives back the same store from them, but for the weights, which are then of kind `imported`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.layout import COLUMNS, DONE, LEDGER
from reelbank.store.reader import Store

if TYPE_CHECKING:
    from reelbank.manifests import Manifest

FORMAT_NAME, FORMAT_VERSION = "reelbank-export", 1
TIMES = ("step_seconds", "frame_index")
RESERVED_TAPS = (*TIMES, "int8")
"""What lies beside the taps in an export; no tap of it can be called so."""
MAX_NAME_BYTES = 200
"""File systems end at 255; a temporary ending and a suffix have room beside it."""
_SAFE = " ()+,=@[]"


def ledger_names() -> tuple[str, ...]:
    """Arrays of the ledger that an exchange keeps: what is said of a clip whatever store it is in."""
    own = ("attempts", "in_manifest", "num_views")
    return tuple(name for name, kind in LEDGER.items() if name not in own and not kind.axis)


def file_name(clip_id: str) -> str:
    """A name for files and groups that is different for every clip id and leads nowhere else.

    Everything but ASCII letters, digits and a few signs is percent-encoded, so that `clip_of` gives the id back. A
    name that would be too long for a file system is cut and ends in the sha256 of the id.
    """
    name = quote(clip_id, safe=_SAFE)
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) <= MAX_NAME_BYTES:
        return name
    # `%-` is no escape, so no short id can have such a name.
    return f"{name[:100].rstrip('%')}%-{hashlib.sha256(clip_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def clip_of(name: str) -> str | None:
    """The clip id that `file_name` turned into `name`; None for a cut name."""
    return None if "%-" in name else unquote(name)


def clip_columns(store: Store, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The table of an export: {`manifest/<column>` or `ledger/<name>`: (len(rows),)}."""
    columns = {name: store.column(name) for name in store.column_names}
    table = {f"manifest/{name}": values[rows] for name, values in columns.items() if is_plain(values)}
    return table | {f"ledger/{name}": getattr(store.clips, name)[rows] for name in ledger_names()}


def is_plain(column: NDArray[Any]) -> bool:
    """Whether a manifest column is one number or text per clip, as today's are."""
    return column.ndim == 1 and column.dtype.kind in "fO"


def unknown_notes(store: Store) -> tuple[str, ...]:
    """A sentence for each array of a later version, which an export leaves out."""
    names = [*store.unknown, *(store.column_arrays[n] for n in store.column_arrays if not is_plain(store.column(n)))]
    return tuple(f"{name} is left out: this version does not know it" for name in names)


def unknown_columns(table: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each ledger column of a later version's export, which an import leaves out."""
    names = [name for name in table if name.startswith("ledger/") and name.removeprefix("ledger/") not in LEDGER]
    return tuple(f"{name} is left out: this version does not know it" for name in names)


def manifest_of(table: Mapping[str, NDArray[Any]], target_names: tuple[str, ...]) -> Manifest:
    """The manifest whose columns `clip_columns` wrote. Raises StoreError where a needed one is missing."""
    from pathlib import Path

    from reelbank.manifests import Clip, Manifest
    from reelbank.manifests.manifest import SECONDS_FIELDS, TEXT_FIELDS

    columns = {name.removeprefix("manifest/"): values for name, values in table.items() if name.startswith("manifest/")}
    fills: dict[str, Any] = dict.fromkeys(target_names, math.nan)
    fills |= {name: kind.fill for name, kind in COLUMNS.items() if not kind.essential}
    if missing := sorted({*TEXT_FIELDS, *SECONDS_FIELDS} - {*columns, *fills}):
        raise StoreError(f"the export has no manifest column {missing[0]!r}: it is damaged")
    texts = tuple(name for name in columns if name not in {*TEXT_FIELDS, *SECONDS_FIELDS, *target_names})
    count = len(columns["clip_id"])
    columns = {name: np.full(count, fill, dtype=object) for name, fill in fills.items()} | columns

    def seconds(name: str, i: int) -> float | None:
        value = float(columns[name][i])
        return None if math.isnan(value) else value

    clips = tuple(
        Clip(
            clip_id=str(columns["clip_id"][i]),
            video=str(columns["video"][i]),
            split=str(columns["split"][i]),
            label=str(columns["label"][i]),
            group=str(columns["group"][i]),
            start_seconds=seconds("start_seconds", i),
            end_seconds=seconds("end_seconds", i),
            targets={name: float(columns[name][i]) for name in target_names},
            text={name: str(columns[name][i]) for name in texts},
        )
        for i in range(len(columns["clip_id"]))
    )
    ids = [clip.clip_id for clip in clips]
    if len(set(ids)) != len(ids):
        doubled = next(clip_id for clip_id in ids if ids.count(clip_id) > 1)
        raise StoreError(f"clip {doubled!r} is there more than once; every clip needs an id of its own")
    return Manifest(path=None, root=Path(), clips=clips, target_names=target_names, text_columns=texts)


def plain_value(value: Any) -> Any:
    """One cell of a table as JSON has it: NaN, which JSON has not, is null."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def column_from_json(name: str, values: list[Any], target_names: Iterable[str]) -> NDArray[Any]:
    """The column `name` of a table whose cells are those of `plain_value`."""
    folder, _, own = name.partition("/")
    dtype = LEDGER[own].dtype if folder == "ledger" and own in LEDGER else "str"
    if dtype == "str" and (folder == "ledger" or own not in {*target_names, "start_seconds", "end_seconds"}):
        return np.array([str(value) for value in values], dtype=object)
    if dtype == "str" or dtype.startswith("float"):
        return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    return np.array(values, dtype=dtype)


def ledger_values(table: Mapping[str, NDArray[Any]], i: int) -> dict[str, Any]:
    """What the ledger row of clip `i` keeps over an exchange, as JSON types."""
    kept = [name for name in ledger_names() if name not in ("status", "reason", "num_steps")]
    cells = {name: table[f"ledger/{name}"][i] for name in kept if f"ledger/{name}" in table}
    return {name: cell.item() if isinstance(cell, np.generic) else str(cell) for name, cell in cells.items()}


def listed_rows(store: Store, view: int) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Rows that an export lists, and why others are not: {reason: clips}."""
    if not 0 <= view < len(store.spec.views):
        raise StoreError(f"--view {view}: {store.path} has views 0 to {len(store.spec.views) - 1}")
    present = store.clips.in_manifest == 1
    without = present & (store.clips.status == DONE) & (store.clips.num_views <= view)
    left_out = {
        "no longer in the manifest": int((~present).sum()),
        f"view {view} is not stored": int(without.sum()),
    }
    return np.flatnonzero(present & ~without), {reason: count for reason, count in left_out.items() if count}
