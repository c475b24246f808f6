"""GoogLeNet of torchvision, trained on ImageNet.

Going Deeper with Convolutions, Szegedy et al. 2014, arXiv:1409.4842; torchvision's form has batch norm.
Taps: `pool` (1024,), and `inception5b` (1024, 7, 7), the map that is pooled. The published weights expect
inputs scaled to [-1, 1], so torchvision switches `transform_input` on with them; it stays on here. There is no
classifier: a head that trains the network (`frame-net`) has its own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneInfo,
    BuildOptions,
    Definition,
    map_tap,
    taps_by_name,
    vector_tap,
)
from reelbank.extract.backbones.resnet import torchvision_source
from reelbank.extract.inputs.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

_LAYERS = (
    *("conv1", "maxpool1", "conv2", "conv3", "maxpool2"),  # to (192, 28, 28)
    *("inception3a", "inception3b", "maxpool3"),  # to (480, 14, 14)
    *("inception4a", "inception4b", "inception4c", "inception4d", "inception4e", "maxpool4"),  # to (832, 7, 7)
    *("inception5a", "inception5b"),  # to (1024, 7, 7)
)

# Random ReLU layers that cut half of their input let rounding errors grow from layer to layer (in bf16
# inception5b kept a cosine of 0.987 only). Files overwrite this value.
_RANDOM_NORM_BIAS = 0.25
_UNUSED = ("aux1.", "aux2.", "fc.")


def define(family: str, variant: str) -> Definition:
    """GoogLeNet without its auxiliary heads."""
    info = BackboneInfo(
        name=family,
        taps=taps_by_name(vector_tap("pool", 1024), map_tap("inception5b", 1024, 7)),
        default_taps=("pool",),
        preprocess=Preprocess(short_side_px=256, interpolation="bilinear", crop_px=224),
        sources=(torchvision_source("googlenet-1378be20.pth"),),
    )
    return Definition(info=info, make=functools.partial(_make, info))


def _make(info: BackboneInfo, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import Architecture, build_network

    architecture = Architecture(
        text=f"torchvision googlenet, transform_input, norm biases {_RANDOM_NORM_BIAS}",
        create=create,
        convert=_convert,
        run=_run,
        channels_last=True,
    )
    return build_network(info, architecture, options)


def create() -> nn.Module:
    """The network as torchvision initialises one, without its classifiers."""
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    import torchvision
    from torch import nn

    # init_weights is said explicitly, because torchvision warns that its default will change.
    module: nn.Module = torchvision.models.GoogLeNet(aux_logits=False, transform_input=True, init_weights=True)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, _RANDOM_NORM_BIAS)
    module.fc = nn.Identity()
    return module


def _convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the classifier and the auxiliary heads of the published checkpoint."""
    return {key: value for key, value in state.items() if not key.startswith(_UNUSED)}


def _run(module: Any, x: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    maps = last_maps(module, x)
    return {"inception5b": maps, "pool": rest(module, maps)}  # (B, 1024, 7, 7), (B, 1024)


def last_maps(module: Any, pixels: Tensor) -> Tensor:
    """Tap `inception5b` (B, 1024, 7, 7) of normalised pictures (B, 3, 224, 224)."""
    maps: Tensor = module._transform_input(pixels)
    for name in _LAYERS:
        maps = getattr(module, name)(maps)
    return maps


def rest(module: Any, inception5b: Tensor) -> Tensor:
    """Tap `pool` (B, 1024) from tap `inception5b` (B, 1024, 7, 7)."""
    pooled: Tensor = module.avgpool(inception5b).flatten(1)
    return pooled
