"""One decoded frame, converted to RGB at most once however many models read it."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

Pixels = npt.NDArray[np.uint8]
MAX_SKEW_DEGREES = 1
SQUARE = Fraction(1)


class Orientation(NamedTuple):
    """How the coded picture becomes the shown one.

    Attributes:
        quarter_turns: counterclockwise, 0 to 3.
        is_mirrored: whether left and right are exchanged before the turn.
    """

    quarter_turns: int = 0
    is_mirrored: bool = False


UPRIGHT = Orientation()


def orientation_of(native: Any) -> Orientation:
    """What the display matrix of a decoder's frame asks for, read as `ffmpeg -autorotate` reads it: scale and shift are
    not looked at.

    Raises:
        ValueError: it turns by another angle than quarter turns.
    """
    try:
        data = native.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV lists no side data where FFmpeg has a kind that it does not know, as EXIF in Motion JPEG
        return Orientation(round(native.rotation / 90) % 4)
    if data is None:
        return UPRIGHT
    m = struct.unpack("=9i", bytes(data)[:36])
    # ffmpeg takes a matrix without an angle, as of zeros, for none.
    widths = math.hypot(m[0], m[3]), math.hypot(m[1], m[4])
    if not all(widths):
        return UPRIGHT
    degrees = -math.degrees(math.atan2(m[1] / widths[1], m[0] / widths[0]))
    turns = round(degrees / 90)
    if abs(degrees - 90 * turns) > MAX_SKEW_DEGREES:
        raise ValueError(
            f"its display matrix turns pictures by {degrees:.3g} degrees, and only quarter turns and mirroring are "
            "undone; make a turned copy (ffmpeg -i IN OUT)"
        )
    # The angle is that of the picture's vertical: what is mirrored by this matrix alone lies upside down.
    mirrored = m[0] * m[4] - m[1] * m[3] < 0
    return Orientation((turns + 2 * mirrored) % 4, mirrored)


class Frame:
    """A decoded frame and its full-size RGB, turned and mirrored as it is shown.

    Attributes:
        native: the decoder's own frame, as it is coded.
        pixel_aspect: width by height of a pixel as shown, which is made 1 by enlarging the shorter side; of 1, pixels
            are left as they are stored.
        damage: what FFmpeg reported of it or of a frame that it is predicted from; empty for a sound one.
    """

    __slots__ = ("_orientation", "_rgb", "_to_rgb", "damage", "native", "pixel_aspect")

    def __init__(self, native: Any, to_rgb: Any = None, damage: str = "", pixel_aspect: Fraction = SQUARE) -> None:
        """Wraps a decoder's frame.

        Args:
            native: `av.VideoFrame`.
            to_rgb: a `VideoReformatter` to use again; it is faster than a new one for each frame.
            damage, pixel_aspect: the attributes.
        """
        self.native = native
        self.pixel_aspect = pixel_aspect
        self.damage = damage
        self._to_rgb = to_rgb
        self._rgb: Pixels | None = None
        self._orientation: Orientation | None = None

    @property
    def orientation(self) -> Orientation:
        """From the native to the shown frame. Raises ValueError as `orientation_of`."""
        if self._orientation is None:
            self._orientation = orientation_of(self.native)
        return self._orientation

    @property
    def width_px(self) -> int:
        """Width as shown."""
        stored = self.native.height if self.orientation.quarter_turns % 2 else self.native.width
        return round(int(stored) * max(self.pixel_aspect, SQUARE))

    @property
    def height_px(self) -> int:
        """Height as shown."""
        stored = self.native.width if self.orientation.quarter_turns % 2 else self.native.height
        return round(int(stored) / min(self.pixel_aspect, SQUARE))

    @property
    def rgb(self) -> Pixels:
        """(H, W, 3) uint8, contiguous; equal to `native.to_ndarray(format="rgb24")` but for the orientation and
        non-square pixels, which swscale resizes (bicubic).

        The array is shared by everyone who reads this frame: not to be written to.
        """
        if self._rgb is None:
            size = self.height_px, self.width_px
            coded = size[::-1] if self.orientation.quarter_turns % 2 else size
            self._rgb = oriented(rgb_of(self.native, self._to_rgb or VideoReformatter(), coded), self.orientation)
        return self._rgb


def rgb_of(native: Any, reformatter: Any, size: tuple[int, int] | None = None) -> Pixels:
    """An `av.VideoFrame` as contiguous (H, W, 3) uint8 by swscale, on one thread, resized to `size` (H, W)."""
    return rgb_view(native, reformatter, size).copy(order="C")


def rgb_view(native: Any, reformatter: Any, size: tuple[int, int] | None = None) -> Pixels:
    """The same on the converted frame's own memory, whose rows may be padded."""
    resizing: dict[str, Any] = {}
    if size not in (None, (native.height, native.width)):
        resizing = {"height": size[0], "width": size[1], "interpolation": Interpolation.BICUBIC}
    converted = reformatter.reformat(native, format="rgb24", threads=1, **resizing)
    plane = converted.planes[0]
    rows: Pixels = np.frombuffer(plane, np.uint8)[: converted.height * plane.line_size]
    return rows.reshape(converted.height, plane.line_size)[:, : 3 * converted.width].reshape(
        converted.height, converted.width, 3
    )


def oriented(pixels: Pixels, orientation: Orientation) -> Pixels:
    """(H, W, 3) as it is shown; contiguous where anything changes."""
    if orientation == UPRIGHT:
        return pixels
    pixels = pixels[:, ::-1] if orientation.is_mirrored else pixels
    return np.ascontiguousarray(np.rot90(pixels, orientation.quarter_turns))


def frame_of_rgb(pixels: Pixels, damage: str = "", pixel_aspect: Fraction = SQUARE) -> Frame:
    """A frame from (H, W, 3) uint8 RGB, as pictures give it."""
    native = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return Frame(native, damage=damage, pixel_aspect=pixel_aspect)
