"""ResNet-18, -34 and -50 of torchvision, trained on ImageNet.

Deep Residual Learning for Image Recognition, He et al. 2015, arXiv:1512.03385.
Taps: `pool` (D,), `stem` (64, 56, 56) after the max-pool, the outputs of `layer1` to `layer4` after their last
ReLU, `logits` (1000,); of ResNet-34 also the attended maps of Ego-RNN, see `reelbank.extract.backbones.ego_rnn`
(O-RNN, which has no attention, reads `layer4`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from reelbank.extract.backbones import ego_rnn
from reelbank.extract.backbones.description import (
    Backbone,
    BackboneError,
    BackboneInfo,
    BuildOptions,
    Definition,
    map_tap,
    taps_after,
    taps_by_name,
    vector_tap,
)
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.extract.weights.files import WeightsSource

if TYPE_CHECKING:
    from torch import Tensor, nn

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "pool", "logits")
"""Taps in the order in which they are computed, each from the one before it."""


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
RANDOM_BRANCH_SCALE = 0.25


def define(family: str, variant: str) -> Definition:
    """The ResNet called `family`."""
    size = _SIZES[family]
    maps = [
        map_tap(f"layer{i}", channels * size.expansion, map_px)
        for i, channels, map_px in ((1, 64, 56), (2, 128, 28), (3, 256, 14), (4, 512, 7))
    ]
    maps.insert(0, map_tap("stem", 64, 56))
    attended = ego_rnn.taps() if family == "resnet34" else ()
    info = BackboneInfo(
        name=family,
        taps=taps_by_name(vector_tap("pool", 512 * size.expansion), *maps, vector_tap("logits", 1000), *attended),
        default_taps=("pool",),
        preprocess=Preprocess(short_side_px=256, interpolation="bilinear", crop_px=224),
        sources=(torchvision_source(size.file_name),),
    )
    return Definition(info=info, make=functools.partial(_make, info))


def file_name(name: str) -> str:
    """torchvision's file of the weights of one of these networks."""
    return _SIZES[name].file_name


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
        text=f"torchvision {info.name}, residual branches {RANDOM_BRANCH_SCALE}",
        create=functools.partial(create, info.name),
        convert=lambda state: state,
        run=run,
        channels_last=True,
    )
    return build_network(info, architecture, options)


def create(name: str) -> nn.Module:
    """torchvision's network with its initialisation, and weak residual branches."""
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    import torchvision
    from torch import nn

    module: nn.Module = getattr(torchvision.models, name)(weights=None)
    for block in module.modules():
        if isinstance(block, (torchvision.models.resnet.BasicBlock, torchvision.models.resnet.Bottleneck)):
            last_norm = block.bn3 if isinstance(block, torchvision.models.resnet.Bottleneck) else block.bn2
            nn.init.constant_(last_norm.weight, RANDOM_BRANCH_SCALE)
    return module


def run(module: Any, x: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    """At least the wanted taps of normalised images (B, C, H, W)."""
    stem = module.maxpool(module.relu(module.bn1(module.conv1(x))))
    return rest(module, "stem", stem, taps)


def rest(module: Any, tap: str, value: Tensor, wanted: Iterable[str]) -> dict[str, Tensor]:
    """What the network computes from one of its taps: the same as from the frames, if the tap is exact.

    Args:
        module: of this backbone, on the device of `value`.
        tap: one of STAGES.
        value: of that tap (B, *shape), in the dtype in which to compute.
        wanted: taps to compute, not before `tap`; Ego-RNN's need `layer3` or before.

    Returns:
        At least the wanted taps.

    Raises:
        BackboneError: a wanted tap cannot be computed from `tap`.
    """
    wanted = frozenset(wanted)
    attended = wanted & ego_rnn.TAPS
    if attended and STAGES.index(tap) > STAGES.index("layer3"):
        raise BackboneError(f"tap {min(attended)!r} cannot be computed from {tap!r}; give layer3 or a tap before it")
    own = wanted - attended | ({"layer3"} if attended else set())
    values = taps_after(STAGES, functools.partial(_step, module), tap, value, own)
    if attended:
        values |= ego_rnn.attend(module, values["layer3"])
    return values


def _step(module: Any, name: str, x: Tensor) -> Tensor:
    """The tap `name` from the one before it."""
    if name == "pool":
        return cast("Tensor", module.avgpool(x).flatten(1))  # (B, D)
    return cast("Tensor", module.fc(x) if name == "logits" else getattr(module, name)(x))
