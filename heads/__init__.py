"""Training of heads and probes on stores. Never opens a video; names load on first use (no torch for `--help`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reelbank.manifests.lazy import lazy

__all__ = [
    "DataConfig", "Event", "ExplainConfig", "ExplainResult", "FeaturesConfig", "FindConfig", "FindResult", "HeadConfig",
    "MembersConfig", "ObjectiveConfig", "OptimizerConfig", "PredictResult", "ProbeConfig", "ProbeResult",
    "RecipeConfig", "RecipeResult", "RunConfig", "RunResult", "SweepConfig", "SweepResult", "TrainConfig",
    "TrainingError", "explain", "find", "predict", "predict_videos", "probe", "run_recipe", "sweep", "train_head",
]  # fmt: skip

if TYPE_CHECKING:
    from reelbank.heads.config import DataConfig, HeadConfig, TrainConfig
    from reelbank.heads.errors import TrainingError
    from reelbank.heads.explain_config import ExplainConfig
    from reelbank.heads.features_config import FeaturesConfig
    from reelbank.heads.objective_config import ObjectiveConfig
    from reelbank.heads.optimizers import OptimizerConfig
    from reelbank.heads.probes.config import ProbeConfig
    from reelbank.heads.probes.find import FindResult, find
    from reelbank.heads.probes.probe import ProbeResult, probe
    from reelbank.heads.probes.search_config import FindConfig
    from reelbank.heads.recipes.config import RecipeConfig
    from reelbank.heads.recipes.run import RecipeResult, run_recipe
    from reelbank.heads.run_config import RunConfig
    from reelbank.heads.runs.explaining import ExplainResult, explain
    from reelbank.heads.runs.predicting import predict, predict_videos
    from reelbank.heads.runs.predictions import PredictResult
    from reelbank.heads.runs.run import RunResult, train_head
    from reelbank.heads.sweeps.config import MembersConfig, SweepConfig
    from reelbank.heads.sweeps.sweep import SweepResult, sweep
    from reelbank.manifests.events import Event

    __version__: str
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "DataConfig": "reelbank.heads.config",
            "Event": "reelbank.manifests.events",
            "ExplainConfig": "reelbank.heads.explain_config",
            "ExplainResult": "reelbank.heads.runs.explaining",
            "FeaturesConfig": "reelbank.heads.features_config",
            "FindConfig": "reelbank.heads.probes.search_config",
            "FindResult": "reelbank.heads.probes.find",
            "HeadConfig": "reelbank.heads.config",
            "MembersConfig": "reelbank.heads.sweeps.config",
            "ObjectiveConfig": "reelbank.heads.objective_config",
            "OptimizerConfig": "reelbank.heads.optimizers",
            "PredictResult": "reelbank.heads.runs.predictions",
            "ProbeConfig": "reelbank.heads.probes.config",
            "ProbeResult": "reelbank.heads.probes.probe",
            "RecipeConfig": "reelbank.heads.recipes.config",
            "RecipeResult": "reelbank.heads.recipes.run",
            "RunConfig": "reelbank.heads.run_config",
            "RunResult": "reelbank.heads.runs.run",
            "SweepConfig": "reelbank.heads.sweeps.config",
            "SweepResult": "reelbank.heads.sweeps.sweep",
            "TrainConfig": "reelbank.heads.config",
            "TrainingError": "reelbank.heads.errors",
            "explain": "reelbank.heads.runs.explaining",
            "find": "reelbank.heads.probes.find",
            "predict": "reelbank.heads.runs.predicting",
            "predict_videos": "reelbank.heads.runs.predicting",
            "probe": "reelbank.heads.probes.probe",
            "run_recipe": "reelbank.heads.recipes.run",
            "sweep": "reelbank.heads.sweeps.sweep",
            "train_head": "reelbank.heads.runs.run",
        },
    )
