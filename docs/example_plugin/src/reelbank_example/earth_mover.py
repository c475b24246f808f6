"""Loss `emd`: a loss is one function; autograd writes its gradient."""

from __future__ import annotations

from torch import Tensor


def earth_mover(logits: Tensor, p: Tensor) -> Tensor:
    """Squared earth mover's distance over ordered bins, sum_n (Q_n - P_n)^2 of the cumulated distributions.

    Hou, Yu and Samaras 2016, arXiv:1611.05916.
    """
    difference = (logits.softmax(dim=-1) - p).cumsum(dim=-1)
    return difference.square().sum(dim=-1)
