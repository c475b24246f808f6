"""Drawing for the rendered set: one shape, whose *motion* is the class and of which one frame tells nothing.

A frame is fixed by a pose of five phases (x, y, size, opening, angle), each in [0, 1) and periodic. Every
clip of every known class starts from five independent uniform phases, and its motion adds `rate * seconds`
to one of them. A uniform phase shifted by anything stays uniform, so at every instant the distribution of
frames is the same for all of these classes: only the change between frames tells them apart. Positions wrap
around the picture's edges; size and opening jump back at the end of a cycle, as a saw tooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# float32 by its inputs; the stubs of numpy's functions widen it.
Array = NDArray[np.floating[Any]]

PHASES = ("x", "y", "size", "opening", "angle")

# Radius of the shape and half-angle of the wedge cut out of it, at phases 0 and 1.
RADIUS_SHARE_OF_HEIGHT = (0.13, 0.29)
WEDGE_RADIANS = (0.10, 1.30)

# Cycles per second at full speed, signed, per motion: what it adds to which phase. A cycle of size or opening
# shifts edges by fewer pixels than one around the picture, so these two run faster.
MOTIONS: dict[str, dict[str, float]] = {
    "bounce": {"x": 0.35, "y": 1.0},
    "clockwise": {"angle": 1.0},
    "close": {"opening": -1.6},
    "counterclockwise": {"angle": -1.0},
    "diagonal": {"x": 0.55, "y": 0.75},
    "down": {"y": 1.0},
    "grow": {"size": 1.6},
    "left": {"x": -0.75},
    "open": {"opening": 1.6},
    "right": {"x": 0.75},
    "shrink": {"size": -1.6},
    "static": {},
    "up": {"y": -1.0},
}
# Phases that run there and back instead of wrapping, per motion.
THERE_AND_BACK: dict[str, frozenset[str]] = {"bounce": frozenset({"y"})}

# The known classes: each moves one phase, so that no frame tells them apart.
KNOWN_MOTIONS = ("close", "down", "grow", "left", "open", "right", "shrink", "static", "up")
UNKNOWN_MOTIONS = ("bounce", "clockwise", "counterclockwise", "diagonal")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Who moves: the look of one group.

    Attributes:
        outline: key of `OUTLINES`.
        color, ground: RGB of the shape and of what lies behind it, 0 to 255.
        texture_seed: of the ground's blotches, which stay still.
        stripes: waves of the pattern on the shape, per radius; it moves and turns with the shape.
    """

    outline: str
    color: tuple[float, float, float]
    ground: tuple[float, float, float]
    texture_seed: int
    stripes: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One clip before it is encoded.

    Attributes:
        motion: key of `MOTIONS`.
        speed: 0 to 1, share of the full rate in `MOTIONS`.
        start: the five phases at time 0, in the order of `PHASES`.
        subject: who moves.
        width_px, height_px: size of the picture.
        rate_fps: frames per second.
        camera_shake_px: how far the whole picture swings, 0 for a camera that stays still.
    """

    motion: str
    speed: float
    start: tuple[float, float, float, float, float]
    subject: Subject
    width_px: int
    height_px: int
    rate_fps: float
    camera_shake_px: float = 0.0

    def phases(self, index: int) -> dict[str, float]:
        """The five phases of frame `index`, each in [0, 1)."""
        seconds = index / self.rate_fps
        rates = MOTIONS[self.motion]
        back = THERE_AND_BACK.get(self.motion, frozenset())
        phases = {}
        for name, start in zip(PHASES, self.start, strict=True):
            phase = (start + self.speed * rates.get(name, 0.0) * seconds) % 1.0
            # Turning at 0.2 and 0.8 keeps the turn inside the picture.
            phases[name] = 0.8 - 0.6 * abs(2.0 * phase - 1.0) if name in back else phase
        return phases


def draw(scene: Scene, index: int, ground: Array | None = None) -> NDArray[np.uint8]:
    """Frame `index` of a scene, uint8 RGB (H, W, 3).

    Args:
        scene: what moves and how.
        index: frame number, from 0.
        ground: `paint_ground(scene)`, to paint it once per clip.
    """
    phases = scene.phases(index)
    picture = paint_ground(scene) if ground is None else ground
    # Distance to the shape's centre around the edges: a shape that leaves on one side enters on the other.
    dx = _wrapped(scene.width_px, phases["x"])[None, :]
    dy = _wrapped(scene.height_px, phases["y"])[:, None]
    small, large = RADIUS_SHARE_OF_HEIGHT
    radius = (small + (large - small) * phases["size"]) * scene.height_px
    angle = 2.0 * math.pi * phases["angle"]
    u = (dx * math.cos(angle) + dy * math.sin(angle)) / np.float32(radius)  # (H, W), in radii
    v = (dy * math.cos(angle) - dx * math.sin(angle)) / np.float32(radius)
    narrow, wide = WEDGE_RADIANS
    half_angle = narrow + (wide - narrow) * phases["opening"]
    # Signed distance to the wedge's edge: positive inside the cut.
    cut = u * math.sin(half_angle) - np.abs(v) * math.cos(half_angle)
    outside = np.maximum(OUTLINES[scene.subject.outline](u, v), cut) * np.float32(radius)
    alpha = np.clip(0.5 - outside, 0.0, 1.0)[..., None]  # (H, W, 1), one pixel of antialiasing
    pattern = 1.0 + 0.3 * np.sin(scene.subject.stripes * u) * np.sin(scene.subject.stripes * v)
    shape = pattern[..., None] * np.array(scene.subject.color, dtype=np.float32)  # (H, W, 3)
    picture = picture + alpha * (shape - picture)
    frame: NDArray[np.uint8] = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    if scene.camera_shake_px:
        swing = 2.0 * math.pi * index / scene.rate_fps
        shift = (scene.camera_shake_px * math.sin(1.7 * swing), scene.camera_shake_px * math.cos(1.1 * swing))
        frame = np.roll(frame, (round(shift[0]), round(shift[1])), axis=(0, 1))
    return frame


def paint_ground(scene: Scene) -> Array:
    """The still background, float32 RGB (H, W, 3): blotches around the subject's ground colour."""
    rng = np.random.default_rng(scene.subject.texture_seed)
    coarse = rng.uniform(-28.0, 28.0, size=(scene.height_px // 8 + 2, scene.width_px // 8 + 2))
    rows = np.arange(scene.height_px) / 8.0
    columns = np.arange(scene.width_px) / 8.0
    y, x = rows.astype(int)[:, None], columns.astype(int)[None, :]
    fy, fx = (rows % 1.0)[:, None], (columns % 1.0)[None, :]
    top = coarse[y, x] * (1 - fx) + coarse[y, x + 1] * fx
    bottom = coarse[y + 1, x] * (1 - fx) + coarse[y + 1, x + 1] * fx
    blotches = top * (1 - fy) + bottom * fy  # (H, W), bilinear
    ground: Array = (np.array(scene.subject.ground) + blotches[..., None]).astype(np.float32)
    return ground


def _wrapped(size_px: int, phase: float) -> Array:
    """Offset of every pixel from a centre at `phase * size_px`, around the edge, in [-size/2, size/2)."""
    offset = np.arange(size_px, dtype=np.float32) - np.float32(phase * size_px)
    wrapped: Array = (offset + size_px / 2) % size_px - size_px / 2
    return wrapped.astype(np.float32)


def _disc(u: Array, v: Array) -> Array:
    distance: Array = np.sqrt(u * u + v * v) - 1.0
    return distance


def _square(u: Array, v: Array) -> Array:
    distance: Array = np.maximum(np.abs(u), np.abs(v)) - 0.85
    return distance


def _diamond(u: Array, v: Array) -> Array:
    distance: Array = (np.abs(u) + np.abs(v)) * math.sqrt(0.5) - 0.8
    return distance


def _hexagon(u: Array, v: Array) -> Array:
    slanted = np.abs(u) * 0.5 + np.abs(v) * math.sqrt(0.75)
    distance: Array = np.maximum(slanted, np.abs(u)) - 0.9
    return distance


def _ring(u: Array, v: Array) -> Array:
    distance: Array = np.abs(np.sqrt(u * u + v * v) - 0.75) - 0.27
    return distance


def _cross(u: Array, v: Array) -> Array:
    along, across = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    distance: Array = np.maximum(along - 1.0, across - 0.42)
    return distance


# Signed distance to the outline in radii, negative inside.
OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "cross": _cross,
    "diamond": _diamond,
    "disc": _disc,
    "hexagon": _hexagon,
    "ring": _ring,
    "square": _square,
}
# Subjects of the `unknown` split have outlines that training never sees.
KNOWN_OUTLINES = ("diamond", "disc", "hexagon", "square")
UNKNOWN_OUTLINES = ("cross", "ring")
