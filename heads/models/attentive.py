"""Attentive pooling, then the evaluator: which steps count is learnt.

(B, T, D) -> Linear to 256, GELU -> for each of four heads a softmax over the valid steps of Linear(tanh(.)), and the
weighted mean of the head's quarter of the channels -> the four side by side, (B, 256) -> evaluator. After gated
attention pooling of bags (Ilse et al., arXiv 1802.04712), without the gate and with several heads. The taps of several
stores are put side by side at each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reelbank.heads.models import HeadShape
from reelbank.heads.models.mlp import Evaluator

WIDTH = 256
NUM_HEADS = 4


class AttentivePooling(nn.Module):
    """(B, T, D), (B, T) -> (B, 256); a clip without valid steps gives zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, WIDTH)
        self.score = nn.Linear(WIDTH, NUM_HEADS)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """sequence (B, T, D), mask (B, T) bool -> (B, 256)."""
        hidden = F.gelu(self.project(sequence))  # (B, T, 256)
        scores = self.score(torch.tanh(hidden)).transpose(1, 2)  # (B, heads, T)
        # The lowest finite number, not -inf: a clip without valid steps must not become NaN.
        scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1) * mask.unsqueeze(1)
        parts = hidden.reshape(*hidden.shape[:2], NUM_HEADS, WIDTH // NUM_HEADS)  # (B, T, heads, 64)
        pooled: Tensor = torch.einsum("bht,bthc->bhc", weights, parts).flatten(1)
        return pooled


class Attentive(nn.Module):
    """Attentive pooling of all taps side by side, and the evaluator."""

    def __init__(self, shape: HeadShape, trunk: str) -> None:
        super().__init__()
        self.pooling = AttentivePooling(sum(shape.taps.values()))
        self.evaluator = Evaluator(WIDTH, shape.outputs, trunk)

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """features {tap: (B, T, D)}, mask (B, T) -> {output: (B, K)}."""
        sequence = torch.cat([features[tap] for tap in sorted(features)], dim=-1)
        logits: dict[str, Tensor] = self.evaluator(self.pooling(sequence, mask))
        return logits


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`. Options: trunk `separate` or `shared`."""
    return Attentive(shape, options["trunk"])
