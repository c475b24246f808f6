"""A table of intervals in long videos: one clip per line, whatever its columns are called."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from reelbank.manifests.datasets.columns import (
    COMMON_NAMES,
    DURATION_NAMES,
    NOBODY,
    found_names,
    label_hints,
    mapped,
    not_found,
    one_row_each,
    option,
    several_column,
)
from reelbank.manifests.datasets.csv_map import manifest_of_table, mended
from reelbank.manifests.datasets.paths import is_video_name, videos_folder, with_found_paths
from reelbank.manifests.manifest import Manifest, ManifestError
from reelbank.manifests.reading import read_table

MOST_NAMED = 3  # subjects in the name of a group


def read_intervals(
    file: str | os.PathLike[str],
    *,
    mapping: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    target_columns: Sequence[str] | None = None,
    allow_group_overlap: bool = False,
    decimal: str | None = None,
) -> Manifest:
    """Read a table whose lines are intervals of videos.

    Differs from the `csv` reader in three things: common column names are found, the end may be a duration, and every
    clip has an id that does not change when a line is added, and a group.

    Args:
        file: whatever the `csv` reader reads.
        mapping: manifest column -> column of the file, where the name is not a common one (`COMMON_NAMES`).
        root: the folder of the videos; None: the file's own folder. A video may be named without its suffix.
        target_columns: names after the mapping; None: `kcal`, else those that begin with `target`.
        allow_group_overlap: a video (or group) on both sides of a split becomes a note.
        decimal: as for the `csv` reader.

    Returns:
        Clips `<video without suffix>@<start>-<end>`, and `#<label>` behind it where one interval has several labels.
        Without a column for it the group is the video: its intervals stay on one side of every cut. A column of
        subjects that was found by its name keeps those who share a video together too.

    Raises:
        ManifestError: a column is not found (the file's are listed), a time is none, or the table is wrong.
    """
    path = Path(file)
    folder = videos_folder(path, root)
    given = read_table(path)
    names = found_names(given, mapping or {})
    if "start_seconds" not in names and (several := several_column(given)):
        given = one_row_each(given, several)
        names = found_names(given, mapping or {})
    for ours in ("video", "start_seconds"):
        if ours not in names:
            raise not_found(given, ours, COMMON_NAMES[ours])
    if not {"end_seconds", "duration"} & set(names):
        raise not_found(given, "end_seconds", (*COMMON_NAMES["end_seconds"], *DURATION_NAMES))
    is_guess = "group" not in (mapping or {}) and names.get("group", "group").lower() != "group"
    subject = names.pop("group") if is_guess else ""
    table = mended(mapped(given, names), names, target_columns=target_columns, decimal=decimal)
    table = with_found_paths(replace(table, notes=(*table.notes, *label_hints(table))), folder)
    rows = [(number, cells | _ends(table.at(number), cells)) for number, cells in table.rows]
    if "clip_id" not in names:
        _name_clips([cells for _, cells in rows])
    if "group" not in names:
        groups, note = _groups([cells for _, cells in rows], subject)
        rows = [(number, cells | {"group": group}) for (number, cells), group in zip(rows, groups, strict=True)]
        table = replace(table, notes=(*table.notes, note))
    columns = tuple(dict.fromkeys((*table.columns, *(name for _, cells in rows[:1] for name in cells))))
    return manifest_of_table(
        replace(table, columns=columns, rows=tuple(rows)),
        given=given,
        mapping=names,
        root=folder,
        restricted=root is not None,
        target_columns=target_columns,
        allow_group_overlap=allow_group_overlap,
    )


def _ends(at: str, cells: Mapping[str, str]) -> dict[str, str]:
    start = _seconds(at, "start_seconds", cells["start_seconds"])
    if "end_seconds" in cells:
        end = _seconds(at, "end_seconds", cells["end_seconds"])
    else:
        length = _seconds(at, "duration", cells["duration"])
        end = None if length is None else (start or 0.0) + length
    return {"start_seconds": _text(start), "end_seconds": _text(end)}


def _seconds(at: str, name: str, cell: str) -> float | None:
    cell = cell.strip()
    try:
        return float(cell) if cell else None
    except ValueError:
        raise ManifestError(f"{at}: {name} {cell!r} is neither seconds nor [H:]M:S") from None


def _groups(rows: Sequence[Mapping[str, str]], subject: str) -> tuple[list[str], str]:
    """The group of each row, and why: subjects with the videos that they share, else the videos.

    Args:
        rows: cells under our names.
        subject: a column that was found by its name; '' where there is none.
    """
    videos = [cells["video"] for cells in rows]
    by_video = "the group is the video, so that a cut keeps its intervals together"
    if not subject:
        return videos, f"there is no column for the group: {by_video}"
    subjects = ["" if (name := cells[subject].strip()).lower() in NOBODY else name for cells in rows]
    take_it = f"({option('group', subject)} takes it)"
    if not any(subjects):
        return videos, f"column {subject!r} names nobody ({rows[0][subject]!r}): {by_video} {take_it}"
    groups = _together(videos, subjects)
    if len(set(groups)) == 1 and len(set(videos)) > 1:
        return videos, f"column {subject!r} would put all videos into one group ({groups[0]}): {by_video} {take_it}"
    return groups, f"the group is column {subject!r}, and those who share a video are one group"


def _together(videos: Sequence[str], subjects: Sequence[str]) -> list[str]:
    """Names of the smallest groups that cut no video and no subject in two."""
    above: dict[tuple[str, str], tuple[str, str]] = {}

    def top(one: tuple[str, str]) -> tuple[str, str]:
        while (other := above.setdefault(one, one)) != one:
            one = other
        return one

    for video, subject in zip(videos, subjects, strict=True):
        if subject:
            above[top(("video", video))] = top(("subject", subject))
    members: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for video, subject in zip(videos, subjects, strict=True):
        members[top(("video", video))] |= {subject: None} if subject else {}
    names = {key: _joined(sorted(found)) for key, found in members.items()}
    return [names[top(("video", video))] or video for video in videos]


def _joined(subjects: Sequence[str]) -> str:
    more = len(subjects) - MOST_NAMED
    return "+".join(subjects[:MOST_NAMED]) + (f"+{more} more" if more > 0 else "")


def _text(seconds: float | None) -> str:
    """Up to microseconds: sums of decimals should not show their rounding."""
    return "" if seconds is None else f"{seconds:.6f}".rstrip("0").rstrip(".")


def _name_clips(rows: Sequence[dict[str, str]]) -> None:
    for cells in rows:
        video = PurePosixPath(cells["video"])
        stem = video.with_suffix("") if is_video_name(cells["video"]) else video
        cells["clip_id"] = f"{str(stem).strip()}@{cells['start_seconds'] or '0'}-{cells['end_seconds']}"
    doubled = {name for name, count in Counter(cells["clip_id"] for cells in rows).items() if count > 1}
    for cells in rows:
        if cells["clip_id"] in doubled and cells.get("label"):
            cells["clip_id"] += f"#{cells['label']}"
