"""Training of heads and probes on stores. Never opens a video; names load on first use (no torch for `--help`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "DataConfig": "reelbank.heads.config",
    "Event": "reelbank.heads.events",
    "FeaturesConfig": "reelbank.heads.config",
    "HeadConfig": "reelbank.heads.config",
    "MembersConfig": "reelbank.heads.sweeps.config",
    "ObjectiveConfig": "reelbank.heads.config",
    "OptimizerConfig": "reelbank.heads.config",
    "PredictResult": "reelbank.heads.runs.predicting",
    "ProbeConfig": "reelbank.heads.probes.config",
    "ProbeResult": "reelbank.heads.probes.probe",
    "RecipeConfig": "reelbank.heads.recipes.config",
    "RecipeResult": "reelbank.heads.recipes.run",
    "RunConfig": "reelbank.heads.config",
    "RunResult": "reelbank.heads.runs.run",
    "SweepConfig": "reelbank.heads.sweeps.config",
    "SweepResult": "reelbank.heads.sweeps.sweep",
    "TrainConfig": "reelbank.heads.config",
    "TrainingError": "reelbank.heads.errors",
    "predict": "reelbank.heads.runs.predicting",
    "probe": "reelbank.heads.probes.probe",
    "run_recipe": "reelbank.heads.recipes.run",
    "sweep": "reelbank.heads.sweeps.sweep",
    "train_head": "reelbank.heads.runs.run",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_PUBLIC))}")
    return getattr(import_module(_PUBLIC[name]), name)
