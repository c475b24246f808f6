"""One step repeated, and the discriminator that tells it from a sequence."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from reelbank.heads.models.layers.static_dynamic import StaticDynamic, static_dynamic_cross_entropy, static_sequence

MASK = torch.tensor([[True, True, False], [True, True, True]])


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("shape", [(4,), (3, 2, 2)])
def test_one_step_of_each_clip_is_repeated(shape: tuple[int, ...], mask: torch.Tensor | None) -> None:
    sequence = torch.randn(2, 3, *shape)
    static = static_sequence(sequence, mask, torch.tensor([1, 2]))
    assert static.shape == sequence.shape
    for step in range(3):
        assert torch.equal(static[:, step], torch.stack([sequence[0, 1], sequence[1, 2]]))
    assert static.stride(1) == 0


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, 3], "step 3 was asked for, of clips with 3 steps"),
        ([-1, 0], "step -1 was asked for"),
        ([2, 2], "clip 0 of the batch: step 2 is padding"),
    ],
)
def test_a_step_that_is_not_there_is_refused(index: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        static_sequence(torch.zeros(2, 3, 1), MASK, torch.tensor(index))


def test_discriminator_has_the_published_size() -> None:
    module = StaticDynamic()
    assert sum(parameter.numel() for parameter in module.parameters()) == 1_026
    assert module(torch.randn(5, 512)).shape == (5, 2)


def test_mean_of_the_loss_is_the_mean_over_both_passes() -> None:
    dynamic, static = torch.randn(4, 2), torch.randn(4, 2)
    together = F.cross_entropy(torch.cat([dynamic, static]), torch.tensor([1] * 4 + [0] * 4))
    torch.testing.assert_close(static_dynamic_cross_entropy(dynamic, static).mean(), together)
    assert static_dynamic_cross_entropy(torch.tensor([[0.0, 50]]), torch.tensor([[50.0, 0]])).item() < 1e-9
