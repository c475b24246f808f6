"""Frozen networks and operators that turn frames into features.

One backbone is one file and one row of BACKBONES. `describe` says what a backbone gives and needs without
loading torch; `build` makes it ready to run. A name is `family` or `family:variant` (`flow:dis`); a family is one of
BACKBONES, one that an installed package adds (entry points `reelbank.backbones`), or `module:function`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneError,
    BackboneInfo,
    BuildOptions,
    Definition,
    Described,
    Tuning,
)
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.extract.weights.files import file_of_sum, sha256_of
from reelbank.manifests.plugins import TARGET, Plugin, outside
from reelbank.manifests.registry import Found, Registry, first_line
from reelbank.store.devices import check_device_name
from reelbank.store.files import appearing
from reelbank.store.spec import TapSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BACKBONES", "Backbone", "BackboneError", "BackboneInfo", "BackboneRow", "BuildOptions", "Definition", "Described",
    "Preprocess", "TapSpec", "Tuning", "build", "definition", "describe", "file_of_sum", "names", "outline",
    "save_state", "sha256_of",
]  # fmt: skip

_OUTLINE_DEVICE = "meta"

TORCHVISION = ("reelbank.extract.weights.network_libraries",)
TIMM = (*TORCHVISION, "timm")


@dataclass(frozen=True, kw_only=True)
class BackboneRow:
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


_ROWS: dict[str, BackboneRow] = {
    "clip": BackboneRow(
        target="reelbank.extract.backbones.clip:define",
        libraries=TIMM,
        summary="CLIP's image towers (ViT-B/32, `:vitb32-256`, `:vitb16`, `:vitl14`, `:rn50`): one embedding per frame",
        variants=("vitb16", "vitb32-256", "vitl14", "rn50"),
    ),
    "dinov2": BackboneRow(
        target="reelbank.extract.backbones.dinov2:define",
        libraries=TIMM,
        summary="DINOv2 ViT-S/14 (`:vitb14`, `:vitl14`, `:vitg14`, `-reg` with registers): class or patch tokens",
        variants=("vits14-reg", "vitb14", "vitb14-reg", "vitl14", "vitl14-reg", "vitg14", "vitg14-reg"),
    ),
    "dinov3": BackboneRow(
        target="reelbank.extract.backbones.dinov3:define",
        libraries=TIMM,
        summary="DINOv3 ViT-S/16 and larger: class or patch tokens (ConvNeXts: `timm:convnext_tiny.dinov3_lvd1689m`)",
        variants=("vits16-plus", "vitb16", "vitl16", "vith16-plus", "vit7b16"),
    ),
    "flow": BackboneRow(
        target="reelbank.extract.backbones.flow:define",
        libraries=(),
        summary="optical flow of native frame pairs (Farneback, DIS, TV-L1, RAFT) as histograms, field or gray images; "
        "`:images` reads flow made before",
        variants=("dis", "images", "images-256", "raft-large", "raft-small", "tvl1"),
    ),
    "flow-net": BackboneRow(
        target="reelbank.extract.backbones.flow_net:define",
        summary="the convolutions of OpticalFlowNet on the 8 flow fields of 9 frames, 64x56x56; trained by a run of "
        "the head flow-net (`--weights RUN`)",
    ),
    "flow-resnet34": BackboneRow(
        target="reelbank.extract.backbones.flow_resnet34:define",
        summary="ResNet-34 on stacks of 5 pairs of flow images, 10 channels: pooled 512-d, layer maps; trained by a "
        "run (`--weights RUN`), or begun with the mean of the ImageNet stem",
    ),
    "frames": BackboneRow(
        target="reelbank.extract.backbones.frames:define",
        libraries=(),
        summary="the frames themselves as uint8: 224 px crops (`:112`; `:256` for 256x341), or whole and squashed to a "
        "square, as flow's are (`:squash224`, `:squash112`); no weights",
        variants=("112", "256", "squash112", "squash224"),
    ),
    "googlenet": BackboneRow(
        target="reelbank.extract.backbones.googlenet:define",
        summary="GoogLeNet trained on ImageNet: pooled 1024-d, or the last 1024x7x7 map",
    ),
    "lite": BackboneRow(
        target="reelbank.extract.backbones.lite:define",
        libraries=TIMM,
        summary="EfficientNet-Lite0 (`:1`, `:2` larger) trained on ImageNet, weights installed with reelbank: pooled "
        "1280-d, stem, stage and head maps, logits",
        variants=("1", "2"),
    ),
    "motion-map": BackboneRow(
        target="reelbank.extract.backbones.motion_map:define",
        libraries=(),
        summary="which pixels move once the camera's motion is taken out (`:dis`), on grids of 7, 14 and 28; "
        "`:images` reads maps made before",
        variants=("dis", "images"),
    ),
    "pose": BackboneRow(
        target="reelbank.extract.backbones.pose:define",
        summary="annotated poses: 25 keypoints, box and heatmaps (`:given-box`); `:keypoint-rcnn` finds them in video",
        variants=("given-box", "keypoint-rcnn"),
    ),
    "resnet18": BackboneRow(
        target="reelbank.extract.backbones.resnet:define",
        summary="ResNet-18 trained on ImageNet: pooled 512-d, stem and layer maps, logits",
    ),
    "resnet34": BackboneRow(
        target="reelbank.extract.backbones.resnet:define",
        summary="ResNet-34 trained on ImageNet: pooled 512-d, stem and layer maps, logits, Ego-RNN's attended maps",
    ),
    "resnet50": BackboneRow(
        target="reelbank.extract.backbones.resnet:define",
        summary="ResNet-50 trained on ImageNet: pooled 2048-d, stem and layer maps, logits",
    ),
    "timm": BackboneRow(
        target="reelbank.extract.backbones.timm_models:define",
        libraries=TIMM,
        summary="any model of timm with the preprocessing of its weights: pooled features, and its last map or tokens",
        plain=False,
        open_variants="NAME of timm.list_models() or timm.list_pretrained(), as in timm:convnext_tiny.fb_in22k",
    ),
    "tv3d": BackboneRow(
        target="reelbank.extract.backbones.tv3d:define",
        summary="torchvision's video networks trained on Kinetics-400, 16 frames per step: pooled features, logits",
        variants=("mc3_18", "mvit_v2_s", "r2plus1d_18", "r3d_18", "s3d", "swin3d_t"),
        plain=False,
    ),
    "warp-flow": BackboneRow(
        target="reelbank.extract.backbones.warp_flow:define",
        libraries=(),
        summary="optical flow once the camera's motion is taken out (Farneback; `:dis`); no weights",
        variants=("dis",),
    ),
}

BACKBONES: Registry[BackboneRow] = Registry(
    _ROWS,
    kind="backbone",
    group="reelbank.backbones",
    row_type=BackboneRow,
    error=BackboneError,
    from_function=lambda target, function: BackboneRow(target=target, summary=first_line(function), libraries=()),
    function="define(family, variant) -> Definition",
)


def names() -> tuple[str, ...]:
    """Every name that `describe` and `build` take, sorted, but those of families with open variants."""
    return tuple(sorted(name for family, row in BACKBONES.items() for name in family_names(family, row)))


def family_names(family: str, row: BackboneRow) -> tuple[str, ...]:
    """The names of one row's backbones: the plain one first where there is one, then its listed variants."""
    return ((family,) if row.plain else ()) + tuple(f"{family}:{variant}" for variant in row.variants)


def libraries(name: str) -> tuple[str, ...]:
    """Modules that processes running this backbone will import. Raises BackboneError for an unknown name."""
    definition(name)
    return _find(name)[0].row.libraries


def plugin(name: str) -> Plugin | None:
    """Where a backbone comes from; None for those of this package. Raises BackboneError for an unknown name."""
    return _find(name)[0].plugin


def describe(name: str) -> BackboneInfo:
    """Taps, preprocessing and weights sources of a backbone. Raises BackboneError for an unknown name."""
    return definition(name).info


def build(
    name: str,
    *,
    weights: str | Path = "pretrained",
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    state_file: Path | None = None,
    tuning: Tuning | None = None,
) -> Backbone:
    """The backbone, ready to run.

    Args:
        name: one of `names()`.
        weights: `pretrained`, `random`, or the path of a weights file or of a training run. Ignored by backbones
            without weights.
        seed: of random weights.
        device: `auto` (a GPU of CUDA if there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `fp32`, `bf16` or `fp16` of the forward pass; taps keep their declared dtype.
        state_file: what `save_state` wrote in another process; then `weights` and `seed` are taken from it.
        tuning: of the forward pass; None leaves the weights as they are read, so that `save_state` can be called.

    Raises:
        BackboneError: unknown name or precision, a state file of another backbone, or Metal does not compute it right.
        DeviceError: a device that is unknown or not here.
        WeightsError: the weights are absent, damaged or of another architecture.
    """
    check_device_name(device)
    options = BuildOptions(weights=str(weights), seed=seed, device=device, precision=precision, state_file=state_file)
    return definition(name).make(options if tuning is None else replace(options, tuning=tuning))


def outline(name: str) -> Backbone:
    """The network without numbers, on torch's meta device: what its tensors' shapes are, at no cost for any size.

    Only the shapes of its `tensors` and of `module` mean something; it gives no features. Backbones without
    weights are built as `build` does.
    """
    return definition(name).make(BuildOptions(device=_OUTLINE_DEVICE))


def save_state(backbone: Backbone, path: str | Path) -> None:
    """Writes the backbone's tensors and the origin of its weights, for `build(..., state_file=path)`.

    One process finds, checks and calibrates the weights; workers then only read them.
    """
    from safetensors.torch import save_file

    state: dict[str, Tensor] = {}
    if backbone.module is not None:
        state = {key: value.detach().cpu().contiguous() for key, value in backbone.module.state_dict().items()}
    with appearing(Path(path), durable=False) as partial:
        save_file(state, partial, metadata={"backbone": backbone.name, "weights": json.dumps(backbone.weights)})


def try_out(name: str, backbone: Backbone, taps: Sequence[str]) -> None:
    """Runs a plug-in's backbone on one empty step, so that a wrong shape is said before a store is made."""
    from_outside = plugin(name)
    if from_outside is not None:
        with from_outside.running("forward"):
            step = np.zeros((1, *backbone.info.frames_shape), backbone.info.payload_dtype)
            features = backbone.forward(step, taps)
        check_features(from_outside, backbone, features, taps, 1)


def check_features(
    plugin: Plugin, backbone: Backbone, features: Mapping[str, npt.NDArray[Any]], taps: Sequence[str], num_steps: int
) -> None:
    """Raises PluginError naming the tap unless `features` are those of `taps` in the declared shape and dtype.

    Backbones of this package check themselves (`Described.checked`); a plug-in need not.
    """
    for tap in taps:
        if tap not in features:
            given = ", ".join(sorted(features)) or "none"
            raise plugin.wrong(f"tap {tap!r} was asked for, forward gave {given}")
        spec, feature = backbone.info.taps[tap], np.asarray(features[tap])
        if feature.shape != (num_steps, *spec.shape) or feature.dtype != spec.dtype:
            raise plugin.wrong(
                f"tap {tap!r}: {feature.shape = } {feature.dtype}, declared {(num_steps, *spec.shape)} {spec.dtype}"
            )


def _find(name: str) -> tuple[Found[BackboneRow], str, str]:
    """(row, family, variant) of a name. Raises BackboneError listing what could be meant."""
    family, _, variant = name.partition(":")
    found = BACKBONES.registered(family)
    if found is None:
        # `module:function`, perhaps with a variant behind a second colon.
        function, _, rest = variant.partition(":")
        target = f"{family}:{function}"
        if TARGET.fullmatch(target):
            found = BACKBONES.from_module(target)
        if found is None:
            raise BackboneError(f"backbone {name!r} is not known; {BACKBONES.choices(name)}; {_LIST}")
        family, variant = target, rest
    row = found.row
    if name in family_names(family, row) or (row.open_variants and variant):
        return found, family, variant
    has = ", ".join(sorted(family_names(family, row))) or f"{family}:{row.open_variants}"
    if found.plugin is None and TARGET.fullmatch(name) and outside("backbone", name) is not None:
        has += f" (there is a module {family} too, but families come first: rename it to use its {variant})"
    raise BackboneError(f"backbone {name!r} is not known; {family} has {has}")


_LIST = "`reelbank backbones` lists them with variants and taps"


def definition(name: str) -> Definition:
    """Description and builder of a backbone. Raises BackboneError for an unknown name, PluginError for a broken one."""
    found, family, variant = _find(name)
    define: Callable[[str, str], Definition] = found.load(found.row.target)
    if found.plugin is None:
        return define(family, variant)
    with found.plugin.running(f"{found.row.target}({family!r}, {variant!r})"):
        made: Any = define(family, variant)
    return _checked(found.plugin, made)


def _checked(plugin: Plugin, definition: Any) -> Definition:
    """The definition that a plug-in gave, whose `make` names it. Raises PluginError naming what it lacks."""
    if not isinstance(definition, Definition):
        raise plugin.wrong(f"its function gave a {type(definition).__name__}, expected a Definition(info=, make=)")
    if not isinstance(definition.info, BackboneInfo):
        raise plugin.wrong(f"Definition.info is a {type(definition.info).__name__}, expected a BackboneInfo")
    if not callable(definition.make):
        raise plugin.wrong(
            f"Definition.make is a {type(definition.make).__name__}, expected a function of BuildOptions"
        )

    def make(options: BuildOptions) -> Backbone:
        with plugin.running("Definition.make"):
            backbone = definition.make(options)
        if absent := [name for name in _FIELDS if not hasattr(backbone, name)]:
            raise plugin.wrong(
                f"what Definition.make gave, a {type(backbone).__name__}, lacks {', '.join(absent)} (see Backbone)"
            )
        return backbone

    return Definition(info=definition.info, make=make)


_FIELDS = ("info", "name", "taps", "default_taps", "preprocess", "step_frames", "default_batch", "weights", "module",
           "device", "forward")  # fmt: skip
