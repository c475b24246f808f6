"""Attention of Ego-RNN: the numbers and the gradients of the formula, of heads and of the stored taps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reelbank.extract.backbones import ego_rnn
from reelbank.extract.weights import torchvision_shim
from reelbank.heads.models import ego_rnn_plan

CLASSES = 11
each_kind = pytest.mark.parametrize("kind", ego_rnn.KINDS)


def _network(dtype: torch.dtype = torch.float32) -> tuple[nn.Sequential, nn.Linear]:
    """layer4 and fc as a ResNet-34's, 4 to 8 channels, with statistics as after training."""
    torchvision_shim.ensure()
    from torchvision.models.resnet import BasicBlock

    torch.manual_seed(0)
    halved = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
    layer4 = nn.Sequential(BasicBlock(4, 8, 2, halved), BasicBlock(8, 8), BasicBlock(8, 8))
    for module in layer4.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(value)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return layer4.eval().to(dtype), nn.Linear(8, CLASSES).to(dtype)


def _maps(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 4, 14, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def _formula(layer4: nn.Sequential, fc: nn.Linear, layer3: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """(attended, attention) from the whole layer4 and what its last convolution was seen to give."""
    seen: dict[str, Any] = {}
    last: Any = layer4[-1]
    handles = [
        last.conv2.register_forward_hook(lambda _, __, output: seen.update(h=output)),
        last.register_forward_pre_hook(lambda _, inputs: seen.update(z=inputs[0])),
    ]
    features = layer4(layer3)
    for handle in handles:
        handle.remove()
    winner = (features.mean(dim=(2, 3)) @ fc.weight.T + fc.bias).argmax(dim=1)
    evidence = torch.einsum("bl,blhw->bhw", fc.weight[winner], features)
    powers = evidence.exp()
    attention = powers / powers.sum(dim=(1, 2), keepdim=True)
    return (seen["h"] + seen["z"] if kind == "prebn" else features) * attention[:, None], attention


@each_kind
def test_stored_taps_are_those_of_the_formula(kind: str) -> None:
    layer4, fc = _network()
    stored = ego_rnn.attend(SimpleNamespace(layer4=layer4, fc=fc), _maps())
    torch.testing.assert_close(
        stored[ego_rnn.KINDS[kind]], _formula(layer4, fc, _maps(), kind)[0], rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(stored["layer4"], layer4(_maps()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@each_kind
def test_values_and_gradients_are_those_of_the_formula(kind: str, train: bool) -> None:
    layer4, fc = _network(torch.float64)
    layer4.train(train)
    layer3 = _maps(torch.float64).requires_grad_()
    learnt = [layer3, fc.weight, *layer4.parameters()]
    found = ego_rnn.attention(layer4, fc, layer3)
    ours = found.attended(kind)
    plain, attention = _formula(layer4, fc, layer3, kind)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(found.values, attention)
    weights = torch.randn_like(plain)
    gradients = [torch.autograd.grad((value * weights).sum(), learnt, allow_unused=True) for value in (ours, plain)]
    for our_gradient, plain_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(our_gradient, plain_gradient)
    with_gradient = gradients[0][1].any(dim=1).nonzero().flatten()
    assert with_gradient.tolist() == found.winner.unique().tolist()


def test_scores_winner_and_attention_belong_together() -> None:
    layer4, fc = _network()
    found = ego_rnn.attention(layer4, fc, _maps())
    torch.testing.assert_close(found.scores, fc(layer4(_maps()).mean(dim=(2, 3))))
    assert found.winner.tolist() == found.scores.argmax(dim=1).tolist()
    assert found.values.shape == (3, 7, 7)
    torch.testing.assert_close(found.values.sum(dim=(1, 2)), torch.ones(3))
    torch.testing.assert_close(found.features, layer4(_maps()))


def test_every_module_of_layer4_is_run_once() -> None:
    layer4, fc = _network()
    layer4.train()
    calls: list[nn.Module] = []
    convolutions = [module for module in layer4.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        convolution.register_forward_hook(lambda module, *_: calls.append(module))
    ego_rnn.attention(layer4, fc, _maps())
    assert sorted(map(id, calls)) == sorted(map(id, convolutions))
    norms = [module for module in layer4.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}


def test_evidence_of_half_precision_is_summed_in_single() -> None:
    layer4, fc = _network(torch.bfloat16)
    found = ego_rnn.attention(layer4, fc, _maps(torch.bfloat16))
    evidence = torch.einsum("bl,blhw->bhw", fc.weight.float()[found.winner], found.features.float())
    torch.testing.assert_close(found.values, evidence.flatten(1).softmax(dim=1).view(3, 7, 7))


def test_heads_and_stores_name_the_same_kinds() -> None:
    assert ego_rnn_plan.ATTENDED == ego_rnn.KINDS
