"""Grad-CAM of runs: for each clip, run and class where the evidence lies, as a picture and as arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reelbank.heads.errors import TrainingError
from reelbank.heads.reports.attention_maps import heat_over, spread_to
from reelbank.heads.reports.drawing import Heading, png
from reelbank.heads.reports.picture_rows import MOST_COLUMNS, Block, PictureRow, columns_of, picture_rows
from reelbank.heads.runs.grad_cam import LABEL, cam_input, mean_grad_cams
from reelbank.heads.runs.looking import FrameStore
from reelbank.heads.runs.opened import NEAR_IDS, OpenRun, opened, said_of
from reelbank.manifests.events import Event, Progress
from reelbank.store.devices import check_has_float64, cpu_threads, resolve_device
from reelbank.store.files import write_whole


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """The Grad-CAM of one class in one clip.

    Attributes:
        name: of the class.
        probability: that the run gives it.
        values: (T, h, w) float32, 0 or more, not scaled.
    """

    name: str
    probability: float
    values: NDArray[np.float32]

    @property
    def num_zero(self) -> int:
        """How many of the T maps are 0 everywhere: no place there speaks for the class."""
        return int((~self.values.any(axis=(1, 2))).sum())

    @property
    def is_zero(self) -> bool:
        """Whether all of them are."""
        return self.num_zero == len(self.values)


@dataclass(frozen=True, kw_only=True)
class RunMaps:
    """One run on one clip.

    Attributes:
        run: its directory.
        input: the input over which the maps lie.
        said: what it predicts, in words.
        prediction: the same as JSON types, with the probability of the true class, null where it does not know it.
        classes: in the order that was asked for.
        frames, seconds: (T,) of the steps that the maps are of; of a stack those of its middle.
        shown: places among them that are drawn.
        pictures: (len(shown), H, W, 3) uint8; `source` what they are.
    """

    run: str
    input: str
    said: str
    prediction: Mapping[str, Any]
    classes: tuple[ClassMap, ...]
    frames: NDArray[np.int64]
    seconds: NDArray[np.float64]
    shown: NDArray[np.int64]
    pictures: NDArray[np.uint8]
    source: str

    def overlays(self, one: ClassMap) -> list[NDArray[np.uint8]]:
        """The pictures under the heat of a class's maps, each from its least to its greatest value."""
        size = self.pictures.shape[1:3]
        return [
            heat_over(spread_to(one.values[place], size), picture)
            for place, picture in zip(self.shown, self.pictures, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON types, without pictures and maps."""
        classes = [{"class": one.name, "probability": one.probability, "is_zero": one.is_zero} for one in self.classes]
        return {
            "run": self.run,
            "input": self.input,
            **self.prediction,
            "frame_index": self.frames.tolist(),
            "seconds": [round(value, 6) for value in self.seconds.tolist()],
            "pictures": self.source,
            "classes": classes,
        }


@dataclass(frozen=True, kw_only=True)
class MappedClip:
    """One clip, and what each run makes of it."""

    clip_id: str
    split: str
    label: str
    runs: tuple[RunMaps, ...]

    @property
    def title(self) -> str:
        """Clip, split, label."""
        label = f", true label {self.label}" if self.label else ", no label"
        return f"{self.clip_id} ({self.split}){label}" if self.split else f"{self.clip_id}{label}"

    def to_json(self) -> dict[str, Any]:
        """As JSON types, without pictures and maps."""
        runs = [one.to_json() for one in self.runs]
        return {"clip_id": self.clip_id, "split": self.split, "label": self.label, "runs": runs}


@dataclass(frozen=True, kw_only=True)
class ClassMaps:
    """What was drawn.

    Attributes:
        picture: the PNG that was written; None where none was asked for.
        maps: the .npz, where one was asked for: `clips`, `runs`, and of clip i and run j `classes-i-j`,
            `gradcam-i-j` (classes, T, h, w) as they are computed, `frame_index-i-j` (T,).
        warning: the sentence that must stand wherever a number of these runs is shown; empty for trained backbones.
        notes: sentences.
    """

    clips: tuple[MappedClip, ...]
    picture: Path | None
    maps: Path | None
    warning: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "picture": None if self.picture is None else str(self.picture),
            "maps": None if self.maps is None else str(self.maps),
            "warning": self.warning,
            "notes": list(self.notes),
            "clips": [clip.to_json() for clip in self.clips],
        }

    def text(self) -> str:
        """For a terminal: what each run says of each clip, and where the picture is."""
        lines = [self.warning] if self.warning else []
        for clip in self.clips:
            lines.append(clip.title)
            for run in clip.runs:
                lines.append(f"  {run.run}: {run.said}")
                lines += [f"    Grad-CAM of {_named(one)}" for one in run.classes]
        return "\n".join([
            *lines,
            *self.notes,
            *([f"Picture: {self.picture}"] if self.picture else []),
            *([f"Maps: {self.maps}"] if self.maps else []),
        ])  # fmt: skip


def class_maps(
    runs: Sequence[Path],
    clips: Sequence[str],
    classes: Sequence[str] = (),
    *,
    picture: Path | None = None,
    maps: Path | None = None,
    inputs: Mapping[Path, str] | None = None,
    stores: Sequence[Path] = (),
    frames: Path | None = None,
    accept_changed_code: bool = False,
    device: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> ClassMaps:
    """The Grad-CAM of `classes` of each run, drawn over what it reads of each clip: a row for each run and class.

    Of a run with folds the mean of its heads is drawn.

    Args:
        runs: run directories.
        classes: names; (): of each clip the class that a run predicts.
        picture: PNG to write.
        maps: .npz to write.
        inputs: {run: the input over which it is drawn}, where that is not the first that may be.
        stores: that every run reads; (): those of its training.
        frames: store of backbone frames with the pictures; None: the input itself, else thumbnails.

    Raises:
        TrainingError: no finished run there; one that predicts no class, or not that one; a head without a Grad-CAM;
            a clip that the stores do not have, or have no picture of.
        SpecMismatch: a store was not made as that of a run was; the fields that differ are listed.
        StoreError: a path that is no store.
    """
    check_has_float64(device)
    where = torch.device(resolve_device(device))
    pictured = None if frames is None else FrameStore.open(frames)
    notes: list[str] = []
    asked = inputs or {}
    with cpu_threads(threads):
        mapped, warnings, described = [], [], []
        for done, path in enumerate(runs, start=1):
            applied = opened(path, stores, accept_changed_code=accept_changed_code)
            first = applied.predictors[0]
            try:
                name = cam_input(first.head_name, applied.plan, asked.get(path, ""))
                one = _Mapping(run=OpenRun.of(applied, clips), name=name, frames=pictured, notes=notes)
                mapped.append(one.of(classes, where))
            except TrainingError as error:
                raise TrainingError(f"{path}: {error}") from None
            warnings.append(applied.config["warning"])
            described.append(one.run.table)
            if progress is not None:
                progress(Event(stage="evaluate", done=done, total=len(runs)))
    table = described[0]
    found = tuple(
        MappedClip(
            clip_id=str(table.clip_ids[clip]),
            split=str(table.splits[clip]),
            label=str(table.labels[clip]),
            runs=tuple(of_run[clip] for of_run in mapped),
        )
        for clip in range(len(table))
    )
    result = ClassMaps(
        clips=found,
        picture=picture,
        maps=maps,
        warning=" ".join(dict.fromkeys(filter(None, warnings))),
        notes=tuple(dict.fromkeys(notes)),
    )
    if picture is not None:
        write_whole(picture, _drawn(result))
    if maps is not None:
        write_whole(maps, _archive(result))
    return result


@dataclass(frozen=True, kw_only=True)
class _Mapping:
    """A run whose maps are drawn over its input `name`; `notes` grow."""

    run: OpenRun
    name: str
    frames: FrameStore | None
    notes: list[str]

    def of(self, classes: Sequence[str], device: torch.device) -> list[RunMaps]:
        """Of each clip."""
        run, applied = self.run, self.run.applied
        found = applied.to(run.table, device)
        if found.class_names is None:
            raise TrainingError("Grad-CAM is of a class, and this run predicts none")
        names, probabilities = tuple(found.class_names), found.probabilities[LABEL]
        asked = [_number(name, names) for name in dict.fromkeys(classes)]
        batches = run.arrays.batches(device, evaluation_clips=1)
        heads = [predictor.head.to(device) for predictor in applied.predictors]
        made = []
        for clip in range(len(run.table)):
            numbers = asked or [int(probabilities[clip].argmax())]
            arrays, masks = batches.evaluated(torch.tensor([clip]))
            maps = mean_grad_cams(heads, run.plan.cam[self.name], arrays, masks, numbers, masks[self.name][0])
            found_classes = tuple(
                ClassMap(name=names[number], probability=float(probabilities[clip, number]), values=values)
                for number, values in zip(numbers, maps, strict=True)
            )
            said, prediction = said_of(found, clip)
            label = str(run.table.labels[clip])
            true = float(probabilities[clip, names.index(label)]) if label in names else None
            if true is not None:
                said += f"; true class {label}, probability {true:.2f}"
            prediction["true_probability"] = true
            made.append(self._drawn_over(clip, said, prediction, found_classes))
        return made

    def _drawn_over(
        self, clip: int, said: str, prediction: Mapping[str, Any], classes: tuple[ClassMap, ...]
    ) -> RunMaps:
        """With the pictures that the maps lie over: flow in colours, unless there is a store of frames."""
        run, clip_id = self.run, str(self.run.table.clip_ids[clip])
        frames, seconds = run.times(self.name, clip)
        count = len(classes[0].values)
        # One map of several steps, of a stack or of steps that were put together: it lies over the middle one.
        own = np.array([len(frames) // 2]) if count == 1 else np.arange(len(frames) - count, len(frames))
        shown = columns_of(count)
        if len(shown) < count:
            self.notes.append(f"{clip_id}: {MOST_COLUMNS} of {count} steps are shown.")
        fields = run.fields(self.name, clip) if self.frames is None else None
        if fields is not None:
            places = np.array([0]) if len(fields) == 1 else own[shown]
            pictures, source = fields[places], "flow"
            self.notes.append("Flow: hue says where to, saturation how far; what stands is white.")
        else:
            pictures, source = run.pictures(self.name, clip, own[shown], self.frames, self.notes)
        name = Path(run.applied.run).name
        for one in classes:
            if zero := one.num_zero:
                steps = "everywhere" if zero == count else f"throughout {zero} of {count} steps"
                self.notes.append(
                    f"{clip_id}, {name}: the map of {one.name} is 0 {steps}: no place there speaks for it."
                )
        if len(run.applied.predictors) > 1:
            self.notes.append(f"{name}: the mean over the heads of {len(run.applied.predictors)} folds.")
        return RunMaps(
            run=str(run.applied.run),
            input=self.name,
            said=said,
            prediction=prediction,
            classes=classes,
            frames=frames[own],
            seconds=seconds[own],
            shown=shown,
            pictures=pictures,
            source=source,
        )


def _number(name: str, names: Sequence[str]) -> int:
    """The logit of a class. Raises TrainingError with those most like a name that is none."""
    if name not in names:
        near = get_close_matches(name, names, NEAR_IDS, 0.4) or list(names)[:NEAR_IDS]
        raise TrainingError(
            f"--class {name!r} is none of the {len(names)} classes of this run; the nearest are "
            f"{', '.join(map(repr, near))}"
        )
    return names.index(name)


def _named(one: ClassMap) -> str:
    return f"{one.name}, probability {one.probability:.2f}{' (0 everywhere)' if one.is_zero else ''}"


def _drawn(result: ClassMaps) -> bytes:
    runs = [Path(one.run).name for one in result.clips[0].runs]
    is_clear = len(set(runs)) == len(runs)
    blocks = []
    for clip in result.clips:
        rows: list[PictureRow] = []
        for name, one in zip(runs, clip.runs, strict=True):
            rows += _rows(name if is_clear else one.run, one)
        blocks.append(Block(title=clip.title, rows=rows))
    heading = Heading(
        source="evidence in each picture from blue, least, to red, most", count="", warning=result.warning
    )
    return png(picture_rows("Grad-CAM", blocks, heading=heading, notes=result.notes))


def _rows(name: str, one: RunMaps) -> list[PictureRow]:
    """A row for each class: of one picture beside it, of several below their row."""
    what = {"thumbnail": "its middle frame", "flow": "flow"}.get(one.source, "frames")
    times = [f"{value:.2f} s" for value in one.seconds[one.shown].tolist()]
    title = f"{name}: {one.said}"
    if len(one.pictures) == 1:
        return [
            PictureRow(
                title=f"{f'{title}. ' if place == 0 else ''}Grad-CAM of {_named(of_class)}",
                pictures=[one.pictures[0], *one.overlays(of_class)],
                under=[f"{what}, {times[0]}", ""],
            )
            for place, of_class in enumerate(one.classes)
        ]
    rows = [PictureRow(title=f"{title} ({what})", pictures=list(one.pictures), under=times)]
    return rows + [
        PictureRow(title=f"Grad-CAM of {_named(of_class)}", pictures=one.overlays(of_class)) for of_class in one.classes
    ]


def _archive(result: ClassMaps) -> bytes:
    arrays: dict[str, Any] = {
        "clips": np.array([clip.clip_id for clip in result.clips], dtype=str),
        "runs": np.array([one.run for one in result.clips[0].runs], dtype=str),
    }
    for i, clip in enumerate(result.clips):
        for j, one in enumerate(clip.runs):
            arrays |= {
                f"classes-{i}-{j}": np.array([of_class.name for of_class in one.classes], dtype=str),
                f"gradcam-{i}-{j}": np.stack([of_class.values for of_class in one.classes]),
                f"frame_index-{i}-{j}": one.frames,
            }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
