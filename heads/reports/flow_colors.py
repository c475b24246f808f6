"""Optical flow as a picture: hue says where to, saturation how far; what stands is white (Baker et al. 2011)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

STILL, LEVELS_PER_PX = 128, 255 / 40
"""Of flow that is stored as bytes, as `flow_taps` of the backbones has it: the byte of no motion, and the scale."""
LEAST_PX = 1.0
"""A motion that has full saturation wherever none is larger: what is noise in a clip that stands remains pale."""


def flow_picture(fields: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The mean of the fields as RGB (H, W, 3).

    Args:
        fields: x and y in turns (2 n, H, W): displacements, or bytes around STILL. The largest motion of the picture
            has full saturation, and at least one of LEAST_PX.

    Raises:
        ValueError: an odd number of channels.
    """
    import cv2

    if fields.ndim != 3 or len(fields) % 2 or not len(fields):
        raise ValueError(f"{fields.shape = }, expected (2 n, H, W)")
    values = fields.astype(np.float32)
    if fields.dtype == np.uint8:
        values -= STILL
    x, y = values[0::2].mean(axis=0), values[1::2].mean(axis=0)
    length = np.hypot(x, y)
    most = max(float(length.max()), LEAST_PX * (LEVELS_PER_PX if fields.dtype == np.uint8 else 1))
    hue = (np.arctan2(y, x) % (2 * np.pi)) / (2 * np.pi) * 180  # OpenCV's hue of a byte is half a degree's
    full = np.full_like(length, 255)
    colors = np.stack([hue, 255 * length / most, full], axis=2)
    return np.asarray(cv2.cvtColor(np.round(colors).astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)
