"""HMDB51 with its three official splits (Kuehne et al., HMDB: a large video database, ICCV 2011)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reelbank.manifests.datasets.class_lists import chosen_classes
from reelbank.manifests.datasets.holding_out import WAYS, check_share, seen_text, with_held_out
from reelbank.manifests.datasets.official import Listed, find_lists, list_lines, manifest_of, some
from reelbank.manifests.datasets.stanford40 import IMAGES
from reelbank.manifests.manifest import Manifest, ManifestError

FOLDS = (1, 2, 3)
SPLIT_OF_CODE = {"0": "unused", "1": "train", "2": "test"}
GROUPS = ("films", "names", "none")

# What follows source and class in every official name: body part, camera motion, people, viewpoint, quality, number.
_MARKS = r"_[fulh]_[cn]m_np\d+_(?:fr|ba|le|ri)_(?:bad|med|goo)_\d+\.avi"


def read_hmdb51(
    root: str | os.PathLike[str],
    *,
    splits: str | os.PathLike[str] | None = None,
    fold: int = 1,
    classes: str | os.PathLike[str] | None = None,
    rename: str | os.PathLike[str] | None = None,
    groups: str = "none",
    val_share: float | None = None,
    val_by: str = "clip",
    seed: int = 0,
) -> Manifest:
    """The videos ROOT/<class>/<file>.avi, split as fold 1, 2 or 3 says.

    All 6,766 official names tell the film or recording that a clip was cut from: it stands before class and marks, as
    in `<source>_<class>_f_cm_np1_fr_med_0.avi`. The authors kept the clips of a source together class by class: of the
    2,291 pairs of class and source none is on both sides of an official split, of the 1,407 sources 133 to 149 are.
    SYSTEMS.md 3.1 has 2,265 and 12 to 14; a pattern that takes lower-case words of a title for the class gives 2,262
    and 12 to 14, as it makes one film of `pushing_blocks` and `pushing_cart`.

    Args:
        root: folder of the 51 class folders.
        splits: folder of the `<class>_test_split<fold>.txt` files; None: found under `root`.
        fold: official split, 1 to 3.
        classes: a file with a class per line: only those are kept.
        rename: a file with lines `old,new`: other names for classes; ids keep the official ones.
        groups: `names`: a clip's group is its source, by its file name, within its class, as the authors parted clips;
            `films`: the source alone, whatever the class; `none`: groups are empty.
        val_share: the part of the training clips that becomes `val`; None: none does.
        val_by: `clip`: `ceil(val_share * n)` clips, of every class its share; `group`: whole groups, as near to that
            as they allow.
        seed: of the cut of `val_share`.

    Returns:
        Clips `class/stem`; videos that the fold does not use have split `unused`. Where the lists of all three splits
        are there, the columns `split_1`, `split_2` and `split_3` say what each makes of a clip.

    Raises:
        ManifestError: lists or class folders are missing, a list is malformed, classes do not map, or a share cannot
            be held out; names what was expected.
    """
    root = Path(root)
    _check(groups, val_share, val_by)
    try:
        listed = read_lists(splits, fold=fold, root=root)
    except ManifestError as error:
        if (root / IMAGES).is_dir():
            error.add_note(
                f"{root} holds {IMAGES}, still images as of Stanford 40, and HMDB51 has clips: "
                "`reelbank manifest stanford40` reads images"
            )
        raise
    called = chosen_classes({video.label for video in listed}, classes=classes, rename=rename, dataset="HMDB51")
    listed = [video for video in listed if video.label in called]
    notes: list[str] = []
    if groups != "none":
        listed, notes = _grouped(listed, by_class=groups == "names")
    listed = _with_all_splits(listed, splits, root)
    made = manifest_of(listed, root, dataset="HMDB51", allow_group_overlap=True)
    renamed = tuple(replace(clip, label=called[clip.label]) for clip in made.clips)
    made = replace(made, clips=renamed, notes=(*notes, *made.notes))
    if val_share is not None:
        made = with_held_out(made, val_share, part="val", by=val_by, seed=seed)
    if groups == "none":
        return made
    return replace(made, notes=(*made.notes, f"split {fold}: {seen_text(made.clips, 'test')}"))


def _check(groups: str, val_share: float | None, val_by: str) -> None:
    for flag, value, choices in (("--groups", groups, GROUPS), ("--val-by", val_by, WAYS)):
        if value not in choices:
            raise ManifestError(f"{flag} {value!r} is not one of {', '.join(choices)}")
    check_share(val_share, "--val-share")
    if val_by == "group" and val_share is None:
        raise ManifestError("--val-by group needs --val-share: how much of the training clips is held out")
    if val_by == "group" and groups == "none":
        raise ManifestError("--val-by group needs --groups names or films: without it no clip of HMDB51 has a group")


def read_lists(splits: str | os.PathLike[str] | None, *, fold: int, root: Path | None = None) -> list[Listed]:
    """The official lists alone, without looking at videos: 3,570 train, 1,530 test, 1,666 unused per fold.

    Raises:
        ManifestError: no lists of that fold, or a malformed line (named).
    """
    if fold not in FOLDS:
        raise ManifestError(f"HMDB51 has folds 1, 2 and 3; {fold} was asked for")
    ending = _ending(fold)
    folder = find_lists(root or Path(), splits, ends_with=ending, what=f"HMDB51 split files <class>{ending}")
    listed = []
    for path in sorted(path for path in folder.iterdir() if path.name.endswith(ending)):
        if not path.name.startswith("."):
            listed += _parse(path, label=path.name.removesuffix(ending))
    if not listed:
        raise ManifestError(f"the HMDB51 split files <class>{ending} in {folder} are empty")
    return listed


def _ending(fold: int) -> str:
    return f"_test_split{fold}.txt"


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


def source_of(file: str, label: str) -> str:
    """The film or recording that a clip was cut from, by its official file name; empty where the name tells none.

    The class in the name may differ from `label` in case and underscores.
    """
    words = "[_ ]?".join(re.escape(word) for word in label.split("_"))
    found = re.fullmatch(rf"(.+)_{words}{_MARKS}", file, re.IGNORECASE)
    return found[1].strip() if found else ""


def _grouped(listed: Sequence[Listed], *, by_class: bool) -> tuple[list[Listed], list[str]]:
    """The videos with their groups, and notes: how many groups there are, and which names tell none."""
    found, without = [], []
    for video in listed:
        source = source_of(video.file, video.label)
        if not source:
            without.append(f"{video.label}/{video.file}")
        found.append(replace(video, group=f"{video.label}/{source}" if source and by_class else source))
    sources = {video.group for video in found if video.group}
    both = len(_sources(found, "train") & _sources(found, "test"))
    what = "sources of a class" if by_class else "sources"
    notes = [f"group: {len(sources)} {what} by file names, {both} of them on both sides of train and test"]
    if without:
        notes.append(
            f"{len(without)} file names tell no source, their group is empty: {some(without)}; expected "
            "<source>_<class>_f_cm_np1_fr_med_0.avi"
        )
    return found, notes


def _sources(listed: Sequence[Listed], split: str) -> set[str]:
    return {video.group for video in listed if video.split == split and video.group}


def _with_all_splits(listed: Sequence[Listed], splits: str | os.PathLike[str] | None, root: Path) -> list[Listed]:
    """The videos with columns `split_1` to `split_3`, where the lists of all three splits have all their classes."""
    labels = {video.label for video in listed}
    parts: list[Mapping[tuple[str, str], str]] = []
    for fold in FOLDS:
        try:
            find_lists(root, splits, ends_with=_ending(fold), what="")
        except ManifestError:
            return list(listed)
        every = read_lists(splits, fold=fold, root=root)
        if not labels <= {video.label for video in every}:
            return list(listed)
        parts.append({(video.label, video.file): video.split for video in every})
    return [
        replace(
            video,
            text={
                f"split_{fold}": part.get((video.label, video.file), "unused")
                for fold, part in zip(FOLDS, parts, strict=True)
            },
        )
        for video in listed
    ]
