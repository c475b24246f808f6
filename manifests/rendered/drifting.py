"""Drawing for sets whose class is outline x direction: a textured picture with outlines in it, which drifts as a whole.

The outlines are lines without a filling, and they move with the ground they lie on, so the motion of a clip is one and
the same everywhere and tells nothing of the outline. The picture is periodic: what leaves on one side enters on the
other, and where outlines lie is uniform in every frame. So no single frame tells the direction, and the motion does
not tell the outline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.rendered.colors import Color, contrasting_pair

WIDTH_PX, HEIGHT_PX = 160, 120
OUTLINES = ("circle", "square", "triangle")
DIRECTIONS = {"down": (0, 1), "left": (-1, 0), "right": (1, 0), "up": (0, -1)}
"""{direction: steps in x and y, y down}."""
CLASSES = tuple(f"{outline}_{direction}" for outline in OUTLINES for direction in DIRECTIONS)
CELLS = (2, 2)
"""Rows and columns of outlines; each lies somewhere in its cell, and all of them anywhere in the picture."""
RADIUS_PX = (18.0, 24.0)

_Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the clips of one subject have in common.

    Attributes:
        ground: the two colours that the texture goes between.
        line: colour of the outlines.
        scale_px: how coarse the texture is: standard deviation of the blur of the noise that it is made of.
        line_px: width of the lines.
        speed_px: how far the picture drifts per frame, whole pixels.
    """

    ground: tuple[Color, Color]
    line: Color
    scale_px: float
    line_px: float
    speed_px: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture before it is drawn, without its class.

    Attributes:
        look: of the subject.
        texture_seed: of the ground.
        spots: x, y, radius in pixels and turn in radians of each outline.
    """

    look: Look
    texture_seed: int
    spots: tuple[tuple[float, float, float, float], ...]


def make_look(rng: np.random.Generator, *, speed_px: int = 0) -> Look:
    """Any look whose lines stand out from the ground."""
    line, ground = contrasting_pair(rng)
    # Towards the line's colour, but by far not there: optical flow needs contrast, and the line has to stay one.
    share = float(rng.uniform(0.25, 0.35))
    other: Color = (
        ground[0] + share * (line[0] - ground[0]),
        ground[1] + share * (line[1] - ground[1]),
        ground[2] + share * (line[2] - ground[2]),
    )
    return Look(
        ground=(ground, other),
        line=line,
        scale_px=float(rng.uniform(1.2, 2.2)),
        line_px=float(rng.uniform(3.0, 5.0)),
        speed_px=speed_px,
    )


def make_scene(rng: np.random.Generator, look: Look) -> Scene:
    """Outlines at random places on a random ground."""
    rows, columns = CELLS
    high, wide = HEIGHT_PX / rows, WIDTH_PX / columns
    x0, y0 = rng.uniform(0, WIDTH_PX), rng.uniform(0, HEIGHT_PX)
    spots = []
    for cell in range(rows * columns):
        row, column = divmod(cell, columns)
        radius = rng.uniform(*RADIUS_PX)
        x, y = rng.uniform(-1.0, 1.0, size=2) * (wide / 2 - radius, high / 2 - radius)
        spots.append(
            (
                float((x0 + column * wide + x) % WIDTH_PX),
                float((y0 + row * high + y) % HEIGHT_PX),
                float(radius),
                float(rng.uniform(-0.2, 0.2)),
            )
        )
    return Scene(look=look, texture_seed=int(rng.integers(2**31)), spots=tuple(spots))


def draw(scene: Scene, outline: str, *, trail: tuple[float, float] = (0.0, 0.0), echoes: int = 0) -> NDArray[np.uint8]:
    """The picture, uint8 RGB (120, 160, 3), periodic in both directions.

    Args:
        scene: ground and places.
        outline: one of `OUTLINES`.
        trail: step in x and y, in pixels, from each outline to the fainter one that it has left behind.
        echoes: how many of these there are.
    """
    picture = _ground(scene)
    line = np.array(scene.look.line, dtype=np.float32)
    for echo in range(echoes, -1, -1):  # the faintest first, so that the outline itself lies above
        opacity = 0.9 if echo == 0 else 0.75 * (1.0 - echo / (echoes + 1))
        for x, y, radius, turn in scene.spots:
            ink = _line(outline, x + echo * trail[0], y + echo * trail[1], radius, turn, scene.look.line_px)
            picture += (opacity * ink)[..., None] * (line - picture)
    drawn: NDArray[np.uint8] = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return drawn


def drifted(picture: NDArray[np.uint8], direction: str, distance_px: int) -> NDArray[np.uint8]:
    """The picture after it has moved by whole pixels; negative: before."""
    dx, dy = DIRECTIONS[direction]
    return np.roll(picture, (dy * distance_px, dx * distance_px), axis=(0, 1))


def _ground(scene: Scene) -> _Array:
    """Blurred noise between two colours, float32 RGB (H, W, 3), periodic."""
    noise = np.random.default_rng(scene.texture_seed).standard_normal((HEIGHT_PX, WIDTH_PX))
    fy, fx = np.fft.fftfreq(HEIGHT_PX)[:, None], np.fft.rfftfreq(WIDTH_PX)[None, :]
    # Fourier transform of a Gaussian: exp(-2 (pi f sigma)^2).
    blur = np.exp(-2.0 * (math.pi * scene.look.scale_px) ** 2 * (fx**2 + fy**2))
    smooth = np.fft.irfft2(np.fft.rfft2(noise) * blur, s=noise.shape)
    share = 0.5 + 0.5 * np.tanh(1.5 * smooth / smooth.std())[..., None]
    first, second = (np.array(color) for color in scene.look.ground)
    ground: _Array = (first + share * (second - first)).astype(np.float32)
    return ground


def _line(outline: str, x: float, y: float, radius: float, turn: float, line_px: float) -> _Array:
    """How much of each pixel a line covers, float32 (H, W), with a pixel of antialiasing."""
    dx, dy = _wrapped(WIDTH_PX, x)[None, :], _wrapped(HEIGHT_PX, y)[:, None]
    cos, sin = math.cos(turn) / radius, math.sin(turn) / radius
    distance = _DISTANCES[outline](dx * cos + dy * sin, dy * cos - dx * sin) * radius
    ink: _Array = np.clip(0.5 + line_px / 2 - np.abs(distance), 0.0, 1.0).astype(np.float32)
    return ink


def _wrapped(size_px: int, middle: float) -> NDArray[np.float64]:
    """Offset of every pixel from a point, around the edge, in [-size/2, size/2)."""
    offset = np.arange(size_px, dtype=np.float64) - middle
    wrapped: NDArray[np.float64] = np.mod(offset + size_px / 2, size_px) - size_px / 2
    return wrapped


def _circle(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hypot(u, v) - 0.85


def _square(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(np.abs(u), np.abs(v)) - 0.75


def _triangle(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Its tip points up; the circle through its corners has radius 1."""
    return np.maximum(v, math.sqrt(0.75) * np.abs(u) - 0.5 * v) - 0.5


_DISTANCES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
}
"""{outline: signed distance to it, in radii}."""
