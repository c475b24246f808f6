"""From a configuration to the arrays of its clips, held or read anew each epoch, whichever its memory allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.arrays import ArrayTap, array_taps, notes_of
from reelbank.heads.examples.batches import ArrayBatches, Held, held_bytes, hold, views_read
from reelbank.heads.examples.clips import ClipTable
from reelbank.heads.examples.copies import Copies
from reelbank.heads.examples.crops import DRAWN, Crop, crop_of
from reelbank.heads.examples.features import StoredView
from reelbank.heads.examples.pixel_augment import PixelAugment, pixel_augment_of
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.models.plans import ArrayShape, HeadPlan
from reelbank.store.cores import free_memory_bytes
from reelbank.store.description import readable

MEMORY_SHARE = 0.5  # of what is free: a network, its gradients and its optimiser need the rest
SEGMENTS = "segments"
"""The option of a head that says at how many starts its stacks are evaluated."""
UNKNOWN_BYTES = 2**30  # where the system does not tell what is free

Hold = Callable[[ArrayTap, NDArray[np.int64]], Held]


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """The arrays of a table's clips.

    Attributes:
        taps: {input: its tap}.
        crops: of stores that hold whole frames.
        drawn: (N,) how many other views of each clip an epoch draws from; None where views are not drawn.
        views: further views that are training rows of their own (--train-views all).
        views_of: {input: (N, V) which views may be read}.
        view: the stored view that is evaluated.
        budget: bytes that stored arrays may take in main memory.
        augment: how pictures are changed in training.
    """

    taps: Mapping[str, ArrayTap]
    crops: Mapping[str, Crop]
    drawn: NDArray[np.int64] | None
    views: tuple[StoredView, ...]
    views_of: Mapping[str, NDArray[np.int64]]
    view: int
    budget: int
    augment: PixelAugment | None = None

    @property
    def shapes(self) -> dict[str, ArrayShape]:
        """{input: as a head is told}."""
        return {name: tap.shape for name, tap in self.taps.items()}

    @property
    def num_bytes(self) -> int:
        """What all of it takes in memory."""
        return sum(held_bytes(tap, self.views_of[name]) for name, tap in self.taps.items())

    @property
    def fits(self) -> bool:
        """Whether all of it is held."""
        return self.num_bytes <= self.budget

    def notes(self) -> list[str]:
        """Sentences for the report."""
        notes = notes_of(self.taps)
        if not self.fits:
            notes.append(
                f"The arrays take {readable(self.num_bytes)}, and main memory has {readable(self.budget)} for them "
                "(--memory): they are read from the stores in every epoch, a block at a time. No number depends on it."
            )
        return notes

    def batches(
        self,
        device: torch.device,
        *,
        evaluation_clips: int,
        segments: int = 1,
        copies: Copies | None = None,
        hold_as: Hold | None = None,
    ) -> ArrayBatches:
        """What a trainer reads; `hold_as` keeps what is held, where trainings share it. See there for the others."""
        make = hold_as or hold
        held = None
        if self.fits:
            held = {name: make(tap, self.views_of[name]) for name, tap in self.taps.items()}
        return ArrayBatches(
            taps=self.taps,
            crops=self.crops,
            device=device,
            view=self.view,
            budget=self.budget,
            evaluation_clips=evaluation_clips,
            drawn=self.drawn,
            copies=copies,
            held=held,
            segments=segments,
            augment=self.augment,
        )


def arrays_of(table: ClipTable, plan: HeadPlan, features: FeaturesConfig, memory_gb: float) -> Arrays:
    """The arrays of `table` that a head of `plan` reads; nothing is read yet but which frames there are.

    Args:
        memory_gb: that they may take; 0: a share of what is free.

    Raises TrainingError for frames or views that the stores do not hold.
    """
    taps = array_taps(
        table, plan, steps=features.steps, train_views=features.train_views, view=features.view
    )  # fmt: skip
    stored = [tap for tap in taps.values() if not tap.is_whole_frame]
    names = stored[0].store.spec.views if stored else DRAWN
    seed = (stored or list(taps.values()))[0].store.spec.seed
    counts = stored[0].num_views if stored else np.full(len(table), len(DRAWN))
    more = features.train_views != "one"
    if more and len(names) < 2:
        held = "; ".join(f"{tap.store.path} holds {', '.join(tap.store.spec.views)}" for tap in taps.values())
        raise TrainingError(
            f"--train-views {features.train_views} trains on further stored views, and there are none: {held}; make "
            "the stores with `featurize --views corners` (40 crops of training clips) or --views augment"
        )
    clip_ids = table.clip_ids.tolist()
    crops = {name: crop_of(tap, names, clip_ids, seed) for name, tap in taps.items() if tap.is_whole_frame}
    views: tuple[StoredView, ...] = ()
    if features.train_views == "all":
        numbers = [number for number in range(len(names)) if number != features.view]
        views = tuple(StoredView(number=number, has=counts > number) for number in numbers)
    given = memory_gb * 1e9
    free = free_memory_bytes() or UNKNOWN_BYTES
    return Arrays(
        taps=taps,
        crops=crops,
        drawn=counts - 1 if features.train_views == "draw" else None,
        views=views,
        views_of={
            name: views_read(tap, view=features.view, all_views=more, whole_frames=name in crops)
            for name, tap in taps.items()
        },
        view=features.view,
        budget=int(given or MEMORY_SHARE * free),
        augment=pixel_augment_of(features.pixel_augment, taps),
    )
