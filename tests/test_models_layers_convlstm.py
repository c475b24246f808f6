"""The convolutional LSTM against its formula, eight convolutions per step, and what a mask means to it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reelbank.heads.models.layers import convlstm
from reelbank.heads.models.layers.convlstm import ConvLSTM
from reelbank.heads.models.layers.static_dynamic import static_sequence

IN, HIDDEN, SIDE = 3, 5, 4


def _module(kernel_size: int = 3, channels_in: int = IN) -> ConvLSTM:
    torch.manual_seed(0)
    module = ConvLSTM(channels_in, HIDDEN, kernel_size).double()
    assert module.input.bias is not None
    torch.nn.init.normal_(module.input.bias)  # zeros would hide a bias at the wrong gate
    return module


def _sequence(batch: int = 2, num_steps: int = 4, channels: int = IN) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, num_steps, channels, SIDE, SIDE, dtype=torch.float64, generator=generator)


def plain_loop(module: ConvLSTM, sequence: Tensor) -> tuple[Tensor, Tensor]:
    """(hidden, cell) after the last step, as the formula says: eight convolutions per step."""
    wxi, wxf, wxo, wxg = module.input.weight.chunk(4)
    whi, whf, who, whg = module.recurrent.weight.chunk(4)
    assert module.input.bias is not None
    bi, bf, bo, bg = module.input.bias.chunk(4)
    padding = wxi.shape[-1] // 2
    hidden = cell = sequence.new_zeros(len(sequence), HIDDEN, SIDE, SIDE)
    for step in range(sequence.shape[1]):
        x = sequence[:, step]
        i = torch.sigmoid(F.conv2d(x, wxi, bi, padding=padding) + F.conv2d(hidden, whi, padding=padding))
        f = torch.sigmoid(F.conv2d(x, wxf, bf, padding=padding) + F.conv2d(hidden, whf, padding=padding))
        o = torch.sigmoid(F.conv2d(x, wxo, bo, padding=padding) + F.conv2d(hidden, who, padding=padding))
        g = torch.tanh(F.conv2d(x, wxg, bg, padding=padding) + F.conv2d(hidden, whg, padding=padding))
        cell = f * cell + i * g
        hidden = o * torch.tanh(cell)
    return hidden, cell


@pytest.mark.parametrize("state", [0, 1], ids=["hidden", "cell"])
@pytest.mark.parametrize(("kernel_size", "channels_in"), [(1, IN), (3, IN), (3, HIDDEN + 2), (5, IN)])
def test_states_and_gradients_are_those_of_the_formula(kernel_size: int, channels_in: int, state: int) -> None:
    module, sequence = _module(kernel_size, channels_in), _sequence(channels=channels_in).requires_grad_()
    learnt = [sequence, *module.parameters()]
    ours, plain = module(sequence)[state], plain_loop(module, sequence)[state]
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-6)
    weights = torch.randn_like(plain)
    gradients = zip(
        *(torch.autograd.grad((value * weights).sum(), learnt, allow_unused=True) for value in (ours, plain)),
        strict=True,
    )
    for our_gradient, plain_gradient in gradients:
        torch.testing.assert_close(our_gradient, plain_gradient, rtol=0, atol=1e-6)


def test_parameters_are_counted_as_published() -> None:
    with torch.device("meta"):
        module = ConvLSTM(512, 512, 3)
    assert sum(parameter.numel() for parameter in module.parameters()) == 18_876_416


def test_each_gate_is_initialised_by_itself() -> None:
    module = ConvLSTM(24, 40)
    assert module.input.bias is not None
    assert not module.input.bias.any()
    for convolution, channels_in in ((module.input, 24), (module.recurrent, 40)):
        expected = math.sqrt(2 / (9 * (channels_in + 40)))
        for weight in convolution.weight.chunk(4):
            assert weight.std().item() == pytest.approx(expected, rel=0.05)


MASKS = [
    pytest.param([[1, 1, 1, 1], [1, 1, 0, 0]], id="padded-at-the-end"),
    pytest.param([[0, 1, 0, 1], [1, 0, 0, 1]], id="anywhere"),
    pytest.param([[0, 0, 0, 0], [0, 0, 1, 0]], id="none-valid"),
]


@pytest.mark.parametrize("rows", MASKS)
def test_padded_steps_leave_the_state_as_it_was(rows: list[list[int]]) -> None:
    module, sequence, mask = _module(), _sequence(), torch.tensor(rows, dtype=torch.bool)
    sequence[~mask] = 1e6
    together = module(sequence, mask)
    every_step = module.steps(sequence, mask)
    for clip in range(2):
        alone = sequence[clip : clip + 1, mask[clip]]
        for state, expected in zip(together, plain_loop(module, alone), strict=True):
            torch.testing.assert_close(state[clip], expected[0])
        for step in range(4):
            before = plain_loop(module, sequence[clip : clip + 1, : step + 1][:, mask[clip, : step + 1]])[0]
            torch.testing.assert_close(every_step[clip, step], before[0])


@pytest.fixture
def convolved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(maps, channels) of every convolution of all gates."""
    seen: list[tuple[int, int]] = []
    real = convlstm._convolved

    def counted(maps: Tensor, parts: Any) -> Tensor:
        seen.append((maps.shape[0], maps.shape[1]))
        return real(maps, parts)

    monkeypatch.setattr(convlstm, "_convolved", counted)
    return seen


def test_a_step_that_is_repeated_is_convolved_once_to_the_same_states(convolved: list[tuple[int, int]]) -> None:
    module, sequence = _module(), _sequence().requires_grad_()
    values, gradients = [], []
    for copy in (False, True):
        repeated = static_sequence(sequence, None, torch.tensor([2, 0]))
        values.append(module(repeated.contiguous() if copy else repeated)[1])
        gradients += torch.autograd.grad(values[-1].square().sum(), sequence)
    assert [maps for maps, channels in convolved if channels == sequence.shape[2]] == [2, 8]
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0][0, 2].any() and not gradients[0][0, 1].any()


def test_the_input_is_convolved_once_and_the_state_once_per_later_step(convolved: list[tuple[int, int]]) -> None:
    module, sequence = _module(), _sequence(num_steps=4)
    module(sequence)
    clips, channels, hidden = len(sequence), sequence.shape[2], module.channels_hidden
    assert channels != hidden
    assert convolved == [(4 * clips, channels), *[(clips, hidden)] * 3]


def test_gates_together_are_those_of_each_convolution_by_itself() -> None:
    """On a CPU gates are convolved one by one, elsewhere together: the same numbers."""
    maps = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    for convolution in (_module().input, torch.nn.Conv2d(3, 8, 5, padding=2, bias=False).double()):
        parts = [convlstm._parts(convolution, torch.device(name)) for name in ("cpu", "cuda")]
        assert [len(found) for found in parts] == [4, 1]
        for found in parts:
            torch.testing.assert_close(convlstm._convolved(maps, found), convolution(maps))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 0, 3, 4, 4)])
def test_a_sequence_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"sequence.shape = .*expected \(B, T, C, H, W\)"):
        _module()(torch.zeros(shape, dtype=torch.float64))


def test_a_mask_of_another_shape_and_an_even_kernel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask.shape = .*expected \(B, T\) = \(2, 4\)"):
        _module()(_sequence(), torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="kernel_size = 4 would change the size"):
        ConvLSTM(3, 3, 4)
