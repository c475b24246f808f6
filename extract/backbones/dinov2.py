"""DINOv2: ViT-S/14, B/14, L/14 and g/14, each without and with register tokens.

DINOv2: Learning Robust Visual Features without Supervision, Oquab et al. 2023, arXiv:2304.07193;
Vision Transformers Need Registers, Darcet et al. 2023, arXiv:2309.16588.

Taps, each through the final norm as in the published `get_intermediate_layers`, D = 384, 768, 1024 or 1536:
`cls4` (4 D,): class tokens of the last four blocks in block order, the input of the published linear probe;
`cls` (D,): class token of the last block; `patch` (256, D): patch tokens of the last block, row by row;
`mean-patch` (D,): their mean.
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
    taps_by_name,
    vector_tap,
)
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.extract.weights.files import WeightsSource, hugging_face_source
from reelbank.store.spec import TapSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

_SIZE_PX, _PATCH_PX = 224, 14
_GRID = _SIZE_PX // _PATCH_PX
# The published code asks for (16 + 0.1) / 37 instead of 16 / 37, against rounding of the output size.
_OFFSET = 0.1


@dataclass(frozen=True, kw_only=True)
class _Model:
    """One size.

    Attributes:
        timm_size: as timm names it; the published files name it by its first letter.
        width: D of the taps.
        registers: whether the model has four register tokens.
    """

    timm_size: str
    width: int
    registers: bool

    @property
    def timm_name(self) -> str:
        return f"vit_{self.timm_size}_patch14_{'reg4_' if self.registers else ''}dinov2"

    @property
    def published(self) -> WeightsSource:
        folder = f"dinov2_vit{self.timm_size[0]}14"
        file_name = f"{folder}{'_reg4' if self.registers else ''}_pretrain.pth"
        url = f"https://dl.fbaipublicfiles.com/dinov2/{folder}/{file_name}"
        return WeightsSource(file_name=file_name, url=url, licence="Apache-2.0")


_MODELS = {
    "": _Model(timm_size="small", width=384, registers=False),
    "vits14-reg": _Model(timm_size="small", width=384, registers=True),
    "vitb14": _Model(timm_size="base", width=768, registers=False),
    "vitb14-reg": _Model(timm_size="base", width=768, registers=True),
    "vitl14": _Model(timm_size="large", width=1024, registers=False),
    "vitl14-reg": _Model(timm_size="large", width=1024, registers=True),
    "vitg14": _Model(timm_size="giant", width=1536, registers=False),
    "vitg14-reg": _Model(timm_size="giant", width=1536, registers=True),
}


def define(family: str, variant: str) -> Definition:
    """DINOv2 of the size and kind that `variant` names."""
    model = _MODELS[variant]
    converted = hugging_face_source(
        f"timm/{model.timm_name}.lvd142m", f"{model.timm_name}.lvd142m.safetensors", "Apache-2.0"
    )
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps=token_taps(model.width, _GRID * _GRID),
        default_taps=("cls4",),
        preprocess=Preprocess(short_side_px=256, interpolation="bicubic", crop_px=_SIZE_PX),
        sources=(model.published, converted),
    )
    return Definition(info=info, make=functools.partial(_make, info, model))


def token_taps(width: int, num_patches: int) -> dict[str, TapSpec]:
    """The taps of a vision transformer with a class token; the first is the default."""
    patches = TapSpec(name="patch", dtype="float16", axes=("patch", "channel"), shape=(num_patches, width))
    return taps_by_name(
        vector_tap("cls4", 4 * width), vector_tap("cls", width), patches, vector_tap("mean-patch", width)
    )


def _make(info: BackboneInfo, model: _Model, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.network import Architecture, build_network

    architecture = Architecture(
        text=f"timm {model.timm_name}, {_SIZE_PX} px",
        create=functools.partial(_create, model.timm_name),
        convert=functools.partial(_convert, registers=model.registers),
        run=run_tokens,
    )
    return build_network(info, architecture, options)


def _create(timm_name: str) -> nn.Module:
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    import timm

    module: nn.Module = timm.create_model(timm_name, pretrained=False, img_size=_SIZE_PX, num_classes=0)
    return module


def _convert(state: dict[str, Tensor], *, registers: bool) -> dict[str, Tensor]:
    """The tensors under timm's names, the position embedding resampled to 224 px.

    The published files use the same names but for the registers, where timm adds the class token's position to
    the token itself, and for the gated MLP of ViT-g.
    """
    state = {_renamed(key): value for key, value in state.items() if key != "mask_token"}
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
        positions = state.get("pos_embed")
        if positions is not None and "cls_token" in state:
            state["cls_token"] = state["cls_token"] + positions[:, :1]
            state["pos_embed"] = positions[:, 1:]
    positions = state.get("pos_embed")
    num_prefix = 0 if registers else 1
    if positions is not None and positions.ndim == 3:
        state["pos_embed"] = resample_positions(positions, num_prefix=num_prefix, registers=registers)
    return state


def _renamed(key: str) -> str:
    return key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")


def resample_positions(positions: Tensor, *, num_prefix: int, registers: bool) -> Tensor:
    """Position embedding (1, prefix + M*M, C) resampled to the 16x16 patches of a 224 px image.

    The rule of the published code (`interpolate_pos_encoding`): bicubic; models without registers without
    antialias and with the scale (16 + 0.1) / M, models with registers with antialias and the exact scale.
    timm antialiases always, so its own resampling is not used. Returns the embedding as it is if it has
    16x16 positions already, or no square grid (its shape is then refused with the other tensors).
    """
    import torch
    from torch.nn import functional

    prefix, grid = positions[:, :num_prefix], positions[:, num_prefix:].float()
    side = round(grid.shape[1] ** 0.5)
    if side == _GRID or side * side != grid.shape[1]:
        return positions
    image = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, C, M, M)
    if registers:
        image = functional.interpolate(image, size=(_GRID, _GRID), mode="bicubic", antialias=True)
    else:
        scale = (_GRID + _OFFSET) / side
        image = functional.interpolate(image, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([prefix.float(), image.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def run_tokens(module: Any, x: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    """The taps of `token_taps` from one of timm's vision transformers with a class token."""
    import torch

    blocks = module.forward_intermediates(
        x,
        indices=4 if "cls4" in taps else 1,
        return_prefix_tokens=True,
        norm=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    tokens = [prefix[:, 0] for _, prefix in blocks]  # of each block (B, D)
    # (B, 4 D) where four blocks were asked for, (B, D), (B, P, D)
    values = {"cls4": torch.cat(tokens, dim=1), "cls": tokens[-1], "patch": blocks[-1][0]}
    return {**values, "mean-patch": rest(values["patch"])}


def rest(patches: Tensor) -> Tensor:
    """Tap `mean-patch` (B, D) from tap `patch` (B, P, D); summed in float32 whatever the patches' dtype."""
    return patches.float().mean(dim=1)
