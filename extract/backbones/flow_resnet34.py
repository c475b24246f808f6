"""ResNet-34 on stacks of optical flow, the flow net of first-person action recognition.

Temporal Segment Networks, Wang et al. 2016, arXiv:1608.00859 (cross-modality initialisation of the stem); Two-Stream
Convolutional Networks, Simonyan and Zisserman 2014, arXiv:1406.2199 (stacks of flow). One step reads 5 consecutive
pairs of flow images of 224x224 px as 10 channels, x1, y1, ..., x5, y5.

Taps: `pool` (512,), and the outputs of `layer3` (256, 14, 14) and `layer4` (512, 7, 7) after their last ReLU. There is
no classifier.

A single channel is normalised by the mean of ImageNet's means, 0.449, and the mean of its standard deviations, 0.226.
`--weights pretrained` is torchvision's ResNet-34: its stem is replaced by the mean over its 3 inputs, 10 times. Such
weights have seen no flow: they are where a training starts. A weights file may have either stem.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from reelbank.extract.backbones import resnet
from reelbank.extract.backbones.description import (
    Backbone,
    BackboneInfo,
    BuildOptions,
    Definition,
    map_tap,
    taps_by_name,
    vector_tap,
)
from reelbank.extract.inputs.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

NUM_PAIRS = 5
NUM_CHANNELS = 2 * NUM_PAIRS
_CROP_PX = 224
_STEM, _CLASSIFIER = "conv1.weight", "fc."


def define(family: str, variant: str) -> Definition:
    """The network under its only name."""
    info = BackboneInfo(
        name=family,
        taps=taps_by_name(vector_tap("pool", 512), map_tap("layer3", 256, 14), map_tap("layer4", 512, 7)),
        default_taps=("pool",),
        preprocess=Preprocess(short_side_px=256, interpolation="bilinear", crop_px=_CROP_PX, color="gray"),
        step_frames=tuple(range(NUM_PAIRS)),
        source="flow",
        payload_shape=(2, _CROP_PX, _CROP_PX),
        sources=(resnet.torchvision_source(resnet.file_name("resnet34")),),
    )
    return Definition(info=info, make=functools.partial(_make, info))


def _make(info: BackboneInfo, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import IMAGENET_MEAN, IMAGENET_STD, Architecture, build_network

    architecture = Architecture(
        text=f"torchvision resnet34, {NUM_CHANNELS} channels, residual branches {resnet.RANDOM_BRANCH_SCALE}, 2 clips",
        create=create,
        convert=convert,
        run=resnet.run,
        mean=(sum(IMAGENET_MEAN) / 3,),
        std=(sum(IMAGENET_STD) / 3,),
        channels=_stacked,
        channels_last=True,
    )
    return build_network(info, architecture, options)


def create() -> nn.Module:
    """The network as torchvision initialises one, without a classifier."""
    from torch import nn

    module = resnet.create("resnet34")
    module.conv1 = nn.Conv2d(NUM_CHANNELS, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")
    module.fc = nn.Identity()
    return module


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the classifier, and with a stem of 10 channels: each the mean over the 3 of a stem of images."""
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(_CLASSIFIER)}
    stem = kept.get(_STEM)
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 3:
        kept[_STEM] = stem.mean(dim=1, keepdim=True).repeat(1, NUM_CHANNELS, 1, 1)
    return kept


def _stacked(pairs: Tensor) -> Tensor:
    """Pairs (B, 5, 2, H, W) as channels (B, 10, H, W)."""
    return pairs.flatten(1, 2)
