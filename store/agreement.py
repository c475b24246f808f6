"""How close two sets of features are: cosine per step and greatest difference, gathered block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def step_cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each step of `a` and `b` (T, *axes), in float64.

    Two steps that are both zero agree (1); where only one is zero there is no angle, and it counts as 0.
    """
    x, y = (array.reshape(len(array), -1).astype(np.float64) for array in (a, b))
    lengths = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    product = lengths[0] * lengths[1]
    cosines: NDArray[np.float64] = np.divide(
        np.einsum("td,td->t", x, y), product, out=np.zeros(len(x)), where=product > 0
    )
    cosines[(lengths[0] == 0) & (lengths[1] == 0)] = 1.0
    return np.clip(cosines, -1.0, 1.0)


class Agreement:
    """Gathers clips one by one; memory is one number per clip.

    `cosine_min` is over all steps, `cosine_median` over the clips' own medians, `max_abs` over all values.
    """

    def __init__(self) -> None:
        self.cosine_min = 1.0
        self.max_abs = 0.0
        self.num_steps = 0
        self._medians: list[float] = []
        self._clip: list[NDArray[np.float64]] = []

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Some steps (n, *axes) of a clip in both; `end_clip` closes it."""
        if not len(a):
            return
        self._clip.append(step_cosines(a, b))
        self.max_abs = max(self.max_abs, float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max()))

    def add_equal(self, num_steps: int) -> None:
        """A whole clip whose bytes are the same in both."""
        self.num_steps += num_steps
        if num_steps:
            self._medians.append(1.0)

    def end_clip(self) -> None:
        """Takes what was added since the last call as one clip."""
        if self._clip:
            cosines = np.concatenate(self._clip)
            self.cosine_min = min(self.cosine_min, float(cosines.min()))
            self.num_steps += len(cosines)
            self._medians.append(float(np.median(cosines)))
            self._clip.clear()

    @property
    def cosine_median(self) -> float:
        """1 where nothing was compared."""
        return float(np.median(self._medians)) if self._medians else 1.0

    def to_json(self) -> dict[str, float]:
        """The numbers as JSON types."""
        return {
            "cosine_min": self.cosine_min,
            "cosine_median": self.cosine_median,
            "max_abs": self.max_abs,
            "num_steps": self.num_steps,
        }
