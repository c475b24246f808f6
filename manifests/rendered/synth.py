"""A small labelled video set, rendered: what the demo, the tests and a first try run on without a download.

The class is the motion of a shape (`motion.py` says why one frame cannot tell it), the group is the subject
that moves, `kcal` grows with its speed, and split `unknown` has motions and subjects that training never sees.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.events import Event, Progress
from reelbank.manifests.files import filling
from reelbank.manifests.manifest import Clip, Manifest, ManifestError
from reelbank.manifests.notebooks import with_bar
from reelbank.manifests.rendered.colors import contrasting_pair
from reelbank.manifests.rendered.motion import (
    KNOWN_MOTIONS,
    KNOWN_OUTLINES,
    MOTIONS,
    UNKNOWN_MOTIONS,
    UNKNOWN_OUTLINES,
    Scene,
    Subject,
    draw,
    paint_ground,
)

UNKNOWN_SHARE = 0.1
VAL_SHARE = TEST_SHARE = 0.15
MIN_FRAMES = 32  # the shortest clip that 16 steps of frame pairs do not overlap in
SPEED_RANGE = (0.25, 1.0)  # share of the full rate; a static shape has 0
KCAL_AT_REST, KCAL_PER_SPEED, KCAL_NOISE = 60.0, 640.0, 12.0
KCAL_RANGE = (0.0, 1000.0)

# Every setting that could let threads or time into the file is fixed: the same seed gives the same bytes.
_CODEC_OPTIONS = {
    "preset": "veryfast",
    "crf": "18",
    "threads": "1",
    "x264-params": "threads=1:lookahead-threads=1:sliced-threads=0:keyint=25",
}
_CONTAINER_OPTIONS = {"fflags": "+bitexact", "movflags": "+faststart"}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One clip before it is rendered: its manifest row, its scene and its length."""

    clip: Clip
    scene: Scene
    num_frames: int


@with_bar("render")
def render(
    directory: str | os.PathLike[str],
    *,
    clips: int = 120,
    seed: int = 0,
    classes: Sequence[str] = KNOWN_MOTIONS,
    width_px: int = 128,
    height_px: int = 96,
    num_frames: tuple[int, int] = (40, 64),
    rate_fps: int = 25,
    camera_shake_px: float = 0.0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Render a set into DIRECTORY/videos/ (H.264 mp4) and write DIRECTORY/manifest.csv, the manifest last.

    Args:
        directory: made where it is not there.
        clips: how many, all splits together.
        seed: the same one gives the same manifest and, with the same PyAV, the same bytes of video.
        classes: known classes, keys of `motion.MOTIONS`.
        width_px, height_px: even, 32 or more.
        num_frames: least and most frames per clip, both included; 32 or more.
        rate_fps: frames per second.
        camera_shake_px: how far the whole picture swings; 0: the camera stays still.
        overwrite: replace the set that is there; videos of a larger earlier set stay beside the new ones.
        progress: called after each clip.

    Returns:
        The manifest, as `read` gives it.

    Raises:
        ManifestError: a manifest is there already and `overwrite` is not set, or an argument is out of range.
    """
    from reelbank.manifests.reading import read, write

    directory = Path(directory)
    path = directory / "manifest.csv"
    planned = plan(
        clips=clips,
        seed=seed,
        classes=classes,
        width_px=width_px,
        height_px=height_px,
        num_frames=num_frames,
        rate_fps=rate_fps,
        camera_shake_px=camera_shake_px,
    )
    if path.exists() and not overwrite:
        raise ManifestError(f"{path} is there already; render into another folder or pass --overwrite")
    # An interrupted run must not leave a manifest whose videos are from two sets, or are not there.
    with filling(directory, last=path.name) as made:
        (made / "videos").mkdir()
        for num_done, one in enumerate(planned, start=1):
            _encode(one, made / one.clip.video)
            if progress is not None:
                progress(Event(stage="render", done=num_done, total=len(planned), message=one.clip.clip_id))
        rows = tuple(one.clip for one in planned)
        write(Manifest(path=None, root=made, clips=rows, target_names=("kcal",)), made / path.name)
    return read(path)


def plan(
    *,
    clips: int = 120,
    seed: int = 0,
    classes: Sequence[str] = KNOWN_MOTIONS,
    width_px: int = 128,
    height_px: int = 96,
    num_frames: tuple[int, int] = (40, 64),
    rate_fps: int = 25,
    camera_shake_px: float = 0.0,
) -> list[Planned]:
    """What `render` renders, without doing it; takes the same arguments and raises the same errors."""
    _check(clips, seed, classes, width_px, height_px, num_frames, rate_fps, camera_shake_px)
    other = [name for name in UNKNOWN_MOTIONS if name not in classes]
    planned: list[Planned] = []
    subject_number = 0
    for split, size in split_sizes(clips, num_classes=len(classes)).items():
        motions = list(other if split == "unknown" else classes)
        for first in range(0, size, len(motions)):
            subject_number += 1
            rng = np.random.default_rng([seed, subject_number])
            subject = _subject(rng, UNKNOWN_OUTLINES if split == "unknown" else KNOWN_OUTLINES)
            # One subject shows every motion once, so who moves tells nothing about how.
            for motion in rng.permutation(motions)[: size - first]:
                speed = float(rng.uniform(*SPEED_RANGE)) if MOTIONS[motion] else 0.0
                x, y, radius, opening, angle = (float(phase) for phase in rng.uniform(size=5))
                scene = Scene(
                    motion=str(motion),
                    speed=speed,
                    start=(x, y, radius, opening, angle),
                    subject=subject,
                    width_px=width_px,
                    height_px=height_px,
                    rate_fps=rate_fps,
                    camera_shake_px=camera_shake_px,
                )
                kcal = KCAL_AT_REST + KCAL_PER_SPEED * speed + rng.normal(0.0, KCAL_NOISE)
                name = f"clip_{len(planned) + 1:05d}"
                clip = Clip(
                    clip_id=name,
                    video=f"videos/{name}.mp4",
                    split=split,
                    label=str(motion),
                    group=f"subject_{subject_number:04d}",
                    targets={"kcal": round(float(np.clip(kcal, *KCAL_RANGE)), 1)},
                )
                length = int(rng.integers(num_frames[0], num_frames[1] + 1))
                planned.append(Planned(clip=clip, scene=scene, num_frames=length))
    return planned


def split_sizes(clips: int, *, num_classes: int) -> dict[str, int]:
    """Clips per split: a tenth `unknown`, of the rest 15 % each `val` and `test`, but every class once where
    there are enough for that in all three.
    """
    unknown = int(UNKNOWN_SHARE * clips)
    known = clips - unknown
    held_out = max(round(VAL_SHARE * known), min(num_classes, known // 3))
    sizes = {"train": known - 2 * held_out, "val": held_out, "test": held_out, "unknown": unknown}
    return {split: size for split, size in sizes.items() if size}


def _check(
    clips: int,
    seed: int,
    classes: Sequence[str],
    width_px: int,
    height_px: int,
    num_frames: tuple[int, int],
    rate_fps: int,
    camera_shake_px: float,
) -> None:
    least, most = num_frames
    wrong = [name for name in classes if name not in MOTIONS]
    problems = {
        f"{clips = }: expected 1 or more": clips < 1,
        f"{seed = }: expected 0 or more": seed < 0,
        f"{width_px = }, {height_px = }: H.264 needs even sizes, and a shape is seen from 32 px up": any(
            size < 32 or size % 2 for size in (width_px, height_px)
        ),
        f"{num_frames = }: expected (least, most), {MIN_FRAMES} or more": not MIN_FRAMES <= least <= most,
        f"{rate_fps = }: expected 1 or more": rate_fps < 1,
        f"{camera_shake_px = }: expected 0 or more": not camera_shake_px >= 0,
        f"classes {wrong} are no motions; choose from {', '.join(sorted(MOTIONS))}": bool(wrong),
        f"{classes = }: expected two or more, each once": len(classes) < 2 or len(set(classes)) < len(classes),
        f"{classes = }: leaves no motion for the unknown split": set(UNKNOWN_MOTIONS) <= set(classes),
    }
    for message, is_wrong in problems.items():
        if is_wrong:
            raise ManifestError(f"synth: {message}")


def _subject(rng: np.random.Generator, outlines: Sequence[str]) -> Subject:
    color, ground = contrasting_pair(rng)
    return Subject(
        outline=str(rng.choice(list(outlines))),
        color=color,
        ground=ground,
        texture_seed=int(rng.integers(2**31)),
        stripes=float(rng.uniform(3.0, 6.0)),
    )


def _encode(planned: Planned, path: Path) -> None:
    import av

    scene = planned.scene
    with av.open(str(path), mode="w", format="mp4", options=_CONTAINER_OPTIONS) as container:
        stream = container.add_stream("libx264", rate=Fraction(scene.rate_fps), options=dict(_CODEC_OPTIONS))
        stream.width, stream.height, stream.pix_fmt = scene.width_px, scene.height_px, "yuv420p"
        for frame in _frames(planned):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _frames(planned: Planned) -> Iterable[NDArray[np.uint8]]:
    ground = paint_ground(planned.scene)
    return (draw(planned.scene, index, ground) for index in range(planned.num_frames))
