"""How a training goes: schedules of the learning rate, which weights an early stop keeps, when it overfits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from part_stores import part_store

from reelbank.heads import OptimizerConfig, TrainConfig, TrainingError, train_head
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.runs import results
from reelbank.heads.training import optimization
from reelbank.heads.training.job import make_job
from reelbank.heads.training.trainer import Progression, Trainer

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


@pytest.mark.parametrize("loss", ["ce", "kld", "jsd"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_training_that_diverged_says_so_and_is_no_run(loss: str, reduction: str, store: Path, tmp_path: Path) -> None:
    """With `--lr 1e9` a validation loss of 1e34 was called better than a baseline."""
    options = {**FREE, "loss": loss, "reduction": reduction, "epochs": 3, "lr": 1e9}
    with pytest.raises(
        TrainingError, match=r"the training diverged: .* \(epoch \d\), equal .*; try a smaller --lr than 1e"
    ):
        train_head(TrainConfig.of(store=(store,), run=tmp_path / "run", **options))
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(("size", "reduction", "loss", "diverged"), [
    (2, "sum", 6.0, False), (2, "sum", 8.0, True), (1000, "sum", 60.0, False), (1000, "mean", 0.06, False),
    (1000, "mean", 0.08, True),
])  # fmt: skip
def test_a_loss_far_above_what_labels_tell_is_divergence(
    size: int, reduction: str, loss: float, diverged: bool, store: Path
) -> None:
    """Softened labels tell less, and then equal probabilities are nearly right: they alone are no measure."""
    config = TrainConfig.of(
        store=(store,), **FREE | {"bins": size, "reduction": reduction, "epochs": 1, "target": "kcal"}
    )
    trainer = Trainer(make_job(given := prepare(config), given.partitions[0]))
    trainer.job = replace(trainer.job, shape=replace(trainer.job.shape, outputs={"target": size}))
    trainer._guessed_loss = lambda: 1e-4  # type: ignore[method-assign]
    numbers = [loss, loss, float("nan"), 1.0]
    if diverged:
        with pytest.raises(TrainingError, match="the training diverged"):
            trainer.record(0.1, numbers)
    else:
        trainer.record(0.1, numbers)
