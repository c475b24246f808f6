"""The table of heads. Each row names a file of this folder; nothing is imported before it is built.

A head is one of HEADS, one that an installed package adds (entry points `reelbank.heads`), or `module:function`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import (
    cnn_lstm_plan,
    ego_rnn_plan,
    ego_two_stream_plan,
    flow_net_plan,
    flow_resnet34_plan,
    frame_net_plan,
    late_fusion_plan,
    map_transformer_plan,
    two_stream_plan,
)
from reelbank.heads.models.plans import ArrayShape, HeadPlan
from reelbank.manifests.plugins import Plugin
from reelbank.manifests.registry import Registry, first_line
from reelbank.store.options import named_values

if TYPE_CHECKING:
    from torch import nn

__all__ = ["HEADS", "HeadRow", "HeadShape", "build_head", "plan_of"]


@dataclass(frozen=True, kw_only=True)
class HeadRow:
    """A registered head.

    Attributes:
        target: `module:function`, called with (HeadShape, options) and returning the `nn.Module`.
        summary: one line for `reelbank heads`.
        needs_steps: True: it sees every step, (B, T, D); False: one pooled vector per clip, (B, 1, D).
        options: its own options with their defaults. What is a field of TrainConfig has a flag of its own; the others
            are given as --head-option NAME=VALUE and have the type of their default.
        alone_with: {option: value} with which its forward pass asks for values, which `torch.func.vmap` cannot give:
            members of a sweep are then trained one after another instead of stacked.
        can_be_stacked: False: it has layers without a form for `vmap`, whatever its options.
        is_fitted: it is fitted in one go (`reelbank.heads.fitting`), not by gradients; its `parts` are known then.
        plan: `module:function`, (options) -> HeadPlan, of a head that reads arrays instead of vectors; '' for others.
        has_attention: it says where in a frame it looks, by a method `attention` (`reelbank.heads.runs.looking`).
    """

    target: str
    summary: str
    needs_steps: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    alone_with: Mapping[str, Any] = field(default_factory=dict)
    can_be_stacked: bool = True
    is_fitted: bool = False
    plan: str = ""
    has_attention: bool = False


FITTED_OPTIONS = ("independent", "parts", "widening")
"""What a fitted head is built from beside its options; nobody gives it."""

_ROWS = {
    "additive": HeadRow(
        target="reelbank.heads.models.additive:build",
        summary="a curve per feature of the pooled vector, summed: for clips unlike those of training",
        needs_steps=False,
    ),
    "attentive": HeadRow(
        target="reelbank.heads.models.attentive:build",
        summary="learnt attention over the steps of all taps, then the two-block evaluator (reads every step)",
        needs_steps=True,
        options={"trunk": "separate"},
    ),
    "auto": HeadRow(
        target="reelbank.heads.models.combination:build",
        summary="trees, linear or their mean, per store or joined: what inner validation prefers (the default)",
        is_fitted=True,
    ),
    "cnn-lstm": HeadRow(
        target="reelbank.heads.models.cnn_lstm:build",
        plan="reelbank.heads.models.cnn_lstm_plan:plan",
        summary="a small CNN per frame and an LSTM over them, trained from scratch on stored frames (three networks)",
        options=cnn_lstm_plan.OPTIONS,
    ),
    "conv-aggregation": HeadRow(
        target="reelbank.heads.models.conv_aggregation:build",
        summary="three Conv1d + ReLU + MaxPool over time, then the two-block evaluator (reads every step)",
        needs_steps=True,
        options={"aggregation": "adaptive", "trunk": "separate"},
        alone_with={"aggregation": "flatten"},
    ),
    "ego-rnn": HeadRow(
        target="reelbank.heads.models.ego_rnn:build",
        plan="reelbank.heads.models.ego_rnn_plan:plan",
        summary="Ego-RNN: the end of ResNet-34 with class activation attention, and a ConvLSTM over its maps",
        options=ego_rnn_plan.OPTIONS,
        has_attention=True,
    ),
    "ego-two-stream": HeadRow(
        target="reelbank.heads.models.ego_two_stream:build",
        plan="reelbank.heads.models.ego_two_stream_plan:plan",
        summary="Ego-RNN and flow-resnet34, fused late and trained jointly",
        options=ego_two_stream_plan.OPTIONS,
        has_attention=True,
    ),
    "flow-net": HeadRow(
        target="reelbank.heads.models.flow_net:build",
        plan="reelbank.heads.models.flow_net_plan:plan",
        summary="OpticalFlowNet: two convolutions and two linear layers on eight flow fields",
        options=flow_net_plan.OPTIONS,
    ),
    "flow-resnet34": HeadRow(
        target="reelbank.heads.models.flow_resnet34:build",
        plan="reelbank.heads.models.flow_resnet34_plan:plan",
        summary="ResNet-34 on stacks of five flow fields, all of it trained",
        options=flow_resnet34_plan.OPTIONS,
    ),
    "frame-net": HeadRow(
        target="reelbank.heads.models.frame_net:build",
        plan="reelbank.heads.models.frame_net_plan:plan",
        summary="GoogLeNet on single frames, all of it trained",
        options=frame_net_plan.OPTIONS,
    ),
    "late-fusion": HeadRow(
        target="reelbank.heads.models.late_fusion:build",
        plan="reelbank.heads.models.late_fusion_plan:plan",
        summary="frame-net and flow-net as they are, whose calibrated logits are added: three numbers are fitted",
        options=late_fusion_plan.OPTIONS,
    ),
    "linear": HeadRow(
        target="reelbank.heads.models.linear:build",
        summary="one linear layer per output on the pooled vector",
        needs_steps=False,
    ),
    "lstm": HeadRow(
        target="reelbank.heads.models.lstm:build",
        summary="an LSTM over the steps, and a linear layer on its last output (reads every step)",
        needs_steps=True,
        options={"hidden": 256},
        can_be_stacked=False,
    ),
    "map-transformer": HeadRow(
        target="reelbank.heads.models.map_transformer:build",
        plan="reelbank.heads.models.map_transformer_plan:plan",
        summary="attention over the places of frozen maps, then a small transformer over the steps",
        options=map_transformer_plan.OPTIONS,
    ),
    "mean-mlp": HeadRow(
        target="reelbank.heads.models.mean_mlp:build",
        summary="one hidden layer with dropout on the pooled vector: D-256-K",
        options={"hidden": 256, "dropout": 0.3},
    ),
    "mlp": HeadRow(
        target="reelbank.heads.models.mlp:build",
        summary="two-block evaluator on the pooled vector: D-256-128-K per output",
        needs_steps=False,
        options={"trunk": "separate"},
    ),
    "trees": HeadRow(
        target="reelbank.heads.models.combination:build",
        summary="extremely randomised trees on mean and std of the steps, averaged over the stores (fitted, no epochs)",
        options={"trees": 0, "leaf": 1},
        is_fitted=True,
    ),
    "two-stream": HeadRow(
        target="reelbank.heads.models.two_stream:build",
        plan="reelbank.heads.models.two_stream_plan:plan",
        summary="frame-net and flow-net, fused in the middle and trained jointly",
        options=two_stream_plan.OPTIONS,
    ),
}

HEADS: Registry[HeadRow] = Registry(
    _ROWS,
    kind="head",
    group="reelbank.heads",
    row_type=HeadRow,
    error=TrainingError,
    from_function=lambda target, function: HeadRow(target=target, summary=first_line(function)),
    function="build(shape, options) -> nn.Module (on the pooled vector, without options)",
)


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """The sizes a head is built for.

    Attributes:
        taps: features per step of each tap, {tap: D}; empty for a head that reads arrays.
        outputs: logits per output, {output: K}; the outputs are `label` and `target`.
        num_steps: steps of the longest clip it is trained on (1 for a pooled vector).
        arrays: {input: the array that it is} of a head that reads arrays.
    """

    taps: Mapping[str, int]
    outputs: Mapping[str, int]
    num_steps: int
    arrays: Mapping[str, ArrayShape] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The shape as JSON types."""
        arrays = {name: asdict(array) | {"shape": list(array.shape)} for name, array in self.arrays.items()}
        return asdict(self) | {"taps": dict(self.taps), "outputs": dict(self.outputs), "arrays": arrays}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HeadShape:
        """What `to_json` wrote."""
        arrays = {
            name: ArrayShape(**{**array, "shape": tuple(array["shape"])})
            for name, array in data.get("arrays", {}).items()
        }
        return cls(**{**data, "arrays": arrays})


def head_row(name: str) -> HeadRow:
    """The row of head `name`. Raises TrainingError listing the heads there are."""
    return HEADS.row(name)


def plan_of(name: str, options: Mapping[str, Any]) -> HeadPlan | None:
    """What head `name` with these options reads, holds and trains; None for a head of vectors.

    Raises TrainingError for an unknown head or values of options that it does not have.
    """
    found = HEADS.find(name)
    if not found.row.plan:
        return None
    plan: HeadPlan = found.load(found.row.plan)({**found.row.options, **options})
    return plan


def build_head(name: str, shape: HeadShape, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A freshly initialised head (torch's global generator draws the weights).

    Its `forward(features: dict[tap, (B, T, D)], mask: (B, T) bool)` returns {output: logits (B, K)}. That of a head
    with a plan takes {input: (B, T, *shape) float32} and {input: mask (B, T)}, and returns in training also what the
    plan's auxiliary losses judge.

    Raises:
        TrainingError: an unknown head or option.
        PluginError: a plug-in that fails, or gives outputs of other names or shapes than it was asked for.
    """
    found = HEADS.find(name)
    row = found.row
    given = dict(options or {})
    if unknown := sorted(set(given) - set(row.options) - set(FITTED_OPTIONS if row.is_fitted else ())):
        raise TrainingError(f"head {name!r} has no option {unknown[0]!r}; it has {sorted(row.options) or 'none'}")
    build = found.load(row.target)
    if found.plugin is None:
        head: nn.Module = build(shape, dict(row.options) | given)
        return head
    with found.plugin.running(f"{row.target}(shape, options)"):
        made = build(shape, dict(row.options) | given)
    _try_out(found.plugin, row, made, shape)
    return made  # type: ignore[no-any-return]


def parse_options(name: str, texts: Sequence[str], flags: Sequence[str]) -> dict[str, Any]:
    """The options of head `name` that were given as NAME=VALUE, as values.

    Args:
        texts: what was given.
        flags: options that have a flag of their own.

    Raises:
        TrainingError: no such option of this head, a value of another type than its default, an option given twice or
            that is a flag; the message names head and option.
    """
    defaults = HEADS.row(name).options
    own = {option: default for option, default in defaults.items() if option not in flags}
    for option in (text.partition("=")[0] for text in texts):
        if option in defaults and option not in own:
            raise TrainingError(f"--head-option {option}: head {name!r} has it as --{option.replace('_', '-')}")
    return named_values(texts, own, flag="--head-option", owner=f"head {name!r}", error=TrainingError)


def _try_out(plugin: Plugin, row: HeadRow, head: Any, shape: HeadShape) -> None:
    """Runs a plug-in's head on two empty clips. Raises PluginError naming what is not as `build_head` says."""
    import torch
    from torch import nn

    if not isinstance(head, nn.Module):
        raise plugin.wrong(f"{row.target} gave a {type(head).__name__}, expected a torch.nn.Module")
    where = next(iter([*head.parameters(), *head.buffers()]), torch.empty(0))
    steps = shape.num_steps if row.needs_steps else 1
    features = {tap: torch.zeros(2, steps, width, device=where.device) for tap, width in shape.taps.items()}
    mask: Any = torch.ones(2, steps, dtype=torch.bool, device=where.device)
    if row.plan:
        features = {name: torch.zeros(2, one.num_steps, *one.shape) for name, one in shape.arrays.items()}
        mask = {name: torch.ones(2, one.num_steps) > 0 for name, one in shape.arrays.items()}
    was_training = head.training
    with plugin.running("forward(features, mask)"), torch.no_grad(), torch.random.fork_rng(devices=[]):
        given: Any = head.eval()(features, mask)
    head.train(was_training)
    if not isinstance(given, Mapping):
        raise plugin.wrong(f"forward gave a {type(given).__name__}, expected {{output: logits}}")
    found = {name: tuple(getattr(value, "shape", ())) for name, value in given.items()}
    wanted = {name: (2, count) for name, count in shape.outputs.items()}
    if found != wanted:
        raise plugin.wrong(f"forward gave the outputs {found} for 2 clips, expected {wanted}")
