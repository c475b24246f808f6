"""An MLP of one hidden layer with dropout on the mean of the steps: pooled GoogLeNet on HMDB51 (SYSTEMS.md 3.3).

mean over steps -> Linear(D, 256) -> ReLU -> Dropout 0.3 -> Linear(256, K).

Options:
    hidden: width of the hidden layer.
    dropout: after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reelbank.heads.models import HeadShape
from reelbank.heads.models.pooled import pooled_vector


class MeanMLP(nn.Module):
    """One hidden layer under all outputs."""

    def __init__(self, shape: HeadShape, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(sum(shape.taps.values()), hidden)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.classifiers = nn.ModuleDict({name: nn.Linear(hidden, size) for name, size in shape.outputs.items()})

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """features {tap: (B, T, D)}, mask (B, T) -> {output: (B, K)}."""
        hidden = self.dropout(self.relu(self.hidden(pooled_vector(features, mask))))  # (B, 256)
        return {name: linear(hidden) for name, linear in self.classifiers.items()}


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return MeanMLP(shape, options["hidden"], options["dropout"])
