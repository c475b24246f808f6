"""Several stores of one spec as one: rows one after the other, features byte for byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.accepted import StrPath, paths_of
from reelbank.store.building import new_store
from reelbank.store.errors import StoreError
from reelbank.store.exchange.table import clip_columns, is_plain, ledger_names, ledger_values, manifest_of
from reelbank.store.growing import carry, plan_carrying
from reelbank.store.layout import COLUMNS, DONE, FAILED, LEDGER, MISSING
from reelbank.store.reader import Store
from reelbank.store.spec import FeatureSpec, refuse_mismatch
from reelbank.store.staging import ClipStage, Outcome, stage_failure
from reelbank.store.writer import StoreWriter, clip_identity

if TYPE_CHECKING:
    from reelbank.manifests import Clip, Manifest

RANK = {DONE: 2, FAILED: 1, MISSING: 0}
AGREED = ("split", "label", "group", "start_seconds", "end_seconds")
"""What stores must agree on of a clip that several have; where its video lies they may not."""


@dataclass(frozen=True, kw_only=True)
class MergeResult:
    """What came of a merge.

    Attributes:
        sources: {store: its clips}.
        num_shared: clips that several of them have.
        left_out: clips that had left the manifest of their store.
        notes: what of a later version is not in the merged store.
    """

    path: str
    sources: dict[str, int]
    num_clips: int
    num_done: int
    num_shared: int
    left_out: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return dict(vars(self))

    def text(self) -> str:
        """The facts, a line each."""
        lines = [f"{self.path}: {self.num_clips} clips, {self.num_done} with features"]
        lines += [f"  {count} clips of {name}" for name, count in self.sources.items()]
        if self.num_shared:
            lines.append(f"  {self.num_shared} clips are in several of them and are there once")
        if self.left_out:
            lines.append(f"  {self.left_out} clips are left out: no longer in the manifest of their store")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One clip of the merged store and where its features are: source number and row there."""

    clip: Clip
    source: int
    row: int


@with_bar("merge")
def merge(
    out: Path | str,
    stores: StrPath | Iterable[StrPath],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MergeResult:
    """Makes the store `out` from `stores`, which stay as they are.

    Of a clip that several have, the done one is taken; two done ones must have the same bytes.

    Args:
        out: the new store.
        stores: two or more, of one spec.
        overwrite: replace the store at `out`.
        progress: called with an Event: clips written of clips.

    Raises:
        SpecMismatch: the stores were made differently; the fields are listed.
        StoreError: stores that disagree on a clip, or something at `out`.
    """
    out, paths = Path(out), paths_of("stores", stores, StoreError)
    if len(paths) < 2:
        raise StoreError(f"merge joins two stores or more, {len(paths)} given")
    if len({path.resolve() for path in paths}) != len(paths) or out.resolve() in {path.resolve() for path in paths}:
        raise StoreError("a store is given twice; every store once, and OUT is a new one")
    opened = [Store(path) for path in paths]
    spec = _without_source(opened[0].spec)
    for path, other in zip(paths[1:], opened[1:], strict=True):
        try:
            refuse_mismatch(f"{path} cannot be merged with {paths[0]}: it", _without_source(other.spec), spec)
        except StoreError as error:
            message = str(error).replace("stored", str(path)).replace("asked", str(paths[0]))
            raise type(error)(message.rpartition("\n")[0]) from None
    files = dict.fromkeys(str(store.spec.weights["source"]) for store in opened if "source" in store.spec.weights)
    if spec.weights.get("kind") == "imported" and files:
        spec = replace(spec, weights={**spec.weights, "source": ", ".join(files)})
    targets = tuple(dict.fromkeys(name for store in opened for name in store.target_names))
    unknown = [_unknown(store, targets) for store in opened]
    carried = plan_carrying(paths, unknown)
    rows, shared = _plan(opened, targets, unknown)
    fixed = {store.geometry.fixed_steps for store in opened}
    provenance = {
        "kind": "merged",
        "command": f"reelbank store merge {' '.join(path.name for path in paths)}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": [
            {"source": store.path.name, "num_clips": store.num_clips, "provenance": store.provenance}
            for store in opened
        ],
    }
    manifest = _manifest(rows, targets)
    attributes = [
        f"root attribute {name!r} is left out: this version does not know it"
        for name in dict.fromkeys(name for store in opened for name in store.unknown_attributes)
    ]
    with new_store(out, overwrite=overwrite) as part:
        writer = StoreWriter.open_or_create(
            part, spec, fixed_steps=fixed.pop() if len(fixed) == 1 else None, num_clips=len(rows),
            provenance=provenance, counts=[int(opened[entry.source].num_steps[entry.row]) for entry in rows],
        )  # fmt: skip
        writer.sync_manifest(manifest)
        _copy(writer, manifest, rows, opened, progress)
        carry(part, writer.geometry.unit_clips, carried, paths, [(entry.source, entry.row) for entry in rows])
    return MergeResult(
        path=str(out),
        sources={str(store.path): int((store.clips.in_manifest == 1).sum()) for store in opened},
        num_clips=len(rows),
        num_done=sum(int(opened[entry.source].clips.status[entry.row] == DONE) for entry in rows),
        num_shared=shared,
        left_out=sum(int((store.clips.in_manifest != 1).sum()) for store in opened),
        notes=(*carried.notes, *attributes),
    )


def _without_source(spec: FeatureSpec) -> FeatureSpec:
    """Imports of several files may be merged: which file features came from did not change them."""
    if spec.weights.get("kind") != "imported":
        return spec
    return replace(spec, weights={name: value for name, value in spec.weights.items() if name != "source"})


def _unknown(store: Store, targets: Sequence[str]) -> dict[str, str]:
    """{array: its column, or ''} of what the clips of a manifest have no place for."""
    columns = {name: store.column(name) for name in store.column_arrays if name not in (*COLUMNS, *targets)}
    foreign = [name for name, values in columns.items() if not (is_plain(values) and values.dtype.kind == "O")]
    return dict.fromkeys(store.unknown, "") | {store.column_arrays[name]: name for name in foreign}


def _plan(
    stores: Sequence[Store], targets: Sequence[str], unknown: Sequence[Mapping[str, str]]
) -> tuple[list[_Row], int]:
    """The merged rows in the order of the stores, and how many clips several stores have."""
    found: dict[str, _Row] = {}
    times: Counter[str] = Counter()
    for number, store in enumerate(stores):
        listed = np.flatnonzero(store.clips.in_manifest == 1)
        table = clip_columns(store, listed)
        for name in unknown[number].values():
            table.pop(f"manifest/{name}", None)
        own = tuple(name for name in targets if name in store.column_names and store.column(name).dtype.kind == "f")
        manifest = manifest_of(table, own) if len(listed) else None
        for clip, row in zip(manifest.clips if manifest else (), listed.tolist(), strict=True):
            entry = _Row(clip=clip, source=number, row=row)
            times[clip.clip_id] += 1
            if clip.clip_id in found:
                entry = _better(found[clip.clip_id], entry, stores)
            found[clip.clip_id] = entry
    return list(found.values()), sum(count > 1 for count in times.values())


def _better(a: _Row, b: _Row, stores: Sequence[Store]) -> _Row:
    """Which of two rows of one clip is taken. Raises StoreError if they contradict each other."""
    first, second = stores[a.source], stores[b.source]
    name = a.clip.clip_id
    for field in AGREED:
        if getattr(a.clip, field) != getattr(b.clip, field):
            raise StoreError(
                f"clip {name!r}: {field} is {getattr(a.clip, field)!r} in {first.path} and "
                f"{getattr(b.clip, field)!r} in {second.path}; make both from one manifest"
            )
    for target in sorted(set(a.clip.targets) & set(b.clip.targets)):
        ours, theirs = a.clip.targets[target], b.clip.targets[target]
        if ours != theirs and not (np.isnan(ours) and np.isnan(theirs)):
            raise StoreError(
                f"clip {name!r}: {target} is {ours:g} in {first.path} and {theirs:g} in {second.path}; make both from "
                "one manifest"
            )
    ours, theirs = int(first.clips.status[a.row]), int(second.clips.status[b.row])
    if ours == theirs == DONE:
        for tap in first.taps:
            same = first.num_steps[a.row] == second.num_steps[b.row] and np.array_equal(
                first.checksums(tap)[a.row], second.checksums(tap)[b.row]
            )
            if not same:
                raise StoreError(
                    f"clip {name!r} has other features of tap {tap!r} in {first.path} than in {second.path}; see "
                    "`reelbank store diff`, and leave one of the stores out or extract it again"
                )
    return b if RANK[theirs] > RANK[ours] else a


def _manifest(rows: Sequence[_Row], targets: tuple[str, ...]) -> Manifest:
    """The clips with the columns of all stores; what a store has not is empty there."""
    from reelbank.manifests import Manifest

    texts = tuple(name for name in dict.fromkeys(name for row in rows for name in row.clip.text) if name not in targets)
    clips = tuple(
        replace(
            row.clip,
            targets={name: row.clip.targets.get(name, np.nan) for name in targets},
            text={name: row.clip.text.get(name, "") for name in texts},
        )
        for row in rows
    )
    return Manifest(path=None, root=Path(), clips=clips, target_names=targets, text_columns=texts)


def _copy(
    writer: StoreWriter,
    manifest: Manifest,
    rows: Sequence[_Row],
    stores: Sequence[Store],
    progress: Progress | None,
) -> None:
    """Unit by unit; one store's shards are open at a time."""
    stats = [StoreWriter(store.path, store.spec).file_stats() for store in stores]
    done = 0
    for unit in range(-(-len(rows) // writer.geometry.unit_clips)):
        places = writer.geometry.rows_of(unit, len(rows))
        outcomes = []
        for number in sorted({rows[place].source for place in places}):
            source = Store(stores[number].path)
            for place in places:
                if rows[place].source != number:
                    continue
                stat = stats[number].get(rows[place].row)
                outcome = _stage(writer, place, manifest.clips[place], source, rows[place].row, stat)
                outcomes += [outcome] if outcome is not None else []
                done += 1
                if progress is not None:
                    progress(Event(stage="merge", done=done, total=len(rows)))
        writer.commit(unit, outcomes, {"device": "none", "merged": [store.path.name for store in stores]})


def _stage(
    writer: StoreWriter, place: int, clip: Clip, source: Store, row: int, stat: tuple[int, int] | None
) -> Outcome | None:
    spec: FeatureSpec = writer.spec
    ledger = ledger_values({f"ledger/{name}": getattr(source.clips, name) for name in ledger_names()}, row)
    wide = [name for name, kind in LEDGER.items() if kind.axis and kind.axis != "step"]
    ledger |= {name: getattr(source.clips, name)[row].tolist() for name in wide}
    if (damaged := source.step_damaged(row)).any():
        ledger["step_damaged"] = damaged.astype(int).tolist()
    identity = clip_identity(clip, spec.digest, str(ledger["content_hash"]))
    status = int(source.clips.status[row])
    if status == MISSING:
        return None
    if status == FAILED:
        ledger["reason"] = str(source.clips.reason[row])
        return stage_failure(writer.path, place, identity, ledger, stat)
    views = int(source.clips.num_views[row])
    stage = ClipStage(writer.path, place, spec.taps, views)
    try:
        for tap in spec.taps:
            for view in range(views):
                for block in source.blocks(tap.name, row, view):
                    stage.append(tap, block, view)
    except StoreError:
        stage.discard()
        raise
    thumbnail = source.thumbnail(row)
    return stage.finish(
        identity,
        ledger,
        source.step_seconds(row),
        source.frame_index(row),
        thumbnail if thumbnail.any() else None,
        stat,
    )
