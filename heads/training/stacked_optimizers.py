"""The optimisers of `heads.training.optimization` for a stack of models: one update of (K, P) with K sets of numbers.

Every update is torch's own for that optimiser (its defaults where OptimizerConfig has no field), with hyperparameters
of shape (K, 1). `gradient` may be overwritten. A tensor of state starts at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reelbank.heads.optimizers import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What the members may differ in, float64 (K, 1) each: bias corrections would lose digits in float32."""

    weight_decay: Tensor
    beta1: Tensor
    beta2: Tensor
    eps: Tensor
    momentum: Tensor
    alpha: Tensor

    @classmethod
    def of(cls, configs: Sequence[OptimizerConfig], device: torch.device) -> Hyperparameters:
        """Those of `configs`, in their order."""

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).unsqueeze(1).to(device)

        return cls(
            weight_decay=column([config.weight_decay for config in configs]),
            beta1=column([config.betas[0] for config in configs]),
            beta2=column([config.betas[1] for config in configs]),
            eps=column([config.eps for config in configs]),
            momentum=column([config.momentum for config in configs]),
            alpha=column([config.alpha for config in configs]),
        )


GROUP_OF_GPU = 8  # members of a group, on average, from which on the fused kernel is called on a GPU


class FusedAdam:
    """Adam or AdamW of a stack by torch's fused kernel, one call per group of members with equal settings.

    It reads and writes each number once, where the updates below pass over the stack about 25 times. On a GPU the call
    for one small member would leave most of it idle (reasoned, not measured).
    """

    def __init__(self, kernel: Callable[..., None], configs: Sequence[OptimizerConfig]) -> None:
        self._kernel, self._configs = kernel, configs

    def suits(self, groups: Mapping[tuple[Any, ...], Sequence[int]], device: torch.device) -> bool:
        """Whether it is faster than the update below."""
        return device.type == "cpu" or len(groups) * GROUP_OF_GPU <= len(self._configs)

    def groups(self, rates: Sequence[float]) -> dict[tuple[Any, ...], list[int]]:
        """{(rate, betas, weight decay, epsilon): members}."""
        found: dict[tuple[Any, ...], list[int]] = {}
        for place, (rate, config) in enumerate(zip(rates, self._configs, strict=True)):
            found.setdefault((rate, config.betas, config.weight_decay, config.eps), []).append(place)
        return found

    def step(
        self,
        groups: Mapping[tuple[Any, ...], Sequence[int]],
        values: Tensor,
        gradient: Tensor,
        state: State,
        step: Tensor,
    ) -> None:
        """One update; `step` is its number from 1, a float32 scalar on the device."""
        rows = [tensor.unbind(0) for tensor in (values, gradient, state["exp_avg"], state["exp_avg_sq"])]
        for (rate, betas, weight_decay, eps), places in groups.items():
            tensors = [[row[place] for place in places] for row in rows]
            self._kernel(
                *tensors, [], [step] * len(places), lr=rate, beta1=betas[0], beta2=betas[1],
                weight_decay=weight_decay, eps=eps, amsgrad=False, maximize=False,
            )  # fmt: skip


State = Mapping[str, Tensor]
# (values, gradient, state, hyperparameters, learning rates float64 (K, 1), number of this step from 1)
Update = Callable[[Tensor, Tensor, State, Hyperparameters, Tensor, int], None]


def _moments(gradient: Tensor, state: State, hyper: Hyperparameters) -> None:
    state["exp_avg"].lerp_(gradient, (1 - hyper.beta1).float())
    state["exp_avg_sq"].mul_(hyper.beta2.float()).addcmul_(gradient * (1 - hyper.beta2).float(), gradient)


def _adam_step(values: Tensor, state: State, hyper: Hyperparameters, rate: Tensor, step: int) -> None:
    correction1, correction2 = 1 - hyper.beta1**step, 1 - hyper.beta2**step
    divisor = state["exp_avg_sq"].sqrt().div_(correction2.sqrt().float()).add_(hyper.eps.float())
    values.sub_(torch.div(state["exp_avg"], divisor).mul_((rate / correction1).float()))


def adam(values: Tensor, gradient: Tensor, state: State, hyper: Hyperparameters, rate: Tensor, step: int) -> None:
    """Adam with L2 (arXiv 1412.6980)."""
    gradient.addcmul_(values, hyper.weight_decay.float())
    _moments(gradient, state, hyper)
    _adam_step(values, state, hyper, rate, step)


def adamw(values: Tensor, gradient: Tensor, state: State, hyper: Hyperparameters, rate: Tensor, step: int) -> None:
    """Adam with decoupled decay (arXiv 1711.05101)."""
    values.mul_((1 - rate * hyper.weight_decay).float())
    _moments(gradient, state, hyper)
    _adam_step(values, state, hyper, rate, step)


def radam(values: Tensor, gradient: Tensor, state: State, hyper: Hyperparameters, rate: Tensor, step: int) -> None:
    """Rectified Adam with L2 (arXiv 1908.03265): no second moment while its variance is unknown (rho <= 5)."""
    gradient.addcmul_(values, hyper.weight_decay.float())
    _moments(gradient, state, hyper)
    correction1, correction2 = 1 - hyper.beta1**step, 1 - hyper.beta2**step
    rho_end = 2 / (1 - hyper.beta2) - 1
    rho = rho_end - 2 * step * hyper.beta2**step / correction2
    ratio = (rho - 4) * (rho - 2) * rho_end / ((rho_end - 4) * (rho_end - 2) * rho)
    factor = ratio.clamp(min=0).sqrt() * correction2.sqrt()
    adaptive = factor.float() / state["exp_avg_sq"].sqrt().add_(hyper.eps.float())
    adaptive = torch.where(rho > 5, adaptive, 1.0)
    values.sub_(state["exp_avg"] * (rate / correction1).float() * adaptive)


def rmsprop(values: Tensor, gradient: Tensor, state: State, hyper: Hyperparameters, rate: Tensor, step: int) -> None:
    """RMSprop with L2 and momentum (Hinton, Coursera 2012, lecture 6e), as torch has it."""
    gradient.addcmul_(values, hyper.weight_decay.float())
    state["square_avg"].mul_(hyper.alpha.float()).addcmul_(gradient * (1 - hyper.alpha).float(), gradient)
    divisor = state["square_avg"].sqrt().add_(hyper.eps.float())
    state["momentum_buffer"].mul_(hyper.momentum.float()).addcdiv_(gradient, divisor)
    values.sub_(state["momentum_buffer"] * rate.float())


def sgd(values: Tensor, gradient: Tensor, state: State, hyper: Hyperparameters, rate: Tensor, step: int) -> None:
    """SGD with L2 and heavy-ball momentum."""
    gradient.addcmul_(values, hyper.weight_decay.float())
    state["momentum_buffer"].mul_(hyper.momentum.float()).add_(gradient)
    values.sub_(state["momentum_buffer"] * rate.float())
