"""What a store of another version lacks or has more, by the rule in `layout`: filled, grown along, carried."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.store import layout
from reelbank.store.files import reading
from reelbank.store.layout import COLUMNS, ESSENTIAL_ATTRIBUTES, OTHER_ATTRIBUTES, Definition
from reelbank.store.plain import PlainArray
from reelbank.store.shards import grow
from reelbank.store.sums import read_summed, write_summed

CARRIED = ("clips", "manifest")
"""Folders whose unknown arrays a merge copies: a value per clip, small enough for memory."""


def is_there(path: Path) -> bool:
    """Whether the array in the folder `path` was made."""
    return (path / "zarr.json").is_file()


def absent_arrays(path: Path, definitions: Mapping[str, Definition]) -> dict[str, Definition]:
    """The arrays of this version that the store at `path` has not, by path."""
    return {name: definition for name, definition in definitions.items() if not is_there(path / name)}


def unknown_arrays(path: Path, root: Mapping[str, Any], definitions: Mapping[str, Definition]) -> tuple[str, ...]:
    """Paths of arrays over clips that neither this version nor the list of manifest columns knows."""
    known = {*definitions, *(f"manifest/{array}" for array in (*COLUMNS, *root["columns"].values()))}
    return tuple(_over_clips(path, known))


def unknown_attributes(root: Mapping[str, Any]) -> tuple[str, ...]:
    """Root attributes that this version does not know."""
    return tuple(sorted(set(root) - {*ESSENTIAL_ATTRIBUTES, *OTHER_ATTRIBUTES}))


def essential_arrays(root: Mapping[str, Any], definitions: Mapping[str, Definition]) -> tuple[str, ...]:
    """Paths of the arrays that must be there; a store that was just made has no manifest yet."""
    names = [name for name, definition in definitions.items() if definition.essential]
    if root["num_clips"]:
        names += [f"manifest/{name}" for name, kind in COLUMNS.items() if kind.essential]
    return tuple(names)


def refuse_incomplete(path: Path, root: Mapping[str, Any], definitions: Mapping[str, Definition]) -> None:
    """Raises StoreError naming an essential array that the store has not: a writer would bury what is left."""
    for name in essential_arrays(root, definitions):
        folder, _, own = name.partition("/")
        if not is_there(path / name) or (folder == "manifest" and own not in root["columns"]):
            raise layout.not_there(path / name)


def make_absent(path: Path, definitions: Mapping[str, Definition]) -> None:
    """Makes the absent arrays, whose every value is fill, as wide as the others."""
    missing = absent_arrays(path, definitions)
    if not missing:
        return
    for name, definition in missing.items():
        layout.create_array(path, name, definition)
    widths = [
        read_summed(path / name / "zarr.json")["shape"][definition.dimensions.index("step")]
        for name, definition in definitions.items()
        if "step" in definition.dimensions
    ]
    grow_axes(path, definitions, {"step": max(widths)})


def grow_axes(path: Path, definitions: Mapping[str, Definition], sizes: Mapping[str, int]) -> None:
    """Makes the axes called `clip` or `step` of every array over clips at least as long as `sizes`, known or not."""
    for name in (*definitions, *_over_clips(path, definitions)):
        known = definitions.get(name)
        dimensions = read_summed(path / name / "zarr.json")["dimension_names"] if known is None else known.dimensions
        if not sizes.keys().isdisjoint(dimensions):
            grow(path / name, [sizes.get(dimension) for dimension in dimensions])


def _over_clips(path: Path, known: Container[str]) -> list[str]:
    found = []
    for file in sorted(path.glob("*/*/zarr.json")):
        if file.parent.relative_to(path).as_posix() in known:
            continue
        meta = read_summed(file)
        if meta.get("node_type") == "array" and _first_axis(meta.get("dimension_names")) == "clip":
            found.append(file.parent.relative_to(path).as_posix())
    return found


def _first_axis(names: Any) -> Any:
    return names[0] if isinstance(names, list) and names else None


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What a merge does with the arrays that this version does not know.

    Attributes:
        arrays: {path: manifest column, or '' for an array that is none} of those that are copied.
        notes: a sentence for each that is not.
    """

    arrays: Mapping[str, str]
    notes: tuple[str, ...]


def plan_carrying(paths: Sequence[Path], unknown: Sequence[Mapping[str, str]]) -> Carried:
    """Which unknown arrays all stores have alike: same dtype, fill value and axes after `clip`.

    Args:
        paths: the stores.
        unknown: of each store, its unknown arrays: {path: manifest column, or ''}.
    """
    arrays: dict[str, str] = {}
    notes = []
    for name in sorted({name for own in unknown for name in own}):
        holders = [path for path, own in zip(paths, unknown, strict=True) if name in own]
        column = next(own[name] for own in unknown if name in own)
        if name.partition("/")[0] not in CARRIED:
            notes.append(f"{name} is left out: this version does not know it")
        elif len(holders) < len(paths):
            notes.append(f"{name} is left out: of the stores only {', '.join(p.name for p in holders)} have it so")
        elif len({_kind(path / name) for path in holders}) > 1 or len({own[name] for own in unknown}) > 1:
            notes.append(f"{name} is left out: the stores have it with different dtypes, fill values or axes")
        else:
            arrays[name] = column
    return Carried(arrays=arrays, notes=tuple(notes))


def carry(out: Path, unit_clips: int, carried: Carried, paths: Sequence[Path], rows: Sequence[tuple[int, int]]) -> None:
    """Copies the carried arrays into the finished store `out`.

    Args:
        unit_clips: K of `out`.
        paths: the stores.
        rows: of each clip of `out`, (number of the store, row there).
    """
    if not carried.arrays:
        return
    for name in carried.arrays:
        held = [PlainArray(path / name) for path in paths]
        first, read = held[0], [array.read(0, array.shape[0]) for array in held]
        values = np.full((len(rows), *first.shape[1:]), first.fill, dtype=read[0].dtype)
        for place, (number, row) in enumerate(rows):
            if row < len(read[number]):
                values[place] = read[number][row]
        made = Definition(
            dtype="str" if read[0].dtype.kind in "TUO" else str(read[0].dtype), fill=first.fill, tail=first.shape[1:],
            chunks=(unit_clips, *first.shape[1:]), dimensions=tuple(first.document["dimension_names"]), essential=False,
        )  # fmt: skip
        document = layout.array_document(made, len(rows), first.document["attributes"])
        write_summed(out / name / "zarr.json", document)
        PlainArray(out / name, writable=True).write(0, values)
    root = layout.read_root(out)
    named = {column: name.partition("/")[2] for name, column in carried.arrays.items() if column}
    layout.write_root(out, {**root, "columns": {**root["columns"], **named}})


def _kind(path: Path) -> str:
    meta = read_summed(path / "zarr.json")
    with reading(path / "zarr.json"):
        facts = (meta["data_type"], meta["fill_value"], meta["shape"][1:], meta["dimension_names"])
        return layout.canonical(facts)
