"""Motion segmentation: sizes of its heads, losses as sums over pixels, targets as the stored taps mean them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reelbank.extract.backbones import motion_map
from reelbank.heads.models.layers.motion_segmentation import (
    MotionHead,
    motion_target,
    pixel_cross_entropy,
    pixel_squared_error,
)

COUNTS = {
    (512, 7, "binary", False): 531_598,
    (512, 7, "regression", False): 291_449,
    (256, 14, "binary", False): 7_709_292,
    (256, 14, "regression", False): 3_867_496,
    (128, 28, "binary", False): 122_945_668,
    (128, 28, "regression", False): 61_479_284,
    (512, 7, "binary", True): 51_502,
    (512, 7, "regression", True): 51_401,
    (256, 14, "binary", True): 25_902,
    (256, 14, "regression", True): 25_801,
    (128, 28, "binary", True): 13_102,
    (128, 28, "regression", True): 13_001,
}


@pytest.mark.parametrize(("case", "count"), COUNTS.items(), ids=str)
def test_parameters_are_counted_as_specified(case: tuple[int, int, str, bool], count: int) -> None:
    with torch.device("meta"):
        head = MotionHead(*case)
    assert sum(parameter.numel() for parameter in head.parameters()) == count


@pytest.mark.parametrize("pixelwise", [False, True])
@pytest.mark.parametrize(("kind", "shape"), [("binary", (4, 2, 3, 3)), ("regression", (4, 3, 3))])
def test_every_frame_is_told_by_itself(kind: str, shape: tuple[int, ...], pixelwise: bool) -> None:
    head, maps = MotionHead(5, 3, kind, pixelwise), torch.randn(4, 5, 3, 3)
    values = head(maps)
    assert values.shape == shape
    torch.testing.assert_close(head(maps[2:3])[0], values[2])
    torch.testing.assert_close(head(maps.relu()), values)
    with torch.no_grad():
        assert bool((MotionHead(5, 3, "regression")(maps) < 0).any())  # linear output


def test_dense_outputs_are_class_row_and_column() -> None:
    head = MotionHead(5, 3, "binary")
    dense = head.get_submodule("predict.1")
    assert isinstance(dense, nn.Linear)
    with torch.no_grad():
        dense.weight.zero_()
        dense.bias.copy_(torch.arange(18.0))
    torch.testing.assert_close(head(torch.randn(2, 5, 3, 3))[1], torch.arange(18.0).view(2, 3, 3))


def test_pixelwise_head_reads_each_pixel_alone() -> None:
    head, maps = MotionHead(5, 3, "binary", pixelwise=True), torch.rand(1, 5, 3, 3)
    changed = maps.clone()
    changed[:, :, 0, 1] += 1
    different = (head(maps) != head(changed)).any(dim=1)[0]
    assert different.nonzero().tolist() == [[0, 1]]


@pytest.mark.parametrize("pixelwise", [False, True])
def test_weights_are_xavier_normal_and_biases_zero(pixelwise: bool) -> None:
    head = MotionHead(64, 7, "binary", pixelwise)
    layers = [layer for layer in head.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 2
    for layer in layers:
        fan_out, fan_in = layer.weight.shape[:2]
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=0.15)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_another_size_or_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="motion head 'both' is not one of binary, regression"):
        MotionHead(5, 3, "both")
    with pytest.raises(ValueError, match=r"features.shape = .*expected \(N, C, 3, 3\)"):
        MotionHead(5, 3, "binary", pixelwise=True)(torch.zeros(1, 5, 4, 4))


MASK = torch.tensor([[True, True, True], [True, False, False], [False, True, True], [False, False, False]])


def _loss(kind: str, values: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return (pixel_cross_entropy if kind == "binary" else pixel_squared_error)(values, target, mask)


def _given(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 3, *((2,) if kind == "binary" else ()), 5, 5, generator=generator, dtype=torch.float64)
    target = torch.rand(4, 3, 5, 5, generator=generator, dtype=torch.float64)
    return values, (target > 0.5).double() if kind == "binary" else target


def _of_map(kind: str, value: Tensor, target: Tensor) -> float:
    """The sum over the pixels of one map."""
    total = 0.0
    for row in range(5):
        for column in range(5):
            wanted = target[row, column].item()
            if kind == "binary":
                still, moving = value[:, row, column].tolist()
                total += math.log(math.exp(still) + math.exp(moving)) - (moving if wanted == 1 else still)
            else:
                total += (value[row, column].item() - wanted) ** 2
    return total


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_loss_of_a_clip_is_the_mean_over_its_valid_maps_of_sums_over_pixels(kind: str) -> None:
    values, target = _given(kind)
    expected = []
    for clip, valid in enumerate(MASK):
        maps = [_of_map(kind, values[clip, step], target[clip, step]) for step in range(3) if valid[step]]
        expected.append(sum(maps) / max(len(maps), 1))
    torch.testing.assert_close(_loss(kind, values, target, MASK), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_mean_over_clips_of_equal_length_is_the_published_sum(kind: str) -> None:
    values, target = _given(kind)
    ours = _loss(kind, values, target, torch.ones(4, 3, dtype=torch.bool)).mean()
    if kind == "binary":
        total = F.cross_entropy(values.flatten(0, 1), target.flatten(0, 1).long(), reduction="sum")
    else:
        total = F.mse_loss(values, target, reduction="sum")
    torch.testing.assert_close(ours, total / (4 * 3))


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_padded_maps_have_no_gradient(kind: str) -> None:
    values, target = _given(kind)
    values.requires_grad_()
    _loss(kind, values, target, MASK).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad.flatten(2).any(dim=2), MASK)
    with pytest.raises(ValueError, match=r"mask.shape = .*expected \(B, T\) = \(4, 3\)"):
        _loss(kind, values, target, MASK.T)


@pytest.mark.parametrize("size", motion_map.SIZES)
def test_gray_targets_are_the_exact_means_of_blocks(size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (2, 3, 224, 224)).astype(np.float32)
    side = 224 // size
    expected = pixels.reshape(2, 3, size, side, size, side).mean(axis=(3, 5), dtype=np.float64)
    grid = torch.from_numpy(pixels.reshape(2, 3, 28, 8, 28, 8).mean(axis=(3, 5)).astype(np.float16))
    target = motion_target(grid, size, "gray")
    assert target.dtype == torch.float32
    assert torch.equal(target, torch.from_numpy(expected).float())
    assert np.array_equal(motion_target(grid, size, "gray").numpy(), motion_map.gray_grid(grid.numpy(), size))


@pytest.mark.parametrize("size", motion_map.SIZES)
def test_bw_targets_are_the_stored_bits(size: int) -> None:
    bits = motion_map.nearest_bits(np.random.default_rng(0).random((2, 224, 224)), size)
    target = motion_target(torch.from_numpy(bits), size, "bw")
    assert target.dtype == torch.float32
    assert np.array_equal(target.numpy(), bits.astype(np.float32))


@pytest.mark.parametrize(
    ("stored", "size", "kind", "message"),
    [
        (torch.zeros(28, 28), 5, "gray", "size = 5 is not one of 7, 14, 28"),
        (torch.zeros(28, 28), 7, "grey", "motion target 'grey' is not one of bw, gray"),
        (torch.zeros(14, 14), 7, "gray", r"expected \(..., 28, 28\) of floats .* tap 'grid28'"),
        (torch.zeros(7, 7), 7, "bw", r"expected \(..., 7, 7\) of bool .* tap 'bits7'"),
        (torch.zeros(28, 28, dtype=torch.bool), 7, "bw", r"expected \(..., 7, 7\) of bool"),
        (torch.zeros(28, 28, dtype=torch.bool), 28, "gray", r"of torch.bool, expected .* of floats"),
    ],
)
def test_another_target_is_refused(stored: Tensor, size: int, kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        motion_target(stored, size, kind)
