"""One clip's outcome on its way into a store: raw files in staging/<row>/, finished by their record.

A clip is finished when its `record.json` is in place; kill -9 before that loses this clip only. Arrays are
appended block by block, so memory does not grow with the length of a clip.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.files import appearing, read_json
from reelbank.store.layout import DONE, FAILED, THUMBNAIL_SHAPE
from reelbank.store.shards import crc32c_extend
from reelbank.store.spec import TapSpec

RECORD = "record.json"
MOMENT_BLOCK_STEPS = 1024


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run found out about one clip: the fields of its ledger row and where its features are staged.

    Attributes:
        status: DONE or FAILED.
        identity: clip id, spec digest and content hash; a staged clip of another identity is thrown away.
        ledger: values of the arrays under clips/ (units in their names).
        step_seconds, frame_index: (step,) each.
        checksums: {tap: crc32c of the valid bytes per view}.
        file_stat: (size in bytes, mtime in ns) of the video when it was read, or None.
    """

    row: int
    status: int
    identity: Mapping[str, str]
    ledger: Mapping[str, Any]
    step_seconds: tuple[float, ...] = ()
    frame_index: tuple[int, ...] = ()
    checksums: Mapping[str, tuple[int, ...]] | None = None
    file_stat: tuple[int, int] | None = None


def folder_of(store: Path, row: int) -> Path:
    """Where the clip of `row` is staged; named by the row, so a clip id can never lead out of the store."""
    return store / "staging" / f"{row:09d}"


class ClipStage:
    """Collects the features of one clip; `finish` makes them count."""

    def __init__(self, store: Path, row: int, taps: tuple[TapSpec, ...], num_views: int = 1) -> None:
        """Empties whatever an interrupted attempt left for this row."""
        self.row, self.taps, self.num_views = row, taps, num_views
        self._folder = folder_of(store, row)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._files: dict[tuple[str, int], IO[bytes]] = {}
        self._crc = {tap.name: [0] * num_views for tap in taps}
        self._steps = {tap.name: [0] * num_views for tap in taps}
        self._not_finite = dict.fromkeys((tap.name for tap in taps), 0)

    def append(self, tap: TapSpec, features: NDArray[Any], view: int = 0) -> None:
        """Adds `features` (n, *tap.shape) after the steps already there. Raises StoreError on another shape."""
        if features.shape[1:] != tap.shape or features.dtype != np.dtype(tap.dtype):
            raise StoreError(
                f"tap {tap.name!r} declares steps of {tap.shape} {tap.dtype}, the backbone gave "
                f"{features.shape = } {features.dtype}"
            )
        key = tap.name, view
        if key not in self._files:
            self._files[key] = (self._folder / f"{tap.name}-{view}.bin").open("wb")
        if features.dtype.kind == "f":
            self._not_finite[tap.name] += int(features.size - np.isfinite(features).sum())
        data = np.ascontiguousarray(features).tobytes()
        self._files[key].write(data)
        self._crc[tap.name][view] = crc32c_extend(self._crc[tap.name][view], data)
        self._steps[tap.name][view] += len(features)

    def finish(
        self,
        identity: Mapping[str, str],
        ledger: Mapping[str, Any],
        step_seconds: NDArray[np.float64],
        frame_index: NDArray[np.int64],
        thumbnail: NDArray[np.uint8] | None,
        file_stat: tuple[int, int] | None,
    ) -> Outcome:
        """Closes the files and writes the record.

        Raises:
            StoreError: a tap did not get every step, or holds NaN or Inf (float16 ends at 65,504).
        """
        self._close()
        expected = len(step_seconds)
        for name, counts in self._steps.items():
            if any(count != expected for count in counts):
                raise StoreError(f"tap {name!r} got {counts} steps per view, the clip has {expected}")
        if bad := {name: count for name, count in self._not_finite.items() if count}:
            listed = ", ".join(f"{count} values of tap {name!r}" for name, count in bad.items())
            raise StoreError(
                f"{listed} are NaN or Inf in {dtypes_of(self.taps, bad)}; try --precision fp32 or another tap"
            )
        if thumbnail is not None:
            (self._folder / "thumbnail.bin").write_bytes(thumbnail.tobytes())
        outcome = Outcome(
            row=self.row,
            status=DONE,
            identity=dict(identity),
            ledger={**ledger, "num_steps": expected, "num_views": self.num_views},
            step_seconds=tuple(float(t) for t in step_seconds),
            frame_index=tuple(int(i) for i in frame_index),
            checksums={name: tuple(crc) for name, crc in self._crc.items()},
            file_stat=file_stat,
        )
        _write_record(self._folder, outcome)
        return outcome

    def discard(self) -> None:
        """Throws the attempt away."""
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()


def dtypes_of(taps: Iterable[TapSpec], names: Iterable[str]) -> str:
    """Stored dtypes of the taps called `names`, each once."""
    wanted = set(names)
    return " and ".join(dict.fromkeys(tap.dtype for tap in taps if tap.name in wanted))


def stage_failure(
    store: Path, row: int, identity: Mapping[str, str], ledger: Mapping[str, Any],
    file_stat: tuple[int, int] | None,
) -> Outcome:  # fmt: skip
    """Records that the clip of `row` failed; `ledger` holds `reason` and what was found out before."""
    folder = folder_of(store, row)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcome = Outcome(
        row=row, status=FAILED, identity=dict(identity), ledger=dict(ledger), file_stat=file_stat
    )  # fmt: skip
    _write_record(folder, outcome)
    return outcome


def _write_record(folder: Path, outcome: Outcome) -> None:
    """The moment at which the clip counts. The folder is not made: a stray worker whose folder a new run
    has removed must fail here, not leave a record without features."""
    with appearing(folder / RECORD) as partial:
        partial.write_text(json.dumps(vars(outcome)))


def staged_rows(store: Path) -> dict[int, Outcome]:
    """Every finished outcome in staging/; unfinished attempts are removed."""
    found: dict[int, Outcome] = {}
    root = store / "staging"
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if not folder.is_dir():
            continue
        if (folder / RECORD).is_file():
            found[int(folder.name)] = load_outcome(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return found


def load_outcome(folder: Path) -> Outcome:
    """The outcome that `finish` or `stage_failure` wrote; what a later version added to it is left out."""
    known = {field.name for field in fields(Outcome)}
    data = {name: value for name, value in read_json(folder / RECORD).items() if name in known}
    checksums = data["checksums"]
    return Outcome(
        **{
            **data,
            "step_seconds": tuple(data["step_seconds"]),
            "frame_index": tuple(data["frame_index"]),
            "checksums": None if checksums is None else {k: tuple(v) for k, v in checksums.items()},
            "file_stat": None if data["file_stat"] is None else tuple(data["file_stat"]),
        }
    )


def staged_features(store: Path, row: int, tap: TapSpec, view: int) -> NDArray[Any]:
    """The staged steps (T, *tap.shape), memory-mapped."""
    path = folder_of(store, row) / f"{tap.name}-{view}.bin"
    if not path.is_file() or path.stat().st_size == 0:
        return np.zeros((0, *tap.shape), dtype=tap.dtype)
    return np.memmap(path, dtype=tap.dtype, mode="r").reshape(-1, *tap.shape)


def staged_thumbnail(store: Path, row: int) -> bytes | None:
    """Raw uint8 bytes of the thumbnail, or None."""
    path = folder_of(store, row) / "thumbnail.bin"
    data = path.read_bytes() if path.is_file() else b""
    return data if len(data) == int(np.prod(THUMBNAIL_SHAPE)) else None


def moments(features: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and population standard deviation over steps of `features` (T, D), computed in float64.

    Blocks of a fixed size make the result the same however the steps arrived.
    """
    count, dimension = len(features), features.shape[1]
    if count == 0:
        nothing = np.full(dimension, np.nan, dtype=np.float32)
        return nothing, nothing
    blocks = range(0, count, MOMENT_BLOCK_STEPS)
    total = np.zeros(dimension)
    for start in blocks:
        total += features[start : start + MOMENT_BLOCK_STEPS].astype(np.float64).sum(axis=0)
    mean = total / count
    square = np.zeros(dimension)
    for start in blocks:
        square += ((features[start : start + MOMENT_BLOCK_STEPS].astype(np.float64) - mean) ** 2).sum(axis=0)
    return mean.astype(np.float32), np.sqrt(square / count).astype(np.float32)
