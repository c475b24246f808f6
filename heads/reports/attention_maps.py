"""Pictures of attention: a heat map over the frame that was looked at.

As Ego-RNN's pictures are made (Sudhakaran and Lanz 2018, arXiv:1807.11794): the map from its least to its greatest
value as 0 to 255, enlarged, in the colours of JET, blue to red, and 0.3 heat + 0.5 image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

HEAT, IMAGE = 0.3, 0.5
"""Shares of a picture: together below 1, so that nothing is cut at white."""


def cam_overlay(attention: npt.NDArray[Any], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The frame under a heat map of its attention.

    Args:
        attention: (h, w) of any scale; a map without contrast is blue throughout.
        image: RGB (H, W, 3), the crop that the network saw.

    Returns:
        RGB (H, W, 3).

    Raises:
        ValueError: other shapes or dtypes, or values that are not finite.
    """
    import cv2

    if attention.ndim != 2 or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"{attention.shape = }, {image.shape = } of {image.dtype}, expected (h, w), (H, W, 3) of uint8"
        )
    values = attention.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} of {values.size} values of the attention are not finite")
    span = np.ptp(values)
    levels = np.round(255 * (values - values.min()) / (span if span > 0 else 1)).astype(np.uint8)
    height, width = image.shape[:2]
    return _under(cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR), image)


def spread_to(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A map (h, w) as large as a picture of `size` (H, W): bilinear, then from its least to its greatest value 0 to 1.

    As Grad-CAM's pictures are made (Selvaraju et al. 2017, arXiv:1610.02391). A map without contrast is 0 throughout.

    Raises:
        ValueError: values that are not finite.
    """
    import cv2

    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} of {values.size} values of the map are not finite")
    # Its shape as OpenCV has it, and no number so large or small that the span is none.
    scaled = values.astype(np.float64) / (np.abs(values).max() or 1)
    large = cv2.resize(scaled, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    span = np.ptp(large)
    return np.asarray((large - large.min()) / span if span > 1e-9 else np.zeros_like(large), np.float32)


def heat_over(levels: npt.NDArray[np.float32], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture RGB (H, W, 3) under the heat of `levels` (H, W) from 0 to 1."""
    if levels.shape != image.shape[:2]:
        raise ValueError(f"{levels.shape = }, {image.shape = }: expected (H, W) and (H, W, 3)")
    return _under(np.round(255 * levels).astype(np.uint8), image)


def _under(levels: npt.NDArray[Any], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    import cv2

    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return np.asarray(np.round(HEAT * heat.astype(np.float64) + IMAGE * image), np.uint8)
