"""Head `cosine`: logits are scaled cosines between the pooled vector and one learnt direction per class or bin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reelbank.heads.models import HeadRow, HeadShape

ROW = HeadRow(
    target="reelbank_example.cosine:build",
    summary="scaled cosine to a learnt direction per class or bin, on the pooled vector",
    options={"scale": 16.0},
)


class Cosine(nn.Module):
    """One matrix of directions per output."""

    def __init__(self, shape: HeadShape, scale: float) -> None:
        super().__init__()
        width = sum(shape.taps.values())
        self.scale = scale
        self.directions = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(count, width)) for name, count in shape.outputs.items()}
        )

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """features {tap: (B, 1, D)}, mask (B, 1) -> {output: (B, K)}."""
        vector = torch.cat([features[tap][:, 0] for tap in sorted(features)], dim=1)  # (B, D)
        unit = F.normalize(vector, dim=1)
        return {name: self.scale * unit @ F.normalize(rows, dim=1).T for name, rows in self.directions.items()}


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`."""
    return Cosine(shape, options["scale"])
