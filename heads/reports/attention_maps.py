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
    enlarged = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.cvtColor(cv2.applyColorMap(enlarged, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return np.asarray(np.round(HEAT * heat.astype(np.float64) + IMAGE * image), np.uint8)
