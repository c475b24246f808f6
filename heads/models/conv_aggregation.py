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


class ConvAggregator(nn.Module):
    """(B, T, D) -> (B, D). `flatten` takes at most the `num_steps` it was built for."""

    def __init__(self, width: int, num_steps: int, aggregation: str) -> None:
        super().__init__()
        if aggregation not in AGGREGATIONS:
            raise TrainingError(f"aggregation {aggregation!r} is not one of {', '.join(AGGREGATIONS)}")
        self.num_steps = num_steps if aggregation == "flatten" else None
        sizes = (width, *CHANNELS)
        self.convs = nn.ModuleList(
            nn.Conv1d(sizes[i], sizes[i + 1], kernel_size=3, padding=1) for i in range(len(CHANNELS))
        )
        steps_left = num_steps
        for _ in CHANNELS:
            steps_left = max(steps_left // 2, 1)
        self.steps_left = steps_left
        self.fc = nn.Linear(CHANNELS[-1] * (1 if self.num_steps is None else steps_left), width)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """sequence (B, T, D), mask (B, T) with the valid steps first -> (B, D)."""
        if self.num_steps is not None:
            if int(mask.sum(dim=1).max()) > self.num_steps:
                raise TrainingError(f"{sequence.shape = }: this head was built for {self.num_steps} steps at most")
            sequence, mask = _resize_steps(sequence, mask, self.num_steps)
        hidden = (sequence * mask.unsqueeze(-1)).transpose(1, 2)  # (B, D, T)
        for conv in self.convs:
            hidden = F.relu(conv(hidden)) * mask.unsqueeze(1)  # (B, C, T)
            if hidden.shape[2] == 1:
                continue
            # Padding is zero and ReLU outputs are not negative, so a lone step survives the maximum.
            hidden = F.max_pool1d(hidden, 2)  # (B, C, T // 2)
            pooled = mask[:, 1::2].clone()
            pooled[:, 0] = mask[:, 0]
            mask = pooled
            hidden = hidden * mask.unsqueeze(1)
        if self.num_steps is None:
            return self._project(masked_mean(hidden.transpose(1, 2), mask))
        return self._project(hidden.flatten(1))

    def _project(self, vector: Tensor) -> Tensor:
        result: Tensor = self.fc(vector)
        return result


def _resize_steps(sequence: Tensor, mask: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    missing = num_steps - sequence.shape[1]
    if missing <= 0:
        return sequence[:, :num_steps], mask[:, :num_steps]
    return F.pad(sequence, (0, 0, 0, missing)), F.pad(mask, (0, missing))


class ConvAggregation(nn.Module):
    """Aggregator and evaluator on the steps of one tap."""

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

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """features {tap: (B, T, D)}, mask (B, T) -> {output: (B, K)}."""
        logits: dict[str, Tensor] = self.evaluator(self.aggregator(features[self.tap], mask))
        return logits


def build(shape: HeadShape, options: Mapping[str, Any]) -> torch.nn.Module:
    """The head for `shape`. Options: aggregation `adaptive` or `flatten`, trunk `separate` or `shared`."""
    return ConvAggregation(shape, options["aggregation"], options["trunk"])
