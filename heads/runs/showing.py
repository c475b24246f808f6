"""The picture of what a head reads of one clip, made when its run ends, from the arrays at hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reelbank.extract.backbones.flow_taps import encode_8bit
from reelbank.heads.examples.arrays import ArrayTap, Draw
from reelbank.heads.examples.batches import steps_of
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.models.layers.motion_segmentation import motion_target
from reelbank.heads.reports.drawing import Heading, png
from reelbank.heads.reports.input_strip import input_strip, rows_of
from reelbank.heads.reports.picture_rows import PictureRow
from reelbank.heads.reports.run_page import INPUTS
from reelbank.heads.runs.looking import holds_pictures, pictures_of, thumbnail_of
from reelbank.heads.runs.results import Finished
from reelbank.store.files import write_whole

GRAY_SIZES = (14, 7)
"""px of the means that heads learn of gray maps of 28 px."""


def write_input_strip(directory: Path, prepared: Prepared, found: Finished) -> str:
    """Writes `figures/inputs.png` of the first clip that is reported, where the head reads arrays.

    Returns why there is none, for a note; '' else. A run does not fail for want of a picture.
    """
    part = found.predictions.get(found.results["reported"])
    if prepared.arrays is None or part is None or not len(part.rows):
        return ""
    try:
        picture = _strip(directory.name, prepared, int(part.rows[0]))
        (directory / "figures").mkdir(exist_ok=True)
        write_whole(directory / "figures" / INPUTS, picture)
    except (OSError, ValueError, RuntimeError) as error:  # a store that was moved or damaged meanwhile
        return f"no picture of what the head reads: {error}"
    return ""


def _strip(run: str, prepared: Prepared, clip: int) -> bytes:
    table, arrays = prepared.table, prepared.arrays
    assert arrays is not None
    rows: list[PictureRow] = []
    if not any(holds_pictures(tap) for tap in arrays.taps.values()):
        rows += _thumbnail(next(iter(arrays.taps.values())), clip)
    for name, tap in arrays.taps.items():
        if holds_pictures(tap):
            texts = [f"{value:.2f} s" for value in _seconds(tap, clip)]
            rows += rows_of(f"frames: {_named(tap)}", pictures_of(tap, arrays.crops.get(name), clip), texts)
        elif tap.input.values == "target":
            rows += _targets(tap, clip)
        else:
            rows += _steps(tap, clip)
    label = str(table.labels[clip])
    title = f"{table.clip_ids[clip]} ({table.splits[clip] or 'no split'}), {f'label {label}' if label else 'no label'}"
    heading = Heading(source=run, count="", warning=prepared.warning)
    return png(input_strip(title, rows, heading=heading))


def _named(tap: ArrayTap) -> str:
    return f"{tap.store.path.name} ({tap.store.spec.backbone}), tap {tap.tap}"


def _seconds(tap: ArrayTap, clip: int) -> list[float]:
    own = tap.index[clip][tap.mask[clip]]
    seconds: list[float] = tap.store.step_seconds(int(tap.rows[clip]))[own].tolist()
    return seconds


def _thumbnail(tap: ArrayTap, clip: int) -> Iterator[PictureRow]:
    picture = thumbnail_of(tap.store, int(tap.rows[clip]))
    if picture is not None:
        yield PictureRow(title="the middle frame of the clip, which the head does not see itself", pictures=[picture])


def _steps(tap: ArrayTap, clip: int) -> list[PictureRow]:
    """Flow, of a stack that in evaluation; or maps of a network."""
    steps, seconds = steps_of(tap, clip, 0), _seconds(tap, clip)
    if tap.stack_steps:
        middle = Draw(clips=np.array([clip]), views=np.zeros(1, dtype=np.int64), starts=np.full(1, np.nan))
        places, valid = (of_clips[0] for of_clips in tap.places(middle))
        steps, seconds = steps[places[valid]], [seconds[place] for place in places[valid].tolist()]
    if tap.input.values == "field" and steps.shape[1] == 2 and steps.dtype != np.uint8:
        steps = encode_8bit(steps)
    kind = "flow" if tap.input.values in ("field", "gray") and steps.dtype == np.uint8 else "maps"
    return rows_of(f"{kind}: {_named(tap)}", steps, [f"{value:.2f} s" for value in seconds])


def _targets(tap: ArrayTap, clip: int) -> Iterator[PictureRow]:
    """The target that is learnt, then the others of its store, which are the same maps at other sizes."""
    row, own, taps = int(tap.rows[clip]), tap.index[clip][tap.mask[clip]], tap.store.taps
    others = [name for name, spec in taps.items() if len(spec.shape) == 2 and name != tap.tap]
    others.sort(key=lambda name: (taps[name].dtype != "bool", -taps[name].shape[0]))
    for name in (tap.tap, *others):
        values: NDArray[Any] = tap.store.read(name, row)[0][own]
        title = f"{tap.input.about}: {tap.store.path.name}, tap {name}{'' if name == tap.tap else ', not read'}"
        yield from rows_of(f"{title}: {values.shape[1]} px", values)
        for size in GRAY_SIZES if values.dtype != np.bool_ and values.shape[1:] == (28, 28) else ():
            means = motion_target(torch.from_numpy(values.astype(np.float32))[None], size, "gray")[0].numpy()
            yield from rows_of(f"{title}: its means of {size} px", means)
