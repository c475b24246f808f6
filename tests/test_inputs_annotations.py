"""Annotated poses: every format gives the same 25 slots, and what does not fit a format is named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.io import savemat

from reelbank.extract.errors import DecodeError
from reelbank.extract.inputs.annotation_formats import MAX_FRAMES
from reelbank.extract.inputs.annotations import READERS, Annotated
from reelbank.extract.inputs.annotations import read as read_annotations
from reelbank.extract.inputs.keypoints import LAYOUTS, SLOTS, annotated_slots, slot_of, slots_of


def figure(num_frames: int = 3, layout: str = "coco17") -> npt.NDArray[np.float64]:
    """A moving figure (N, K, 3): every coordinate another number, exact in float32; score 1."""
    num_points = len(LAYOUTS[layout])
    points = np.arange(num_frames * num_points * 2, dtype=np.float64).reshape(num_frames, num_points, 2) / 4 + 8
    return np.dstack([points, np.ones((num_frames, num_points))])


def read(path: Path, rate_fps: float | None = 30) -> Annotated:
    return read_annotations(path, clip_id="a17", rate_fps=rate_fps)


def penn_file(path: Path, **changes: Any) -> Path:
    points = figure(4, "penn13")
    visibility = np.ones((4, 13), np.uint8)
    visibility[2, 5] = 0
    content = {
        "action": "bowl",
        "x": points[..., 0],
        "y": points[..., 1],
        "visibility": visibility,
        "bbox": np.array([[1.0, 2, 30, 40]] * 4) + np.arange(4)[:, None],
        "dimensions": np.array([[270, 480, 4]]),
        "nframes": 4,
        "train": -1,
    } | changes
    savemat(path, {key: value for key, value in content.items() if value is not None}, do_compression=True)
    return path


def brace_file(path: Path, numbers: tuple[int, ...] = (101, 103, 102), video: str = "-a_b") -> Path:
    points = figure(len(numbers))
    frames = {
        f"{video}/img-{number:06d}.png": {"box": [100.5, 50, 200, 400, 1.0], "keypoints": points[number - 101].tolist()}
        for number in numbers
    }
    path.write_text(json.dumps(frames))
    return path


def layout_file(path: Path, layout: str = "coco17", **changes: Any) -> Path:
    frames = [{"keypoints": frame.tolist(), "box": [1, 2, 30, 40]} for frame in figure(3, layout)]
    content = {"layout": layout, "rate_fps": "30000/1001", "width_px": 640, "height_px": 360, "frames": frames}
    path.write_text(json.dumps(content | changes))
    return path


def csv_file(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def test_slots_are_those_of_the_specification() -> None:
    assert len(SLOTS) == 25
    wanted = {0: "nose", 1: "left_ear", 2: "right_ear", 3: "left_shoulder", 8: "right_wrist", 9: "left_little_finger"}
    wanted |= {11: "left_index_finger", 14: "right_thumb", 15: "left_hip", 20: "right_ankle", 22: "right_heel"}
    assert {slot: SLOTS[slot] for slot in (*wanted, 24)} == {**wanted, 24: "right_foot_index"}


@pytest.mark.parametrize(
    ("layout", "from_layout", "to_slot"),
    [
        ("coco17", [0, *range(3, 17)], [*range(9), *range(15, 21)]),
        ("penn13", [*range(13)], [0, *range(3, 9), *range(15, 21)]),
        ("slots25", [*range(25)], [*range(25)]),
    ],
)
def test_layouts_map_to_slots(layout: str, from_layout: list[int], to_slot: list[int]) -> None:
    found = slots_of(layout)
    np.testing.assert_array_equal(found[0], from_layout)
    np.testing.assert_array_equal(found[1], to_slot)
    assert np.flatnonzero(annotated_slots(layout)).tolist() == to_slot


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_named_point_has_a_slot_or_is_known_to_have_none(layout: str) -> None:
    names = LAYOUTS[layout]
    assert len(names) == int(layout[-2:])
    assert [name for name in names if slot_of(name) is None] == [name for name in names if name.endswith("_eye")]


def test_penn_action_gives_slots_box_and_size(tmp_path: Path) -> None:
    found = read(penn_file(tmp_path / "0001.mat"))
    assert (found.layout, found.width_px, found.height_px, found.rate_fps) == ("penn13", 480, 270, Fraction(30))
    np.testing.assert_array_equal(found.times_seconds, np.arange(4) / 30)
    points = figure(4, "penn13")
    wanted = np.zeros((4, 25, 3), np.float32)
    wanted[:, slots_of("penn13")[1]] = points
    wanted[2, SLOTS.index("left_wrist")] = 0  # the sixth joint is not visible there
    np.testing.assert_array_equal(found.points, wanted)
    np.testing.assert_array_equal(found.boxes[3], [4, 5, 33, 43])
    assert not found.points[:, ~annotated_slots("penn13")].any()


def test_penn_action_box_one_row_short_is_none_in_the_last_frame(tmp_path: Path) -> None:
    found = read(penn_file(tmp_path / "0001.mat", bbox=np.array([[1.0, 2, 30, 40]] * 3)))
    assert np.isnan(found.boxes[3]).all()
    np.testing.assert_array_equal(found.boxes[2], [1, 2, 30, 40])
    assert np.isnan(read(penn_file(tmp_path / "0002.mat", bbox=None, dimensions=None)).boxes).all()


def test_brace_is_ordered_by_number_and_its_gaps_are_frames_without_points(tmp_path: Path) -> None:
    path = brace_file(tmp_path / "x.json")
    whole = read(path, 29.97002997)
    assert (whole.layout, whole.rate_fps) == ("coco17", Fraction(30000, 1001))
    assert (whole.width_px, whole.height_px) == (1920, 1080)
    from_layout, to_slot = slots_of("coco17")
    np.testing.assert_array_equal(whole.points[:, to_slot], figure()[:, from_layout].astype(np.float32))
    # x, y, width, height, score becomes corners.
    np.testing.assert_array_equal(whole.boxes, [[100.5, 50, 300.5, 450]] * 3)

    frames = json.loads(path.read_text())
    del frames["-a_b/img-000102.png"]
    path.write_text(json.dumps(frames))
    gap = read(path)
    assert len(gap.points) == len(gap.times_seconds) == 3
    assert not gap.points[1].any()
    assert np.isnan(gap.boxes[1]).all()
    np.testing.assert_array_equal(gap.points[[0, 2]], whole.points[[0, 2]])


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_json_layouts_give_their_slots_and_exact_rate(tmp_path: Path, layout: str) -> None:
    found = read(layout_file(tmp_path / "x.json", layout), None)
    assert (found.layout, found.width_px, found.height_px) == (layout, 640, 360)
    assert found.rate_fps == Fraction(30000, 1001)
    from_layout, to_slot = slots_of(layout)
    np.testing.assert_array_equal(found.points[:, to_slot], figure(3, layout)[:, from_layout].astype(np.float32))
    np.testing.assert_array_equal(found.points[..., 2] > 0, np.broadcast_to(annotated_slots(layout), (3, 25)))
    assert read(tmp_path / "x.json", 25).rate_fps == 25  # the manifest goes before the file


@pytest.mark.parametrize("absent", [None, [1, 2, 0], [1, 2, -0.5], [None, 2, 1], [float("nan"), 2, 1], [0, 0, None]])
def test_points_without_number_or_score_are_absent(tmp_path: Path, absent: Any) -> None:
    keypoints: list[Any] = figure(1)[0].tolist()
    keypoints[5] = absent
    keypoints[6] = [7, 8]  # no score: present
    frames = [{"keypoints": keypoints}, None, {}]
    found = read(layout_file(tmp_path / "x.json", frames=frames)).points
    np.testing.assert_array_equal(found[0, SLOTS.index("left_shoulder")], [0, 0, 0])
    np.testing.assert_array_equal(found[0, SLOTS.index("right_shoulder")], [7, 8, 1])
    assert found[0, :, 2].sum() == 14
    assert not found[1:].any()


def test_csv_takes_names_of_every_layout_and_gaps(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "frame": [7, 9],
        "head_x": [1.5, 2.5],
        "head_y": [3, 4],
        "left_eye_x": [9, 9],
        "left_eye_y": [9, 9],
        "right_pinky_x": [5, ""],
        "right_pinky_y": [6, 6],
        "left_hip_x": [7, 7],
        "left_hip_y": [8, 8],
        "left_hip_score": [0, 0.3],
        "box_x0": [0, ""],
        "box_y0": [0, ""],
        "box_x1": [10, ""],
        "box_y1": [20, ""],
    }
    found = read(csv_file(tmp_path / "x.csv", columns))
    wanted = np.zeros((3, 25, 3), np.float32)
    wanted[0, 0], wanted[2, 0] = (1.5, 3, 1), (2.5, 4, 1)
    wanted[0, SLOTS.index("right_little_finger")] = (5, 6, 1)
    wanted[2, SLOTS.index("left_hip")] = (7, 8, 1)
    np.testing.assert_array_equal(found.points, wanted)
    np.testing.assert_array_equal(found.boxes, [[0, 0, 10, 20], [np.nan] * 4, [np.nan] * 4])
    assert found.layout == "named"


def test_formats_agree_on_the_same_pose(tmp_path: Path) -> None:
    points = figure(2)
    named = {"frame": [0, 1]} | {
        f"{name}_{axis}": points[:, index, number].tolist()
        for index, name in enumerate(LAYOUTS["coco17"])
        for number, axis in enumerate(("x", "y", "score"))
    }
    by_csv = read(csv_file(tmp_path / "x.csv", named))
    by_brace = read(brace_file(tmp_path / "brace.json", (101, 102)))
    by_json = read(layout_file(tmp_path / "x.json", frames=[{"keypoints": frame.tolist()} for frame in points]))
    np.testing.assert_array_equal(by_csv.points, by_json.points)
    np.testing.assert_array_equal(by_brace.points, by_json.points)


def test_payloads_are_the_slots_and_the_corners_of_the_box(tmp_path: Path) -> None:
    frames = [{"keypoints": figure(1)[0].tolist(), "box": [1, 2, 30, 40]}, None]
    found = read(layout_file(tmp_path / "x.json", frames=frames))
    payloads = found.payloads()
    assert payloads.shape == (2, 27, 3)
    assert payloads.dtype == np.float32
    np.testing.assert_array_equal(payloads[:, :25], found.points)
    np.testing.assert_array_equal(payloads[:, 25:], [[[1, 2, 0], [30, 40, 0]], [[np.nan, np.nan, 0]] * 2])


BAD_JSON: dict[str, tuple[Any, str]] = {
    "list": ([], "expected an object with frames, found a list of 0"),
    "other-keys": ({"a": 1, "b/img-1.png": 2}, "expected the key 'frames'.*found 'a', 'b/img-1.png'"),
    "layout": ({"layout": "body", "frames": []}, "layout is 'body', expected one of coco17, penn13, slots25"),
    "no-frames": ({"layout": "coco17", "frames": []}, "no frame"),
    "frames": ({"layout": "coco17", "frames": {}}, "frames is a dict of 0, expected a list"),
    "frame": ({"layout": "coco17", "frames": [3]}, "frame 0 is 3, expected an object"),
    "count": ({"layout": "penn13", "frames": [{"keypoints": [[1, 2]]}]}, "frame 0: keypoints is a list of 1, .* 13"),
    "point": ({"layout": "penn13", "frames": [{"keypoints": ["x"] * 13}]}, "frame 0, keypoint 0 is 'x', expected 2 or"),
    "huge": ({"layout": "penn13", "frames": [{"keypoints": [[1e30, 2]] * 13}]}, "beyond 1.67772e.07 px"),
    "int": ({"layout": "penn13", "frames": [{"keypoints": [[10**400, 2]] * 13}]}, "expected 2 or 3 numbers"),
    "box": ({"layout": "penn13", "frames": [{"box": [1, 2]}]}, "frame 0, box is .1, 2., expected 4 or 5 numbers"),
    "rate": ({"layout": "penn13", "rate_fps": "fast", "frames": [None]}, "rate_fps is 'fast', expected frames"),
    "size": ({"layout": "penn13", "width_px": -1, "frames": [None]}, "width_px is -1, expected px"),
    "two-videos": ({"a/img-1.png": {}, "b/img-2.png": {}}, "frames of 2 videos: a, b"),
    "same-frame": ({"a/img-1.png": {}, "a/img-01.png": {}}, "are the same frame"),
    "gap": ({"a/img-1.png": {}, "a/img-999999999.png": {}}, f"at most {MAX_FRAMES}"),
}


@pytest.mark.parametrize("name", sorted(BAD_JSON))
def test_bad_json_says_what_was_found(tmp_path: Path, name: str) -> None:
    content, message = BAD_JSON[name]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DecodeError, match=message) as failure:
        read(path)
    assert "clip 'a17'" in failure.value.__notes__[0]


BAD_CSV = {
    "no-frame": ("left_hip_x,left_hip_y\n1,2\n", "no column frame, found left_hip_x"),
    "empty": ("", "no column frame, found none"),
    "no-rows": ("frame,left_hip_x,left_hip_y\n", "no frame"),
    "no-point": ("frame\n1\n", "no column of a point"),
    "unknown": ("frame,tail_x,tail_y\n1,2,3\n", "column 'tail_x' is neither"),
    "half": ("frame,nose_x\n1,2\n", "needs the columns nose_x and nose_y"),
    "twice": ("frame,nose_x,nose_y,head_x,head_y\n1,2,3,4,5\n", "under another name"),
    "doubled": ("frame,nose_x,nose_x\n1,2,3\n", "two columns have the same name"),
    "box": ("frame,nose_x,nose_y,box_x0\n1,2,3,4\n", "of the box only box_x0"),
    "text": ("frame,nose_x,nose_y\n1,2,3\n2,here,4\n", "line 3, nose_x: 'here' is not a number"),
    "ragged": ("frame,nose_x,nose_y\n1,2\n", "line 2 has another number of cells"),
    "descending": ("frame,nose_x,nose_y\n1,2,3\n1,2,3\n", "line 3: frame does not follow"),
    "fraction": ("frame,nose_x,nose_y\n1.5,2,3\n", "line 2: frame is not a whole number"),
    "gap": ("frame,nose_x,nose_y\n1,2,3\n999999999999,2,3\n", "at most"),
}


@pytest.mark.parametrize("name", sorted(BAD_CSV))
def test_bad_csv_says_where(tmp_path: Path, name: str) -> None:
    text, message = BAD_CSV[name]
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(DecodeError, match=message):
        read(path)


BAD_PENN: dict[str, tuple[dict[str, Any], str]] = {
    "no-x": ({"x": None}, r"x is none, expected numbers \(frames, 13\)"),
    "joints": ({"y": np.zeros((4, 14))}, r"y is \(4, 14\), expected \(frames, 13\)"),
    "frames": ({"y": np.zeros((3, 13))}, r"y.shape = \(3, 13\)"),
    "text": ({"visibility": np.array(["yes"])}, "visibility is <U3"),
    "boxes": ({"bbox": np.zeros((2, 4))}, "bbox has 2 rows for 4 frames"),
    "too-long": ({"x": np.zeros((MAX_FRAMES + 1, 1))}, f"{MAX_FRAMES + 1} frames or more"),
    "dimensions": ({"dimensions": np.array([np.nan, 3.0])}, "dimensions is"),
}


@pytest.mark.parametrize("name", sorted(BAD_PENN))
def test_bad_penn_action_file_says_what_was_found(tmp_path: Path, name: str) -> None:
    changes, message = BAD_PENN[name]
    with pytest.raises(DecodeError, match=message):
        read(penn_file(tmp_path / "x.mat", **changes))


GARBAGE = (b"", b"\x00" * 200, b"MATLAB 5.0 MAT-file" + b"\xff" * 400, b"\xff\xfe{", b"[" * 50_000)


@pytest.mark.parametrize("suffix", sorted(READERS))
@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 200, b"MATLAB 5.0 MAT-file" + b"\xff" * 400, b"\xff\xfe{", b"[" * 50_000]
)
def test_garbage_is_refused_in_every_format(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=r"x\."):
        read(path)


def test_truncated_penn_action_files_are_refused(tmp_path: Path) -> None:
    whole = penn_file(tmp_path / "whole.mat").read_bytes()
    path = tmp_path / "x.mat"
    for num_bytes in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:num_bytes])
        try:
            found = read(path)
        except DecodeError:
            continue
        assert found.points.shape == (4, 25, 3)  # cut behind the last array that is needed


def test_missing_files_unknown_suffixes_and_rates_are_named(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="no such file"):
        read(tmp_path / "none.json")
    with pytest.raises(DecodeError, match=r"end in one of \.csv, \.json, \.mat, found '\.xml'"):
        read(tmp_path / "x.xml")
    path = brace_file(tmp_path / "x.json")
    with pytest.raises(DecodeError, match="give it in the column rate_fps"):
        read(path, None)
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(DecodeError, match="expected frames per second above 0"):
            read(path, rate)


def test_annotated_arrays_have_the_declared_types(tmp_path: Path) -> None:
    writers: tuple[Callable[[Path], Path], ...] = (
        lambda folder: penn_file(folder / "a.mat"),
        lambda folder: brace_file(folder / "b.json"),
        lambda folder: layout_file(folder / "c.json"),
    )
    for write in writers:
        found = read(write(tmp_path))
        assert (found.points.dtype, found.boxes.dtype, found.times_seconds.dtype) == (np.float32, np.float32, float)
        assert set(np.unique(found.points[..., 2])) <= {0.0, 1.0}
        assert np.isfinite(found.points).all()
