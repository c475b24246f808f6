"""HDF5 files: exports of reelbank, one dataset per clip, and one group per clip with datasets in it.

A file from a stranger could point at other files: soft, external and virtual links are refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.exchange.import_arrays import (
    DEFAULT_TAP,
    ArraySource,
    SlicedArray,
    Stored,
    Times,
    check_header,
    chosen_taps,
)
from reelbank.store.exchange.quantizing import Channels
from reelbank.store.files import json_object

MAX_DEPTH = 8
MAX_TABLE_BYTES = 1 << 30
MAX_NAMED = 8


def open_hdf5(path: Path, taps: Sequence[str]) -> ArraySource:
    """Finds the arrays of a file, which stays open as long as they are used. Raises StoreError if none fits."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path} is a damaged HDF5 file: {error}") from error
    names = dict.fromkeys(_walk(file, "", path, 0))
    if "reelbank" in names and "manifest/clip_id" in names:
        return _open_export(path, file, names, taps)
    return _open_foreign(path, file, names, taps)


def _walk(group: Any, prefix: str, path: Path, depth: int) -> Iterator[str]:
    """Names of the datasets."""
    if depth > MAX_DEPTH:
        raise StoreError(f"{path}: groups lie deeper than {MAX_DEPTH} levels at {prefix!r}")
    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise StoreError(f"{path}: {name!r} is a link to somewhere else; links are not followed")
        item = group[key]
        if isinstance(item, h5py.Group):
            yield from _walk(item, f"{name}/", path, depth + 1)
        elif isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise StoreError(f"{path}: the data of {name!r} lie in other files; those are not read")
            yield name


def _open_foreign(path: Path, file: Any, datasets: Mapping[str, None], taps: Sequence[str]) -> ArraySource:
    if not datasets:
        raise StoreError(f"{path} holds no dataset")
    parents: dict[str, list[str]] = defaultdict(list)
    for name in datasets:
        parent, _, leaf = name.rpartition("/")
        parents[parent].append(leaf)
    arrays: dict[str, dict[str, Stored]] = {}
    if len(parents) == 1:  # a dataset per clip
        if len(taps) > 1:
            raise StoreError(f"{path} has one dataset per clip; give one --tap to name it")
        tap = taps[0] if taps else DEFAULT_TAP
        for name in datasets:
            arrays[name.rpartition("/")[2]] = {tap: SlicedArray(file=file, name=name)}
    else:
        found = sorted({leaf for leaves in parents.values() for leaf in leaves})
        if not taps and len(found) > 1:
            more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
            raise StoreError(
                f"{path} has a group per clip with several datasets; say which hold features with --tap: "
                f"{', '.join(found[:MAX_NAMED])}{more}"
            )
        chosen = chosen_taps(found, taps, path)
        for parent, leaves in parents.items():
            own: dict[str, Stored] = {
                leaf: SlicedArray(file=file, name=f"{parent}/{leaf}") for leaf in chosen if leaf in leaves and parent
            }
            if own:
                arrays[parent] = own
    return ArraySource(path=path, files=(path,), arrays=arrays, form="an HDF5 file")


def _open_export(path: Path, file: Any, datasets: Mapping[str, None], taps: Sequence[str]) -> ArraySource:
    try:
        header = check_header(json_object(_whole(file["reelbank"])), path)
        chosen = chosen_taps(header["taps"], taps, path)
        columns = {
            f"{name.partition('/')[0]}/{file[name].attrs['name']}": _column(file[name])
            for name in datasets
            if name.partition("/")[0] in ("manifest", "ledger")
        }
        channels = {
            tap: Channels(
                scale=_whole(file[f"int8/{tap}/scale"]), offset=_whole(file[f"int8/{tap}/offset"]), axis=int(axis)
            )
            for tap, axis in header["int8_axis"].items()
        }
        arrays, places = (
            _in_one_array(file, columns, chosen) if "start" in datasets else _in_groups(file, datasets, chosen)
        )
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} looks like an export of reelbank, but is damaged: {error}") from error

    def times(name: str) -> Times:
        seconds, frames = places[name]
        count = seconds.describe()[0][0]
        if any(array.describe()[0][0] != count for array in arrays[name].values()):
            return Times()  # they are of other steps
        return Times(step_seconds=seconds.read(0, count), frame_index=frames.read(0, count))

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


Found = tuple[dict[str, dict[str, Stored]], dict[str, tuple[Stored, Stored]]]


def _in_groups(file: Any, datasets: Mapping[str, None], taps: Sequence[str]) -> Found:
    arrays: dict[str, dict[str, Stored]] = {}
    places: dict[str, tuple[Stored, Stored]] = {}
    for name in datasets:
        folder, _, leaf = name.rpartition("/")
        if leaf != "step_seconds" or not folder.startswith("clips/"):
            continue
        if missing := [leaf for leaf in (*taps, "frame_index") if f"{folder}/{leaf}" not in datasets]:
            raise KeyError(f"{folder}/{missing[0]}")
        clip_id = str(file[folder].attrs["clip_id"])
        arrays[clip_id] = {tap: SlicedArray(file=file, name=f"{folder}/{tap}") for tap in taps}
        places[clip_id] = SlicedArray(file=file, name=name), SlicedArray(file=file, name=f"{folder}/frame_index")
    return arrays, places


def _in_one_array(file: Any, columns: Mapping[str, NDArray[Any]], taps: Sequence[str]) -> Found:
    arrays: dict[str, dict[str, Stored]] = {}
    places: dict[str, tuple[Stored, Stored]] = {}
    for name in (*(f"features/{tap}" for tap in taps), "step_seconds", "frame_index"):
        file[name]  # KeyError where it is missing
    starts, lengths = (_whole(file[name]).tolist() for name in ("start", "length"))
    there = min(len(file[name]) for name in (*(f"features/{tap}" for tap in taps), "step_seconds", "frame_index"))
    if any(start < 0 or length < 0 or start + length > there for start, length in zip(starts, lengths, strict=True)):
        raise ValueError(f"start and length lead out of its {there} steps")
    clip_ids, status = columns["manifest/clip_id"], columns["ledger/status"]
    for clip_id, done, start, length in zip(clip_ids, status == 1, starts, lengths, strict=True):
        if done:
            part = {"start": start, "length": length}
            arrays[str(clip_id)] = {tap: SlicedArray(file=file, name=f"features/{tap}", **part) for tap in taps}
            places[str(clip_id)] = (
                SlicedArray(file=file, name="step_seconds", **part),
                SlicedArray(file=file, name="frame_index", **part),
            )
    return arrays, places


def _column(dataset: Any) -> NDArray[Any]:
    if h5py.check_string_dtype(dataset.dtype) is None:
        return np.asarray(_whole(dataset))
    _check_length(dataset)
    return np.array([str(value) for value in dataset.asstr()[:]], dtype=object)


def _whole(dataset: Any) -> Any:
    """What is held in memory as a whole. Raises ValueError for more than a table has."""
    _check_length(dataset)
    return dataset[()]


def _check_length(dataset: Any) -> None:
    if dataset.nbytes > MAX_TABLE_BYTES:
        raise ValueError(f"{dataset.name} has {dataset.nbytes} bytes, a column has at most {MAX_TABLE_BYTES}")
