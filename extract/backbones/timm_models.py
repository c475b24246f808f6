"""Any image model of timm, with the preprocessing that timm states for its weights.

PyTorch Image Models, Wightman 2019, https://github.com/huggingface/pytorch-image-models. `timm:NAME` takes a
model's name, or one of its weights by tag (`convnext_tiny.fb_in22k`); without a tag timm's default weights.

Taps: `pool` (D,), what the classifier would read (`forward_head(..., pre_logits=True)`), and what the network gave
before pooling (`forward_features`): `map` (C, H, W), or `tokens` (N, C) with the prefix tokens first.
Shapes are found by running the model on torch's meta device, so that describing one imports timm.
"""

from __future__ import annotations

import difflib
import functools
import math
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneError,
    BackboneInfo,
    BuildOptions,
    Definition,
    taps_by_name,
    vector_tap,
)
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.extract.weights.files import WeightsSource, hugging_face_source
from reelbank.store.spec import TapSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

_NUM_NEAR = 5
_UNKNOWN_LICENCE = "not stated by timm"


@functools.lru_cache(maxsize=64)
def define(family: str, variant: str) -> Definition:
    """The timm model called `variant`.

    Raises:
        BackboneError: no such model (with the nearest names), or one that reads other things than square RGB
            images of one size.
    """
    config = _pretrained_config(variant)
    info = BackboneInfo(
        name=f"{family}:{variant}",
        taps=_find_taps(variant, config),
        default_taps=("pool",),
        preprocess=_preprocess(variant, config),
        sources=_sources(variant, config),
    )
    return Definition(info=info, make=functools.partial(_make, info, variant))


def _timm() -> Any:
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    import timm

    return timm


def _pretrained_config(name: str) -> Any:
    """What timm states about the weights called `name`: input size, resize, normalisation, licence, address."""
    timm = _timm()
    architecture, _, tag = name.partition(".")
    known = timm.is_model(architecture)
    config = timm.get_pretrained_cfg(name, allow_unregistered=False) if known and not tag else None
    if known and tag and name in timm.list_pretrained(f"{architecture}.*"):
        config = timm.get_pretrained_cfg(name)
    if config is None:
        names = timm.list_pretrained(f"{architecture}.*") if known else timm.list_models()
        near = difflib.get_close_matches(name, names, n=_NUM_NEAR, cutoff=0.4)
        nearest = f"; the nearest names are {', '.join(sorted(near))}" if near else ""
        raise BackboneError(f"timm {timm.__version__} has no model {name!r}{nearest}; timm.list_models() has them all")
    return config


def _preprocess(name: str, config: Any) -> Preprocess:
    """timm's evaluation transform of these weights."""
    channels, height_px, width_px = config.input_size
    if channels != 3 or height_px != width_px:
        raise BackboneError(
            f"backbone 'timm:{name}' reads {config.input_size = }; only square RGB images are prepared here"
        )
    if config.interpolation not in ("bicubic", "bilinear") or config.crop_mode not in ("center", "squash"):
        raise BackboneError(
            f"backbone 'timm:{name}' is prepared by {config.interpolation = } and {config.crop_mode = }; "
            "known here are bicubic, bilinear and center, squash"
        )
    resized_px = math.floor(height_px / config.crop_pct)
    if config.crop_mode == "squash":
        return Preprocess(squash_px=resized_px, interpolation=config.interpolation, crop_px=height_px)
    return Preprocess(short_side_px=resized_px, interpolation=config.interpolation, crop_px=height_px)


def _sources(name: str, config: Any) -> tuple[WeightsSource, ...]:
    """Where timm would look: its Hugging Face repository, then the authors' address."""
    licence = config.license or _UNKNOWN_LICENCE
    full_name = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    found = []
    if config.hf_hub_id:
        in_repository = config.hf_hub_filename or "model.safetensors"
        file_name = f"{full_name}{PurePosixPath(in_repository).suffix}"
        found.append(hugging_face_source(config.hf_hub_id, file_name, licence, in_repository))
    if config.url and config.url.startswith("https://"):
        suffix = PurePosixPath(config.url).suffix or ".pth"
        found.append(WeightsSource(file_name=f"{full_name}{suffix}", url=config.url, licence=licence))
    if not found:
        # timm states no weights of this model: where they would be, so that the error names what to put where.
        found.append(hugging_face_source(f"timm/{full_name}", f"{full_name}.safetensors", licence))
    return tuple(found)


def _find_taps(name: str, config: Any) -> dict[str, TapSpec]:
    import torch

    try:
        with torch.device("meta"):
            shapes = _shapes(_create(name), torch.empty(1, *config.input_size))
    except (NotImplementedError, RuntimeError):
        # Some models compute with numbers while they are made, which the meta device does not have.
        shapes = _shapes(_create(name), torch.zeros(1, *config.input_size))
    found = [vector_tap("pool", *shapes["pool"])]
    if "map" in shapes:
        axes = ("channel", "height", "width")
        found.append(TapSpec(name="map", dtype="float16", axes=axes, shape=shapes["map"], codec="zstd-1"))
    if "tokens" in shapes:
        found.append(TapSpec(name="tokens", dtype="float16", axes=("patch", "channel"), shape=shapes["tokens"]))
    return taps_by_name(*found)


def _shapes(module: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of every tap for one image."""
    import torch

    with torch.inference_mode():
        values = _run(module.eval(), x, frozenset({"pool"}))
    return {tap: tuple(value.shape[1:]) for tap, value in values.items()}


def _make(info: BackboneInfo, name: str, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import Architecture, build_network

    config = _pretrained_config(name)
    architecture = Architecture(
        text=f"timm {name}",
        create=functools.partial(_create, name),
        convert=functools.partial(_convert, name, config.classifier),
        run=_run,
        mean=config.mean,
        std=config.std,
        channels_last="map" in info.taps,
    )
    return build_network(info, architecture, options)


def _create(name: str) -> nn.Module:
    module: nn.Module = _timm().create_model(name, pretrained=False, num_classes=0)
    return module


def _convert(name: str, classifier: str | tuple[str, ...] | None, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names, without the classifier."""
    import torch

    classifiers = (classifier,) if isinstance(classifier, str) else classifier or ()
    state = {key: value for key, value in state.items() if not key.startswith(tuple(f"{c}." for c in classifiers))}
    with torch.device("meta"):
        module = _create(name)
    if state.keys() == module.state_dict().keys():
        return state
    # Authors' files have names of their own; each of timm's modules knows those of its models.
    rename = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    try:
        return dict(rename(state, module)) if rename is not None else state
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        # Of another network: the tensors are then refused by name.
        return state


def _run(module: Any, x: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    features = module.forward_features(x)
    values = {}
    if "pool" in taps:
        values["pool"] = _pool(module, features)
    if isinstance(features, tuple | list):
        return values  # models of several resolutions have no single map
    if features.ndim == 4:
        values["map"] = features.movedim(-1, 1) if _channels_last(module) else features  # (B, C, H, W)
    elif features.ndim == 3:
        values["tokens"] = features  # (B, N, C)
    return values


def rest(module: Any, value: Tensor) -> Tensor:
    """Tap `pool` (B, D) from tap `map` (B, C, H, W) or `tokens` (B, N, C)."""
    return _pool(module, value.movedim(1, -1) if value.ndim == 4 and _channels_last(module) else value)


def _pool(module: Any, features: Tensor) -> Tensor:
    pooled: Tensor = module.forward_head(features, pre_logits=True)
    return pooled.flatten(1)


def _channels_last(module: Any) -> bool:
    return getattr(module, "output_fmt", "NCHW") == "NHWC"
