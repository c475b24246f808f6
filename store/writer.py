"""The one writer of a store: grows it with its manifest and commits finished clips unit by unit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store import growing, layout
from reelbank.store.building import abandoned, emptied
from reelbank.store.errors import DAMAGED, StoreError
from reelbank.store.files import reading, refuse_links
from reelbank.store.layout import COLUMNS, DONE, LEDGER, MISSING, Geometry
from reelbank.store.plain import PlainArray
from reelbank.store.shards import Shard, compress, grow, open_shard, read_grid, write_shard
from reelbank.store.spec import FeatureSpec, TapSpec, refuse_mismatch
from reelbank.store.staging import Outcome, discard_staged, moments, staged_features, staged_rows, staged_thumbnail
from reelbank.store.sums import read_summed, write_summed

if TYPE_CHECKING:
    from reelbank.manifests import Clip, Manifest

DEFINITION_COLUMNS = ("start_seconds", "end_seconds")
DEFINITION_TEXTS = ("annotations", "flow_x", "flow_y", "frame_pattern", "motion_maps", "rate_fps")
"""Columns that say which frames a clip has: a change makes its features stale."""


class StoreWriter:
    """Opens or makes a store for one manifest and one spec; hold `only_writer` around it."""

    def __init__(self, path: Path, spec: FeatureSpec) -> None:
        """Opens the store at `path`. Raises SpecMismatch if it was made with another spec."""
        root = layout.read_root(path)
        refuse_mismatch(path, FeatureSpec.from_json(root["spec"]), spec)
        self.path, self.spec = path, spec
        self.geometry = Geometry.from_json(root["geometry"])
        self._root = root
        self._definitions = layout.definitions(spec, self.geometry)
        self.healed: list[str] = []
        growing.refuse_incomplete(path, root, self._definitions)
        refuse_links(path)

    @classmethod
    def open_or_create(
        cls, path: Path, spec: FeatureSpec, *, fixed_steps: int | None, num_clips: int,
        provenance: Mapping[str, Any], counts: Sequence[int] = (),
    ) -> StoreWriter:  # fmt: skip
        """Opens the store at `path`, or makes it where nothing is there yet; `counts` as `plan_geometry` has them."""
        from reelbank.store.durable import settle

        replaced = ""
        if abandoned(path) or (replaced := emptied(path, spec)):
            layout.create(path, spec, layout.plan_geometry(spec, fixed_steps, num_clips, counts), provenance)
        else:
            settle(path)
        writer = cls(path, spec)
        writer.healed += [replaced] if replaced else []
        return writer

    @property
    def num_clips(self) -> int:
        """Rows of the store."""
        return int(self._root["num_clips"])

    def sync_manifest(self, manifest: Manifest) -> NDArray[np.int64]:
        """Makes the store's rows those of `manifest`: appends new clips, updates labels, marks those gone.

        A damaged column is written anew, which `healed` then says; where it says which frames a clip has, its clips are
        stale.

        Returns:
            (len(manifest),) int64, the row of each of its clips.
        """
        known = {clip_id: row for row, clip_id in enumerate(self.clip_ids())}
        new = [clip.clip_id for clip in manifest.clips if clip.clip_id not in known]
        known.update({clip_id: self.num_clips + i for i, clip_id in enumerate(new)})
        total = self.num_clips + len(new)
        rows = np.array([known[clip.clip_id] for clip in manifest.clips], dtype=np.int64)
        columns = self._columns_of(manifest, rows, total)
        stale = np.zeros(total, dtype=bool)
        for name in (*DEFINITION_COLUMNS, *DEFINITION_TEXTS):
            if name in columns:
                stale |= columns[name][1]
        if stale.any():  # before the new definition is written: a crash in between must not bless old features
            self._forget(np.flatnonzero(stale))
        growing.make_absent(self.path, self._definitions)
        growing.grow_axes(self.path, self._definitions, {"clip": total})
        for name, (values, _) in columns.items():
            self._write_column(name, values)
        present = np.zeros(total, dtype=np.uint8)
        present[rows] = 1
        self._array("clips/in_manifest").write(0, present)
        digest = manifest.digest()
        if total != self.num_clips or digest != self._root["manifest_digest"]:
            self._root |= {
                "num_clips": total,
                "manifest_digest": digest,
                "target_names": list(manifest.target_names),
            }
            layout.write_root(self.path, self._root)
        return rows

    def ledger(self, name: str) -> NDArray[Any]:
        """One array of clips/ (num_clips,)."""
        return self._array(f"clips/{name}").read(0, self.num_clips)

    def file_stats(self) -> dict[int, tuple[int, int]]:
        """{row: (size in bytes, mtime in ns)} of the videos as they were when their clips were read."""
        stats: dict[int, tuple[int, int]] = {}
        for record in sorted((self.path / "commits").glob("[0-9]*.json")):
            content = read_summed(record)
            with reading(record):
                stats |= {int(row): (int(stat[0]), int(stat[1])) for row, stat in content["files"].items()}
        return stats

    def note_unchanged(self, stats: Mapping[int, tuple[int, int]]) -> None:
        """Remembers the new stat of files that were touched but hold the same bytes."""
        by_unit: dict[int, dict[str, list[int]]] = {}
        for row, stat in stats.items():
            by_unit.setdefault(self.geometry.unit_of(row), {})[str(row)] = list(stat)
        for unit, files in by_unit.items():
            record = self._record(unit)
            write_summed(self._record_path(unit), {**record, "files": {**record["files"], **files}})

    def recover(self, accepts: Callable[[Outcome], bool]) -> tuple[dict[int, Outcome], list[str]]:
        """Finished clips that an interrupted run left in staging/, and a sentence for each that is damaged.

        Removed are those not accepted and those of clips that have features: a commit takes back what it replaces.
        """
        status = self.ledger("status")
        kept = {}
        staged, damaged = staged_rows(self.path, self.spec.taps)
        for row, outcome in staged.items():
            if row < len(status) and status[row] != DONE and accepts(outcome):
                kept[row] = outcome
            else:
                discard_staged(self.path, row)
        return kept, damaged

    def clip_ids(self) -> list[str]:
        """Clip id of each row. Raises StoreError if one cannot be read."""
        values, lost = self._column("clip_id", np.dtypes.StringDType())
        if lost.any():
            raise StoreError(f"{self.path / 'manifest' / 'clip_id'} cannot be read: {DAMAGED}")
        return [str(value) for value in values]

    def commit(self, unit: int, outcomes: Iterable[Outcome], run: Mapping[str, Any]) -> None:
        """Writes the staged `outcomes` of `unit` into its shards; the status row is written last.

        Rows committed before keep their bytes (copied raw). A crash at any point leaves either the old
        unit or rows of status 0 whose staged files are still there.

        Args:
            unit: which unit.
            outcomes: finished clips, all of this unit.
            run: batch, device and versions, kept in the unit's commit record.
        """
        rows = self.geometry.rows_of(unit, self.num_clips)
        fresh = {outcome.row: outcome for outcome in outcomes}
        if not fresh:
            return
        if foreign := [row for row in fresh if row not in rows]:
            raise StoreError(f"rows {foreign} are not of unit {unit} ({rows})")
        status = self._array("clips/status").read(rows.start, rows.stop)
        replaced = [row - rows.start for row in fresh if status[row - rows.start] == DONE]
        if replaced:
            status[replaced] = MISSING
            self._array("clips/status").write(rows.start, status)
        keep = [i for i in range(len(rows)) if status[i] == DONE]
        done = {row: outcome for row, outcome in fresh.items() if outcome.status == DONE}
        steps = max((len(o.step_seconds) for o in done.values()), default=0)
        growing.grow_axes(self.path, self._definitions, {"step": steps})
        for tap in self.spec.taps:
            self._write_features(tap, unit, rows, keep, done)
        self._write_thumbnails(unit, rows, keep, done)
        self._write_rows(rows, fresh)
        self._write_record(unit, fresh, run)
        for row, outcome in fresh.items():
            status[row - rows.start] = outcome.status
        self._array("clips/status").write(rows.start, status)
        for row in fresh:
            discard_staged(self.path, row)

    # -- one unit ---------------------------------------------------------------------------------------

    def _write_features(
        self, tap: TapSpec, unit: int, rows: range, keep: list[int], done: Mapping[int, Outcome]
    ) -> None:
        folder = self.path / "features" / tap.name
        grid, _ = read_grid(folder)
        (_, num_views, blocks_per_shard, *_), block = grid.chunk_grid, grid.chunk[2]
        num_chunks = int(np.prod(grid.chunk_grid))
        fixed = self.geometry.fixed_steps is not None
        for shard_step in range(-(-grid.shape[2] // grid.shard[2])):
            path = grid.shard_path(folder, (unit, 0, shard_step, *(0 for _ in tap.shape)))
            old = open_shard(path, num_chunks)

            def chunk(flat: int, old: Shard | None = old, first: int = shard_step * grid.shard[2]) -> Any:
                local, rest = divmod(flat, num_views * blocks_per_shard)
                view, b = divmod(rest, blocks_per_shard)
                if local in keep:
                    return None if old is None else old.chunk(flat)
                outcome = done.get(rows.start + local)
                if outcome is None or view >= outcome.ledger["num_views"]:
                    return None
                start = first + b * block
                staged = staged_features(self.path, outcome.row, tap, view)[start : start + block]
                if len(staged) == 0 and not (fixed and start == 0):
                    return None
                data = staged.tobytes()
                data += bytes(grid.chunk_nbytes - len(data))
                return compress(data) if grid.compressed else data

            if write_shard(path, num_chunks, chunk) == 0:
                path.unlink()

    def _write_thumbnails(self, unit: int, rows: range, keep: list[int], done: Mapping[int, Outcome]) -> None:
        folder = self.path / "thumbnails" / "rgb"
        grid, _ = read_grid(folder)
        path = grid.shard_path(folder, (unit, 0, 0, 0))
        old = open_shard(path, grid.shard[0])

        def chunk(flat: int) -> bytes | memoryview | None:
            if flat in keep:
                return None if old is None else old.chunk(flat)
            raw = staged_thumbnail(self.path, rows.start + flat) if rows.start + flat in done else None
            return None if raw is None else compress(raw)

        if write_shard(path, grid.shard[0], chunk) == 0:
            path.unlink()

    def _write_rows(self, rows: range, fresh: Mapping[int, Outcome]) -> None:
        def update(name: str, values: Mapping[int, Any]) -> None:
            array = self._array(name)
            chunk = array.read(rows.start, rows.stop)
            for row, value in values.items():
                chunk[row - rows.start] = value
            array.write(rows.start, chunk)

        done = {row: o for row, o in fresh.items() if o.status == DONE}
        for name, kind in LEDGER.items():
            if name in ("status", "in_manifest", "attempts"):
                continue
            found = {row: _ledger_value(outcome, name) for row, outcome in fresh.items()}
            if kind.axis:
                width = self._array(f"clips/{name}").shape[1]
                found = {row: _padded(values, width, kind.fill) for row, values in found.items()}
            update(f"clips/{name}", found)
        attempts = self._array("clips/attempts").read(rows.start, rows.stop)
        update("clips/attempts", {row: min(255, int(attempts[row - rows.start]) + 1) for row in fresh})
        for name in growing.unknown_arrays(self.path, self._root, self._definitions):
            if name.startswith("clips/"):  # of the features before: it may not be true of these
                update(name, dict.fromkeys(fresh, self._array(name).fill))
        views = len(self.spec.views)
        for tap in self.spec.taps:
            update(
                f"checksums/{tap.name}",
                {row: _padded((o.checksums or {})[tap.name], views, 0) for row, o in done.items()},
            )
            if tap.is_vector:
                means, stds = {}, {}
                for row, outcome in done.items():
                    both = [
                        moments(staged_features(self.path, row, tap, view))
                        for view in range(outcome.ledger["num_views"])
                    ]
                    both += [(np.full(tap.shape, np.nan, np.float32),) * 2] * (views - len(both))
                    means[row], stds[row] = np.stack([m for m, _ in both]), np.stack([s for _, s in both])
                update(f"mean/{tap.name}", means)
                update(f"std/{tap.name}", stds)

    def _write_record(self, unit: int, fresh: Mapping[int, Outcome], run: Mapping[str, Any]) -> None:
        record = self._record(unit)
        files = record["files"] | {str(r): list(o.file_stat) for r, o in fresh.items() if o.file_stat}
        clips = record.get("clips", {}) | {str(r): o.identity.get("clip_id", "") for r, o in fresh.items()}
        entry = {"rows": sorted(fresh), "committed": datetime.now(UTC).isoformat(timespec="seconds"), **run}
        ours = {"unit": unit, "spec_digest": self.spec.digest, "runs": [*record["runs"], entry], "files": files}
        ours["clips"] = clips  # a second copy: with its id a row would lose everything
        write_summed(self._record_path(unit), record | ours)

    def _record_path(self, unit: int) -> Path:
        return self.path / "commits" / f"{unit:08d}.json"

    def _record(self, unit: int) -> dict[str, Any]:
        path = self._record_path(unit)
        return read_summed(path) if path.is_file() else {"runs": [], "files": {}}

    # -- rows -------------------------------------------------------------------------------------------

    def _forget(self, rows: NDArray[np.int64]) -> None:
        status = self.ledger("status")
        status[rows] = MISSING
        self._array("clips/status").write(0, status)

    def _columns_of(
        self, manifest: Manifest, rows: NDArray[np.int64], total: int
    ) -> dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]:
        """{column: (its new values (total,), which rows of the old store they change)}."""
        clips = manifest.clips
        own = {name: [getattr(c, name) for c in clips] for name in COLUMNS}
        texts = {name: own[name] for name in COLUMNS if COLUMNS[name].dtype == "str"}
        texts |= {name: [c.text.get(name, "") for c in clips] for name in manifest.text_columns}
        numbers = {name: [_or_nan(v) for v in own[name]] for name in COLUMNS if COLUMNS[name].dtype != "str"}
        numbers |= {name: [c.targets.get(name, np.nan) for c in clips] for name in manifest.target_names}
        new: dict[str, NDArray[Any]] = {name: np.array(v, dtype=np.float64) for name, v in numbers.items()}
        new |= {name: np.array(v, dtype=np.dtypes.StringDType()) for name, v in texts.items()}
        result = {}
        for name, values in new.items():
            old, unread = self._column(name, values.dtype)
            lost = np.zeros(total, dtype=bool)
            lost[: len(unread)] = unread
            if lost.any():
                self.healed.append(f"manifest/{name} is damaged in {int(lost.sum())} rows: written from the manifest")
            column = np.full(total, np.nan if values.dtype.kind == "f" else "", dtype=values.dtype)
            column[: len(old)] = old
            before = column.copy()
            column[rows] = values
            same = column == before
            if values.dtype.kind == "f":
                same |= np.isnan(column) & np.isnan(before)
            result[name] = column, (~same | lost) & (np.arange(total) < self.num_clips)
        return result

    def _write_column(self, name: str, values: NDArray[Any]) -> None:
        array = layout.column_array(name)
        folder = self.path / "manifest" / array
        numeric = values.dtype.kind == "f"
        dtype = "float64" if numeric else "string"
        if growing.is_there(folder) and read_summed(folder / "zarr.json")["data_type"] == dtype:
            # In place, chunk by chunk: a killed writer leaves old values or new ones, never no column.
            grow(folder, (len(values),))
        else:
            with suppress(FileNotFoundError):  # chunks of another dtype
                shutil.rmtree(folder / "c")
            made = layout.column_definition(self.geometry.unit_clips, numeric=numeric)
            layout.create_array(self.path, f"manifest/{array}", made, len(values))
        self._array(f"manifest/{array}").write(0, values)
        self._root["columns"] = {**self._root["columns"], name: array}

    def _column(self, name: str, dtype: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A manifest column as it is stored, fill where it cannot be read, and (n,) where that is."""
        array = self._root["columns"].get(name)
        if array is None or not growing.is_there(self.path / "manifest" / array):
            return np.zeros(0, dtype=dtype), np.zeros(0, dtype=bool)
        values, lost = self._array(f"manifest/{array}").read_sound(0, self.num_clips)
        if values.dtype.kind == "f" and np.dtype(dtype).kind != "f":
            values = np.array(["" if np.isnan(v) else str(v) for v in values], dtype=dtype)
        elif values.dtype.kind != "f" and np.dtype(dtype).kind == "f":
            values = np.full(len(values), np.nan)
        return values, lost

    def _array(self, name: str) -> PlainArray:
        return PlainArray(self.path / name, writable=True)


def clip_identity(clip: Clip, spec_digest: str, content_hash: str) -> dict[str, str]:
    """What a staged clip must match to be used: which frames of which bytes under which spec."""
    definition: dict[str, Any] = {"start": clip.start_seconds, "end": clip.end_seconds}
    definition |= {name: clip.text.get(name, "") for name in DEFINITION_TEXTS}
    return {
        "clip_id": clip.clip_id,
        "spec_digest": spec_digest,
        "content_hash": content_hash,
        "definition": layout.canonical(definition),
    }


def remove_unfinished(path: Path) -> None:
    """Removes temporary files that a killed writer left anywhere in the store."""
    for leftover in path.rglob("*.partial"):
        with suppress(OSError):
            leftover.unlink()


def _ledger_value(outcome: Outcome, name: str) -> Any:
    """What an outcome says for the array clips/`name`; its fill value where it says nothing."""
    if name in ("step_seconds", "frame_index"):
        return getattr(outcome, name)
    return outcome.ledger.get(name, () if LEDGER[name].axis else LEDGER[name].fill)


def _padded(values: Iterable[Any], width: int, fill: Any) -> NDArray[Any]:
    out = np.full(width, fill)
    data = np.array(tuple(values), dtype=out.dtype)
    out[: len(data)] = data
    return out


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)
