"""The fast inner loop against plain autograd and torch's own optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from reelbank.heads import losses
from reelbank.heads.config import OptimizerConfig
from reelbank.heads.losses import LOSSES
from reelbank.heads.models import HEADS, HeadShape, build_head
from reelbank.heads.objective_config import ObjectiveConfig
from reelbank.heads.optimizers import OPTIMIZERS
from reelbank.heads.training import objective, optimization
from reelbank.heads.training.direct import DirectPass, LayeredHead
from reelbank.heads.training.flat import FlatParameters
from reelbank.heads.training.fused import FUSED, KERNELS, usable
from reelbank.heads.training.job import Labels
from reelbank.heads.training.objective import total_loss, total_loss_with_gradient
from reelbank.heads.training.optimization import advance, learning_rate, load, make_optimizer, make_schedule
from reelbank.heads.training.stacked_optimizers import FusedAdam, Hyperparameters

SHAPE = HeadShape(taps={"cls": 10}, outputs={"label": 3, "target": 7}, num_steps=1)
LAYERED = [("linear", {}), ("mlp", {"trunk": "separate"}), ("mlp", {"trunk": "shared"})]


def _loss(logits: dict[str, Tensor]) -> Tensor:
    return sum((values.log_softmax(1)[:, 1] ** 2).mean() for values in logits.values())  # type: ignore[return-value]


def _with_gradient(logits: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.enable_grad():
        leaves = {name: values.requires_grad_() for name, values in logits.items()}
        loss = _loss(leaves)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
    return loss.detach(), dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("target_labels", ["density", "soft"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_closed_gradient_of_the_loss_is_that_of_autograd(
    name: str, reduction: str, weighted: bool, target_labels: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(6, 9, generator=generator, dtype=torch.float64).mul(8).softmax(1)
    p[0] = torch.eye(9)[4]  # one bin, and far from the prediction
    if target_labels == "density":
        p[2] *= 0.54  # cut off at a border
    labels = Labels(
        classes=torch.tensor([0, 1, 2, 2, 1, 0]),
        class_weights=torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64) if weighted else None,
        values=torch.zeros(6),
        distributions=p,
    )
    config = ObjectiveConfig(
        loss=name, class_loss=name, reduction=reduction, label_smoothing=0.1, target_labels=target_labels
    )
    logits = {
        output: torch.randn(4, size, generator=generator, dtype=torch.float64).mul(5).requires_grad_()
        for output, size in (("label", 3), ("target", 9))
    }
    index = torch.tensor([0, 5, 2, 4])
    expected = total_loss(config, labels, logits, index, complete=True)
    gradients = torch.autograd.grad(expected, list(logits.values()))
    with torch.no_grad():
        loss, ours = total_loss_with_gradient(config, labels, logits, index)
    torch.testing.assert_close(loss, expected.detach())
    for output, gradient in zip(logits, gradients, strict=True):
        torch.testing.assert_close(ours[output], gradient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("own_gradient", [True, False])
@pytest.mark.parametrize("copies", [0, 6])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_of_several_heads_at_once_is_that_of_each(
    name: str, copies: int, own_gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own clips: weights are shared out within the batch of one head."""
    if not own_gradient:
        autograd = lambda name: losses._by_autograd(losses.loss_function(name))  # noqa: E731
        monkeypatch.setattr(objective, "loss_with_gradient", autograd)
    labels = Labels(
        classes=torch.tensor([0, 1, 2, 2, 1, 0]),
        class_weights=torch.tensor([0.5, 2.0, 0.1]),
        values=torch.zeros(6),
        distributions=torch.randn(6, 9).softmax(1) * 0.8,
        num_clips=copies,
    )
    asked = ObjectiveConfig(loss=name, class_loss=name, label_smoothing=0.1, target_labels="density")
    logits = {"label": torch.randn(3, 4, 3), "target": torch.randn(3, 4, 9)}
    index = torch.tensor([[0, 5, 2, 4], [1, 1, 0, 3], [2, 3, 4, 5]]) + copies  # copy 1 of each, where there are copies
    together, gradients = total_loss_with_gradient(asked, labels, logits, index)
    assert together.shape == (3,)
    for place in range(3):
        own = {output: values[place] for output, values in logits.items()}
        loss, expected = total_loss_with_gradient(asked, labels, own, index[place])
        torch.testing.assert_close(together[place], loss)
        for output, gradient in expected.items():
            torch.testing.assert_close(gradients[output][place], gradient)


@pytest.mark.parametrize(("name", "options"), LAYERED)
def test_direct_pass_of_a_stack_gives_the_gradients_of_each_head(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    heads, vectors = [build_head(name, SHAPE, options) for _ in range(3)], torch.randn(3, 5, 10)
    flats = [FlatParameters(head) for head in heads]
    values = torch.stack([flat.values.detach() for flat in flats])
    gradient = torch.full_like(values, 9.0)
    first = heads[0]
    assert isinstance(first, LayeredHead)
    stacked = DirectPass(first, flats[0].views(values), flats[0].views(gradient))

    def with_gradient(logits: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        each = [_with_gradient({name: one[place] for name, one in logits.items()}) for place in range(3)]
        return torch.stack([loss for loss, _ in each]), {
            name: torch.stack([made[name] for _, made in each]) for name in logits
        }

    found = stacked.backward(vectors, with_gradient)
    for place, (head, flat) in enumerate(zip(heads, flats, strict=True)):
        assert isinstance(head, LayeredHead)
        loss = DirectPass(head).backward(vectors[place], _with_gradient)
        torch.testing.assert_close(found[place], loss)
        for ours, theirs in zip(flat.views(gradient[place]).values(), flat.views(flat.gradient).values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), LAYERED)
def test_direct_pass_gives_the_gradients_of_autograd(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    head, vector = build_head(name, SHAPE, options), torch.randn(5, 10)
    expected_loss = _loss(head({"cls": vector.unsqueeze(1)}, torch.ones(5, 1, dtype=torch.bool)))
    expected = torch.autograd.grad(expected_loss, list(head.parameters()))
    flat = FlatParameters(head)
    assert isinstance(head, LayeredHead)
    flat.gradient.fill_(9.0)  # what an earlier step left must not matter
    loss = DirectPass(head).backward(vector, _with_gradient)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-6)
    for tensor, gradient in zip(head.parameters(), expected, strict=True):
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in sorted(HEADS) if not (HEADS[name].is_fitted or HEADS[name].plan)])
def test_flat_parameters_are_those_of_the_head(name: str) -> None:
    head = build_head(name, SHAPE)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    flat = FlatParameters(head)
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())
    with torch.no_grad():
        flat.values.add_(1.0)
    assert all(torch.equal(value, before[key] + 1) for key, value in head.named_parameters())
    head.load_state_dict(before)
    for key, view in flat.views(flat.values.detach()).items():
        assert torch.equal(view, before[key])
        assert view.data_ptr() % 64 == flat.values.data_ptr() % 64
    stacked = flat.views(torch.stack([flat.values.detach(), flat.values.detach() * 2]))
    assert all(torch.equal(view[1], before[key] * 2) for key, view in stacked.items())


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_flat_adam_gives_the_bits_of_torchs_fused_adam(name: str) -> None:
    config = OptimizerConfig(name=name, weight_decay=0.1, lr=0.01)
    ours, theirs = torch.nn.Parameter(torch.linspace(-1, 1, 100)), torch.nn.Parameter(torch.linspace(-1, 1, 100))
    peer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]([theirs], lr=0.01, weight_decay=0.1, fused=True)
    optimizer = make_optimizer(ours, config)
    for step in range(20):
        ours.grad = torch.sin(torch.arange(100) + step)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        peer.step()
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stacked_update_is_that_of_each_member(name: str) -> None:
    """Each of three members with its own numbers, over enough steps for RAdam to rectify."""
    configs = [
        OptimizerConfig(name=name, lr=lr, weight_decay=decay, betas=betas, eps=eps, momentum=m, alpha=a)
        for lr, decay, betas, eps, m, a in (
            (1e-2, 0.0, (0.9, 0.999), 1e-8, 0.0, 0.99),
            (3e-3, 0.1, (0.8, 0.9), 1e-3, 0.9, 0.9),
            (1e-1, 1e-3, (0.0, 0.99), 1e-5, 0.5, 0.5),
        )
    ]
    start = torch.linspace(-1, 1, 50)
    alone = [torch.nn.Parameter(start.clone()) for _ in configs]
    optimizers = [make_optimizer(values, config) for values, config in zip(alone, configs, strict=True)]
    update, names = load(OPTIMIZERS[name].update), OPTIMIZERS[name].state
    stack = start.repeat(3, 1)
    state = {entry: torch.zeros_like(stack) for entry in names}
    hyper = Hyperparameters.of(configs, torch.device("cpu"))
    rates = torch.tensor([[config.lr] for config in configs], dtype=torch.float64)
    for step in range(1, 21):
        gradient = torch.sin(torch.arange(50) * step / 3.0)
        for values, optimizer in zip(alone, optimizers, strict=True):
            values.grad = gradient.clone()
            optimizer.step()
        update(stack, gradient.repeat(3, 1), state, hyper, rates, step)
    for row, values in zip(stack, alone, strict=True):
        torch.testing.assert_close(row, values.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_fused_update_of_a_stack_is_that_of_each_member(name: str) -> None:
    """Members 0 and 2 are a group; each row gets its own numbers."""
    settings: list[dict[str, Any]] = [
        {"lr": 0.01, "weight_decay": 0.1}, {"lr": 0.1, "betas": (0.8, 0.9)}, {"lr": 0.01, "weight_decay": 0.1},
        {"lr": 0.01, "weight_decay": 0.1, "eps": 0.1},
    ]  # fmt: skip
    configs = [OptimizerConfig(name=name, **one) for one in settings]
    alone = [torch.nn.Parameter(torch.linspace(-1, place + 1, 50)) for place in range(4)]
    optimizers = [make_optimizer(values, config) for values, config in zip(alone, configs, strict=True)]
    stack = torch.stack([values.detach().clone() for values in alone])
    fused = FusedAdam(FUSED[name], configs)
    groups = fused.groups([config.lr for config in configs])
    assert list(groups.values()) == [[0, 2], [1], [3]]
    state = {entry: torch.zeros_like(stack) for entry in OPTIMIZERS[name].state}
    for step in range(1, 21):
        gradient = torch.sin(torch.arange(200.0).view(4, 50) * step / 3)
        for place, (values, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            values.grad = gradient[place].clone()
            optimizer.step()
        fused.step(groups, stack, gradient, state, torch.tensor(float(step)))
    torch.testing.assert_close(stack, torch.stack([values.detach() for values in alone]))


def test_the_fused_update_is_taken_on_a_cpu_and_for_large_groups() -> None:
    fused = FusedAdam(FUSED["adam"], [OptimizerConfig(lr=0.1)] * 16)
    one, three = fused.groups([0.1] * 16), fused.groups([0.1] * 8 + [0.2] * 7 + [0.3])
    assert [fused.suits(groups, torch.device("cuda")) for groups in (one, three)] == [True, False]
    assert fused.suits(three, torch.device("cpu"))


@pytest.mark.parametrize("betas", [(0.85, 0.995), (0.9, 0.999), (0.98, 0.9995)])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_radam_by_the_kernel_of_adam_is_torchs(betas: tuple[float, float], eps: float) -> None:
    config = OptimizerConfig(name="radam", lr=1e-2, weight_decay=1e-3, betas=betas, eps=eps)
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 1000)) for _ in range(2))
    options = {"lr": config.lr, "betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay}
    optimizers = make_optimizer(ours, config), torch.optim.RAdam([theirs], foreach=False, **options)
    for _ in range(12):  # the rectification starts at the sixth step
        gradient = torch.randn(1000)
        for values, optimizer in zip((ours, theirs), optimizers, strict=True):
            values.grad = gradient.clone()
            optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    states = [optimizer.state_dict()["state"][0] for optimizer in optimizers]
    assert sorted(states[0]) == sorted(states[1])
    assert float(states[0]["step"]) == 12


def test_step20_reaches_the_published_rate() -> None:
    values = torch.nn.Parameter(torch.zeros(1))
    values.grad = torch.zeros(1)
    config = OptimizerConfig(lr=1e-4, schedule="step", step_epochs=20, factor=0.5)
    optimizer = make_optimizer(values, config)
    schedule = make_schedule(optimizer, config)
    for _ in range(199):
        optimizer.step()
        advance(schedule, 0.0)
    assert learning_rate(optimizer) == pytest.approx(1.953e-7, rel=1e-3)  # of epoch 200


def _of_other_arguments(*tensors: Any, lr: Any, betas: Any, **more: Any) -> None:
    pass


def _of_other_numbers(*tensors: Any, **more: Any) -> None:
    pass


@pytest.mark.parametrize("other", [None, _of_other_arguments, _of_other_numbers])
def test_kernel_that_is_gone_or_changed_is_not_used(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(usable()) == set(KERNELS)
    if other is None:
        monkeypatch.delattr(torch, "_fused_adam_")
    else:
        monkeypatch.setattr(torch, "_fused_adam_", other)
    assert set(usable()) == {"adamw"}


@pytest.mark.parametrize("name", ["adam", "adamw", "radam"])
def test_without_the_kernels_the_numbers_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = OptimizerConfig(name=name, lr=1e-2, weight_decay=1e-3)
    trained = []
    for kernels in (dict(FUSED), {}):
        monkeypatch.setattr(optimization, "FUSED", kernels)
        monkeypatch.setattr(torch, "_fused_adam_", FUSED["adam"] if kernels else None)  # nor by torch itself
        values = torch.nn.Parameter(torch.linspace(-1, 1, 100))
        optimizer = make_optimizer(values, config)
        for step in range(12):
            values.grad = torch.sin(torch.arange(100.0) * step)
            optimizer.step()
        trained.append((values.detach(), sorted(optimizer.state[values])))
    torch.testing.assert_close(trained[0][0], trained[1][0], rtol=1e-5, atol=1e-6)
    assert trained[0][1] == trained[1][1]  # what a checkpoint holds
