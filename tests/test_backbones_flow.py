"""Flow has the right sign, axis and size, and its histograms say where things move."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from reelbank.extract import backbones
from reelbank.extract.backbones import flow

METHODS = ("flow", "flow:dis")
_INNER = slice(32, -32)  # what leaves or enters the image has no flow


def texture(seed: int = 0, size: int = 320) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    noise = rng.random((size, size), dtype=np.float32) * 255
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.5) * 3 - 255, np.float32)


def warped(image: npt.NDArray[np.float32], dx: npt.ArrayLike, dy: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """The 224x224 middle of `image` after every point (x, y) moved to (x + dx, y + dy)."""
    y, x = np.mgrid[48:272, 48:272].astype(np.float32)
    moved = cv2.remap(image, np.asarray(x - dx, np.float32), np.asarray(y - dy, np.float32), cv2.INTER_CUBIC)
    return np.clip(moved, 0, 255).astype(np.uint8)


def pair(dx: npt.ArrayLike, dy: npt.ArrayLike, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.stack([warped(texture(seed), 0, 0), warped(texture(seed), dx, dy)])[None]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-3, 0), (0, 3), (0, -3), (2, 1), (0.5, -4)])
def test_translation_is_found_with_sign_and_axis(name: str, dx: float, dy: float) -> None:
    field = backbones.build(name).forward(pair(dx, dy), ["flow"])["flow"][0]
    inner = field[:, _INNER, _INNER].astype(np.float64)
    np.testing.assert_allclose(np.median(inner, axis=(1, 2)), [dx, dy], atol=0.15)
    np.testing.assert_allclose(inner.mean(axis=(1, 2)), [dx, dy], atol=0.3)


@pytest.mark.parametrize("name", METHODS)
def test_rotation_is_found_point_by_point(name: str) -> None:
    y, x = np.mgrid[:224, :224] - 111.5
    angle = 0.03  # clockwise on the screen, where y points down
    true_dx, true_dy = -angle * y, angle * x
    field = backbones.build(name).forward(pair(true_dx, true_dy), ["flow"])["flow"][0]
    error = np.hypot(field[0] - true_dx, field[1] - true_dy)[_INNER, _INNER]
    assert np.median(error) < 0.2


@pytest.mark.parametrize("name", METHODS)
def test_still_pair_votes_only_for_zero_motion(name: str) -> None:
    hof = backbones.build(name).forward(pair(0, 0))["hof"][0]
    cells = hof[:192].reshape(16, 12)
    np.testing.assert_array_equal(cells[:, :8], 0)
    np.testing.assert_array_equal(cells[:, 8], 1)
    assert hof[192] == 1


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("dx", "dy", "expected"), [(5, 0, 0), (5, 5, 1), (0, 5, 2), (-5, 0, 4), (0, -5, 6)])
def test_histogram_bin_is_the_direction(name: str, dx: float, dy: float, expected: int) -> None:
    hof = backbones.build(name).forward(pair(dx, dy))["hof"][0].astype(np.float64)
    cells = hof[:192].reshape(4, 4, 12)[1:3, 1:3].reshape(4, 12)
    assert (cells[:, :8].argmax(axis=1) == expected).all()
    np.testing.assert_allclose(cells[:, 9:12].mean(0), [dx, dy, np.hypot(dx, dy)], atol=0.3)
    assert hof[192:].argmax() == 5  # speeds in [4, 8) px


def test_histograms_equal_a_pixel_by_pixel_count() -> None:
    rng = np.random.default_rng(1)
    field = rng.normal(0, 3, (2, 8, 8)).astype(np.float32)
    field[:, :2, :2] = 0.1
    hof = flow.histograms(field)
    expected = np.zeros((16, 12))
    speeds = np.zeros(8)
    for y in range(8):
        for x in range(8):
            dx, dy = map(float, field[:, y, x])
            size = (dx * dx + dy * dy) ** 0.5
            cell = expected[(y // 2) * 4 + x // 2]
            if size < 0.25:
                cell[8] += 1
            else:
                position = (np.degrees(np.arctan2(dy, dx)) % 360) / 45
                cell[int(position) % 8] += size * (1 - position % 1)
                cell[(int(position) + 1) % 8] += size * (position % 1)
            cell[9:] += dx, dy, size
            speeds[sum(size >= edge for edge in (0.25, 0.5, 1, 2, 4, 8, 16))] += 1
    np.testing.assert_allclose(hof, np.concatenate([expected.ravel() / 4, speeds / 64]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_flat_and_noisy_pairs_stay_finite(name: str) -> None:
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, (1, 2, 224, 224), dtype=np.uint8)
    flat = np.stack([np.zeros((224, 224), np.uint8), np.full((224, 224), 255, np.uint8)])[None]
    features = backbones.build(name).forward(np.concatenate([noise, flat]), ["hof", "flow"])
    assert all(np.isfinite(feature).all() for feature in features.values())
    assert np.abs(features["flow"]).max() <= 224


@pytest.mark.parametrize("name", METHODS)
def test_result_does_not_depend_on_opencv_threads(name: str) -> None:
    backbone = backbones.build(name)
    found = []
    before = cv2.getNumThreads()
    try:
        for num_threads in (1, 2, 4):
            cv2.setNumThreads(num_threads)
            found.append(backbone.forward(pair(2, 1), ["flow"])["flow"])
            assert cv2.getNumThreads() == num_threads
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("name", METHODS)
def test_no_pairs_give_no_rows(name: str) -> None:
    features = backbones.build(name).forward(np.zeros((0, 2, 224, 224), np.uint8), ["hof", "flow"])
    assert {tap: feature.shape for tap, feature in features.items()} == {"hof": (0, 200), "flow": (0, 2, 224, 224)}
