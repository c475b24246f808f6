"""A network on each step of clips by itself, as a CNN reads frames."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def each_step(
    network: nn.Module | Callable[[Tensor], Tensor], steps: Tensor, mask: Tensor, *, training: bool
) -> Tensor:
    """Steps (B, T, ...), mask (B, T) -> what `network`, (N, ...) -> (N, ...), makes of each: (B, T, ...).

    In training it sees valid steps alone, since the statistics of batch norm must be those of frames, and padding is
    zeros behind it; in evaluation it sees all, and what it makes of padding is for the mask.
    """
    flat = steps.flatten(0, 1)
    made: Tensor
    if not training:
        made = network(flat)
    else:
        valid = mask.flatten()
        of_valid = network(flat[valid])
        made = of_valid.new_zeros(len(flat), *of_valid.shape[1:]).index_put((valid,), of_valid)
    return made.reshape(*steps.shape[:2], *made.shape[1:])
