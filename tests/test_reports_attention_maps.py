"""Pictures of attention, against tables and interpolation written out."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from reelbank.heads.reports.attention_maps import cam_overlay


def _enlarged(levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, centres of pixels over centres of pixels, edges repeated."""
    rows, columns = (
        np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        for size, old in ((height, levels.shape[0]), (width, levels.shape[1]))
    )
    r, c = np.minimum(rows.astype(int), len(levels) - 2), np.minimum(columns.astype(int), levels.shape[1] - 2)
    down, right = (rows - r)[:, None], (columns - c)[None]
    above = levels[r][:, c] * (1 - right) + levels[r][:, c + 1] * right
    below = levels[r + 1][:, c] * (1 - right) + levels[r + 1][:, c + 1] * right
    return np.asarray(above * (1 - down) + below * down)


@pytest.mark.parametrize("scale", [1e-6, 1, 1000])
def test_overlay_is_heat_over_image(scale: float) -> None:
    random = np.random.default_rng(0)
    attention, image = random.random((7, 5)), random.integers(0, 256, (56, 40, 3), dtype=np.uint8)
    levels = np.round(255 * (attention - attention.min()) / np.ptp(attention))
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_JET)[:, 0, ::-1].astype(float)
    heat = table[np.round(_enlarged(levels, 56, 40)).astype(int)]
    # A level may be rounded to the one beside it, four steps of a colour away.
    overlay = cam_overlay(attention * scale, image)
    assert overlay.dtype == np.uint8
    np.testing.assert_allclose(overlay, 0.3 * heat + 0.5 * image, rtol=0, atol=0.3 * 4 + 0.51)


def test_most_attention_is_red_and_least_is_blue() -> None:
    attention = np.zeros((7, 7), np.float32)
    attention[3, 3] = 0.2
    overlay = cam_overlay(attention, np.zeros((7, 7, 3), np.uint8))
    assert overlay[3, 3].tolist() == [38, 0, 0]
    assert overlay[0, 0].tolist() == [0, 0, 38]


def test_a_map_without_contrast_is_blue_and_nothing_overflows() -> None:
    overlay = cam_overlay(np.full((7, 7), 1 / 49), np.full((8, 9, 3), 255, np.uint8))
    assert np.unique(overlay.reshape(-1, 3), axis=0).tolist() == [[128, 128, 166]]


@pytest.mark.parametrize(
    ("attention", "image", "message"),
    [
        (np.zeros((1, 7, 7)), np.zeros((8, 8, 3), np.uint8), r"attention.shape = \(1, 7, 7\)"),
        (np.zeros((7, 7)), np.zeros((3, 8, 8), np.uint8), r"image.shape = \(3, 8, 8\)"),
        (np.zeros((7, 7)), np.zeros((8, 8, 3), np.float32), "of float32"),
        (np.array([[0, np.nan], [np.inf, 1]]), np.zeros((8, 8, 3), np.uint8), "2 of 4 values .* not finite"),
    ],
)
def test_other_arrays_are_refused(attention: np.ndarray, image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cam_overlay(attention, image)


def test_module_is_imported_without_torch_and_opencv() -> None:
    script = (
        "import sys, reelbank.heads.reports.attention_maps; print(*[n for n in ('torch', 'cv2') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.split() == []
