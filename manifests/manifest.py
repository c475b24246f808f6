"""What a manifest is: clips in the order of their rows, keyed by `clip_id`.

The values here are already checked; `validation.py` makes them from a table, `reading.py` from a file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "vob", "webm", "wmv"),
    )
)
IMAGE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))

TEXT_FIELDS = ("clip_id", "video", "split", "label", "group")
SECONDS_FIELDS = ("start_seconds", "end_seconds")
FIELDS = ("clip_id", "video", "split", "label", "start_seconds", "end_seconds", "group")
# Columns whose cells are paths, relative to the same folder as `video`.
PATH_COLUMNS = ("video", "flow_x", "flow_y", "motion_maps", "annotations")
# No group may be on two of these at once. Other splits (HMDB51's `unused`) take part in no measurement.
GUARDED_SPLITS = ("train", "val", "test", "unknown")


SHOWN_CLIPS = 5
"""Clips that a notebook shows of a manifest."""


class ManifestError(ValueError):
    """A table of clips that cannot be used as it is; the message names the file and the line."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One row: what to decode and what is known about it.

    Attributes:
        clip_id: unique key, never empty.
        video: path as it is written in the manifest: a video, a folder of frames or a still image; empty
            where only annotations are read.
        split: `train`, `val`, `test`, `unknown`, or another word that takes part in nothing.
        label: class name, empty where unlabelled.
        start_seconds, end_seconds: half-open interval of the video, from the file's start; None is its start or end.
        group: subject or source recording, empty where not known.
        targets: numbers to regress, by column; NaN where the cell is empty.
        text: every other column, as text.
    """

    clip_id: str
    video: str
    split: str = "train"
    label: str = ""
    start_seconds: float | None = None
    end_seconds: float | None = None
    group: str = ""
    targets: dict[str, float] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Clips in the order of their rows.

    Attributes:
        path: the file it was read from; None where it was built.
        root: the folder that relative paths start at.
        clips: the rows.
        target_names: columns of numbers, in the order of the file.
        text_columns: the columns that reelbank gives no meaning, in the order of the file.
        notes: what a person should know and a report must print (overlapping groups, missing videos).
        confined: whether no file may lie outside `root`, links followed.
    """

    path: Path | None
    root: Path
    clips: tuple[Clip, ...]
    target_names: tuple[str, ...] = ()
    text_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    confined: bool = False

    def __repr__(self) -> str:
        return f"<Manifest {self.name}: {self.summary()}>"

    def _repr_html_(self) -> str:
        from reelbank.manifests.notebooks import card, grid

        facts = {"clips": self.summary(), "videos below": str(self.root)} | (
            {"warning": self.warning} if self.warning else {}
        )
        shown, names = self.clips[:SHOWN_CLIPS], (*FIELDS, *self.target_names, *self.text_columns)
        columns = {name: [_shown(clip, name) for clip in shown] for name in names}
        columns = {name: cells for name, cells in columns.items() if any(cells)}
        rows = [list(cells) for cells in zip(*columns.values(), strict=True)]
        more = f"and {len(self) - len(shown):,} more clips" if len(self) > len(shown) else ""
        return card("Manifest", self.name, facts) + (grid(list(columns), rows, more) if shown else "")

    def summary(self) -> str:
        """Clips per split, classes, and the range of each target in one line."""
        counts = Counter(clip.split or "no split" for clip in self.clips)
        splits = ", ".join(f"{name} {count}" for name, count in counts.items())
        labels = len({clip.label for clip in self.clips if clip.label})
        targets = f", targets {', '.join(map(self._extent, self.target_names))}" if self.target_names else ""
        return f"{len(self)} clips ({splits}), {labels} classes{targets}"

    @property
    def warning(self) -> str:
        """A sentence where no head can be trained on these clips: one class in all and no target. Else nothing."""
        labels = {clip.label for clip in self.clips if clip.label}
        if len(labels) != 1 or self.target_names:
            return ""
        return (
            f"every label is {labels.pop()!r}: a head needs two classes or a target column; "
            "of a folder per class, give the folder above them"
        )

    def to_json(self) -> dict[str, object]:
        """The same for machines: clips in all and per split, classes, target columns, notes and warning."""
        return {
            "num_clips": len(self),
            "splits": dict(Counter(clip.split for clip in self.clips)),
            "classes": sorted({clip.label for clip in self.clips if clip.label}),
            "targets": list(self.target_names),
            "notes": list(self.notes),
            "warning": self.warning,
        }

    def _extent(self, name: str) -> str:
        """`kcal (1.2 to 998; 3 clips without)`."""
        values = [clip.targets[name] for clip in self.clips if not math.isnan(clip.targets[name])]
        absent = len(self) - len(values)
        parts = [f"{min(values):g} to {max(values):g}"] if values else []
        parts += [f"{absent} clips without"] if absent else []
        return f"{name} ({'; '.join(parts)})" if parts else name

    def __len__(self) -> int:
        return len(self.clips)

    def column(self, name: str) -> list[str] | np.ndarray:
        """Cells of one column, in row order.

        Returns:
            A list of str; for targets and the two `..._seconds` a float64 array (N,), NaN where empty.

        Raises:
            ManifestError: the manifest has no such column.
        """
        import numpy as np

        if name in TEXT_FIELDS:
            return [getattr(clip, name) for clip in self.clips]
        if name in SECONDS_FIELDS:
            seconds = [getattr(clip, name) for clip in self.clips]
            return np.array([math.nan if value is None else value for value in seconds], dtype=np.float64)
        if name in self.target_names:
            return np.array([clip.targets[name] for clip in self.clips], dtype=np.float64)
        if name in self.text_columns:
            return [clip.text[name] for clip in self.clips]
        known = sorted([*FIELDS, *self.target_names, *self.text_columns])
        raise ManifestError(f"{self.name}: there is no column {name!r}; it has {', '.join(known)}")

    def split(self, name: str) -> Manifest:
        """The clips of one split, in row order, with the same root and notes.

        Raises:
            ManifestError: no clip is in that split; the splits there are stand in the message.
        """
        clips = tuple(clip for clip in self.clips if clip.split == name)
        if not clips:
            found = ", ".join(repr(split) for split in sorted({clip.split for clip in self.clips}))
            raise ManifestError(f"{self.name}: no clip is in split {name!r}; its splits are {found or 'none'}")
        return replace(self, clips=clips)

    def digest(self) -> str:
        """sha256 hex of the column names and all rows, in order; where the file lies does not count."""
        digest = hashlib.sha256()
        digest.update(_canonical([*FIELDS, *self.target_names, *self.text_columns]))
        for clip in self.clips:
            cells: list[str | float | None] = [getattr(clip, name) for name in FIELDS]
            targets = (clip.targets[name] for name in self.target_names)
            cells += [None if math.isnan(value) else value for value in targets]
            cells += [clip.text[name] for name in self.text_columns]
            digest.update(_canonical(cells))
        return digest.hexdigest()

    def video_path(self, clip: Clip) -> Path | None:
        """Where the clip's video should lie (it may be missing); None where the clip names none."""
        return self.path_of(clip, "video")

    def path_of(self, clip: Clip, column: str) -> Path | None:
        """Where a path column (`video`, `flow_x`, `annotations`, ...) points; None for an empty cell."""
        cell = clip.video if column == "video" else clip.text.get(column, "")
        return self.root / cell if cell else None

    @property
    def name(self) -> str:
        """What messages call this manifest."""
        return str(self.path if self.path is not None else f"the manifest of {self.root}")


def _shown(clip: Clip, name: str) -> str:
    """A cell for a person; nothing where nothing is known."""
    value = clip.targets.get(name, clip.text.get(name)) if name not in FIELDS else getattr(clip, name)
    return "" if value is None or value != value else f"{value:g}" if isinstance(value, float) else str(value)


def outside(path: Path, root: Path) -> Path | None:
    """What reading `path` would read outside the folder `root`: itself, or the first link out in a folder of pictures.

    The one rule for every file that a manifest names. Links are followed, those of `root` itself too.
    """
    try:
        resolved_root = root.resolve()
        if not _resolved(path).is_relative_to(resolved_root):
            return path
        if path.is_dir():
            with os.scandir(path) as entries:
                links = sorted(entry.path for entry in entries if entry.is_symlink())
            return next((Path(link) for link in links if not _resolved(Path(link)).is_relative_to(resolved_root)), None)
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a NUL, not to be looked into
        return path
    return None


def _resolved(path: Path) -> Path:
    """`path` with all links followed. Raises OSError for a loop of them, of which Python 3.13 says nothing."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise
    return path.resolve()


def _canonical(cells: Sequence[str | float | None]) -> bytes:
    """One line of JSON; floats as their shortest round-trip text, so equal numbers give equal bytes."""
    return (json.dumps(cells, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n").encode("ascii")
