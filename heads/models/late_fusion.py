"""A frame net and a flow net, each as it was trained, whose logits are added: nothing of them is trained further.

z = a z_frame / T_frame + (1 - a) z_flow / T_flow. The temperatures are those that make the probabilities of each net
fit the validation clips best (On Calibration of Modern Neural Networks, Guo et al. 2017, arXiv:1706.04599), then the
weight a is. Training clips would not do: of them both nets are too sure.

Options: `position` and `weights` as of `frame-net`, `clip` as of `flow-net`: those of the runs that it starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from reelbank.heads.models import HeadShape
from reelbank.heads.models.flow_net import FlowNet
from reelbank.heads.models.frame_net import FrameNet

STEPS = 100
"""Most steps of a fit; each is a few numbers on logits that are at hand."""


class LateFusion(nn.Module):
    """Both networks and three numbers."""

    def __init__(self, shape: HeadShape, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.frame, self.flow = FrameNet(shape), FlowNet(shape, options["clip"])
        self.log_temperatures = nn.Parameter(torch.zeros(2))
        self.balance = nn.Parameter(torch.zeros(()))  # its sigmoid is a

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{frames: (B, T, 3, 224, 224), flow: (B, 1, 16, 224, 224)} -> {output: (B, K)}."""
        return {name: self._fused(logits) for name, logits in self.streams(arrays, masks).items()}

    def streams(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{output: logits of frame net and flow net (B, 2, K)}."""
        frame, flow = self.frame(arrays, masks), self.flow(arrays, masks)
        return {name: torch.stack([frame[name], flow[name]], dim=1) for name in frame}

    def calibrate(self, logits: Tensor, classes: Tensor) -> None:
        """Fits temperatures and weight to logits of both nets (n, 2, K) and true classes (n,)."""
        for place, log_temperature in enumerate(self.log_temperatures):
            fitted = _least(partial(_loss_at, logits[:, place], classes), log_temperature)
            with torch.no_grad():
                self.log_temperatures[place] = fitted
        scaled = logits * (-self.log_temperatures.detach()).exp()[:, None]
        fitted = _least(lambda x: cross_entropy(_mixed(scaled, x), classes), self.balance)
        with torch.no_grad():
            self.balance.copy_(fitted)

    def _fused(self, logits: Tensor) -> Tensor:
        return _mixed(logits * (-self.log_temperatures).exp()[:, None], self.balance)


def _loss_at(logits: Tensor, classes: Tensor, log_temperature: Tensor) -> Tensor:
    """Cross-entropy of logits (n, K) at a temperature."""
    return cross_entropy(logits * (-log_temperature).exp(), classes)


def _mixed(scaled: Tensor, balance: Tensor) -> Tensor:
    """(n, 2, K) -> (n, K)."""
    share = balance.sigmoid()
    return share * scaled[:, 0] + (1 - share) * scaled[:, 1]


def _least(loss_of: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The number at which a smooth loss of one number is least, from `start` on; within 10 of 0."""
    value = start.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([value], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(value)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return value.detach().nan_to_num(0.0).clamp(-10.0, 10.0)


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return LateFusion(shape, options)
