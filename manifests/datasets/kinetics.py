"""Kinetics-400, -600 and -700 (Kay et al., arXiv:1705.06950): clips named by YouTube id and interval."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reelbank.manifests.datasets.official import find_lists, manifest_from, media_by_stem, read_list, some
from reelbank.manifests.files import regular
from reelbank.manifests.manifest import Manifest, ManifestError

COLUMNS = ("youtube_id", "time_start", "time_end")
SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}

_WHAT = "Kinetics CSV files (label,youtube_id,time_start,time_end,split)"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One line of the official CSV.

    Attributes:
        youtube_id: of the source video, which is the clip's group.
        start_seconds, end_seconds: whole seconds of the source video.
        label: class name; empty in test lists that keep it secret.
        split: `train`, `val` or `test`.
    """

    youtube_id: str
    start_seconds: int
    end_seconds: int
    label: str
    split: str

    @property
    def stem(self) -> str:
        """`<id>_000010_000020`: the official name of the clip's file."""
        return f"{self.youtube_id}_{self.start_seconds:06d}_{self.end_seconds:06d}"


def read_kinetics(
    root: str | os.PathLike[str],
    *,
    splits: str | os.PathLike[str] | None = None,
    allow_group_overlap: bool = False,
) -> Manifest:
    """The listed clips that lie under ROOT, in class folders or not.

    Other than for sets that come as one archive, a listed clip without a file gets no row: its source has left the
    web, and every copy of the set misses thousands. A note counts them.

    Args:
        root: folder of the clips, searched three folders deep.
        splits: an official CSV file or a folder of some; None: found under `root`.
        allow_group_overlap: clips of one source video on both sides of a split become a note.

    Returns:
        Clips `<id>_<start>_<end>`, group: the source video.

    Raises:
        ManifestError: no CSV, a malformed line (named), or none of the listed clips is there.
    """
    root = Path(root)
    listed = read_lists(splits, root=root)
    if not root.is_dir():
        raise ManifestError(f"{root} is not a folder; expected clips <youtube_id>_<start>_<end>.mp4 under it")
    files = media_by_stem(root)
    rows, absent, doubled = [], [], []
    for segment in listed:
        paths = files.get(segment.stem, [])
        if not paths:
            absent.append(segment.stem)
            continue
        if len(paths) > 1:
            doubled.append(segment.stem)
        rows.append(
            {
                "clip_id": segment.stem,
                "video": paths[0],
                "split": segment.split,
                "label": segment.label,
                "group": segment.youtube_id,
            }
        )
    if not rows:
        raise ManifestError(
            f"Kinetics: none of the {len(listed)} listed clips lies under {root}; expected e.g. "
            f"{root / f'{absent[0]}.mp4'}, or the same below a class folder; "
            f"found {len(files)} videos of other names"
        )
    notes = []
    if absent:
        notes.append(f"{len(absent)} of {len(listed)} listed clips have no file under {root}, left out: {some(absent)}")
    if doubled:
        notes.append(f"{len(doubled)} clips have several files, the first by path was taken: {some(doubled)}")
    return manifest_from(rows, root, place="clip", notes=notes, allow_group_overlap=allow_group_overlap)


def read_lists(splits: str | os.PathLike[str] | None, *, root: Path | None = None) -> list[Segment]:
    """The official CSV files alone, without looking at videos. A line that two files share counts once.

    Raises:
        ManifestError: no such CSV, or a malformed line (named).
    """
    if splits is not None and Path(splits).is_file():
        paths = [Path(splits)]
    else:
        folder = find_lists(root or Path(), splits, ends_with=".csv", what=_WHAT)
        paths = [path for path in sorted(folder.glob("*.csv")) if set(COLUMNS) <= set(_header(path))]
        if not paths:
            raise ManifestError(f"no CSV in {folder} has the columns {', '.join(COLUMNS)}; name one with --splits FILE")
    listed: dict[str, Segment] = {}
    for path in paths:
        for place, segment in _parse(path):
            if listed.setdefault(segment.stem, segment) != segment:
                other = listed[segment.stem]
                raise ManifestError(
                    f"{place}: {segment.stem} is {segment.split} {segment.label!r} here and {other.split} "
                    f"{other.label!r} before; name one list with --splits FILE"
                )
    if not listed:
        raise ManifestError(f"{paths[0]} lists no clips")
    return list(listed.values())


def _header(path: Path) -> list[str]:
    try:
        with regular(path).open(encoding="utf-8-sig") as file:
            return [name.strip().strip('"') for name in file.readline().split(",")]
    except (OSError, UnicodeDecodeError):  # not a list of ours
        return []


def _parse(path: Path) -> list[tuple[str, Segment]]:
    table = read_list(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ManifestError(
            f"{path}: no column {missing[0]!r}; expected label,youtube_id,time_start,time_end,split, "
            f"found {', '.join(table.columns)}"
        )
    words = [word for word in SPLITS if word in path.stem.lower().replace("-", "_").split("_")]
    segments = []
    for number, cells in table.rows:
        at = table.at(number)
        name = cells["split"] if "split" in table.columns else (words[-1] if words else "")
        if name not in SPLITS:
            raise ManifestError(
                f"{at}: split {name!r}, expected one of {', '.join(sorted(SPLITS))} in the column split"
                + ("" if "split" in table.columns else " or in the name of the file")
            )
        segments.append((at, _segment(at, cells, SPLITS[name])))
    return segments


def _segment(at: str, cells: dict[str, str], split: str) -> Segment:
    try:
        start, end = (int(float(cells[name])) for name in ("time_start", "time_end"))
    except (ValueError, OverflowError):
        start, end = -1, -1
    youtube_id = cells["youtube_id"].strip()
    if start < 0 or end < start or not youtube_id or "/" in youtube_id or "\\" in youtube_id:
        raise ManifestError(
            f"{at}: youtube_id {cells['youtube_id']!r} from {cells['time_start']!r} to {cells['time_end']!r}, "
            "expected an id and whole seconds"
        )
    label = cells.get("label", "").strip()
    return Segment(youtube_id=youtube_id, start_seconds=start, end_seconds=end, label=label, split=split)
