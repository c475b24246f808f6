"""A run that was opened to be looked at, on the clips that are shown: what it reads of them, and pictures of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.array_features import Arrays, arrays_of
from reelbank.heads.examples.arrays import ArrayTap, Draw
from reelbank.heads.examples.batches import steps_of
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.models.plans import HeadPlan
from reelbank.heads.reports.flow_colors import flow_picture
from reelbank.heads.runs.looking import FrameStore, holds_pictures, pictures_of, seen_share, thumbnail_of
from reelbank.heads.runs.predicting import Applied, open_run
from reelbank.store.errors import StoreError

NEAR_IDS = 3
FIELDS = ("flow*", "warp-flow*")
"""Backbones whose steps of an even number of channels are fields of motion."""


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run of a head that reads arrays, and the clips.

    Attributes:
        plan: of its head, without targets.
        table: the clips that are shown, in the order that was asked for.
    """

    applied: Applied
    plan: HeadPlan
    table: ClipTable
    arrays: Arrays

    @classmethod
    def of(cls, applied: Applied, clips: Sequence[str]) -> OpenRun:
        """`clips` of what `opened` gives. Raises TrainingError for a clip that is not there."""
        assert applied.plan is not None
        table = applied.table.take(_places(applied.table, clips))
        arrays = arrays_of(table, applied.plan, FeaturesConfig(steps=applied.predictors[0].steps), 0.0)
        return cls(applied=applied, plan=applied.plan, table=table, arrays=arrays)

    def tap(self, name: str) -> ArrayTap:
        """The input called `name`."""
        return self.arrays.taps[name]

    def steps(self, name: str, clip: int) -> NDArray[np.int64]:
        """The stored steps of a clip that the input `name` reads: of a stack those in it."""
        tap = self.tap(name)
        own: NDArray[np.int64] = tap.index[clip][tap.mask[clip]]
        return own[tap.places(_evaluated(clip))[0][0]] if tap.stack_steps else own

    def times(self, name: str, clip: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(frame, second) of each of `steps`."""
        tap, own = self.tap(name), self.steps(name, clip)
        row = int(tap.rows[clip])
        return tap.store.frame_index(row)[own], tap.store.step_seconds(row)[own]

    def pictures(
        self, name: str, clip: int, shown: NDArray[np.int64], frames: FrameStore | None, notes: list[str]
    ) -> tuple[NDArray[np.uint8], str]:
        """(pictures (C, H, W, 3) of the places `shown` among `times`, what they are); adds to `notes`.

        Of a store of frames; else of the input itself, if it holds pictures; else the thumbnail of the clip.
        Raises TrainingError for a clip that has none.
        """
        tap, clip_id = self.tap(name), str(self.table.clip_ids[clip])
        index = self.times(name, clip)[0][shown]
        if frames is not None:
            pictures, moved = frames.pictures(clip_id, index, seen_share(tap.store))
            source = str(frames.store.path)
            if moved:
                nearest = f"{moved} of {len(shown)} pictures are of the nearest frame that {source} holds"
                notes.append(f"{clip_id}: {nearest}.")
            return pictures, source
        if holds_pictures(tap):
            return pictures_of(tap, self.arrays.crops.get(name), clip)[shown], str(tap.store.path)
        thumbnail = thumbnail_of(tap.store, int(tap.rows[clip]))
        if thumbnail is None:
            raise TrainingError(
                f"clip {clip_id!r}: {tap.store.path} holds no picture of it; give a store of `featurize --model "
                "frames` as --frames"
            )
        notes.append("Every column shows the middle frame, which the store keeps; --frames STORE shows each its own.")
        return np.stack([thumbnail] * len(shown)), "thumbnail"

    def fields(self, name: str, clip: int) -> NDArray[np.uint8] | None:
        """The flow of a stack, or of each step, as colours (T, H, W, 3); None of an input that is no flow."""
        tap = self.tap(name)
        is_flow = any(fnmatchcase(tap.store.spec.backbone, pattern) for pattern in FIELDS)
        shape = tap.step_shape
        if not is_flow or tap.input.values == "pixels" or len(shape) != 3 or shape[0] % 2:
            return None
        steps = steps_of(tap, clip, 0)
        if tap.stack_steps:
            places = tap.places(_evaluated(clip))[0][0]
            return flow_picture(steps[places].reshape(-1, *shape[1:]))[None]
        return np.stack([flow_picture(step) for step in steps])


def opened(run: Path, stores: Sequence[Path], *, accept_changed_code: bool = False) -> Applied:
    """`open_run`, which says what to do where the stores of a training have moved."""
    try:
        return open_run(run, stores or None, accept_changed_code=accept_changed_code)
    except StoreError as error:
        if not stores:
            error.add_note(f"{run} was trained on a store under that path; say where it is now with --store")
        raise


def _evaluated(clip: int) -> Draw:
    return Draw(clips=np.array([clip]), views=np.zeros(1, dtype=np.int64), starts=np.full(1, np.nan))


def _places(table: ClipTable, wanted: Sequence[str]) -> NDArray[np.int64]:
    """Where clips stand in a table. Raises TrainingError with the ids most like one that is not there."""
    known = {clip: place for place, clip in enumerate(table.clip_ids.tolist())}
    asked = tuple(dict.fromkeys(wanted))
    if missing := [clip for clip in asked if clip not in known]:
        near = get_close_matches(missing[0], known, NEAR_IDS, 0.4) or list(known)[:NEAR_IDS]
        paths = ", ".join(str(source.store.path) for source in table.sources)
        raise TrainingError(
            f"--clip {missing[0]!r}: {paths} has no such clip among the {len(known)} with features; the nearest ids "
            f"are {', '.join(map(repr, near))}"
        )
    return np.array([known[clip] for clip in asked], dtype=np.int64)


def said_of(found: Any, clip: int) -> tuple[str, dict[str, Any]]:
    """What a head predicts of a clip, in words and as JSON types; `found`: its PredictResult."""
    words, plain = [], dict[str, Any]()
    if found.predicted is not None:
        plain["predicted"] = str(found.predicted[clip])
        words.append(f"predicts {plain['predicted'] or 'no label'}")
    if found.probability is not None:
        plain["probability"] = float(found.probability[clip])
        words[-1] += f", probability {plain['probability']:.2f}"
    if found.predicted_target is not None:
        plain["predicted_target"] = float(found.predicted_target[clip])
        words.append(f"{found.target_name} {plain['predicted_target']:.4g} {found.target_unit}".rstrip())
    return "; ".join(words), plain
