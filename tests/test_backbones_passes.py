"""What makes forward passes fast changes no bit of a feature; and the batch that a GPU's memory holds."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reelbank.extract import backbones
from reelbank.extract.backbones import passes
from reelbank.extract.backbones.network import Network
from reelbank.testing import backbones as suite

CAST = ("clip:rn50", "dinov2", "googlenet", "lite", "resnet18", "timm:test_convnext", "timm:test_vit")
"""One of each kind of layer: attention, convolution, tokens, maps with the channels last."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "bf16") for name in CAST), ("lite", "fp16"), ("dinov2", "fp16")]
)
def test_weights_cast_once_give_the_bits_of_weights_cast_in_every_pass(name: str, precision: str) -> None:
    exact: Any = backbones.build(name, weights="random")
    plain = dataclasses.replace(exact, precision=precision, module=copy.deepcopy(exact.module))
    frames = suite.steps(exact.info, 2)
    expected = plain.forward(frames, tuple(exact.taps))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    passes.cast_weights(plain.module, dtype)
    kept = {parameter.dtype for parameter in plain.module.parameters()}
    assert dtype in kept
    for tap, feature in plain.forward(frames, tuple(exact.taps)).items():
        np.testing.assert_array_equal(feature, expected[tap], err_msg=tap)


def test_only_layers_that_autocast_casts_are_cast() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.LayerNorm(4), nn.Linear(4, 2))
    passes.cast_weights(module, torch.bfloat16)
    types = {name: parameter.dtype for name, parameter in module.named_parameters()}
    halved = {name for name, dtype in types.items() if dtype == torch.bfloat16}
    assert halved == {"0.weight", "3.weight", "3.bias"}
    assert module[1].running_mean.dtype == torch.float32


def test_weights_are_cast_where_features_are_made_and_not_where_they_are_saved() -> None:
    tuning = backbones.Tuning()
    assert tuning.cast_weights
    for given, expected in ((tuning, torch.bfloat16), (None, torch.float32)):
        made = backbones.build("resnet18", weights="random", device="cpu", precision="bf16", tuning=given)
        assert made.module is not None
        assert made.module.conv1.weight.dtype == expected
    made = backbones.build("resnet18", weights="random", device="cpu", tuning=tuning)
    assert {parameter.dtype for parameter in made.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["resnet18", "flow:raft-small"])
def test_launched_pass_is_the_forward_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone: Any = backbones.build(name, weights="random", device="cpu")
    assert isinstance(backbone, Network)
    frames = suite.steps(backbone.info, 1)
    wait = backbone.launch(frames)
    expected = backbone.forward(frames)
    found = wait()
    assert set(found) == set(expected) == set(backbone.default_taps)
    for tap in found:
        np.testing.assert_array_equal(found[tap], expected[tap])


@pytest.mark.parametrize(
    ("own", "step_mib", "memory_gib", "batch"),
    [(16, 1, 80, 256), (16, 20, 15, 128), (16, 20, 80, 256), (16, 300, 8, 16), (4, 300, 15, 8), (4, 20, 80, 64),
     (16, 200, 0.5, 16)],
)  # fmt: skip
def test_batch_of_a_gpu_takes_a_share_of_its_memory(own: int, step_mib: int, memory_gib: float, batch: int) -> None:
    assert passes.fitting_batch(own, step_mib << 20, int(memory_gib * 2**30)) == batch


def test_batch_of_a_gpu_is_measured_by_a_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pass leaves what libraries keep; the peak above that is the step's."""
    backbone: Any = backbones.build("resnet18", weights="random", device="cpu")
    passed = []
    monkeypatch.setattr(Network, "forward", lambda self, frames, taps: passed.append(len(frames)))
    used = {"kept": 100 << 20, "peak": (100 + 16 * 10) << 20}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: used["kept"] if len(passed) == 1 else 0)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: used["peak"])

    class Card:
        total_memory = 5 << 30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card)
    assert passes.default_batch(backbone, ("pool",)) == 128  # 10 MiB a step, a quarter of 5 GiB
    assert passed == [16, 16]
