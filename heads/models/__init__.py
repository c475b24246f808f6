"""The table of heads. Each row names a file of this folder; nothing is imported before it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from reelbank.heads.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class HeadRow:
    """A registered head.

    Attributes:
        factory: `module:function`, called with (HeadShape, options) and returning the `nn.Module`.
        description: one line for `reelbank heads`.
        needs_steps: True: it sees every step, (B, T, D); False: one pooled vector per clip, (B, 1, D).
        options: its own options with their defaults; TrainConfig has a field of the same name for each.
    """

    factory: str
    description: str
    needs_steps: bool
    options: Mapping[str, Any] = field(default_factory=dict)


HEADS: dict[str, HeadRow] = {
    "additive": HeadRow(
        factory="reelbank.heads.models.additive:build",
        description="a curve per feature of the pooled vector, summed: for clips unlike those of training",
        needs_steps=False,
    ),
    "attentive": HeadRow(
        factory="reelbank.heads.models.attentive:build",
        description="learnt attention over the steps of all taps, then the two-block evaluator (reads every step)",
        needs_steps=True,
        options={"trunk": "separate"},
    ),
    "conv-aggregation": HeadRow(
        factory="reelbank.heads.models.conv_aggregation:build",
        description="three Conv1d + ReLU + MaxPool over time, then the two-block evaluator (reads every step)",
        needs_steps=True,
        options={"aggregation": "adaptive", "trunk": "separate"},
    ),
    "linear": HeadRow(
        factory="reelbank.heads.models.linear:build",
        description="one linear layer per output on the pooled vector",
        needs_steps=False,
    ),
    "mlp": HeadRow(
        factory="reelbank.heads.models.mlp:build",
        description="two-block evaluator on the pooled vector: D-256-128-K per output",
        needs_steps=False,
        options={"trunk": "separate"},
    ),
}


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """The sizes a head is built for.

    Attributes:
        taps: features per step of each tap, {tap: D}.
        outputs: logits per output, {output: K}; the outputs are `label` and `target`.
        num_steps: steps of the longest clip it is trained on (1 for a pooled vector).
    """

    taps: Mapping[str, int]
    outputs: Mapping[str, int]
    num_steps: int

    def to_json(self) -> dict[str, Any]:
        """The shape as JSON types."""
        return asdict(self) | {"taps": dict(self.taps), "outputs": dict(self.outputs)}


def head_row(name: str) -> HeadRow:
    """The row of head `name`. Raises TrainingError listing the heads there are."""
    if name not in HEADS:
        raise TrainingError(f"no head {name!r}; choose one of {', '.join(sorted(HEADS))}")
    return HEADS[name]


def build_head(name: str, shape: HeadShape, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A freshly initialised head (torch's global generator draws the weights).

    Its `forward(features: dict[tap, (B, T, D)], mask: (B, T) bool)` returns {output: logits (B, K)}.
    Raises TrainingError for an unknown head or option.
    """
    row = head_row(name)
    given = dict(options or {})
    if unknown := sorted(set(given) - set(row.options)):
        raise TrainingError(f"head {name!r} has no option {unknown[0]!r}; it has {sorted(row.options) or 'none'}")
    module, function = row.factory.split(":")
    head: nn.Module = getattr(import_module(module), function)(shape, dict(row.options) | given)
    return head
