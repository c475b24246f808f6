"""What a training minimises: the loss of its labels, their gradient, and what a head is judged by beside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor

from reelbank.heads.examples.targets import estimate_of_logits
from reelbank.heads.losses import loss_function, loss_with_gradient
from reelbank.heads.models.plans import Auxiliary
from reelbank.heads.objective_config import ObjectiveConfig
from reelbank.heads.training.job import Job, Labels
from reelbank.heads.training.reduction import reduce, reduce_with_shares


class LossTerm(NamedTuple):
    """The loss of one output on a batch: a row of `LOSSES`, p (B, K) and how `reduce` makes a scalar of it.

    `mass`: sums of the rows of p (B, 1); None where they are 1.
    """

    output: str
    loss: str
    p: Tensor
    reduction: str
    weights: Tensor | None
    mass: Tensor | None = None


def loss_terms(
    objective: ObjectiveConfig, labels: Labels, logits: Mapping[str, Tensor], index: Tensor, *, complete: bool
) -> list[LossTerm]:
    """The terms of L = L_class + L_target, weights 1:1 (SYSTEMS.md 1.7).

    Args:
        index: the clips (B,) that `logits` {output: (B, K)} belong to.
        complete: every clip has every label (training); otherwise those without one do not count.
    """
    terms = []
    if labels.num_clips:
        index = index % labels.num_clips
    class_loss = objective.class_loss
    if class_loss == "auto":
        class_loss = "ce" if labels.values is not None else objective.loss
    if labels.sets is not None:
        assert labels.labelled is not None
        known = None if complete else labels.labelled[index].float()
        terms.append(LossTerm("label", class_loss, labels.sets.index_select(0, index), "sum", known))
    if labels.classes is not None:
        numbers = labels.classes[index]
        known = None if complete else (numbers >= 0).float()
        numbers = numbers if complete else numbers.clamp(min=0)
        if labels.class_weights is not None:
            weights = labels.class_weights[numbers]
            known = weights if known is None else known * weights
        p = labels.class_rows(logits["label"].shape[-1], objective.label_smoothing).index_select(0, numbers)
        terms.append(LossTerm("label", class_loss, p, "sum", known))
    if labels.values is not None:
        assert labels.distributions is not None
        known = None if complete else (~labels.values[index].isnan()).float()
        p = labels.distributions.index_select(0, index)
        mass = p.sum(dim=-1, keepdim=True) if objective.target_labels == "density" else None
        terms.append(LossTerm("target", objective.loss, p, objective.reduction, known, mass))
    return terms


def total_loss(
    objective: ObjectiveConfig, labels: Labels, logits: Mapping[str, Tensor], index: Tensor, *, complete: bool
) -> Tensor:
    """L, scalar; the arguments are those of `loss_terms`."""
    parts = []
    for term in loss_terms(objective, labels, logits, index, complete=complete):
        per_clip = loss_function(term.loss)(logits[term.output], term.p)
        parts.append(reduce(per_clip, term.p.shape[-1], term.reduction, term.weights))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def total_loss_with_gradient(
    objective: ObjectiveConfig, labels: Labels, logits: Mapping[str, Tensor], index: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """L of a training batch and its gradient in every output's logits, without autograd through the head.

    Of M heads at once, (M,), where `logits` are {output: (M, B, K)} and `index` (M, B).
    """
    several = index.dim() > 1  # views that change nothing cost a small head a tenth of its step
    flat = {name: values.flatten(0, -2) for name, values in logits.items()} if several else logits
    parts, gradients = [], {}
    for term in loss_terms(objective, labels, flat, index.flatten(), complete=True):
        per_clip, gradient = loss_with_gradient(term.loss)(flat[term.output], term.p, term.mass)
        weights = term.weights
        if several:
            per_clip, gradient = per_clip.view(index.shape), gradient.reshape(logits[term.output].shape)
            weights = None if weights is None else weights.view(index.shape)
        loss, share = reduce_with_shares(per_clip, term.p.shape[-1], term.reduction, weights)
        parts.append(loss)
        gradients[term.output] = gradient.mul_(share)
    return (parts[0] if len(parts) == 1 else parts[0] + parts[1]), gradients


def validation_numbers(job: Job, logits: Mapping[str, Tensor], index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, accuracy and mean absolute error of the clips at `index` (scalars, NaN without such an output)."""
    labels = job.labels
    accuracy = error = torch.full((), math.nan, device=job.device)
    if labels.classes is not None:
        accuracy = (logits["label"].argmax(dim=1) == labels.classes[index]).float().mean()
    if labels.values is not None and labels.bin_values is not None:
        predicted = estimate_of_logits(logits["target"], labels.bin_values, job.config.head.estimate)
        error = (predicted - labels.values[index]).abs().nanmean()
    return total_loss(job.config.objective, labels, logits, index, complete=False), accuracy, error


def auxiliary_losses(
    auxiliary: Sequence[Auxiliary],
    weights: Mapping[str, float],
    outputs: Mapping[str, Tensor],
    arrays: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """{name: weight times the mean over the batch} of a head's further losses.

    Args:
        weights: of those that were given one, the others have their own.
        arrays, masks: what the head was called with; the targets are among them.
    """
    found = {}
    for one in auxiliary:
        target, mask = (arrays[one.target], masks[one.target]) if one.target else (None, None)
        per_clip = _function(one.loss)(outputs[one.name], target, mask)
        found[one.name] = per_clip.mean() * weights.get(one.name, one.weight)
    return found


@cache
def _function(target: str) -> Callable[[Tensor, Tensor | None, Tensor | None], Tensor]:
    module, name = target.split(":")
    found: Callable[[Tensor, Tensor | None, Tensor | None], Tensor] = getattr(import_module(module), name)
    return found
