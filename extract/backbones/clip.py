"""OpenAI CLIP, image towers: ViT-B/32, ViT-B/16, ViT-L/14 at 224 px, and the modified ResNet-50.
`vitb32-256` is ViT-B/32 on the centre 224 px of a short side of 256, its constants cut to three digits: what a
published calorie study states, whose tool resizes to 224.

Learning Transferable Visual Models From Natural Language Supervision, Radford et al. 2021, arXiv:2103.00020.
Tap `embed` (512, 512, 768, 1024): what the published `encode_image` returns, projected, without L2
normalisation. The published transformers use QuickGELU, x * sigmoid(1.702 x); other GELUs give other features.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneInfo,
    BuildOptions,
    Definition,
    taps_by_name,
    vector_tap,
)
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.extract.weights.files import WeightsSource, hugging_face_source

if TYPE_CHECKING:
    from torch import Tensor, nn

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_CUT_MEAN, _CUT_STD = (0.481, 0.457, 0.408), (0.268, 0.261, 0.275)


@dataclass(frozen=True, kw_only=True)
class _Model:
    """One image tower.

    Attributes:
        timm_name: of its architecture.
        hub_name: of timm's copy of the weights.
        file_name: of the published TorchScript archive.
        sha256: of that archive; OpenAI states it as a part of the address.
        width: of the last layer before the projection.
        embed_size: of the projection.
        hub_licence: that timm states for its copy.
        short_side_px: to which a frame is resized before the crop; 224 is what the published preprocessing does.
        mean, std: constants of the normalisation.
    """

    timm_name: str
    hub_name: str
    file_name: str
    sha256: str
    width: int
    embed_size: int
    hub_licence: str = "Apache-2.0"
    short_side_px: int = 224
    mean: tuple[float, float, float] = _MEAN
    std: tuple[float, float, float] = _STD

    @property
    def is_resnet(self) -> bool:
        return self.timm_name.startswith("resnet")


_MODELS = {
    "": _Model(
        timm_name="vit_base_patch32_clip_quickgelu_224",
        hub_name="vit_base_patch32_clip_224.openai",
        file_name="ViT-B-32.pt",
        sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        width=768,
        embed_size=512,
    ),
    "vitb16": _Model(
        timm_name="vit_base_patch16_clip_quickgelu_224",
        hub_name="vit_base_patch16_clip_224.openai",
        file_name="ViT-B-16.pt",
        sha256="5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        width=768,
        embed_size=512,
    ),
    "vitl14": _Model(
        timm_name="vit_large_patch14_clip_quickgelu_224",
        hub_name="vit_large_patch14_clip_224.openai",
        file_name="ViT-L-14.pt",
        sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        width=1024,
        embed_size=768,
    ),
    "rn50": _Model(
        timm_name="resnet50_clip",
        hub_name="resnet50_clip.openai",
        file_name="RN50.pt",
        sha256="afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        width=2048,
        embed_size=1024,
        hub_licence="MIT",
    ),
}

_MODELS["vitb32-256"] = replace(_MODELS[""], short_side_px=256, mean=_CUT_MEAN, std=_CUT_STD)

# From the names of the published transformers to timm's, applied in this order.
_TRANSFORMER_RENAMES = (
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

# The same for the ResNet, as regular expressions; timm counts stages from 0.
_RESNET_RENAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^conv(\d)\.", r"stem.conv\1.conv."),
    (r"^bn(\d)\.", r"stem.conv\1.bn."),
    (r"^layer(\d)\.", lambda match: f"stages.{int(match[1]) - 1}."),
    (r"\.downsample\.0\.", ".shortcut.conv.conv."),
    (r"\.downsample\.1\.", ".shortcut.conv.bn."),
    (r"\.conv([13])\.weight$", r".conv\1_1x1.conv.weight"),
    (r"\.conv2\.weight$", ".conv2_kxk.conv.weight"),
    (r"(\.\d+)\.bn([13])\.", r"\1.conv\2_1x1.bn."),
    (r"(\.\d+)\.bn2\.", r"\1.conv2_kxk.bn."),
    (r"^attnpool\.positional_embedding$", "head.pos_embed"),
    (r"^attnpool\.([qkv])_proj\.", r"head.\1."),
    (r"^attnpool\.c_proj\.", "head.proj."),
)


def define(family: str, variant: str) -> Definition:
    """CLIP's image tower that `variant` names."""
    model = _MODELS[variant]
    published = WeightsSource(
        file_name=model.file_name,
        url=f"https://openaipublic.azureedge.net/clip/models/{model.sha256}/{model.file_name}",
        licence="MIT",
        sha256=model.sha256,
    )
    converted = hugging_face_source(f"timm/{model.hub_name}", f"{model.hub_name}.safetensors", model.hub_licence)
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps=taps_by_name(vector_tap("embed", model.embed_size)),
        default_taps=("embed",),
        preprocess=Preprocess(short_side_px=model.short_side_px, interpolation="bicubic", crop_px=224),
        sources=(published, converted),
    )
    return Definition(info=info, make=functools.partial(_make, info, model))


def _make(info: BackboneInfo, model: _Model, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import Architecture, build_network

    architecture = Architecture(
        text=f"timm {model.timm_name}, projection {model.embed_size}",
        create=functools.partial(_create_resnet if model.is_resnet else _create_transformer, model),
        convert=_convert_resnet if model.is_resnet else _convert_transformer,
        run=_run,
        mean=model.mean,
        std=model.std,
        channels_last=model.is_resnet,
    )
    return build_network(info, architecture, options)


def _create_transformer(model: _Model) -> nn.Module:
    from torch import nn

    module = _timm_model(model.timm_name, num_classes=0)
    # The published projection has no bias; the scale is that of the published initialisation.
    head = nn.Linear(model.width, model.embed_size, bias=False)
    nn.init.normal_(head.weight, std=model.width**-0.5)
    module.head = head
    return module


def _create_resnet(model: _Model) -> nn.Module:
    return _timm_model(model.timm_name, num_classes=model.embed_size)


def _timm_model(name: str, num_classes: int) -> nn.Module:
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    import timm

    module: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return module


def _image_tower(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the text tower and the prefix of a published file (`visual.*`); a tower alone as it is."""
    tower = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    return tower or state


def _convert_transformer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower under timm's names, from a published file, from the tower alone, or timm's."""
    state = _image_tower(state)
    if "class_embedding" not in state:
        bias = state.get("head.bias")
        # timm's file holds a bias of zeros that the published model does not have.
        return {k: v for k, v in state.items() if k != "head.bias" or bias is None or bool(bias.any())}
    renamed = {
        functools.reduce(lambda name, rename: name.replace(*rename), _TRANSFORMER_RENAMES, key): value
        for key, value in state.items()
    }
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in renamed:
        renamed["pos_embed"] = renamed["pos_embed"].unsqueeze(0)
    if "proj" in renamed:
        renamed["head.weight"] = renamed.pop("proj").T
    return renamed


def _convert_resnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same for the ResNet."""
    state = _image_tower(state)
    if "attnpool.positional_embedding" not in state:
        return state
    return {_renamed_resnet(key): value for key, value in state.items()}


def _renamed_resnet(key: str) -> str:
    for pattern, replacement in _RESNET_RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _run(module: Any, x: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    return {"embed": module(x)}  # (B, D)
