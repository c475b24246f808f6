"""From the losses of single examples to the scalar that is minimised."""

from __future__ import annotations

from torch import Tensor


def reduce(per_example: Tensor, num_bins: int, reduction: str, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch, the last axis, weighted as in torch (divided by the weights' sum); `mean` also divides by K.

    Examples of weight 0 do not count; if all have, the result is 0.
    """
    if weights is None:
        mean = per_example.mean(dim=-1)
    else:
        mean = (per_example * weights).sum(dim=-1) / weights.sum(dim=-1).clamp(min=1e-12)
    return mean / num_bins if reduction == "mean" else mean


def reduce_with_shares(
    per_example: Tensor, num_bins: int, reduction: str, weights: Tensor | None
) -> tuple[Tensor, Tensor | float]:
    """`reduce`, and its derivative in every example: (..., B, 1), or one number for all."""
    reduced = reduce(per_example, num_bins, reduction, weights)
    divisor = float(num_bins) if reduction == "mean" else 1.0
    if weights is None:
        return reduced, 1.0 / (per_example.shape[-1] * divisor)
    return reduced, (weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-12) / divisor).unsqueeze(-1)
