"""Any table with other column names, mapped to a manifest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reelbank.manifests.datasets.columns import first_common, hints, mapped, option, told, units
from reelbank.manifests.datasets.cutting import cut_unknown
from reelbank.manifests.datasets.paths import missing, videos_folder, with_found_paths
from reelbank.manifests.manifest import GUARDED_SPLITS, Manifest, ManifestError
from reelbank.manifests.numbers import with_plain_numbers
from reelbank.manifests.reading import read_table
from reelbank.manifests.table import Table
from reelbank.manifests.validation import NUMBER_COLUMNS, from_table, meant_split, target_names

MOST_GROUPS = 10  # named in a note
TRIMMED = ("clip_id", "split", "label", "group")


def read_csv(
    file: str | os.PathLike[str],
    *,
    mapping: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    target_columns: Sequence[str] | None = None,
    allow_group_overlap: bool = False,
    unknown: Sequence[str] = (),
    seed: int = 0,
    decimal: str | None = None,
) -> Manifest:
    """Read a table whose columns have other names. What was mended, and which columns were taken, stands in the notes.

    Args:
        file: CSV or TSV as any program writes it (separators, decimal commas, clocks), JSON Lines or Parquet.
        mapping: manifest column -> column of the file, e.g. `{"video": "file", "group": "scene_group"}`. One
            column may serve several. Columns that are not mapped keep their name.
        root: the folder that the paths are relative to and may not leave; None: the file's own folder.
        target_columns: names after the mapping; None: `kcal`, else those that begin with `target`.
        allow_group_overlap: a group on both sides of a split becomes a note.
        unknown: classes that become split `unknown`; the others are cut 80/20 into train and test by group. Clips
            of these classes whose group trains are `unused`, unless `allow_group_overlap`.
        seed: of that cut.
        decimal: `comma` or `point`, for numbers such as 1.200 where no other number of the table tells.

    Raises:
        ManifestError: a mapped column is not there, the mapped table is wrong, or none of its videos is there.
    """
    path = Path(file)
    folder = videos_folder(path, root)
    given = read_table(path)
    mapping = mapping or {}
    table = mended(mapped(given, mapping), mapping, target_columns=target_columns, decimal=decimal)
    table = replace(table, notes=(*table.notes, *hints(table)))
    if unknown:
        table = _with_splits(table, unknown, seed=seed, share_groups=allow_group_overlap)
    return manifest_of_table(
        with_found_paths(table, folder),
        given=given,
        mapping=mapping,
        root=folder,
        restricted=root is not None,
        target_columns=target_columns,
        allow_group_overlap=allow_group_overlap,
    )


# ELAN's name of seconds with a decimal point, whatever the language of the system.
_IN_SECONDS_AND_MS = "ss.msec"


def mended(
    table: Table, mapping: Mapping[str, str], *, target_columns: Sequence[str] | None, decimal: str | None
) -> Table:
    """A mapped table with numbers and times that are read, and without the outer spaces of names.

    Two labels that look alike must not be two classes.

    Raises:
        ManifestError: a number may mean two things; see `with_plain_numbers`.
    """
    names = {*target_names(table, target_columns), *NUMBER_COLUMNS}
    if decimal is None and any(_IN_SECONDS_AND_MS in theirs for theirs in mapping.values()):
        decimal = "point"
    table = with_plain_numbers(table, names=names, seconds=units(mapping), decimal=decimal)
    count: Counter[str] = Counter()
    rows = []
    for number, cells in table.rows:
        trimmed = {name: cells[name].strip() for name in TRIMMED if name in cells}
        count.update(name for name, cell in trimmed.items() if cell != cells[name])
        rows.append((number, cells | trimmed))
    notes = [f"outer spaces of {name} are removed ({number} cells)" for name, number in count.items()]
    splits = Counter(cells["split"] for _, cells in rows if cells.get("split"))
    meant = {word: ours for word in splits if (ours := meant_split(word)) != word and ours in GUARDED_SPLITS}
    rows = [(n, cells | {"split": meant.get(cells["split"], cells["split"])} if meant else cells) for n, cells in rows]
    notes += [f"split {word!r} is read as {ours!r} ({splits[word]} clips)" for word, ours in meant.items()]
    return replace(table, rows=tuple(rows), notes=(*table.notes, *notes))


def manifest_of_table(
    table: Table,
    *,
    given: Table,
    mapping: Mapping[str, str],
    root: Path,
    restricted: bool,
    target_columns: Sequence[str] | None,
    allow_group_overlap: bool,
) -> Manifest:
    """The checked manifest of a mapped table, with what its reader must say: columns taken, files missing.

    Args:
        table: under our names.
        given: as it was read.
        mapping: which column of `given` was taken for which of ours.
        root, restricted, target_columns, allow_group_overlap: as for `from_table`.

    Raises:
        ManifestError: the table is wrong, or none of its videos is there.
    """
    try:
        manifest = from_table(
            table,
            path=None,
            root=root,
            restricted=restricted,
            target_columns=target_columns,
            allow_group_overlap=allow_group_overlap,
        )
    except ManifestError as error:
        if "video" not in table.columns and (theirs := first_common(table, "video")):
            error.add_note(f"perhaps {option('video', theirs)}")
        for note in table.notes:  # a group that was guessed may be what is wrong
            error.add_note(note)
        raise
    notes = [*manifest.notes, told(manifest, given, mapping)]
    try:
        absent = missing(manifest, table)
    except ManifestError as error:
        for note in notes:  # a wrong column for the video is found by them
            error.add_note(note)
        raise
    return replace(manifest, notes=(*notes, *filter(None, [absent])))


def _with_splits(table: Table, unknown: Sequence[str], *, seed: int, share_groups: bool) -> Table:
    """The table with a column `split`, and a note about it."""
    if "split" in table.columns:
        raise ManifestError(
            f"{table.source}: --unknown makes the column 'split', and the file has one; leave --unknown out, or "
            "rename that column"
        )
    if "label" not in table.columns:
        raise ManifestError(f"{table.source}: --unknown names classes, and no column is the label; --map label=COLUMN")
    labels = [cells["label"].strip() for _, cells in table.rows]
    if absent := sorted(set(unknown) - set(labels)):
        raise ManifestError(
            f"{table.source}: --unknown {absent[0]!r} is no class of column 'label'; "
            f"there are {', '.join(sorted({label for label in labels if label})) or 'none'}"
        )
    if not set(labels) - set(unknown):
        raise ManifestError(
            f"{table.source}: --unknown names every class ({', '.join(sorted(set(labels)))}): nothing is left to train "
            "on; name fewer"
        )
    groups = [cells.get("group", "") or cells.get("video", "") for _, cells in table.rows]
    splits = cut_unknown(labels, groups, unknown=frozenset(unknown), seed=seed, share_groups=share_groups)
    for split, reason in (
        ("test", "no group can be tested without taking a class from training"),
        ("unknown", "every group with these classes trains too (--allow-group-overlap takes them all the same)"),
    ):
        if split not in splits:
            raise ManifestError(
                f"{table.source}: --unknown leaves no clip in split {split!r}: {reason}; "
                "write a column 'split' with train, test and unknown yourself"
            )
    rows = tuple((n, cells | {"split": split}) for (n, cells), split in zip(table.rows, splits, strict=True))
    held = sorted({group for group, split in zip(groups, splits, strict=True) if split == "test"})
    shown = ", ".join(held[:MOST_GROUPS]) + (f" and {len(held) - MOST_GROUPS} more" if len(held) > MOST_GROUPS else "")
    known = splits.count("train") + splits.count("test")
    note = (
        f"split was made of --unknown: of {known} clips of other classes {splits.count('test')} are test, by whole "
        f"groups (seed {seed}: {shown})"
    )
    left = {label for label, split in zip(labels, splits, strict=True) if split == "unknown"}
    if lost := sorted(set(unknown) - left):
        note += f"; no clip of {', '.join(lost)} is in 'unknown'"
    if unused := splits.count("unused"):
        note += (
            f"; {unused} clips of unknown classes are 'unused', because their groups train "
            "(--allow-group-overlap, here and with featurize, takes them as 'unknown')"
        )
    return replace(table, columns=(*table.columns, "split"), rows=rows, notes=(note, *table.notes))
