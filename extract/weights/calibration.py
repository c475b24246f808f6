"""Random weights that give usable features: seeded initialisation, then one pass that calibrates it.

A freshly initialised network is no stand-in for a trained one: GoogLeNet's activations shrink until its
pooled output is all zeros in float16, and DINOv2's blocks are scaled by 1e-5. So layer scales are set to
one, and batch-norm statistics to those of one seeded batch of images, layer by layer in one pass.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

RECIPE = (
    "reelbank-random-1: library initialisation under torch.manual_seed(seed); layer scales 1; "
    "batch-norm statistics of one pass over 8 seeded cloud images"
)
_NUM_IMAGES = 8
_NUM_CLIPS = 2


def random_weights(architecture: str, seed: int) -> dict[str, Any]:
    """The `weights` entry of a store on random weights.

    The hash covers recipe, seed and architecture, not the tensors: their last bits differ between machines.
    """
    identity = {"architecture": architecture, "recipe": RECIPE, "seed": seed}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return {"kind": "random", **identity, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def initialise(create: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network that `create` makes under `seed`, with layer scales of one. The global RNG is untouched."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = create()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            # timm's LayerScale: `ls1.gamma`, `ls2.gamma`; of its EVA, which is DINOv3's too: `gamma_1`, `gamma_2`.
            if name.rsplit(".", 1)[-1] in ("gamma", "gamma_1", "gamma_2"):
                parameter.fill_(1.0)
    return module


def calibrate(module: nn.Module, batch: Tensor) -> None:
    """Sets every batch norm's running statistics to those of `batch`, normalised network input.

    In train mode each layer normalises by the batch, so the statistics of all layers fit after one pass.
    Dropout stays off. A network without batch norm is left as it is.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    if not norms:
        return
    module.eval()
    momenta, num_threads = [layer.momentum for layer in norms], torch.get_num_threads()
    for layer in norms:
        layer.train()
        layer.momentum = 1.0
    # Threads share the sums of a batch statistic, and their number would show in its last bits: a store that
    # is resumed with another number of workers must get the same weights.
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            module(batch)
    finally:
        torch.set_num_threads(num_threads)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    module.eval()


def cloud_images(seed: int, height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Seeded colour images (8, H, W, 3) uint8 with the falling spectrum and varied contrast of photographs."""
    rng = np.random.Generator(np.random.PCG64(seed))
    images = np.zeros((_NUM_IMAGES, height_px, width_px, 3))
    for num_cells in (2, 4, 8, 16, 32, 64):
        grid = rng.standard_normal((_NUM_IMAGES, num_cells + 1, num_cells + 1, 3))
        # Amplitude falls as 1 / frequency, as that of natural images does (Field 1987).
        images += _stretch(_stretch(grid, height_px, axis=1), width_px, axis=2) * (2.0 / num_cells)
    contrast = rng.uniform(20.0, 70.0, (_NUM_IMAGES, 1, 1, 1))
    brightness = rng.uniform(70.0, 180.0, (_NUM_IMAGES, 1, 1, 3))
    return np.clip(images * contrast + brightness, 0, 255).astype(np.uint8)


def cloud_clips(seed: int, num_frames: int, height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Seeded clips (2, T, H, W, 3) uint8: a window that drifts over a cloud image by a pixel per frame."""
    images = cloud_images(seed, height_px + num_frames, width_px + num_frames)[:_NUM_CLIPS]
    drifting = [images[:, t : t + height_px, t : t + width_px] for t in range(num_frames)]
    return np.stack(drifting, axis=1)


def _stretch(grid: npt.NDArray[np.float64], size: int, axis: int) -> npt.NDArray[np.float64]:
    """Linear interpolation of the grid's nodes to `size` samples along one axis."""
    position = np.linspace(0, grid.shape[axis] - 1, size)
    low = np.minimum(position.astype(np.int64), grid.shape[axis] - 2)
    shape = [1] * grid.ndim
    shape[axis] = size
    weight = (position - low).reshape(shape)
    return np.asarray(np.take(grid, low, axis) * (1 - weight) + np.take(grid, low + 1, axis) * weight)
