"""torchvision's video networks, trained on Kinetics-400: one step reads 16 frames in a row.

A Closer Look at Spatiotemporal Convolutions for Action Recognition, Tran et al. 2017, arXiv:1711.11248 (`r3d_18`,
`mc3_18`, `r2plus1d_18`); Rethinking Spatiotemporal Feature Learning, Xie et al. 2017, arXiv:1712.04851 (`s3d`);
MViTv2, Li et al. 2021, arXiv:2112.01526 (`mvit_v2_s`); Video Swin Transformer, Liu et al. 2021,
arXiv:2106.13230 (`swin3d_t`).

Taps: `pool` (D,), the input of the classifier, D = 512, 1024 (s3d) or 768 (transformers); `logits` (400,).
Resize, crop and normalisation are those published with the weights, resized without antialias as there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneInfo,
    BuildOptions,
    Definition,
    taps_by_name,
    vector_tap,
)
from reelbank.extract.backbones.resnet import torchvision_source
from reelbank.extract.inputs.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

NUM_FRAMES = 16
_KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
_HALF = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# As in the ResNets of single frames: random branches as strong as the identity let rounding errors grow.
_RANDOM_BRANCH_SCALE = 0.25

_SMALL = Preprocess(squash_px=(128, 171), interpolation="bilinear-aliased", crop_px=112)
_SQUARE = Preprocess(squash_px=256, interpolation="bilinear-aliased", crop_px=224)
_SHORT_SIDE = Preprocess(short_side_px=256, interpolation="bilinear-aliased", crop_px=224)


@dataclass(frozen=True, kw_only=True)
class _Model:
    """One network.

    Attributes:
        file_name: of the published weights.
        width: D of the tap `pool`.
        head: the module whose input is `pool` and whose output are the logits.
        preprocess: of one frame, as published with the weights.
        constants: mean and std per RGB channel.
    """

    file_name: str
    width: int
    head: str
    preprocess: Preprocess
    constants: tuple[tuple[float, float, float], tuple[float, float, float]]


def _resnet(file_name: str) -> _Model:
    return _Model(file_name=file_name, width=512, head="fc", preprocess=_SMALL, constants=_KINETICS)


_MODELS = {
    "mc3_18": _resnet("mc3_18-a90a0ba3.pth"),
    "mvit_v2_s": _Model(
        file_name="mvit_v2_s-ae3be167.pth", width=768, head="head", preprocess=_SHORT_SIDE, constants=_HALF
    ),
    "r2plus1d_18": _resnet("r2plus1d_18-91a641e6.pth"),
    "r3d_18": _resnet("r3d_18-b3b3357e.pth"),
    "s3d": _Model(file_name="s3d-d76dad2f.pth", width=1024, head="classifier", preprocess=_SQUARE, constants=_KINETICS),
    "swin3d_t": _Model(
        file_name="swin3d_t-7615ae03.pth", width=768, head="head", preprocess=_SHORT_SIDE, constants=_IMAGENET
    ),
}


def define(family: str, variant: str) -> Definition:
    """The video network called `variant`."""
    model = _MODELS[variant]
    info = BackboneInfo(
        name=f"{family}:{variant}",
        taps=taps_by_name(vector_tap("pool", model.width), vector_tap("logits", 400)),
        default_taps=("pool",),
        preprocess=model.preprocess,
        step_frames=tuple(range(NUM_FRAMES)),
        sources=(torchvision_source(model.file_name),),
        # A clip of 16 frames takes as much memory as 16 frames of an image network.
        default_batch=4,
    )
    return Definition(info=info, make=functools.partial(_make, info, variant, model))


def _make(info: BackboneInfo, name: str, model: _Model, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import Architecture, build_network

    mean, std = model.constants
    architecture = Architecture(
        text=f"torchvision {name}, residual branches {_RANDOM_BRANCH_SCALE}, 2 clips",
        create=functools.partial(_create, name),
        convert=lambda state: state,
        run=functools.partial(_run, head=model.head),
        mean=mean,
        std=std,
    )
    return build_network(info, architecture, options)


def _create(name: str) -> nn.Module:
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    from torch import nn
    from torchvision.models import video

    module: nn.Module = getattr(video, name)(weights=None)
    for block in module.modules():
        if isinstance(block, video.resnet.BasicBlock):
            # (convolution, norm) stand in a row of their own.
            nn.init.constant_(block.conv2[1].weight, _RANDOM_BRANCH_SCALE)
    return module


def _run(module: Any, x: Tensor, taps: frozenset[str], *, head: str) -> dict[str, Tensor]:
    pooled: list[Tensor] = []
    hook = getattr(module, head).register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    try:
        logits = module(x)  # (B, 400)
    finally:
        hook.remove()
    return {"pool": pooled[0].flatten(1), "logits": logits}  # (B, D), (B, 400)


def rest(module: Any, pool: Tensor) -> Tensor:
    """Tap `logits` (B, 400) from tap `pool` (B, D)."""
    if (convolution := getattr(module, "classifier", None)) is not None:  # s3d classifies by a 1x1x1 convolution
        return cast("Tensor", convolution(pool[:, :, None, None, None]).flatten(1))
    return cast("Tensor", (module.fc if hasattr(module, "fc") else module.head)(pool))
