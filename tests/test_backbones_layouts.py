"""Published files of every size fit, and the networks that came last equal plain implementations of their papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from reelbank.extract import backbones
from reelbank.extract.backbones.description import BackboneError
from reelbank.extract.backbones.network import Network
from reelbank.extract.weights import torchvision_shim
from reelbank.extract.weights.files import WeightsError

State = dict[str, Tensor]
Shape = tuple[int, ...]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


# Shapes of the published files: name -> shape.


def block(name: str, d: int) -> dict[str, Shape]:
    """Norms, attention and layer scales of one transformer block."""
    return {
        f"{name}.norm1.weight": (d,), f"{name}.norm1.bias": (d,),
        f"{name}.norm2.weight": (d,), f"{name}.norm2.bias": (d,),
        f"{name}.attn.qkv.weight": (3 * d, d), f"{name}.attn.qkv.bias": (3 * d,),
        f"{name}.attn.proj.weight": (d, d), f"{name}.attn.proj.bias": (d,),
        f"{name}.ls1.gamma": (d,), f"{name}.ls2.gamma": (d,),
    }  # fmt: skip


def mlp(name: str, d: int, hidden: int, gated: str = "") -> dict[str, Shape]:
    """Two layers, or a gated MLP: with `packed` gate and value, or with both `apart`."""
    first, last = {"": (["fc1"], "fc2"), "packed": (["w12"], "w3"), "apart": (["w1", "w2"], "w3")}[gated]
    rows = 2 * hidden if gated == "packed" else hidden
    shapes: dict[str, Shape] = {}
    for layer in first:
        shapes |= {f"{name}.mlp.{layer}.weight": (rows, d), f"{name}.mlp.{layer}.bias": (rows,)}
    return shapes | {f"{name}.mlp.{last}.weight": (d, hidden), f"{name}.mlp.{last}.bias": (d,)}


def dinov2_shapes(d: int, depth: int, registers: bool) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "cls_token": (1, 1, d), "pos_embed": (1, 1 + 37 * 37, d), "mask_token": (1, d),
        "patch_embed.proj.weight": (d, 3, 14, 14), "patch_embed.proj.bias": (d,),
        "norm.weight": (d,), "norm.bias": (d,),
    }  # fmt: skip
    if registers:
        shapes["register_tokens"] = (1, 4, d)
    giant = d == 1536
    for i in range(depth):
        shapes |= block(f"blocks.{i}", d) | mlp(f"blocks.{i}", d, 4096 if giant else 4 * d, "packed" if giant else "")
    return shapes


def dinov3_shapes(d: int, depth: int, hidden: int, biased: bool, gated: bool) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "cls_token": (1, 1, d), "storage_tokens": (1, 4, d), "mask_token": (1, d), "rope_embed.periods": (16,),
        "patch_embed.proj.weight": (d, 3, 16, 16), "patch_embed.proj.bias": (d,),
        "norm.weight": (d,), "norm.bias": (d,),
    }  # fmt: skip
    if not biased:
        shapes |= {"local_cls_norm.weight": (d,), "local_cls_norm.bias": (d,)}
    for i in range(depth):
        shapes |= block(f"blocks.{i}", d) | mlp(f"blocks.{i}", d, hidden, "apart" if gated else "")
        if biased:
            shapes[f"blocks.{i}.attn.qkv.bias_mask"] = (3 * d,)
        else:
            del shapes[f"blocks.{i}.attn.qkv.bias"]
    return shapes


def clip_shapes(d: int, depth: int, patch: int, embed: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "class_embedding": (d,), "positional_embedding": ((224 // patch) ** 2 + 1, d),
        "conv1.weight": (d, 3, patch, patch), "proj": (d, embed),
        "ln_pre.weight": (d,), "ln_pre.bias": (d,), "ln_post.weight": (d,), "ln_post.bias": (d,),
    }  # fmt: skip
    for i in range(depth):
        name = f"transformer.resblocks.{i}"
        for norm_name in ("ln_1", "ln_2"):
            shapes |= {f"{name}.{norm_name}.weight": (d,), f"{name}.{norm_name}.bias": (d,)}
        shapes |= {f"{name}.attn.in_proj_weight": (3 * d, d), f"{name}.attn.in_proj_bias": (3 * d,)}
        for layer, rows, columns in (("attn.out_proj", d, d), ("mlp.c_fc", 4 * d, d), ("mlp.c_proj", d, 4 * d)):
            shapes |= {f"{name}.{layer}.weight": (rows, columns), f"{name}.{layer}.bias": (rows,)}
    return {f"visual.{key}": shape for key, shape in shapes.items()} | {"token_embedding.weight": (9, 512)}


def norm_shapes(name: str, channels: int) -> dict[str, Shape]:
    fields = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{field}": (channels,) for field in fields} | {f"{name}.num_batches_tracked": ()}


def clip_resnet_shapes() -> dict[str, Shape]:
    shapes: dict[str, Shape] = {"attnpool.positional_embedding": (50, 2048)}
    for layer, rows in (("q_proj", 2048), ("k_proj", 2048), ("v_proj", 2048), ("c_proj", 1024)):
        shapes |= {f"attnpool.{layer}.weight": (rows, 2048), f"attnpool.{layer}.bias": (rows,)}
    for i, (inputs, outputs) in enumerate(((3, 32), (32, 32), (32, 64)), start=1):
        shapes |= {f"conv{i}.weight": (outputs, inputs, 3, 3)} | norm_shapes(f"bn{i}", outputs)
    inputs = 64
    for layer_index, num_blocks in enumerate((3, 4, 6, 3), start=1):
        width = 32 * 2**layer_index
        for i in range(num_blocks):
            name = f"layer{layer_index}.{i}"
            kernels = (("1", (width, inputs, 1, 1)), ("2", (width, width, 3, 3)), ("3", (4 * width, width, 1, 1)))
            for number, shape in kernels:
                shapes |= {f"{name}.conv{number}.weight": shape} | norm_shapes(f"{name}.bn{number}", shape[0])
            if i == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, inputs, 1, 1)}
                shapes |= norm_shapes(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    return {f"visual.{key}": shape for key, shape in shapes.items()} | {"logit_scale": ()}


DINOV2_SIZES = {"vits14": (384, 12), "vitb14": (768, 12), "vitl14": (1024, 24), "vitg14": (1536, 40)}
LAYOUTS: dict[str, Callable[[], dict[str, Shape]]] = {
    "clip": lambda: clip_shapes(768, 12, 32, 512),
    "clip:rn50": clip_resnet_shapes,
    "clip:vitb16": lambda: clip_shapes(768, 12, 16, 512),
    "clip:vitb32-256": lambda: clip_shapes(768, 12, 32, 512),
    "clip:vitl14": lambda: clip_shapes(1024, 24, 14, 768),
    "dinov3": lambda: dinov3_shapes(384, 12, 1536, biased=True, gated=False),
    "dinov3:vit7b16": lambda: dinov3_shapes(4096, 40, 8192, biased=False, gated=True),
    "dinov3:vitb16": lambda: dinov3_shapes(768, 12, 3072, biased=True, gated=False),
    "dinov3:vith16-plus": lambda: dinov3_shapes(1280, 32, 5120, biased=True, gated=True),
    "dinov3:vitl16": lambda: dinov3_shapes(1024, 24, 4096, biased=True, gated=False),
    "dinov3:vits16-plus": lambda: dinov3_shapes(384, 12, 1536, biased=True, gated=True),
}
for _size, (_d, _depth) in DINOV2_SIZES.items():
    for _suffix in ("", "-reg"):
        _name = "dinov2" if _size + _suffix == "vits14" else f"dinov2:{_size}{_suffix}"
        LAYOUTS[_name] = lambda d=_d, depth=_depth, suffix=_suffix: dinov2_shapes(d, depth, bool(suffix))  # type: ignore[misc]


def outline(name: str) -> Network:
    backbone = backbones.outline(name)
    assert isinstance(backbone, Network)
    return backbone


def test_every_transformer_has_a_layout_here() -> None:
    families = ("clip", "dinov2", "dinov3")
    assert set(LAYOUTS) == {name for name in backbones.names() if name.partition(":")[0] in families}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_published_file_fits_by_name_and_shape(name: str) -> None:
    backbone = outline(name)
    published = {key: torch.empty(shape, device="meta") for key, shape in LAYOUTS[name]().items()}
    converted = backbone.architecture.convert(published)
    wanted = {key: tuple(value.shape) for key, value in backbone.module.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in converted.items()} == wanted


@pytest.mark.parametrize("name", ["clip", "clip:vitb16", "clip:vitl14"])
def test_clip_transformers_have_heads_of_64_and_quick_gelu(name: str) -> None:
    x = torch.linspace(-3, 3, 7)
    for layer in outline(name).module.get_submodule("blocks"):
        assert layer.attn.num_heads == layer.attn.qkv.in_features // 64  # type: ignore[union-attr,operator]
        torch.testing.assert_close(layer.mlp.act(x), x * torch.sigmoid(1.702 * x))  # type: ignore[union-attr,operator]


def test_gated_mlp_of_the_giant_is_the_published_one() -> None:
    """SwiGLU (arXiv:2002.05202) as in the published file: silu of the first half of w12 times the second."""
    module = outline("dinov2:vitg14").module.get_submodule("blocks.0.mlp").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.randn(value.shape, generator=generator) * 0.02 for key, value in module.state_dict().items()}
    module.load_state_dict(state)
    x = torch.randn(2, 1536, generator=generator)
    gate, value = (x @ state["fc1.weight"].T + state["fc1.bias"]).chunk(2, dim=-1)
    expected = (functional.silu(gate) * value) @ state["fc2.weight"].T + state["fc2.bias"]
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


# Whole networks against plain implementations.


def draw(shapes: dict[str, Shape]) -> State:
    """Random tensors that keep a signal alive: gains of one, kernels scaled by their inputs."""
    g = torch.Generator().manual_seed(3)
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.int64)
        elif key.endswith("running_var"):
            state[key] = torch.rand(shape, generator=g) + 0.5
        elif len(shape) >= 2 and key.endswith("weight"):
            state[key] = torch.randn(shape, generator=g) * math.sqrt(1.5 / math.prod(shape[1:]))
        elif len(shape) == 1 and key.endswith((".weight", "gamma")):
            state[key] = 0.7 + 0.2 * torch.randn(shape, generator=g)
        else:
            state[key] = torch.randn(shape, generator=g) * 0.1
    return state


def frames(size: int = 224) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(5).integers(0, 256, (2, size // 8, size // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def normalised(constants: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in constants)
    return (torch.from_numpy(frames()).permute(0, 3, 1, 2).float() / 255 - mean) / std


def built(name: str, state: State, path: Path) -> Network:
    save_file(state, path)
    backbone = backbones.build(name, weights=path, device="cpu")
    assert isinstance(backbone, Network)
    return backbone


def assert_equal_features(ours: Tensor, published: Tensor) -> None:
    """1e-5 of the largest value: fp32 sums in another order differ by some 1e-6."""
    assert ours.shape == published.shape
    error = (ours.double() - published.double()).abs().max() / published.double().abs().max()
    assert error <= 1e-5, f"{error = }"


def norm(x: Tensor, state: State, name: str) -> Tensor:
    values = (state[f"{name}.{field}"] for field in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, *values)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads (B, heads, N, D) to (B, N, heads * D)."""
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def published_clip_resnet(state: State, x: Tensor) -> Tensor:
    """The modified ResNet of arXiv:2103.00020: three convolutions, average pools, attention pool."""
    state = {key.removeprefix("visual."): value for key, value in state.items()}
    for i, stride in ((1, 2), (2, 1), (3, 1)):
        x = norm(functional.conv2d(x, state[f"conv{i}.weight"], stride=stride, padding=1), state, f"bn{i}").relu()
    x = functional.avg_pool2d(x, 2)
    for layer, num_blocks in enumerate((3, 4, 6, 3), start=1):
        for i in range(num_blocks):
            name, stride = f"layer{layer}.{i}", 2 if layer > 1 and i == 0 else 1
            y = norm(functional.conv2d(x, state[f"{name}.conv1.weight"]), state, f"{name}.bn1").relu()
            y = norm(functional.conv2d(y, state[f"{name}.conv2.weight"], padding=1), state, f"{name}.bn2").relu()
            y = functional.avg_pool2d(y, stride)
            y = norm(functional.conv2d(y, state[f"{name}.conv3.weight"]), state, f"{name}.bn3")
            if i == 0:
                x = functional.conv2d(functional.avg_pool2d(x, stride), state[f"{name}.downsample.0.weight"])
                x = norm(x, state, f"{name}.downsample.1")
            x = (x + y).relu()
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + state["attnpool.positional_embedding"]
    q, k, v = (
        (t @ state[f"attnpool.{n}_proj.weight"].T + state[f"attnpool.{n}_proj.bias"])
        .unflatten(2, (32, 64))
        .transpose(1, 2)
        for n, t in (("q", tokens[:, :1]), ("k", tokens), ("v", tokens))
    )
    return attend(q, k, v)[:, 0] @ state["attnpool.c_proj.weight"].T + state["attnpool.c_proj.bias"]


def test_clip_resnet_equals_the_published_encode_image(tmp_path: Path) -> None:
    state = draw(clip_resnet_shapes())
    backbone = built("clip:rn50", state, tmp_path / "rn50.safetensors")
    ours = backbone.tensors(frames())["embed"]
    assert_equal_features(ours, published_clip_resnet(state, normalised(CLIP)))
    timm_state = {key: value.contiguous() for key, value in backbone.module.state_dict().items()}
    again = built("clip:rn50", timm_state, tmp_path / "timm.safetensors").tensors(frames())["embed"]
    assert torch.equal(again, ours)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions of arXiv:2508.10104 on the patches (B, heads, 5 + 196, 64): base 100, centres in [-1, 1]."""
    axis = (torch.arange(14) + 0.5) / 14 * 2 - 1
    positions = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(196, 2, 1)
    periods = 100 ** (torch.arange(16) / 16)
    angles = (2 * math.pi * positions / periods).flatten(1).repeat(1, 2)  # (196, 64)
    patches = x[:, :, 5:]
    first, second = patches.chunk(2, dim=-1)
    turned = patches * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()
    return torch.cat([x[:, :, :5], turned], dim=2)


def published_dinov3(state: State, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Class tokens of the 12 blocks and the patch tokens of the last, each through the final norm."""
    d = 384
    patches = functional.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    prefix = torch.cat([state["cls_token"], state["storage_tokens"]], dim=1).expand(len(x), -1, -1)
    x = torch.cat([prefix, patches.flatten(2).transpose(1, 2)], dim=1)

    def normed(value: Tensor, name: str) -> Tensor:
        return functional.layer_norm(value, (d,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    classes = []
    for i in range(12):
        name = f"blocks.{i}"
        bias = state[f"{name}.attn.qkv.bias"].clone()
        bias[d : 2 * d] = 0  # masked in the published model
        qkv = normed(x, f"{name}.norm1") @ state[f"{name}.attn.qkv.weight"].T + bias
        q, k, v = qkv.unflatten(2, (3, 6, 64)).permute(2, 0, 3, 1, 4)
        mixed = attend(rotate(q), rotate(k), v)
        mixed = mixed @ state[f"{name}.attn.proj.weight"].T + state[f"{name}.attn.proj.bias"]
        x = x + mixed * state[f"{name}.ls1.gamma"]
        hidden = normed(x, f"{name}.norm2") @ state[f"{name}.mlp.fc1.weight"].T + state[f"{name}.mlp.fc1.bias"]
        hidden = functional.gelu(hidden) @ state[f"{name}.mlp.fc2.weight"].T + state[f"{name}.mlp.fc2.bias"]
        x = x + hidden * state[f"{name}.ls2.gamma"]
        classes.append(normed(x, "norm")[:, 0])
    return classes, normed(x, "norm")[:, 5:]


def test_dinov3_equals_the_published_forward(tmp_path: Path) -> None:
    state = draw(LAYOUTS["dinov3"]())
    ours = built("dinov3", state, tmp_path / "dinov3.safetensors").tensors(frames(), ("cls4", "cls", "patch"))
    classes, patches = published_dinov3(state, normalised(IMAGENET))
    assert_equal_features(ours["cls4"], torch.cat(classes[-4:], dim=1))
    assert_equal_features(ours["cls"], classes[-1])
    assert_equal_features(ours["patch"], patches)


def test_dinov3_without_it_in_timm_names_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision_shim.ensure()
    import timm

    monkeypatch.setattr(timm, "is_model", lambda _name: False)
    with pytest.raises(BackboneError, match=r"vit_base_patch16_dinov3_qkvb, which timm \d.* lacks; install timm 1.0"):
        backbones.build("dinov3:vitb16", weights="random", device="cpu")


@pytest.mark.parametrize(
    "name", ["clip:rn50", "clip:vitl14", "dinov2:vitg14", "dinov3", "timm:test_vit", "tv3d:r3d_18", "tv3d:swin3d_t"]
)
def test_weights_of_another_network_are_refused(name: str, tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.safetensors")
    with pytest.raises(
        WeightsError, match=r"another network than .*\d+ missing: .*, \.\.\.; 1 unexpected: conv1.weight"
    ):
        backbones.build(name, weights=tmp_path / "other.safetensors", device="cpu")
