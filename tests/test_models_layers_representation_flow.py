"""Representation flow against loops over pixels, on a blob that moves, and where maps are flat."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from reelbank.heads.models.layers import representation_flow
from reelbank.heads.models.layers.representation_flow import RepresentationFlow, tvl1

CONSTANTS = {"theta": 0.3, "lam": 0.15, "tau": 0.25}
Maps = npt.NDArray[np.float64]


def _gaussian(row: float, column: float) -> Tensor:
    """A blob of sigma 4 on 28x28, 0 to 255."""
    rows, columns = torch.meshgrid(*[torch.arange(28, dtype=torch.float64)] * 2, indexing="ij")
    blob = torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 4**2))
    return 255 * (blob - blob.min()) / (blob.max() - blob.min())


@pytest.mark.parametrize(("iterations", "px"), [(1, 0.503), (5, 0.606), (10, 0.820), (20, 0.950)])
def test_flow_of_a_moved_blob_is_as_far_as_specified(iterations: int, px: float) -> None:
    """The mean is taken where the first blob is above 0.3 of its peak; farther out there is little to see."""
    first = _gaussian(14, 14)
    on_blob = first > 0.3 * first.max()
    ux, uy = tvl1(first, _gaussian(14, 15), iterations=iterations, **CONSTANTS)
    assert ux[on_blob].mean().item() == pytest.approx(px, abs=6e-4)
    assert uy[on_blob].mean().item() == pytest.approx(0, abs=5e-3)
    ux, uy = tvl1(first, _gaussian(13, 14), iterations=iterations, **CONSTANTS)
    assert uy[on_blob].mean().item() == pytest.approx(-px, abs=2e-2)
    assert ux[on_blob].mean().item() == pytest.approx(0, abs=5e-3)


def _central(maps: Maps, channels: tuple[int, ...], row: int, column: int) -> tuple[float, float]:
    """Sums over the channels."""
    height, width = maps.shape[1:]
    gx = gy = 0.0
    for c in channels:
        gx += (maps[c, row, min(column + 1, width - 1)] - maps[c, row, max(column - 1, 0)]) / 2
        gy += (maps[c, min(row + 1, height - 1), column] - maps[c, max(row - 1, 0), column]) / 2
    return gx, gy


def _plain_tvl1(f1: Maps, f2: Maps, iterations: int, public: bool, theta: float, lam: float, tau: float) -> list[Maps]:
    """(ux, uy) of maps (C, H, W), pixel by pixel; `public` sums all channels and has x differences along the height."""
    count, height, width = f1.shape
    u, p = np.zeros((2, count, height, width)), np.zeros((2, 2, count, height, width))
    places = [(c, y, x) for c in range(count) for y in range(height) for x in range(width)]
    seen = {c: tuple(range(count)) if public else (c,) for c in range(count)}
    for _ in range(iterations):
        v = np.zeros_like(u)
        for c, y, x in places:
            grad = _central(f2, seen[c], y, x)
            squared = grad[0] ** 2 + grad[1] ** 2
            rho = f2[c, y, x] - f1[c, y, x] + grad[0] * u[0, c, y, x] + grad[1] * u[1, c, y, x]
            for k in range(2):
                if rho < -lam * theta * squared:
                    change = lam * theta * grad[k]
                elif rho > lam * theta * squared:
                    change = -lam * theta * grad[k]
                else:
                    change = -rho * grad[k] / squared if squared > 1e-12 else 0
                v[k, c, y, x] = u[k, c, y, x] + change
        for k in range(2):
            for c, y, x in places:
                divergence = 0.0
                for d in seen[c]:
                    divergence += p[k, 0, d, y, x] - (p[k, 0, d, y, x - 1] if x else 0)
                    divergence += p[k, 1, d, y, x] - (p[k, 1, d, y - 1, x] if y else 0)
                u[k, c, y, x] = v[k, c, y, x] + theta * divergence
        new_p = np.zeros_like(p)
        for k in range(2):
            for c, y, x in places:
                down = sum(u[k, d, y + 1, x] - u[k, d, y, x] for d in seen[c]) if y < height - 1 else 0
                right = sum(u[k, d, y, x + 1] - u[k, d, y, x] for d in seen[c]) if x < width - 1 else 0
                along = (down if public else right, down)
                damping = 1 + tau / theta * np.hypot(*along)
                for axis in range(2):
                    new_p[k, axis, c, y, x] = (p[k, axis, c, y, x] + tau / theta * along[axis]) / damping
        p = new_p
    return [u[0], u[1]]


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1, 30], ids=["every-case", "steep"])
def test_iteration_equals_loops_over_pixels(scale: float) -> None:
    f1, f2 = scale * _random(2, 6, 5), scale * _random(2, 6, 5, seed=1)
    f1[0, :4], f2[0, :4] = 3, 3  # flat, both of them
    f2[1, :3] = 1  # flat, but the first is not
    for iterations in (1, 2, 7):
        ours = tvl1(f1, f2, iterations=iterations, **CONSTANTS)
        plain = _plain_tvl1(f1.numpy(), f2.numpy(), iterations, False, **CONSTANTS)
        np.testing.assert_allclose(torch.stack(ours), plain, rtol=0, atol=1e-6)


def _layer(**options: Any) -> RepresentationFlow:
    torch.manual_seed(0)
    layer = RepresentationFlow(4, 3, **options).double().eval()
    for value in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean):
        torch.nn.init.normal_(value)
    assert layer.norm.running_var is not None
    torch.nn.init.uniform_(layer.norm.running_var, 0.1, 1)
    return layer


def _plain_layer(layer: RepresentationFlow, clip: Tensor, public: bool) -> Tensor:
    """One clip (T, C, H, W) -> (T - 1, C, H, W)."""
    maps = torch.einsum("bc,tchw->tbhw", layer.bottleneck.weight.flatten(1), clip)
    scaled = 255 * (maps - maps.min()) / (maps.min() - maps.max() if public else maps.max() - maps.min())
    outputs = []
    for step in range(len(clip) - 1):
        pair = [scaled[i].detach().numpy() for i in (step, step + 1)]
        flow = torch.from_numpy(np.concatenate(_plain_tvl1(pair[0], pair[1], 3, public, **CONSTANTS)))
        branch = torch.einsum("cb,bhw->chw", layer.expand.weight.flatten(1), flow)
        norm = layer.norm
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        branch = (branch - norm.running_mean[:, None, None]) * factor[:, None, None] + norm.bias[:, None, None]
        outputs.append((clip[step] + branch).relu())
    return torch.stack(outputs)


@pytest.mark.parametrize("learnt", [True, False])
@pytest.mark.parametrize("compat", ["none", "public"])
def test_layer_equals_loops_over_pixels(compat: str, learnt: bool) -> None:
    """In the public layer, whose scale is that of the batch, one clip is the batch.

    The plain one scales with the published sign: that it changes nothing is seen here.
    """
    layer, clips = _layer(iterations=3, compat=compat, learnt=learnt), _random(2, 3, 4, 5, 4)
    _set_constants_in_double(layer)
    given = [clips] if compat == "none" else [clips[:1], clips[1:]]
    ours = torch.cat([layer(part) for part in given])
    assert ours.shape == (2, 2, 4, 5, 4)
    plain = torch.stack([_plain_layer(layer, clip, compat == "public") for clip in clips])
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-6)


def _set_constants_in_double(layer: RepresentationFlow) -> None:
    """They were made in float32, where 0.3 is another number."""
    with torch.no_grad():
        for name, value in CONSTANTS.items():
            getattr(layer, name).fill_(value)


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 12_547), ({"learnt": False}, 12_544), ({"compat": "public"}, 26_883)],
    ids=["learnt", "fixed", "public"],
)
def test_parameters_are_counted_as_specified(options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        layer = RepresentationFlow(128, 32, **options)
    assert sum(parameter.numel() for parameter in layer.parameters()) == count


def test_constants_are_those_of_the_paper() -> None:
    layer = RepresentationFlow()
    found = {name: round(getattr(layer, name).item(), 6) for name in CONSTANTS}
    assert found == CONSTANTS
    assert layer.iterations == 10
    fixed = RepresentationFlow(4, 3, learnt=False, compat="public")
    assert set(fixed.state_dict()) == {
        *("bottleneck.weight", "expand.weight"),
        *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    }


def test_gradients_are_those_of_finite_differences() -> None:
    constants = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in CONSTANTS.values()]

    def flow(f1: Tensor, f2: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        return tvl1(f1, f2, iterations=4, **dict(zip(CONSTANTS, given, strict=True)))

    maps = [_random(1, 4, 4, seed=seed).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(flow, (*maps, *constants))


@pytest.mark.parametrize("compat", ["none", "public"])
@pytest.mark.parametrize("what", ["zeros", "flat", "one-flat-clip", "still"])
def test_gradients_are_finite_where_nothing_moves(what: str, compat: str) -> None:
    torch.manual_seed(0)
    layer, clips = RepresentationFlow(4, 3, compat=compat), torch.randn(2, 3, 4, 6, 6)
    if what == "zeros":
        clips.zero_()
    elif what == "flat":
        clips = clips[..., :1, :1].expand(clips.shape).clone()
    elif what == "one-flat-clip":
        clips[0] = 2
    else:
        clips = clips[:, :1].expand(clips.shape).clone()
    clips.requires_grad_()
    output = layer(clips)
    assert output.isfinite().all()
    (output * torch.randn_like(output)).sum().backward()
    for name, value in (("clips", clips), *layer.named_parameters()):
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name


def test_every_parameter_learns_from_maps_that_move() -> None:
    for compat in representation_flow.COMPATS:
        layer = _layer(compat=compat)
        layer(_random(2, 3, 4, 5, 5)).square().sum().backward()
        without = [name for name, value in layer.named_parameters() if value.grad is None or not value.grad.any()]
        assert without == []


def test_a_clip_does_not_depend_on_those_beside_it() -> None:
    layer, clips = _layer(), _random(2, 3, 4, 5, 5)
    clips[1] *= 100
    together = layer(clips)
    for clip in range(2):
        torch.testing.assert_close(together[clip], layer(clips[clip : clip + 1])[0])


def test_scale_of_the_public_layer_is_that_of_the_batch() -> None:
    layer, clips = _layer(compat="public"), _random(2, 3, 4, 5, 5)
    long = clips.flatten(0, 1).unsqueeze(0)  # both as one clip, whose pairs 0, 1 and 3, 4 are those of the batch
    torch.testing.assert_close(layer(clips).flatten(0, 1), layer(long)[0, [0, 1, 3, 4]])


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_pairs_with_padding_take_no_part(train: bool) -> None:
    layer, clips = _layer(), _random(3, 4, 4, 5, 5)
    mask = torch.tensor([[True] * 4, [True, True, True, False], [False] * 4])
    clips[~mask] = 1e6
    clips.requires_grad_()
    layer.train(train)
    output = layer(clips, mask)
    assert output.shape == (3, 3, 4, 5, 5)
    assert output.flatten(2).any(dim=2).tolist() == [[True] * 3, [True, True, False], [False] * 3]
    output.square().sum().backward()
    assert clips.grad is not None
    assert clips.grad.isfinite().all()
    assert torch.equal(clips.grad.flatten(2).any(dim=2), mask)
    if not train:
        torch.testing.assert_close(output[:1], layer(clips[:1]))
        torch.testing.assert_close(output[1:2, :2], layer(clips[1:2, :3]))
    else:
        assert layer.norm.running_mean is not None
        assert layer.norm.running_mean.abs().max() < 100


def test_iteration_is_in_single_precision_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences of values to 255 would lose all that is below 1 in bfloat16."""
    seen = []

    def watched(f1: Tensor, f2: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        seen.extend([f1.dtype, f2.dtype])
        return tvl1(f1, f2, **options)

    monkeypatch.setattr(representation_flow, "tvl1", watched)
    with torch.autocast("cpu", torch.bfloat16):
        RepresentationFlow(4, 3)(torch.randn(1, 2, 4, 5, 5))
    assert seen == [torch.float32, torch.float32]


def test_another_shape_or_compat_is_refused() -> None:
    layer = _layer()
    with pytest.raises(ValueError, match=r"sequence.shape = .*at least two steps"):
        layer(_random(2, 1, 4, 5, 5))
    with pytest.raises(ValueError, match=r"mask.shape = .*expected \(B, T\) = \(2, 3\)"):
        layer(_random(2, 3, 4, 5, 5), torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="compat = 'old' is not one of none, public"):
        RepresentationFlow(compat="old")
