"""The evaluator of calorie estimation from video (SYSTEMS.md 1.5): an MLP block per output.

block(D, K): Linear(D, 256) -> ReLU -> Linear(256, 128) -> ReLU -> Linear(128, K). The blocks read the same
vector and share nothing (`separate`); `shared` has one 256-128 trunk under all output layers. The last layer
gives logits; softmax belongs to the loss and the metrics. The widths are those of the Vid2Burn evaluator
(arXiv 2209.04232).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HeadShape
from reelbank.heads.models.pooled import pooled_vector

TRUNKS = ("separate", "shared")


def _trunk(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())


class Evaluator(nn.Module):
    """One block per output on a vector (B, D)."""

    def __init__(self, width: int, outputs: Mapping[str, int], trunk: str) -> None:
        super().__init__()
        if trunk not in TRUNKS:
            raise TrainingError(f"trunk {trunk!r} is not one of {', '.join(TRUNKS)}")
        self.shared = _trunk(width) if trunk == "shared" else nn.Identity()
        self.blocks = nn.ModuleDict()
        for name, size in outputs.items():
            last = nn.Linear(128, size)
            self.blocks[name] = last if trunk == "shared" else nn.Sequential(*_trunk(width), last)

    def forward(self, vector: Tensor) -> dict[str, Tensor]:
        """(B, D) -> {output: logits (B, K)}."""
        hidden = self.shared(vector)
        return {name: block(hidden) for name, block in self.blocks.items()}


class MLP(nn.Module):
    """The evaluator on the concatenated pooled vectors of all taps."""

    def __init__(self, shape: HeadShape, trunk: str) -> None:
        super().__init__()
        self.evaluator = Evaluator(sum(shape.taps.values()), shape.outputs, trunk)

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """features {tap: (B, T, D)}, mask (B, T) -> {output: (B, K)}."""
        logits: dict[str, Tensor] = self.evaluator(pooled_vector(features, mask))
        return logits

    def linear_layers(self) -> tuple[Sequence[nn.Linear], Mapping[str, Sequence[nn.Linear]]]:
        """(trunk, {output: branch}), see `reelbank.heads.training.direct`."""
        evaluator = self.evaluator
        return _linear(evaluator.shared), {name: _linear(block) for name, block in evaluator.blocks.items()}


def _linear(block: nn.Module) -> list[nn.Linear]:
    return [layer for layer in block.modules() if isinstance(layer, nn.Linear)]


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`. Options: trunk `separate` or `shared`."""
    return MLP(shape, options["trunk"])
