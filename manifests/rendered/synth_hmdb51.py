"""A rendered set in the layout of HMDB51 whose class is outline x direction: three outlines, four directions.

One frame tells the outline and the motion tells the direction (`drifting` says why), so a model of single frames is
right in at most one clip of four and a model of the motion alone in one of three. Clip n of a subject is one picture
for all twelve classes, but for the outline: the clips of one outline have the same middle frame, to the bit, also when
it is decoded, and those of opposite directions are each other's played backwards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.datasets.hmdb51 import FOLDS, read_hmdb51
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.files import filling
from reelbank.manifests.manifest import Manifest, ManifestError
from reelbank.manifests.notebooks import with_bar
from reelbank.manifests.rendered.drifting import (
    CLASSES,
    HEIGHT_PX,
    WIDTH_PX,
    Scene,
    draw,
    drifted,
    make_look,
    make_scene,
)

RATE_FPS = 30
NUM_FRAMES = 25
MIDDLE = NUM_FRAMES // 2
SPEEDS_PX = (2, 3, 4)
"""Per frame, of one subject after the other."""
LISTS = "splits"
TEST_SHARE = 0.3
"""Of the subjects, in each split: HMDB51 has 30 test clips to 70 training clips."""

# Every frame is coded by itself, with a fixed quantiser: what comes before a frame leaves no trace in it.
_CODEC_OPTIONS = {"threads": "1", "g": "1", "bf": "0", "qmin": "5", "qmax": "5", "flags": "+bitexact"}
_CONTAINER_OPTIONS = {"fflags": "+bitexact"}
_OUR_FILE = re.compile(
    rf"({'|'.join(CLASSES)})/subject_\d{{3}}_\1_f_cm_np1_fr_med_\d+\.avi"
    rf"|{LISTS}/({'|'.join(CLASSES)})_test_split[123]\.txt"
)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One clip before it is rendered.

    Attributes:
        label: its class, `<outline>_<direction>`.
        subject: number from 1 of who is seen: the source and the group.
        number: of the clip among those of its subject and class, from 0.
        scene: the picture that drifts.
    """

    label: str
    subject: int
    number: int
    scene: Scene

    @property
    def file(self) -> str:
        """`<class>/<source>_<class>_f_cm_np1_fr_med_<n>.avi`."""
        return f"{self.label}/subject_{self.subject:03d}_{self.label}_f_cm_np1_fr_med_{self.number}.avi"


@with_bar("render")
def render(
    directory: str | os.PathLike[str],
    *,
    subjects: int = 10,
    clips_per_class: int = 20,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Render a set into DIRECTORY/<class>/ (MPEG-4 in AVI) and DIRECTORY/splits/; DIRECTORY/manifest.csv comes last.

    Args:
        directory: made where it is not there.
        subjects: how many sources, each with its own colours, texture, width of line and speed.
        clips_per_class: of all subjects together, which take turns; at least one of each.
        seed: the same one gives the same pictures and, with the same PyAV, the same bytes of video.
        overwrite: replace the rendered set that is there.
        progress: called after each clip.

    Returns:
        The manifest, as `reelbank manifest hmdb51 --groups films` gives it for split 1: group = subject.

    Raises:
        ManifestError: videos, lists or a manifest are there already and `overwrite` is not set, those there are not of
            a rendered set, or an argument is out of range.
    """
    from reelbank.manifests.reading import read, write

    directory = Path(directory)
    path = directory / "manifest.csv"
    planned = plan(subjects=subjects, clips_per_class=clips_per_class, seed=seed)
    earlier = earlier_files(directory, (*CLASSES, LISTS), _OUR_FILE)
    if (earlier or path.exists()) and not overwrite:
        raise ManifestError(
            f"{path if path.exists() else directory / earlier[0]} is there already; render into another folder or pass "
            "--overwrite"
        )
    with filling(directory, stale=earlier, last=path.name) as made:
        for folder in (*CLASSES, LISTS):
            (made / folder).mkdir()
        for num_done, one in enumerate(planned, start=1):
            _encode(one, made / one.file)
            if progress is not None:
                progress(Event(stage="render", done=num_done, total=len(planned), message=one.file))
        _write_lists(planned, subjects, made / LISTS)
        # Notes are about what was found in a data set; here it was made.
        write(replace(read_hmdb51(made, groups="films"), notes=()), made / path.name)
    return read(path)


def plan(*, subjects: int = 10, clips_per_class: int = 20, seed: int = 0) -> list[Planned]:
    """What `render` renders, without doing it; raises the same errors.

    The order is by number, then subject, then class.
    """
    if subjects < len(FOLDS) or seed < 0:
        raise ManifestError(
            f"synth-hmdb51: {subjects = }, {seed = }: expected {len(FOLDS)} subjects or more, one to test in each "
            "split, and a seed of 0 or more"
        )
    if clips_per_class < subjects:
        raise ManifestError(
            f"synth-hmdb51: {clips_per_class = } for {subjects = }: every subject needs a clip of each class; render "
            f"{subjects} clips per class or more, or fewer subjects"
        )
    looks = [
        make_look(np.random.default_rng([seed, 0, which]), speed_px=SPEEDS_PX[which % len(SPEEDS_PX)])
        for which in range(subjects)
    ]
    planned = []
    for turn in range(clips_per_class):
        number, which = divmod(turn, subjects)
        scene = make_scene(np.random.default_rng([seed, 1, which, number]), looks[which])
        planned += [Planned(label=label, subject=which + 1, number=number, scene=scene) for label in CLASSES]
    return planned


def frames(planned: Planned) -> Iterator[NDArray[np.uint8]]:
    """The frames of a planned clip, uint8 RGB (120, 160, 3) each, without coding them."""
    outline, direction = planned.label.split("_")
    picture = draw(planned.scene, outline)
    for index in range(NUM_FRAMES):
        yield drifted(picture, direction, (index - MIDDLE) * planned.scene.look.speed_px)


def held_out_subjects(subjects: int, fold: int) -> range:
    """The numbers of the subjects that split `fold` tests: three parts that share nobody."""
    size = max(int(TEST_SHARE * subjects), 1)
    return range((fold - 1) * size + 1, fold * size + 1)


def earlier_files(directory: Path, folders: tuple[str, ...], ours: re.Pattern[str]) -> list[str]:
    """Files in `folders` of a rendered set, relative to `directory`.

    Raises:
        ManifestError: there is something else among them, as in the true data set: it is never replaced.
    """
    found = []
    for folder in folders:
        for place, _, names in os.walk(directory / folder):
            for name in sorted(names):
                file = Path(place, name).relative_to(directory).as_posix()
                if not ours.fullmatch(file):
                    raise ManifestError(f"{directory / file} is not of a rendered set; render into another folder")
                found.append(file)
    return found


def _write_lists(planned: list[Planned], subjects: int, folder: Path) -> None:
    """Lines as the official ones: `<file>.avi 1 ` is training, 2 is test."""
    for fold in FOLDS:
        test = held_out_subjects(subjects, fold)
        for label in CLASSES:
            own = [one for one in planned if one.label == label]
            lines = [f"{Path(one.file).name} {2 if one.subject in test else 1} \n" for one in own]
            (folder / f"{label}_test_split{fold}.txt").write_text("".join(lines), encoding="utf-8")


def _encode(planned: Planned, path: Path) -> None:
    import av

    with av.open(str(path), mode="w", format="avi", options=_CONTAINER_OPTIONS) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(RATE_FPS), options=dict(_CODEC_OPTIONS))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for frame in frames(planned):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
