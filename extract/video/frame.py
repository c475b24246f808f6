"""One decoded frame, converted to RGB at most once however many models read it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

Pixels = npt.NDArray[np.uint8]


class Frame:
    """A decoded frame and its full-size RGB, display rotation applied.

    Attributes:
        native: the decoder's own frame, not rotated.
        damage: what FFmpeg reported of it or of a frame that it is predicted from; empty for a sound one.
    """

    __slots__ = ("_rgb", "_to_rgb", "damage", "native")

    def __init__(self, native: Any, to_rgb: Any = None, damage: str = "") -> None:
        """Wraps a decoder's frame.

        Args:
            native: `av.VideoFrame`.
            to_rgb: a `VideoReformatter` to use again; it is faster than a new one for each frame.
            damage: the attribute.
        """
        self.native = native
        self.damage = damage
        self._to_rgb = to_rgb
        self._rgb: Pixels | None = None

    @property
    def quarter_turns(self) -> int:
        """Counterclockwise quarter turns from the native to the shown frame, 0 to 3."""
        turns: int = round(self.native.rotation / 90) % 4
        return turns

    @property
    def width_px(self) -> int:
        """Width as shown."""
        return int(self.native.height if self.quarter_turns % 2 else self.native.width)

    @property
    def height_px(self) -> int:
        """Height as shown."""
        return int(self.native.width if self.quarter_turns % 2 else self.native.height)

    @property
    def rgb(self) -> Pixels:
        """(H, W, 3) uint8, contiguous; equal to `native.to_ndarray(format="rgb24")` but for the rotation.

        The array is shared by everyone who reads this frame: not to be written to.
        """
        if self._rgb is None:
            turned = rotate(rgb_of(self.native, self._to_rgb or VideoReformatter()), self.quarter_turns)
            self._rgb = turned
        return self._rgb


def rgb_of(native: Any, reformatter: Any) -> Pixels:
    """An `av.VideoFrame` as contiguous (H, W, 3) uint8 by swscale, on one thread."""
    return rgb_view(native, reformatter).copy(order="C")


def rgb_view(native: Any, reformatter: Any) -> Pixels:
    """The same on the converted frame's own memory, whose rows may be padded."""
    converted = reformatter.reformat(native, format="rgb24", threads=1)
    plane = converted.planes[0]
    rows: Pixels = np.frombuffer(plane, np.uint8)[: converted.height * plane.line_size]
    return rows.reshape(converted.height, plane.line_size)[:, : 3 * converted.width].reshape(
        converted.height, converted.width, 3
    )


def rotate(pixels: Pixels, quarter_turns: int) -> Pixels:
    """Counterclockwise quarter turns; contiguous."""
    return pixels if quarter_turns == 0 else np.ascontiguousarray(np.rot90(pixels, quarter_turns))


def frame_of_rgb(pixels: Pixels, damage: str = "") -> Frame:
    """A frame from (H, W, 3) uint8 RGB, as pictures give it."""
    return Frame(VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"), damage=damage)
