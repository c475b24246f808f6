"""One rule for `--device`, here with a torch that says which GPUs there are."""

from __future__ import annotations

import pytest
import torch

from reelbank.extract import FeaturizeConfig
from reelbank.heads import TrainConfig
from reelbank.store.devices import DeviceError, resolve_device


@pytest.mark.parametrize(
    ("name", "count", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_device_that_is_here_is_taken(name: str, count: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, count)
    assert resolve_device(name) == device


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:2", 2)])
def test_a_gpu_that_is_not_here_is_refused(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, count)
    with pytest.raises(DeviceError, match=rf"--device {name}: torch .* sees {count} GPUs; pass --device cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:", "cuda:x", "CPU", ""])
def test_a_name_that_is_none_is_refused_by_every_stage(name: str) -> None:
    for ask in (
        lambda: resolve_device(name),
        lambda: FeaturizeConfig(model=("flow",), device=name),
        lambda: TrainConfig.of(store=("s",), device=name),
    ):
        with pytest.raises(DeviceError, match=f"--device {name!r} is not one of auto, cpu, cuda, cuda:N"):
            ask()


def _gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
