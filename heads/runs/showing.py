"""The picture of what a head reads of one clip, made when its run ends, from the arrays at hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.heads.examples.arrays import ArrayTap, Draw
from reelbank.heads.examples.batches import steps_of
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.reports.drawing import Heading, png
from reelbank.heads.reports.input_strip import input_strip, rows_of
from reelbank.heads.reports.picture_rows import PictureRow
from reelbank.heads.reports.run_page import INPUTS
from reelbank.heads.runs.looking import holds_pictures, pictures_of, thumbnail_of
from reelbank.heads.runs.results import Finished
from reelbank.store.files import write_whole


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
            rows += rows_of(
                f"{tap.input.about}, of {_named(tap)}", pictures_of(tap, arrays.crops.get(name), clip), texts
            )
        elif tap.input.values == "target":
            rows += _targets(tap, clip)
        else:
            rows += _steps(tap, clip)
    label = str(table.labels[clip])
    title = f"{table.clip_ids[clip]} ({table.splits[clip] or 'no split'}), {f'label {label}' if label else 'no label'}"
    heading = Heading(source=run, count="", warning=prepared.warning)
    return png(input_strip(title, rows, heading=heading))


def _named(tap: ArrayTap) -> str:
    return f"{tap.store.path.name}, tap {tap.tap}"


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
        places = tap.places(middle)[0][0]
        steps, seconds = steps[places], [seconds[place] for place in places.tolist()]
    return rows_of(f"{tap.input.about}, of {_named(tap)}", steps, [f"{value:.2f} s" for value in seconds])


def _targets(tap: ArrayTap, clip: int) -> Iterator[PictureRow]:
    """The target that is learnt, then the others of its store, which are the same maps at other sizes."""
    row, own = int(tap.rows[clip]), tap.index[clip][tap.mask[clip]]
    others = [name for name, spec in tap.store.taps.items() if len(spec.shape) == 2 and name != tap.tap]
    for name in (tap.tap, *others):
        values: NDArray[Any] = tap.store.read(name, row)[0][own]
        size = " x ".join(map(str, values.shape[1:]))
        said = "what is learnt" if name == tap.tap else "not read"
        yield from rows_of(f"{tap.input.about}, tap {name}, {size} px: {said}", values)
