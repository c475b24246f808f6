"""How a training goes: schedules of the learning rate, which weights an early stop keeps, when it overfits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from part_stores import part_store

from reelbank.heads import OptimizerConfig, TrainConfig, train_head
from reelbank.heads.runs import results
from reelbank.heads.training import optimization
from reelbank.heads.training.trainer import Progression

FREE: dict[str, Any] = {"report": False, "bins": 30, "batch": 8}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return part_store(tmp_path_factory.mktemp("protocol") / "toy.zarr")


def _schedule(**options: Any) -> tuple[Any, Any]:
    values = torch.nn.Parameter(torch.zeros(1))
    values.grad = torch.zeros(1)
    optimizer = optimization.make_optimizer(values, config := OptimizerConfig(lr=1e-4, **options))
    optimizer.step()
    return optimizer, optimization.make_schedule(optimizer, config)


@pytest.mark.parametrize(("factor", "patience"), [(0.5, 5), (0.75, 15), (0.5, 50)])
def test_plateau_reduces_after_its_patience_without_a_lower_loss(factor: float, patience: int) -> None:
    optimizer, schedule = _schedule(schedule="plateau", factor=factor, patience_epochs=patience)
    rates = []
    for epoch in range(2 * patience + 4):
        # Lower by less than a ten thousandth is not lower.
        optimization.advance(schedule, 1.0 - 1e-5 * (epoch > 0))
        rates.append(optimization.learning_rate(optimizer))
    changes = [1 + i for i in range(1, len(rates)) if rates[i] != rates[i - 1]]
    assert changes == [patience + 2, 2 * patience + 3]
    assert rates[-1] == pytest.approx(1e-4 * factor**2)
    optimization.advance(schedule, 0.5)
    assert optimization.learning_rate(optimizer) == rates[-1]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_early_stop_keeps_the_weights_that_were_asked_for(keep: str, store: Path, tmp_path: Path) -> None:
    options = {**FREE, "keep": keep, "early_stop_epochs": 3, "lr": 0.02, "epochs": 60}
    made = train_head(TrainConfig.of(store=(store,), run=tmp_path / "run", **options))
    training = made.results["training"]
    assert training["stopped_early"]
    assert training["epochs_run"] == training["best_epoch"] + 3
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert training["best_epoch"] == min(lines, key=lambda line: line["val_loss"])["epoch"]
    kept = lines[training["best_epoch" if keep == "best" else "epochs_run"] - 1]
    assert made.metric("mae", "val") == pytest.approx(kept["val_mae"], rel=1e-5)
    assert made.metric("accuracy", "val") == pytest.approx(kept["val_accuracy"], rel=1e-5)
    assert f"the {keep} epoch's weights" in made.results["selection"]["sentence"]


@pytest.mark.parametrize(("last", "overfit"), [(1.0, False), (1.049, False), (1.051, True)])
def test_a_run_overfits_from_five_percent_above_its_lowest_loss(last: float, overfit: bool) -> None:
    assert results._training_entry(Progression(best_loss=1.0, last_loss=last))["overfit"] == overfit
