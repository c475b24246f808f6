"""What the published runs of the calorie study share (SYSTEMS.md section 1; the results are those of its section 1.17).

Batch 4, lr 1e-4, weight decay 1e-5, 1000 bins over 0 to 1000 kcal/h, sigma 5, no early stop: a row's epochs are those
it is published with, the stop epochs where its run stopped early, and it is judged at the last of them (1.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.calories.study import CALORIES
from reelbank.heads.recipes.recipe import Published

DINOV2 = "DINOv2 ViT-S/14, CLS tokens of the last four blocks, 90 frames read as 160 steps (--segments)"
CLIP = "CLIP ViT-B/32 image embeddings of 90 frames"
DINOV2_SHAPE, CLIP_SHAPE = (160, 1536), (90, 512)

BASE: Mapping[str, Any] = {
    "batch": 4,
    "lr": 1e-4,
    "weight_decay": 1e-5,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "sigma": 5.0,
    "early_stop_epochs": 0,
    "keep": "last",
}
MEAN: Mapping[str, Any] = {"head": "mlp"}
CONV: Mapping[str, Any] = {"head": "conv-aggregation"}
RADAM: Mapping[str, Any] = {"optimizer": "radam"}
RMSPROP: Mapping[str, Any] = {"optimizer": "rmsprop", "alpha": 0.99, "momentum": 0.9}
STEP20: Mapping[str, Any] = {"schedule": "step", "step_epochs": 20, "factor": 0.5}
ALL_AUGMENTATIONS = ("dropout=0.1", "noise=0.1", "scaling=0.1", "shift=2")
SECOND_TRIAL = ("dropout=0.05", "noise=0.02", "scaling=0.1", "shift=2")


SEEDS_NOTE = (
    "KLD and CE have the same gradient, so with one seed they are one training. CE is trained with other seeds: what "
    "differs between the two is the noise of a run (without a split 'val' also that of another validation part)."
)


def plateau(factor: float, patience: int) -> dict[str, Any]:
    """Reduce the rate by `factor` after `patience` epochs without a lower validation loss."""
    return {"schedule": "plateau", "factor": factor, "patience_epochs": patience}


def numbers(*values: float | None) -> Published:
    """The seven numbers of a table's row, in its order."""
    keys = [column.key for column in CALORIES.columns]
    return Published(values={key: value for key, value in zip(keys, values, strict=True) if value is not None})


def curve(outcome: str) -> Published:
    return Published(outcome=outcome)


def seeds(loss: str) -> int:
    """CE has the gradient of KLD: with the same seed it would be the same training, with others it shows the noise."""
    return 1 if loss == "ce" else 0


def pairs(*pairs: tuple[float, float] | None) -> tuple[Published, ...]:
    return tuple(
        Published(outcome="overfit")
        if pair is None
        else Published(values={"mae_known": pair[0], "mae_unknown": pair[1]})
        for pair in pairs
    )
