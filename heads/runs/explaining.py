"""Where the heads of runs look in the frames of clips, as a picture, beside what they say of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reelbank.heads.errors import TrainingError
from reelbank.heads.explain_config import ExplainConfig
from reelbank.heads.reports.attention_maps import cam_overlay
from reelbank.heads.reports.drawing import Heading, png
from reelbank.heads.reports.picture_rows import MOST_COLUMNS, Block, PictureRow, columns_of, picture_rows
from reelbank.heads.runs.class_maps import ClassMaps, class_maps
from reelbank.heads.runs.looking import (
    FrameStore,
    Way,
    maps_of,
    pictured,
    way_of,
)
from reelbank.heads.runs.opened import OpenRun, opened, said_of
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.devices import check_has_float64, cpu_threads, resolve_device
from reelbank.store.files import write_whole


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Where one run looks in one clip.

    Attributes:
        run: its directory.
        said: what it predicts, in words.
        prediction: the same as JSON types.
        maps: (T, h, w) float32, as the head gives them.
        frames: (T,) index in the video of each frame that it reads.
    """

    run: str
    said: str
    prediction: Mapping[str, Any]
    maps: NDArray[np.float32]
    frames: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One clip.

    Attributes:
        frames, seconds: (C,) of the steps that are shown.
        pictures: (C, H, W, 3) uint8 of them.
        source: what the pictures are.
        runs: in the order that was asked for.
    """

    clip_id: str
    split: str
    label: str
    frames: NDArray[np.int64]
    seconds: NDArray[np.float64]
    pictures: NDArray[np.uint8]
    source: str
    runs: tuple[Looked, ...]

    def overlays(self, looked: Looked) -> list[NDArray[np.uint8]]:
        """The pictures under the heat of a run's maps, at the frames nearest to them, of two the later one."""
        last = len(looked.frames) - 1
        places = last - np.abs(looked.frames[None, ::-1] - self.frames[:, None]).argmin(axis=1)
        return [cam_overlay(looked.maps[place], image) for place, image in zip(places, self.pictures, strict=True)]

    @property
    def title(self) -> str:
        """Clip, split, label."""
        label = f", true label {self.label}" if self.label else ", no label"
        return f"{self.clip_id} ({self.split}){label}" if self.split else f"{self.clip_id}{label}"

    def to_json(self) -> dict[str, Any]:
        """As JSON types, without pictures and maps."""
        return {
            "clip_id": self.clip_id,
            "split": self.split,
            "label": self.label,
            "frame_index": self.frames.tolist(),
            "seconds": [round(value, 6) for value in self.seconds.tolist()],
            "pictures": self.source,
            "runs": [{"run": one.run, **one.prediction} for one in self.runs],
        }


@dataclass(frozen=True, kw_only=True)
class ExplainResult:
    """What was looked at.

    Attributes:
        picture: the PNG that was written.
        maps: the .npz, where one was asked for: `clips`, `runs`, and of clip i and run j `attention-i-j` (T, h, w) and
            `frame_index-i-j` (T,).
        warning: the sentence that must stand wherever a number of these runs is shown; empty for trained backbones.
        notes: sentences.
    """

    clips: tuple[Explained, ...]
    picture: Path
    maps: Path | None
    warning: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "picture": str(self.picture),
            "maps": None if self.maps is None else str(self.maps),
            "warning": self.warning,
            "notes": list(self.notes),
            "clips": [clip.to_json() for clip in self.clips],
        }

    def text(self) -> str:
        """For a terminal: what each run says of each clip, and where the picture is."""
        lines = [self.warning] if self.warning else []
        for clip in self.clips:
            lines += [clip.title, *(f"  {one.run}: {one.said}" for one in clip.runs)]
        lines += [*self.notes, f"Picture: {self.picture}"]
        return "\n".join([*lines, *([f"Maps: {self.maps}"] if self.maps else [])])


@dataclass(frozen=True, kw_only=True)
class _Seeing:
    """A run and how it is asked where it looks."""

    run: OpenRun
    way: Way

    @classmethod
    def of(cls, path: Path, config: ExplainConfig) -> _Seeing:
        applied = opened(path, config.store, accept_changed_code=config.accept_changed_code)
        first = applied.predictors[0]
        try:
            way = way_of(first.head_name, first.head, applied.plan)
        except TrainingError as error:
            raise TrainingError(f"{path}: {error}") from None
        return cls(run=OpenRun.of(applied, config.clip), way=way)

    @property
    def input_name(self) -> str:
        """The input in which the head looks."""
        return pictured(self.run.plan)

    def looked(self, device: torch.device) -> list[Looked]:
        """Of each clip."""
        run, applied = self.run, self.run.applied
        found = applied.to(run.table, device)
        batches = run.arrays.batches(device, evaluation_clips=1)
        heads = [predictor.head.to(device) for predictor in applied.predictors]
        made = []
        for clip in range(len(run.table)):
            arrays, masks = batches.evaluated(torch.tensor([clip]))
            try:
                maps = maps_of(self.way, heads, arrays, masks, self.input_name)
            except TrainingError as error:
                raise TrainingError(f"{applied.run}: {error}") from None
            said, prediction = said_of(found, clip)
            frames = run.times(self.input_name, clip)[0]
            made.append(Looked(run=str(applied.run), said=said, prediction=prediction, maps=maps, frames=frames))
        return made


@with_bar("explain")
def explain(
    config: ExplainConfig, progress: Progress | None = None, *, device: str = "auto", threads: int = 1
) -> ExplainResult | ClassMaps:
    """Draws where the heads of runs look in the frames of clips; writes a picture. With `gradcam`: see `class_maps`.

    Of a run with folds the mean of its heads is drawn. The steps are those of the first run; another run is drawn at
    its nearest ones.

    Raises:
        TrainingError: no finished run there; a head that does not say where it looks, or that reads maps which are
            attended already; a clip that the stores do not have, or have no picture of.
        SpecMismatch: a store was not made as that of a run was; the fields that differ are listed.
        StoreError: a path that is no store.
    """
    if config.gradcam:
        runs_asked = (config.run, *config.beside)
        return class_maps(
            runs_asked,
            config.clip,
            config.classes,
            picture=config.picture,
            maps=config.maps,
            inputs=dict.fromkeys(runs_asked, config.input or ""),
            stores=config.store,
            frames=config.frames,
            accept_changed_code=config.accept_changed_code,
            device=device,
            threads=threads,
            progress=progress,
        )
    check_has_float64(device)
    where = torch.device(resolve_device(device))
    frames = None if config.frames is None else FrameStore.open(config.frames)
    with cpu_threads(threads):
        runs = [_Seeing.of(run, config) for run in (config.run, *config.beside)]
        looked = []
        for done, run in enumerate(runs, start=1):
            looked.append(run.looked(where))
            if progress is not None:
                progress(Event(stage="evaluate", done=done, total=len(runs)))
    notes: list[str] = []
    clips = tuple(
        _explained(runs[0], clip, tuple(of_run[clip] for of_run in looked), frames, notes)
        for clip in range(len(runs[0].run.table))
    )
    warning = " ".join(dict.fromkeys(filter(None, (one.run.applied.config["warning"] for one in runs))))
    result = ExplainResult(
        clips=clips, picture=config.picture, maps=config.maps, warning=warning, notes=tuple(dict.fromkeys(notes))
    )
    write_whole(config.picture, _drawn(result))
    if config.maps is not None:
        write_whole(config.maps, _archive(result))
    return result


def _explained(
    one: _Seeing, clip: int, looked: tuple[Looked, ...], frames: FrameStore | None, notes: list[str]
) -> Explained:
    """A clip with pictures of at most MOST_COLUMNS steps; adds to `notes` what a reader must know."""
    run, table = one.run, one.run.table
    clip_id = str(table.clip_ids[clip])
    index, seconds = run.times(one.input_name, clip)
    shown = columns_of(len(index))
    if len(shown) < len(index):
        notes.append(f"{clip_id}: {MOST_COLUMNS} of {len(index)} steps are shown.")
    for other in looked[1:]:
        if not np.isin(index[shown], other.frames).all():
            notes.append(f"{clip_id}: {other.run} reads other frames; it is drawn at its nearest ones.")
    pictures, source = run.pictures(one.input_name, clip, shown, frames, notes)
    return Explained(
        clip_id=clip_id,
        split=str(table.splits[clip]),
        label=str(table.labels[clip]),
        frames=index[shown],
        seconds=seconds[shown],
        pictures=pictures,
        source=source,
        runs=looked,
    )


def _drawn(result: ExplainResult) -> bytes:
    names = [Path(one.run).name for one in result.clips[0].runs]
    is_clear = len(set(names)) == len(names)
    blocks = []
    for clip in result.clips:
        said = "its middle frame" if clip.source == "thumbnail" else "frames"
        times = [f"{value:.2f} s" for value in clip.seconds.tolist()]
        rows = [PictureRow(title=said, pictures=list(clip.pictures), under=times)]
        rows += [
            PictureRow(title=f"{name if is_clear else one.run}: {one.said}", pictures=clip.overlays(one))
            for name, one in zip(names, clip.runs, strict=True)
        ]
        blocks.append(Block(title=clip.title, rows=rows))
    heading = Heading(source="in each frame from blue, least, to red, most", count="", warning=result.warning)
    return png(picture_rows("Where the heads look", blocks, heading=heading, notes=result.notes))


def _archive(result: ExplainResult) -> bytes:
    arrays: dict[str, Any] = {
        "clips": np.array([clip.clip_id for clip in result.clips], dtype=str),
        "runs": np.array([one.run for one in result.clips[0].runs], dtype=str),
    }
    for i, clip in enumerate(result.clips):
        for j, one in enumerate(clip.runs):
            arrays |= {f"attention-{i}-{j}": one.maps, f"frame_index-{i}-{j}": one.frames}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
