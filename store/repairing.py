"""Mending a damaged store: what follows from something else is made again, the rest is marked to be extracted again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.events import Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store import layout
from reelbank.store.errors import StoreError
from reelbank.store.files import only_writer
from reelbank.store.layout import DONE, LEDGER, MISSING, ROOT_COPY, Definition
from reelbank.store.plain import PlainArray
from reelbank.store.reader import Store
from reelbank.store.shards import open_shard, read_grid
from reelbank.store.staging import moments
from reelbank.store.sums import read_summed, write_summed
from reelbank.store.verification import Problem, Verification, is_root_damaged, known_arrays, verify

MOST_ROUNDS = 4
REASON = "what was stored of it was damaged"
"""Of a clip without features that had some: `store retry` takes it, too."""
NOT_WORTH_A_CLIP = ("attempts", "decode_seconds")
"""Ledger arrays whose loss costs no clip: `not known` says all there is to say."""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done for a damaged store.

    Attributes:
        found: what was wrong.
        mended: a sentence each.
        again: clips that are marked to be extracted again.
        left: what is still wrong.
    """

    found: Verification
    mended: tuple[str, ...]
    again: tuple[str, ...]
    left: Verification

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong any more."""
        return self.left.is_sound

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return {**vars(self), "found": self.found.to_json(), "left": self.left.to_json()}

    def text(self) -> str:
        """The facts, a line each."""
        lines = [f"was: {problem}" for problem in self.found.problems] + [f"mended: {one}" for one in self.mended]
        if self.again:
            some = ", ".join(map(repr, self.again[:20])) + (" ..." if len(self.again) > 20 else "")
            what = "1 clip is" if len(self.again) == 1 else f"{len(self.again)} clips are"
            lines.append(f"{what} missing now, run featurize or `reelbank store retry`: {some}")
        columns = sorted({p.tap for p in self.left.problems if _is_of_the_manifest(p.tap)})
        if columns:
            lines.append(f"run featurize with the store's manifest again, it writes these anew: {', '.join(columns)}")
        return "\n".join([*lines, self.left.facts()])


@with_bar("verify")
def repair(path: Path | str, progress: Progress | None = None) -> Repair:
    """Mends what `verify` finds wrong; a clip whose features, ledger or thumbnail are damaged gets status 0.

    No value is guessed: columns of the manifest stay as they are until `featurize` writes them from the manifest.

    Args:
        path: the store.
        progress: called with the events of `verify`, which runs before and after.

    Raises:
        StoreError: `path` is no store, its root and the copy of it are both damaged, or another process writes it.
    """
    path = Path(path)
    if not path.exists():
        layout.read_root(path)
    with only_writer(path):
        first = left = verify(path, progress)
        mended, lost = [], set[int]()
        if is_root_damaged(path):
            layout.write_root(path, read_summed(path / ROOT_COPY))
            mended.append("zarr.json is written from its copy")
            left = verify(path, progress)
            first = replace(left, problems=(*first.problems, *left.problems))
        for _ in range(MOST_ROUNDS):
            work = _Work(path, left)
            work.run()
            mended += work.mended
            lost |= work.lost
            if not work.mended and not work.lost:
                break
            left = verify(path, progress)  # what was hidden by what is mended is found now
        names = Store(path, check=False).column("clip_id")
    again = tuple(str(names[row]) for row in sorted(lost))
    return Repair(found=first, mended=tuple(mended), again=again, left=left)


def _is_of_the_manifest(name: str) -> bool:
    return name == "clips/in_manifest" or (name.startswith("manifest/") and not name.endswith(".json"))


class _Work:
    """One repair; each step leaves a store in which nothing that is damaged counts."""

    def __init__(self, path: Path, found: Verification) -> None:
        self.path, self.problems = path, found.problems
        self.store = Store(path, check=False)
        self.geometry, self.num_clips = self.store.geometry, self.store.num_clips
        self.mended: list[str] = []
        self.lost: set[int] = set()

    def run(self) -> None:
        """Documents in a first round: without them nothing else can be read."""
        for problem in self.problems:
            if problem.tap.endswith("zarr.json"):
                self._document(problem.tap.removesuffix("zarr.json").rstrip("/"))
            elif problem.tap == ROOT_COPY:
                layout.write_root(self.path, layout.read_root(self.path))
                self.mended.append(f"{ROOT_COPY} is written from zarr.json")
        if any(problem.tap.endswith("zarr.json") for problem in self.problems):
            return
        ids = self._clip_ids()
        chunks = [p for p in self.problems if p.unit is not None and not p.tap.startswith(("commits/", "manifest/"))]
        for problem in chunks:
            kind, _, name = problem.tap.partition("/")
            if kind == "checksums" or (kind == "clips" and name in LEDGER and name not in NOT_WORTH_A_CLIP):
                self.lost |= set(self._rows(problem)) if problem.tap != "clips/in_manifest" else set()
        self.lost |= {problem.row for problem in self.problems if problem.row is not None}
        lost_moments = [p for p in chunks if p.tap.partition("/")[0] in ("mean", "std")]
        self._forget([p for p in chunks if p.tap == "clips/status"])
        for first, values in ids.items():
            self._array("manifest/clip_id").write(first, values)
        for problem in chunks:
            if problem not in lost_moments and problem.tap not in ("clips/status", "clips/in_manifest"):
                self._fill(problem)
        for problem in lost_moments:
            self._moments(problem)
        self._shards()
        for problem in self.problems:
            if problem.tap.startswith("commits/") and problem.unit is not None:
                self._record(problem.unit)
        if self.lost:
            reasons = self._array("clips/reason").read(0, self.num_clips)
            reasons[sorted(self.lost)] = REASON
            self._array("clips/reason").write(0, reasons)

    def _rows(self, problem: Problem) -> range:
        assert problem.unit is not None
        return self.geometry.rows_of(problem.unit, self.num_clips)

    def _array(self, name: str) -> PlainArray:
        return PlainArray(self.path / name, writable=True)

    def _document(self, name: str) -> None:
        """Writes the zarr.json of a folder or an array of this version as its definition says."""
        folders = layout.folder_documents()
        if name in folders:
            write_summed(self.path / name / "zarr.json", folders[name])
        elif name in (known := known_arrays(self.store)):
            text = layout.column_definition(self.geometry.unit_clips, numeric=False)
            self._array_document(name, known[name] or text)  # as this version writes a column that is no target
        else:
            return
        self.mended.append(f"{name}/zarr.json is made again")

    def _array_document(self, name: str, definition: Definition) -> None:
        document = layout.array_document(definition, self.num_clips)
        if "step" in definition.dimensions:
            place = definition.dimensions.index("step")
            document["shape"][place] = max(document["shape"][place], self._num_steps(name))
        plain = [codec for codec in document["codecs"] if codec["name"] != "crc32c"]
        for codecs in (document["codecs"], plain):  # an array of an earlier version has no crc32c
            write_summed(self.path / name / "zarr.json", {**document, "codecs": codecs})
            if definition.shards is not None or not any(PlainArray(self.path / name).damaged_units(self.num_clips)):
                return
        write_summed(self.path / name / "zarr.json", document)

    def _num_steps(self, without: str) -> int:
        """The longest step axis of the other arrays."""
        found = [0]
        for name, definition in layout.definitions(self.store.spec, self.geometry).items():
            if "step" in definition.dimensions and name != without:
                try:
                    found.append(
                        read_summed(self.path / name / "zarr.json")["shape"][definition.dimensions.index("step")]
                    )
                except StoreError:
                    continue
        return max(found)

    def _clip_ids(self) -> dict[int, NDArray[Any]]:
        """{first row: clip ids} of damaged chunks, as the commit records name them; a row of none is lost."""
        found: dict[int, NDArray[Any]] = {}
        for problem in self.problems:
            if problem.tap != "manifest/clip_id" or problem.unit is None:
                continue
            rows = self._rows(problem)
            names: dict[str, str] = {}
            record = self.path / "commits" / f"{problem.unit:08d}.json"
            with suppress(StoreError):
                names = dict(read_summed(record).get("clips", {}))
            values = np.array([names.get(str(row), "") for row in rows], dtype=np.dtypes.StringDType())
            found[rows.start] = values
            gone = [row for row, value in zip(rows, values, strict=True) if not value]
            self.lost |= set(gone)
            self.mended.append(
                f"manifest/clip_id: {len(rows) - len(gone)} ids of rows {rows.start} to {rows.stop - 1} are written "
                f"from {record.name}" + (f"; {len(gone)} are lost, their clips get new rows" if gone else "")
            )
        return found

    def _forget(self, damaged: list[Problem]) -> None:
        """Status 0 for lost rows, before anything else of them is touched."""
        for problem in damaged:
            rows = self._rows(problem)
            self._array("clips/status").write(rows.start, np.full(len(rows), MISSING, np.uint8))
            self.mended.append(f"clips/status: rows {rows.start} to {rows.stop - 1} are missing again")
        if self.lost:
            status = self._array("clips/status").read(0, self.num_clips)
            status[sorted(self.lost)] = MISSING
            self._array("clips/status").write(0, status)

    def _fill(self, problem: Problem) -> None:
        array, rows = self._array(problem.tap), self._rows(problem)
        kind, _, name = problem.tap.partition("/")
        if kind not in ("checksums", "clips") or (kind == "clips" and name not in LEDGER):
            return
        dtype = np.dtypes.StringDType() if array.dtype.kind in "TUO" else array.dtype
        array.write(rows.start, np.full((len(rows), *array.shape[1:]), array.fill, dtype=dtype))
        self.mended.append(f"{problem.tap}: rows {rows.start} to {rows.stop - 1} are 'not known'")

    def _moments(self, problem: Problem) -> None:
        """Mean or std of a unit, from its features."""
        kind, _, tap = problem.tap.partition("/")
        array, rows, store = self._array(problem.tap), self._rows(problem), Store(self.path)
        values: NDArray[Any] = np.full((len(rows), *array.shape[1:]), np.nan, array.dtype)
        for row in rows:
            if store.clips.status[row] == DONE:
                for view, features in enumerate(store.read(tap, row)):
                    values[row - rows.start, view] = moments(features)[kind == "std"]
        array.write(rows.start, values)
        self.mended.append(f"{problem.tap}: rows {rows.start} to {rows.stop - 1} are computed again")

    def _shards(self) -> None:
        """Removes shards whose index is damaged: none of their clips counts any more."""
        arrays = [f"features/{tap.name}" for tap in self.store.spec.taps] + ["thumbnails/rgb"]
        for name in arrays:
            folder = self.path / name
            grid, _ = read_grid(folder)
            for file in sorted(path for path in folder.joinpath("c").rglob("*") if path.is_file()):
                try:
                    open_shard(file, int(np.prod(grid.chunk_grid)))
                except StoreError:
                    unit = int(file.relative_to(folder / "c").parts[0])
                    rows = self.geometry.rows_of(unit, self.num_clips)
                    if not (self._array("clips/status").read(rows.start, rows.stop) == DONE).any():
                        file.unlink()
                        self.mended.append(f"{file.relative_to(self.path)}, whose index is damaged, is removed")

    def _record(self, unit: int) -> None:
        """A commit record: how the unit was made is lost, and files are compared by their sha256 from now on."""
        rows = self.geometry.rows_of(unit, self.num_clips)
        names = Store(self.path, check=False).column("clip_id")
        entry = {"rows": [], "repaired": datetime.now(UTC).isoformat(timespec="seconds")}
        write_summed(
            self.path / "commits" / f"{unit:08d}.json",
            {
                "unit": unit, "spec_digest": self.store.spec_digest, "runs": [entry], "files": {},
                "clips": {str(row): str(names[row]) for row in rows},
            },
        )  # fmt: skip
        self.mended.append(f"commits/{unit:08d}.json is made again; batch, device and versions of the unit are lost")
