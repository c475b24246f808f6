"""What lies on the table of the rendered first-person set, and the table itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.rendered.brush import Canvas, Place
from reelbank.manifests.rendered.colors import Color

TEXELS = 144
"""Of a table's texture per picture height: one per pixel of a picture of the default size."""
_SIDE = 288
_WHITE: Color = (238.0, 236.0, 228.0)
_STEEL: Color = (176.0, 180.0, 186.0)
_CRUST: Color = (150.0, 96.0, 48.0)
_CRUMB: Color = (232.0, 205.0, 152.0)
_DARK: Color = (52.0, 42.0, 38.0)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object on the table.

    Attributes:
        kind: key of `THINGS`.
        place: where.
        color: of its paint; a class has no colour of its own.
        filled: 0 to 1, how much is in a cup or is spread on a bread.
    """

    kind: str
    place: Place
    color: Color
    filled: float = 0.5


def shaded(color: Color, share: float) -> Color:
    """Darker (`share` below 1) or lighter, within 0 to 255."""
    red, green, blue = (min(255.0, part * share) for part in color)
    return red, green, blue


def paint(canvas: Canvas, thing: Thing, *, lies: bool = True) -> None:
    """Paints a thing, and its shadow where it `lies` on the table."""
    if lies:
        canvas.disc(thing.place, (0.02, 0.075), (0.105, 0.04), _DARK, opacity=0.35)
    THINGS[thing.kind](canvas, thing)


def _jar(canvas: Canvas, thing: Thing) -> None:
    glass, place = shaded(thing.color, 0.75), thing.place
    canvas.disc(place, (0.0, 0.075), (0.075, 0.03), shaded(glass, 0.7))
    canvas.box(place, (0.0, 0.0), (0.075, 0.08), glass, corner=0.02)
    canvas.box(place, (0.0, 0.015), (0.075, 0.035), _WHITE)
    canvas.box(place, (0.0, 0.015), (0.04, 0.012), shaded(thing.color, 0.6))
    canvas.disc(place, (0.0, -0.08), (0.066, 0.026), shaded(glass, 1.4))
    canvas.disc(place, (0.0, -0.08), (0.055, 0.019), _DARK)


def lid(canvas: Canvas, place: Place, color: Color, *, turned: float) -> None:
    """A jar's lid; `turned` in radians about its axis moves the ridges along its edge."""
    canvas.disc(place, (0.0, 0.014), (0.074, 0.028), shaded(color, 0.55))
    canvas.box(place, (0.0, 0.004), (0.074, 0.012), shaded(color, 0.55))
    for ridge in range(10):
        angle = turned + ridge * math.pi / 5.0
        if math.sin(angle) > 0.1:  # those on the far side are hidden
            middle = (0.072 * math.cos(angle), 0.012 + 0.026 * math.sin(angle) - 0.006)
            canvas.box(place, middle, (0.005, 0.011), shaded(color, 0.3))
    canvas.disc(place, (0.0, -0.01), (0.074, 0.028), color)
    spot = (0.04 * math.cos(turned), -0.01 + 0.014 * math.sin(turned))
    canvas.disc(place, spot, (0.02, 0.008), _WHITE)


def _closed_jar(canvas: Canvas, thing: Thing) -> None:
    _jar(canvas, thing)
    lid(canvas, lid_place(thing.place), shaded(thing.color, 1.25), turned=0.0)


def lid_place(jar: Place) -> Place:
    """Where the lid of a closed jar is."""
    x, y = jar.point(0.0, -0.09)
    return Place(x=x, y=y, radians=jar.radians, size=jar.size)


def _cup(canvas: Canvas, thing: Thing) -> None:
    place, color = thing.place, thing.color
    canvas.disc(place, (0.09, 0.0), (0.04, 0.042), shaded(color, 0.7), hole=0.55)
    canvas.disc(place, (0.0, 0.05), (0.072, 0.035), shaded(color, 0.8))
    canvas.box(place, (0.0, 0.0), (0.08, 0.055), shaded(color, 0.8), corner=0.012)
    canvas.box(place, (-0.045, 0.005), (0.014, 0.045), shaded(color, 1.1), corner=0.01)
    canvas.disc(place, (0.0, -0.055), (0.083, 0.036), shaded(color, 1.2))
    canvas.disc(place, (0.0, -0.055), (0.072, 0.029), shaded(color, 0.35))
    level = 0.25 + 0.7 * thing.filled
    canvas.disc(place, (0.0, -0.055 + 0.012 * (1.0 - level)), (0.07 * level, 0.026 * level), (132.0, 92.0, 56.0))


def _bottle(canvas: Canvas, thing: Thing) -> None:
    place, color = thing.place, thing.color
    canvas.box(place, (0.0, 0.0), (0.05, 0.085), color, corner=0.018)
    canvas.box(place, (0.0, -0.11), (0.02, 0.05), shaded(color, 0.85), corner=0.008)
    canvas.box(place, (0.0, 0.01), (0.05, 0.03), _WHITE)
    canvas.box(place, (0.0, -0.158), (0.024, 0.01), shaded(color, 0.5), corner=0.004)


def _bread(canvas: Canvas, thing: Thing) -> None:
    place = thing.place
    canvas.disc(place, (0.0, 0.01), (0.17, 0.12), _WHITE)
    canvas.disc(place, (0.0, 0.01), (0.145, 0.1), shaded(_WHITE, 0.88))
    canvas.box(place, (0.0, 0.0), (0.105, 0.08), _CRUST, corner=0.03)
    canvas.box(place, (0.0, 0.0), (0.093, 0.068), _CRUMB, corner=0.026)
    for blob in range(round(9 * thing.filled)):
        middle = (-0.066 + 0.0165 * blob, 0.022 * math.sin(2.4 * blob))
        canvas.disc(place, middle, (0.026, 0.034), thing.color)


def _plate(canvas: Canvas, thing: Thing) -> None:
    canvas.disc(thing.place, (0.0, 0.0), (0.14, 0.095), shaded(thing.color, 1.1))
    canvas.disc(thing.place, (0.0, 0.0), (0.1, 0.065), shaded(thing.color, 0.85))


def _box(canvas: Canvas, thing: Thing) -> None:
    canvas.box(thing.place, (0.0, 0.0), (0.075, 0.1), thing.color, corner=0.004)
    canvas.box(thing.place, (0.0, -0.03), (0.055, 0.03), _WHITE)
    canvas.box(thing.place, (0.0, 0.05), (0.055, 0.012), shaded(thing.color, 0.5))


THINGS: Mapping[str, Callable[[Canvas, Thing], None]] = {
    "bottle": _bottle,
    "box": _box,
    "bread": _bread,
    "closed jar": _closed_jar,
    "cup": _cup,
    "jar": _jar,
    "plate": _plate,
}
BYSTANDERS = ("bottle", "box", "bread", "closed jar", "cup", "plate")
"""What may lie on the table without being used."""


def spoon(canvas: Canvas, grip: tuple[float, float], tip: tuple[float, float], *, bowl: float) -> None:
    """A spoon or knife held at `grip`; `bowl` is the radius at its tip."""
    canvas.limb(grip, tip, (0.011, 0.009), shaded(_STEEL, 0.55))
    canvas.limb(grip, tip, (0.008, 0.006), _STEEL)
    if bowl:
        canvas.limb(tip, tip, (bowl, bowl), _STEEL)


def table(kind: str, first: Color, second: Color, seed: int) -> NDArray[np.float32]:
    """A periodic texture (side, side, 3) of two colours, with `TEXELS` per picture height.

    It has edges in both directions, which trackers of corners need, and few shades, which PNG files like.

    Args:
        kind: key of `TABLES`.
        first, second: colours.
        seed: of its grain.
    """
    rng = np.random.default_rng(seed)
    share = np.round(np.clip(TABLES[kind](rng), 0.0, 1.0) * 4.0) / 4.0  # (side, side)
    colors: NDArray[np.float32] = (np.array(first) + share[..., None] * np.subtract(second, first)).astype(np.float32)
    return colors


def _blotches(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Periodic value noise in [0, 1] with cells of (height, width) texels."""
    grid = rng.uniform(size=(_SIDE // height, _SIDE // width))
    y, x = np.arange(_SIDE) / height, np.arange(_SIDE) / width
    row, column = y.astype(int), x.astype(int)
    fy, fx = (y % 1.0)[:, None], (x % 1.0)[None, :]
    below, right = (row + 1) % len(grid), (column + 1) % grid.shape[1]
    above = grid[np.ix_(row, column)] * (1 - fx) + grid[np.ix_(row, right)] * fx
    under = grid[np.ix_(below, column)] * (1 - fx) + grid[np.ix_(below, right)] * fx
    noise: NDArray[np.float64] = above * (1 - fy) + under * fy
    return noise


def _planks(rng: np.random.Generator) -> NDArray[np.float64]:
    y, x = np.mgrid[:_SIDE, :_SIDE]
    board = y // 36
    ends = np.array([rng.integers(_SIDE) for _ in range(_SIDE // 36)])[board]
    grain = 0.25 + 0.5 * _blotches(rng, 6, 36) + 0.12 * (board % 3)
    gaps = (y % 36 < 2) | ((x - ends) % 144 < 2)
    return np.where(gaps, 1.0, grain * 0.7)


def _cloth(rng: np.random.Generator) -> NDArray[np.float64]:
    y, x = np.mgrid[:_SIDE, :_SIDE]
    checks = 0.5 * (x // 18 % 2) + 0.5 * (y // 18 % 2)
    woven: NDArray[np.float64] = checks * 0.8 + 0.25 * _blotches(rng, 18, 18)
    return woven


def _tiles(rng: np.random.Generator) -> NDArray[np.float64]:
    y, x = np.mgrid[:_SIDE, :_SIDE]
    shades = np.kron(rng.uniform(0.0, 0.3, size=(8, 8)), np.ones((36, 36)))
    # Plain tiles gave motion maps specks of motion: flow finds nothing to follow inside them.
    return np.where((x % 36 < 3) | (y % 36 < 3), 1.0, shades + 0.5 * _blotches(rng, 12, 12))


def _stone(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.clip(1.8 * (0.6 * _blotches(rng, 18, 18) + 0.4 * _blotches(rng, 12, 12)) - 0.4, 0.0, 1.0)


TABLES: Mapping[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "cloth": _cloth,
    "planks": _planks,
    "stone": _stone,
    "tiles": _tiles,
}
