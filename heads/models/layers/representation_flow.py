"""Representation flow: optical flow of feature maps as a layer, its iterations and their constants trained with it.

Representation Flow for Action Recognition, Piergiovanni and Ryoo 2019, arXiv:1810.01455, Algorithm 1, after the TV-L1
method of Zach, Pock and Bischof 2007. For consecutive maps F1 and F2, each channel by itself, all states zero first:

    (gx, gy) = central differences of F2          rho_c = F2 - F1
    repeat n times:
        rho = rho_c + gx ux + gy uy
        v   = u + lam theta grad        if rho < -lam theta |grad|^2
              u - lam theta grad        if rho >  lam theta |grad|^2
              u - rho grad / |grad|^2   otherwise
        u   = v + theta div(p)                                     backward differences
        p   = (p + tau/theta D u) / (1 + tau/theta |D u|)          forward differences, ux and uy each its own p

The algorithm as it is printed names the case brace u, divides its third case by |F2|^2, and has a ratio that reads
tau/n; here they are v, |grad|^2 and tau/theta, without which it is not the method that it is derived from. The
published code does as is done here, and has three differences of its own, see `RepresentationFlow`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COMPATS = ("none", "public")
THETA, LAM, TAU = 0.3, 0.15, 0.25
"""The values that training starts from, and keeps where nothing is learnt."""

_FLAT = 1e-12
"""What |grad|^2 of a flat spot, where no flow can be seen, is at most; also the span of a map without contrast."""


@dataclass(frozen=True, kw_only=True)
class Derivatives:
    """The differences of the iteration, on maps (..., C, H, W).

    Attributes:
        central: along x and y, one-sided x 0.5 at the borders.
        forward: along x and y, 0 at the last column and row.
        divergence: of (px, py): the negative adjoint of `forward`, backward differences.
    """

    central: Callable[[Tensor], tuple[Tensor, Tensor]]
    forward: Callable[[Tensor], tuple[Tensor, Tensor]]
    divergence: Callable[[Tensor, Tensor], Tensor]


def _central(maps: Tensor) -> tuple[Tensor, Tensor]:
    padded = torch.cat([maps[..., :1], maps, maps[..., -1:]], dim=-1)
    taller = torch.cat([maps[..., :1, :], maps, maps[..., -1:, :]], dim=-2)
    return (padded[..., 2:] - padded[..., :-2]) / 2, (taller[..., 2:, :] - taller[..., :-2, :]) / 2


def _forward(maps: Tensor) -> tuple[Tensor, Tensor]:
    return F.pad(maps.diff(dim=-1), (0, 1)), F.pad(maps.diff(dim=-2), (0, 0, 0, 1))


def _divergence(px: Tensor, py: Tensor) -> Tensor:
    return F.pad(px, (1, 0)).diff(dim=-1) + F.pad(py, (0, 0, 1, 0)).diff(dim=-2)


PER_CHANNEL = Derivatives(central=_central, forward=_forward, divergence=_divergence)


def tvl1(
    f1: Tensor,
    f2: Tensor,
    *,
    theta: Tensor | float,
    lam: Tensor | float,
    tau: Tensor | float,
    iterations: int,
    derivatives: Derivatives = PER_CHANNEL,
) -> tuple[Tensor, Tensor]:
    """Flow from f1 to f2 by the iteration above; nothing is scaled, and the usual constants expect values to 255.

    Args:
        f1: (..., H, W).
        f2: as f1.
        theta: weight of the coupling between u and v.
        lam: weight of the data term.
        tau: step of the dual variable p.
        iterations: n.
        derivatives: how differences are taken.

    Returns:
        ux, uy: (..., H, W) in px, positive where f2 is f1 moved to the right and down.
    """
    grad = torch.stack(derivatives.central(f2))  # (2, ..., H, W): x and y, and so below
    squared = grad.square().sum(dim=0)
    is_flat = squared <= _FLAT
    inverse = torch.where(is_flat, 0, 1 / torch.where(is_flat, 1, squared))
    difference = f2 - f1
    # Tensors, so that the clamp below passes gradients on to them.
    limit = torch.as_tensor(lam * theta, dtype=grad.dtype, device=grad.device)
    ratio = tau / theta
    u, px, py = (torch.zeros_like(grad) for _ in range(3))
    for _ in range(iterations):
        rho = difference + (grad * u).sum(dim=0)
        # The three cases at once, all divided by |grad|^2; a flat spot is in the third, with 0.
        v = u + torch.clamp(-rho * inverse, -limit, limit) * grad
        u = v + theta * derivatives.divergence(px, py)
        along_x, along_y = derivatives.forward(u)
        damping = 1 + ratio * _length(along_x, along_y)
        px, py = (px + ratio * along_x) / damping, (py + ratio * along_y) / damping
    return u[0], u[1]


def _length(x: Tensor, y: Tensor) -> Tensor:
    """sqrt(x^2 + y^2), whose gradient at 0 is 0 instead of NaN."""
    squared = x.square() + y.square()
    is_zero = squared == 0
    return torch.where(is_zero, 0, torch.where(is_zero, 1, squared).sqrt())


class RepresentationFlow(nn.Module):
    """Flow between consecutive maps, added to the first of the two: (B, T, C, H, W) -> (B, T - 1, C, H, W).

    A 1x1 convolution to `bottleneck` channels, values scaled to [0, 255], `tvl1`; ux and uy side by side, a 1x1
    convolution back to C channels, batch norm, ReLU(residual + that), the residual being the first map.

    The published implementation scales over the whole batch, where what a clip becomes depends on the clips beside
    it; here the scale is each clip's own, over its valid steps.
    """

    theta: Tensor
    lam: Tensor
    tau: Tensor

    def __init__(
        self,
        channels: int = 128,
        bottleneck: int = 32,
        iterations: int = 10,
        learnt: bool = True,
        compat: str = "none",
    ) -> None:
        """Builds the layer.

        Args:
            channels: C.
            bottleneck: channels between which flow is estimated.
            iterations: n.
            learnt: theta, lam and tau are trained, and so are the kernels of `compat`; False: they are constants.
            compat: `public` does three things as the published code, which are not as the algorithm says: its
                difference kernels are dense, so each sees all channels (and is trained); the forward difference
                "along x" is along the height, too; values are scaled over the whole batch. The published scale has a
                flipped sign as well, to [-255, 0], which is left out: the flow of negated maps is the same.

        Raises:
            ValueError: another `compat`.
        """
        super().__init__()
        if compat not in COMPATS:
            raise ValueError(f"{compat = } is not one of {', '.join(COMPATS)}")
        self.iterations, self.is_public = iterations, compat == "public"
        self.bottleneck = nn.Conv2d(channels, bottleneck, kernel_size=1, bias=False)
        self.expand = nn.Conv2d(2 * bottleneck, channels, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        for name, value in (("theta", THETA), ("lam", LAM), ("tau", TAU)):
            _hold(self, name, torch.tensor(value), learnt)
        self.dense = _DenseDerivatives(bottleneck, learnt) if self.is_public else None

    def forward(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        """Flow of consecutive steps.

        Args:
            sequence: (B, T, C, H, W), T at least 2.
            mask: (B, T) bool, which steps are valid; None: all. Pairs with a padded step take no part, not in the
                statistics of the batch norm either, and give zeros.

        Returns:
            (B, T - 1, C, H, W).

        Raises:
            ValueError: another shape.
        """
        if sequence.ndim != 5 or sequence.shape[1] < 2:
            raise ValueError(f"{sequence.shape = }, expected (B, T, C, H, W) with at least two steps")
        if mask is not None and mask.shape != sequence.shape[:2]:
            raise ValueError(f"{mask.shape = }, expected (B, T) = {tuple(sequence.shape[:2])}")
        maps = self.bottleneck(sequence.flatten(0, 1)).unflatten(0, sequence.shape[:2])
        maps = self._scaled(maps.to(torch.promote_types(maps.dtype, torch.float32)), mask)
        if mask is None:
            pairs = [part.flatten(0, 1) for part in (maps[:, :-1], maps[:, 1:], sequence[:, :-1])]
            return self._added(*pairs).reshape(len(sequence), -1, *sequence.shape[2:])
        is_pair = mask[:, :-1] & mask[:, 1:]
        pairs = [part[is_pair] for part in (maps[:, :-1], maps[:, 1:], sequence[:, :-1])]
        added = self._added(*pairs)
        return added.new_zeros(*is_pair.shape, *added.shape[1:]).index_put((is_pair,), added)

    def _added(self, first: Tensor, second: Tensor, residual: Tensor) -> Tensor:
        """Scaled maps (N, bottleneck, H, W) twice, residual (N, C, H, W) -> (N, C, H, W)."""
        flow = tvl1(
            first,
            second,
            theta=self.theta,
            lam=self.lam,
            tau=self.tau,
            iterations=self.iterations,
            derivatives=PER_CHANNEL if self.dense is None else self.dense.derivatives(),
        )
        branch: Tensor = self.norm(self.expand(torch.cat(flow, dim=1)))
        return (residual + branch).relu()

    def _scaled(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        """Maps (B, T, c, H, W), their valid values set to 0 to 255; maps without contrast become 0."""
        over = (0, 1, 2, 3, 4) if self.is_public else (1, 2, 3, 4)
        low = high = maps
        if mask is not None:
            padded = ~mask[:, :, None, None, None]
            low, high = maps.masked_fill(padded, torch.inf), maps.masked_fill(padded, -torch.inf)
        low, high = low.amin(dim=over, keepdim=True), high.amax(dim=over, keepdim=True)
        span = high - low
        return 255 * (maps - low) / torch.where(span > _FLAT, span, 1)


class _DenseDerivatives(nn.Module):
    """The published code's differences: kernels (C, C, ...) that begin as the difference summed over all channels."""

    def __init__(self, channels: int, learnt: bool) -> None:
        super().__init__()
        central, pair = torch.tensor([-0.5, 0, 0.5]), torch.tensor([-1.0, 1.0])
        kernels = {
            "central_x": central.view(1, 3),
            "central_y": central.view(3, 1),
            "forward_x": pair.view(2, 1),  # along the height, as published
            "forward_y": pair.view(2, 1),
            "divergence_x": pair.view(1, 2),
            "divergence_y": pair.view(2, 1),
        }
        for name, kernel in kernels.items():
            _hold(self, name, kernel.repeat(channels, channels, 1, 1), learnt)

    def derivatives(self) -> Derivatives:
        """The kernels as `tvl1` takes them, on (..., C, H, W)."""
        return Derivatives(central=self._central, forward=self._forward, divergence=self._divergence)

    def _central(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        wide, tall = F.pad(maps, (1, 1, 0, 0), mode="replicate"), F.pad(maps, (0, 0, 1, 1), mode="replicate")
        return self._convolved(wide, "central_x"), self._convolved(tall, "central_y")

    def _forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        along_x, along_y = (F.pad(self._convolved(maps, f"forward_{axis}"), (0, 0, 0, 1)) for axis in "xy")
        return along_x, along_y

    def _divergence(self, px: Tensor, py: Tensor) -> Tensor:
        along_x = self._convolved(F.pad(px, (1, 0)), "divergence_x")
        return along_x + self._convolved(F.pad(py, (0, 0, 1, 0)), "divergence_y")

    def _convolved(self, maps: Tensor, name: str) -> Tensor:
        flat = maps.reshape(-1, *maps.shape[-3:])
        result = F.conv2d(flat, getattr(self, name))
        return result.reshape(*maps.shape[:-2], *result.shape[-2:])


def _hold(module: nn.Module, name: str, value: Tensor, learnt: bool) -> None:
    """Keeps a tensor in a module: as a parameter, or as a buffer that no checkpoint needs."""
    if learnt:
        module.register_parameter(name, nn.Parameter(value))
    else:
        module.register_buffer(name, value, persistent=False)
