"""The file formats of annotated poses, each a function from a path to `Poses`.

.mat   Penn Action: `x`, `y`, `visibility` (frames, 13), `bbox` (frames, 4) as x0, y0, x1, y1, sometimes one row
       short, `dimensions` height, width, frames. Zhang et al. 2013, From Actemes to Action.
.json  BRACE: {"<video>/img-000123.png": {"box": [x, y, w, h, score], "keypoints": 17 x [x, y, score]}}, COCO
       order, px of 1920x1080. Frames are ordered by number. Moltisanti et al. 2022, arXiv:2207.10120.
.json  ours: {"layout": "coco17" | "penn13" | "slots25", "frames": [{"keypoints": [[x, y, score], ...], "box":
       [x0, y0, x1, y1]}, null, ...]}; optional "rate_fps" (29.97 or "30000/1001"), "width_px", "height_px"; the
       score may be left out, and null is a frame or a point without annotation.
.csv   ours: `frame` (a whole number, ascending), `<name>_x`, `<name>_y`, optional `<name>_score` for any of the
       names of `keypoints.LAYOUTS`; optional `box_x0`, `box_y0`, `box_x1`, `box_y1`. Empty cells are absent. Columns
       of other names are mapped, see `annotation_columns`.
"""

from __future__ import annotations

import csv
import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.errors import DecodeError
from reelbank.extract.inputs.annotation_columns import BOX, our_names
from reelbank.extract.inputs.keypoints import LAYOUTS, NUM_SLOTS, slot_of, slots_of
from reelbank.manifests.files import regular

MAX_FILE_BYTES = 64 << 20
MAX_FRAMES = 1 << 18
"""Two and a half hours at 30 frames per second; a gap between two frame numbers counts."""

# float32 holds whole px exactly up to 2^24; no picture is that large.
_MAX_COORDINATE_PX = float(1 << 24)
_MAX_SIDE_PX = 1 << 16
_SHOWN = 5
_BRACE_SIZE_PX = (1920, 1080)
_BRACE_KEY = re.compile(r"(?:.*/)?img-(\d{1,9})\.\w+", re.ASCII)
_CSV_POINT = re.compile(r"(.+)_(x|y|score)")

_Points = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Poses:
    """What a file says; the attributes are those of `annotations.Annotated`."""

    points: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    layout: str
    width_px: int = 0
    height_px: int = 0
    rate_fps: Fraction | float | None = None


def _read_penn(path: Path) -> Poses:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    names = ("x", "y", "visibility", "bbox", "dimensions")
    try:
        # A compressed array may be a thousand times larger than the file: its size is read before its numbers.
        shapes = {name: shape for name, shape, _ in whosmat(path) if name in names}
        for shape in shapes.values():
            _check_num_frames(path, max(shape, default=1))
        found = loadmat(path, variable_names=list(shapes))
    except (
        *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError),
        *(MatReadError, TypeError, ValueError, struct.error, zlib.error),
    ) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(path, f"not a MATLAB file of version 4 to 7 ({_first_line(error)})") from error
    x, y, visibility = (_mat_array(path, found, name, 13) for name in names[:3])
    if not x.shape == y.shape == visibility.shape:
        raise DecodeError(path, f"{x.shape = }, {y.shape = }, {visibility.shape = }, expected three times (frames, 13)")
    num_frames = _check_num_frames(path, len(x))
    boxes = np.full((num_frames, 4), np.nan)
    if "bbox" in found:
        given = _mat_array(path, found, "bbox", 4)
        if abs(len(given) - num_frames) > 1:
            raise DecodeError(path, f"bbox has {len(given)} rows for {num_frames} frames, expected at most one fewer")
        boxes[: len(given)] = given[:num_frames]
    height_px = width_px = 0
    if "dimensions" in found:
        sizes = np.asarray(found["dimensions"]).ravel()
        if sizes.dtype.kind not in "iuf" or len(sizes) < 2 or not np.isfinite(sizes[:2].astype(float)).all():
            raise DecodeError(path, f"dimensions is {sizes[:_SHOWN].tolist()}, expected height, width, frames")
        height_px, width_px = (_side(path, "dimensions", float(size)) for size in sizes[:2])
    layout_points = np.stack([x, y, visibility], axis=-1)
    return Poses(
        points=_slots(path, layout_points, "penn13"),
        boxes=_boxes(path, boxes),
        layout="penn13",
        width_px=width_px,
        height_px=height_px,
    )


def _mat_array(path: Path, found: Mapping[str, Any], name: str, num_columns: int) -> _Points:
    value = found.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.ndim != 2:
        shape = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else "none"
        raise DecodeError(path, f"{name} is {shape}, expected numbers (frames, {num_columns}) as in Penn Action")
    if value.shape[1] != num_columns:
        raise DecodeError(path, f"{name} is {value.shape}, expected (frames, {num_columns}) as in Penn Action")
    return value.astype(np.float64)


def _read_json(path: Path) -> Poses:
    try:
        data = json.loads(regular(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DecodeError(path, f"not JSON ({_first_line(error)})") from error
    if not isinstance(data, dict) or not data:
        raise DecodeError(path, f"expected an object with frames, found {_kind(data)}")
    if "frames" in data:
        return _layout_json(path, data)
    if all(_BRACE_KEY.fullmatch(key) for key in data):
        return _brace(path, data)
    keys = ", ".join(map(repr, list(data)[:_SHOWN]))
    raise DecodeError(path, f"expected the key 'frames', or keys like 'VIDEO/img-000123.png' (BRACE), found {keys}")


def _brace(path: Path, data: Mapping[str, Any]) -> Poses:
    numbers: dict[int, str] = {}
    for key in data:
        match = _BRACE_KEY.fullmatch(key)
        assert match is not None
        if (other := numbers.setdefault(int(match[1]), key)) != key:
            raise DecodeError(path, f"{other!r} and {key!r} are the same frame")
    if len(videos := {key.rpartition("/")[0] for key in data}) > 1:
        raise DecodeError(path, f"frames of {len(videos)} videos: {', '.join(sorted(videos)[:_SHOWN])}; expected one")
    first = min(numbers)
    num_frames = _check_num_frames(path, max(numbers) - first + 1)
    points = np.zeros((num_frames, 17, 3))
    boxes = np.full((num_frames, 4), np.nan)
    for number, key in numbers.items():
        points[number - first], boxes[number - first] = _frame(path, key, data[key], 17, box_is_xywh=True)
    return Poses(
        points=_slots(path, points, "coco17"),
        boxes=_boxes(path, boxes),
        layout="coco17",
        width_px=_BRACE_SIZE_PX[0],
        height_px=_BRACE_SIZE_PX[1],
    )


def _layout_json(path: Path, data: Mapping[str, Any]) -> Poses:
    layout, frames = data.get("layout"), data["frames"]
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise DecodeError(path, f"layout is {layout!r}, expected one of {', '.join(sorted(LAYOUTS))}")
    if not isinstance(frames, list):
        raise DecodeError(path, f"frames is {_kind(frames)}, expected a list")
    num_points = len(LAYOUTS[layout])
    points = np.zeros((_check_num_frames(path, len(frames)), num_points, 3))
    boxes = np.full((len(frames), 4), np.nan)
    for index, frame in enumerate(frames):
        points[index], boxes[index] = _frame(path, f"frame {index}", frame, num_points)
    return Poses(
        points=_slots(path, points, layout),
        boxes=_boxes(path, boxes),
        layout=layout,
        width_px=_side(path, "width_px", data.get("width_px", 0)),
        height_px=_side(path, "height_px", data.get("height_px", 0)),
        rate_fps=_rate(path, data.get("rate_fps")),
    )


def _frame(
    path: Path, where: str, frame: Any, num_points: int, *, box_is_xywh: bool = False
) -> tuple[_Points, list[float]]:
    """Points (K, 3) and box (4,) x0, y0, x1, y1 of one frame of a JSON file."""
    frame = {} if frame is None else frame
    if not isinstance(frame, dict):
        raise DecodeError(path, f"{where} is {_kind(frame)}, expected an object with keypoints and box")
    points = np.zeros((num_points, 3))
    if (given := frame.get("keypoints")) is not None:
        if not isinstance(given, list) or len(given) != num_points:
            raise DecodeError(path, f"{where}: keypoints is {_kind(given)}, expected a list of {num_points}")
        for index, point in enumerate(given):
            if point is not None:
                values = _numbers(path, f"{where}, keypoint {index}", point, (2, 3))
                points[index] = values if len(values) == 3 else [*values, 1.0]
    box = [float("nan")] * 4
    if (given := frame.get("box")) is not None:
        # A fifth number is the detector's score.
        box = _numbers(path, f"{where}, box", given, (4, 5))[:4]
        if box_is_xywh:
            x, y, width, height = box
            box = [x, y, x + width, y + height]
    return points, box


def read_csv(path: Path, mapping: Mapping[str, str] | None = None) -> Poses:
    """The poses of a table; `mapping` is {our name: its column} as `annotation_columns.parse` gives it."""
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            theirs = our_names(path, list(reader.fieldnames or ()), mapping or {})
            columns = list(theirs)
            plan = _csv_columns(path, columns)
            rows: list[tuple[int, list[float]]] = []
            for row in reader:
                rows.append((reader.line_num, [_cell(path, reader.line_num, row, theirs[name]) for name in columns]))
                _check_num_frames(path, len(rows))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DecodeError(path, f"not a CSV file in UTF-8 ({_first_line(error)})") from error
    _check_num_frames(path, len(rows))
    values = np.array([cells for _, cells in rows])
    numbers = _csv_numbers(path, [line for line, _ in rows], values[:, columns.index("frame")])
    num_frames = _check_num_frames(path, int(numbers[-1] - numbers[0]) + 1)
    at = numbers - numbers[0]
    points = np.zeros((num_frames, NUM_SLOTS, 3))
    for slot, names in plan.items():
        x, y = (values[:, columns.index(names[axis])] for axis in ("x", "y"))
        points[at, slot, 0], points[at, slot, 1] = x, y
        points[at, slot, 2] = values[:, columns.index(names["score"])] if "score" in names else 1.0
    boxes = np.full((num_frames, 4), np.nan)
    if BOX[0] in columns:
        boxes[at] = values[:, [columns.index(name) for name in BOX]]
    return Poses(points=_slots(path, points, "slots25"), boxes=_boxes(path, boxes), layout="named")


def _csv_columns(path: Path, columns: Sequence[str]) -> dict[int, dict[str, str]]:
    """For each slot the columns of its x, y and score. Raises DecodeError for columns that mean nothing."""
    if "frame" not in columns:
        listed = ", ".join(columns[:_SHOWN]) or "none"
        raise DecodeError(path, f"no column frame, found {listed}; name it with --map frame=COLUMN")
    if (boxes := [name for name in BOX if name in columns]) and len(boxes) < len(BOX):
        raise DecodeError(path, f"of the box only {', '.join(boxes)}, expected {', '.join(BOX)}")
    plan: dict[str, dict[str, str]] = {}
    for column in columns:
        if column == "frame" or column in BOX:
            continue
        match = _CSV_POINT.fullmatch(column)
        try:
            slot = slot_of(match[1]) if match else _unknown(column)
        except KeyError:
            raise DecodeError(
                path,
                f"column {column!r} is neither frame, box_x0 ... nor NAME_x, NAME_y, NAME_score of a known point; "
                "--map NAME_x=COLUMN names one, and leaves out the others",
            ) from None
        if match is not None and slot is not None:
            plan.setdefault(match[1], {})[match[2]] = column
    by_slot: dict[int, dict[str, str]] = {}
    for name, names in plan.items():
        if not {"x", "y"} <= names.keys():
            raise DecodeError(path, f"point {name!r} needs the columns {name}_x and {name}_y, found {sorted(names)}")
        slot = slot_of(name)
        assert slot is not None
        if by_slot.setdefault(slot, names) is not names:
            raise DecodeError(path, f"point {name!r} stands in the file under another name, too")
    if not by_slot:
        raise DecodeError(path, "no column of a point, expected NAME_x and NAME_y")
    return by_slot


def _unknown(column: str) -> int:
    raise KeyError(column)


def _cell(path: Path, line: int, row: Mapping[str | None, Any], column: str) -> float:
    """The number in a cell, NaN if it is empty."""
    text = row[column]
    if text is None or None in row:
        raise DecodeError(path, f"line {line} has another number of cells than the header")
    try:
        return float(text) if text.strip() else float("nan")
    except ValueError:
        raise DecodeError(path, f"line {line}, {column}: {text[:40]!r} is not a number") from None


def _csv_numbers(path: Path, lines: Sequence[int], column: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The frame numbers, ascending."""
    whole = np.isfinite(column) & (np.abs(column) < 1 << 53) & (np.floor(column) == column)
    if not whole.all():
        raise DecodeError(path, f"line {lines[int(np.argmin(whole))]}: frame is not a whole number")
    numbers = column.astype(np.int64)
    if (behind := np.flatnonzero(np.diff(numbers) <= 0)).size:
        raise DecodeError(path, f"line {lines[behind[0] + 1]}: frame does not follow the one before; sort by frame")
    return numbers


def _slots(path: Path, points: _Points, layout: str) -> npt.NDArray[np.float32]:
    """Points (N, K, 3) of a layout, the last value a score, as float32 (N, 25, 3) with presence 0 or 1."""
    from_layout, to_slot = slots_of(layout)
    given = points[:, from_layout]
    present = np.isfinite(given[..., :2]).all(axis=2) & (given[..., 2] > 0)
    if (np.abs(given[..., :2][present]) > _MAX_COORDINATE_PX).any():
        raise DecodeError(path, f"a coordinate is beyond {_MAX_COORDINATE_PX:g} px; coordinates are px of the picture")
    result = np.zeros((len(points), NUM_SLOTS, 3), np.float32)
    result[:, to_slot] = np.where(present[..., None], np.dstack([given[..., :2], present]), 0.0)
    return result


def _boxes(path: Path, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Boxes (N, 4) x0, y0, x1, y1; a row of NaN for those that are not finite or have no area."""
    some = np.asarray(np.isfinite(boxes).all(axis=1))
    some[some] = (boxes[some, 2:] > boxes[some, :2]).all(axis=1)
    if (np.abs(boxes[some]) > _MAX_COORDINATE_PX).any():
        raise DecodeError(path, f"a box is beyond {_MAX_COORDINATE_PX:g} px; boxes are px of the picture")
    return np.where(some[:, None], boxes, np.nan).astype(np.float32)


def _numbers(path: Path, where: str, value: Any, lengths: tuple[int, int]) -> list[float]:
    """A list of numbers; null is NaN."""
    if isinstance(value, list) and len(value) in lengths:
        numbers = [float("nan") if item is None else item for item in value]
        if all(isinstance(item, (int, float)) for item in numbers):
            try:
                return [float(item) for item in numbers]
            except OverflowError:
                pass
    shown = repr(value)[:60]
    raise DecodeError(path, f"{where} is {shown}, expected {lengths[0]} or {lengths[1]} numbers")


def _check_num_frames(path: Path, num_frames: int) -> int:
    if num_frames < 1:
        raise DecodeError(path, "no frame")
    if num_frames > MAX_FRAMES:
        raise DecodeError(path, f"{num_frames} frames or more, annotations of one clip have at most {MAX_FRAMES}")
    return num_frames


def _side(path: Path, name: str, value: Any) -> int:
    if not isinstance(value, (int, float)) or not 0 <= value <= _MAX_SIDE_PX or value != int(value):
        raise DecodeError(path, f"{name} is {str(value)[:40]}, expected px, 0 to {_MAX_SIDE_PX}")
    return int(value)


def _rate(path: Path, value: Any) -> Fraction | None:
    """The rate of a JSON file, exact where it is a ratio."""
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        return Fraction(value)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise DecodeError(path, f"rate_fps is {str(value)[:40]!r}, expected frames per second") from None


def _kind(value: Any) -> str:
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (dict, list)) else repr(value)[:40]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


READERS: dict[str, Callable[[Path], Poses]] = {".csv": read_csv, ".json": _read_json, ".mat": _read_penn}
"""By the file's suffix; JSON files are told apart by their keys."""
