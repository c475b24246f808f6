"""What every head keeps to: declared outputs, no influence of padding or of other clips, a state that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from reelbank.heads.models import HEADS, HeadShape, build_head
from reelbank.testing.checking import name_of, run

LENGTHS = [1, 2, 3, 5, 7, 8, 13, 21]
WIDTH = 12
OUTPUTS = {"label": 4, "target": 9}


def check_head(given: str | Callable[..., nn.Module], options: Mapping[str, Any] | None = None) -> None:
    """Builds a head and checks everything it promises.

    Args:
        given: its name, or the function of its row where that has no options and reads the pooled vector.
        options: of its row, where the defaults are not meant.
    """
    name = name_of(given)
    run(CHECKS, Subject(name, options or {}), f"head {name!r}")


class Subject:
    """A head under test.

    Args:
        every_step: whether it is given clips of several steps; None: as its row says.
    """

    def __init__(self, name: str, options: Mapping[str, Any], *, every_step: bool | None = None) -> None:
        self.name, self.options, self.row = name, options, HEADS.row(name)
        steps = self.row.needs_steps if every_step is None else every_step
        self.lengths = LENGTHS if steps else [1] * len(LENGTHS)
        self.shape = HeadShape(taps={"cls": WIDTH}, outputs=OUTPUTS, num_steps=max(self.lengths))

    def built(self, seed: int = 0) -> nn.Module:
        """A new head in double precision: what is compared then differs by mistakes, not by rounding."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_head(self.name, self.shape, self.options).double().eval()

    @cached_property
    def head(self) -> nn.Module:
        return self.built()

    @cached_property
    def batch(self) -> tuple[Tensor, Tensor]:
        """Clips of every length, zero-padded to the longest: (B, T, D) and (B, T)."""
        generator = torch.Generator().manual_seed(1)
        longest = max(self.lengths)
        features = torch.randn(len(self.lengths), longest, WIDTH, dtype=torch.float64, generator=generator)
        mask = torch.arange(longest) < torch.tensor(self.lengths)[:, None]
        return features * mask.unsqueeze(-1), mask

    def logits(self) -> dict[str, Tensor]:
        features, mask = self.batch
        found: dict[str, Tensor] = self.head({"cls": features}, mask)
        return found


def outputs_have_the_declared_shapes(subject: Subject) -> None:
    found = {output: tuple(value.shape) for output, value in subject.logits().items()}
    assert found == {output: (len(LENGTHS), count) for output, count in OUTPUTS.items()}, found


def same_logits_twice(subject: Subject) -> None:
    for output, value in subject.logits().items():
        assert torch.equal(value, subject.logits()[output]), f"{output}: in eval mode nothing may be drawn"


def batch_of_one_equals_the_row_of_a_padded_batch(subject: Subject) -> None:
    together, (features, mask) = subject.logits(), subject.batch
    for i, length in enumerate(subject.lengths):
        alone = subject.head({"cls": features[i : i + 1, :length]}, mask[i : i + 1, :length])
        for output, logits in alone.items():
            torch.testing.assert_close(logits[0], together[output][i])


def what_stands_in_the_padding_does_not_matter(subject: Subject) -> None:
    features, mask = subject.batch
    dirty = torch.where(mask.unsqueeze(-1), features, torch.full_like(features, 7.0))
    for output, logits in subject.head({"cls": dirty}, mask).items():
        torch.testing.assert_close(logits, subject.logits()[output])


def state_round_trip_gives_the_same_logits(subject: Subject) -> None:
    second = subject.built(seed=5)
    second.load_state_dict(subject.head.state_dict())
    features, mask = subject.batch
    for output, logits in second({"cls": features}, mask).items():
        assert torch.equal(logits, subject.logits()[output]), f"{output}: not all of the head is in its state"


def every_parameter_gets_a_gradient(subject: Subject) -> None:
    subject.head.zero_grad()
    sum(value.square().sum() for value in subject.logits().values()).backward()  # type: ignore[union-attr]
    for key, parameter in subject.head.named_parameters():
        assert parameter.grad is not None, f"{key} gets no gradient"
        assert parameter.grad.abs().sum() > 0, f"{key} gets a gradient of zeros"
    subject.head.zero_grad()


def several_at_once_equal_each_alone(subject: Subject) -> None:
    """Members of a sweep may be stacked; a head whose pass asks for values says so by HeadRow.alone_with, and one that
    no `vmap` can follow by HeadRow.can_be_stacked."""
    options = {**subject.row.options, **subject.options}
    if not subject.row.can_be_stacked or any(options[name] == value for name, value in subject.row.alone_with.items()):
        return
    features, mask = subject.batch
    heads = [subject.built(seed) for seed in (1, 2)]
    states = [head.state_dict() for head in heads]
    stack = {key: torch.stack([state[key] for state in states]) for key in states[0]}

    def forward(state: dict[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = functional_call(heads[0], state, ({"cls": features}, mask))
        return found

    together = vmap(forward)(stack)
    for i, head in enumerate(heads):
        for output, logits in head({"cls": features}, mask).items():
            torch.testing.assert_close(together[output][i], logits)


CHECKS: Mapping[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        outputs_have_the_declared_shapes,
        same_logits_twice,
        batch_of_one_equals_the_row_of_a_padded_batch,
        what_stands_in_the_padding_does_not_matter,
        state_round_trip_gives_the_same_logits,
        every_parameter_gets_a_gradient,
        several_at_once_equal_each_alone,
    )
}
