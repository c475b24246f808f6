"""Forward and backward pass of heads that are linear layers and ReLU only, without autograd, of one or of K at once.

Autograd costs a small head more than its arithmetic. Here the layers' gradients are matrix products written straight
into the flat gradient, which therefore needs no clearing; the loss brings its own. Shapes are those of one head; in a
stack of K a K stands before each.
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
Product = Callable[..., Tensor]


@dataclass(frozen=True)
class _Layer:
    """One layer's tensors: weight (out, in), bias (out,) and where their gradients are written."""

    weight: Tensor
    transposed: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor
    multiply: Product
    multiply_and_add: Product

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, weight_gradient: Tensor, bias_gradient: Tensor) -> _Layer:
        """A layer, or with (K, out, in) the layer of K heads: `matmul` would find out at every call which it is."""
        if weight.dim() == 2:
            return cls(weight, weight.mT, bias, weight_gradient, bias_gradient, torch.mm, torch.addmm)
        bias = bias.unsqueeze(1)  # (K, 1, out)
        return cls(weight, weight.mT, bias, weight_gradient, bias_gradient, torch.bmm, torch.baddbmm)

    def forward(self, entered: Tensor) -> Tensor:
        """(B, in) -> (B, out)."""
        return self.multiply_and_add(self.bias, entered, self.transposed)

    def backward(self, gradient: Tensor, entered: Tensor) -> None:
        """Writes this layer's gradients: `gradient` (B, out) of its output, `entered` (B, in) its input."""
        self.multiply(gradient.mT, entered, out=self.weight_gradient)
        torch.sum(gradient, -2, out=self.bias_gradient)

    def below(self, gradient: Tensor) -> Tensor:
        """The gradient of its input (B, in) from that of its output (B, out)."""
        return self.multiply(gradient, self.weight)


class DirectPass:
    """The layers of one head whose parameters are `FlatParameters`, or of K that are rows of a stack of such."""

    def __init__(
        self,
        head: LayeredHead,
        values: Mapping[str, Tensor] | None = None,
        gradients: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`values` and `gradients` {parameter: (K, *shape)} of a stack; None: the head's own."""
        assert isinstance(head, nn.Module)
        if values is None or gradients is None:
            own = {name: tensor for name, tensor in head.named_parameters() if tensor.grad is not None}
            values = {name: tensor.data for name, tensor in own.items()}
            gradients = {name: tensor.grad for name, tensor in own.items() if tensor.grad is not None}
        names = {module: name for name, module in head.named_modules()}

        def layer(linear: nn.Linear) -> _Layer:
            weight, bias = f"{names[linear]}.weight", f"{names[linear]}.bias"
            return _Layer.of(values[weight], values[bias], gradients[weight], gradients[bias])

        trunk, branches = head.linear_layers()
        self._trunk = [layer(one) for one in trunk]
        self._branches = {name: [layer(one) for one in branch] for name, branch in branches.items()}

    @torch.no_grad()
    def backward(self, vector: Tensor, loss_of: LossWithGradient) -> Tensor:
        """Writes the gradient of the loss at `vector` (B, D) into every layer; returns the loss, a scalar.

        Args:
            loss_of: from logits {output: (B, K)} to the scalar loss and its gradient in each of them.
        """
        shared = [vector]
        for layer in self._trunk:
            shared.append(layer.forward(shared[-1]).relu_())
        entered = {name: _entered(branch, shared[-1]) for name, branch in self._branches.items()}
        loss, gradients = loss_of(
            {name: branch[-1].forward(entered[name][-1]) for name, branch in self._branches.items()}
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
        entered.append(layer.forward(entered[-1]).relu_())
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
            gradient = _through_relu(layers[depth].below(gradient), entered[depth])
    return layers[0].below(gradient) if into_input else None
