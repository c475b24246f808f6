"""Folders of .npy, .npz and .pt files: exports of reelbank, video_features' output, one (T, D) file per clip.

video_features writes `<stem>_<feature>.npy` beside `<stem>_fps.npy` and `<stem>_timestamps_ms.npy`; HowTo100M's
features and most others are `<stem>.npy`; two-stream networks leave `<stem>_rgb.npy` and `<stem>_flow.npy`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.store.errors import StoreError
from reelbank.store.exchange.archive_import import SUFFIXES, entries, features_of
from reelbank.store.exchange.import_arrays import (
    DEFAULT_TAP,
    ArraySource,
    NpyArray,
    Stored,
    Times,
    check_header,
    chosen_taps,
    load_small,
)
from reelbank.store.exchange.npy_export import CLIPS_FILE
from reelbank.store.exchange.quantizing import Channels
from reelbank.store.exchange.selection import HEADER_FILE
from reelbank.store.exchange.table import column_from_json
from reelbank.store.files import json_object, read_json, regular

TIMESTAMPS, FPS = "_timestamps_ms", "_fps"
STREAMS = ("flow", "rgb")


def open_folder(path: Path, taps: Sequence[str]) -> ArraySource:
    """Finds the arrays of a folder, its sub-folders included. Raises StoreError if it holds none."""
    if regular(path / HEADER_FILE).is_file():
        return _open_export(path, taps)
    files = sorted(f for f in path.rglob("*") if f.suffix in (".npy", *SUFFIXES) and regular(f).is_file())
    if not files:
        raise StoreError(f"{path} holds no .npy file, and no .npz or .pt")
    stems: dict[str, Path] = {}
    for file in files:
        if (other := stems.setdefault(file.with_suffix("").relative_to(path).as_posix(), file)) != file:
            raise StoreError(f"{other} and {file.name} are both features of {file.stem!r}; leave one in the folder")
    arrays = {name: file for name, file in stems.items() if file.suffix == ".npy"}
    archives = {name: file for name, file in stems.items() if file.suffix != ".npy"}
    timed = {name.removesuffix(TIMESTAMPS) for name in arrays if name.endswith(TIMESTAMPS)}
    if archives and not {name for name in arrays if not name.endswith((TIMESTAMPS, FPS))}:
        return _open_archives(path, archives, timed, taps)
    if archives:
        raise StoreError(
            f"{path} holds features as .npy and as {files[0].suffix if files[0].suffix != '.npy' else '.npz or .pt'}; "
            "put each kind into a folder of its own"
        )
    return _open_video_features(path, arrays, timed, taps) if timed else _open_plain(path, arrays, taps)


def open_one_archive(path: Path, taps: Sequence[str]) -> ArraySource:
    """One .npz or .pt file that holds an array per clip. Raises StoreError if it is damaged."""
    if len(taps) > 1:
        raise StoreError(f"{path} has one array per clip; give one --tap to name it")
    tap = taps[0] if taps else DEFAULT_TAP
    arrays = {name: {tap: array} for name, array in entries(path).items()}
    if not arrays:
        raise StoreError(f"{path} holds no array")
    return ArraySource(path=path, files=(path,), arrays=arrays, form=f"a {path.suffix} file")


def _open_archives(path: Path, files: Mapping[str, Path], timed: Collection[str], taps: Sequence[str]) -> ArraySource:
    held = dict(features_of(files))
    found = sorted({key for archive in held.values() for key in archive.features if key})
    several = any(len(archive.features) > 1 for archive in held.values())
    if several and not taps:
        raise StoreError(f"{path} has files of several arrays; say which hold features with --tap: {', '.join(found)}")
    chosen = chosen_taps(found, taps, path) if several else (taps[0] if taps else DEFAULT_TAP,)
    arrays: dict[str, dict[str, Stored]] = {}
    for name, archive in held.items():
        own = dict(archive.features)
        if not several or "" in own:
            own = dict.fromkeys(chosen, next(iter(own.values())))
        arrays[name] = {tap: own[tap] for tap in chosen if tap in own}

    def times(name: str) -> Times:
        return _beside(path, name) if name in timed else held[name].times

    return ArraySource(
        path=path,
        files=tuple(files.values()),
        arrays=arrays,
        form="a folder of .npz or .pt files",
        times=times,
        notes=tuple(sorted({note for archive in held.values() for note in archive.notes})),
    )


def _open_plain(path: Path, stems: Mapping[str, Path], taps: Sequence[str]) -> ArraySource:
    arrays: dict[str, dict[str, Stored]] = {}
    streams = {name.rpartition("_")[2] for name in stems}
    if streams == set(STREAMS):  # each video has a file per stream of a two-stream network
        chosen = chosen_taps(sorted(streams), taps, path)
        for name, file in stems.items():
            video, _, stream = name.rpartition("_")
            if stream in chosen:
                arrays.setdefault(video, {})[stream] = NpyArray(path=file)
    elif len(taps) > 1:
        raise StoreError(f"{path} has one array per clip; give one --tap to name it")
    else:
        tap = taps[0] if taps else DEFAULT_TAP
        arrays = {name: {tap: NpyArray(path=file)} for name, file in stems.items()}
    return ArraySource(path=path, files=tuple(stems.values()), arrays=arrays, form="a folder of .npy files")


def _open_video_features(
    path: Path, stems: Mapping[str, Path], timed: Collection[str], taps: Sequence[str]
) -> ArraySource:
    arrays: dict[str, dict[str, NpyArray]] = {}
    for name, file in stems.items():
        if name.endswith(TIMESTAMPS):
            continue
        # A stem may hold underscores and so may a feature: the longest stem that has timestamps owns the file.
        cuts = [i for i, sign in enumerate(name) if sign == "_" and name[:i] in timed]
        if name in timed:
            arrays.setdefault(name, {})[taps[0] if len(taps) == 1 else DEFAULT_TAP] = NpyArray(path=file)
        elif cuts and (feature := name[cuts[-1] + 1 :]) != FPS[1:]:
            arrays.setdefault(name[: cuts[-1]], {})[feature] = NpyArray(path=file)
    found = sorted({feature for own in arrays.values() for feature in own})
    chosen = chosen_taps(found, taps, path)
    kept = {name: {tap: own[tap] for tap in chosen if tap in own} for name, own in arrays.items()}
    return ArraySource(
        path=path,
        files=tuple(stems.values()),
        arrays=kept,
        form="a folder of video_features",
        times=lambda name: _beside(path, name),
    )


def _beside(path: Path, name: str) -> Times:
    """What the files of video_features beside an array say."""
    seconds = load_small(path / f"{name}{TIMESTAMPS}.npy").astype(np.float64) / 1000
    rate = path / f"{name}{FPS}.npy"
    return Times(
        step_seconds=np.atleast_1d(seconds),
        rate_fps=float(load_small(rate)) if rate.is_file() else None,
    )


def _open_export(path: Path, taps: Sequence[str]) -> ArraySource:
    header = check_header(read_json(path / HEADER_FILE), path)
    chosen = chosen_taps(header["taps"], taps, path)
    entries = []
    try:
        with regular(path / CLIPS_FILE).open(encoding="utf-8") as lines:
            entries = [json_object(line) for line in lines]
    except (OSError, ValueError) as error:
        raise StoreError(f"{path / CLIPS_FILE} cannot be read: {error}") from error
    names = [name for name in (entries[0] if entries else {}) if name.partition("/")[0] in ("manifest", "ledger")]
    columns = {
        name: column_from_json(name, [entry[name] for entry in entries], header["target_names"]) for name in names
    }
    by_id: dict[str, Mapping[str, Any]] = {entry["manifest/clip_id"]: entry for entry in entries if "files" in entry}
    arrays = {
        name: {tap: NpyArray(path=_inside(path, entry["files"][tap])) for tap in chosen}
        for name, entry in by_id.items()
    }
    channels = {
        tap: Channels(
            scale=load_small(path / "int8" / f"{tap}.scale.npy"),
            offset=load_small(path / "int8" / f"{tap}.offset.npy"),
            axis=int(axis),
        )
        for tap, axis in header["int8_axis"].items()
    }

    def times(name: str) -> Times:
        entry = by_id[name]
        seconds = [np.nan if value is None else value for value in entry["step_seconds"]]
        return Times(
            step_seconds=np.array(seconds, dtype=np.float64),
            frame_index=np.array(entry["frame_index"], dtype=np.int64),
        )

    return ArraySource(
        path=path,
        files=tuple(sorted(file for file in path.rglob("*") if file.is_file())),
        arrays=arrays,
        form="an export of reelbank",
        header=header,
        columns=columns,
        channels=channels,
        times=times,
    )


def _inside(folder: Path, name: str) -> Path:
    """The file `name` of an export; a name that leads out of its folder is refused."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise StoreError(f"{folder / CLIPS_FILE} names {name!r}, which is not in that folder")
    return path
