"""One clip's outcome on its way into a store: raw files in staging/<row>/, finished by their record.

A clip is finished when its `record.json` is in place; kill -9 before that loses this clip only. Arrays are
appended block by block, so memory does not grow with the length of a clip.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.errors import StoreError
from reelbank.store.files import appearing, write_whole, writing
from reelbank.store.layout import DONE, FAILED, THUMBNAIL_SHAPE
from reelbank.store.spec import TapSpec
from reelbank.store.sums import crc32c, crc32c_extend, crc32c_of, read_summed, with_sum

RECORD = "record.json"
ROW_FOLDER = re.compile(r"\d{9,}")
ZARR_FILES = ("zarr.json", "c")
"""Of the empty array that makes the folder known to Zarr."""
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
        thumbnail: crc32c of its bytes, None where there is none.
    """

    row: int
    status: int
    identity: Mapping[str, str]
    ledger: Mapping[str, Any]
    step_seconds: tuple[float, ...] = ()
    frame_index: tuple[int, ...] = ()
    checksums: Mapping[str, tuple[int, ...]] | None = None
    file_stat: tuple[int, int] | None = None
    thumbnail: int | None = None


def folder_of(store: Path, row: int) -> Path:
    """Where the clip of `row` is staged; named by the row, so a clip id can never lead out of the store."""
    return store / "staging" / f"{row:09d}"


class ClipStage:
    """Collects the features of one clip; `finish` makes them count."""

    def __init__(self, store: Path, row: int, taps: tuple[TapSpec, ...], num_views: int = 1) -> None:
        """Empties whatever an interrupted attempt left for this row."""
        self.row, self.taps, self.num_views = row, taps, num_views
        self._folder = _empty_folder(store, row)
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
            with writing(self._folder):
                self._files[key] = (self._folder / f"{tap.name}-{view}.bin").open("wb")
        if features.dtype.kind == "f":
            self._not_finite[tap.name] += int(features.size - np.isfinite(features).sum())
        data = np.ascontiguousarray(features).tobytes()
        with writing(self._folder):  # not to be taken for an error of reading the clip
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
            write_whole(self._folder / "thumbnail.bin", thumbnail.tobytes(), durable=False)
        outcome = Outcome(
            row=self.row,
            status=DONE,
            identity=dict(identity),
            ledger={**ledger, "num_steps": expected, "num_views": self.num_views},
            step_seconds=tuple(float(t) for t in step_seconds),
            frame_index=tuple(int(i) for i in frame_index),
            checksums={name: tuple(crc) for name, crc in self._crc.items()},
            file_stat=file_stat,
            thumbnail=None if thumbnail is None else crc32c(thumbnail.tobytes()),
        )
        _write_record(self._folder, outcome)
        return outcome

    def discard(self) -> None:
        """Throws the attempt away."""
        self._close()
        _remove(self._folder)

    def _close(self) -> None:
        with writing(self._folder):
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
    folder = _empty_folder(store, row)
    # What a library says of a damaged file may hold what is no text in UTF-8, and a store keeps nothing else.
    reason = str(ledger["reason"]).encode("utf-8", "backslashreplace").decode()
    outcome = Outcome(
        row=row, status=FAILED, identity=dict(identity), ledger={**ledger, "reason": reason}, file_stat=file_stat
    )  # fmt: skip
    _write_record(folder, outcome)
    return outcome


def _write_record(folder: Path, outcome: Outcome) -> None:
    """The moment at which the clip counts. The folder is not made: a stray worker whose folder a new run
    has removed must fail here, not leave a record without features."""
    with appearing(folder / RECORD, durable=False, tidy=False) as partial:
        partial.write_text(json.dumps(with_sum(vars(outcome))))


def discard_staged(store: Path, row: int) -> None:
    """Removes what is staged of `row`: the record first, so that no half of a clip can be taken for a whole one."""
    _remove(folder_of(store, row))


def _empty_folder(store: Path, row: int) -> Path:
    folder = folder_of(store, row)
    with writing(folder):
        _remove(folder)
        folder.mkdir(parents=True)
    return folder


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with suppress(OSError):  # a record that is no file
        (path / RECORD).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def num_staged(store: Path) -> int:
    """How many finished outcomes lie in staging/; whether they are whole is asked when a run takes them."""
    return sum(1 for _ in (store / "staging").glob(f"*/{RECORD}"))


def staged_rows(store: Path, taps: Sequence[TapSpec]) -> tuple[dict[int, Outcome], list[str]]:
    """Every finished outcome in staging/ whose files are what its record says; everything else is removed.

    What is staged is not flushed to the disk, so a power cut may leave any of it out, empty, short or zero.

    Returns:
        {row: outcome}, and a sentence for each clip that was finished and is damaged.
    """
    found: dict[int, Outcome] = {}
    damaged: list[str] = []
    root = store / "staging"
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.name in ZARR_FILES:
            continue
        problem = ""
        if not (path.is_dir() and not path.is_symlink() and ROW_FOLDER.fullmatch(path.name)):
            problem = "is no folder of a clip"
        elif not (path / RECORD).exists():  # an attempt that a kill has ended
            _remove(path)
            continue
        else:
            try:
                found[int(path.name)] = _checked(store, path, taps)
            except StoreError as error:
                problem = str(error)
        if problem:
            _remove(path)
            damaged.append(f"staging/{path.name} {problem}: it is removed and its clip is extracted again")
    return found, damaged


def _checked(store: Path, folder: Path, taps: Sequence[TapSpec]) -> Outcome:
    """The outcome staged in `folder`. Raises StoreError saying what of it is not as its record says."""
    try:
        outcome = load_outcome(folder)
        if folder != folder_of(store, outcome.row) or outcome.status not in (DONE, FAILED):
            raise StoreError("has a record of another clip")
        if outcome.status == FAILED:
            str(outcome.ledger["reason"]), str(outcome.identity["clip_id"])
            return outcome
        assert outcome.checksums is not None
        steps, views = int(outcome.ledger["num_steps"]), int(outcome.ledger["num_views"])
        if {len(outcome.step_seconds), len(outcome.frame_index)} != {steps}:
            raise StoreError("has a record whose steps do not agree")
        for tap in taps:
            size = steps * tap.step_bytes
            if len(outcome.checksums[tap.name]) != views:
                raise StoreError("has a record whose views do not agree")
            for view, checksum in enumerate(outcome.checksums[tap.name]):
                data = staged_features(store, outcome.row, tap, view)
                if data.nbytes != size or crc32c_of(data) != checksum:
                    raise StoreError(f"has features of tap {tap.name!r} that are not those of its record")
        thumbnail = staged_thumbnail(store, outcome.row)
        if outcome.thumbnail is not None and (thumbnail is None or crc32c(thumbnail) != outcome.thumbnail):
            raise StoreError("has a thumbnail that is not that of its record")
    except (AssertionError, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"cannot be read ({type(error).__name__})") from error
    return outcome


def load_outcome(folder: Path) -> Outcome:
    """The outcome that `finish` or `stage_failure` wrote; what a later version added to it is left out."""
    known = {field.name for field in fields(Outcome)}
    data = {name: value for name, value in read_summed(folder / RECORD).items() if name in known}
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
