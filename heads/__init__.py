"""Training of heads and probes on stores. Never opens a video; names load on first use (no torch for `--help`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reelbank.manifests.lazy import lazy

__all__ = [
    "Event", "PredictResult", "ProbeConfig", "ProbeResult", "RecipeResult", "RunResult", "SweepResult", "TrainConfig",
    "TrainingError", "predict", "probe", "run_recipe", "sweep", "train_head",
]  # fmt: skip

if TYPE_CHECKING:
    from reelbank.heads.config import TrainConfig
    from reelbank.heads.errors import TrainingError
    from reelbank.heads.events import Event
    from reelbank.heads.probes.probe import ProbeConfig, ProbeResult, probe
    from reelbank.heads.recipes.run import RecipeResult, run_recipe
    from reelbank.heads.runs.predicting import PredictResult, predict
    from reelbank.heads.runs.run import RunResult, train_head
    from reelbank.heads.sweeps.sweep import SweepResult, sweep
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "Event": "reelbank.heads.events",
            "PredictResult": "reelbank.heads.runs.predicting",
            "ProbeConfig": "reelbank.heads.probes.probe",
            "ProbeResult": "reelbank.heads.probes.probe",
            "RecipeResult": "reelbank.heads.recipes.run",
            "RunResult": "reelbank.heads.runs.run",
            "SweepResult": "reelbank.heads.sweeps.sweep",
            "TrainConfig": "reelbank.heads.config",
            "TrainingError": "reelbank.heads.errors",
            "predict": "reelbank.heads.runs.predicting",
            "probe": "reelbank.heads.probes.probe",
            "run_recipe": "reelbank.heads.recipes.run",
            "sweep": "reelbank.heads.sweeps.sweep",
            "train_head": "reelbank.heads.runs.run",
        },
    )
