"""Losses: golden numbers of SYSTEMS.md section 7, parity with torch and scipy, what every row keeps to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kcal_bins import KCAL, label_of, scores_of
from scipy.spatial.distance import jensenshannon

from reelbank.heads.config import TrainConfig
from reelbank.heads.examples.targets import class_distributions
from reelbank.heads.judging.metrics import nll_mean_per_clip
from reelbank.heads.losses import LOSSES, loss_function
from reelbank.heads.training.reduction import reduce
from reelbank.store.options import options
from reelbank.testing import losses as suite


def test_losses_of_a_uniform_prediction_are_the_published_ones() -> None:
    p, z = torch.from_numpy(label_of(400.0))[None], torch.zeros(1, 1000, dtype=torch.float64)
    assert loss_function("kld")(z, p).item() == pytest.approx(3.879379, abs=1e-6)
    assert loss_function("jsd")(z, p).item() == pytest.approx(0.630965, abs=1e-6)


def test_other_readings_of_nll_and_jsd_are_a_factor() -> None:
    """Register of readings, 4 and 8: the mean over bins, and the divergence without its halves."""
    assert nll_mean_per_clip(scores_of(np.full(1000, 1e-3)))[0] == pytest.approx(7.907255 / 1000, abs=1e-9)
    p, z = torch.from_numpy(label_of(400.0))[None], torch.zeros(1, 1000, dtype=torch.float64)
    assert loss_function("jsd-sum")(z, p).item() == pytest.approx(2 * 0.630965, abs=2e-6)


@pytest.mark.parametrize(("shift", "value"), [(5, 0.4990), (10, 1.9960), (25, 12.475)])
def test_kld_between_shifted_labels_is_the_published_one(shift: int, value: float) -> None:
    p = torch.from_numpy(label_of(400.0))[None]
    # The logits of a Gaussian are its exponents: no log of an underflowed probability is taken.
    z = -((torch.arange(1000, dtype=torch.float64) - 0.999 * (400 + shift)) ** 2) / 50
    assert loss_function("kld")(z[None], p).item() == pytest.approx(value, rel=2e-4)


def test_cross_entropy_on_softmax_lies_between_the_published_bounds() -> None:
    """12 classes, saturated right and wrong, and uniform (SYSTEMS.md 5.2 and section 7); torch's own on softmax."""
    p = torch.eye(12, dtype=torch.float64)[:1]
    sure = torch.full((1, 12), -1e3, dtype=torch.float64)
    right, wrong = sure.clone(), sure.clone()
    right[0, 0], wrong[0, 5] = 1e3, 1e3
    found = [loss_function("ce-on-softmax")(z, p).item() for z in (right, wrong, torch.zeros_like(right))]
    assert found == pytest.approx([1.618729, 2.618729, 2.484907], abs=1e-6)
    assert found[0] == pytest.approx(math.log(math.e + 11) - 1, abs=1e-12)
    z, y = torch.randn(9, 12, dtype=torch.float64), torch.arange(9)
    ours = loss_function("ce-on-softmax")(z, class_distributions(y, 12, 0.0).double()).mean()
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(z.softmax(dim=1), y))


@pytest.mark.parametrize(
    ("right", "clips", "predicted"),
    [(0.98779, 10**5, 1.6309), (607, 756, 1.8158), (736, 756, 1.6452), (388, 756, 2.1055)],
)
def test_reported_losses_follow_from_the_accuracy_alone(right: float, clips: int, predicted: float) -> None:
    """Sure of everything, right in a share of it; reported were 1.631, 1.815, 1.646, and 2.127 of one less sure."""
    num_right = round(right * clips) if right < 1 else int(right)
    p = torch.eye(12, dtype=torch.float64)[:1]
    sure = torch.full((2, 12), -1e3, dtype=torch.float64)
    sure[0, 0], sure[1, 1] = 1e3, 1e3
    of_right, of_wrong = loss_function("ce-on-softmax")(sure, p.expand(2, -1)).tolist()
    mean = (num_right * of_right + (clips - num_right) * of_wrong) / clips
    assert mean == pytest.approx(predicted, abs=6e-5)


def test_kld_and_ce_have_the_same_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.from_numpy(KCAL.distributions(np.array([120.0, 800.0])))
    grads = []
    for name in ("ce", "kld"):
        z = torch.randn(2, 1000, generator=generator.manual_seed(1), dtype=torch.float64).requires_grad_()
        loss_function(name)(z, p).mean().backward()
        grads.append(z.grad)
    assert torch.equal(grads[0], grads[1])


def test_mean_reduction_is_a_thousandth_of_the_sum_for_a_thousand_bins() -> None:
    per_example = torch.tensor([1.0, 3.0])
    assert reduce(per_example, 1000, "sum").item() == 2.0
    assert reduce(per_example, 1000, "mean").item() == pytest.approx(0.002)


def test_weighted_reduction_equals_torch_weighted_cross_entropy() -> None:
    z, y = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    weight = torch.tensor([0.5, 1.0, 3.0])
    ours = reduce(loss_function("ce")(z, class_distributions(y, 3, 0.0)), 3, "sum", weight[y])
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(z, y, weight=weight))


def test_label_smoothing_equals_torch() -> None:
    z, y = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    ours = loss_function("ce")(z, class_distributions(y, 3, 0.1)).mean()
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(z, y, label_smoothing=0.1))


def test_configuration_offers_the_losses_of_the_table() -> None:
    offered = {name: one.choices for name, one in options(TrainConfig).items()}
    assert offered["loss"] == tuple(sorted(LOSSES))
    assert offered["class_loss"] == ("auto", *sorted(LOSSES))


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("check", sorted(suite.CHECKS))
def test_every_loss_keeps_to(check: str, name: str) -> None:
    """`reelbank.testing.check_loss`, one test per check."""
    suite.CHECKS[check](name)


@pytest.mark.parametrize("name", ["jsd", "jsd-sum", "kld"])
def test_divergence_of_equal_distributions_is_zero(name: str) -> None:
    p = torch.softmax(torch.randn(4, 9, dtype=torch.float64), dim=1)
    torch.testing.assert_close(loss_function(name)(p.log(), p), torch.zeros(4, dtype=torch.float64), atol=1e-9, rtol=0)


def test_jsd_equals_scipy_and_is_at_most_ln2() -> None:
    z, p = torch.randn(5, 11, dtype=torch.float64), torch.softmax(torch.randn(5, 11, dtype=torch.float64), dim=1)
    expected = jensenshannon(p.numpy(), z.softmax(dim=1).numpy(), axis=1) ** 2
    assert loss_function("jsd")(z, p).numpy() == pytest.approx(expected, abs=1e-9)
    wrong = torch.tensor([[50.0, -50.0]])
    assert loss_function("jsd")(wrong, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(math.log(2), abs=1e-6)
