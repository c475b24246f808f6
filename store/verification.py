"""Is a store whole? Every byte that a reader could get is checked against what was written."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store import layout
from reelbank.store.errors import DAMAGED, StoreError
from reelbank.store.growing import is_there
from reelbank.store.layout import COLUMNS, DONE, MISSING, ROOT_COPY, Definition, definitions
from reelbank.store.plain import PlainArray
from reelbank.store.reader import WHOLE, Store
from reelbank.store.spec import TapSpec
from reelbank.store.staging import moments
from reelbank.store.sums import crc32c_of, read_and_ask, read_summed

ADVICE = "`reelbank store verify STORE --repair` mends what can be mended and marks what must be extracted again"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: `what` says it.

    Attributes:
        clip: clip id, '' where it is not one clip's.
        tap: the tap, or the path of an array or document in the store.
        row: of the clip.
        unit: whose chunk of an array, or whose commit record it is.
    """

    clip: str
    tap: str
    what: str
    row: int | None = None
    unit: int | None = None

    def __str__(self) -> str:
        return f"clip {self.clip!r}, tap {self.tap!r}: {self.what}" if self.clip else f"{self.tap}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found.

    Attributes:
        num_checked: (clip, tap, view) triples whose bytes were summed.
        counts: clips done, failed, missing and gone from the manifest.
        problems: empty for a sound store.
        absent: {array: its fill value} of arrays that may be absent and are; they read as fill.
        uncovered: arrays and documents that an earlier version wrote without a checksum.
    """

    num_checked: int
    counts: dict[str, int]
    problems: tuple[Problem, ...]
    absent: dict[str, str]
    uncovered: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON types."""
        return {**vars(self), "problems": [vars(problem) for problem in self.problems]}

    def text(self) -> str:
        """The findings, a line each, and what to do."""
        return f"{self.facts()}\n{ADVICE}" if self.problems else self.facts()

    def facts(self) -> str:
        """The findings, a line each."""
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.counts.items() if count)
        lines = [str(problem) for problem in self.problems]
        verdict = f"{len(lines)} problem{'s' * (len(lines) != 1)}" if lines else "sound"
        lines += [f"{name} is not stored and reads as {fill}" for name, fill in self.absent.items()]
        if self.uncovered:
            some = ", ".join(self.uncovered[:4]) + (" ..." if len(self.uncovered) > 4 else "")
            lines.append(
                f"{len(self.uncovered)} arrays and documents have no checksum, an earlier version wrote them; "
                f"`reelbank store upgrade` adds it: {some}"
            )
        return "\n".join([*lines, f"{verdict}: {self.num_checked} features checked; clips: {counts or 'none'}"])


@with_bar("verify")
def verify(path: Path | str, progress: Progress | None = None) -> Verification:
    """Reads everything of a store: checksums, shapes, NaN and Inf, mean and std of every clip that is done.

    Args:
        path: the store.
        progress: called with an Event: clips checked of clips to check.

    Raises:
        StoreError: if `path` is not a store at all.
    """
    path = Path(path)
    try:
        store = Store(path, check=False)
    except StoreError as error:
        if not is_root_damaged(path):
            raise
        problem = Problem(clip="", tap="zarr.json", what=_said(error))
        return Verification(num_checked=0, counts={}, problems=(problem,), absent={})
    problems, uncovered = _check_documents(store)
    if store.is_summed:
        problems += [Problem(clip="", tap=name, what="has no checksum, and every other has") for name in uncovered]
        uncovered = []
    found, bare = _check_arrays(store, {problem.tap for problem in problems})
    problems, uncovered = problems + found, uncovered + bare
    # What of a clip cannot be judged because something else is damaged, which is said already.
    broken = {problem.tap.removesuffix("/zarr.json") for problem in problems if problem.unit is None}
    chunks = {(problem.tap, problem.unit) for problem in problems if problem.unit is not None}
    try:
        # Of clips that left the manifest, too: they count again when they come back.
        rows = np.flatnonzero(store.clips.status == DONE)
        names, counts = store.column("clip_id"), store.clips.counts()
    except (StoreError, ValueError, KeyError):
        if not problems:
            raise
        return Verification(
            num_checked=0, counts={}, problems=tuple(problems), absent=store.absent, uncovered=tuple(uncovered)
        )  # fmt: skip
    problems += _check_records(store)
    checked = 0
    bare_thumbnails = False
    for done, row in enumerate(rows.tolist()):
        unit = store.geometry.unit_of(row)
        unreadable = broken | {name for name, own in chunks if own == unit}
        if not unreadable & {"clips/num_steps", "clips/num_views"}:
            wrong = []
            if "thumbnails/rgb" not in broken:
                wrong += [("thumbnails/rgb", what) for what in _check_thumbnail(store, row)]
                bare_thumbnails |= not wrong and store.has_unsummed_thumbnail(row)
            for tap in store.spec.taps:
                if not unreadable & {f"features/{tap.name}", f"checksums/{tap.name}"}:
                    checked += int(store.clips.num_views[row])
                    wrong += [(tap.name, what) for what in _check_clip(store, tap, row, unreadable)]
            problems += [Problem(clip=str(names[row]), tap=tap, what=what, row=row) for tap, what in wrong]
        if progress is not None:
            progress(Event(stage="verify", done=done + 1, total=len(rows)))
    return Verification(
        num_checked=checked, counts=counts, problems=tuple(problems), absent=store.absent,
        uncovered=(*uncovered, *(("thumbnails/rgb",) if bare_thumbnails else ())),
    )  # fmt: skip


def is_root_damaged(path: Path) -> bool:
    """Whether there is a store whose root cannot be read but stands in its copy."""
    try:
        read_summed(path / "zarr.json")
    except StoreError:
        return (path / ROOT_COPY).is_file()
    return False


def known_arrays(store: Store) -> dict[str, Definition | None]:
    """{path: definition} of the arrays of this version that the store has or must have, manifest columns too.

    None for a column that is no target and not in every store: a later version may keep it as it likes.
    """
    known = definitions(store.spec, store.geometry)
    found: dict[str, Definition | None] = {
        name: one for name, one in known.items() if one.essential or is_there(store.path / name)
    }
    for name, array in store.column_arrays.items():
        kind, is_target = COLUMNS.get(name), name in store.target_names
        numeric = is_target if kind is None else kind.dtype != "str"
        known_kind = kind is not None or is_target
        found[array] = layout.column_definition(store.geometry.unit_clips, numeric=numeric) if known_kind else None
    for name, kind in COLUMNS.items():
        if kind.essential and store.num_clips and name not in store.column_arrays:
            found[f"manifest/{name}"] = layout.column_definition(store.geometry.unit_clips, numeric=False)
    return found


def _check_documents(store: Store) -> tuple[list[Problem], list[str]]:
    """What is wrong with any zarr.json or the copy of the root, and those that carry no sum."""
    problems, uncovered = [], []
    for name, expected in (layout.folder_documents() | dict.fromkeys(known_arrays(store))).items():
        file = store.path / name / "zarr.json"
        try:
            document, is_summed = read_and_ask(file)
            if not is_summed:
                uncovered.append(f"{name}/zarr.json")
                if expected is not None and document | {"codecs": []} != expected | {"codecs": []}:
                    raise StoreError("is not the zarr.json of this folder")
        except StoreError as error:
            problems.append(Problem(clip="", tap=f"{name}/zarr.json", what=_said(error)))
    for name in ("zarr.json", ROOT_COPY):
        try:
            if ((store.path / name).is_file() or store.is_summed) and not read_and_ask(store.path / name)[1]:
                uncovered.append(name)
        except StoreError as error:
            problems.append(Problem(clip="", tap=name, what=_said(error)))
    return problems, uncovered


def _check_arrays(store: Store, damaged: set[str]) -> tuple[list[Problem], list[str]]:
    """Shapes as declared, a library that changed a feature's size must not go unseen; every chunk of plain arrays.

    Returns:
        problems, and the arrays whose chunks carry no sum.
    """
    problems, uncovered = [], []
    known = known_arrays(store)
    used = _used_units(store)
    others = [file.parent.relative_to(store.path).as_posix() for file in sorted(store.path.glob("*/*/zarr.json"))]
    for name in dict.fromkeys((*known, *others)):
        if f"{name}/zarr.json" in damaged:
            continue
        definition = known.get(name)
        try:
            document = read_summed(store.path / name / "zarr.json")
            if definition is not None:
                _require_defined(document, definition, store.num_clips)
            if definition is not None and definition.shards is not None:
                continue
            array = PlainArray(store.path / name)
            uncovered += [] if array.is_summed else [name]
        except StoreError as error:
            problems.append(Problem(clip="", tap=name, what=_said(error)))
            continue
        rows = {unit: store.geometry.rows_of(unit, store.num_clips) for unit in range(store.num_units)}
        found = {unit: _said(error) for unit, error in array.damaged_units(store.num_clips)}
        if store.is_summed and name in known:
            whole = name in WHOLE or name.startswith("manifest/")
            for unit in rows if whole else used:
                if unit not in found and not array.chunk_path(unit).is_file():
                    found[unit] = f"{array.chunk_path(unit).relative_to(store.path)} is not there"
        for unit, what in sorted(found.items()):
            where = f"rows {rows[unit].start} to {rows[unit].stop - 1}: " if unit in rows else ""
            text = what.removeprefix(f"{store.path / name}").removeprefix(": ").strip()
            problems.append(Problem(clip="", tap=name, what=where + text, unit=unit if unit in rows else None))
    return problems, uncovered


def _said(error: Exception) -> str:
    """An error without the advice that stands below all of them."""
    return str(error).removesuffix(f": {DAMAGED}")


def _used_units(store: Store) -> list[int]:
    """Units of which clips were committed, as far as their status can be read."""
    try:
        status = store.clips.status
    except StoreError:
        return []
    return sorted({store.geometry.unit_of(row) for row in np.flatnonzero(status != MISSING).tolist()})


def _require_defined(document: dict[str, Any], definition: Definition, num_clips: int) -> None:
    """Raises StoreError if the zarr.json of an array is not what this version would write."""
    expected = layout.array_document(definition, num_clips)
    for key in ("data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "dimension_names", "node_type"):
        if document.get(key) != expected[key]:
            raise StoreError(f"its zarr.json has {key} {document.get(key)}, expected {expected[key]}")
    if _codec_names(document) not in (_codec_names(expected), [n for n in _codec_names(expected) if n != "crc32c"]):
        raise StoreError(f"its zarr.json has codecs {_codec_names(document)}, expected {_codec_names(expected)}")
    shape, wanted = document["shape"], expected["shape"]
    for size, least, axis in zip(shape, wanted, definition.dimensions, strict=True):
        # What ends early is fill there, but for what nothing can stand.
        if size != least and (axis not in ("clip", "step") or (size < least and definition.essential)):
            raise StoreError(f"{shape = }, declared {wanted}")


def _codec_names(document: dict[str, Any]) -> list[str]:
    names = []
    for codec in document["codecs"]:
        names += [codec["name"], *(_codec_names(codec["configuration"]) if codec["name"] == "sharding_indexed" else ())]
    return names


def _check_records(store: Store) -> Iterator[Problem]:
    """Commit records: each that is there, and one for each unit that has clips."""
    used = _used_units(store)
    folder = store.path / "commits"
    there = {int(file.stem): file for file in folder.glob("[0-9]*.json") if file.stem.isdigit()}
    for unit in sorted({*there, *used}):
        name = f"commits/{unit:08d}.json"
        try:
            record, is_summed = read_and_ask(folder / f"{unit:08d}.json")
            if not isinstance(record.get("runs"), list) or not isinstance(record.get("files"), dict):
                raise StoreError("is not the record of a unit")
            if store.is_summed and not is_summed:
                raise StoreError("has no checksum, and every other has")
        except StoreError as error:
            yield Problem(clip="", tap=name, what=_said(error), unit=unit)


def _check_thumbnail(store: Store, row: int) -> list[str]:
    try:
        store.thumbnail(row)
    except (StoreError, ValueError) as error:
        return [_said(error)]
    return []


def _check_clip(store: Store, tap: TapSpec, row: int, unreadable: Container[str]) -> list[str]:
    try:
        features = store.read(tap.name, row)
        stored = store.checksums(tap.name)[row]
        padding = store.has_clean_padding(tap.name, row)
        expected = {
            kind: [getattr(store, kind)(tap.name, view)[row] for view in range(len(features))]
            for kind in ("mean", "std")
            if tap.is_vector and is_there(store.path / kind / tap.name) and f"{kind}/{tap.name}" not in unreadable
        }
    except (StoreError, OSError) as error:
        return [_said(error)]
    found = [] if padding else ["what follows the last step is not zero"]
    for view, array in enumerate(features):
        if crc32c_of(array) != int(stored[view]):
            found.append(f"view {view}: the bytes do not match their crc32c")
            continue
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            found.append(f"view {view}: {bad} of {array.size} values are NaN or Inf")
        for kind, actual in zip(("mean", "std"), moments(array) if expected else (), strict=False):
            if kind in expected and not np.array_equal(expected[kind][view], actual, equal_nan=True):
                found.append(f"view {view}: {kind} is not that of the stored steps")
    return found
