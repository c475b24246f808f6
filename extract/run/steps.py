"""Which frames the steps of a clip read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reelbank.extract.backbones import BackboneInfo


@dataclass(frozen=True, kw_only=True, eq=False)
class StepPlan:
    """Which frames the steps of one clip read. A frame that the sampling repeats is forwarded once: an *item*.

    Attributes:
        frame_index: (T,) frame of each step, in step order.
        reads: (items, frames per step) frames that each item reads, ascending.
        item_of: (T,) item of each step.
    """

    frame_index: NDArray[np.int64]
    reads: NDArray[np.int64]
    item_of: NDArray[np.int64]

    @property
    def is_in_order(self) -> bool:
        """Whether steps follow their items' order, so that features can be staged as they come."""
        return bool((np.diff(self.item_of) >= 0).all())

    @property
    def wanted(self) -> NDArray[np.int64]:
        """Frames to decode, ascending."""
        return np.unique(self.reads)

    @property
    def num_repeated(self) -> int:
        """Steps of other frames than the one before that read the same, as the clip has no later ones."""
        return int(((np.diff(self.item_of) == 0) & (np.diff(self.frame_index) != 0)).sum())

    @property
    def middle(self) -> int:
        """Frame of the middle step: the clip's thumbnail."""
        return int(self.reads[self.item_of[len(self.item_of) // 2], 0])


def plan_steps(info: BackboneInfo, frame_index: NDArray[np.int64], first: int, stop: int) -> StepPlan:
    """Plans one clip whose frames are first..stop-1.

    Raises:
        ValueError: the clip has fewer frames than one step of this backbone reads.
    """
    reach = max(info.step_frames)
    if stop - first <= reach:
        raise ValueError(
            f"{info.name} reads {reach + 1} frames per step, the clip has {stop - first}; "
            "leave it out of this model or lengthen it"
        )
    # A last anchor has no next frame: it takes the last pair, so that stores of one sampling have the same steps and a
    # head can read both.
    starts, item_of = np.unique(np.minimum(frame_index, stop - 1 - reach), return_inverse=True)
    return StepPlan(
        frame_index=frame_index, reads=starts[:, None] + np.asarray(info.step_frames, np.int64), item_of=item_of
    )
