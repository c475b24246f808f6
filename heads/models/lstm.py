"""An LSTM over the steps, and a linear layer on its output at the last of them (SYSTEMS.md 3.4).

Long Short-Term Memory, Hochreiter and Schmidhuber 1997, as torch has it: one layer, one direction. The taps of several
stores are put side by side at each step.

Options:
    hidden: its width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reelbank.heads.models import HeadShape


class LSTM(nn.Module):
    """One layer, and a linear layer per output."""

    def __init__(self, shape: HeadShape, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(sum(shape.taps.values()), hidden, batch_first=True)
        self.classifiers = nn.ModuleDict({name: nn.Linear(hidden, size) for name, size in shape.outputs.items()})

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """features {tap: (B, T, D)}, mask (B, T) -> {output: (B, K)}."""
        sequence = torch.cat([features[tap] for tap in sorted(features)], dim=-1)
        last = at_last_step(self.lstm(sequence)[0], mask)
        return {name: linear(last) for name, linear in self.classifiers.items()}


def at_last_step(outputs: Tensor, mask: Tensor) -> Tensor:
    """Of outputs (B, T, W) those at each clip's last valid step (B, W); zeros for a clip without one.

    Valid steps come first, so an LSTM has read nothing of the padding by then.
    """
    last = (mask.sum(dim=1) - 1).clamp(min=0)
    found: Tensor = outputs[torch.arange(len(outputs), device=outputs.device), last]
    return found * mask.any(dim=1, keepdim=True)


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return LSTM(shape, options["hidden"])
