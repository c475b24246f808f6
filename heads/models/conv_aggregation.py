"""Temporal convolutions, then the evaluator (SYSTEMS.md 1.4, the default reading of calorie estimation).

(B, T, D) -> 3 x [Conv1d(k 3, p 1), ReLU, MaxPool1d(2)] with 512, 256, 128 channels -> mean over the steps left
(`adaptive`) or all of them side by side (`flatten`, fixed T) -> Linear to D -> evaluator.

Padding never changes the answer: padded steps are zero before every convolution, as beyond the end of an unpadded
clip. A pooled step is valid if its whole pair was, as in MaxPool1d of the clip alone; a single step, from which
MaxPool1d(2) would leave nothing, is kept as it is (our deviation, so that clips under 8 steps have an answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HeadShape
from reelbank.heads.models.mlp import Evaluator
from reelbank.heads.models.pooled import masked_mean

AGGREGATIONS = ("adaptive", "flatten")
CHANNELS = (512, 256, 128)


class StepConv(nn.Module):
    """Conv1d(kernel 3, padding 1) over steps, (B, T, D) -> (B, S, C), with the initial values of `nn.Conv1d`.

    Each step is multiplied by the three taps of the kernel first, then the products are shifted and added: with a
    `step_index` that repeats steps (160 read of 90 stored) every stored step is multiplied once. `weight` (3, C, D) is
    Conv1d's (C, D, 3) with the kernel first, as one matrix product reads it.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        plain = nn.Conv1d(width, channels, kernel_size=3, padding=1)
        assert plain.bias is not None
        self.weight = nn.Parameter(plain.weight.detach().permute(2, 0, 1).contiguous())
        self.bias = plain.bias

    def forward(self, sequence: Tensor, mask: Tensor, step_index: Tensor | None = None) -> Tensor:
        """sequence (B, T, D), mask (B, S) with the valid steps first -> (B, S, C), of no meaning at padded steps.

        `step_index` (B, S): the steps of `sequence` that are read, in order and with repeats; None: S = T, each once.
        """
        products = F.linear(sequence, self.weight.flatten(0, 1))  # (B, T, 3 C)
        if step_index is not None:
            batch, num_steps, width = products.shape
            rows = step_index + num_steps * torch.arange(batch, device=step_index.device).unsqueeze(1)
            products = products.view(-1, width).index_select(0, rows.flatten()).view(*step_index.shape, width)
        before, here, after = products.chunk(3, dim=2)
        after = after * mask.unsqueeze(-1)  # beyond the last valid step there is nothing
        return F.pad(before, (0, 0, 1, -1)) + (here + self.bias) + F.pad(after, (0, 0, -1, 1))


class ConvAggregator(nn.Module):
    """(B, T, D) -> (B, D). `flatten` takes at most the `num_steps` it was built for."""

    def __init__(self, width: int, num_steps: int, aggregation: str) -> None:
        super().__init__()
        if aggregation not in AGGREGATIONS:
            raise TrainingError(f"aggregation {aggregation!r} is not one of {', '.join(AGGREGATIONS)}")
        self.num_steps = num_steps if aggregation == "flatten" else None
        sizes = (width, *CHANNELS)
        self.convs = nn.ModuleList(StepConv(sizes[i], sizes[i + 1]) for i in range(len(CHANNELS)))
        steps_left = num_steps
        for _ in CHANNELS:
            steps_left = max(steps_left // 2, 1)
        self.steps_left = steps_left
        self.fc = nn.Linear(CHANNELS[-1] * (1 if self.num_steps is None else steps_left), width)

    def forward(self, sequence: Tensor, mask: Tensor, step_index: Tensor | None = None) -> Tensor:
        """sequence (B, T, D), mask (B, S) with the valid steps first -> (B, D).

        `step_index` (B, S): the steps of `sequence` that are read, in order and with repeats; None: S = T, each once.
        """
        if self.num_steps is not None:
            if int(mask.sum(dim=1).max()) > self.num_steps:
                raise TrainingError(f"{mask.shape = }: this head was built for {self.num_steps} steps at most")
            if step_index is None:
                sequence = _resize_steps(sequence, self.num_steps)
            else:
                step_index = _resize_steps(step_index.unsqueeze(-1), self.num_steps).squeeze(-1)
            mask = _resize_steps(mask.unsqueeze(-1), self.num_steps).squeeze(-1)
        hidden = sequence
        for conv in self.convs:
            hidden = F.relu(conv(hidden, mask, step_index)) * mask.unsqueeze(-1)  # (B, S, C)
            step_index, left = None, hidden.shape[1] // 2
            if not left:
                continue
            # Padding is zero and ReLU outputs are not negative, so a lone step survives the maximum.
            hidden = torch.maximum(hidden[:, 0 : 2 * left : 2], hidden[:, 1 : 2 * left : 2])
            pooled = mask[:, 1::2].clone()
            pooled[:, 0] = mask[:, 0]
            mask = pooled
            hidden = hidden * mask.unsqueeze(-1)
        if self.num_steps is None:
            return self._project(masked_mean(hidden, mask))
        return self._project(hidden.transpose(1, 2).flatten(1))

    def _project(self, vector: Tensor) -> Tensor:
        result: Tensor = self.fc(vector)
        return result


def _resize_steps(sequence: Tensor, num_steps: int) -> Tensor:
    """(B, T, D) -> (B, num_steps, D): cut, or filled with zeros."""
    return F.pad(sequence, (0, 0, 0, num_steps - sequence.shape[1]))


class ConvAggregation(nn.Module):
    """Aggregator and evaluator on the steps of one tap."""

    takes_step_index = True

    def __init__(self, shape: HeadShape, aggregation: str, trunk: str) -> None:
        super().__init__()
        if len(shape.taps) != 1:
            raise TrainingError(
                f"head 'conv-aggregation' reads the steps of one tap, got {sorted(shape.taps)}; "
                "name one with --tap, or use --head mlp"
            )
        ((self.tap, width),) = shape.taps.items()
        self.aggregator = ConvAggregator(width, shape.num_steps, aggregation)
        self.evaluator = Evaluator(width, shape.outputs, trunk)

    def forward(
        self, features: Mapping[str, Tensor], mask: Tensor, step_index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """features {tap: (B, T, D)}, mask (B, S) -> {output: (B, K)}; `step_index` as in `ConvAggregator`."""
        logits: dict[str, Tensor] = self.evaluator(self.aggregator(features[self.tap], mask, step_index))
        return logits


def build(shape: HeadShape, options: Mapping[str, Any]) -> torch.nn.Module:
    """The head for `shape`. Options: aggregation `adaptive` or `flatten`, trunk `separate` or `shared`."""
    return ConvAggregation(shape, options["aggregation"], options["trunk"])
