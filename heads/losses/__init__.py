"""The table of losses. A loss is one function and one row; nothing is imported before it is used.

Every function takes logits z (B, K) and a label distribution p (B, K), and returns the loss of each example, (B,)
(divergences in nats), by operations that autograd and `torch.func.vmap` know. Classes are one-hot rows, so one table
serves both outputs (SYSTEMS.md 1.7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from reelbank.heads.errors import TrainingError
from reelbank.manifests.registry import Found, Registry, first_line

if TYPE_CHECKING:
    from torch import Tensor

    LossFunction = Callable[[Tensor, Tensor], Tensor]
    LossWithGradient = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]

__all__ = ["LOSSES", "Loss", "loss_function", "loss_with_gradient"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A registered loss.

    Attributes:
        target: `module:function`, (logits (B, K), p (B, K)) -> (B,).
        summary: one line for `reelbank losses`.
        gradient: `module:function` that returns also the gradient in the logits, ((B,), (B, K)), written without
            autograd: recording the loss costs a small head more than its layers. It is given a third argument: the
            sums of the rows of p, (B, 1), or None where they are 1. Empty: autograd does it.
        independent: whether it judges each class by itself: probabilities are sigmoids of the logits, the rows of p
            are 0 or 1 and sum to anything. Such a loss trains clips that have several labels.
    """

    target: str
    summary: str
    gradient: str = ""
    independent: bool = False


_ROWS = {
    "bce": Loss(
        target="reelbank.heads.losses.divergences:binary_cross_entropy",
        gradient="reelbank.heads.losses.divergences:binary_cross_entropy_with_gradient",
        summary="cross-entropy of each class by itself, mean over classes: clips with several labels",
        independent=True,
    ),
    "ce": Loss(
        target="reelbank.heads.losses.divergences:cross_entropy",
        gradient="reelbank.heads.losses.divergences:cross_entropy_with_gradient",
        summary="cross-entropy",
    ),
    "ce-on-softmax": Loss(
        target="reelbank.heads.losses.divergences:cross_entropy_on_softmax",
        gradient="reelbank.heads.losses.divergences:cross_entropy_on_softmax_with_gradient",
        summary="cross-entropy on the softmax of the logits (softmax twice), to reproduce networks trained by it",
    ),
    "jsd": Loss(
        target="reelbank.heads.losses.divergences:jensen_shannon",
        gradient="reelbank.heads.losses.divergences:jensen_shannon_with_gradient",
        summary="Jensen-Shannon divergence",
    ),
    "jsd-sum": Loss(
        target="reelbank.heads.losses.divergences:jensen_shannon_sum",
        gradient="reelbank.heads.losses.divergences:jensen_shannon_sum_with_gradient",
        summary="Jensen-Shannon divergence without its halves",
    ),
    "kld": Loss(
        target="reelbank.heads.losses.divergences:kullback_leibler",
        gradient="reelbank.heads.losses.divergences:kullback_leibler_with_gradient",
        summary="Kullback-Leibler divergence of the prediction from the label",
    ),
}

LOSSES: Registry[Loss] = Registry(
    _ROWS,
    kind="loss",
    group="reelbank.losses",
    row_type=Loss,
    error=TrainingError,
    from_function=lambda target, function: Loss(target=target, summary=first_line(function)),
    function="loss(logits, p) -> (B,)",
)


@cache
def loss_function(name: str) -> LossFunction:
    """The function of loss `name`. Raises TrainingError for an unknown name, PluginError for one that fails."""
    found = LOSSES.find(name)
    function: LossFunction = found.load(found.row.target)
    return function if found.plugin is None else _checked(found, function)


@cache
def loss_with_gradient(name: str) -> LossWithGradient:
    """(logits, p, sums of p or None) -> (loss (B,), its gradient in the logits (B, K)): the row's, else autograd's."""
    found = LOSSES.find(name)
    if found.row.gradient:
        own: LossWithGradient = found.load(found.row.gradient)
        return own
    return _by_autograd(loss_function(name))


def _checked(found: Found[Loss], function: LossFunction) -> LossFunction:
    """A plug-in's function, whose mistakes name it."""
    plugin = found.plugin
    assert plugin is not None

    def loss(logits: Tensor, p: Tensor) -> Tensor:
        with plugin.running(found.row.target):
            per_example: Any = function(logits, p)
        shape = getattr(per_example, "shape", type(per_example).__name__)
        if shape != logits.shape[:-1]:
            raise plugin.wrong(
                f"{found.row.target} gave {shape} for logits {tuple(logits.shape)}, expected one number per example, "
                f"{tuple(logits.shape[:-1])}"
            )
        return per_example  # type: ignore[no-any-return]

    return loss


def _by_autograd(function: LossFunction) -> LossWithGradient:
    import torch

    def with_gradient(logits: Tensor, p: Tensor, mass: Tensor | None) -> tuple[Tensor, Tensor]:
        # The caller works in inference mode, whose tensors autograd cannot note down: copies made outside it can be.
        with torch.inference_mode(False), torch.enable_grad():
            z = logits.clone().requires_grad_()
            per_example = function(z, p.clone())
            # An example's loss depends on its own logits only, so the sum's gradient is that of each.
            (gradient,) = torch.autograd.grad(per_example.sum(), z)
        return per_example.detach(), gradient

    return with_gradient
