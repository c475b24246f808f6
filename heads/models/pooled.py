"""Mean over the valid steps: what turns a sequence into the vector of a pooled head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def masked_mean(sequence: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid steps: (B, T, D), (B, T) bool -> (B, D). A clip without valid steps gives zeros."""
    if sequence.shape[1] == 1:
        return sequence[:, 0] * mask.to(sequence.dtype)
    weights = mask.to(sequence.dtype).unsqueeze(-1)  # (B, T, 1)
    return (sequence * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def pooled_vector(features: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """The pooled vectors of all taps side by side, taps in sorted order: (B, sum of D)."""
    vectors = [masked_mean(features[tap], mask) for tap in sorted(features)]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)
