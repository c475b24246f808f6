"""The 25 body keypoints that poses are stored in, and how the layouts of data sets map to them.

Order: nose, ears, shoulders, elbows, wrists, little fingers, index fingers, thumbs, hips, knees, ankles, heels,
foot indices, left before right. Loads no torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_PAIRS = (
    *("ear", "shoulder", "elbow", "wrist", "little_finger", "index_finger", "thumb"),
    *("hip", "knee", "ankle", "heel", "foot_index"),
)


def _sided(*parts: str) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for part in parts for side in ("left", "right"))


SLOTS: tuple[str, ...] = ("nose", *_sided(*_PAIRS))
"""Names of the 25 slots, in the order of every stored keypoint array."""

NUM_SLOTS = len(SLOTS)

_LIMBS = _sided("shoulder", "elbow", "wrist", "hip", "knee", "ankle")

LAYOUTS: dict[str, tuple[str, ...]] = {
    # Common Objects in Context, Lin et al. 2014, arXiv:1405.0312.
    "coco17": ("nose", *_sided("eye", "ear"), *_LIMBS),
    # From Actemes to Action, Zhang et al. 2013: the point of the head stands for the nose.
    "penn13": ("head", *_LIMBS),
    "slots25": SLOTS,
}
"""Names of the points of each known layout, in its order."""

ALIASES: dict[str, str] = {
    "head": "nose",
    **{f"{side}_{theirs}": f"{side}_{ours}" for side in ("left", "right")
       for theirs, ours in (("index", "index_finger"), ("pinky", "little_finger"))},
}  # fmt: skip
"""Other names of a slot."""

UNUSED = _sided("eye")
"""Names of points that have no slot."""


def slot_of(name: str) -> int | None:
    """The slot of a point's name; None for a point that has no slot. Raises KeyError for an unknown name."""
    if name in UNUSED:
        return None
    name = ALIASES.get(name, name)
    if name not in SLOTS:
        raise KeyError(name)
    return SLOTS.index(name)


def slots_of(layout: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which points of a layout have a slot, and which: (indices in the layout, slots), of equal length."""
    pairs = [(index, slot) for index, name in enumerate(LAYOUTS[layout]) if (slot := slot_of(name)) is not None]
    from_layout, to_slot = zip(*pairs, strict=True)
    return np.array(from_layout, np.int64), np.array(to_slot, np.int64)


def annotated_slots(layout: str) -> npt.NDArray[np.bool_]:
    """Mask (25,): the slots that a layout can fill. The others are absent in every frame."""
    mask = np.zeros(NUM_SLOTS, np.bool_)
    mask[slots_of(layout)[1]] = True
    return mask
