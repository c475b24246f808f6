"""Grad-CAM: where in what a head reads lies the evidence for a class, from gradients alone.

Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391. With A the output of a module (C, h, w) and y_c the logit of class c,
before any softmax:

    a_k = mean over places of d y_c / d A_k        map = ReLU(sum over k of a_k A_k)

The logit and not the probability: that of one class falls where others rise, and its map would show these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HEADS, plan_of
from reelbank.heads.models.plans import HeadPlan
from reelbank.heads.runs.looking import pictured

LABEL = "label"


def cam_input(head: str, plan: HeadPlan | None, wanted: str = "") -> str:
    """The input of head `head` that a Grad-CAM is drawn over: `wanted`, else its pictures, else its first.

    Raises TrainingError for a head that has none, naming those that do, and for an input that has none.
    """
    if plan is None:
        raise TrainingError(
            f"head {head!r} reads vectors, in which no place is left; Grad-CAM is of {_heads_with_cam()}"
        )
    if not plan.cam:
        raise TrainingError(
            f"head {head!r} with these options names no module that a Grad-CAM is taken of (HeadPlan.cam); heads that "
            f"do: {_heads_with_cam()}"
        )
    if wanted and wanted not in plan.cam:
        raise TrainingError(f"--input {wanted}: head {head!r} has a Grad-CAM of {', '.join(sorted(plan.cam))}")
    if wanted:
        return wanted
    if any(one.values == "pixels" for one in plan.inputs) and pictured(plan) in plan.cam:
        return pictured(plan)
    return next(one.name for one in plan.inputs if one.name in plan.cam)


def _heads_with_cam() -> str:
    plans = {name: plan_of(name, {}) for name in HEADS}
    return ", ".join(sorted(name for name, plan in plans.items() if plan is not None and plan.cam))


def grad_cams(
    head: nn.Module, module: str, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor], classes: Sequence[int]
) -> Tensor:
    """The maps of one clip, one for each of `classes` and item that the module sees: (len(classes), n, h, w).

    Not scaled, 0 or more. n is the number of steps, or 1 where they were put together before.

    Args:
        module: name of a module of the head, whose output is (n, C, h, w).
        arrays, masks: as `forward` gets them, of one clip.
        classes: numbers of the logits.

    Raises:
        TrainingError: no such module, one that is not called once, or gives no such maps.
    """
    try:
        seen = head.get_submodule(module)
    except AttributeError:
        raise TrainingError(f"the head has no module {module!r} to take a Grad-CAM of (HeadPlan.cam)") from None
    given: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        given.append(output.detach().requires_grad_())
        return given[-1].clone()  # what follows may work in place

    handle = seen.register_forward_hook(keep)
    try:
        with _fixed(head), torch.enable_grad():
            logits = head(arrays, masks)[LABEL]
            if len(given) != 1 or given[0].ndim != 4:
                shapes = [tuple(one.shape) for one in given]
                raise TrainingError(
                    f"module {module!r} gave outputs of {shapes} for one clip, expected one (n, C, h, w)"
                )
            found = [
                _map(given[0], torch.autograd.grad(logits[0, number], given[0], retain_graph=True)[0])
                for number in classes
            ]
    finally:
        handle.remove()
    return torch.stack(found)


def _map(seen: Tensor, gradient: Tensor) -> Tensor:
    """Of A and d y_c / d A, (n, C, h, w) both: (n, h, w)."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * seen.detach()).sum(dim=1).relu()


@contextmanager
def _fixed(head: nn.Module) -> Iterator[None]:
    """In evaluation, without gradients of its weights; afterwards as it was.

    cuDNN has no gradient of recurrent layers in evaluation.
    """
    trained = [one for one in head.parameters() if one.requires_grad]
    was_training = head.training
    for one in trained:
        one.requires_grad_(False)
    head.eval()
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        head.train(was_training)
        for one in trained:
            one.requires_grad_()


def mean_grad_cams(
    heads: Sequence[nn.Module],
    module: str,
    arrays: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    classes: Sequence[int],
    mask: Tensor,
) -> NDArray[np.float32]:
    """`grad_cams`, the mean over heads, of the valid steps: (len(classes), T, h, w).

    Args:
        mask: (T,) of the steps of the input. Where a head has a step less than it reads, the first has no map.

    Raises TrainingError as `grad_cams`, and for maps that are not finite.
    """
    found = torch.stack([grad_cams(head, module, arrays, masks, classes) for head in heads]).float().mean(dim=0)
    if not bool(torch.isfinite(found).all()):
        raise TrainingError(f"the gradients at module {module!r} are not finite")
    if found.shape[1] > 1 or len(mask) == 1:
        if found.shape[1] > len(mask):
            raise TrainingError(f"module {module!r} gave {found.shape[1]} maps for {len(mask)} steps")
        found = found[:, mask[len(mask) - found.shape[1] :]]
    maps: NDArray[np.float32] = found.cpu().numpy()
    return maps
