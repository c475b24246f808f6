"""torch's fused kernels of Adam. They are private, so they are used only where they are there and do what they did."""

from __future__ import annotations

from collections.abc import Callable

import torch

Kernel = Callable[..., None]

KERNELS = {"adam": "_fused_adam_", "adamw": "_fused_adamw_"}
"""Optimiser -> its kernel, an attribute of torch."""


def usable() -> dict[str, Kernel]:
    """{optimiser: kernel} of those that this torch has, that take these arguments and make the first step of Adam.

    Without one the optimisers of torch's public face do the same, slower.
    """
    found = {}
    for name, attribute in KERNELS.items():
        kernel = getattr(torch, attribute, None)
        if kernel is not None and _steps(kernel):
            found[name] = kernel
    return found


def _steps(kernel: Kernel) -> bool:
    """Whether one step of the rate 0.5 moves 1 by it, against the gradient."""
    value, gradient, mean, square = (torch.tensor([number]) for number in (1.0, 3.0, 0.0, 0.0))
    try:
        kernel(
            [value], [gradient], [mean], [square], [], [torch.tensor(1.0)], lr=0.5, beta1=0.9, beta2=0.999,
            weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
    except (TypeError, RuntimeError):
        return False
    return abs(float(value) - 0.5) < 1e-4 and abs(float(mean) - 0.3) < 1e-4


FUSED = usable()
