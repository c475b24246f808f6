"""Training of heads and probes on stores. Never opens a video; names load on first use (no torch for `--help`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Event": "reelbank.heads.events",
    "PredictResult": "reelbank.heads.predicting",
    "ProbeConfig": "reelbank.heads.probing",
    "ProbeResult": "reelbank.heads.probing",
    "RecipeResult": "reelbank.heads.recipe_run",
    "RunResult": "reelbank.heads.run",
    "SweepResult": "reelbank.heads.sweeping",
    "TrainConfig": "reelbank.heads.config",
    "TrainingError": "reelbank.heads.errors",
    "predict": "reelbank.heads.predicting",
    "probe": "reelbank.heads.probing",
    "run_recipe": "reelbank.heads.recipe_run",
    "sweep": "reelbank.heads.sweeping",
    "train_head": "reelbank.heads.run",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_PUBLIC))}")
    return getattr(import_module(_PUBLIC[name]), name)
