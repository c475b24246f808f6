"""What published sets have in common: lists of names on one side, ROOT/<class>/<file> on the other."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from reelbank.manifests.files import regular
from reelbank.manifests.manifest import VIDEO_SUFFIXES, Manifest, ManifestError
from reelbank.manifests.reading import read_table
from reelbank.manifests.table import Table
from reelbank.manifests.validation import MAX_LISTED, from_table, refuse_one_name


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One video of an official list.

    Attributes:
        label: class name, which is also the name of its folder.
        file: file name, as in the list.
        split: `train`, `test`, or `unused`.
        group: source recording, empty where the set tells none.
        text: further columns; the same ones for all videos of a list.
    """

    label: str
    file: str
    split: str
    group: str = ""
    text: Mapping[str, str] = field(default_factory=dict)


def list_lines(path: Path) -> list[tuple[int, str]]:
    """Lines of a list that hold something, with their 1-based number, without outer spaces and CR.

    Raises:
        ManifestError: the file is missing or not text.
    """
    try:
        text = regular(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"the split list {path} cannot be read: {error}") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    return [(number, line) for number, line in lines if line]


def read_list(path: Path) -> Table:
    """The cells of an official list, which is taken as it was published or not at all.

    Raises:
        ManifestError: as `read_table`, it had to be mended, or two columns differ only in case.
    """
    table = read_table(path)
    refuse_one_name(table)
    if table.notes:
        raise ManifestError(f"{table.notes[0]}: an official list is needed as it was published")
    return table


def find_lists(root: Path, splits: str | os.PathLike[str] | None, *, ends_with: str, what: str) -> Path:
    """The folder that holds a file whose name ends as given: `splits` or `root`, or up to two folders below.

    Raises:
        ManifestError: none is there; says what was looked for and where.
    """
    start = root if splits is None else Path(splits)
    if not start.is_dir():
        raise ManifestError(f"{start} is not a folder; expected {what} in it")
    level = [start]
    for _ in range(3):
        for folder in level:
            # Names are compared, never globbed: they hold [ ] ! & ( ) # ; +
            if any(name.endswith(ends_with) for name in _names(folder)):
                return folder
        level = [folder / name for folder in level for name in _names(folder) if (folder / name).is_dir()]
    raise ManifestError(
        f"no {what} under {start} (looked for names that end in {ends_with!r}); name their folder with --splits DIR"
    )


def root_with(root: str | os.PathLike[str], inside: str, *, dataset: str, expected: str) -> Path:
    """ROOT, or the one folder below it (archives unpack to one), that holds the folder `inside`.

    Raises:
        ManifestError: none does; says what was expected and what is there.
    """
    root = Path(root)
    if not root.is_dir():
        raise ManifestError(f"{root} is not a folder; expected {expected} in it")
    names = _names(root)
    holding = [folder for folder in (root, *(root / name for name in names)) if (folder / inside).is_dir()]
    if holding and (holding[0] == root or len(holding) == 1):
        return holding[0]
    found = some([name for name in names if not name.startswith(".")]) or "nothing"
    raise ManifestError(f"{dataset}: no folder {inside} in {root}; expected {expected}; found {found}")


def media_by_stem(root: Path, *, depth: int = 3) -> dict[str, list[str]]:
    """Stem -> videos of that name under `root`, at most `depth` folders down, as sorted relative paths."""
    found: dict[str, list[str]] = defaultdict(list)
    level = [""]
    for _ in range(depth + 1):
        below = []
        for folder in level:
            for name, is_folder in folder_entries(root / folder):
                path = f"{folder}{name}"
                if is_folder:
                    below.append(f"{path}/")
                elif Path(name).suffix.lower() in VIDEO_SUFFIXES:
                    found[Path(name).stem].append(path)
        level = below
    return {stem: sorted(paths) for stem, paths in found.items()}


def manifest_from(
    rows: Iterable[Mapping[str, str]],
    root: Path,
    *,
    place: str,
    notes: Sequence[str] = (),
    allow_group_overlap: bool = False,
) -> Manifest:
    """A checked manifest of rows that share their columns; `notes` come before those of the check.

    Raises:
        ManifestError: as `from_table`; rows are numbered from 1 and called by `place`.
    """
    numbered = tuple((number, dict(cells)) for number, cells in enumerate(rows, start=1))
    columns = tuple(numbered[0][1]) if numbered else ("clip_id", "video")
    table = Table(source=root, place=place, columns=columns, rows=numbered)
    manifest = from_table(table, path=None, root=root, allow_group_overlap=allow_group_overlap)
    return replace(manifest, notes=(*notes, *manifest.notes))


def manifest_of(listed: Sequence[Listed], root: Path, *, dataset: str, allow_group_overlap: bool = False) -> Manifest:
    """One row per listed video, found under ROOT/<class>/, whatever the case of folder and file.

    Args:
        listed: the official list.
        root: folder of class folders, or a folder whose only such child is one (`UCF-101/`).
        dataset: the set's name, for messages.
        allow_group_overlap: a group on both sides of a split becomes a note.

    Returns:
        All listed videos, ids `class/stem`. Those that are missing stand in the notes and keep their row, and
        so do files that no list names.

    Raises:
        ManifestError: class folders are missing, or none of the videos is there.
    """
    if not root.is_dir():
        raise ManifestError(f"{root} is not a folder; expected the class folders of {dataset} in it")
    labels = sorted({video.label for video in listed})
    root = _video_root(root, labels)
    folders = _by_case(root)
    missing = [label for label in labels if _lookup(folders, label) is None]
    if missing:
        raise ManifestError(
            f"{dataset}: {len(missing)} of {len(labels)} class folders are missing under {root}: "
            f"{some(missing)}; expected {root}/<class>/<file>.avi for every class of the official lists"
        )
    place = {label: _lookup(folders, label) or label for label in labels}
    files = {label: _by_case(root / place[label]) for label in labels}
    rows, absent = [], []
    taken: dict[str, set[str]] = defaultdict(set)
    for video in listed:
        name = _lookup(files[video.label], video.file)
        if name is None:
            absent.append(f"{place[video.label]}/{video.file}")
        taken[video.label].add(name or video.file)
        cells = {"clip_id": f"{video.label}/{Path(video.file).stem}"}
        cells["video"] = f"{place[video.label]}/{name or video.file}"
        rows.append(cells | {"split": video.split, "label": video.label, "group": video.group, **video.text})
    if len(absent) == len(listed):
        found = [name for label in labels for name in sorted(set(files[label].values())) if not name.startswith(".")]
        raise ManifestError(
            f"{dataset}: none of the {len(listed)} listed videos is there; expected {root / absent[0]}, "
            f"found {some(found) or 'nothing'}"
        )
    notes = []
    if absent:
        notes.append(f"{len(absent)} of {len(listed)} listed videos are missing under {root}: {some(absent)}")
    extra = [
        f"{place[label]}/{name}"
        for label in labels
        for name in sorted(set(files[label].values()) - taken[label])
        if not name.startswith(".")
    ]
    if extra:
        notes.append(f"not taken, in no list: {some(extra)}")
    return manifest_from(rows, root, place="list entry", notes=notes, allow_group_overlap=allow_group_overlap)


def _video_root(root: Path, labels: Sequence[str]) -> Path:
    """ROOT, or the one folder below it that holds class folders: archives unpack to `UCF-101/<class>`."""
    children = [root / name for name in _names(root) if (root / name).is_dir()]
    for candidates in ([root], children):
        holding = [c for c in candidates if any((c / name).is_dir() for name in _present(c, labels))]
        if len(holding) == 1:
            return holding[0]
    return root


def _present(folder: Path, labels: Sequence[str]) -> list[str]:
    names = _by_case(folder)
    return [name for name in (_lookup(names, label) for label in labels) if name is not None]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:  # unreadable: its content is then reported as missing, by name
        return []


def folder_entries(folder: Path) -> list[tuple[str, bool]]:
    """(name, whether a folder) of what is not hidden, sorted; links count as what they point to."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError:  # unreadable: its content is then reported as missing, by name
        return []


def _by_case(folder: Path) -> dict[str, str]:
    """Names of a folder by themselves, and by lower case where that is unambiguous."""
    names = _names(folder)
    lowered: dict[str, list[str]] = defaultdict(list)
    for name in names:
        lowered[name.lower()].append(name)
    return {key: same[0] for key, same in lowered.items() if len(same) == 1} | {name: name for name in names}


def _lookup(names: dict[str, str], name: str) -> str | None:
    return names.get(name) or names.get(name.lower())


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
