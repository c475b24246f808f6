"""The convolutional LSTM: gates are convolutions, so hidden and cell state stay maps.

Convolutional LSTM Network, Shi et al. 2015, arXiv:1506.04214, without peepholes, as Ego-RNN has it (Sudhakaran and
Lanz 2018, arXiv:1807.11794). With * a convolution and . a product of values, from states of zeros:

    i = sig(Wxi * X + bi + Whi * H)        f = sig(Wxf * X + bf + Whf * H)
    o = sig(Wxo * X + bo + Who * H)        g = tanh(Wxg * X + bg + Whg * H)
    C' = f . C + i . g                     H' = o . tanh(C')
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_GATES = 4


class ConvLSTM(nn.Module):
    """Reads maps step by step, (B, T, C, H, W) -> hidden and cell state (B, C', H, W).

    Attributes:
        input: all gates of the input, channels i, f, o, g one after another, with bias.
        recurrent: all gates of the hidden state in the same order, without bias.
    """

    def __init__(self, channels_in: int, channels_hidden: int, kernel_size: int = 3) -> None:
        """Weights are Xavier-normal, of each gate by itself; biases are zero.

        Raises:
            ValueError: an even kernel, which would change the size of the maps.
        """
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"{kernel_size = } would change the size of the maps; give an odd one")
        self.channels_hidden = channels_hidden
        gates, padding = NUM_GATES * channels_hidden, kernel_size // 2
        self.input = nn.Conv2d(channels_in, gates, kernel_size, padding=padding)
        self.recurrent = nn.Conv2d(channels_hidden, gates, kernel_size, padding=padding, bias=False)
        assert self.input.bias is not None
        nn.init.zeros_(self.input.bias)
        for convolution in (self.input, self.recurrent):
            # The four together have another fan-out, so their values would be too small.
            for weight in convolution.weight.detach().chunk(NUM_GATES):
                nn.init.xavier_normal_(weight)

    def forward(self, sequence: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The state after each clip's last valid step.

        Args:
            sequence: (B, T, C, H, W).
            mask: (B, T) bool, which steps are valid; None: all. A padded step leaves the state as it was, wherever it
                stands; a clip without valid steps keeps the zeros that it began with.

        Returns:
            hidden, cell: each (B, C', H, W).
        """
        [state] = deque(self._states(sequence, mask), maxlen=1)
        return state

    def steps(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        """The hidden state after every step, (B, T, C', H, W); at a padded step it is that of the step before."""
        return torch.stack([hidden for hidden, _ in self._states(sequence, mask)], dim=1)

    def _states(self, sequence: Tensor, mask: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """(hidden, cell) after each step."""
        if sequence.ndim != 5 or sequence.shape[1] == 0:
            raise ValueError(f"{sequence.shape = }, expected (B, T, C, H, W) with at least one step")
        if mask is not None and mask.shape != sequence.shape[:2]:
            raise ValueError(f"{mask.shape = }, expected (B, T) = {tuple(sequence.shape[:2])}")
        batch, _, _, height, width = sequence.shape
        inputs = self._input_gates(sequence)  # (B, T, 4 C', H, W)
        recurrent = _parts(self.recurrent, inputs.device)
        hidden = cell = inputs.new_zeros(batch, self.channels_hidden, height, width)
        # Not one index after the other: the gradient of each would be as large as all.
        for step, of_input in enumerate(inputs.unbind(1)):
            # Before the first step the hidden state is zero, and so are its gates.
            gates = of_input if step == 0 else of_input + _convolved(hidden, recurrent)
            opening, candidate = gates.tensor_split((3 * self.channels_hidden,), dim=1)
            entering, kept, leaving = opening.sigmoid().chunk(3, dim=1)
            new_cell = kept * cell + entering * candidate.tanh()
            new_hidden = leaving * new_cell.tanh()
            if mask is not None:
                valid = mask[:, step, None, None, None]
                new_hidden, new_cell = torch.where(valid, new_hidden, hidden), torch.where(valid, new_cell, cell)
            hidden, cell = new_hidden, new_cell
            yield hidden, cell

    def _input_gates(self, sequence: Tensor) -> Tensor:
        """The input's part of all gates, (B, T, 4 C', H, W): one convolution of all steps."""
        # One step that is repeated (`static_sequence`) is a view without a stride: it is convolved once.
        different = sequence[:, :1] if sequence.stride(1) == 0 else sequence
        gates = _convolved(different.flatten(0, 1), _parts(self.input, different.device))
        return gates.view(*different.shape[:2], *gates.shape[1:]).expand(-1, sequence.shape[1], -1, -1, -1)


Part = tuple[Tensor, Tensor | None]


def _parts(convolution: nn.Conv2d, device: torch.device) -> list[Part]:
    """(weight, bias) of the convolutions that together are `convolution`: on a CPU one of each gate.

    There one of all gates takes 1.2 to 1.6 times as long: its weights do not stay in a core's cache.
    """
    if device.type != "cpu":
        return [(convolution.weight, convolution.bias)]
    biases = [None] * NUM_GATES if convolution.bias is None else convolution.bias.chunk(NUM_GATES)
    return list(zip(convolution.weight.chunk(NUM_GATES), biases, strict=True))


def _convolved(maps: Tensor, parts: list[Part]) -> Tensor:
    """(B, C, H, W) -> the gates (B, 4 C', H, W), of the same height and width."""
    return torch.cat([F.conv2d(maps, weight, bias, padding=weight.shape[-1] // 2) for weight, bias in parts], dim=1)
