"""A loss that is one function and one row: it trains in every executor, with the gradient that autograd gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from remembered import write_store

from reelbank.heads import SweepConfig, TrainConfig, sweep, train_head
from reelbank.heads.losses import LOSSES, Loss, loss_function, loss_with_gradient
from reelbank.heads.objective_config import ObjectiveConfig
from reelbank.heads.training import trainer
from reelbank.heads.training.job import Labels
from reelbank.heads.training.trainer import total_loss, total_loss_with_gradient

FUNCTION = '''
def earth_mover(logits, p):
    """Squared earth mover's distance over ordered bins."""
    return (logits.softmax(dim=-1) - p).cumsum(dim=-1).square().sum(dim=-1)
'''
MODULE = "loss_of_one_function"
FEW: dict[str, Any] = {"epochs": 4, "bins": 30, "batch": 16, "report": False, "lr": 0.01}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder: the module of the loss and a store whose features tell the target."""
    made = tmp_path_factory.mktemp("loss")
    (made / f"{MODULE}.py").write_text(FUNCTION)
    random = np.random.default_rng(0)
    clips = [
        {
            "clip_id": f"c{i:02d}", "label": "abc"[i % 3], "kcal": 100.0 + 300 * (i % 3),
            "split": ("train", "train", "val", "test")[i % 4], "group": f"g{i // 4}",
        }
        for i in range(96)
    ]  # fmt: skip
    features = [random.normal(size=(3, 6)).astype("float16") for _ in clips]
    for i, array in enumerate(features):
        array[:, i % 3] += 3
    write_store(made / "s.zarr", {"cls": features}, clips)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.syspath_prepend(str(made))
        yield made


@pytest.fixture
def row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The one row that CONTRIBUTING asks for, in the table."""
    monkeypatch.setitem(LOSSES._rows, "emd", Loss(target=f"{MODULE}:earth_mover", summary="earth mover's distance"))
    yield "emd"
    loss_function.cache_clear()
    loss_with_gradient.cache_clear()


def _config(folder: Path, run: str, loss: str, **options: Any) -> TrainConfig:
    return TrainConfig.of(store=(folder / "s.zarr",), run=folder / run, loss=loss, class_loss=loss, **FEW | options)


def _losses(run: Path, kind: str = "val_loss") -> list[float]:
    return [json.loads(line)[kind] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_gradient_of_the_fast_path_is_that_of_autograd(row: str) -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(6, 9, generator=generator, dtype=torch.float64).softmax(1)
    labels = Labels(classes=torch.tensor([0, 1, 2, 2, 1, 0]), values=torch.zeros(6), distributions=p)
    logits = {
        name: torch.randn(4, size, generator=generator, dtype=torch.float64).requires_grad_()
        for name, size in (("label", 3), ("target", 9))
    }
    index = torch.tensor([0, 5, 2, 4])
    objective = ObjectiveConfig(loss=row, class_loss=row)
    expected = total_loss(objective, labels, logits, index, complete=True)
    gradients = torch.autograd.grad(expected, list(logits.values()))
    with torch.inference_mode():
        loss, ours = total_loss_with_gradient(objective, labels, {name: z * 1 for name, z in logits.items()}, index)
    torch.testing.assert_close(loss.clone(), expected.detach())
    for name, gradient in zip(logits, gradients, strict=True):
        torch.testing.assert_close(ours[name].clone(), gradient)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_direct_pass_trains_as_autograd_does(
    head: str, folder: Path, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = train_head(_config(folder, f"direct-{head}", row, head=head)).directory
    monkeypatch.setattr(trainer, "DirectPass", lambda head: None)
    plain = train_head(_config(folder, f"plain-{head}", row, head=head)).directory
    np.testing.assert_allclose(_losses(direct), _losses(plain), rtol=1e-4)
    trained = _losses(direct, "train_loss")
    assert trained[-1] < trained[0], "it learns"


@pytest.mark.parametrize("executor", ["processes", "stacked"])
def test_every_executor_trains_it(executor: str, folder: Path) -> None:
    """By `module:function`, as the processes of a sweep must find it: they start without this process's table."""
    name = f"{MODULE}:earth_mover"
    config = SweepConfig.of(
        store=(folder / "s.zarr",), run=folder / executor, loss=name, sweep=("lr=1e-2,1e-3",), executor=executor,
        workers=2, **{key: value for key, value in FEW.items() if key != "lr"},
    )  # fmt: skip
    result = sweep(config)
    assert not result.has_failures
    members = {member["name"]: member for member in result.results["members"]}
    for lr in ("0.01", "0.001"):
        alone = train_head(
            TrainConfig.of(
                store=(folder / "s.zarr",), run=folder / f"alone-{executor}-{lr}", loss=name, **FEW | {"lr": float(lr)}
            )
        )
        member = folder / executor / "members" / next(key for key in members if f"lr={lr}," in key)
        np.testing.assert_allclose(
            _losses(member), _losses(alone.directory), rtol=0 if executor == "processes" else 1e-3
        )
        kept = json.loads((member / "config.json").read_text())["plugins"]
        assert [(one["kind"], one["name"]) for one in kept] == [("loss", name)]
