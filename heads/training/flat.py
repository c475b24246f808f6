"""All trained parameters of a head as one vector, so that an optimiser makes one pass instead of one per tensor."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn

ALIGNED_NUMBERS = 16  # every tensor begins at a multiple of 64 bytes: a cache line, the width of AVX-512


class FlatParameters:
    """The parameters of a head (P,) and their gradient (P,); the head's own tensors become views of the two.

    The few numbers between tensors are zero, have the gradient zero and stay zero under every optimiser.

    Attributes:
        values: what an optimiser is given; its `.grad` is always `gradient`.
        spans: {name: (first, last + 1, shape)} of each tensor.
    """

    def __init__(self, head: nn.Module, names: Container[str] | None = None) -> None:
        """`names`: of the parameters; None: all that are trained."""
        named = [
            (name, tensor)
            for name, tensor in head.named_parameters()
            if tensor.requires_grad and (names is None or name in names)
        ]
        self.spans: dict[str, tuple[int, int, torch.Size]] = {}
        end = 0
        for name, tensor in named:
            self.spans[name] = (end, end + tensor.numel(), tensor.shape)
            end += -(-tensor.numel() // ALIGNED_NUMBERS) * ALIGNED_NUMBERS
        first = named[0][1]
        flat = torch.zeros(end, dtype=first.dtype, device=first.device)
        self.values = nn.Parameter(flat)
        self.gradient = torch.zeros_like(flat)
        self.values.grad = self.gradient
        views, gradients = self.views(flat), self.views(self.gradient)
        for name, tensor in named:
            views[name].copy_(tensor.detach())
            tensor.data = views[name]
            tensor.grad = gradients[name]

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Each tensor as a view of `vector` (P,); of (K, P), as (K, *shape)."""
        lead = vector.shape[:-1]
        return {
            name: vector[..., start:stop].view((*lead, *shape)) for name, (start, stop, shape) in self.spans.items()
        }  # fmt: skip
