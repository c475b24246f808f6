"""Colours of the rendered sets: pairs that stand out from each other."""

from __future__ import annotations

import colorsys

import numpy as np

Color = tuple[float, float, float]
"""RGB, 0 to 255."""

MIN_CONTRAST = 70.0
"""Grey levels between the colours of a pair, of 255."""


def contrasting_pair(rng: np.random.Generator) -> tuple[Color, Color]:
    """Two colours that stand out from each other in grey too: optical flow sees no colour."""
    while True:
        color, ground = _rgb(rng), _rgb(rng)
        if abs(_luma(color) - _luma(ground)) >= MIN_CONTRAST:
            return color, ground


def _rgb(rng: np.random.Generator) -> Color:
    """A colour that stays inside 0..255 with patterns added."""
    hue, saturation, value = rng.uniform(), rng.uniform(0.1, 0.9), rng.uniform(0.2, 0.95)
    red, green, blue = colorsys.hsv_to_rgb(float(hue), float(saturation), float(value))
    return 210 * red, 210 * green, 210 * blue


def _luma(rgb: Color) -> float:
    """ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
