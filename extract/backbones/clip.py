"""OpenAI CLIP ViT-B/32, image tower.

Learning Transferable Visual Models From Natural Language Supervision, Radford et al. 2021, arXiv:2103.00020.
Tap `embed` (512,): what the published `encode_image` returns, projected, without L2 normalisation. The
published model uses QuickGELU, x * sigmoid(1.702 x); other GELUs give other features.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneInfo,
    BuildOptions,
    Definition,
    taps_by_name,
    vector_tap,
)
from reelbank.extract.preprocess import Preprocess
from reelbank.extract.weights import WeightsSource, hugging_face_source

if TYPE_CHECKING:
    from torch import Tensor, nn

_TIMM_NAME = "vit_base_patch32_clip_quickgelu_224"
_WIDTH, _EMBED_SIZE = 768, 512
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_SHA256 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"

# From the names of the published model to timm's, applied in this order.
_RENAMES = (
    ("class_embedding", "cls_token"),
    ("positional_embedding", "pos_embed"),
    ("conv1.", "patch_embed.proj."),
    ("transformer.resblocks.", "blocks."),
    ("ln_pre.", "norm_pre."),
    ("ln_post.", "norm."),
    (".ln_1.", ".norm1."),
    (".ln_2.", ".norm2."),
    (".attn.in_proj_", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)


def define(family: str, variant: str) -> Definition:
    """CLIP ViT-B/32."""
    published = WeightsSource(
        file_name="ViT-B-32.pt",
        url=f"https://openaipublic.azureedge.net/clip/models/{_SHA256}/ViT-B-32.pt",
        licence="MIT",
        sha256=_SHA256,
    )
    converted = hugging_face_source(
        "timm/vit_base_patch32_clip_224.openai", "vit_base_patch32_clip_224.openai.safetensors", "Apache-2.0"
    )
    info = BackboneInfo(
        name=family,
        taps=taps_by_name(vector_tap("embed", _EMBED_SIZE)),
        default_taps=("embed",),
        # Short side 224, not 256: what the published preprocessing does.
        preprocess=Preprocess(short_side_px=224, interpolation="bicubic", crop_px=224),
        sources=(published, converted),
    )
    return Definition(info=info, make=functools.partial(_make, info))


def _make(info: BackboneInfo, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import Architecture, build_network

    architecture = Architecture(
        text=f"timm {_TIMM_NAME}, projection {_EMBED_SIZE}",
        create=_create,
        convert=_convert,
        run=_run,
        mean=_MEAN,
        std=_STD,
    )
    return build_network(info, architecture, options)


def _create() -> nn.Module:
    from reelbank.extract import torchvision_shim

    torchvision_shim.ensure()
    import timm
    from torch import nn

    module: nn.Module = timm.create_model(_TIMM_NAME, pretrained=False, num_classes=0)
    # The published projection has no bias; the scale is that of the published initialisation.
    head = nn.Linear(_WIDTH, _EMBED_SIZE, bias=False)
    nn.init.normal_(head.weight, std=_WIDTH**-0.5)
    module.head = head
    return module


def _convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower under timm's names, from a published file (`visual.*`), from the tower alone, or timm's."""
    if any(key.startswith("visual.") for key in state):
        state = {key.removeprefix("visual."): v for key, v in state.items() if key.startswith("visual.")}
    if "class_embedding" not in state:
        bias = state.get("head.bias")
        # timm's file holds a bias of zeros that the published model does not have.
        return {k: v for k, v in state.items() if k != "head.bias" or bias is None or bool(bias.any())}
    renamed = {_renamed(key): value for key, value in state.items()}
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in renamed:
        renamed["pos_embed"] = renamed["pos_embed"].unsqueeze(0)
    if "proj" in renamed:
        renamed["head.weight"] = renamed.pop("proj").T
    return renamed


def _renamed(key: str) -> str:
    return functools.reduce(lambda name, rename: name.replace(*rename), _RENAMES, key)


def _run(module: Any, x: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    return {"embed": module(x)}  # (B, 512)
