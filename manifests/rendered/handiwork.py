"""The eight actions of the rendered first-person set, frame by frame: which hand is where, and what it does.

`open_jar` and `close_jar` are one motion, as are `take_cup` and `put_cup`: the second is the first played backwards.
The others (`pour_water`, `shake_tea`, `spread_jam`, `stir_spoon`) have a thing and a rhythm of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.rendered.brush import Canvas, Place, Point
from reelbank.manifests.rendered.colors import Color
from reelbank.manifests.rendered.head_camera import Camera
from reelbank.manifests.rendered.kitchen import TEXELS, Thing, lid, lid_place, paint, shaded, spoon, table

BACKWARDS = {"close_jar": "open_jar", "put_cup": "take_cup"}
"""{action: the action that it is when it is played backwards}."""


@dataclass(frozen=True, kw_only=True)
class User:
    """The looks and ways of one user.

    Attributes:
        skin, sleeve: colours.
        table, table_colors, table_seed: texture of the table, see `kitchen.table`.
        light: factor per channel.
        elbow: where the right arm enters, in the picture; the left one enters opposite.
        hand_size: factor of the hand's lengths.
        rounds: how often a repeated motion is done in a clip of 32 frames.
    """

    skin: Color
    sleeve: Color
    table: str
    table_colors: tuple[Color, Color]
    table_seed: int
    light: tuple[float, float, float]
    elbow: Point
    hand_size: float
    rounds: float


@dataclass(frozen=True, kw_only=True)
class Take:
    """One clip before it is drawn.

    Attributes:
        action: key of `ACTIONS`.
        user: whose hands.
        path: the camera of every moment.
        thing: what is acted on; its kind is the action's.
        bystanders: what else lies on the table.
        begins, ends: share of the clip at which the action begins and is over.
        phase: of a repeated motion, radians.
        is_backwards: whether frame 0 is the last moment.
    """

    action: str
    user: User
    path: tuple[Camera, ...]
    thing: Thing
    bystanders: tuple[Thing, ...]
    begins: float
    ends: float
    phase: float
    is_backwards: bool

    @property
    def num_frames(self) -> int:
        """One per camera."""
        return len(self.path)

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The camera of every frame, in the order of the frames: where the head truly was."""
        return self.path[::-1] if self.is_backwards else self.path


@dataclass(frozen=True, kw_only=True)
class _Moment:
    """What an action is drawn from: `share` of it that is done, and turns of its repeated motion in radians."""

    canvas: Canvas
    user: User
    thing: Thing
    share: float
    turns: float

    def hand(self, grip: Point, *, is_closed: float, bend: float = 0.0, is_left: bool = False) -> None:
        """A forearm from the picture's lower edge to a hand whose finger tips are at `grip`."""
        side = -1.0 if is_left else 1.0
        elbow = self.canvas.camera.to_table(side * self.user.elbow[0], self.user.elbow[1])
        _paint_hand(self.canvas, self.user, elbow, grip, is_closed=is_closed, bend=bend, side=side)

    def away(self) -> Point:
        """Where a hand is that is not in the picture: below its edge."""
        return self.canvas.camera.to_table(self.user.elbow[0] * 0.8, 0.66)


def table_of(user: User) -> NDArray[np.float32]:
    """The texture of a user's table, to make it once per clip."""
    return table(user.table, *user.table_colors, user.table_seed)


def draw(take: Take, index: int, texture: NDArray[np.float32], *, width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Frame `index` of a take, uint8 RGB (H, W, 3).

    Args:
        take: what is done and seen.
        index: frame number, from 0.
        texture: `table_of(take.user)`.
        width_px, height_px: size of the picture.
    """
    moment = take.num_frames - 1 - index if take.is_backwards else index
    canvas = Canvas(texture, TEXELS, take.path[moment], width_px=width_px, height_px=height_px)
    for thing in take.bystanders:
        paint(canvas, thing)
    done = moment / max(take.num_frames - 1, 1)
    ACTIONS[take.action](
        _Moment(
            canvas=canvas,
            user=take.user,
            thing=take.thing,
            share=min(max((done - take.begins) / (take.ends - take.begins), 0.0), 1.0),
            turns=2.0 * math.pi * take.user.rounds * moment / 32.0 + take.phase,
        )
    )
    lit = canvas.picture * np.array(take.user.light, dtype=np.float32)
    # Steps of 4 grey levels: no one sees them, and the files are half as large.
    frame: NDArray[np.uint8] = (np.clip(lit + 2.0, 0, 255).astype(np.uint8) // 4) * np.uint8(4)
    return frame


def _paint_hand(
    canvas: Canvas, user: User, elbow: Point, grip: Point, *, is_closed: float, bend: float, side: float
) -> None:
    size = user.hand_size
    angle = math.atan2(grip[1] - elbow[1], grip[0] - elbow[0])
    arm = Place(x=grip[0], y=grip[1], radians=angle, size=size)
    hand = replace(arm, radians=angle + bend)
    wrist = hand.point(-0.17, 0.0)
    dark, sleeve = shaded(user.skin, 0.62), user.sleeve
    cuff = (wrist[0] + 0.3 * (elbow[0] - wrist[0]), wrist[1] + 0.3 * (elbow[1] - wrist[1]))
    # Every part is painted twice, a little larger and dark below, so that it stands out from skin-coloured wood.
    for grown, skin in ((0.007, dark), (0.0, user.skin)):
        canvas.limb(elbow, wrist, (0.06 * size + grown, 0.036 * size + grown), skin)
        canvas.limb(hand.point(-0.13, 0.0), hand.point(-0.085, 0.0), (0.05 * size + grown, 0.055 * size + grown), skin)
    spread = 0.031 - 0.008 * is_closed
    for finger in range(4):
        across = finger - 1.5
        length = (0.018, 0.036, 0.03, 0.012)[finger] * (1.0 - 0.7 * is_closed)
        root, tip = hand.point(-0.07, 0.024 * across), hand.point(length, spread * across)
        canvas.limb(root, tip, (0.019 * size, 0.016 * size), dark)
        canvas.limb(root, tip, (0.013 * size, 0.011 * size), user.skin)
    root, tip = hand.point(-0.115, -0.04 * side), hand.point(-0.02 - 0.01 * is_closed, -0.078 * side + 0.02 * is_closed)
    canvas.limb(root, tip, (0.024 * size, 0.019 * size), dark)
    canvas.limb(root, tip, (0.018 * size, 0.014 * size), user.skin)
    canvas.limb(elbow, cuff, (0.09 * size, 0.062 * size), shaded(sleeve, 0.6))
    canvas.limb(elbow, cuff, (0.082 * size, 0.054 * size), sleeve)


def _eased(share: float, begins: float, ends: float) -> float:
    """0 before `begins`, 1 after `ends`, smooth between them."""
    part = min(max((share - begins) / (ends - begins), 0.0), 1.0)
    return part * part * (3.0 - 2.0 * part)


def _between(first: Point, second: Point, share: float) -> Point:
    return first[0] + share * (second[0] - first[0]), first[1] + share * (second[1] - first[1])


def _take_cup(now: _Moment) -> None:
    """The hand comes, closes on the cup and carries it off towards the user."""
    place = now.thing.place
    carried = _eased(now.share, 0.45, 1.0)
    x, y = _between((place.x, place.y), now.canvas.camera.to_table(now.user.elbow[0] * 0.4, 0.6), carried)
    cup = replace(now.thing, place=replace(place, x=x, y=y, size=place.size * (1.0 + 0.25 * carried)))
    grip = _between(now.away(), cup.place.point(0.03, 0.02), _eased(now.share, 0.0, 0.4))
    paint(now.canvas, cup, lies=carried == 0.0)
    now.hand(grip, is_closed=_eased(now.share, 0.35, 0.5))


def _open_jar(now: _Moment) -> None:
    """The left hand holds the jar; the right one turns its lid, lifts it off and lays it beside."""
    jar = now.thing.place
    turned, carried = _eased(now.share, 0.2, 0.55), _eased(now.share, 0.55, 0.82)
    on, beside = lid_place(jar), jar.point(0.24, 0.06)
    x, y = _between((on.x, on.y), beside, carried)
    top = replace(on, x=x, y=y - 0.12 * math.sin(math.pi * carried))
    paint(now.canvas, now.thing)
    lid(now.canvas, top, shaded(now.thing.color, 1.25), turned=-2.5 * turned)
    now.hand(jar.point(-0.062, 0.035), is_closed=0.6, is_left=True)
    reach = _eased(now.share, 0.0, 0.2) - _eased(now.share, 0.84, 1.0)
    grip = _between(now.away(), top.point(0.05, 0.012), reach)
    bend = (0.55 - 1.1 * turned + 0.55 * carried) * _eased(now.share, 0.0, 0.2)
    now.hand(grip, is_closed=0.7 * reach, bend=bend)


def _pour_water(now: _Moment) -> None:
    """A bottle is tilted over a cup, and water runs."""
    tilt = _eased(now.share, 0.05, 0.3) - 0.75 * _eased(now.share, 0.8, 1.0)
    cup = now.thing.place
    paint(now.canvas, replace(now.thing, filled=_eased(now.share, 0.25, 0.85)))
    x, y = cup.point(0.24, -0.02 - 0.17 * tilt)
    bottle = Place(x=x, y=y + 0.008 * math.sin(now.turns), radians=-1.75 * tilt, size=cup.size)
    runs = tilt > 0.85
    if runs:
        mouth, level = bottle.point(0.0, -0.165), cup.point(0.01, -0.05)
        now.canvas.limb(mouth, (mouth[0], level[1]), (0.015, 0.011), (198.0, 222.0, 240.0))
        ripple = 0.5 + 0.3 * math.sin(3.0 * now.turns)
        now.canvas.disc(cup, (0.01, -0.052), (0.05 * ripple, 0.018 * ripple), (198.0, 222.0, 240.0), hole=0.7)
    red, green, blue = now.thing.color
    paint(now.canvas, Thing(kind="bottle", place=bottle, color=(blue, red, green)), lies=tilt < 0.02)
    now.hand(bottle.point(0.035, 0.06), is_closed=0.9)


def _shake_tea(now: _Moment) -> None:
    """A tea bag on its string is dipped into a cup again and again."""
    cup = now.thing.place
    lift = 0.5 + 0.5 * math.sin(now.turns * 1.3)
    paint(now.canvas, now.thing)
    x, y = cup.point(-0.02 + 0.012 * math.sin(0.5 * now.turns), -0.085 - 0.1 * lift)
    bag = Place(x=x, y=y, radians=0.1 * math.sin(now.turns), size=cup.size)
    fingers = bag.point(0.09, -0.11)
    now.hand(fingers, is_closed=0.9)  # behind the string: it would hide what it holds
    now.canvas.limb(fingers, (x, y), (0.006, 0.006), (250.0, 250.0, 250.0))
    now.canvas.box(bag, (0.0, 0.015), (0.034, 0.03), (104.0, 74.0, 40.0), corner=0.006)
    now.canvas.box(bag, (0.0, 0.01), (0.028, 0.018), (222.0, 196.0, 150.0), corner=0.004)


def _spread_jam(now: _Moment) -> None:
    """A knife goes to and fro over a slice of bread, which is covered more and more."""
    bread = now.thing.place
    paint(now.canvas, replace(now.thing, filled=0.1 + 0.9 * now.share))
    swing = math.sin(now.turns)
    tip = bread.point(-0.03 + 0.085 * swing, 0.008 * math.cos(now.turns))
    grip = bread.point(0.15 + 0.085 * swing, 0.05 + 0.02 * math.cos(now.turns))
    now.canvas.limb(_between(grip, tip, 0.45), tip, (0.02, 0.016), (120.0, 124.0, 130.0))
    spoon(now.canvas, grip, tip, bowl=0.0)
    now.canvas.limb(_between(grip, tip, 0.45), tip, (0.016, 0.012), (206.0, 208.0, 214.0))
    now.hand(grip, is_closed=1.0)


def _stir_spoon(now: _Moment) -> None:
    """A spoon goes round and round in a cup."""
    cup = now.thing.place
    x, y = math.cos(now.turns * 1.2), math.sin(now.turns * 1.2)
    paint(now.canvas, replace(now.thing, filled=0.8))
    now.canvas.disc(cup, (0.012 * x, -0.054 + 0.005 * y), (0.05, 0.018), (166.0, 124.0, 84.0), hole=0.75)
    tip, grip = cup.point(0.042 * x, -0.052 + 0.014 * y), cup.point(0.1 + 0.065 * x, -0.18 + 0.035 * y)
    spoon(now.canvas, grip, tip, bowl=0.018)
    now.hand(grip, is_closed=1.0)


ACTIONS: Mapping[str, Callable[[_Moment], None]] = {
    "close_jar": _open_jar,
    "open_jar": _open_jar,
    "pour_water": _pour_water,
    "put_cup": _take_cup,
    "shake_tea": _shake_tea,
    "spread_jam": _spread_jam,
    "stir_spoon": _stir_spoon,
    "take_cup": _take_cup,
}
USED = {
    "close_jar": "jar", "open_jar": "jar", "pour_water": "cup", "put_cup": "cup", "shake_tea": "cup",
    "spread_jam": "bread", "stir_spoon": "cup", "take_cup": "cup",
}  # fmt: skip
"""{action: kind of thing that it is done to}. Three of the five with a cup differ in motion and in what is held."""
