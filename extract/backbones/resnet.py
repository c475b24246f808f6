"""ResNet-18, -34 and -50 of torchvision, trained on ImageNet.

Deep Residual Learning for Image Recognition, He et al. 2015, arXiv:1512.03385.
Taps: `pool` (D,), the outputs of `layer1` to `layer4` after their last ReLU, `logits` (1000,).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
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
from reelbank.extract.preprocess import Preprocess
from reelbank.extract.weights import WeightsSource

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class _Size:
    expansion: int
    file_name: str


_SIZES = {
    "resnet18": _Size(expansion=1, file_name="resnet18-f37072fd.pth"),
    "resnet34": _Size(expansion=1, file_name="resnet34-b627a593.pth"),
    # The first release of the weights: the second was trained for another resize (232).
    "resnet50": _Size(expansion=4, file_name="resnet50-0676ba61.pth"),
}


# With random branches as strong as the identity, rounding errors grow from block to block (in bf16 layer4 of
# ResNet-50 kept a cosine of 0.9 only). Trained branches are weaker; files overwrite this value.
_RANDOM_BRANCH_SCALE = 0.25


def define(family: str, variant: str) -> Definition:
    """The ResNet called `family`."""
    size = _SIZES[family]
    taps = [
        map_tap(f"layer{i}", channels * size.expansion, map_px)
        for i, channels, map_px in ((1, 64, 56), (2, 128, 28), (3, 256, 14), (4, 512, 7))
    ]
    info = BackboneInfo(
        name=family,
        taps=taps_by_name(vector_tap("pool", 512 * size.expansion), *taps, vector_tap("logits", 1000)),
        default_taps=("pool",),
        preprocess=Preprocess(short_side_px=256, interpolation="bilinear", crop_px=224),
        sources=(torchvision_source(size.file_name),),
    )
    return Definition(info=info, make=functools.partial(_make, info))


def torchvision_source(file_name: str) -> WeightsSource:
    """A checkpoint of torchvision, whose file names carry the first digits of their sha256."""
    return WeightsSource(
        file_name=file_name,
        url=f"https://download.pytorch.org/models/{file_name}",
        licence="BSD-3-Clause",
        sha256_prefix=file_name.removesuffix(".pth").rsplit("-", 1)[-1],
    )


def _make(info: BackboneInfo, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import Architecture, build_network

    architecture = Architecture(
        text=f"torchvision {info.name}, residual branches {_RANDOM_BRANCH_SCALE}",
        create=functools.partial(_create, info.name),
        convert=lambda state: state,
        run=_run,
        channels_last=True,
    )
    return build_network(info, architecture, options)


def _create(name: str) -> nn.Module:
    from reelbank.extract import torchvision_shim

    torchvision_shim.ensure()
    import torchvision
    from torch import nn

    module: nn.Module = getattr(torchvision.models, name)(weights=None)
    for block in module.modules():
        if isinstance(block, (torchvision.models.resnet.BasicBlock, torchvision.models.resnet.Bottleneck)):
            last_norm = block.bn3 if isinstance(block, torchvision.models.resnet.Bottleneck) else block.bn2
            nn.init.constant_(last_norm.weight, _RANDOM_BRANCH_SCALE)
    return module


def _run(module: Any, x: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    values = {}
    x = module.maxpool(module.relu(module.bn1(module.conv1(x))))  # (B, 64, 56, 56)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = getattr(module, name)(x)  # (B, C, H, W), halved by each layer after the first
        values[name] = x
        if taps <= values.keys():
            return values
    values["pool"] = module.avgpool(x).flatten(1)  # (B, D)
    if "logits" in taps:
        values["logits"] = module.fc(values["pool"])  # (B, 1000)
    return values
