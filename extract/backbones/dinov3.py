"""DINOv3 vision transformers: ViT-S/16, S+/16, B/16, L/16, H+/16 and 7B/16, trained on LVD-1689M.

DINOv3, Simeoni et al. 2025, arXiv:2508.10104. Rotary positions, four register tokens. The periods of the positions
are computed in float32, as timm does; the authors' files hold them rounded to bfloat16.

Taps as DINOv2's, each through the final norm, D = 384 (S, S+), 768, 1024, 1280 or 4096:
`cls4` (4 D,), `cls` (D,), `patch` (196, D), `mean-patch` (D,).

Frames are squashed to 224 x 224, bilinear: the image processor published with these weights does so.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reelbank.extract.backbones.description import Backbone, BackboneError, BackboneInfo, BuildOptions, Definition
from reelbank.extract.backbones.dinov2 import run_tokens, token_taps
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.extract.weights.files import hugging_face_source

if TYPE_CHECKING:
    from torch import Tensor, nn

_SIZE_PX, _PATCH_PX = 224, 16
_LICENCE = "DINOv3 License"
_OLDEST_TIMM = "1.0.20"

# Tensors of the published files that are constants or serve training only.
_UNUSED = ("mask_token", "rope_embed.periods", "local_cls_norm.weight", "local_cls_norm.bias")
_RENAMES = (
    ("storage_tokens", "reg_token"),
    (".ls1.gamma", ".gamma_1"),
    (".ls2.gamma", ".gamma_2"),
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
    (".mlp.w3.", ".mlp.fc2."),
)


@dataclass(frozen=True, kw_only=True)
class _Model:
    timm_name: str
    width: int


# The names with `qkvb` keep the published biases of queries and values. The 7B model has none.
_MODELS = {
    "": _Model(timm_name="vit_small_patch16_dinov3_qkvb", width=384),
    "vits16-plus": _Model(timm_name="vit_small_plus_patch16_dinov3_qkvb", width=384),
    "vitb16": _Model(timm_name="vit_base_patch16_dinov3_qkvb", width=768),
    "vitl16": _Model(timm_name="vit_large_patch16_dinov3_qkvb", width=1024),
    "vith16-plus": _Model(timm_name="vit_huge_plus_patch16_dinov3_qkvb", width=1280),
    "vit7b16": _Model(timm_name="vit_7b_patch16_dinov3", width=4096),
}


def define(family: str, variant: str) -> Definition:
    """DINOv3 of the size that `variant` names."""
    model = _MODELS[variant]
    name = f"{model.timm_name}.lvd1689m"
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps=token_taps(model.width, (_SIZE_PX // _PATCH_PX) ** 2),
        default_taps=("cls4",),
        preprocess=Preprocess(squash_px=_SIZE_PX, interpolation="bilinear"),
        # The files of the authors are behind a form; timm's copies are open.
        sources=(hugging_face_source(f"timm/{name}", f"{name}.safetensors", _LICENCE),),
    )
    return Definition(info=info, make=functools.partial(_make, info, model))


def _make(info: BackboneInfo, model: _Model, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import Architecture, build_network

    architecture = Architecture(
        text=f"timm {model.timm_name}, {_SIZE_PX} px",
        create=functools.partial(_create, info.name, model.timm_name),
        convert=_convert,
        run=run_tokens,
    )
    return build_network(info, architecture, options)


def _create(name: str, timm_name: str) -> nn.Module:
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    import timm

    if not timm.is_model(timm_name):
        raise BackboneError(
            f"backbone {name!r} needs timm's {timm_name}, which timm {timm.__version__} lacks; "
            f"install timm {_OLDEST_TIMM} or later"
        )
    module: nn.Module = timm.create_model(timm_name, pretrained=False, img_size=_SIZE_PX, num_classes=0)
    return module


def _convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names, from timm's layout or the authors'."""
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in _UNUSED or key.endswith(".attn.qkv.bias_mask"):
            continue
        if key.endswith(".attn.qkv.bias"):
            # Keys have no bias: the published third is masked.
            queries, _, values = value.chunk(3)
            prefix = key.removesuffix("qkv.bias")
            converted |= {f"{prefix}q_bias": queries, f"{prefix}v_bias": values}
        else:
            converted[functools.reduce(lambda name, rename: name.replace(*rename), _RENAMES, key)] = value
    return converted
