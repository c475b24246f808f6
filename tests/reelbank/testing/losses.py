"""What every loss keeps to: one number per example, least at the label, finite, and its gradient is the right one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import vmap

from reelbank.heads.losses import loss_function, loss_with_gradient
from reelbank.testing.checking import name_of, run


def check_loss(given: str | Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks everything that a loss promises; `given` is its name or its function."""
    name = name_of(given)
    run(CHECKS, name, f"loss {name!r}")


def _example(seed: int = 0, rows: int = 6, bins: int = 9) -> tuple[Tensor, Tensor]:
    """Logits and label distributions, double precision; the first label is one bin far from the prediction."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, bins, generator=generator, dtype=torch.float64).mul(5)
    p = torch.randn(rows, bins, generator=generator, dtype=torch.float64).mul(8).softmax(1)
    p[0] = torch.eye(bins, dtype=torch.float64)[int(z[0].argmin())]
    return z, p


def one_finite_number_per_example(name: str) -> None:
    """With a finite gradient, on one-hot labels too, and for a prediction that is certain and wrong."""
    for scale in (1.0, 1e4):
        z = (torch.randn(6, 7, generator=torch.Generator().manual_seed(1)) * scale).requires_grad_()
        per_example = loss_function(name)(z, torch.eye(7)[:6])
        assert per_example.shape == (6,), f"{per_example.shape = }, expected (6,)"
        per_example.mean().backward()  # type: ignore[no-untyped-call]
        assert z.grad is not None
        assert torch.isfinite(per_example).all(), f"logits of size {scale:g}: the loss is not finite"
        assert torch.isfinite(z.grad).all(), f"logits of size {scale:g}: the gradient is not finite"


def least_at_the_label(name: str) -> None:
    z, p = _example()
    p = p[1:]
    at_label, elsewhere = loss_function(name)(p.log(), p), loss_function(name)(z[1:], p)
    assert (at_label < elsewhere).all(), f"{at_label = }, {elsewhere = }"


def an_example_does_not_change_another(name: str) -> None:
    z, p = _example()
    whole = loss_function(name)(z, p)
    for i in range(len(z)):
        torch.testing.assert_close(loss_function(name)(z[i : i + 1], p[i : i + 1])[0], whole[i])


def fast_gradient_is_that_of_autograd(name: str) -> None:
    """In inference mode, as the trainer calls it; a row without a gradient of its own falls back to autograd."""
    z, p = _example()
    leaf = z.clone().requires_grad_()
    expected = loss_function(name)(leaf, p)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    with torch.inference_mode():
        loss, ours = loss_with_gradient(name)(z * 1, p * 1, None)
    torch.testing.assert_close(loss.clone(), expected.detach())
    torch.testing.assert_close(ours.clone(), gradient, rtol=1e-6, atol=1e-8)


def several_at_once_equal_each_alone(name: str) -> None:
    """Stacked members of a sweep are one `vmap`."""
    pairs = [_example(seed) for seed in (0, 1)]
    z, p = (torch.stack([pair[i] for pair in pairs]) for i in (0, 1))
    together = vmap(loss_function(name))(z, p)
    for i, pair in enumerate(pairs):
        torch.testing.assert_close(together[i], loss_function(name)(*pair))


CHECKS: Mapping[str, Callable[[str], None]] = {
    check.__name__: check
    for check in (
        one_finite_number_per_example,
        least_at_the_label,
        an_example_does_not_change_another,
        fast_gradient_is_that_of_autograd,
        several_at_once_equal_each_alone,
    )
}
