"""From the losses of single examples to the scalar that is minimised."""

from __future__ import annotations

from torch import Tensor


def reduce(per_example: Tensor, num_bins: int, reduction: str, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch, weighted as in torch (divided by the weights' sum); `mean` also divides by K.

    Examples of weight 0 do not count; if all have, the result is 0.
    """
    mean = per_example.mean() if weights is None else (per_example * weights).sum() / weights.sum().clamp(min=1e-12)
    return mean / num_bins if reduction == "mean" else mean


def reduce_with_shares(
    per_example: Tensor, num_bins: int, reduction: str, weights: Tensor | None
) -> tuple[Tensor, Tensor | float]:
    """`reduce`, and its derivative in every example: (B, 1), or one number for all."""
    reduced = reduce(per_example, num_bins, reduction, weights)
    divisor = float(num_bins) if reduction == "mean" else 1.0
    if weights is None:
        return reduced, 1.0 / (len(per_example) * divisor)
    return reduced, (weights / weights.sum().clamp(min=1e-12) / divisor).unsqueeze(1)
