"""HMDB51 with its three official splits (Kuehne et al., HMDB: a large video database, ICCV 2011)."""

from __future__ import annotations

import os
from pathlib import Path

from reelbank.manifests.datasets.official import Listed, find_lists, list_lines, manifest_of
from reelbank.manifests.manifest import Manifest, ManifestError

FOLDS = (1, 2, 3)
SPLIT_OF_CODE = {"0": "unused", "1": "train", "2": "test"}


def read_hmdb51(
    root: str | os.PathLike[str], *, splits: str | os.PathLike[str] | None = None, fold: int = 1
) -> Manifest:
    """The videos ROOT/<class>/<file>.avi, split as fold 1, 2 or 3 says.

    `group` stays empty. The authors cut the splits so that clips of one source video are not on both sides,
    but the file names do not tell the source reliably, so none is derived.

    Args:
        root: folder of the 51 class folders.
        splits: folder of the `<class>_test_split<fold>.txt` files; None: found under `root`.
        fold: official split, 1 to 3.

    Returns:
        Clips `class/stem`; videos that the fold does not use have split `unused`.

    Raises:
        ManifestError: lists or class folders are missing, or a list is malformed; names what was expected.
    """
    return manifest_of(read_lists(splits, fold=fold, root=Path(root)), Path(root), dataset="HMDB51")


def read_lists(splits: str | os.PathLike[str] | None, *, fold: int, root: Path | None = None) -> list[Listed]:
    """The official lists alone, without looking at videos: 3,570 train, 1,530 test, 1,666 unused per fold.

    Raises:
        ManifestError: no lists of that fold, or a malformed line (named).
    """
    if fold not in FOLDS:
        raise ManifestError(f"HMDB51 has folds 1, 2 and 3; {fold} was asked for")
    ending = f"_test_split{fold}.txt"
    folder = find_lists(root or Path(), splits, ends_with=ending, what=f"HMDB51 split files <class>{ending}")
    listed = []
    for path in sorted(path for path in folder.iterdir() if path.name.endswith(ending)):
        if not path.name.startswith("."):
            listed += _parse(path, label=path.name.removesuffix(ending))
    if not listed:
        raise ManifestError(f"the HMDB51 split files <class>{ending} in {folder} are empty")
    return listed


def _parse(path: Path, *, label: str) -> list[Listed]:
    """Lines `<file>.avi <0|1|2>`; the class is in the list's own name, not in the video's."""
    listed: dict[str, Listed] = {}
    for number, line in list_lines(path):
        file, _, code = line.rpartition(" ")
        file = file.rstrip()
        if not file or code not in SPLIT_OF_CODE or "/" in file or "\\" in file:
            raise ManifestError(f"{path}, line {number}: {line!r}, expected `<file>.avi 0`, 1 (train) or 2 (test)")
        if file in listed:
            raise ManifestError(f"{path}, line {number}: {file!r} is listed twice")
        listed[file] = Listed(label=label, file=file, split=SPLIT_OF_CODE[code])
    return list(listed.values())
