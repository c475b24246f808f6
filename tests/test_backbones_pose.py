"""Backbones of annotated poses: what is stored of a drawn figure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from reelbank.extract import backbones
from reelbank.extract.backbones.description import Backbone, BackboneError
from reelbank.extract.inputs.annotations import read
from reelbank.extract.inputs.keypoints import SLOTS

NAMES = ("pose", "pose:given-box")
_LIMBS = {
    "nose": (0.5, 0.0),
    "left_shoulder": (0.7, 0.2), "right_shoulder": (0.3, 0.2),
    "left_wrist": (1.0, 0.4), "right_wrist": (0.0, 0.4),
    "left_hip": (0.65, 0.5), "right_hip": (0.35, 0.5),
    "left_ankle": (0.7, 1.0), "right_ankle": (0.3, 1.0),
}  # fmt: skip


def stick_figure(x: float, y: float, size_px: float) -> npt.NDArray[np.float32]:
    """A payload (27, 3): a figure in the square of `size_px` at (x, y), and that square as its box."""
    payload = np.zeros((27, 3), np.float32)
    for name, (across, down) in _LIMBS.items():
        payload[SLOTS.index(name)] = (x + across * size_px, y + down * size_px, 1)
    payload[25:, :2] = (x, y), (x + size_px, y + size_px)
    return payload


def moving_figure(num_frames: int = 4) -> npt.NDArray[np.float32]:
    return np.stack([stick_figure(10.5 + 7 * t, 20 + 3 * t, 100 + 10 * t) for t in range(num_frames)])


def built(name: str) -> Backbone:
    return backbones.build(name)


def peaks(heatmaps: npt.NDArray[np.float16]) -> npt.NDArray[np.int64]:
    """Column, row (N, K, 2) of the largest value of each map."""
    rows, columns = np.unravel_index(heatmaps.reshape(*heatmaps.shape[:2], -1).argmax(-1), heatmaps.shape[2:])
    return np.stack([columns, rows], axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_keypoints_and_presence_are_what_was_annotated(name: str) -> None:
    payloads = moving_figure()
    features = built(name).forward(payloads)
    assert tuple(features) == ("keypoints", "presence", "box")
    np.testing.assert_array_equal(features["keypoints"], payloads[:, :25, :2])
    np.testing.assert_array_equal(features["presence"], payloads[:, :25, 2] > 0)
    assert features["presence"].sum(axis=1).tolist() == [len(_LIMBS)] * 4


def test_box_follows_the_figure_and_heatmaps_do_not_move() -> None:
    payloads = moving_figure()
    features = built("pose").forward(payloads, ["box", "heatmaps", "presence"])
    given = payloads[:, 25:, :2].reshape(4, 4)
    margin = (given[:, 2:3] - given[:, :1]) * 0.05
    np.testing.assert_allclose(features["box"], given + margin * [-1, -1, 1, 1], rtol=1e-6)
    found = peaks(features["heatmaps"])
    present = features["presence"][0]
    # In its own box a figure that moves and grows stays where it is.
    np.testing.assert_array_equal(found, np.broadcast_to(found[0], found.shape))
    np.testing.assert_array_equal(found[0, SLOTS.index("nose")], [28, 2])  # (0.5, 0) + 0.05 of 1.1 in 55 cells
    np.testing.assert_array_equal(found[0, SLOTS.index("left_wrist")], [52, 22])
    heatmaps = features["heatmaps"]
    assert heatmaps.dtype == np.float16
    np.testing.assert_allclose(heatmaps.max(axis=(2, 3))[:, present], 40.5848, rtol=5e-4)
    assert not heatmaps[:, ~present].any()


def test_given_box_is_made_square_and_points_outside_go_to_its_border() -> None:
    payload = stick_figure(0, 0, 100)
    payload[25:, :2] = (20, 0), (60, 100)  # upright: 40 wide, 100 high
    features = built("pose:given-box").forward(payload[None], ["box", "heatmaps"])
    np.testing.assert_array_equal(features["box"], [[-10, 0, 90, 100]])
    found = peaks(features["heatmaps"])[0]
    np.testing.assert_array_equal(found[SLOTS.index("left_wrist")], [55, 22])  # x = 100 is outside
    np.testing.assert_array_equal(found[SLOTS.index("right_wrist")], [6, 22])  # (0 + 10) * 0.55 = 5.5


@pytest.mark.parametrize("name", NAMES)
def test_frames_without_points_or_box_are_zeros_and_finite(name: str) -> None:
    empty = np.zeros((27, 3), np.float32)
    empty[25:, :2] = np.nan
    absent = stick_figure(5, 5, 50)
    absent[:25, 2] = 0
    absent[:25, :2] = np.nan
    unboxed = stick_figure(5, 5, 50)
    unboxed[25:, :2] = np.nan
    backbone = built(name)
    features = backbone.forward(np.stack([empty, absent, unboxed]), tuple(backbone.taps))
    for tap, feature in features.items():
        assert np.isfinite(feature).all(), tap
        assert not feature[0].any(), tap
    assert not features["presence"][1].any()
    assert not features["heatmaps"][1].any()
    assert features["presence"][2].any()
    assert features["heatmaps"][2].any() == (name == "pose")
    assert features["box"][2].any() == (name == "pose")


@pytest.mark.parametrize("name", NAMES)
def test_batches_give_the_bits_of_single_frames(name: str) -> None:
    backbone = built(name)
    payloads = moving_figure(5)
    payloads[3, 25:, :2] = np.nan
    whole = backbone.forward(payloads, tuple(backbone.taps))
    for index in range(5):
        single = backbone.forward(payloads[index : index + 1], tuple(backbone.taps))
        for tap in backbone.taps:
            np.testing.assert_array_equal(single[tap][0], whole[tap][index])


def test_forward_leaves_the_batch_alone_and_keeps_no_view_of_it() -> None:
    payloads = moving_figure()
    before = payloads.copy()
    features = built("pose").forward(payloads)
    np.testing.assert_array_equal(payloads, before)
    payloads[:] = -1
    np.testing.assert_array_equal(features["keypoints"], before[:, :25, :2])


def test_wrong_payload_is_shown() -> None:
    with pytest.raises(BackboneError, match=r"expected \(B, 27, 3\) float32"):
        built("pose").forward(np.zeros((2, 25, 3), np.float32))
    with pytest.raises(BackboneError, match="float64, expected"):
        built("pose").forward(np.zeros((2, 27, 3)))


def test_a_file_comes_through_to_the_taps(tmp_path: Path) -> None:
    points = moving_figure()[:, :25]
    frames = [{"keypoints": frame.tolist()} for frame in points]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"layout": "slots25", "rate_fps": 25, "frames": frames}))
    payloads = read(path, clip_id="a", rate_fps=None).payloads()
    np.testing.assert_array_equal(built("pose").forward(payloads)["keypoints"], points[..., :2])
