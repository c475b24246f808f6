"""A rendered first-person set in the folder layout of GTEA61: eight actions of four users, seen by a moving head.

What needs GTEA61's folders runs on it where the data set is not at hand. Frames alone are rendered: motion maps and
warp flow are what `featurize --model motion-map --model warp-flow` makes of them, so the layout's `mmaps`,
`flow_x_processed` and `flow_y_processed` are not there.

The two symmetric pairs are twins: clip k of `close_jar` is clip k of `open_jar` of the same user, played backwards. So
the frames of the two, without their order, are the same, and whatever does not look at the order (one frame at random,
a mean of frames or of their features) is right in exactly half of the cases. A frame whose place in the clip is
known may tell more: an opened jar at the beginning is one that is going to be closed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.datasets.gtea61 import FLOW, FRAME_PATTERN, FRAMES, read_gtea61
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.files import filling
from reelbank.manifests.manifest import Manifest, ManifestError
from reelbank.manifests.notebooks import with_bar
from reelbank.manifests.rendered.brush import Place
from reelbank.manifests.rendered.colors import Color
from reelbank.manifests.rendered.handiwork import ACTIONS, BACKWARDS, USED, Take, User, draw, table_of
from reelbank.manifests.rendered.head_camera import Manner, head_path
from reelbank.manifests.rendered.kitchen import BYSTANDERS, TABLES, Thing

USERS = ("S1", "S2", "S3", "S4")
RATE_FPS = 15
WIDTH_PX, HEIGHT_PX = 192, 144
NUM_FRAMES = (24, 40)
NUM_FRAMES_SHORT = (6, 12)
SHORT_SHARE = 0.1

_SKINS: tuple[Color, ...] = ((236, 190, 160), (205, 150, 112), (158, 104, 72), (104, 66, 46))
_SLEEVES: tuple[Color, ...] = ((60, 84, 150), (172, 52, 60), (70, 130, 84), (214, 186, 92))
_TABLES: dict[str, tuple[Color, Color]] = {
    "cloth": ((226, 222, 212), (120, 146, 178)),
    "planks": ((176, 128, 82), (84, 54, 32)),
    "stone": ((96, 100, 108), (190, 192, 196)),
    "tiles": ((150, 178, 166), (236, 236, 230)),
}
# Warm, cool, bright and dim: factors of red, green and blue.
_LIGHTS = ((1.0, 0.97, 0.88), (0.86, 0.93, 1.0), (1.06, 1.05, 1.03), (0.8, 0.78, 0.76))
_OUR_FRAME = re.compile(rf"({'|'.join(USERS)})/({'|'.join(sorted(ACTIONS))})/\d+/rgb/rgb\d{{4}}\.png")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One clip before it is rendered: its folder `S?/<action>/<inst>`, which is its id, and what is seen."""

    clip_id: str
    take: Take


@with_bar("render")
def render(
    directory: str | os.PathLike[str],
    *,
    clips: int = 160,
    seed: int = 0,
    width_px: int = WIDTH_PX,
    height_px: int = HEIGHT_PX,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Render a set into DIRECTORY/processed_frames2/ (PNG files) and write DIRECTORY/manifest.csv, the manifest last.

    Args:
        directory: made where it is not there.
        clips: how many; 160 is five per class and user. A smaller set is a part of a larger one of the same seed.
        seed: the same one gives the same pictures and, with the same Pillow, the same bytes of PNG.
        width_px, height_px: 32 or more. Official frames are larger; everything that reads them scales them.
        overwrite: replace the rendered set that is there.
        progress: called after each clip.

    Returns:
        The manifest, as `reelbank manifest gtea61` gives it: split `test` for user S2, group = user.

    Raises:
        ManifestError: frames or a manifest are there already and `overwrite` is not set, the frames there are not of a
            rendered set, or an argument is out of range.
    """
    from reelbank.manifests.reading import read, write

    directory = Path(directory)
    path = directory / "manifest.csv"
    planned = plan(clips=clips, seed=seed)
    if min(width_px, height_px) < 32:
        raise ManifestError(f"synth-gtea61: {width_px = }, {height_px = }: nothing is seen below 32 px")
    earlier = _earlier_frames(directory)
    if (earlier or path.exists()) and not overwrite:
        found = path if path.exists() else directory / FRAMES
        raise ManifestError(f"{found} is there already; render into another folder or pass --overwrite")
    # An interrupted run must not leave a manifest whose frames are from two sets, or are not there.
    with filling(directory, stale=earlier, last=path.name) as made:
        for num_done, one in enumerate(planned, start=1):
            _write(one, made / FRAMES / one.clip_id / "rgb", width_px, height_px)
            if progress is not None:
                progress(Event(stage="render", done=num_done, total=len(planned), message=one.clip_id))
        # Notes are about what a data set should have and lacks, which is meant here.
        write(replace(read_gtea61(made, rate_fps=RATE_FPS), notes=()), made / path.name)
    _remove_empty(directory / FRAMES)
    return read(path)


def plan(*, clips: int = 160, seed: int = 0) -> list[Planned]:
    """What `render` renders, without doing it; raises the same errors.

    The order is by instance, then action, then user, so that the first 32 clips have every class of every user.
    """
    if clips < 1 or seed < 0:
        raise ManifestError(f"synth-gtea61: {clips = }, {seed = }: expected 1 clip or more, and a seed of 0 or more")
    users = _users(np.random.default_rng([seed, 0]))
    actions = sorted(ACTIONS, key=lambda action: (action not in BACKWARDS.values() and action not in BACKWARDS, action))
    planned = []
    for number in range(clips):
        rest, which_user = divmod(number, len(USERS))
        instance, which_action = divmod(rest, len(actions))
        action = actions[which_action]
        planned.append(
            Planned(
                clip_id=f"{USERS[which_user]}/{action}/{instance + 1}",
                take=_take(action, users[which_user], [seed, 1 + which_user, instance]),
            )
        )
    return planned


def frames(planned: Planned, *, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> Iterator[NDArray[np.uint8]]:
    """The frames of a planned clip, uint8 RGB (H, W, 3) each, without writing them."""
    texture = table_of(planned.take.user)
    for index in range(planned.take.num_frames):
        yield draw(planned.take, index, texture, width_px=width_px, height_px=height_px)


def _users(rng: np.random.Generator) -> tuple[tuple[User, Manner], ...]:
    """Four people who share no skin, sleeve, table, light and way of moving."""
    skins, sleeves, lights = (rng.permutation(4) for _ in range(3))
    tables = rng.permutation(sorted(TABLES))
    made = []
    for which, kind in enumerate(tables.tolist()):
        first, second = _TABLES[kind]
        user = User(
            skin=_SKINS[skins[which]],
            sleeve=_SLEEVES[sleeves[which]],
            table=kind,
            table_colors=(first, second),
            table_seed=int(rng.integers(2**31)),
            light=_LIGHTS[lights[which]],
            elbow=(float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.65, 0.75))),
            hand_size=float(rng.uniform(1.1, 1.35)),
            rounds=float(rng.uniform(2.2, 4.0)),
        )
        manner = Manner(
            reach=(0.09, float(rng.uniform(0.11, 0.15))),
            frames_per_round=(26.0, float(rng.uniform(30.0, 38.0))),
            nod=float(rng.uniform(0.002, 0.012)),
            tilt_radians=float(rng.uniform(0.02, 0.09)),
            zoom_share=float(rng.uniform(0.02, 0.07)),
        )
        made.append((user, manner))
    return tuple(made)


def _take(action: str, user_and_manner: tuple[User, Manner], seeds: list[int]) -> Take:
    user, manner = user_and_manner
    forwards = BACKWARDS.get(action, action)  # twins draw the same numbers
    rng = np.random.default_rng([*seeds, sorted(ACTIONS).index(forwards)])
    is_short = rng.uniform() < SHORT_SHARE
    num_frames = int(rng.integers(*(NUM_FRAMES_SHORT if is_short else NUM_FRAMES), endpoint=True))
    place = Place(
        x=float(rng.uniform(-0.16, 0.04)),
        y=float(rng.uniform(-0.1, 0.02)),
        radians=float(rng.uniform(-0.12, 0.12)),
        size=float(rng.uniform(1.2, 1.5)),
    )
    return Take(
        action=action,
        user=user,
        path=head_path(rng, manner, num_frames),
        thing=Thing(kind=USED[action], place=place, color=_paint(rng), filled=float(rng.uniform(0.2, 0.9))),
        bystanders=_bystanders(rng),
        begins=float(rng.uniform(0.0, 0.12)),
        ends=float(rng.uniform(0.88, 1.0)),
        phase=float(rng.uniform(0.0, 2.0 * math.pi)),
        is_backwards=action in BACKWARDS,
    )


def _bystanders(rng: np.random.Generator) -> tuple[Thing, ...]:
    """One to three things around what is used, the far ones first, as they are painted."""
    spots = rng.permutation([(-0.46, -0.24), (0.44, -0.26), (-0.02, -0.4), (-0.5, 0.12)])[: rng.integers(1, 4)]
    things = []
    for x, y in sorted(spots.tolist(), key=lambda spot: spot[1]):
        dx, dy, radians = rng.uniform(-1.0, 1.0, size=3) * (0.06, 0.05, 0.3)
        things.append(
            Thing(
                kind=str(rng.choice(BYSTANDERS)),
                place=Place(x=x + dx, y=y + dy, radians=radians, size=float(rng.uniform(0.8, 1.1))),
                color=_paint(rng),
                filled=float(rng.uniform()),
            )
        )
    return tuple(things)


def _paint(rng: np.random.Generator) -> Color:
    """Any hue, neither black nor white."""
    red, green, blue = (40.0 + 170.0 * rng.uniform(size=3)).tolist()
    return red, green, blue


def _write(planned: Planned, folder: Path, width_px: int, height_px: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for number, frame in enumerate(frames(planned, width_px=width_px, height_px=height_px), start=1):
        Image.fromarray(frame).save(folder / (FRAME_PATTERN % number), compress_level=6)


def _earlier_frames(directory: Path) -> list[str]:
    """Files of a rendered set below `directory`, relative to it.

    Raises:
        ManifestError: there is something else among them, as in the true data set: it is never replaced.
    """
    found = []
    for tree in (FRAMES, *FLOW.values()):
        for folder, _, names in os.walk(directory / tree):
            for name in names:
                file = Path(folder, name)
                if tree != FRAMES or not _OUR_FRAME.fullmatch(file.relative_to(directory / tree).as_posix()):
                    raise ManifestError(
                        f"{file} is not of a rendered set, which has frames alone; render into another folder"
                    )
                found.append(file.relative_to(directory).as_posix())
    return found


def _remove_empty(tree: Path) -> None:
    """Removes folders that a smaller set has left empty: a reader would count them as clips without frames."""
    for folder, _, _ in os.walk(tree, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
