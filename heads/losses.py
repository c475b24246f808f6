"""Losses between a label distribution p and a prediction q = softmax(z). One function, one row of `LOSSES`.

Every function takes logits z (B, K) and p (B, K), and returns the sum over K per example, (B,), in nats.
Classes are one-hot rows, so one table serves both outputs (SYSTEMS.md 1.7). 0 log 0 = 0 throughout.
`ce` and `kld` differ by the entropy of p only: their gradients are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

# Below this, the mixture of the Jensen-Shannon divergence counts as zero: log stays finite in float32.
JSD_CLAMP = 1e-12


def cross_entropy(logits: Tensor, p: Tensor) -> Tensor:
    """-sum_n p log q."""
    return -(p * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def kullback_leibler(logits: Tensor, p: Tensor) -> Tensor:
    """sum_n p (log p - log q): how far the prediction is from the label, in the label's mean."""
    return torch.xlogy(p, p).sum(dim=-1) + cross_entropy(logits, p)


def jensen_shannon(logits: Tensor, p: Tensor) -> Tensor:
    """0.5 sum_n p (log p - log m) + 0.5 sum_n q (log q - log m), m = (p + q) / 2; at most ln 2.

    m is clamped at 1e-12 (Lin, 1991, doi 10.1109/18.61115; the clamp is SYSTEMS.md 1.7).
    """
    log_q = F.log_softmax(logits, dim=-1)
    q = log_q.exp()
    log_m = ((p + q) / 2).clamp(min=JSD_CLAMP).log()
    return 0.5 * (torch.xlogy(p, p) - p * log_m + q * (log_q - log_m)).sum(dim=-1)


Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: Mapping[str, Loss] = {
    "ce": cross_entropy,
    "jsd": jensen_shannon,
    "kld": kullback_leibler,
}


def reduce(per_example: Tensor, num_bins: int, reduction: str, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch, weighted as in torch (divided by the weights' sum); `mean` also divides by K.

    Examples of weight 0 do not count; if all have, the result is 0.
    """
    divisor = float(num_bins) if reduction == "mean" else 1.0
    if weights is None:
        return per_example.mean() / divisor
    return (per_example * weights).sum() / weights.sum().clamp(min=1e-12) / divisor
