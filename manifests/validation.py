"""From a table of text cells to a checked `Manifest`.

Everything that is wrong with the *table* is found here, all of it in one pass, with file and line.
Whether a video exists or decodes is not asked: that is a ledger row of `featurize`.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath

from reelbank.manifests.files import as_one_file
from reelbank.manifests.manifest import (
    FIELDS,
    GUARDED_SPLITS,
    IMAGE_SUFFIXES,
    PATH_COLUMNS,
    SECONDS_FIELDS,
    VIDEO_SUFFIXES,
    Clip,
    Manifest,
    ManifestError,
    outside,
)
from reelbank.manifests.numbers import with_plain_numbers
from reelbank.manifests.overlaps import Labelled, contradictions
from reelbank.manifests.table import Table

# A person repairs a handful at a time; a thousand lines of the same mistake help nobody.
MAX_LISTED = 10

NUMBER_COLUMNS = ("rate_fps",)
"""Of what is kept as text: numbers that are read later."""
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_ALMOST_SPLITS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}


@dataclass
class _Problems:
    found: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        self.found.append(message)

    def raise_if_any(self) -> None:
        if not self.found:
            return
        listed = self.found[:MAX_LISTED]
        if len(self.found) > MAX_LISTED:
            listed.append(f"... and {len(self.found) - MAX_LISTED} more")
        raise ManifestError("\n".join(listed))


def from_table(
    table: Table,
    *,
    path: Path | None,
    root: Path,
    restricted: bool = False,
    target_columns: Sequence[str] | None = None,
    allow_group_overlap: bool = False,
) -> Manifest:
    """Check a table and make the manifest of it.

    Args:
        table: the cells.
        path: the file it came from, None where it was built.
        root: the folder that relative paths start at.
        restricted: refuse paths that leave `root`, symbolic links followed.
        target_columns: columns of numbers; None: `kcal`, else those that begin with `target`.
        allow_group_overlap: a group on two of train/val/test/unknown becomes a note instead of an error.

    Raises:
        ManifestError: with one line per problem, each naming file and line.
    """
    _check_columns(table)
    if not table.rows:
        raise ManifestError(f"{table.source} has a header but no clips; every clip is one {table.place}")
    targets = target_names(table, target_columns)
    text_columns = tuple(c for c in table.columns if c not in FIELDS and c not in targets)
    table = with_plain_numbers(table, names={*targets, *NUMBER_COLUMNS}, seconds=dict.fromkeys(SECONDS_FIELDS, "s"))
    notes = list(table.notes)
    problems = _Problems()
    rows = table.rows
    if "split" not in table.columns:
        notes.append("there is no column 'split': every clip counts as train")
        for _, cells in rows:
            cells["split"] = "train"
    if "clip_id" not in table.columns:
        notes.append("there is no column 'clip_id': ids are the video paths without their suffix")
        derived = derive_ids([(cells["video"], *_interval_text(cells)) for _, cells in rows])
        for (_, cells), clip_id in zip(rows, derived, strict=True):
            cells["clip_id"] = clip_id
    clips = tuple(_clip(table.at(n), cells, targets, text_columns, problems) for n, cells in rows)
    numbers = [number for number, _ in rows]
    _check_unique(table, clips, numbers, problems)
    if restricted:
        _check_inside(table, clips, numbers, root, problems)
    overlaps = _group_overlaps(table, clips, numbers)
    if overlaps and not allow_group_overlap:
        for message in overlaps.values():
            problems.add(message)
    problems.raise_if_any()
    if overlaps:
        notes += _listed([f"{short} (allowed by allow_group_overlap)" for short in overlaps])
    notes += _split_notes(clips)
    # What is no clip of a training contradicts nobody.
    found = contradictions(
        Labelled(**{f.name: getattr(clip, f.name) for f in fields(Labelled)})
        for clip in clips
        if clip.split != "unused"
    )
    notes += [found] if found else []
    return Manifest(
        path=path,
        root=root,
        clips=clips,
        target_names=targets,
        text_columns=text_columns,
        notes=tuple(notes),
        confined=restricted,
    )


def derive_ids(videos: Sequence[tuple[str, str, str]]) -> list[str]:
    """Ids for rows without one: the path without its suffix, made longer only where that collides.

    Args:
        videos: (video, start_seconds, end_seconds) as written, per row.

    Returns:
        `a/x` for a/x.mp4; `a/x.mp4` where a/x.avi is there too; `a/x.mp4@1.5-3` where one video has several
        rows. Without outer spaces. Rows that are alike in all three collide still, and validation names them.
    """
    stems = [_without_suffix(video).strip() for video, _, _ in videos]
    by_stem = Counter(stems)
    by_video = Counter(video for video, _, _ in videos)
    ids = []
    for stem, (video, start, end) in zip(stems, videos, strict=True):
        if by_video[video] > 1 and (start or end):
            ids.append(f"{video}@{start or '0'}-{end}")
        else:
            ids.append(stem if by_stem[stem] == 1 else video.strip())
    return ids


def _without_suffix(video: str) -> str:
    path = PurePosixPath(video)
    # `take1.5` is a folder of frames, not a file of type `.5`: only known media suffixes go.
    known = path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
    return path.with_suffix("").as_posix() if known else video


def _interval_text(cells: dict[str, str]) -> tuple[str, str]:
    return cells.get("start_seconds", "").strip(), cells.get("end_seconds", "").strip()


def _check_columns(table: Table) -> None:
    for position, name in enumerate(table.columns, start=1):
        if not name.strip():
            raise ManifestError(
                f"{table.source}: column {position} has no name; name or remove it "
                "(pandas writes one unless to_csv(index=False))"
            )
        # Column names become array names of the store: they must not be paths or reserved by Zarr.
        if name == "zarr.json" or name.startswith("__") or not name.strip("."):
            raise ManifestError(f"{table.source}: the column name {name!r} is reserved; rename it")
        if "/" in name or "\\" in name or _has_control(name) or not is_unicode(name) or name != name.strip():
            raise ManifestError(
                f"{table.source}: the column name {name!r} holds a slash, a control character or outer spaces"
            )
    refuse_one_name(table)
    found = ", ".join(sorted(table.columns))
    if "video" not in table.columns and not {"clip_id", "annotations"} <= set(table.columns):
        missing = "'video'" if "clip_id" in table.columns else "'clip_id' and 'video'"
        raise ManifestError(
            f"{table.source}: the header has no {missing}; found {found or 'nothing'}. "
            "Rename the columns, or map them with `reelbank manifest csv FILE --map video=COLUMN`"
        )


def refuse_one_name(table: Table) -> None:
    """Raises ManifestError where two columns differ only in case (or Unicode form)."""
    taken: dict[str, str] = {}
    for name in table.columns:
        if (other := taken.setdefault(as_one_file(name), name)) != name:
            raise ManifestError(
                f"{table.source}: columns {other!r} and {name!r} differ only in case, and would be one folder of the "
                "store on macOS and Windows; rename one"
            )


def target_names(table: Table, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The columns of numbers to regress: those asked for, else `kcal`, else those that begin with `target`.

    Raises:
        ManifestError: one that was asked for is not there.
    """
    if asked is None:
        if "kcal" in table.columns:
            return ("kcal",)
        return tuple(name for name in table.columns if name.startswith("target"))
    names = (asked,) if isinstance(asked, str) else tuple(dict.fromkeys(asked))
    free = sorted(name for name in table.columns if name not in FIELDS)
    wrong = [name for name in names if name not in free]
    if wrong:
        raise ManifestError(
            f"{table.source}: target column {wrong[0]!r} was asked for; "
            f"the columns that can be targets are {', '.join(free) or 'none'}"
        )
    return names


def _clip(
    at: str,
    cells: dict[str, str],
    targets: tuple[str, ...],
    text_columns: tuple[str, ...],
    problems: _Problems,
) -> Clip:
    """One row; what is wrong goes to `problems`, and a value that can stand in its place is used."""
    for name, cell in cells.items():
        if "\0" in cell or not is_unicode(cell):
            problems.add(f"{at}: column {name!r} holds a NUL or half a surrogate pair; no store keeps these")
    values = {name: cells.get(name, "") for name in ("clip_id", "split", "label", "group")}
    for name, value in values.items():
        if value != value.strip() or _has_control(value):
            problems.add(f"{at}: {name} {value!r} has outer spaces or control characters; remove them")
    video = cells.get("video", "")
    if not values["clip_id"]:
        problems.add(f"{at}: clip_id is empty; every clip needs a unique one")
    if _URL.match(video):
        problems.add(f"{at}: video {video!r} is a URL; videos are files, download it first")
    if not video and not cells.get("annotations", ""):
        problems.add(f"{at}: video is empty, and there are no annotations in its place")
    start = _seconds(at, "start_seconds", cells, problems)
    end = _seconds(at, "end_seconds", cells, problems)
    if end is not None and end < (start or 0.0):
        problems.add(f"{at}: end_seconds={end} is before start_seconds={start or 0.0}")
    numbers = {}
    for name in targets:
        try:
            number = _number(cells.get(name, ""))
        except ValueError:
            number = None
            problems.add(
                f"{at}: target {name}={cells[name]!r} is not a finite number; "
                "leave it empty where it is not known, or name the target columns (--target-columns)"
            )
        numbers[name] = math.nan if number is None else number
    text = {name: cells.get(name, "") for name in text_columns}
    return Clip(video=video, start_seconds=start, end_seconds=end, targets=numbers, text=text, **values)


def _seconds(at: str, name: str, cells: dict[str, str], problems: _Problems) -> float | None:
    cell = cells.get(name, "")
    try:
        seconds = _number(cell)
    except ValueError:
        seconds = -1.0
    if seconds is not None and seconds < 0:
        problems.add(f"{at}: {name}={cell!r} is not a number of seconds from 0 up; leave it empty for the whole video")
        return None
    return seconds


def _number(cell: str) -> float | None:
    """A finite float; None for an empty cell or NaN, which is how pandas writes one; else ValueError."""
    cell = cell.strip()
    if not cell:
        return None
    if "_" in cell:  # float() reads 1_000, no other program does
        raise ValueError(cell)
    value = float(cell)
    if math.isinf(value):
        raise ValueError(cell)
    return None if math.isnan(value) else value


def _check_unique(table: Table, clips: Sequence[Clip], numbers: Sequence[int], problems: _Problems) -> None:
    first: dict[str, int] = {}
    for clip, number in zip(clips, numbers, strict=True):
        if clip.clip_id and clip.clip_id in first:
            problems.add(
                f"{table.at(number)}: clip_id {clip.clip_id!r} is also on {table.place} "
                f"{first[clip.clip_id]}; ids must be unique"
            )
        first.setdefault(clip.clip_id, number)


def _check_inside(table: Table, clips: Sequence[Clip], numbers: Sequence[int], root: Path, problems: _Problems) -> None:
    """Symbolic links are followed: a link inside the root that points out of it leaves it too."""
    known: dict[str, Path | None] = {}  # many clips may be of one folder of frames
    for clip, number in zip(clips, numbers, strict=True):
        paths = [(name, clip.video if name == "video" else clip.text.get(name, "")) for name in PATH_COLUMNS]
        pattern = clip.text.get("frame_pattern", "")
        if pattern:
            paths.append(("frame_pattern", str(PurePosixPath(clip.video) / pattern)))
        for name, cell in paths:
            if cell and cell not in known:
                known[cell] = outside(root / cell, root)
            if cell and (found := known[cell]) is not None:
                what = f": {found.name!r} in it is a link out of it" if found != root / cell else ""
                problems.add(
                    f"{table.at(number)}: {name} {cell!r} leaves the root {root}{what}; "
                    "name a folder that holds all files as the root, or none"
                )


def _group_overlaps(table: Table, clips: Sequence[Clip], numbers: Sequence[int]) -> dict[str, str]:
    """Short text (for notes) -> message with lines, for every group on two of the guarded splits.

    `test` and `unknown` may share one: nothing is trained or chosen on either.
    """
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    for clip, number in zip(clips, numbers, strict=True):
        if clip.group and clip.split in GUARDED_SPLITS:
            seen[clip.group].setdefault(clip.split, number)
    overlaps = {}
    for group, splits in seen.items():
        if len(splits) < 2 or not {"train", "val"} & set(splits):
            continue
        sides = [split for split in GUARDED_SPLITS if split in splits]
        short = f"group {group!r} is on both sides of {'/'.join(sides)}"
        places = ", ".join(f"{split} on {table.place} {splits[split]}" for split in sides)
        overlaps[short] = (
            f"{table.at(max(splits.values()))}: {short} ({places}); a score would be measured on what was "
            "trained on. Move the group to one split, or accept it with --allow-group-overlap (of "
            "`featurize`, `store import`, and `manifest csv` and its like)"
        )
    return overlaps


def meant_split(word: str) -> str:
    """`train`, `val` or `test` where that is what a word for a split must mean; else the word, in small letters."""
    return _ALMOST_SPLITS.get(word.strip().lower(), word.strip().lower())


def _split_notes(clips: Sequence[Clip]) -> list[str]:
    notes = []
    for split in sorted({clip.split for clip in clips} - set(GUARDED_SPLITS)):
        if (meant := meant_split(split)) in GUARDED_SPLITS:
            notes.append(f"split {split!r} is not {meant!r}, and takes part in no training and no test")
    if num_without := sum(not clip.split for clip in clips):
        notes.append(f"{num_without} clips have an empty split, and take part in no training and no test")
    shared: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.video and not clip.group and clip.split in GUARDED_SPLITS:
            shared[clip.video].add(clip.split)
    shared = {video: splits for video, splits in shared.items() if len(splits) > 1}
    for video, splits in shared.items():
        notes.append(f"video {video!r} has clips in {'/'.join(sorted(splits))}, and no group keeps them apart")
    return _listed(notes)


def _listed(notes: list[str]) -> list[str]:
    rest = len(notes) - MAX_LISTED
    return notes if rest <= 0 else [*notes[:MAX_LISTED], f"... and {rest} more of this kind"]


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON's `\\ud800` and undecodable file names cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _has_control(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)
