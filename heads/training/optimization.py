"""Optimisers and learning-rate schedules, the rows of `reelbank.heads.optimizers` for one model.

Weight decay is L2 added to the gradient except for adamw (SYSTEMS.md 0.1). Schedules make one step per epoch, after
the epoch's updates: milestone m means that epochs m + 1, m + 2, ... use the reduced rate. `cyclic` makes one per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, MultiStepLR, ReduceLROnPlateau, StepLR

from reelbank.heads.optimizers import OPTIMIZERS, SCHEDULES, OptimizerConfig
from reelbank.heads.training.fused import FUSED
from reelbank.heads.training.groups import TrainedGroup

Parameters = Iterable[dict[str, Any]]
"""Groups: params (one vector), lr, weight_decay."""


TIMES_HIGHER = 10.0
"""What the lowest rate of a cycle is multiplied by where no highest is given."""


class FlatAdam(torch.optim.Adam):
    """Adam (arXiv 1412.6980) or AdamW (arXiv 1711.05101) of a parameter vector per group by torch's fused kernel.

    The same bits as `torch.optim.Adam(fused=True)` without its bookkeeping per step, which costs a small head more
    than the arithmetic. The state has torch's names.
    """

    def __init__(self, parameters: Parameters, config: OptimizerConfig, kernel: Callable[..., None]) -> None:
        super().__init__(
            parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
        )
        self._kernel = kernel

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of each vector; `closure` is not used."""
        for group in self.param_groups:
            (values,) = group["params"]
            state = _next_state(self.state[values], values, values.device)
            _update(self._kernel, values, state, state["step"], group, lr=group["lr"], eps=group["eps"])

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it in a record for its profiler


class FlatRAdam(torch.optim.RAdam):
    """RAdam (arXiv 1908.03265) of a parameter vector per group by torch's fused kernel of Adam.

    Once rectified, RAdam divides by (sqrt(v) + eps) / sqrt(1 - beta2^t) where Adam divides by
    sqrt(v) / sqrt(1 - beta2^t) + eps: it is Adam with the rate times r_t and eps / sqrt(1 - beta2^t). torch has no
    fused RAdam, and its several passes over a large vector wait for memory. Agrees with `torch.optim.RAdam` to the
    rounding of float32; the state has torch's names.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of each vector; `closure` is not used."""
        for group in self.param_groups:
            self._update(group)

    def _update(self, group: Mapping[str, Any]) -> None:
        kernel = FUSED["adam"]
        (values,) = group["params"]
        state = _next_state(self.state[values], values, torch.device("cpu"))
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        correction2 = 1 - beta2**step
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / correction2  # rho_t
        on_device = state["step"].to(values.device)
        if length > 5.0:
            factor = ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5  # r_t
            rate, eps = group["lr"] * factor, group["eps"] / correction2**0.5
            _update(kernel, values, state, on_device, group, lr=rate, eps=eps)
        else:  # the variance of v is not known yet: its moments are kept, the step is that of the mean alone
            _update(kernel, values, state, on_device, group, lr=0.0, eps=group["eps"])
            values.sub_(state["exp_avg"], alpha=group["lr"] / (1 - beta1**step))


def _next_state(state: dict[str, Any], values: nn.Parameter, step_device: torch.device) -> dict[str, Any]:
    """`state` with its step counted; made at the first."""
    if not state:
        with torch.inference_mode(False):  # the first step may run in it, a later one need not
            state["step"] = torch.zeros((), dtype=torch.float32, device=step_device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(values), torch.zeros_like(values)
    state["step"] += 1
    return state


def _update(
    kernel: Callable[..., None],
    values: nn.Parameter,
    state: Mapping[str, Any],
    step: torch.Tensor,
    group: Mapping[str, Any],
    *,
    lr: float,
    eps: float,
) -> None:
    kernel(
        [values], [values.grad], [state["exp_avg"]], [state["exp_avg_sq"]], [], [step],
        lr=lr, beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=eps,
        amsgrad=False, maximize=False,
    )  # fmt: skip


def adam(parameters: Parameters, config: OptimizerConfig) -> Optimizer:
    """Adam with L2."""
    if "adam" in FUSED:
        return FlatAdam(parameters, config, FUSED["adam"])
    return torch.optim.Adam(
        parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )


def adamw(parameters: Parameters, config: OptimizerConfig) -> Optimizer:
    """Adam with decoupled decay."""
    if "adamw" in FUSED:
        return FlatAdam(parameters, config, FUSED["adamw"])
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )


def radam(parameters: Parameters, config: OptimizerConfig) -> Optimizer:
    """Rectified Adam with L2."""
    made = FlatRAdam if "adam" in FUSED else torch.optim.RAdam
    return made(parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)


def rmsprop(parameters: Parameters, config: OptimizerConfig) -> Optimizer:
    """RMSprop with L2 and momentum; torch (2.13) has no fused one."""
    return torch.optim.RMSprop(
        parameters,
        lr=config.lr,
        alpha=config.alpha,
        eps=config.eps,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
    )


def sgd(parameters: Parameters, config: OptimizerConfig) -> Optimizer:
    """SGD with L2 and momentum."""
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )


def step(optimizer: Optimizer, config: OptimizerConfig) -> LRScheduler:
    """Times `factor` every `step_epochs` epochs."""
    return StepLR(optimizer, config.step_epochs, gamma=config.factor)


def multistep(optimizer: Optimizer, config: OptimizerConfig) -> LRScheduler:
    """Times `factor` after each milestone."""
    return MultiStepLR(optimizer, sorted(config.milestones), gamma=config.factor)


def plateau(optimizer: Optimizer, config: OptimizerConfig) -> LRScheduler:
    """Times `factor` after `patience_epochs` epochs without a lower validation loss."""
    return ReduceLROnPlateau(
        optimizer, mode="min", factor=config.factor, patience=config.patience_epochs, threshold=1e-4
    )


def cyclic(optimizer: Optimizer, config: OptimizerConfig) -> LRScheduler:
    """Up to `max_lr` and down again in 2 `cycle_batches` batches, half as high above `lr` with every cycle.

    triangular2 of Smith 2017, arXiv:1506.01186. The height of each group's cycles is to its rate as that of the run.
    """
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    times = config.max_lr / config.lr if config.max_lr else TIMES_HIGHER
    highest = [rate * times for rate in rates]
    return CyclicLR(
        optimizer, rates, highest, step_size_up=config.cycle_batches, mode="triangular2", cycle_momentum=False
    )


def restart(schedule: LRScheduler) -> None:
    """Puts the rates where the schedule began."""
    schedule.last_epoch = -1
    schedule.step()


def load(target: str) -> Any:
    """What `module:function` of a row names."""
    module, function = target.split(":")
    return getattr(import_module(module), function)


def make_optimizer(values: nn.Parameter, config: OptimizerConfig) -> Optimizer:
    """The optimiser that `config` names, over one parameter vector (`FlatParameters.values`)."""
    made: Optimizer = load(OPTIMIZERS[config.name].make)([{"params": [values]}], config)
    return made


def make_grouped_optimizer(groups: Sequence[TrainedGroup], config: OptimizerConfig) -> Optimizer:
    """The optimiser that `config` names, over one parameter vector per group, each with its rate and decay."""
    vectors = [{"params": [one.flat.values], "lr": one.lr, "weight_decay": one.weight_decay} for one in groups]
    made: Optimizer = load(OPTIMIZERS[config.name].make)(vectors, config)
    return made


def make_schedule(optimizer: Optimizer, config: OptimizerConfig) -> LRScheduler | None:
    """The schedule that `config` names; None for a constant rate."""
    target = SCHEDULES[config.schedule]
    return load(target)(optimizer, config) if target else None


def advance(schedule: LRScheduler | None, val_loss: float) -> None:
    """One step of the schedule at the end of an epoch; `val_loss` is the total loss that plateau watches."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(val_loss)
    elif schedule is not None:
        schedule.step()


def learning_rate(optimizer: Optimizer) -> float:
    """The rate of the next update, of several groups the first's."""
    return float(optimizer.param_groups[0]["lr"])
