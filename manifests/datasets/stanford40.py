"""Stanford 40 Actions (Yao et al., ICCV 2011): still images, which are clips of one frame."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from reelbank.manifests.datasets.class_lists import chosen_classes
from reelbank.manifests.datasets.holding_out import check_share, with_held_out
from reelbank.manifests.datasets.official import find_lists, folder_entries, list_lines, manifest_from, root_with, some
from reelbank.manifests.manifest import Manifest, ManifestError

IMAGES = "JPEGImages"
TEST_SHARE = 0.1
"""Of the merged parts, where `--test-share` does not say another."""

_EXPECTED = f"{IMAGES}/<action>_NNN.jpg"
_LIST = re.compile(r"^(.+)_(train|test)\.txt$")


def read_stanford40(
    root: str | os.PathLike[str],
    *,
    splits: str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | None = None,
    rename: str | os.PathLike[str] | None = None,
    merge_splits: bool = False,
    test_share: float | None = None,
    val_share: float | None = None,
    seed: int = 0,
) -> Manifest:
    """The images ROOT/JPEGImages/<action>_NNN.jpg, split as the official lists say, or anew.

    Args:
        root: the folder of `JPEGImages`, or the folder that holds it.
        splits: folder of the `<action>_{train,test}.txt` files; None: found under `root`.
        classes: a file with an action per line: only those are kept.
        rename: a file with lines `old,new`: other names for actions; ids keep the official ones.
        merge_splits: both official parts are one, of which `test_share` is held out as `test`.
        test_share: of the merged parts; None: 0.1.
        val_share: the part of the training images that becomes `val`; None: none does.
        seed: of the cuts. Each takes `ceil(share * n)` images, of every action its share.

    Returns:
        Clips `<action>_NNN`; images that are missing keep their row and stand in the notes.

    Raises:
        ManifestError: lists or images are missing (named), a list is malformed, classes do not map, or a share cannot
            be held out.
    """
    check_share(test_share, "--test-share")
    check_share(val_share, "--val-share")
    if test_share is not None and not merge_splits:
        raise ManifestError(
            f"--test-share {test_share:g} needs --merge-splits: otherwise the official test part is the test part"
        )
    root = root_with(root, IMAGES, dataset="Stanford 40", expected=_EXPECTED)
    listed = read_lists(splits, root=root)
    actions = {action for action, _ in listed.values()}
    called = chosen_classes(actions, classes=classes, rename=rename, dataset="Stanford 40")
    there = {name for name, is_folder in folder_entries(root / IMAGES) if not is_folder}
    extra = sorted(there - set(listed))
    listed = {file: (action, split) for file, (action, split) in listed.items() if action in called}
    absent = [file for file in listed if file not in there]
    if len(absent) == len(listed):
        raise ManifestError(
            f"Stanford 40: none of the {len(listed)} listed images is there; expected {root / IMAGES / absent[0]}"
        )
    notes = []
    if absent:
        notes.append(f"{len(absent)} of {len(listed)} listed images are missing under {root / IMAGES}: {some(absent)}")
    if extra:
        notes.append(f"not taken, in no list: {some(extra)}")
    rows = [
        {
            "clip_id": Path(file).stem,
            "video": f"{IMAGES}/{file}",
            "split": "train" if merge_splits else split,
            "label": called[action],
        }
        for file, (action, split) in listed.items()
    ]
    made = manifest_from(rows, root, place="list entry", notes=notes)
    if merge_splits:
        made = replace(made, notes=(*made.notes, "the official train and test parts are merged"))
        share = TEST_SHARE if test_share is None else test_share
        made = with_held_out(made, share, part="test", seed=seed, flag="--test-share")
    return made if val_share is None else with_held_out(made, val_share, part="val", seed=seed)


def read_lists(
    splits: str | os.PathLike[str] | None, *, root: Path | None = None
) -> dict[str, tuple[str, str]]:  # fmt: skip
    """{file: (action, split)} of the official lists alone: 4,000 train (100 per action) and 5,532 test.

    Raises:
        ManifestError: no lists, an action with only one of its two, or a malformed line (named).
    """
    folder = find_lists(
        root or Path(), splits, ends_with="_test.txt", what="Stanford 40 lists <action>_train.txt and <action>_test.txt"
    )
    lists = {path.name: path for path in sorted(folder.iterdir()) if _LIST.match(path.name)}
    actions = sorted({match[1] for name in lists if (match := _LIST.match(name))})
    lacking = [f"{a}_{s}.txt" for a in actions for s in ("train", "test") if f"{a}_{s}.txt" not in lists]
    if lacking:
        raise ManifestError(f"Stanford 40: {folder} lacks {some(lacking)}; every action needs a train and a test list")
    listed: dict[str, tuple[str, str]] = {}
    for action in actions:
        for split in ("train", "test"):
            path = lists[f"{action}_{split}.txt"]
            for number, file in list_lines(path):
                if not re.fullmatch(rf"{re.escape(action)}_\d+\.jpg", file):
                    raise ManifestError(f"{path}, line {number}: {file!r}, expected {action}_NNN.jpg")
                if file in listed:
                    raise ManifestError(f"{path}, line {number}: {file!r} is listed twice")
                listed[file] = action, split
    if not listed:
        raise ManifestError(f"the Stanford 40 lists in {folder} are empty")
    return listed
