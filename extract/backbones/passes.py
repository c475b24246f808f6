"""What makes the forward passes of a network fast without changing a feature, and the batch that fits a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from reelbank.extract.backbones.description import Backbone

MEMORY_SHARE = 4
"""A forward pass takes at most this part of a GPU's memory: cuDNN's choice of a kernel may take more another time."""
MOST_DOUBLINGS = 4

Pass = Callable[[Tensor, tuple[str, ...]], Mapping[str, Tensor]]


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts what autocast would cast in every pass, as it does not keep the casts of frozen weights.

    Only layers whose operation is on autocast's list; a norm keeps its float32 numbers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | _ConvNd):
            for tensor in (layer.weight, layer.bias):
                if tensor is not None and tensor.dtype == torch.float32:
                    tensor.data = tensor.data.to(dtype)


class GraphedPass:
    """A forward pass recorded once per shape and taps as a CUDA graph: one launch instead of hundreds.

    What it returns lies in memory that the next replay overwrites; work queued on the same stream before that is done
    with it. A network whose Python looks at values (`keypoint_rcnn`) cannot be recorded.
    """

    WARM_UPS = 3
    """Passes before the recording: libraries make their handles and workspaces in the first."""

    def __init__(self, run: Pass) -> None:
        self._run = run
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Mapping[str, Tensor]]] = {}

    def __call__(self, pixels: Tensor, taps: tuple[str, ...]) -> Mapping[str, Tensor]:
        """`run(pixels, taps)`."""
        key = pixels.shape, taps
        if key not in self._recorded:
            self._recorded[key] = self._record(pixels.clone(), taps)
        graph, entered, left = self._recorded[key]
        entered.copy_(pixels, non_blocking=True)
        graph.replay()
        return left

    def _record(self, entered: Tensor, taps: tuple[str, ...]) -> tuple[torch.cuda.CUDAGraph, Tensor, Any]:
        with torch.cuda.device(entered.device):
            beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(self.WARM_UPS):
                    self._run(entered, taps)
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                left = self._run(entered, taps)
        return graph, entered, left


def default_batch(backbone: Backbone, taps: Sequence[str]) -> int:
    """Steps per forward pass of a network on a CUDA GPU where nobody asks: what its memory holds, measured.

    The whole memory counts, not what is free now, so that GPUs of one model take the same batch: it changes the bits.
    """
    memory = torch.cuda.get_device_properties(backbone.device).total_memory
    return fitting_batch(backbone.default_batch, _step_bytes(backbone, taps), memory)


def fitting_batch(own: int, step_bytes: int, memory_bytes: int) -> int:
    """`own` doubled, up to 16 times itself, while a pass of `step_bytes` per step takes its share of the memory."""
    batch = own
    while batch < own << MOST_DOUBLINGS and 2 * batch * step_bytes <= memory_bytes // MEMORY_SHARE:
        batch *= 2
    return batch


def _step_bytes(backbone: Backbone, taps: Sequence[str]) -> int:
    info = backbone.info
    frames = np.zeros((info.default_batch, *info.frames_shape), dtype=info.payload_dtype)
    backbone.forward(frames, taps)  # the libraries' own memory comes with the first pass and stays
    before = torch.cuda.memory_allocated(backbone.device)
    torch.cuda.reset_peak_memory_stats(backbone.device)
    backbone.forward(frames, taps)
    return max(1, (torch.cuda.max_memory_allocated(backbone.device) - before) // len(frames))
