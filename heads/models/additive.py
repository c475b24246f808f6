"""A sum of curves: each feature through a piecewise-linear encoding, then one linear layer per output.

Feature x becomes S numbers, clip((x - k_i) / (k_(i+1) - k_i), 0, 1) between neighbouring knots k_0 .. k_S, the
quantiles of that feature over the training clips (piecewise linear encoding, Gorishniy et al., arXiv 2203.05556). A
linear layer on them is a generalised additive model: every feature has a curve of its own, features do not interact,
and beyond the outer knots nothing grows further. On clips unlike those of training it does not run away as a network of
unbounded units does. The pooled vectors of all taps are put side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reelbank.heads.models import HeadShape
from reelbank.heads.models.pooled import pooled_vector

NUM_SEGMENTS = 8
LEAST_WIDTH = 1e-6  # of a segment: where many clips share a value the encoding is a step


class Additive(nn.Module):
    """Encoding and one linear layer per output; `knots` (S + 1, D) are part of the state."""

    knots: Tensor

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        width = sum(shape.taps.values())
        # Until `fit` has seen the training clips: evenly over two standard deviations of z-scored features.
        start = torch.linspace(-2, 2, NUM_SEGMENTS + 1).unsqueeze(1).repeat(1, width)
        self.register_buffer("knots", start)
        self.outputs = nn.ModuleDict({name: nn.Linear(width * NUM_SEGMENTS, n) for name, n in shape.outputs.items()})

    @torch.no_grad()
    def fit(self, vectors: Tensor) -> None:
        """Takes the knots from the pooled vectors (n, D) of the training clips, before the first step."""
        shares = torch.linspace(0, 1, NUM_SEGMENTS + 1, device=vectors.device, dtype=vectors.dtype)
        # Column by column where the table is large: torch's quantile takes at most 2^24 numbers.
        parts = [torch.quantile(part, shares, dim=0) for part in torch.split(vectors, 256, dim=1)]
        self.knots.copy_(torch.cat(parts, dim=1))

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """features {tap: (B, T, D)}, mask (B, T) -> {output: (B, K)}."""
        vector = pooled_vector(features, mask).unsqueeze(1)  # (B, 1, D)
        lower, upper = self.knots[:-1], self.knots[1:]
        encoded = ((vector - lower) / (upper - lower + LEAST_WIDTH)).clamp(0, 1).flatten(1)  # (B, S D)
        return {name: layer(encoded) for name, layer in self.outputs.items()}


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; it has no options."""
    return Additive(shape)
