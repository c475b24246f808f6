"""A table of intervals in long videos: one clip per line, whatever its columns are called."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from reelbank.manifests.datasets.csv_map import mapped
from reelbank.manifests.datasets.official import media_by_stem
from reelbank.manifests.manifest import VIDEO_SUFFIXES, Manifest, ManifestError
from reelbank.manifests.reading import read_table
from reelbank.manifests.validation import Table, from_table

# Names by which published tables call a column, the likeliest first; case, spaces and dashes do not count.
COMMON_NAMES = {
    "video": ("video", "video_path", "file", "filename", "file_name", "path", "video_file", "video_name", "video_id"),
    "start_seconds": (
        *("start_seconds", "start", "t_start", "start_time", "time_start", "start_sec", "start_s", "onset", "begin"),
        *("begin_time", "start_timestamp", "from"),
    ),
    "end_seconds": (
        *("end_seconds", "end", "t_end", "end_time", "time_end", "end_sec", "end_s", "offset", "stop"),
        *("stop_time", "stop_timestamp", "end_timestamp", "to"),
    ),
    "label": ("label", "action", "activity", "class", "class_name", "event", "behavior", "behaviour", "category"),
    "split": ("split", "subset", "set", "partition"),
    "group": ("group", "subject", "subject_id", "participant", "participant_id", "person"),
    "clip_id": ("clip_id",),
}
DURATION_NAMES = ("duration", "duration_seconds", "duration_s", "length")

_CLOCK = re.compile(r"^(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)$")


def read_intervals(
    file: str | os.PathLike[str],
    *,
    mapping: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    target_columns: Sequence[str] | None = None,
    allow_group_overlap: bool = False,
) -> Manifest:
    """Read a table whose lines are intervals of videos.

    Differs from the `csv` reader in four things: common column names are found, times may be clocks, the end may be
    a duration, and every clip has an id and a group that do not change when a line is added.

    Args:
        file: CSV, JSON Lines or Parquet.
        mapping: manifest column -> column of the file, where the name is not a common one (`COMMON_NAMES`).
        root: the folder of the videos; None: the file's own folder. A video may be named without its suffix.
        target_columns: names after the mapping; None: `kcal`, else those that begin with `target`.
        allow_group_overlap: a video (or group) on both sides of a split becomes a note.

    Returns:
        Clips `<video without suffix>@<start>-<end>`, and `#<label>` behind it where one interval has several labels.
        Without a column for it the group is the video: its intervals stay on one side of every cut.

    Raises:
        ManifestError: a column is not found (the file's are listed), a time is none, or the table is wrong.
    """
    path = Path(file)
    given = read_table(path)
    folder = path.parent if root is None else Path(root)
    if not folder.is_dir():
        raise ManifestError(f"root {folder} is not a folder; it is where the videos of {path} should lie")
    names = _found_names(given, mapping or {})
    table, notes = mapped(given, names)
    length_column = ""
    if "end_seconds" not in names:
        free = {key: name for key, name in _lowered(given).items() if name in table.columns}
        length_column = next((free[name] for name in DURATION_NAMES if name in free), "")
        if not length_column:
            raise _not_found(given, "end_seconds", (*COMMON_NAMES["end_seconds"], *DURATION_NAMES))
    has_bare_names = any(not _is_video(cells["video"]) for _, cells in table.rows)
    stems = media_by_stem(folder) if has_bare_names else {}
    rows = [
        (number, _row(table.at(number), cells, length_column, folder, stems)) for number, cells in table.rows
    ]  # fmt: skip
    if "clip_id" not in table.columns:
        _name_clips([cells for _, cells in rows])
    if "group" not in table.columns:
        notes.append("there is no column for the group: it is the video, so that a cut keeps its intervals together")
        for _, cells in rows:
            cells["group"] = cells["video"]
    columns = tuple(dict.fromkeys((*table.columns, *(name for _, cells in rows[:1] for name in cells))))
    manifest = from_table(
        replace(table, columns=columns, rows=tuple(rows)),
        path=None,
        root=folder,
        restricted=root is not None,
        target_columns=target_columns,
        allow_group_overlap=allow_group_overlap,
    )
    return replace(manifest, notes=(*notes, *manifest.notes))


def _lowered(table: Table) -> dict[str, str]:
    return {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in reversed(table.columns)}


def _found_names(table: Table, mapping: Mapping[str, str]) -> dict[str, str]:
    """Manifest column -> column of the file: what was asked, and common names for the rest."""
    names = dict(mapping)
    free = {key: name for key, name in _lowered(table).items() if name not in mapping.values()}
    for ours, common in COMMON_NAMES.items():
        found = next((free[name] for name in common if name in free), None)
        if ours not in names and found is not None:
            names[ours] = found
    for ours in ("video", "start_seconds"):
        if ours not in names:
            raise _not_found(table, ours, COMMON_NAMES[ours])
    return names


def _not_found(table: Table, ours: str, common: Sequence[str]) -> ManifestError:
    return ManifestError(
        f"{table.source}: no column for {ours} (looked for {', '.join(common)}); "
        f"found {', '.join(table.columns)}; name it with --map {ours}=COLUMN"
    )


def _row(
    at: str, cells: dict[str, str], length_column: str, folder: Path, stems: dict[str, list[str]]
) -> dict[str, str]:
    start = _seconds(at, "start_seconds", cells["start_seconds"])
    if length_column:
        length = _seconds(at, length_column, cells[length_column])
        end = "" if length is None else _text((start or 0.0) + length)
    else:
        stop = _seconds(at, "end_seconds", cells["end_seconds"])
        end = "" if stop is None else _text(stop)
    video = cells["video"].strip()
    if not _is_video(video) and not (folder / video).exists():
        paths = stems.get(PurePosixPath(video).name, [])
        if len(paths) > 1:
            raise ManifestError(f"{at}: video {video!r} may be {' or '.join(paths)} in {folder}; write its suffix")
        video = paths[0] if paths else video
    return cells | {"video": video, "start_seconds": "" if start is None else _text(start), "end_seconds": end}


def _is_video(name: str) -> bool:
    return PurePosixPath(name.strip()).suffix.lower() in VIDEO_SUFFIXES


def _seconds(at: str, name: str, cell: str) -> float | None:
    cell = cell.strip()
    if clock := _CLOCK.match(cell):
        return int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3])
    try:
        return float(cell) if cell else None
    except ValueError:
        raise ManifestError(f"{at}: {name} {cell!r} is neither seconds nor [H:]M:S") from None


def _text(seconds: float) -> str:
    """Up to microseconds: sums of decimals should not show their rounding."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _name_clips(rows: Sequence[dict[str, str]]) -> None:
    for cells in rows:
        video = PurePosixPath(cells["video"])
        stem = video.with_suffix("") if _is_video(cells["video"]) else video
        cells["clip_id"] = f"{stem}@{cells['start_seconds'] or '0'}-{cells['end_seconds']}"
    doubled = {name for name, count in Counter(cells["clip_id"] for cells in rows).items() if count > 1}
    for cells in rows:
        if cells["clip_id"] in doubled and cells.get("label"):
            cells["clip_id"] += f"#{cells['label']}"
