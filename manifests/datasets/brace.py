"""BRACE (Moltisanti, Wu, Dai, Loy, ECCV 2022): breakdance segments with keypoints."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reelbank.manifests.datasets.official import find_lists, folder_entries, manifest_from, read_list, some
from reelbank.manifests.manifest import Manifest, ManifestError
from reelbank.manifests.table import Table

SPLIT_FILES = {"train": "sequences_train.csv", "test": "sequences_test.csv"}

_EXPECTED = "<year>/<video_id>/<video_id>_<start>-<end>_<movement>.json"
_FILE = re.compile(r"_(\d+)-(\d+)_[^_]+\.json$")
_SEGMENT_COLUMNS = ("video_id", "seq_idx", "start_frame", "end_frame", "dance_type", "dancer", "year", "uid")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One line of `segments.csv`: a stretch of one movement.

    Attributes:
        uid: `<video_id>.<start>.<end>`; ids may begin with `-` and hold `_`.
        sequence: `<video_id>.<n>`: the uncut dance it is part of, which is never on both sides of the split.
        start_frame, end_frame: of the video, as in the official file.
        label: `footwork`, `powermove` or `toprock`.
        split: `train` or `test` as the sequence's, `unused` where no list names it.
        rate_fps: of the video, as text; empty where `videos_info.csv` is not there.
    """

    uid: str
    video_id: str
    sequence: str
    start_frame: int
    end_frame: int
    label: str
    dancer: str
    year: str
    split: str
    rate_fps: str


def read_brace(root: str | os.PathLike[str], *, splits: str | os.PathLike[str] | None = None) -> Manifest:
    """The official segments with their keypoint files; no video is needed.

    Args:
        root: folder of the year folders, or one whose child holds them.
        splits: folder of `segments.csv`, `sequences_train.csv`, `sequences_test.csv` (and `videos_info.csv`, here or
            one folder up); None: found under `root`.

    Returns:
        Clips by their uid, group: the sequence, `annotations`: the keypoint file, and the columns `start_frame`,
        `end_frame`, `rate_fps`, `dancer`. Segments whose file is missing keep their row and stand in the notes.

    Raises:
        ManifestError: lists are missing or malformed (named), or none of the keypoint files is there.
    """
    root = Path(root)
    segments = read_lists(splits, root=root)
    place = _keypoint_root(root, {segment.year for segment in segments})
    files = {folder: _files(place / folder) for folder in sorted({f"{s.year}/{s.video_id}" for s in segments})}
    rows, absent = [], []
    for segment in segments:
        folder = f"{segment.year}/{segment.video_id}"
        name = files[folder].get((segment.start_frame, segment.end_frame))
        if name is None:
            name = f"{segment.video_id}_{segment.start_frame}-{segment.end_frame}_{segment.label}.json"
            absent.append(f"{folder}/{name}")
        rows.append(
            {
                "clip_id": segment.uid,
                "video": "",
                "split": segment.split,
                "label": segment.label,
                "group": segment.sequence,
                "annotations": f"{folder}/{name}",
                "start_frame": str(segment.start_frame),
                "end_frame": str(segment.end_frame),
                "rate_fps": segment.rate_fps,
                "dancer": segment.dancer,
            }
        )
    if len(absent) == len(segments):
        raise ManifestError(
            f"BRACE: none of the {len(segments)} keypoint files is under {root}; expected {_EXPECTED}, "
            f"e.g. {place / absent[0]}"
        )
    notes = []
    if absent:
        notes.append(f"{len(absent)} of {len(segments)} keypoint files are missing under {place}: {some(absent)}")
    return manifest_from(rows, place, place="segment", notes=notes)


def read_lists(splits: str | os.PathLike[str] | None, *, root: Path | None = None) -> list[Segment]:
    """The official files alone: 1,352 segments of 465 sequences, 319 of them train and 146 test.

    Raises:
        ManifestError: a file is missing, lacks a column, or has a malformed line (named).
    """
    what = f"BRACE lists (segments.csv, {', '.join(SPLIT_FILES.values())})"
    folder = find_lists(root or Path(), splits, ends_with="segments.csv", what=what)
    split_of: dict[str, str] = {}
    for split, name in SPLIT_FILES.items():
        table = _table(folder / name, ("uid",))
        for number, cells in table.rows:
            if split_of.setdefault(cells["uid"], split) != split:
                raise ManifestError(f"{table.at(number)}: sequence {cells['uid']!r} is also in {SPLIT_FILES['train']}")
    rates = _rates(folder)
    table = _table(folder / "segments.csv", _SEGMENT_COLUMNS)
    segments = []
    for number, cells in table.rows:
        start, end = cells["start_frame"], cells["end_frame"]
        if not (start.isdecimal() and end.isdecimal() and int(start) <= int(end)):
            raise ManifestError(f"{table.at(number)}: frames {start!r} to {end!r}, expected two numbers in order")
        sequence = f"{cells['video_id']}.{cells['seq_idx']}"
        segments.append(
            Segment(
                uid=cells["uid"],
                video_id=cells["video_id"],
                sequence=sequence,
                start_frame=int(start),
                end_frame=int(end),
                label=cells["dance_type"],
                dancer=cells["dancer"],
                year=cells["year"],
                split=split_of.get(sequence, "unused"),
                rate_fps=rates.get(cells["video_id"], ""),
            )
        )
    if not segments:
        raise ManifestError(f"{table.source} lists no segments")
    return segments


def _table(path: Path, columns: Sequence[str]) -> Table:
    table = read_list(path)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ManifestError(f"{path}: no column {missing[0]!r}; expected {', '.join(columns)}")
    return table


def _rates(folder: Path) -> dict[str, str]:
    path = next((p for p in (folder / "videos_info.csv", folder.parent / "videos_info.csv") if p.is_file()), None)
    if path is None:
        return {}
    return {cells["video_id"]: cells["fps"] for _, cells in _table(path, ("video_id", "fps")).rows}


def _keypoint_root(root: Path, years: set[str]) -> Path:
    """ROOT or the first folder below it that holds a year."""
    children = [root / name for name, is_folder in folder_entries(root) if is_folder]
    return next((place for place in (root, *children) if any((place / year).is_dir() for year in years)), root)


def _files(folder: Path) -> dict[tuple[int, int], str]:
    """(start, end) -> name, however the numbers are padded."""
    found = ((_FILE.search(name), name) for name, is_folder in folder_entries(folder) if not is_folder)
    return {(int(match[1]), int(match[2])): name for match, name in found if match}
