"""Optimisers and learning-rate schedules, each by its name in TrainConfig.

Weight decay is L2 added to the gradient except for adamw (SYSTEMS.md 0.1). Schedules make one step per epoch, after
the epoch's updates: milestone m means that epochs m + 1, m + 2, ... use the reduced rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, ReduceLROnPlateau, StepLR

from reelbank.heads.config import TrainConfig

Parameters = Iterable[nn.Parameter]
PIECE = 1 << 17  # numbers of a vector updated at a time: its parts stay in a core's cache


class FlatAdam(torch.optim.Adam):
    """Adam (arXiv 1412.6980) or AdamW (arXiv 1711.05101) of one parameter vector by torch's fused kernel.

    The same bits as `torch.optim.Adam(fused=True)` without its bookkeeping per step, which costs a small head more
    than the arithmetic. The state has torch's names.
    """

    def __init__(self, parameters: Parameters, config: TrainConfig, kernel: Callable[..., None]) -> None:
        super().__init__(
            parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
        )
        self._kernel = kernel

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of the one vector; `closure` is not used."""
        group = self.param_groups[0]
        (values,) = group["params"]
        state = self.state[values]
        if not state:
            with torch.inference_mode(False):  # the first step may run in it, a later one need not
                state["step"] = torch.zeros((), dtype=torch.float32, device=values.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(values), torch.zeros_like(values)
        state["step"] += 1
        self._kernel(
            [values],
            [values.grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it in a record for its profiler


class FlatRAdam(torch.optim.RAdam):
    """RAdam (arXiv 1908.03265) of one parameter vector, piece by piece.

    The same operations per element as `torch.optim.RAdam(foreach=False)`, on pieces that stay in the cache: torch's
    passes over the whole vector wait for memory. The state has torch's names.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of the one vector; `closure` is not used."""
        group = self.param_groups[0]
        (values,) = group["params"]
        state = self.state[values]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(values), torch.zeros_like(values)
        state["step"] += 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        first, second = 1 - beta1**step, 1 - beta2**step
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / second  # rho_t
        rectified = length > 5.0
        factor = 1.0
        if rectified:
            factor = (
                (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            ) ** 0.5  # fmt: skip
        size = PIECE if values.device.type == "cpu" else values.numel()
        tensors = (values.detach(), values.grad, state["exp_avg"], state["exp_avg_sq"])
        for value, gradient, mean, square in zip(*(tensor.split(size) for tensor in tensors), strict=True):
            decayed = gradient.add(value, alpha=group["weight_decay"]) if group["weight_decay"] else gradient
            mean.lerp_(decayed, 1 - beta1)
            square.mul_(beta2).addcmul_(decayed, decayed, value=1 - beta2)
            update = mean / first
            if rectified:
                root = square.sqrt().add_(group["eps"])
                update = update.mul_(group["lr"]).mul_(second**0.5 / root).mul_(factor)
                value.sub_(update)
            else:
                value.sub_(update.mul_(group["lr"]))


def _adam(parameters: Parameters, config: TrainConfig) -> Optimizer:
    return FlatAdam(parameters, config, torch._fused_adam_)


def _adamw(parameters: Parameters, config: TrainConfig) -> Optimizer:
    return FlatAdam(parameters, config, torch._fused_adamw_)


def _radam(parameters: Parameters, config: TrainConfig) -> Optimizer:
    return FlatRAdam(parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)


def _rmsprop(parameters: Parameters, config: TrainConfig) -> Optimizer:
    return torch.optim.RMSprop(
        parameters,
        lr=config.lr,
        alpha=config.alpha,
        eps=config.eps,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
    )


def _sgd(parameters: Parameters, config: TrainConfig) -> Optimizer:
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )


# torch has no fused RAdam and RMSprop (2.13); the others of these step in one kernel, 1.6 times faster at batch 4.
OPTIMIZERS: Mapping[str, Callable[[Parameters, TrainConfig], Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "radam": _radam,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}


def _step(optimizer: Optimizer, config: TrainConfig) -> LRScheduler:
    return StepLR(optimizer, config.step_epochs, gamma=config.factor)


def _multistep(optimizer: Optimizer, config: TrainConfig) -> LRScheduler:
    return MultiStepLR(optimizer, sorted(config.milestones), gamma=config.factor)


def _plateau(optimizer: Optimizer, config: TrainConfig) -> LRScheduler:
    return ReduceLROnPlateau(
        optimizer, mode="min", factor=config.factor, patience=config.patience_epochs, threshold=1e-4
    )


SCHEDULES: Mapping[str, Callable[[Optimizer, TrainConfig], LRScheduler] | None] = {
    "multistep": _multistep,
    "none": None,
    "plateau": _plateau,
    "step": _step,
}


def make_optimizer(values: nn.Parameter, config: TrainConfig) -> Optimizer:
    """The optimiser that `config` names, over one parameter vector (`FlatParameters.values`)."""
    return OPTIMIZERS[config.optimizer]([values], config)


def make_schedule(optimizer: Optimizer, config: TrainConfig) -> LRScheduler | None:
    """The schedule that `config` names; None for a constant rate."""
    factory = SCHEDULES[config.schedule]
    return None if factory is None else factory(optimizer, config)


def advance(schedule: LRScheduler | None, val_loss: float) -> None:
    """One step of the schedule at the end of an epoch; `val_loss` is the total loss that plateau watches."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(val_loss)
    elif schedule is not None:
        schedule.step()


def learning_rate(optimizer: Optimizer) -> float:
    """The rate of the next update (one group)."""
    return float(optimizer.param_groups[0]["lr"])
