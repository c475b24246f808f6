"""Where the files of a stranger's table lie: paths as another system or hand wrote them, and which are missing."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from reelbank.manifests.datasets.official import folder_entries, media_by_stem
from reelbank.manifests.files import as_one_file
from reelbank.manifests.manifest import PATH_COLUMNS, VIDEO_SUFFIXES, Manifest, ManifestError
from reelbank.manifests.table import Table

SPACES = "outer spaces of paths are removed"
SLASHES = "backslashes of paths are read as slashes"
FILE_URLS = "file:// URLs are read as paths"
ELSEWHERE = "absolute paths whose files are not there are taken from their last folders that are, below the root"
SPELLING = "paths are written as their files, which differ in case or in Unicode's form"
SUFFIX = "names without a suffix are those of videos below the root"

# Of Unix or of Windows.
_ABSOLUTE = re.compile(r"([A-Za-z]:)?/")


def videos_folder(table: Path, root: str | os.PathLike[str] | None) -> Path:
    """The folder that paths are relative to: `root`, or that of the table.

    Raises:
        ManifestError: `root` is no folder.
    """
    folder = table.parent if root is None else Path(root)
    if not folder.is_dir():
        raise ManifestError(f"root {folder} is not a folder; it is where the videos of {table} should lie")
    return folder


def with_found_paths(table: Table, root: Path) -> Table:
    """The table with its paths as the files are called. A path whose file is there stays as it is.

    Raises:
        ManifestError: a name without a suffix may be one of several videos.
    """
    disk = _Disk(root=root)
    said: dict[str, str] = {}
    count: Counter[str] = Counter()
    known: dict[tuple[bool, str], str] = {}
    rows = []
    columns = [name for name in PATH_COLUMNS if name in table.columns]
    for number, row in table.rows:
        new = dict(row)
        for name in columns:
            cell = row[name]
            key = (name == "video", cell)
            if cell and key not in known:
                kinds, known[key] = disk.found(table.at(number), cell, is_video=name == "video")
                for kind in kinds:
                    count[kind] += 1
                    said.setdefault(kind, f"{cell!r} is {known[key]!r}")
            new[name] = known.get(key, cell)
        rows.append((number, new))
    notes = (f"{kind} ({count[kind]}): {example}" for kind, example in said.items())
    return replace(table, rows=tuple(rows), notes=(*table.notes, *notes))


@dataclass
class _Disk:
    """What lies below a folder, listed once where a path asks."""

    root: Path
    names: dict[Path, dict[str, list[str]]] = field(default_factory=dict)
    stems: dict[str, list[str]] | None = None

    def found(self, at: str, cell: str, *, is_video: bool) -> tuple[list[str], str]:
        """The ways in which a path is mended, and the path."""
        is_local = cell.startswith("file://")
        if exists(self.root / cell) or ("://" in cell and not is_local):
            return [], cell
        kinds, path = list[str](), cell
        of_url = _of_file_url(cell.strip()) if is_local else cell.strip()
        for kind, tried in ((SPACES, cell.strip()), (FILE_URLS, of_url), (SLASHES, of_url.replace("\\", "/"))):
            if tried != path:
                kinds, path = [*kinds, kind], tried
                if exists(self.root / path):
                    return kinds, path
        if _ABSOLUTE.match(path):
            parts = [part for part in path.split("/") if part not in ("", ".", "..")]
            tails = ("/".join(parts[first:]) for first in range(1, len(parts)))
            if (tail := next((one for one in tails if exists(self.root / one)), None)) is not None:
                return [*kinds, ELSEWHERE], tail
        if (spelled := self._spelled(path)) is not None:
            return [*kinds, SPELLING], spelled
        if is_video and path and not is_video_name(path) and (whole := self._with_suffix(at, path)):
            return [*kinds, SUFFIX], whole
        return kinds, path

    def _spelled(self, path: str) -> str | None:
        """The path whose parts differ from the file's in case or Unicode form only; None if there is none, or two."""
        pure = PurePosixPath(path)
        if ".." in pure.parts or not pure.name:
            return None
        folder, parts = self.root, list[str]()
        for part in pure.parts:
            name: str | None = part
            if not exists(folder / part):
                same = self._listed(folder).get(as_one_file(part), [])
                name = same[0] if len(same) == 1 else None
            if name is None:
                return None
            folder, parts = folder / name, [*parts, name]
        return str(PurePosixPath(*parts))

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self.names:
            by_name = self.names[folder] = defaultdict(list)
            for name, _ in folder_entries(folder):
                by_name[as_one_file(name)].append(name)
        return self.names[folder]

    def _with_suffix(self, at: str, path: str) -> str | None:
        if self.stems is None:
            self.stems = media_by_stem(self.root)
            for stem, paths in list(self.stems.items()):
                if (folded := as_one_file(stem)) != stem:
                    self.stems[folded] = sorted({*self.stems.get(folded, []), *paths})
        name = PurePosixPath(path).name
        paths = self.stems.get(name) or self.stems.get(as_one_file(name)) or []
        if len(paths) > 1:
            raise ManifestError(
                f"{at}: video {path!r} may be {' or '.join(paths)} in {self.root}; write its folder and suffix"
            )
        return paths[0] if paths else None


def _of_file_url(url: str) -> str:
    """The path of file://HOST/PATH, percent signs decoded, C:/ without a slash before it."""
    path = unquote(urlsplit(url).path)
    return path[1:] if _ABSOLUTE.match(path[1:]) and path[1:2] != "/" else path


def is_video_name(name: str) -> bool:
    """Whether a name has the suffix of a video."""
    return PurePosixPath(name.strip()).suffix.lower() in VIDEO_SUFFIXES


def exists(path: Path) -> bool:
    """Whether something is there; a path that no system could have is not."""
    try:
        path.stat()
    except (OSError, ValueError):  # the latter: a NUL
        return False
    return True


def missing(manifest: Manifest, table: Table) -> str:
    """A sentence that counts the videos that are not there and names the first; '' where all are.

    Args:
        manifest: what was made of `table`, row by row.
        table: for the places of its rows.

    Raises:
        ManifestError: no file of any row is there: the folder is a wrong one.
    """
    first: dict[str, int] = {}  # video that is not there -> its row
    for clip, (number, _) in zip(manifest.clips, table.rows, strict=True):
        if clip.video and clip.video not in first:
            first[clip.video] = number
    absent = [video for video in first if not exists(manifest.root / video)]
    if not absent:
        return ""
    if len(absent) == len(first) and not any(map(exists, _others(manifest))):
        raise ManifestError(
            f"{table.source}: none of its {len(first)} videos is there: {absent[0]!r} would be "
            f"{manifest.root / absent[0]}; name the folder that the paths are relative to with --root"
            + elsewhere(manifest.root, absent[0], table.source.absolute().parent)
        )
    return (
        f"{len(absent)} of {len(first)} videos are missing under {manifest.root}; the first is {absent[0]!r} "
        f"({table.place} {first[absent[0]]})"
    )


def _others(manifest: Manifest) -> Iterator[Path]:
    """The files of the other columns: pictures of flow and annotations may do without the video."""
    for clip in manifest.clips:
        for column in PATH_COLUMNS[1:]:
            if path := manifest.path_of(clip, column):
                yield path


def elsewhere(root: Path, video: str, *near: Path) -> str:
    """` (it lies under FOLDER)` where `video` is below another folder: one of `near`, above the root or in it."""
    folder = root.absolute()
    tried = (*near, *list(folder.parents)[:2], *(folder / name for name, is_one in folder_entries(folder) if is_one))
    found = next((one for one in tried if exists(one / video)), None)
    return f" (it lies under {found})" if found else ""
