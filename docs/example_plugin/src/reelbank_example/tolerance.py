"""Metric `within_tenth`: the share of clips whose predicted value is at most a tenth off."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reelbank.heads.judging.metrics import Metric, TargetScores


def within_tenth(scores: TargetScores) -> npt.NDArray[np.float64]:
    """1.0 where |predicted - truth| <= truth / 10, else 0.0: (N,)."""
    near: npt.NDArray[np.bool_] = np.abs(scores.predicted - scores.truth) <= np.abs(scores.truth) / 10
    return near.astype(np.float64)


WITHIN_TENTH = Metric(
    output="target",
    higher_is_better=True,
    unit="fraction",
    per_clip=within_tenth,
    summary="clips whose predicted value is at most a tenth off",
)
