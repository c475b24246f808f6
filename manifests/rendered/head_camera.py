"""The camera of the rendered first-person set: a path as of a head that never rests, and the table seen from it.

Lengths are in picture heights, so that a path is the same at every size; x to the right, y down, the origin in the
middle of the picture. A camera is a similarity: translation, rotation, zoom.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SHIFT = 2.0 / 144.0
"""Least mean distance that the table moves in the picture from one frame to the next: 2 px of 144."""
_PICTURE = (np.linspace(-2 / 3, 2 / 3, 9) + 1j * np.linspace(-0.5, 0.5, 7)[:, None]).ravel()
"""Points spread over a picture, as complex numbers."""
_MOST_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where the head is in one frame.

    Attributes:
        x, y: point of the table in the middle of the picture.
        radians: how far the head is tilted.
        zoom: picture heights per unit of the table.
    """

    x: float
    y: float
    radians: float
    zoom: float

    def to_table(self, x: float, y: float) -> tuple[float, float]:
        """The point of the table that is seen at (x, y) of the picture."""
        cos, sin = math.cos(self.radians) / self.zoom, math.sin(self.radians) / self.zoom
        return self.x + x * cos - y * sin, self.y + x * sin + y * cos

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """Where the point (x, y) of the table is seen."""
        cos, sin = math.cos(self.radians) * self.zoom, math.sin(self.radians) * self.zoom
        x, y = x - self.x, y - self.y
        return x * cos + y * sin, y * cos - x * sin


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How one user moves the head.

    Attributes:
        reach: half axes of the ellipse that the gaze goes round, least and most.
        frames_per_round: least and most.
        nod: amplitude of the quick nodding on top of it.
        tilt_radians, zoom_share: amplitudes of slow rotation and of coming closer.
    """

    reach: tuple[float, float]
    frames_per_round: tuple[float, float]
    nod: float
    tilt_radians: float
    zoom_share: float


def head_path(rng: np.random.Generator, manner: Manner, num_frames: int) -> tuple[Camera, ...]:
    """A path of `num_frames` cameras; the table moves by `MIN_SHIFT` or more between all neighbours, either way.

    An ellipse is never at rest, unlike a swing; both senses of rotation are as likely, so a path played backwards is as
    likely as the path.
    """
    for _ in range(_MOST_DRAWS):
        path = _drawn(rng, manner, num_frames)
        shifts = np.concatenate([table_shifts(path), table_shifts(path[::-1])])  # other points leave the picture
        if shifts.min(initial=math.inf) >= MIN_SHIFT:
            return path
    raise AssertionError(f"no path of {num_frames} frames is quick enough: {manner}")


def _drawn(rng: np.random.Generator, manner: Manner, num_frames: int) -> tuple[Camera, ...]:
    frames = np.arange(num_frames)
    sense = rng.choice([-1.0, 1.0])
    turn = 2.0 * math.pi / rng.uniform(*manner.frames_per_round)
    phase, lean = rng.uniform(0.0, 2.0 * math.pi, size=2)
    wide, narrow = sorted(rng.uniform(*manner.reach, size=2), reverse=True)
    along, across = wide * np.cos(sense * turn * frames + phase), narrow * np.sin(sense * turn * frames + phase)
    x = along * math.cos(lean) - across * math.sin(lean)
    y = along * math.sin(lean) + across * math.cos(lean)
    rates = 2.0 * math.pi / rng.uniform((7.0, 30.0, 30.0), (11.0, 60.0, 60.0))
    nod, tilt, zoom = np.sin(rates[:, None] * frames + rng.uniform(0.0, 2.0 * math.pi, size=(3, 1)))  # (3, frames)
    columns = (x, y + manner.nod * nod, manner.tilt_radians * tilt, 1.0 + manner.zoom_share * zoom)
    rows = np.stack(columns, axis=1).tolist()
    return tuple(Camera(x=row[0], y=row[1], radians=row[2], zoom=row[3]) for row in rows)


def table_shifts(path: Sequence[Camera]) -> NDArray[np.float64]:
    """Mean distance, over the picture, by which the table moves from each frame to the next, in picture heights.

    One number less than cameras. Points are complex numbers, x + iy: a tilt is a factor of modulus 1.
    """
    middle = np.array([complex(camera.x, camera.y) for camera in path])[:, None]
    scale = np.array([camera.zoom * cmath.exp(-1j * camera.radians) for camera in path])[:, None]
    table = middle[:-1] + _PICTURE / scale[:-1]  # (pairs, points)
    seen = (table - middle[1:]) * scale[1:]
    shifts: NDArray[np.float64] = np.abs(seen - _PICTURE).mean(axis=1)
    return shifts


def seen_table(camera: Camera, width_px: int, height_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Point (x, y) of the table under the middle of every pixel, two arrays (H, W)."""
    x = ((np.arange(width_px) + 0.5 - width_px / 2) / height_px)[None, :]
    y = ((np.arange(height_px) + 0.5) / height_px - 0.5)[:, None]
    cos, sin = math.cos(camera.radians) / camera.zoom, math.sin(camera.radians) / camera.zoom
    return (camera.x + x * cos - y * sin).astype(np.float32), (camera.y + x * sin + y * cos).astype(np.float32)
