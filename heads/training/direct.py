"""Forward and backward pass of heads that are linear layers and ReLU only, without autograd.

Autograd costs a small head more than its arithmetic. Here the layers' gradients are matrix products written straight
into the flat gradient, which therefore needs no clearing; the loss brings its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class LayeredHead(Protocol):
    """A head that reads one pooled vector through linear layers with ReLU between them."""

    def linear_layers(self) -> tuple[Sequence[nn.Linear], Mapping[str, Sequence[nn.Linear]]]:
        """(trunk, {output: branch}): ReLU follows every layer but the last of each branch; the trunk may be empty."""


# From logits {output: (B, K)} to (scalar loss, its gradient {output: (B, K)}).
LossWithGradient = Callable[[Mapping[str, Tensor]], tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class _Layer:
    """One layer's tensors: weight (out, in), bias (out,) and where their gradients are written."""

    weight: Tensor
    transposed: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> _Layer:
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None
        weight = layer.weight.data
        return cls(weight, weight.t(), layer.bias.data, layer.weight.grad, layer.bias.grad)

    def backward(self, gradient: Tensor, entered: Tensor) -> None:
        """Writes this layer's gradients: `gradient` (B, out) of its output, `entered` (B, in) its input."""
        torch.mm(gradient.t(), entered, out=self.weight_gradient)
        torch.sum(gradient, 0, out=self.bias_gradient)


class DirectPass:
    """The layers of one head whose parameters are `FlatParameters`."""

    def __init__(self, head: LayeredHead) -> None:
        trunk, branches = head.linear_layers()
        self._trunk = [_Layer.of(layer) for layer in trunk]
        self._branches = {name: [_Layer.of(layer) for layer in branch] for name, branch in branches.items()}

    @torch.no_grad()
    def backward(self, vector: Tensor, loss_of: LossWithGradient) -> Tensor:
        """Writes the gradient of the loss at `vector` (B, D) into every layer; returns the loss, a scalar.

        Args:
            loss_of: from logits {output: (B, K)} to the scalar loss and its gradient in each of them.
        """
        shared = [vector]
        for layer in self._trunk:
            shared.append(torch.addmm(layer.bias, shared[-1], layer.transposed).relu_())
        entered = {name: _entered(branch, shared[-1]) for name, branch in self._branches.items()}
        loss, gradients = loss_of(
            {
                name: torch.addmm(branch[-1].bias, entered[name][-1], branch[-1].transposed)
                for name, branch in self._branches.items()
            }
        )
        above: Tensor | None = None
        for name, branch in self._branches.items():
            below = _backward(branch, entered[name], gradients[name], into_input=bool(self._trunk))
            if below is not None:
                above = below if above is None else above.add_(below)
        if above is not None:
            _backward(self._trunk, shared[:-1], _through_relu(above, shared[-1]), into_input=False)
        return loss


def _entered(branch: Sequence[_Layer], vector: Tensor) -> list[Tensor]:
    """What each layer of `branch` reads: (B, in) each, the first `vector` itself."""
    entered = [vector]
    for layer in branch[:-1]:
        entered.append(torch.addmm(layer.bias, entered[-1], layer.transposed).relu_())
    return entered


def _through_relu(gradient: Tensor, output: Tensor) -> Tensor:
    through: Tensor = torch.ops.aten.threshold_backward(gradient, output, 0)
    return through


def _backward(
    layers: Sequence[_Layer], entered: Sequence[Tensor], gradient: Tensor, *, into_input: bool
) -> Tensor | None:
    """Gradients of a chain from that of its output; returns that of its input if `into_input`."""
    for depth in range(len(layers) - 1, -1, -1):
        layers[depth].backward(gradient, entered[depth])
        if depth:
            gradient = _through_relu(torch.mm(gradient, layers[depth].weight), entered[depth])
    return torch.mm(gradient, layers[0].weight) if into_input else None
