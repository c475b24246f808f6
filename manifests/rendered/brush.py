"""Painting of flat shapes on what a camera sees: discs, boxes and limbs, each with one pixel of antialiasing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.rendered.colors import Color
from reelbank.manifests.rendered.head_camera import Camera, seen_table

Point = tuple[float, float]
_Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a thing lies on the table: its own axes, of which y points down in an upright thing.

    Attributes:
        x, y: of its middle.
        radians: how far it is turned, clockwise in the picture.
        size: units of the table per unit of the thing.
    """

    x: float
    y: float
    radians: float = 0.0
    size: float = 1.0

    def point(self, u: float, v: float) -> Point:
        """Point (u, v) of the thing on the table."""
        cos, sin = math.cos(self.radians) * self.size, math.sin(self.radians) * self.size
        return self.x + u * cos - v * sin, self.y + u * sin + v * cos


class Canvas:
    """One frame while it is painted.

    Args:
        table: periodic texture, float32 RGB (side, side, 3), shown unblended below everything.
        texels: of the texture per picture height.
        camera: from where it is seen.
        width_px, height_px: size of the picture.
    """

    def __init__(self, table: _Array, texels: int, camera: Camera, *, width_px: int, height_px: int) -> None:
        self._camera, self._height_px = camera, height_px
        self._x, self._y = seen_table(camera, width_px, height_px)
        self.picture = _sampled(table, self._x * texels, self._y * texels)

    @property
    def camera(self) -> Camera:
        """From where the canvas is seen: what is fixed to the head, as an elbow, is placed by it."""
        return self._camera

    def disc(
        self, place: Place, middle: Point, half: Point, color: Color, *, opacity: float = 1.0, hole: float = 0.0
    ) -> None:
        """An ellipse with half axes `half`, in the axes of `place`; `hole` is the share of them that is cut out."""
        spot = self._window(place.point(*middle), max(half) * place.size)
        u, v = self._local(place, spot)
        small = min(half) * place.size
        share = np.hypot((u - middle[0]) / half[0], (v - middle[1]) / half[1])
        distance = np.maximum(share - 1.0, hole - share) * small if hole else (share - 1.0) * small
        self._blend(spot, distance, color, opacity)

    def box(self, place: Place, middle: Point, half: Point, color: Color, *, corner: float = 0.0) -> None:
        """A rectangle with half sides `half` and round corners, in the axes of `place`."""
        spot = self._window(place.point(*middle), math.hypot(*half) * place.size)
        u, v = self._local(place, spot)
        du, dv = np.abs(u - middle[0]) - (half[0] - corner), np.abs(v - middle[1]) - (half[1] - corner)
        outside = np.hypot(np.maximum(du, 0.0), np.maximum(dv, 0.0)) + np.minimum(np.maximum(du, dv), 0.0)
        self._blend(spot, (outside - corner) * place.size, color, 1.0)

    def limb(self, start: Point, end: Point, radii: Point, color: Color, *, opacity: float = 1.0) -> None:
        """A rod with round ends between two points of the table; its radius goes from the first to the second."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        along = (end[0] - start[0], end[1] - start[1])
        length = math.hypot(*along)
        spot = self._window(middle, length / 2 + max(radii))
        x, y = self._x[spot] - start[0], self._y[spot] - start[1]
        share = np.clip((x * along[0] + y * along[1]) / max(length * length, 1e-9), 0.0, 1.0)
        distance = np.hypot(x - share * along[0], y - share * along[1]) - (radii[0] + share * (radii[1] - radii[0]))
        self._blend(spot, distance, color, opacity)

    def _window(self, middle: Point, radius: float) -> tuple[slice, slice]:
        """Rows and columns of the picture that a disc on the table may touch."""
        x, y = self._camera.to_picture(*middle)
        height_px, width_px = self._x.shape
        reach_px = radius * self._camera.zoom * self._height_px + 2.0
        column, row = x * self._height_px + width_px / 2, (y + 0.5) * self._height_px
        return _clipped(row, reach_px, height_px), _clipped(column, reach_px, width_px)

    def _local(self, place: Place, spot: tuple[slice, slice]) -> tuple[_Array, _Array]:
        cos, sin = math.cos(place.radians) / place.size, math.sin(place.radians) / place.size
        x, y = self._x[spot] - np.float32(place.x), self._y[spot] - np.float32(place.y)
        return x * np.float32(cos) + y * np.float32(sin), y * np.float32(cos) - x * np.float32(sin)

    def _blend(self, spot: tuple[slice, slice], distance: NDArray[np.floating], color: Color, opacity: float) -> None:
        """Paints where `distance`, in units of the table, is negative."""
        scale = self._camera.zoom * self._height_px
        alpha = (np.clip(0.5 - distance * scale, 0.0, 1.0) * opacity)[..., None]
        under = self.picture[spot]
        under += alpha * (np.array(color, dtype=np.float32) - under)


def _clipped(middle: float, reach: float, size: int) -> slice:
    first = min(max(math.floor(middle - reach), 0), size)
    return slice(first, max(min(math.ceil(middle + reach), size), first))


def _sampled(texture: _Array, x: _Array, y: _Array) -> _Array:
    """The periodic texture at points given in texels, bilinear; float32 (H, W, 3)."""
    side = len(texture)
    left, top = np.floor(x), np.floor(y)
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    x0, y0 = left.astype(np.intp) % side, top.astype(np.intp) % side
    x1, y1 = (x0 + 1) % side, (y0 + 1) % side
    above = texture[y0, x0] * (1 - fx) + texture[y0, x1] * fx
    below = texture[y1, x0] * (1 - fx) + texture[y1, x1] * fx
    return (above * (1 - fy) + below * fy).astype(np.float32, copy=False)
