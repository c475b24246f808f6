"""UCF101 with its three official splits (Soomro, Zamir, Shah, arXiv:1212.0402)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from reelbank.manifests.datasets.official import Listed, find_lists, list_lines, manifest_of
from reelbank.manifests.manifest import Manifest, ManifestError

FOLDS = (1, 2, 3)

_GROUP = re.compile(r"_g(\d+)_c\d+$")


def read_ucf101(
    root: str | os.PathLike[str], *, splits: str | os.PathLike[str] | None = None, fold: int = 1
) -> Manifest:
    """The videos ROOT/<class>/<file>.avi, split as fold 1, 2 or 3 says.

    Args:
        root: folder of the 101 class folders, or of `UCF-101/`.
        splits: folder of `classInd.txt`, `trainlist0X.txt` and `testlist0X.txt`; None: found under `root`.
        fold: official split, 1 to 3.

    Returns:
        Clips `class/stem`, group `v_<class>_g<NN>`: the 25 source recordings of a class, which no official
        split has on both sides.

    Raises:
        ManifestError: lists or class folders are missing, or a list is malformed; names what was expected.
    """
    return manifest_of(read_lists(splits, fold=fold, root=Path(root)), Path(root), dataset="UCF101")


def read_lists(splits: str | os.PathLike[str] | None, *, fold: int, root: Path | None = None) -> list[Listed]:
    """The official lists alone, without looking at videos: 9,537 + 3,783, 9,586 + 3,734, 9,624 + 3,696.

    Raises:
        ManifestError: no lists of that fold, or a malformed line (named).
    """
    if fold not in FOLDS:
        raise ManifestError(f"UCF101 has folds 1, 2 and 3; {fold} was asked for")
    name = f"trainlist{fold:02d}.txt"
    folder = find_lists(root or Path(), splits, ends_with=name, what=f"UCF101 lists (classInd.txt, {name})")
    classes = _parse_classes(folder / "classInd.txt")
    train = _parse(folder / name, classes, split="train")
    test = _parse(folder / f"testlist{fold:02d}.txt", classes, split="test")
    both = sorted({(v.label, v.file) for v in train} & {(v.label, v.file) for v in test})
    if both:
        raise ManifestError(f"{folder}: {both[0][1]!r} is in the train list and in the test list of fold {fold}")
    return [*train, *test]


def _parse_classes(path: Path) -> dict[int, str]:
    """Lines `<1-based index> <class>`."""
    classes: dict[int, str] = {}
    for number, line in list_lines(path):
        index, _, name = line.partition(" ")
        if not index.isdecimal() or not name or int(index) in classes or name in classes.values():
            raise ManifestError(f"{path}, line {number}: {line!r}, expected `<index> <class>`, each once")
        classes[int(index)] = name
    return classes


def _parse(path: Path, classes: dict[int, str], *, split: str) -> list[Listed]:
    """Lines `<class>/<file>.avi`, in train lists followed by the class index."""
    # HandStand in the file names is Handstand in the class names: the case of a letter means nothing here.
    by_lower = {name.lower(): (index, name) for index, name in classes.items()}
    listed: dict[str, Listed] = {}
    for number, line in list_lines(path):
        video, _, index = line.partition(" ")
        folder, _, file = video.partition("/")
        group = _GROUP.search(Path(file).stem)
        if folder.lower() not in by_lower or "/" in file or "\\" in file or group is None:
            raise ManifestError(
                f"{path}, line {number}: {line!r}, expected `<class>/v_<class>_gNN_cNN.avi` "
                "with a class of classInd.txt"
            )
        expected, label = by_lower[folder.lower()]
        if index and index.strip() != str(expected):
            raise ManifestError(
                f"{path}, line {number}: index {index} for {folder!r}, but classInd.txt gives it {expected}"
            )
        if video.lower() in listed:
            raise ManifestError(f"{path}, line {number}: {video!r} is listed twice")
        listed[video.lower()] = Listed(label=label, file=file, split=split, group=f"v_{label}_g{group[1]}")
    return list(listed.values())
