"""Frozen networks and operators that turn frames into features.

One backbone is one file and one row of BACKBONES. `describe` says what a backbone gives and needs without
loading torch; `build` makes it ready to run. A name is `family` or `family:variant` (`flow:dis`).
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneError,
    BackboneInfo,
    BuildOptions,
    Definition,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneError",
    "BackboneInfo",
    "Row",
    "build",
    "describe",
    "names",
    "save_state",
]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One family of backbones.

    Attributes:
        target: `module:function`; the function takes (family, variant) and returns a Definition. The module
            loads no torch when imported.
        summary: one line for listings.
        variants: what may stand after the `:`; the plain family name is always a backbone too.
    """

    target: str
    summary: str
    variants: tuple[str, ...] = ()


BACKBONES: dict[str, Row] = {
    "clip": Row(
        target="reelbank.extract.backbones.clip:define",
        summary="OpenAI CLIP ViT-B/32 image tower: one 512-d embedding per frame",
    ),
    "dinov2": Row(
        target="reelbank.extract.backbones.dinov2:define",
        summary="DINOv2 ViT-S/14: class tokens of the last four blocks (1536-d), or patch tokens",
        variants=("vits14-reg",),
    ),
    "flow": Row(
        target="reelbank.extract.backbones.flow:define",
        summary="optical flow of native frame pairs (Farneback; `:dis`), as histograms or as a field; no weights",
        variants=("dis",),
    ),
    "frames": Row(
        target="reelbank.extract.backbones.frames:define",
        summary="the 224 px crops themselves as uint8; no weights",
    ),
    "googlenet": Row(
        target="reelbank.extract.backbones.googlenet:define",
        summary="GoogLeNet trained on ImageNet: pooled 1024-d, or the last 1024x7x7 map",
    ),
    "resnet18": Row(
        target="reelbank.extract.backbones.resnet:define",
        summary="ResNet-18 trained on ImageNet: pooled 512-d, layer maps, logits",
    ),
    "resnet34": Row(
        target="reelbank.extract.backbones.resnet:define",
        summary="ResNet-34 trained on ImageNet: pooled 512-d, layer maps, logits",
    ),
    "resnet50": Row(
        target="reelbank.extract.backbones.resnet:define",
        summary="ResNet-50 trained on ImageNet: pooled 2048-d, layer maps, logits",
    ),
}


def names() -> tuple[str, ...]:
    """Every name that `describe` and `build` take, sorted."""
    return tuple(sorted(n for family, row in BACKBONES.items() for n in (family, *_variants(family, row))))


def describe(name: str) -> BackboneInfo:
    """Taps, preprocessing and weights sources of a backbone. Raises BackboneError for an unknown name."""
    return _define(name).info


def build(
    name: str,
    *,
    weights: str | Path = "pretrained",
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    state_file: Path | None = None,
) -> Backbone:
    """The backbone, ready to run.

    Args:
        name: one of `names()`.
        weights: `pretrained`, `random`, or the path of a weights file. Ignored by backbones without weights.
        seed: of random weights.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`.
        precision: `fp32`, `bf16` or `fp16` of the forward pass; taps keep their declared dtype.
        state_file: what `save_state` wrote in another process; then `weights` and `seed` are taken from it.

    Raises:
        BackboneError: unknown name, device or precision, or a state file of another backbone.
        WeightsError: the weights are absent, damaged or of another architecture.
    """
    options = BuildOptions(weights=str(weights), seed=seed, device=device, precision=precision, state_file=state_file)
    return _define(name).make(options)


def save_state(backbone: Backbone, path: Path) -> None:
    """Writes the backbone's tensors and the origin of its weights, for `build(..., state_file=path)`.

    One process finds, checks and calibrates the weights; workers then only read them.
    """
    from safetensors.torch import save_file

    state: dict[str, Tensor] = {}
    if backbone.module is not None:
        state = {key: value.detach().cpu().contiguous() for key, value in backbone.module.state_dict().items()}
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(state, part, metadata={"backbone": backbone.name, "weights": json.dumps(backbone.weights)})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _define(name: str) -> Definition:
    family, _, variant = name.partition(":")
    row = BACKBONES.get(family)
    if row is None or name not in (family, *_variants(family, row)):
        raise BackboneError(f"backbone {name!r} is not known; choose one of {', '.join(names())}")
    module_name, _, function = row.target.partition(":")
    definition = getattr(importlib.import_module(module_name), function)(family, variant)
    assert isinstance(definition, Definition)
    return definition


def _variants(family: str, row: Row) -> tuple[str, ...]:
    return tuple(f"{family}:{variant}" for variant in row.variants)
