"""Annotated poses of a clip: Penn Action, BRACE, and plain JSON and CSV, as the 25 slots of every frame.

`reelbank.extract.inputs.keypoints` has the slots and layouts, `reelbank.extract.inputs.annotation_formats` the
formats. Whatever the format:

- coordinates are px of the annotated picture, x to the right, y down, as the file has them;
- a point is present if both coordinates are finite numbers and its score or visibility, where there is one, is
  above 0. Absent points are (0, 0, 0), and so are the slots that a layout never fills;
- frames are numbered; numbers that are left out are frames without a point. The first one is at 0 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reelbank.extract.errors import DecodeError
from reelbank.extract.inputs.annotation_formats import MAX_FILE_BYTES, READERS, Poses, read_csv
from reelbank.extract.inputs.keypoints import NUM_SLOTS
from reelbank.manifests.files import kind_of

_BOX_ROWS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotated:
    """The poses of one clip, one row per frame.

    Attributes:
        points: float32 (N, 25, 3): x and y in px, presence 0 or 1.
        boxes: float32 (N, 4): x0, y0, x1, y1 in px as annotated; a row of NaN where none is given.
        width_px: of the annotated pictures; 0 if the file does not say.
        height_px: the same.
        rate_fps: frames per second.
        times_seconds: float64 (N,): of each frame, from 0.
        layout: `coco17`, `penn13`, `slots25`, or `named` for a table whose columns name the points.
    """

    points: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    width_px: int
    height_px: int
    rate_fps: Fraction
    times_seconds: npt.NDArray[np.float64]
    layout: str

    def payloads(self) -> npt.NDArray[np.float32]:
        """What backbones of the source `annotations` read: float32 (N, 27, 3).

        The 25 slots of `points`, then (x0, y0, 0) and (x1, y1, 0) of the box, NaN where there is none.
        """
        rows = np.zeros((len(self.points), NUM_SLOTS + _BOX_ROWS, 3), np.float32)
        rows[:, :NUM_SLOTS] = self.points
        rows[:, NUM_SLOTS:, :2] = self.boxes.reshape(-1, _BOX_ROWS, 2)
        return rows


def read(
    path: Path,
    *,
    clip_id: str,
    rate_fps: float | Fraction | None = None,
    columns: Mapping[str, str] | None = None,
) -> Annotated:
    """Reads the poses of a clip.

    Args:
        path: a file of one of `annotation_formats.READERS`.
        clip_id: named in errors.
        rate_fps: frames per second, from the manifest; it goes before what the file says. Penn Action, BRACE
            and CSV files say nothing.
        columns: {our name: what a table calls the column}, see `annotation_columns`; other formats have none.

    Raises:
        DecodeError: no such file, another format, contents that do not fit it, or no rate.
    """
    path = Path(path)
    try:
        return _annotated(path, _read_file(path, columns), rate_fps)
    except DecodeError as error:
        error.add_note(f"while reading the annotations of clip {clip_id!r}")
        raise


def _read_file(path: Path, columns: Mapping[str, str] | None) -> Poses:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        choices = ", ".join(sorted(READERS))
        raise DecodeError(path, f"annotations end in one of {choices}, found {path.suffix or 'no suffix'!r}")
    if not path.is_file():
        raise DecodeError(path, kind_of(path) or "no such file")
    try:
        if (num_bytes := path.stat().st_size) > MAX_FILE_BYTES:
            raise DecodeError(path, f"{num_bytes} bytes, annotations of one clip have at most {MAX_FILE_BYTES}")
        return read_csv(path, columns) if reader is read_csv else reader(path)
    except OSError as error:
        raise DecodeError(path, f"cannot be read: {error.strerror or error}") from error


def _annotated(path: Path, poses: Poses, rate_fps: float | Fraction | None) -> Annotated:
    asked = rate_fps if rate_fps is not None else poses.rate_fps
    if asked is None:
        raise DecodeError(path, "the file does not say how many frames a second has; give it in the column rate_fps")
    try:
        rate = Fraction(asked).limit_denominator(100_000)
    except (ValueError, OverflowError):
        rate = Fraction(0)
    if rate <= 0:
        raise DecodeError(path, f"rate_fps is {asked}, expected frames per second above 0")
    return Annotated(
        points=poses.points,
        boxes=poses.boxes,
        width_px=poses.width_px,
        height_px=poses.height_px,
        rate_fps=rate,
        times_seconds=np.arange(len(poses.points)) / float(rate),
        layout=poses.layout,
    )
