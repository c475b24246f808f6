"""Heatmaps equal scipy's filter, and boxes follow the rule whatever its order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from reelbank.extract.inputs import heatmaps
from reelbank.extract.inputs.heatmaps import BORDERS, OUTSIDE, SIZE, enlarged, grid_positions, pose_box, render, square

# Golden numbers: the peak of a point of 255 under each sigma, away from the borders.
PEAKS = {1.0: 40.5848, 1.5: 18.0379, 2.0: 10.1465, 2.5: 6.4938, 3.0: 4.5096}
CORNER_SUMS = {"constant": 124.76, "nearest": 288.28}
# scipy computes in double and rounds once; so do we, after another order of the two products.
FLOAT32_ULPS = 1


def one(x: int, y: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    return np.array([[[x, y]]]), np.ones((1, 1), np.bool_)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("sigma", sorted(PEAKS))
def test_render_equals_scipy(sigma: float, border: str) -> None:
    rng = np.random.default_rng(1)
    positions = rng.integers(0, SIZE, (2, 12, 2))
    positions[0, :4] = [(0, 0), (0, 55), (55, 0), (1, 54)]
    drawn = rng.random((2, 12)) < 0.8
    drawn[0, :4] = True
    points = np.zeros((2, 12, SIZE, SIZE))
    for (n, k), (x, y) in ((at, positions[at]) for at in np.ndindex(2, 12)):
        points[n, k, y, x] = 255.0 * drawn[n, k]
    wanted = [[gaussian_filter(point, sigma, truncate=4, mode=border) for point in frame] for frame in points]
    found = render(positions, drawn, sigma=sigma, border=border)
    assert found.dtype == np.float32
    np.testing.assert_array_max_ulp(found, np.array(wanted, np.float32), FLOAT32_ULPS)
    assert not found[~drawn].any()
    assert found[drawn].any(axis=(1, 2)).all()


@pytest.mark.parametrize("sigma", sorted(PEAKS))
def test_peak_and_sum_are_the_golden_numbers(sigma: float) -> None:
    heatmap = render(*one(20, 31), sigma=sigma)[0, 0]
    assert heatmap.max() == pytest.approx(PEAKS[sigma], abs=5e-5)
    assert np.unravel_index(heatmap.argmax(), heatmap.shape) == (31, 20)
    assert heatmap.sum(dtype=np.float64) == pytest.approx(255, abs=1e-3)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("corner", [(0, 0), (0, 55), (55, 0), (55, 55)])
def test_corner_sum_is_the_golden_number(border: str, corner: tuple[int, int]) -> None:
    total = render(*one(*corner), border=border).sum(dtype=np.float64)
    assert total == pytest.approx(CORNER_SUMS[border], abs=5e-3)


def test_box_is_ten_percent_larger_square_and_centred() -> None:
    points = np.array([[[10.0, 20], [50, 40], [30, 100], [999, 999]]])
    presence = np.array([[True, True, True, False]])
    # 40 wide, 80 high, about (30, 60): a square of 88.
    np.testing.assert_allclose(pose_box(points, presence), [[-14, 16, 74, 104]])
    np.testing.assert_allclose(pose_box(points, presence, enlarge="edge"), [[-18, 12, 78, 108]])


def test_box_is_the_same_in_either_order() -> None:
    rng = np.random.default_rng(2)
    low = rng.uniform(-100, 100, (50, 2))
    boxes = np.hstack([low, low + rng.uniform(2, 300, (50, 2))])
    np.testing.assert_allclose(square(enlarged(boxes, 1.1)), enlarged(square(boxes), 1.1), rtol=1e-12)
    sides = square(boxes)[:, 2:] - square(boxes)[:, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1])
    np.testing.assert_allclose(sides[:, 0], (boxes[:, 2:] - boxes[:, :2]).max(axis=1))


def test_box_without_points_is_zeros_and_of_one_point_a_pixel() -> None:
    points = np.full((2, 3, 2), 7.0)
    presence = np.array([[False] * 3, [True, False, False]])
    np.testing.assert_array_equal(pose_box(points, presence), [[0, 0, 0, 0], [6.5, 6.5, 7.5, 7.5]])
    _, drawn = grid_positions(points, presence, pose_box(points, presence))
    np.testing.assert_array_equal(drawn, presence)


@pytest.mark.parametrize("outside", OUTSIDE)
def test_positions_map_the_box_to_0_and_55(outside: str) -> None:
    boxes = np.array([[10.0, 100, 120, 210]])
    points = np.array([[[10.0, 100], [120, 210], [65, 155.5], [12, 209], [9, 150], [400, 0]]])
    presence = np.ones((1, 6), np.bool_)
    positions, drawn = grid_positions(points, presence, boxes, outside=outside)
    np.testing.assert_array_equal(positions[0, :4], [(0, 0), (55, 55), (28, 28), (1, 54)])
    # (9 - 10) / 2 = -0.5 rounds to even, to 0: still inside.
    np.testing.assert_array_equal(positions[0, 4], [0, 25])
    assert drawn[0].tolist() == [True] * 5 + [outside == "clip"]
    np.testing.assert_array_equal(positions[0, 5], [55, 0] if outside == "clip" else [0, 0])


def test_positions_do_not_depend_on_absent_points_and_need_an_area() -> None:
    points = np.array([[[np.inf, np.nan], [3, 4]], [[1, 1], [3, 4]]])
    presence = np.array([[False, True], [True, True]])
    positions, drawn = grid_positions(points, presence, np.array([[0.0, 0, 55, 55], [2, 2, 2, 9]]))
    np.testing.assert_array_equal(drawn, [[False, True], [False, False]])
    np.testing.assert_array_equal(positions, [[[0, 0], [3, 4]], [[0, 0], [0, 0]]])


def test_every_point_of_a_pose_lies_inside_its_own_box() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(0, 1920, (200, 25, 2)).astype(np.float32)
    presence = rng.random((200, 25)) < 0.5
    _, drawn = grid_positions(points, presence, pose_box(points, presence))
    np.testing.assert_array_equal(drawn, presence)


def test_unknown_choices_are_refused_and_listed() -> None:
    with pytest.raises(ValueError, match="not one of constant, nearest"):
        render(*one(1, 1), border="mirror")
    with pytest.raises(ValueError, match="expected above 0"):
        render(*one(1, 1), sigma=0)
    with pytest.raises(ValueError, match="not one of edge, side"):
        pose_box(np.zeros((1, 1, 2)), np.ones((1, 1), np.bool_), enlarge="all")
    with pytest.raises(ValueError, match="not one of clip, missing"):
        grid_positions(np.zeros((1, 1, 2)), np.ones((1, 1), np.bool_), np.zeros((1, 4)), outside="wrap")


def test_enlargements_are_those_that_the_box_takes() -> None:
    for enlarge in heatmaps.ENLARGEMENTS:
        assert pose_box(np.zeros((1, 1, 2)), np.ones((1, 1), np.bool_), enlarge=enlarge).shape == (1, 4)
