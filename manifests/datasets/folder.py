"""A folder per class: ROOT/<class>/<file>, or ROOT/train/<class>/<file> with val and test beside it.

`gather` takes files and folders whose names say no class.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from reelbank.manifests.datasets.official import some
from reelbank.manifests.manifest import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Clip, Manifest, ManifestError
from reelbank.manifests.table import Table
from reelbank.manifests.validation import MAX_LISTED, derive_ids, from_table, is_unicode

SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "unknown": "unknown",
}
TEST_SHARE = 0.2
HIDDEN = "hidden (the name begins with a dot)"
NESTED = "folders inside a class folder (a folder of frames needs a table with frame_pattern and rate_fps)"


def read_folder(root: str | os.PathLike[str], *, seed: int = 0) -> Manifest:
    """Take the names of folders as labels.

    Split folders (train, val, valid, validation, test, unknown) are taken where ROOT has them and classes lie
    in them. Without them 20 % of each class are `test`, chosen by a hash of seed and path: adding a video
    moves few others. Nothing tells which files come from one recording, so `group` stays empty and the cut
    is by file; a note says so.

    Args:
        root: the folder.
        seed: of the train/test split, where there are no split folders.

    Returns:
        Videos and still images by path; whatever was not taken, as hidden files, stands in the notes.

    Raises:
        ManifestError: the folder is not there, or holds no class folder with a video or an image.
    """
    root = Path(root)
    if not root.is_dir():
        raise ManifestError(f"{root} is not a folder; expected one with a folder per class in it")
    skipped = _Skipped()
    top, loose = _listing(root, skipped)
    for name in loose:
        skipped.add("files outside a class folder", name)
    splits = [name for name in top if name.strip() in SPLIT_FOLDERS and _holds_classes(root / name)]
    found = []  # (video, split, label)
    if splits:
        for name in sorted(set(top) - set(splits)):
            skipped.add(f"folders beside {'/'.join(splits)}", name)
        for name in splits:
            classes, loose = _listing(root / name, skipped, f"{name}/")
            for file in loose:
                skipped.add("files outside a class folder", f"{name}/{file}")
            for label in classes:
                videos = _videos(root, f"{name}/{label}", skipped)
                found += [(video, SPLIT_FOLDERS[name.strip()], label) for video in videos]
    else:
        for label in top:
            found += [(video, "", label) for video in _videos(root, label, skipped)]
    if not found:
        raise ManifestError(
            f"{root} holds no <class>/<video> below it: " + ("; ".join(skipped.notes()) or "it is empty")
        )
    notes = skipped.notes()
    if spaced := sorted({ascii(label) for _, _, label in found if label != label.strip()}):
        notes.append(f"outer spaces of class folders are no part of the class: {some(spaced)}")
        found = [(video, split, label.strip()) for video, split, label in found]
    if not splits:
        found = _with_split(found, seed)
        notes.append(
            f"train and test were cut by file (seed {seed}, 20 % of each class is test): "
            "clips of one recording may be on both sides"
        )
    return _manifest(root, found, notes)


def gather(sources: Sequence[str | os.PathLike[str]]) -> Manifest:
    """Take files as they are named, and of folders every video and image at any depth, as clips without a label.

    A clip is called as its file, below the folder that was named and without the suffix; as its whole path where two
    would else be called the same. All are of split `test`.

    Raises:
        ManifestError: nothing is named, something is not there, or a folder holds no video and no image.
    """
    found: dict[Path, tuple[Path, str]] = {}  # by the absolute path: (as it was named, as it is called)
    skipped, doubled = _Skipped(), []
    if absent := [str(source) for source in sources if not Path(source).exists()]:
        more = f", as of {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ManifestError(f"{absent[0]}: there is no such file or folder{more}")
    for source in map(Path, sources):
        files = list(_below(source, "", skipped)) if source.is_dir() else [""]
        if not files:
            raise ManifestError(
                f"{source} holds no video and no image: " + ("; ".join(skipped.notes()) or "it is empty")
            )
        for file in files:
            path = source / file if file else source
            if path.absolute() in found:
                doubled.append(str(path))
            found.setdefault(path.absolute(), (path, file or source.name))
    if not found:
        raise ManifestError("no file and no folder is named")
    called = derive_ids([(name, "", "") for _, name in found.values()])
    if len(set(called)) < len(called):
        called = derive_ids([(str(path), "", "") for path, _ in found.values()])
    clips = [Clip(clip_id=clip_id, video=str(path), split="test") for clip_id, path in zip(called, found, strict=True)]
    notes = [*skipped.notes(), *([f"named twice and taken once: {some(doubled)}"] if doubled else [])]
    return Manifest(path=None, root=Path.cwd(), clips=tuple(clips), notes=tuple(notes))


def _below(root: Path, below: str, skipped: _Skipped) -> Iterator[str]:
    """Videos and images below a folder at any depth, by path; links to folders are not followed, they may lead back."""
    folders, files = _listing(root / below, skipped, below)
    yield from _media(root, below, files, skipped)
    for name in folders:
        if (root / below / name).is_symlink():
            skipped.add("links to folders", f"{below}{name}")
        else:
            yield from _below(root, f"{below}{name}/", skipped)


@dataclass
class _Skipped:
    by_reason: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, name: str) -> None:
        self.by_reason[reason].append(name)

    def notes(self) -> list[str]:
        notes = []
        for reason, names in sorted(self.by_reason.items()):
            rest = len(names) - MAX_LISTED
            more = f" and {rest} more" if rest > 0 else ""
            listed = ", ".join(ascii(name) for name in names[:MAX_LISTED])
            notes.append(f"not taken, {reason}: {listed}{more}")
        return notes


def _listing(folder: Path, skipped: _Skipped, below: str = "") -> tuple[list[str], list[str]]:
    """Names of the folders and of all else in one folder, sorted, without hidden ones; `below` leads to it in notes."""
    try:
        with os.scandir(folder) as entries:
            every = sorted(entries, key=lambda e: e.name)
            visible = [entry for entry in every if not entry.name.startswith(".")]
            folders = [entry.name for entry in visible if entry.is_dir()]
    except OSError as error:
        skipped.add(f"folders that cannot be read ({error.strerror})", folder.name)
        return [], []
    for entry in every:
        if entry.name.startswith("."):
            skipped.add(HIDDEN, f"{below}{entry.name}")
    return folders, [entry.name for entry in visible if entry.name not in set(folders)]


def _holds_classes(folder: Path) -> bool:
    """Whether a folder named `train` is a split: class folders in it, and no videos (a class of trains)."""
    folders, files = _listing(folder, _Skipped())
    return bool(folders) and not any(_is_media(name) for name in files)


def _videos(root: Path, label_folder: str, skipped: _Skipped) -> Iterator[str]:
    folder = root / label_folder
    folders, files = _listing(folder, skipped, f"{label_folder}/")
    for name in folders:
        skipped.add(NESTED, f"{label_folder}/{name}")
    yield from _media(root, f"{label_folder}/", files, skipped)
    if not files and not folders:
        skipped.add("empty class folders", label_folder)


def _media(root: Path, below: str, files: Sequence[str], skipped: _Skipped) -> Iterator[str]:
    """Those of the `files` in one folder that are videos or images."""
    for name in files:
        video = f"{below}{name}"
        if not _is_media(name):
            skipped.add("neither a video nor an image by suffix", video)
        elif not (root / video).is_file():
            skipped.add("broken links and special files", video)
        elif not video.isprintable() or not is_unicode(video):
            skipped.add("names that no table can hold", video)
        else:
            yield video


def _is_media(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _with_split(found: list[tuple[str, str, str]], seed: int) -> list[tuple[str, str, str]]:
    """Stratified 80/20: of each class the files with the lowest hash are test, at least one of two."""
    by_label = defaultdict(list)
    for video, _, label in found:
        by_label[label].append(video)
    test = set()
    for videos in by_label.values():
        videos.sort(key=lambda video: hashlib.sha256(f"{seed}:{video}".encode()).digest())
        num_test = max(round(TEST_SHARE * len(videos)), 1 if len(videos) > 1 else 0)
        test.update(videos[:num_test])
    return [(video, "test" if video in test else "train", label) for video, _, label in found]


def _manifest(root: Path, found: list[tuple[str, str, str]], notes: list[str]) -> Manifest:
    ids = derive_ids([(video, "", "") for video, _, _ in found])
    rows = tuple(
        (number, {"clip_id": clip_id, "video": video, "split": split, "label": label})
        for number, (clip_id, (video, split, label)) in enumerate(zip(ids, found, strict=True), start=1)
    )
    table = Table(source=root, place="file", columns=("clip_id", "video", "split", "label"), rows=rows)
    manifest = from_table(table, path=None, root=root)
    return replace(manifest, notes=(*notes, *manifest.notes))
