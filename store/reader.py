"""Reading a store: rows by memory map or by reads of several threads, other arrays chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.overlaps import Labelled, contradictions
from reelbank.store import growing, layout
from reelbank.store.bridges.bridges import Bridges
from reelbank.store.errors import DAMAGED, StoreError
from reelbank.store.layout import COLUMNS, DONE, FAILED, LEDGER, THUMBNAIL_SHAPE, Geometry
from reelbank.store.ledger import Ledger
from reelbank.store.plain import PlainArray
from reelbank.store.sharded import ShardedArray
from reelbank.store.shards import has_checksum, read_grid
from reelbank.store.sizes import check_steps
from reelbank.store.spec import FeatureSpec, TapSpec
from reelbank.store.sums import crc32c_of


class Store(Bridges):
    """A store, read only. Row i is clip i of the store; `done_rows` says which have features."""

    def __init__(self, path: Path | str, *, check: bool = True) -> None:
        """Opens the store at `path`. Raises StoreError if it is not one.

        Args:
            path: the store's folder.
            check: compare the bytes of a clip's features with their checksum when they are first read. Without it
                what is damaged of other arrays is their fill value: for those who look for damage.
        """
        self.path, self._check = Path(path), check
        self._root = layout.read_root(self.path)
        self.num_clips = int(self._root["num_clips"])
        self.spec = FeatureSpec.from_json(self._root["spec"])
        self.spec_digest = str(self._root["spec_digest"]) or self.spec.digest
        self.provenance: dict[str, Any] = dict(self._root["provenance"])
        self.geometry = Geometry.from_json(self._root["geometry"])
        self.manifest_digest = str(self._root["manifest_digest"])
        self.target_names: tuple[str, ...] = tuple(self._root["target_names"])
        self.column_arrays = {name: f"manifest/{array}" for name, array in self._root["columns"].items()}
        self._definitions = layout.definitions(self.spec, self.geometry)
        self._arrays: dict[str, ShardedArray] = {}
        self._columns: dict[str, NDArray[Any]] = {}
        self._units: dict[str, tuple[int, NDArray[Any]]] = {}
        self._moments: dict[tuple[str, str], NDArray[np.float32]] = {}
        self._sound: dict[str, NDArray[np.bool_]] = {}

    @property
    def is_summed(self) -> bool:
        """Whether every array and document is under a checksum; those of earlier versions are not."""
        return bool(self._root["summed"])

    @property
    def num_units(self) -> int:
        """Units of the store."""
        return -(-self.num_clips // self.geometry.unit_clips)

    @property
    def taps(self) -> dict[str, TapSpec]:
        """{name: TapSpec} in the order they are stored."""
        return {tap.name: tap for tap in self.spec.taps}

    @property
    def default_tap(self) -> str:
        """The first tap of the spec."""
        return self.spec.taps[0].name

    @property
    def weights_are_random(self) -> bool:
        """Whether the backbone was never trained: no result on such a store says anything about the backbone."""
        return self.spec.weights_are_random

    @property
    def weights_asked(self) -> Path | None:
        """The weights file or the run that was named when the store was made; None where that is not known."""
        weights = self.provenance.get("weights")
        if not isinstance(weights, dict) or weights.get("kind") not in ("file", "run"):
            return None
        asked = str(weights.get("asked") or "")
        # Not that of Path, which raises where nobody has the name.
        return Path(os.path.expanduser(asked)) if asked and "\0" not in asked else None  # noqa: PTH111

    @property
    def column_names(self) -> tuple[str, ...]:
        """Columns of the manifest: those of every store, its targets, and what else it holds."""
        return tuple(sorted({*COLUMNS, *self.target_names, *self.column_arrays}))

    def column(self, name: str) -> NDArray[Any]:
        """One manifest column (num_clips,): float64 for targets and times, else an object array of str.

        A column of a later version has the dtype and axes that it is stored with.
        """
        if name not in self.column_names:
            raise StoreError(f"{self.path} has no manifest column {name!r}; it has {', '.join(self.column_names)}")
        if name not in self._columns:
            kind, array = COLUMNS.get(name), self.column_arrays.get(name)
            if array is not None and growing.is_there(self.path / array):
                values = self._stored(array, 0, self.num_clips, whole=True)
            elif self.num_clips and ((kind is not None and kind.essential) or (array is not None and self.is_summed)):
                raise layout.not_there(self.path / (array or f"manifest/{name}"))
            else:
                fill = kind.fill if kind is not None else np.nan if name in self.target_names else ""
                values = np.full(self.num_clips, fill, dtype=object if fill == "" else np.float64)
            self._columns[name] = values.astype(object) if values.dtype.kind in "TU" else values
        return self._columns[name].copy()

    def contradictions(self, rows: NDArray[np.int64], labels: Sequence[str]) -> str:
        """Which of the clips `rows` overlap one of another of `labels`, in a sentence; see `manifests.overlaps`."""
        names = ("clip_id", "video", "start_seconds", "end_seconds")
        cells = zip(*(self.column(name)[rows].tolist() for name in names), labels, strict=True)
        return contradictions(
            Labelled(clip_id=clip_id, video=video, start_seconds=start, end_seconds=end, label=label)
            for clip_id, video, start, end, label in cells
        )

    @property
    def absent(self) -> dict[str, str]:
        """{array: its fill value} of what this version would have stored and reads as fill, see `layout`."""
        missing = growing.absent_arrays(self.path, self._definitions)
        found = {name: definition.fill for name, definition in missing.items() if not definition.essential}
        if self.num_clips:
            unlisted = [name for name, kind in COLUMNS.items() if name not in self.column_arrays and not kind.essential]
            found |= {f"manifest/{name}": COLUMNS[name].fill for name in unlisted}
        return {name: "NaN" if fill != fill else repr(fill) for name, fill in found.items()}

    @property
    def essential(self) -> tuple[str, ...]:
        """Arrays that must be there."""
        return growing.essential_arrays(self._root, self._definitions)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Arrays over clips that this version does not know; it reads past them and keeps them."""
        return growing.unknown_arrays(self.path, self._root, self._definitions)

    @property
    def unknown_attributes(self) -> tuple[str, ...]:
        """Root attributes that this version does not know."""
        return growing.unknown_attributes(self._root)

    @cached_property
    def clips(self) -> Ledger:
        """The ledger: what happened to each clip."""
        arrays = {name: self._plain(f"clips/{name}") for name, kind in LEDGER.items() if kind.axis != "step"}
        # The array of features after the ledger: both may grow while they are read.
        if self._check and growing.is_there(self.path / "features" / self.default_tap):
            shape = read_grid(self.path / "features" / self.default_tap)[0].shape
            check_steps(self.path, self.default_tap, shape, arrays["num_steps"], arrays["num_views"])
        return Ledger(
            arrays={name: a.astype(object) if LEDGER[name].dtype == "str" else a for name, a in arrays.items()}
        )

    def done_rows(self) -> NDArray[np.int64]:
        """Rows that have features and whose clip is still in the manifest, ascending."""
        return np.flatnonzero((self.clips.status == DONE) & (self.clips.in_manifest == 1))

    @property
    def num_steps(self) -> NDArray[np.int64]:
        """(num_clips,) valid steps of each clip, 0 where there are none."""
        return self.clips.num_steps

    def step_seconds(self, row: int) -> NDArray[np.float64]:
        """(step,) time of each step of one clip, in seconds from where the spec's `time_origin` says."""
        return self._of_clip("step_seconds", row).astype(np.float64)

    def frame_index(self, row: int) -> NDArray[np.int64]:
        """(step,) which frame of the video each step shows, in emission order."""
        return self._of_clip("frame_index", row).astype(np.int64)

    def step_damaged(self, row: int) -> NDArray[np.bool_]:
        """(step,) whether each step reads a frame that the decoder reported as damaged."""
        return self._of_clip("step_damaged", row).astype(np.bool_)

    def read(self, tap: str, row: int) -> NDArray[Any]:
        """Features of one clip (view, step, *axes), valid steps only; do not write to the result.

        Raises:
            StoreError: if the tap is unknown, the clip has no features (its status and reason are given), or they are
                damaged.
        """
        array, ledger = self._sharded(tap), self.clips.arrays
        self._require_done(row)
        steps, views = ledger["num_steps"].item(row), ledger["num_views"].item(row)
        features = array.read(row, views, steps)
        if self._check:
            checked = self._checked(tap)
            for view in range(views):
                if not checked.item(row, view):
                    self._compare(tap, row, view, crc32c_of(features[view]))
        return features

    def blocks(self, tap: str, row: int, view: int = 0) -> Iterator[NDArray[Any]]:
        """One view of one clip, some steps (n, *axes) at a time and read, not mapped: for passes over whole stores.

        Raises:
            StoreError: as `read`, or the clip has no such view.
        """
        array = self._sharded(tap)
        self._require_done(row)
        if not 0 <= view < int(self.clips.num_views[row]):
            name = str(self.column("clip_id")[row])
            raise StoreError(
                f"clip {name!r} of {self.path} has {int(self.clips.num_views[row])} views, not view {view}"
            )
        return self._summed_blocks(array.blocks(row, view, int(self.num_steps[row])), tap, row, view)

    def gather(
        self, tap: str, rows: NDArray[np.int64] | list[int], view: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Features of several clips, zero-padded to the longest of them.

        Returns:
            features (B, T, *axes) and mask (B, T), True where a step is valid.
        """
        array = self._sharded(tap)
        rows = np.asarray(rows, dtype=np.int64)
        self._require_view(view)
        self._require_all_done(rows)
        steps = self.num_steps[rows]
        longest = int(steps.max(initial=0))
        features = np.empty((len(rows), longest, *array.grid.shape[3:]), dtype=array.dtype)
        array.read_many(features, rows.tolist(), view, steps.tolist())
        if self._check:
            fresh = ~self._checked(tap)[rows, view] & (view < self.clips.num_views[rows])
            for i in np.flatnonzero(fresh).tolist():
                self._compare(tap, int(rows[i]), view, crc32c_of(features[i, : steps[i]]))
        return features, np.arange(longest) < steps[:, None]

    def mean(self, tap: str, view: int = 0) -> NDArray[np.float32]:
        """(num_clips, D) mean over the valid steps of a vector tap; NaN where a clip has no features."""
        return self._moment("mean", tap, view)

    def means(self, tap: str, start: int, stop: int, view: int = 0) -> NDArray[np.float32]:
        """Rows `start` to `stop` of `mean`, read and not kept: for passes over whole stores."""
        self._require_vector("mean", tap)
        self._require_view(view)
        return self._values(f"mean/{tap}", start, stop)[:, view]

    def std(self, tap: str, view: int = 0) -> NDArray[np.float32]:
        """(num_clips, D) population standard deviation over the valid steps of a vector tap."""
        return self._moment("std", tap, view)

    def checksums(self, tap: str) -> NDArray[np.uint32]:
        """(num_clips, view) crc32c of the valid bytes."""
        name = f"checksums/{self.spec.tap(tap).name}"
        if name not in self._columns:
            self._columns[name] = self._plain(name)
        return self._columns[name]

    def thumbnail(self, row: int) -> NDArray[np.uint8]:
        """(72, 96, 3) uint8 RGB, the clip's middle frame; black where there is none."""
        array = self._thumbnails
        return np.zeros(THUMBNAIL_SHAPE, dtype=np.uint8) if array is None else array.row(row)

    def has_unsummed_thumbnail(self, row: int) -> bool:
        """Whether a clip has a thumbnail whose frame carries no checksum, as earlier versions wrote them."""
        frame = None if self._thumbnails is None else self._thumbnails.encoded(row)
        return frame is not None and not has_checksum(frame)

    def has_clean_padding(self, tap: str, row: int) -> bool:
        """Whether zeros follow the last step of every view, as the format says; this reader never looks at them."""
        return self._sharded(tap).is_zero_after(row, int(self.num_steps[row]))

    # -- inside -----------------------------------------------------------------------------------------

    def _moment(self, kind: str, tap: str, view: int) -> NDArray[np.float32]:
        self._require_vector(kind, tap)
        self._require_view(view)
        if (kind, tap) not in self._moments:
            self._moments[kind, tap] = self._plain(f"{kind}/{tap}")
        return self._moments[kind, tap][:, view]

    def _require_vector(self, kind: str, tap: str) -> None:
        if not self.spec.tap(tap).is_vector:
            vectors = sorted(t.name for t in self.spec.taps if t.is_vector)
            raise StoreError(f"tap {tap!r} is no vector, so it has no {kind}; vector taps: {', '.join(vectors)}")

    def _checked(self, tap: str) -> NDArray[np.bool_]:
        """(num_clips, view) whether features were compared with their checksum."""
        if tap not in self._sound:
            self._sound[tap] = np.zeros((self.num_clips, len(self.spec.views)), dtype=bool)
        return self._sound[tap]

    def _summed_blocks(self, blocks: Iterator[NDArray[Any]], tap: str, row: int, view: int) -> Iterator[NDArray[Any]]:
        unchecked, total = self._check and not self._checked(tap)[row, view], 0
        for block in blocks:
            total = crc32c_of(block, total) if unchecked else 0
            yield block
        if unchecked:
            self._compare(tap, row, view, total)

    def _compare(self, tap: str, row: int, view: int, found: int) -> None:
        """Compares the sum of features that are read for the first time with the stored one."""
        if found != int(self.checksums(tap)[row, view]):
            name = str(self.column("clip_id")[row])
            raise StoreError(
                f"clip {name!r} of {self.path}: the bytes of tap {tap!r}, view {view}, do not match their crc32c: "
                f"{DAMAGED}"
            )
        self._checked(tap)[row, view] = True

    def _of_clip(self, name: str, row: int) -> NDArray[Any]:
        """(step,) of one clip. A chunk holds a unit and is read as a whole, so the last one is kept."""
        steps = self.num_steps[row]  # IndexError for a row that is not there
        row %= self.num_clips
        unit = self.geometry.unit_of(row)
        if (kept := self._units.get(name)) is None or kept[0] != unit:
            rows = self.geometry.rows_of(unit, self.num_clips)
            kept = unit, self._values(f"clips/{name}", rows.start, rows.stop)
            self._units[name] = kept
        values: NDArray[Any] = kept[1][row % self.geometry.unit_clips, :steps]
        short = int(steps) - len(values)
        return np.concatenate([values, np.full(short, LEDGER[name].fill, values.dtype)]) if short > 0 else values

    @property
    def _thumbnails(self) -> ShardedArray | None:
        folder = self.path / "thumbnails" / "rgb"
        if "thumbnails" not in self._arrays and growing.is_there(folder):
            self._arrays["thumbnails"] = ShardedArray(folder)
        return self._arrays.get("thumbnails")

    def _sharded(self, tap: str) -> ShardedArray:
        declared = self.spec.tap(tap)
        if tap not in self._arrays:
            ledger = self.clips  # before the array: both may grow while they are read
            array = ShardedArray(self.path / "features" / tap)
            if not array.grid.shape[3:] == array.grid.shard[3:] == array.grid.chunk[3:] == declared.shape:
                raise StoreError(
                    f"{array.folder}: {array.grid.shape = }, expected {declared.shape} at its end: {DAMAGED}"
                )
            check_steps(self.path, tap, array.grid.shape, ledger.num_steps, ledger.num_views)
            self._arrays[tap] = array
        return self._arrays[tap]

    def _require_done(self, row: int) -> None:
        if not 0 <= row < self.num_clips:
            raise StoreError(f"row {row} of {self.path}: it has rows 0 to {self.num_clips - 1}")
        if self.clips.arrays["status"].item(row) != DONE:
            name = str(self.column("clip_id")[row])
            unsaid = "it failed, and why is not stored" if self.clips.status[row] == FAILED else "not extracted yet"
            reason = str(self.clips.reason[row]) or unsaid
            raise StoreError(f"clip {name!r} has no features in {self.path}: {reason}")

    def _require_all_done(self, rows: NDArray[np.int64]) -> None:
        inside = (rows >= 0) & (rows < self.num_clips)
        done = inside.copy()
        done[inside] = self.clips.status[rows[inside]] == DONE
        if not done.all():
            self._require_done(int(rows[~done][0]))

    def _require_view(self, view: int) -> None:
        if not 0 <= view < len(self.spec.views):
            raise StoreError(f"view {view} of {self.path}: it has views 0 to {len(self.spec.views) - 1}")

    def _plain(self, name: str) -> NDArray[Any]:
        return self._values(name, 0, self.num_clips)

    def _values(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array of this version; fill where it is absent. Raises StoreError if it is essential."""
        definition = self._definitions[name]
        if growing.is_there(self.path / name):
            return self._stored(name, start, stop, whole=name in WHOLE)
        if definition.essential:
            raise layout.not_there(self.path / name)
        dtype = object if definition.dtype == "str" else definition.dtype
        return np.full((stop - start, *definition.tail), definition.fill, dtype=dtype)

    def _stored(self, name: str, start: int, stop: int, *, whole: bool = False) -> NDArray[Any]:
        """Rows of an array that is there; fill past its end. `whole`: a chunk that is not there has been lost."""
        array = PlainArray(self.path / name)
        if name in self._definitions:
            array.require_defined(self._definitions[name])
        if whole and self._root["summed"] and self._check:
            array.require_stored(start, stop)
        values = array.read(start, stop) if self._check else array.read_sound(start, stop)[0]
        if (short := stop - start - len(values)) <= 0:
            return values
        return np.concatenate([values, np.full((short, *values.shape[1:]), array.fill, dtype=values.dtype)])


WHOLE = ("clips/in_manifest",)
"""Arrays of which every unit is written, as of the columns of the manifest; of others a unit is when it has clips."""
