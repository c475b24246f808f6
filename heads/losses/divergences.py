"""Losses between a label distribution p and a prediction q = softmax(z); `LOSSES` names them.

0 log 0 = 0 throughout. `ce` and `kld` differ by the entropy of p only: their gradients are the same. The functions
`..._with_gradient` write the gradient in z without autograd; where the rows of p do not sum to 1 they are given the
sums, `mass` (B, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Below this, the mixture of the Jensen-Shannon divergence counts as zero: log stays finite in float32.
JSD_CLAMP = 1e-12


def cross_entropy(logits: Tensor, p: Tensor) -> Tensor:
    """-sum_n p log q."""
    return -(p * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def binary_cross_entropy(logits: Tensor, p: Tensor) -> Tensor:
    """Mean over n of -p log s - (1 - p) log (1 - s), s = sigmoid(z): each class by itself."""
    return F.binary_cross_entropy_with_logits(logits, p, reduction="none").mean(dim=-1)


def cross_entropy_on_softmax(logits: Tensor, p: Tensor) -> Tensor:
    """-sum_n p log softmax(q): cross-entropy of a network whose last layer is a softmax already (SYSTEMS.md 5.2).

    Between ln(e + K - 1) - 1 and 1 more, so a network that is sure of all it says has the lower bound plus its share of
    mistakes. Two published networks were trained by it; `ce` is what was meant.
    """
    return cross_entropy(F.softmax(logits, dim=-1), p)


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


def jensen_shannon_sum(logits: Tensor, p: Tensor) -> Tensor:
    """`jensen_shannon` without its halves: sum_n p (log p - log m) + sum_n q (log q - log m); at most 2 ln 2."""
    return 2 * jensen_shannon(logits, p)


def cross_entropy_with_gradient(logits: Tensor, p: Tensor, mass: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Gradient: q sum_n p - p."""
    log_q = F.log_softmax(logits, dim=-1)
    q = log_q.exp()
    return -(p * log_q).sum(dim=-1), (q if mass is None else q.mul_(mass)).sub_(p)


def binary_cross_entropy_with_gradient(logits: Tensor, p: Tensor, mass: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Gradient: (s - p) / K, whatever p sums to."""
    return binary_cross_entropy(logits, p), logits.sigmoid().sub_(p).div_(logits.shape[-1])


def cross_entropy_on_softmax_with_gradient(
    logits: Tensor, p: Tensor, mass: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradient: q (g - sum_n q g), with g = softmax(q) sum_n p - p that of `cross_entropy` in q."""
    q = F.softmax(logits, dim=-1)
    loss, gradient = cross_entropy_with_gradient(q, p, mass)
    return loss, gradient.sub_((q * gradient).sum(dim=-1, keepdim=True)).mul_(q)


def kullback_leibler_with_gradient(logits: Tensor, p: Tensor, mass: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Gradient: q sum_n p - p."""
    loss, gradient = cross_entropy_with_gradient(logits, p, mass)
    return loss + torch.xlogy(p, p).sum(dim=-1), gradient


def jensen_shannon_with_gradient(logits: Tensor, p: Tensor, mass: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Gradient: q (d - sum_n q d) with d = (log q - log m) / 2, whatever p sums to.

    What the clamp adds where q < 2e-12 is left out.
    """
    log_q = F.log_softmax(logits, dim=-1)
    q = log_q.exp()
    log_m = ((p + q) / 2).clamp_(min=JSD_CLAMP).log_()
    d = (log_q - log_m).div_(2)
    from_q = (q * d).sum(dim=-1, keepdim=True)
    from_p = 0.5 * (torch.xlogy(p, p) - p * log_m).sum(dim=-1)
    return from_p + from_q.squeeze(-1), q.mul_(d.sub_(from_q))


def jensen_shannon_sum_with_gradient(logits: Tensor, p: Tensor, mass: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Twice that of `jensen_shannon_with_gradient`."""
    loss, gradient = jensen_shannon_with_gradient(logits, p, mass)
    return 2 * loss, gradient.mul_(2)
