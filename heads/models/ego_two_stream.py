"""Ego-RNN and a flow network, fused late and trained jointly (SYSTEMS.md 2.5).

The vectors of both side by side, dropout 0.5, one linear layer per output. Joint training starts from a run of each:
conv5 and what follows of the RGB network and the fusion at one rate, conv5 of the flow network at a hundredth of it.

Options: those of `ego-rnn` that say what its network is, and
    fuse: `features`; `logits`, a linear layer on the logits of both; `average`, the mean of their probabilities.
    segments: as of `flow-resnet34`.

With `motion` or `discriminator` the RGB network has these losses in joint training, too, and starts from a run that had
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reelbank.heads.models import HeadShape, ego_rnn, ego_rnn_plan, flow_resnet34

DROPOUT = 0.5


class TwoStream(nn.Module):
    """Both networks and the fusion."""

    def __init__(self, shape: HeadShape, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.rgb = ego_rnn.EgoRNN(shape, {**ego_rnn_plan.OPTIONS, **options})
        self.flow = flow_resnet34.FlowResNet34(shape)
        self.fuse = options["fuse"]
        self.dropout = nn.Dropout(DROPOUT)
        self.classifiers = nn.ModuleDict()
        if self.fuse != "average":
            widths = {
                name: ego_rnn.WIDTH + flow_resnet34.WIDTH if self.fuse == "features" else 2 * size
                for name, size in shape.outputs.items()
            }
            self.classifiers.update({name: nn.Linear(widths[name], size) for name, size in shape.outputs.items()})

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{frames: (B, T, C, H, W), flow: (B, 1, C, H, W)} -> {output: (B, K)}, in training with the RGB network's
        further outputs."""
        if self.fuse == "features":
            vector, further = self.rgb.vector_and_further(arrays, masks)
            both = self.dropout(torch.cat([self.flow.vector(arrays), vector], dim=1))
            return {name: linear(both) for name, linear in self.classifiers.items()} | further
        flow, rgb = self.flow(arrays, masks), self.rgb(arrays, masks)
        further = {name: value for name, value in rgb.items() if name not in flow}
        if self.fuse == "logits":
            return {
                name: linear(self.dropout(torch.cat([flow[name], rgb[name]], dim=1)))
                for name, linear in self.classifiers.items()
            } | further
        # Logits whose softmax is the mean of both.
        logs = {name: torch.stack([flow[name].log_softmax(1), rgb[name].log_softmax(1)]) for name in flow}
        return {name: value.logsumexp(dim=0) - torch.log(torch.tensor(2.0)) for name, value in logs.items()} | further

    def attention(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Where the RGB network looks; see `EgoRNN.attention`."""
        return self.rgb.attention(frames, mask)


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return TwoStream(shape, options)
