"""What Apple's Metal (`--device mps`) may be given, and whether it computes there what the CPU does.

Some of torch's operators on Metal were wrong without an error as late as 2026: convolutions in three dimensions
(pytorch issue 197114), layers on memory with the channels last (174345, 180984). The first are refused, the second
avoided, and a network is held against itself on the CPU before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.backbones.description import Backbone, BackboneError, BackboneInfo
from reelbank.extract.weights.calibration import cloud_images

METAL = "mps"
MAX_ERROR = {"fp32": 0.01, "bf16": 0.25, "fp16": 0.25}
"""Largest distance of a tap from what the CPU computes in fp32, in lengths of that.

What is wrong is about 1 away. bf16 on a CPU was at most 0.09 away in googlenet and ResNets, but 0.25 in
EfficientNet-Lite, and 0.5 with random weights: twice what a CPU is away in bf16 is rounding, too.
"""
MOST_ERROR = 0.75


def refuse_clips(info: BackboneInfo) -> None:
    """Raises BackboneError for a backbone whose step reads several frames."""
    if (count := len(info.step_frames)) > 1:
        raise BackboneError(
            f"--device mps: a step of {info.name} reads {count} frames, and torch's 3-D convolutions on Metal have "
            "given wrong features without an error; pass --device cpu"
        )


def reference(backbone: Backbone) -> dict[str, npt.NDArray[Any]]:
    """`features` of the backbone on the CPU. Raises BackboneError if it holds float64, which Metal does not have."""
    state: Mapping[str, Any] = {} if backbone.module is None else backbone.module.state_dict()
    if doubles := [name for name, tensor in state.items() if tensor.is_floating_point() and tensor.itemsize > 4]:
        raise BackboneError(
            f"--device mps: {doubles[0]} of {backbone.name} is float64, which Metal does not have; pass --device cpu"
        )
    return features(backbone)


def features(backbone: Backbone) -> dict[str, npt.NDArray[Any]]:
    """All taps of a backbone for two images, which are always the same."""
    return backbone.forward(cloud_images(0, *backbone.info.image_size)[:2], tuple(backbone.taps))


def check(
    backbone: Backbone,
    precision: str,
    expected: Mapping[str, npt.NDArray[Any]],
    rounded: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Compares `features` on the device with those `expected` of the CPU.

    Args:
        backbone: on the device.
        precision: of its forward pass.
        expected: `reference`.
        rounded: `features` on the CPU in bf16, if that is the precision.

    Raises:
        BackboneError: Metal lacks an operator, or a tap is farther away than rounding explains.
    """
    try:
        found = features(backbone)
    except (RuntimeError, TypeError) as error:  # an operator that is not there; float64
        reason = str(error).strip().partition("\n")[0]
        raise BackboneError(
            f"--device mps: Metal does not run {backbone.name} ({reason}); pass --device cpu"
        ) from error
    for tap, right in expected.items():
        distance = _distance(found[tap], right)
        rounding = 2 * _distance(rounded[tap], right) if rounded else 0.0
        limit = min(max(MAX_ERROR[precision], rounding), MOST_ERROR)
        if not distance <= limit:
            raise BackboneError(
                f"--device mps: tap {tap!r} of {backbone.name} in {precision} is not what the CPU computes "
                f"({distance:.2g} of its length away, rounding explains {limit:.2g}); pass --device cpu"
            )


def _distance(found: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    """In lengths of what is right."""
    reference = right.astype(np.float64)
    return float(np.linalg.norm(found - reference)) / max(float(np.linalg.norm(reference)), 1e-6)
