"""What a head reads of a tap: one vector per step, whatever shape the step is stored in.

A tap of vectors is read as it is stored. Others are read by a `Rule` that makes vectors of them, a row of `RULES`; a
tap that no rule takes is refused. Which rule was used is kept in the run, so that `predict` reads as training did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples import poses
from reelbank.store import Store
from reelbank.store.spec import TapSpec

STORED = ""
"""The rule of a tap that is read as it is stored."""

Beside = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How vectors are made of a tap that holds none.

    Attributes:
        takes: whether a tap of this description is one that the rule is for.
        beside: taps of the same store that are read with it where they are there, with their dtypes.
        size: numbers of one step.
        vectors: (features (B, T, *axes), valid (B, T), {tap beside it: (B, T, *axes)}) -> (B, T, D) float32; features
            that are not what the rule takes them for raise ValueError.
        sentence: what was done, for the report, after the name of the tap.
    """

    takes: Callable[[TapSpec], bool]
    beside: Mapping[str, str]
    size: Callable[[TapSpec], int]
    vectors: Callable[[NDArray[Any], NDArray[np.bool_], Beside], NDArray[np.float32]]
    sentence: str


def _is_pose(tap: TapSpec) -> bool:
    named = tap.axes[-1:] == ("xy",) or "keypoint" in tap.name.lower()
    return named and 2 <= len(tap.shape) <= 3 and tap.shape[-1] in (2, 3) and tap.dtype.startswith("float")


def _is_box(tap: TapSpec) -> bool:
    named = tap.axes[-1:] == ("corner",) or tap.name.lower() in ("bbox", "bboxes", "box", "boxes")
    return named and 1 <= len(tap.shape) <= 2 and tap.shape[-1] == 4 and tap.dtype.startswith("float")


def _pose(features: NDArray[Any], valid: NDArray[np.bool_], beside: Beside) -> NDArray[np.float32]:
    scores = features[..., 2] if features.shape[-1] == 3 else beside.get("keypoint_scores")
    points = features[..., :2]
    present = poses.present_points(points, beside.get("presence"), scores)
    return poses.pose_vectors(points, present, scores).reshape(*valid.shape, -1)


def _box(features: NDArray[Any], valid: NDArray[np.bool_], beside: Beside) -> NDArray[np.float32]:
    scores = beside.get("score")
    if scores is not None and features.ndim == 3:
        scores = scores[..., 0]  # of the one person
    return poses.box_vectors(features, valid, scores).reshape(*valid.shape, -1)


RULES: Mapping[str, Rule] = {
    "pose": Rule(
        takes=_is_pose,
        beside={"presence": "bool", "keypoint_scores": "float32"},
        size=lambda tap: math.prod(tap.shape[:-1]) * 3,
        vectors=_pose,
        sentence="x, y and confidence of each point; x and y from the middle of the box around the step's present "
        "points, over its longer side, so that place and size in the picture do not count; the confidence is the "
        "score, at most 1, or 1 where none is stored; absent points (presence or score 0, or at exactly 0, 0) are "
        "0, 0, 0",
    ),
    "box": Rule(
        takes=_is_box,
        beside={"score": "float32"},
        size=lambda tap: math.prod(tap.shape[:-1]) * 5,
        vectors=_box,
        sentence="x, y, width, height and confidence of each box, taken for corners x0, y0, x1, y1; from its mean "
        "place in the clip, over the clip's mean longer side, so that the way it goes counts, but not where or how "
        "large it is; the confidence is the score, at most 1, or 1 where none is stored; boxes without area are all 0",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """By which rule a tap is read, and with which taps beside it."""

    rule: str = STORED
    beside: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {"rule": self.rule, "beside": list(self.beside)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reading:
        """What `to_json` wrote. Raises TrainingError for a rule of a later version."""
        if data["rule"] not in ("", *RULES):
            raise TrainingError(f"the run reads a tap by the rule {data['rule']!r}, which this version does not know")
        return cls(rule=data["rule"], beside=tuple(data["beside"]))


AS_STORED = Reading()


def reading_of(store: Store, tap: str) -> Reading | None:
    """How `tap` of `store` is read; None where no rule makes vectors of it."""
    spec = store.taps[tap]
    for name, rule in RULES.items():
        if rule.takes(spec):
            beside = [other for other, dtype in rule.beside.items() if _fits(store.taps.get(other), spec, dtype)]
            return Reading(rule=name, beside=tuple(beside))
    return AS_STORED if spec.is_vector else None


def _fits(other: TapSpec | None, spec: TapSpec, dtype: str) -> bool:
    """Whether a tap beside has one number for each point or box of `spec`."""
    wanted = spec.shape[:-1] or (1,)
    return other is not None and other.shape == wanted and other.dtype == dtype


def readable_taps(store: Store) -> str:
    """The taps of `store` that heads can read, for a message."""
    return ", ".join(sorted(name for name in store.taps if reading_of(store, name) is not None)) or "none"


@dataclass(frozen=True, kw_only=True)
class VectorTap:
    """A tap of a store as vectors. Raises TrainingError for a reading that does not fit the tap."""

    store: Store
    tap: str
    reading: Reading = AS_STORED

    def __post_init__(self) -> None:
        spec, rule = self.store.taps[self.tap], RULES.get(self.reading.rule)
        beside = {} if rule is None else rule.beside
        if (spec.is_vector if rule is None else rule.takes(spec)) and all(
            name in beside and _fits(self.store.taps.get(name), spec, beside[name]) for name in self.reading.beside
        ):
            return
        how = "as stored" if rule is None else f"by the rule {self.reading.rule!r}"
        with_others = f" with {', '.join(self.reading.beside)}" if self.reading.beside else ""
        raise TrainingError(f"tap {self.tap!r} of {self.store.path} cannot be read {how}{with_others}: {spec}")

    @property
    def is_stored(self) -> bool:
        """Whether the vectors are those of the store, which then has their moments."""
        return self.reading.rule == STORED

    @property
    def size(self) -> int:
        """D."""
        spec = self.store.taps[self.tap]
        return spec.shape[0] if self.is_stored else RULES[self.reading.rule].size(spec)

    @property
    def dtype(self) -> str:
        """Of the vectors."""
        return self.store.taps[self.tap].dtype if self.is_stored else "float32"

    @property
    def sentence(self) -> str:
        """What is read, for the report; empty for what is stored."""
        if self.is_stored:
            return ""
        return f"Tap {self.tap!r} is read as {self.size} numbers per step: {RULES[self.reading.rule].sentence}."

    def gather(self, rows: NDArray[np.int64] | Sequence[int], view: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Vectors (B, T, D) of the clips at `rows` and mask (B, T), True where a step is valid.

        Raises:
            TrainingError: features that are not what the rule takes them for.
            StoreError: as `Store.gather`.
        """
        rows = np.asarray(rows, dtype=np.int64)
        features, mask = self.store.gather(self.tap, rows, view)
        if self.is_stored:
            return features, mask
        beside = {name: self.store.gather(name, rows, view)[0] for name in self.reading.beside}
        try:
            made = RULES[self.reading.rule].vectors(features, mask, beside)
        except ValueError as error:
            raise TrainingError(f"tap {self.tap!r} of {self.store.path}: {error}") from None
        return made * mask[..., None], mask


def empty_note(tap: str, empty: NDArray[np.bool_], what: str) -> list[str]:
    """The sentence about vectors that say nothing, [] where there are none.

    Args:
        empty: whether each clip or step, as `what` says, has only zeros.
    """
    if not empty.any():
        return []
    return [f"Tap {tap!r} has nothing present in {int(empty.sum())} of {len(empty)} {what}s: their vectors are 0."]
