"""Which column of a stranger's table is which of ours: by name, by mapping, and what is said about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from reelbank.manifests.datasets.official import some
from reelbank.manifests.manifest import FIELDS, SECONDS_FIELDS, Manifest, ManifestError
from reelbank.manifests.numbers import is_number
from reelbank.manifests.table import Table

# Names by which published tables call a column, the likeliest first; case, signs and units of time do not count.
COMMON_NAMES = {
    "video": (
        *("video", "video_path", "file", "filename", "file_name", "path", "file_path", "video_file", "video_name"),
        *("media_file", "media_file_name", "video_id", "youtube_id"),
    ),
    "start_seconds": (
        *("start", "t_start", "start_time", "time_start", "onset", "begin", "begin_time", "start_timestamp", "from"),
    ),
    "end_seconds": (
        *("end", "t_end", "end_time", "time_end", "offset", "stop", "stop_time", "stop_timestamp", "end_timestamp"),
        "to",
    ),
    "label": (
        *("label", "action", "activity", "class", "class_name", "classname", "event", "behavior", "behaviour"),
        *("category", "annotation"),
    ),
    "split": ("split", "subset", "set", "partition"),
    "group": ("group", "subject", "subject_id", "participant", "participant_id", "person", "person_id"),
    "clip_id": ("clip_id",),
}
DURATION_NAMES = ("duration", "length")
# Words of names of columns that hold a class, the likeliest first; such a column is proposed, never taken.
LABEL_WORDS = (
    *("label", "classname", "class", "action", "actions", "activity", "behavior", "behaviour", "verb", "gesture"),
    *("exercise", "event", "category", "annotation", "noun", "narration", "tier"),
)
NOBODY = ("", "-", "n/a", "na", "nan", "no focal subject", "none", "null", "unknown")
"""What programs write where no subject was chosen."""
TIME_FIELDS = (*SECONDS_FIELDS, "duration")

_UNIT = re.compile(r"_(hh_mm_ss_ms|ss_msec|seconds|secs?|s|(milliseconds|msecs?|ms))$")
_SECONDS = r"\d+(?:\.\d+)?"
_SEVERAL = re.compile(rf"\S+ {_SECONDS} {_SECONDS}(?:;\S+ {_SECONDS} {_SECONDS})*")
_NO_CLASS = ("id", "ids", "time", "timestamp", "path", "file", "type")


def found_names(table: Table, mapping: Mapping[str, str]) -> dict[str, str]:
    """Manifest column -> column of the file: what was asked, and common names for the rest.

    `duration` is among them where there is no end.

    Raises:
        ManifestError: two columns have the name that is taken, but for case, spaces and signs.
    """
    names = dict(mapping)
    free = [name for name in table.columns if name not in mapping.values()]
    for ours, common in COMMON_NAMES.items():
        if ours not in names and (theirs := _column(table, free, ours, common)):
            names[ours] = theirs
    if "end_seconds" not in names and (theirs := _column(table, free, "duration", DURATION_NAMES)):
        names["duration"] = theirs
    return names


def _column(table: Table, free: Sequence[str], ours: str, common: Sequence[str]) -> str | None:
    if ours in free:
        common = (ours, *common)
    for wanted in common:
        keys = {name: _key(name) for name in free if wanted in (_key(name), _bare(ours, _key(name)))}
        # Milliseconds last: a table may tell one time in several units.
        found = sorted(keys, key=lambda name: (keys[name] != ours, unit_of(name) == "ms"))
        if found:
            same = [name for name in found[1:] if keys[name] == keys[found[0]]]
            if same:
                raise ManifestError(
                    f"{table.source}: {found[0]!r} and {same[0]!r} may both be {ours}; say which: "
                    f"{option(ours, found[0])}"
                )
            return found[0]
    return None


def _key(name: str) -> str:
    """`File Name` -> `file_name`, `Start (s)` -> `start_s`."""
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_")


def _bare(ours: str, key: str) -> str:
    return _UNIT.sub("", key) if ours in TIME_FIELDS else key


def unit_of(column: str) -> str:
    """`ms` where the name of a column of times says milliseconds, else `s`."""
    found = _UNIT.search(_key(column))
    return "ms" if found and found[2] else "s"


def mapped(table: Table, mapping: Mapping[str, str]) -> Table:
    """The table with its columns renamed, and notes on those that had to give way.

    A column of the file whose name the mapping gives to another one is kept as `<name>_original`.

    Raises:
        ManifestError: the mapping names a column that the file has not.
    """
    absent = sorted({theirs for theirs in mapping.values() if theirs not in table.columns})
    if absent:
        raise ManifestError(
            f"{table.source}: the mapping asks for column {absent[0]!r}; "
            f"the file has {', '.join(sorted(table.columns)) or 'none'}"
        )
    names = dict(mapping)
    notes = []
    for column in table.columns:
        if mapping.get(column, column) != column:
            kept = f"{column}_original"
            while kept in names or kept in table.columns:
                kept += "_original"
            names[kept] = column
            notes.append(f"column {column!r} of {table.source} is kept as {kept!r}: {mapping[column]!r} took its name")
        elif column not in mapping.values():
            names[column] = column
    rows = tuple((number, {ours: cells[theirs] for ours, theirs in names.items()}) for number, cells in table.rows)
    return replace(table, columns=tuple(names), rows=rows, notes=(*table.notes, *notes))


def units(mapping: Mapping[str, str]) -> dict[str, str]:
    """{column of times of a mapped table: its unit, by what the file calls it}."""
    return {name: unit_of(mapping.get(name, name)) for name in TIME_FIELDS if name in mapping or name in FIELDS}


def not_found(table: Table, ours: str, common: Sequence[str]) -> ManifestError:
    """What is raised where no column can be `ours`."""
    return ManifestError(
        f"{table.source}: no column for {ours} (looked for {', '.join(common)}); "
        f"found {', '.join(table.columns)}; name it with --map {ours}=COLUMN"
    )


def hints(table: Table) -> Iterator[str]:
    """Columns of a mapped table that were perhaps meant to be ours, one sentence each."""
    for name in table.columns:
        ours = name.lower()
        if ours != name and ours in (*FIELDS, "kcal") and ours not in table.columns:
            yield f"column {name!r} is kept as text: only {ours!r} has a meaning ({option(ours, name)})"
    for ours in COMMON_NAMES:
        given = ours in map(str.lower, table.columns)
        theirs = "" if given or ours == "label" else first_common(table, ours)
        if theirs and (ours != "group" or not names_nobody(table, theirs)):
            yield f"column {theirs!r} is kept as text, and may be {ours} ({option(ours, theirs)})"
    yield from label_hints(table)
    if several := several_column(table):
        yield f"column {several!r} holds several intervals per cell: `reelbank manifest intervals` makes a clip of each"


def label_hints(table: Table) -> Iterator[str]:
    """A sentence where a mapped table has no label, or numbers where another column has words."""
    free = [name for name in table.columns if name.lower() not in (*FIELDS, "kcal")]
    likely = _likely_label(table, free)
    if "label" not in map(str.lower, table.columns) and free:
        yield f"there is no column 'label': no clip has a class (--map label=COLUMN, of {some(free)})" + (
            f"; perhaps {option('label', likely)}" if likely else ""
        )
    elif "label" in table.columns and likely and (cells := table.cells("label")) and all(map(is_number, cells)):
        shown = some(sorted(set(cells))[:4])
        yield f"label holds numbers only ({shown}), and {likely!r} may be the class ({option('label', likely)})"


def first_common(table: Table, ours: str) -> str | None:
    """The column that a common name makes the likeliest for one of ours."""
    found = (n for wanted in COMMON_NAMES[ours] for n in table.columns if wanted in (_key(n), _bare(ours, _key(n))))
    return next((name for name in found if name not in FIELDS), None)


def _likely_label(table: Table, free: Sequence[str]) -> str | None:
    """The column that most likely holds a class: by a word of its name, else one whose texts repeat."""
    several = several_column(table)
    texts = {n: cells for n in free if (cells := table.cells(n)) and n != several and not all(map(is_number, cells))}
    ranks = {}
    for name in texts:
        words = _key(name).split("_")
        if words[-1] not in _NO_CLASS and (found := [i for i, word in enumerate(LABEL_WORDS) if word in words]):
            ranks[name] = (found[0], len(words))
    repeated = [name for name, cells in texts.items() if 1 < len(set(cells)) <= len(cells) / 2]
    return min(ranks, key=lambda name: ranks[name], default=next(iter(repeated), None))


def names_nobody(table: Table, column: str) -> bool:
    """Whether no cell of a column of subjects names one."""
    return all(cell.lower() in NOBODY for cell in table.cells(column))


def several_column(table: Table) -> str | None:
    """A column with `class start end;class start end` in its cells, as Charades has one."""
    found = (n for n in table.columns if (cells := table.cells(n)) and all(map(_SEVERAL.fullmatch, cells)))
    return None if "label" in table.columns else next(found, None)


def one_row_each(table: Table, column: str) -> Table:
    """The table with a row of `label`, `start_seconds` and `end_seconds` for each interval of such a column."""
    fields = ("label", *SECONDS_FIELDS)
    rows = tuple(
        (number, {name: cell for name, cell in cells.items() if name != column} | dict(zip(fields, one, strict=True)))
        for number, cells in table.rows
        for one in (part.split(" ") for part in cells[column].strip().split(";") if part)
    )
    note = f"column {column!r} holds several intervals per cell: a clip is made of each"
    if absent := len(table.rows) - len(table.cells(column)):
        note += f"; {absent} rows without any are left out"
    columns = (*(name for name in table.columns if name != column), *fields)
    return replace(table, columns=columns, rows=rows, notes=(*table.notes, note))


def option(ours: str, theirs: str) -> str:
    """`--map label=verb`, as a shell takes it."""
    return f"--map {shlex.quote(f'{ours}={theirs}')}"


def told(manifest: Manifest, given: Table, mapping: Mapping[str, str]) -> str:
    """One line: which column of the file `given` was taken for which of ours."""
    names = {name: name for name in given.columns if name not in mapping.values()} | dict(mapping)
    ours = dict.fromkeys((*FIELDS, *manifest.target_names, *mapping))
    taken = [f"{name}={names[name]}" for name in ours if name in names]
    kept = [name for name in manifest.text_columns if name not in mapping]
    return f"columns taken: {', '.join(taken)}" + (f"; kept as text: {some(kept)}" if kept else "")
