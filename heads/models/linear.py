"""One linear layer per output on the pooled vector: the linear probe as a trained head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reelbank.heads.models import HeadShape
from reelbank.heads.models.pooled import pooled_vector


class Linear(nn.Module):
    """Logits = W x + b for each output, x the concatenated pooled vectors of all taps (in sorted order)."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        width = sum(shape.taps.values())
        self.outputs = nn.ModuleDict({name: nn.Linear(width, size) for name, size in shape.outputs.items()})

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """features {tap: (B, T, D)}, mask (B, T) -> {output: (B, K)}."""
        vector = pooled_vector(features, mask)  # (B, D)
        return {name: layer(vector) for name, layer in self.outputs.items()}

    def linear_layers(self) -> tuple[Sequence[nn.Linear], Mapping[str, Sequence[nn.Linear]]]:
        """(no trunk, {output: its one layer}), see `reelbank.heads.training.direct`."""
        return (), {name: [layer] for name, layer in self.outputs.items() if isinstance(layer, nn.Linear)}


def build(shape: HeadShape, options: Mapping[str, Any]) -> torch.nn.Module:
    """The head for `shape`; it has no options."""
    return Linear(shape)
