"""Conformance of every head in the table, and the published sizes of the calorie heads."""

from __future__ import annotations

import functools

import pytest
import torch
from layer_counts import assert_rows
from torch import nn

from reelbank.heads.config import HEAD_FLAGS, TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HEADS, HeadShape, build_head
from reelbank.heads.models.conv_aggregation import ConvAggregator, StepConv
from reelbank.store.options import options
from reelbank.testing import heads as suite

# Beside the defaults, with which every head of the table is tested.
OPTIONS = {
    "attentive": [{"trunk": "shared"}],
    "conv-aggregation": [{"aggregation": "flatten"}, {"trunk": "shared"}],
    "mlp": [{"trunk": "shared"}],
}
NETWORKS = [name for name in sorted(HEADS) if not (HEADS[name].is_fitted or HEADS[name].plan)]
"""Heads of vectors that are trained; test_fitting and test_models_arrays have the others."""
CASES = [(name, options) for name in NETWORKS for options in ({}, *OPTIONS.get(name, []))]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@functools.cache
def _subject(case: int) -> suite.Subject:
    name, options = CASES[case]
    return suite.Subject(name, options, every_step=True)  # also heads that are given one vector: they take the mean


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{name}-{options}" for name, options in CASES])
@pytest.mark.parametrize("check", sorted(suite.CHECKS))
def test_every_head_keeps_to(check: str, case: int) -> None:
    """`reelbank.testing.check_head`, one test per check."""
    suite.CHECKS[check](_subject(case))


FLAGS = [(name, flag) for name in sorted(HEADS) for flag in HEAD_FLAGS if flag in HEADS[name].options]


@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_flags_of_a_head_have_its_default(name: str, flag: str) -> None:
    """Where an option is a flag, both say the same default; the others are given by --head-option."""
    assert HEADS[name].options[flag] == options(TrainConfig)[flag].default


def test_every_flag_of_heads_belongs_to_one() -> None:
    assert {flag for _, flag in FLAGS} == set(HEAD_FLAGS)


def _plain_aggregator(ours: ConvAggregator) -> nn.Sequential:
    """The same weights in torch's own layers, on (B, D, T)."""
    layers: list[nn.Module] = []
    for conv in ours.convs:
        _, channels, width = conv.weight.shape
        plain = nn.Conv1d(width, channels, 3, padding=1, dtype=conv.weight.dtype)
        plain.load_state_dict({"weight": conv.weight.permute(1, 2, 0), "bias": conv.bias})
        layers += [plain, nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), ours.fc)


def test_adaptive_aggregation_of_full_clips_equals_the_plain_layers() -> None:
    torch.manual_seed(0)
    ours = ConvAggregator(12, 16, "adaptive").double()
    sequence = torch.randn(3, 16, 12, dtype=torch.float64)
    expected = _plain_aggregator(ours)(sequence.transpose(1, 2))
    torch.testing.assert_close(ours(sequence, torch.ones(3, 16, dtype=torch.bool)), expected)


def test_convolution_over_steps_starts_as_torchs() -> None:
    torch.manual_seed(5)
    ours = StepConv(12, 7)
    torch.manual_seed(5)
    theirs = nn.Conv1d(12, 7, 3, padding=1)
    assert torch.equal(ours.weight.permute(1, 2, 0), theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize("aggregation", ["adaptive", "flatten"])
def test_steps_read_by_index_give_the_gathered_answer_and_gradients(aggregation: str) -> None:
    """Repeats, another order per clip, and clips that are shorter than the longest."""
    torch.manual_seed(0)
    head = ConvAggregator(12, 24, aggregation).double()
    sequence = torch.randn(3, 14, 12, dtype=torch.float64)
    step_index = torch.randint(14, (3, 24))
    mask = torch.arange(24) < torch.tensor([[24], [17], [3]])
    gathered = torch.stack([clip[steps] for clip, steps in zip(sequence, step_index, strict=True)])
    found = []
    for arguments in ((sequence, mask, step_index), (gathered, mask)):
        head.zero_grad()
        answer = head(*arguments)
        (answer * torch.linspace(-1, 1, 12, dtype=torch.float64)).sum().backward()
        found.append([answer, *(parameter.grad for parameter in head.parameters())])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("width", "count"), [(1536, 985_219), (512, 460_931), (384, 395_395)])
def test_evaluator_has_the_published_number_of_parameters(width: int, count: int) -> None:
    shape = HeadShape(taps={"x": width}, outputs={"label": 27, "target": 1000}, num_steps=1)
    assert _parameters(build_head("mlp", shape)) == count


@pytest.mark.parametrize(
    ("name", "options", "table", "ours"),
    [
        ("mean-mlp", {}, "hmdb51_mean_mlp", {"net.0": "hidden", "net.3": "classifiers.label"}),
        ("lstm", {}, "hmdb51_feature_lstm_h256", {"fc": "classifiers.label"}),
        ("lstm", {"hidden": 512}, "hmdb51_feature_lstm_h512", {"fc": "classifiers.label"}),
    ],
)
def test_heads_of_pooled_googlenet_have_the_published_layers(
    name: str, options: dict[str, int], table: str, ours: dict[str, str]
) -> None:
    """On 1,024 features and 51 classes: 275,507, 1,325,875 and 3,175,987 numbers (SYSTEMS.md 3.3, 3.4)."""
    head = build_head(name, HeadShape(taps={"x": 1024}, outputs={"label": 51}, num_steps=1), options)
    assert_rows(table, head, ours)


def test_mean_mlp_equals_the_plain_layers() -> None:
    head = build_head("mean-mlp", HeadShape(taps={"x": 7}, outputs={"label": 3}, num_steps=4), {"hidden": 5})
    plain = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 3))
    plain.load_state_dict(dict(zip(plain.state_dict(), head.state_dict().values(), strict=True)))
    sequence = torch.randn(6, 4, 7)
    torch.manual_seed(1)
    found = head({"x": sequence}, torch.ones(6, 4, dtype=torch.bool))["label"]
    torch.manual_seed(1)
    torch.testing.assert_close(found, plain(sequence.mean(dim=1)))


def test_lstm_reads_the_output_at_the_last_valid_step() -> None:
    """As torch's own LSTM on each clip alone, without its padding; a clip without steps is zeros to the last layer."""
    head = build_head("lstm", HeadShape(taps={"b": 2, "a": 3}, outputs={"label": 3}, num_steps=6), {"hidden": 5})
    a, b = torch.randn(4, 6, 3), torch.randn(4, 6, 2)
    mask = torch.arange(6) < torch.tensor([[6], [4], [1], [0]])
    found = head({"a": a, "b": b}, mask)["label"]
    linear: nn.Module = head.classifiers["label"]  # type: ignore[union-attr, index]
    for clip, length in enumerate((6, 4, 1)):
        outputs, _ = head.lstm(torch.cat([a, b], dim=2)[clip : clip + 1, :length])  # type: ignore[operator]
        torch.testing.assert_close(found[clip], linear(outputs[0, -1]))
    torch.testing.assert_close(found[3], linear.bias)


@pytest.mark.parametrize(("width", "count"), [(1536, 558_851), (512, 296_707)])
def test_shared_trunk_has_the_published_number_of_parameters(width: int, count: int) -> None:
    shape = HeadShape(taps={"x": width}, outputs={"label": 27, "target": 1000}, num_steps=1)
    assert _parameters(build_head("mlp", shape, {"trunk": "shared"})) == count


@pytest.mark.parametrize(
    ("width", "steps", "aggregation", "count"),
    [
        (1536, 160, "adaptive", 3_049_856),
        (512, 90, "adaptive", 1_344_896),
        (1536, 160, "flatten", 6_785_408),
        (512, 90, "flatten", 2_000_256),
    ],
)
def test_aggregator_has_the_published_number_of_parameters(
    width: int, steps: int, aggregation: str, count: int
) -> None:
    with torch.device("meta"):
        assert _parameters(ConvAggregator(width, steps, aggregation)) == count


def test_pooled_heads_of_several_taps_read_them_side_by_side() -> None:
    shape = HeadShape(taps={"b": 2, "a": 3}, outputs={"label": 2}, num_steps=1)
    head = build_head("linear", shape)
    a, b = torch.randn(4, 1, 3), torch.randn(4, 1, 2)
    mask = torch.ones(4, 1, dtype=torch.bool)
    expected = nn.functional.linear(torch.cat([a[:, 0], b[:, 0]], dim=1), *head.outputs["label"].parameters())
    torch.testing.assert_close(head({"b": b, "a": a}, mask)["label"], expected)


def test_rows_say_which_heads_cannot_be_stacked() -> None:
    config = TrainConfig.of(store=("s.zarr",), head="lstm")
    assert not config.can_be_stacked and TrainConfig.of(store=("s.zarr",), head="mean-mlp").can_be_stacked


def test_flatten_refuses_more_steps_than_it_was_built_for() -> None:
    head = ConvAggregator(12, 8, "flatten")
    with pytest.raises(TrainingError, match="built for 8 steps"):
        head(torch.zeros(1, 9, 12), torch.ones(1, 9, dtype=torch.bool))


def test_aggregation_refuses_two_taps_and_unknown_names_are_listed() -> None:
    shape = HeadShape(taps={"a": 3, "b": 3}, outputs={"label": 2}, num_steps=4)
    with pytest.raises(TrainingError, match=r"one tap, got \['a', 'b'\]"):
        build_head("conv-aggregation", shape)
    with pytest.raises(TrainingError, match=f"choose one of {', '.join(sorted(HEADS))}, or"):
        build_head("transformer", shape)
    with pytest.raises(TrainingError, match="has no option 'depth'"):
        build_head("linear", shape, {"depth": 3})


def test_shape_goes_through_json() -> None:
    shape = HeadShape(taps={"cls": 12}, outputs={"label": 4, "target": 9}, num_steps=21)
    assert HeadShape(**shape.to_json()) == shape
