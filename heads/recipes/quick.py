"""The short form of a recipe: that it runs, in minutes, and how long the whole would take.

A head of vectors is trained on at most 64 clips for a twentieth of its epochs. Of heads on arrays what counts is how
often a clip is trained on, a clip-pass: seconds each. All rows together have at most 200.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reelbank.heads.config import TrainConfig
from reelbank.heads.recipes.recipe import Recipe

QUICK_SHARE = 0.05  # of the epochs
QUICK_CLIPS = 64
QUICK_LEAST_EPOCHS = 2
QUICK_PASSES = 200
QUICK_STEPS = 7
QUICK_JUDGED = 8  # clips of each other part, which are read in every epoch
FEW_CLIPS = 8  # fewer are trained on only where not even two epochs of them can be had


@dataclass(frozen=True, kw_only=True)
class ShortForm:
    """What --quick does to a recipe of heads on arrays.

    Attributes:
        passes: clip-passes that each row may have.
    """

    passes: int

    def options(self, values: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
        """The TrainConfig fields of a row in short."""
        whole = int(values.get("epochs", config.optimizer.epochs))
        epochs = max(QUICK_LEAST_EPOCHS, min(_share_of(whole), self.passes // FEW_CLIPS))
        epochs = max(1, min(epochs, self.passes // 2))
        clips = max(1, min(QUICK_CLIPS, self.passes // epochs, config.features.train_clips or QUICK_CLIPS))
        short = {**values, "epochs": epochs, "train_clips": clips, "judge_clips": QUICK_JUDGED, "folds": 0}
        if values.get("steps"):
            short["steps"] = min(int(values["steps"]), QUICK_STEPS)
        if values.get("milestones"):  # the last of an epoch
            places = {max(1, round(one * epochs / whole)) for one in values["milestones"]}
            short["milestones"] = tuple(sorted(places))
        return short


def short_form(chosen: Recipe, repeats: int) -> ShortForm:
    """How the clip-passes are shared among the rows."""
    return ShortForm(passes=max(1, QUICK_PASSES // (len(chosen.trained_in_short) * repeats)))


def quick_options(values: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Options of the short form: a twentieth of the epochs, patience with them, at most 64 training clips."""
    epochs = values.get("epochs", config.optimizer.epochs)
    short = {**values, "epochs": max(QUICK_LEAST_EPOCHS, _share_of(epochs))}
    for name in ("step_epochs", "patience_epochs", "early_stop_epochs"):
        if values.get(name):
            short[name] = max(1, _share_of(values[name]))
    short["train_clips"] = min(config.features.train_clips or QUICK_CLIPS, QUICK_CLIPS)
    return short


def _share_of(epochs: int) -> int:
    return round(QUICK_SHARE * epochs)


def corners_sentence(chosen: Recipe) -> str:
    """Which rows of a grid the short form trains; '' where it trains all."""
    if not chosen.corners:
        return ""
    return f"Of the grid only the corners are trained in this form: {', '.join(chosen.corners)}."
