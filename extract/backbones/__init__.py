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
from reelbank.store.devices import check_device_name
from reelbank.store.files import appearing

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
    "outline",
    "save_state",
]

_OUTLINE_DEVICE = "meta"

TORCHVISION = ("reelbank.extract.weights.network_libraries",)
TIMM = (*TORCHVISION, "timm")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One family of backbones.

    Attributes:
        target: `module:function`; the function takes (family, variant) and returns a Definition. The module
            loads no torch when imported.
        summary: one line for listings.
        variants: what may stand after the `:`.
        plain: whether the family name alone is a backbone too.
        open_variants: where too many variants exist to list them: what may stand after the `:`, in words.
        libraries: modules that take long to import and that the backbone needs when it is built.
    """

    target: str
    summary: str
    variants: tuple[str, ...] = ()
    plain: bool = True
    open_variants: str = ""
    libraries: tuple[str, ...] = TORCHVISION


BACKBONES: dict[str, Row] = {
    "clip": Row(
        target="reelbank.extract.backbones.clip:define",
        libraries=TIMM,
        summary="CLIP's image towers (ViT-B/32, `:vitb32-256`, `:vitb16`, `:vitl14`, `:rn50`): one embedding per frame",
        variants=("vitb16", "vitb32-256", "vitl14", "rn50"),
    ),
    "dinov2": Row(
        target="reelbank.extract.backbones.dinov2:define",
        libraries=TIMM,
        summary="DINOv2 ViT-S/14 (`:vitb14`, `:vitl14`, `:vitg14`, `-reg` with registers): class or patch tokens",
        variants=("vits14-reg", "vitb14", "vitb14-reg", "vitl14", "vitl14-reg", "vitg14", "vitg14-reg"),
    ),
    "dinov3": Row(
        target="reelbank.extract.backbones.dinov3:define",
        libraries=TIMM,
        summary="DINOv3 ViT-S/16 and larger: class or patch tokens (ConvNeXts: `timm:convnext_tiny.dinov3_lvd1689m`)",
        variants=("vits16-plus", "vitb16", "vitl16", "vith16-plus", "vit7b16"),
    ),
    "flow": Row(
        target="reelbank.extract.backbones.flow:define",
        libraries=(),
        summary="optical flow of native frame pairs (Farneback, DIS, TV-L1, RAFT) as histograms, field or gray images; "
        "`:images` reads flow made before",
        variants=("dis", "images", "images-256", "raft-large", "raft-small", "tvl1"),
    ),
    "frames": Row(
        target="reelbank.extract.backbones.frames:define",
        libraries=(),
        summary="the frames themselves as uint8: 224 px crops (`:112`; `:256` for 256x341); no weights",
        variants=("112", "256"),
    ),
    "googlenet": Row(
        target="reelbank.extract.backbones.googlenet:define",
        summary="GoogLeNet trained on ImageNet: pooled 1024-d, or the last 1024x7x7 map",
    ),
    "motion-map": Row(
        target="reelbank.extract.backbones.motion_map:define",
        libraries=(),
        summary="which pixels move once the camera's motion is taken out (`:dis`), on grids of 7, 14 and 28; "
        "`:images` reads maps made before",
        variants=("dis", "images"),
    ),
    "pose": Row(
        target="reelbank.extract.backbones.pose:define",
        summary="annotated poses: 25 keypoints, box and heatmaps (`:given-box`); `:keypoint-rcnn` finds them in video",
        variants=("given-box", "keypoint-rcnn"),
    ),
    "resnet18": Row(
        target="reelbank.extract.backbones.resnet:define",
        summary="ResNet-18 trained on ImageNet: pooled 512-d, stem and layer maps, logits",
    ),
    "resnet34": Row(
        target="reelbank.extract.backbones.resnet:define",
        summary="ResNet-34 trained on ImageNet: pooled 512-d, stem and layer maps, logits, Ego-RNN's attended maps",
    ),
    "resnet50": Row(
        target="reelbank.extract.backbones.resnet:define",
        summary="ResNet-50 trained on ImageNet: pooled 2048-d, stem and layer maps, logits",
    ),
    "timm": Row(
        target="reelbank.extract.backbones.timm_models:define",
        libraries=TIMM,
        summary="any model of timm with the preprocessing of its weights: pooled features, and its last map or tokens",
        plain=False,
        open_variants="NAME of timm.list_models() or timm.list_pretrained(), as in timm:convnext_tiny.fb_in22k",
    ),
    "tv3d": Row(
        target="reelbank.extract.backbones.tv3d:define",
        summary="torchvision's video networks trained on Kinetics-400, 16 frames per step: pooled features, logits",
        variants=("mc3_18", "mvit_v2_s", "r2plus1d_18", "r3d_18", "s3d", "swin3d_t"),
        plain=False,
    ),
    "warp-flow": Row(
        target="reelbank.extract.backbones.warp_flow:define",
        libraries=(),
        summary="optical flow once the camera's motion is taken out (Farneback; `:dis`); no weights",
        variants=("dis",),
    ),
}


def names() -> tuple[str, ...]:
    """Every name that `describe` and `build` take, sorted, but those of families with open variants."""
    return tuple(sorted(name for family, row in BACKBONES.items() for name in family_names(family, row)))


def family_names(family: str, row: Row) -> tuple[str, ...]:
    """The names of one row's backbones: the plain one first where there is one, then its listed variants."""
    return ((family,) if row.plain else ()) + tuple(f"{family}:{variant}" for variant in row.variants)


def libraries(name: str) -> tuple[str, ...]:
    """Modules that processes running this backbone will import. Raises BackboneError for an unknown name."""
    _define(name)
    return BACKBONES[name.partition(":")[0]].libraries


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
        BackboneError: unknown name or precision, or a state file of another backbone.
        DeviceError: a device that is unknown or not here.
        WeightsError: the weights are absent, damaged or of another architecture.
    """
    check_device_name(device)
    options = BuildOptions(weights=str(weights), seed=seed, device=device, precision=precision, state_file=state_file)
    return _define(name).make(options)


def outline(name: str) -> Backbone:
    """The network without numbers, on torch's meta device: what its tensors' shapes are, at no cost for any size.

    Only the shapes of its `tensors` and of `module` mean something; it gives no features. Backbones without
    weights are built as `build` does.
    """
    return _define(name).make(BuildOptions(device=_OUTLINE_DEVICE))


def save_state(backbone: Backbone, path: Path) -> None:
    """Writes the backbone's tensors and the origin of its weights, for `build(..., state_file=path)`.

    One process finds, checks and calibrates the weights; workers then only read them.
    """
    from safetensors.torch import save_file

    state: dict[str, Tensor] = {}
    if backbone.module is not None:
        state = {key: value.detach().cpu().contiguous() for key, value in backbone.module.state_dict().items()}
    with appearing(path) as partial:
        save_file(state, partial, metadata={"backbone": backbone.name, "weights": json.dumps(backbone.weights)})


def _choices(family: str) -> str:
    """What could have been meant: the variants of a known family, else the families."""
    row = BACKBONES.get(family)
    if row is not None:
        return f"{family} has {', '.join(sorted(family_names(family, row))) or f'{family}:{row.open_variants}'}"
    return f"choose one of {', '.join(sorted(BACKBONES))}; `reelbank backbones` lists their variants and taps"


def _define(name: str) -> Definition:
    family, _, variant = name.partition(":")
    row = BACKBONES.get(family)
    if row is None or not (name in family_names(family, row) or (row.open_variants and variant)):
        raise BackboneError(f"backbone {name!r} is not known; {_choices(family)}")
    module_name, _, function = row.target.partition(":")
    definition = getattr(importlib.import_module(module_name), function)(family, variant)
    assert isinstance(definition, Definition)
    return definition
