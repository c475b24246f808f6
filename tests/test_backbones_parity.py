"""Taps equal the published models: plain implementations written here from the papers, on the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from reelbank.extract import backbones
from reelbank.extract.backbones.network import Network
from reelbank.extract.weights import torchvision_shim

State = dict[str, Tensor]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(num_threads)


def frames(num_frames: int = 2) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (num_frames, 28, 28, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def normalised(images: npt.NDArray[np.uint8], constants: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in constants)
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std


def assert_equal_features(ours: Tensor, published: Tensor) -> None:
    """1e-5 of the largest value: fp32 sums in another order differ by some 1e-6."""
    assert ours.shape == published.shape
    error = (ours.double() - published.double()).abs().max() / published.double().abs().max()
    assert error <= 1e-5, f"{error = }"


def network(name: str, weights: Path) -> Network:
    backbone = backbones.build(name, weights=weights, device="cpu")
    assert isinstance(backbone, Network)
    assert backbone.weights["kind"] == "file"
    return backbone


# DINOv2: arXiv:2304.07193, and the published rule for the position embedding.


def dinov2_state(num_registers: int) -> State:
    """Random tensors in the layout of the published files. Strong positions, so that their resampling counts."""
    g = torch.Generator().manual_seed(1)

    def draw(*shape: int, scale: float = 0.05, mean: float = 0.0) -> Tensor:
        return torch.randn(*shape, generator=g) * scale + mean

    d = 384
    state = {
        "cls_token": draw(1, 1, d, scale=0.5),
        "pos_embed": draw(1, 1 + 37 * 37, d, scale=0.5),
        "mask_token": draw(1, d),
        "patch_embed.proj.weight": draw(d, 3, 14, 14),
        "patch_embed.proj.bias": draw(d),
        "norm.weight": draw(d, mean=1.0),
        "norm.bias": draw(d),
    }
    if num_registers:
        state["register_tokens"] = draw(1, num_registers, d, scale=0.5)
    for i in range(12):
        for norm in ("norm1", "norm2"):
            state |= {f"blocks.{i}.{norm}.weight": draw(d, mean=1.0), f"blocks.{i}.{norm}.bias": draw(d)}
        for layer, rows, columns in (
            ("attn.qkv", 3 * d, d),
            ("attn.proj", d, d),
            ("mlp.fc1", 4 * d, d),
            ("mlp.fc2", d, 4 * d),
        ):
            state |= {
                f"blocks.{i}.{layer}.weight": draw(rows, columns),
                f"blocks.{i}.{layer}.bias": draw(rows),
            }
        state |= {f"blocks.{i}.ls{j}.gamma": draw(d, mean=0.6) for j in (1, 2)}
    return state


def cubic_resampling(size: int, scale: float, new_size: int) -> npt.NDArray[np.float64]:
    """Matrix of Keys' cubic convolution (a = -0.75, half-pixel centres, clamped border, no antialias)."""
    matrix = np.zeros((new_size, size))
    for row in range(new_size):
        centre = (row + 0.5) / scale - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            x, a = abs(centre - tap), -0.75
            inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
            weight = inner if x <= 1 else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            matrix[row, min(max(tap, 0), size - 1)] += weight
    return matrix


def published_positions(state: State, registers: bool) -> Tensor:
    """(1, 257, 384) at 224 px: no antialias and (16 + 0.1) / 37 without registers, else antialias and 16 / 37."""
    grid = state["pos_embed"][0, 1:].reshape(37, 37, 384).numpy()
    if registers:
        # PIL's bicubic is an antialiased one.
        planes = [Image.fromarray(grid[..., c]).resize((16, 16), Image.Resampling.BICUBIC) for c in range(384)]
        small = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    else:
        matrix = cubic_resampling(37, (16 + 0.1) / 37, 16)
        small = np.einsum("yi,xj,ijc->yxc", matrix, matrix, grid.astype(np.float64))
    patches = torch.from_numpy(small.astype(np.float32)).reshape(1, 256, 384)
    return torch.cat([state["pos_embed"][:, :1], patches], dim=1)


def layer_norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled: Tensor = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention(qkv: Tensor, num_heads: int) -> Tensor:
    b, n, width = qkv.shape
    q, k, v = qkv.reshape(b, n, 3, num_heads, width // 3 // num_heads).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    mixed: Tensor = (weights @ v).transpose(1, 2).reshape(b, n, width // 3)
    return mixed


def published_dinov2(state: State, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Class tokens and patch tokens of the 12 blocks, each through the final norm."""
    x = functional.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
    registers = state.get("register_tokens")
    x = x + published_positions(state, registers is not None)
    num_registers = 0
    if registers is not None:
        num_registers = registers.shape[1]
        x = torch.cat([x[:, :1], registers.expand(len(x), -1, -1), x[:, 1:]], dim=1)
    classes, patches = [], []
    for i in range(12):
        name = f"blocks.{i}"
        mixed = attention(linear(layer_norm(x, state, f"{name}.norm1", 1e-6), state, f"{name}.attn.qkv"), 6)
        x = x + linear(mixed, state, f"{name}.attn.proj") * state[f"{name}.ls1.gamma"]
        hidden = linear(layer_norm(x, state, f"{name}.norm2", 1e-6), state, f"{name}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + linear(hidden, state, f"{name}.mlp.fc2") * state[f"{name}.ls2.gamma"]
        normed = layer_norm(x, state, "norm", 1e-6)
        classes.append(normed[:, 0])
        patches.append(normed[:, 1 + num_registers :])
    return classes, patches


@pytest.mark.parametrize(("name", "num_registers"), [("dinov2", 0), ("dinov2:vits14-reg", 4)])
def test_dinov2_equals_the_published_forward(name: str, num_registers: int, tmp_path: Path) -> None:
    state = dinov2_state(num_registers)
    torch.save(state, tmp_path / "published.pth")
    ours = network(name, tmp_path / "published.pth").tensors(frames(), ("cls4", "cls", "patch"))
    classes, patches = published_dinov2(state, normalised(frames(), IMAGENET))
    assert_equal_features(ours["cls4"], torch.cat(classes[-4:], dim=1))
    assert_equal_features(ours["cls"], classes[-1])
    assert_equal_features(ours["patch"], patches[-1])


def test_dinov2_in_the_layout_of_timm_gives_the_same_features(tmp_path: Path) -> None:
    state = dinov2_state(0)
    torch.save({"model": state}, tmp_path / "published.pth")
    save_file({k: v for k, v in state.items() if k != "mask_token"}, tmp_path / "timm.safetensors")
    ours = [network("dinov2", tmp_path / file).forward(frames()) for file in ("published.pth", "timm.safetensors")]
    np.testing.assert_array_equal(ours[0]["cls4"], ours[1]["cls4"])


# CLIP: arXiv:2103.00020, the published visual transformer.


def clip_state() -> State:
    g = torch.Generator().manual_seed(2)

    def draw(*shape: int, scale: float = 0.04, mean: float = 0.0) -> Tensor:
        return torch.randn(*shape, generator=g) * scale + mean

    d = 768
    state = {
        "visual.class_embedding": draw(d, scale=0.5),
        "visual.positional_embedding": draw(50, d, scale=0.5),
        "visual.conv1.weight": draw(d, 3, 32, 32),
        "visual.proj": draw(d, 512),
        # The text tower stands in the same file.
        "token_embedding.weight": draw(10, 512),
        "transformer.resblocks.0.ln_1.weight": draw(512),
        "logit_scale": torch.tensor(4.6),
    }
    for norm in ("ln_pre", "ln_post"):
        state |= {f"visual.{norm}.weight": draw(d, mean=1.0), f"visual.{norm}.bias": draw(d)}
    for i in range(12):
        name = f"visual.transformer.resblocks.{i}"
        for norm in ("ln_1", "ln_2"):
            state |= {f"{name}.{norm}.weight": draw(d, mean=1.0), f"{name}.{norm}.bias": draw(d)}
        state |= {f"{name}.attn.in_proj_weight": draw(3 * d, d), f"{name}.attn.in_proj_bias": draw(3 * d)}
        for layer, rows, columns in (("attn.out_proj", d, d), ("mlp.c_fc", 4 * d, d), ("mlp.c_proj", d, 4 * d)):
            state |= {f"{name}.{layer}.weight": draw(rows, columns), f"{name}.{layer}.bias": draw(rows)}
    return state


def published_clip(state: State, x: Tensor) -> Tensor:
    state = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    x = functional.conv2d(x, state["conv1.weight"], stride=32).flatten(2).transpose(1, 2)
    x = torch.cat([state["class_embedding"].expand(len(x), 1, -1), x], dim=1) + state["positional_embedding"]
    x = layer_norm(x, state, "ln_pre", 1e-5)
    for i in range(12):
        name = f"transformer.resblocks.{i}"
        normed = layer_norm(x, state, f"{name}.ln_1", 1e-5)
        qkv = normed @ state[f"{name}.attn.in_proj_weight"].T + state[f"{name}.attn.in_proj_bias"]
        x = x + linear(attention(qkv, 12), state, f"{name}.attn.out_proj")
        hidden = linear(layer_norm(x, state, f"{name}.ln_2", 1e-5), state, f"{name}.mlp.c_fc")
        x = x + linear(hidden * torch.sigmoid(1.702 * hidden), state, f"{name}.mlp.c_proj")
    return layer_norm(x[:, 0], state, "ln_post", 1e-5) @ state["proj"]


def test_clip_equals_the_published_encode_image(tmp_path: Path) -> None:
    state = clip_state()
    save_file(state, tmp_path / "published.safetensors")
    backbone = network("clip", tmp_path / "published.safetensors")
    ours = backbone.tensors(frames())["embed"]
    assert_equal_features(ours, published_clip(state, normalised(frames(), CLIP)))

    stated = network("clip:vitb32-256", tmp_path / "published.safetensors")
    constants = ((0.481, 0.457, 0.408), (0.268, 0.261, 0.275))
    assert_equal_features(stated.tensors(frames())["embed"], published_clip(state, normalised(frames(), constants)))
    assert (stated.info.preprocess.short_side_px, backbone.info.preprocess.short_side_px) == (256, 224)

    # timm's own layout has a bias of zeros that the published projection lacks.
    timm_state = {key: value.contiguous() for key, value in backbone.module.state_dict().items()}
    save_file(timm_state | {"head.bias": torch.zeros(512)}, tmp_path / "timm.safetensors")
    again = network("clip", tmp_path / "timm.safetensors").tensors(frames())["embed"]
    assert torch.equal(again, ours)


# torchvision's networks, run by torchvision's own forward.


def outputs_of(module: torch.nn.Module, layers: Mapping[str, str], x: Tensor) -> State:
    """What the layers gave while torchvision's own forward ran: {tap: tensor}."""
    found: State = {}
    for tap, layer in layers.items():
        module.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, tap=tap: found.__setitem__(tap, output.clone())
        )
    with torch.inference_mode():
        module.eval()(x)
    return found


def randomise(module: torch.nn.Module) -> None:
    """Weights that keep the signal of the image alive to the end, and batch-norm statistics far from 0 and 1."""
    generator = torch.Generator().manual_seed(4)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, generator=generator)
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator) * 0.1)
            layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)


def test_googlenet_equals_torchvision_on_a_checkpoint_with_auxiliary_heads(tmp_path: Path) -> None:
    torchvision_shim.ensure()
    import torchvision

    module = torchvision.models.GoogLeNet(aux_logits=True, transform_input=True, init_weights=True)
    randomise(module)
    torch.save(module.state_dict(), tmp_path / "googlenet.pth")
    published = outputs_of(module, {"inception5b": "inception5b", "pool": "avgpool"}, normalised(frames(), IMAGENET))
    ours = network("googlenet", tmp_path / "googlenet.pth").tensors(frames(), ("pool", "inception5b"))
    assert_equal_features(ours["inception5b"], published["inception5b"])
    assert_equal_features(ours["pool"], published["pool"].flatten(1))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_resnet_equals_torchvision(name: str, tmp_path: Path) -> None:
    torchvision_shim.ensure()
    import torchvision

    module = getattr(torchvision.models, name)(weights=None)
    randomise(module)
    torch.save(module.state_dict(), tmp_path / "resnet.pth")
    layers = {f"layer{i}": f"layer{i}" for i in (1, 2, 3, 4)} | {"pool": "avgpool", "logits": "fc"}
    published = outputs_of(module, layers, normalised(frames(), IMAGENET))
    published["pool"] = published["pool"].flatten(1)
    for tap, ours in network(name, tmp_path / "resnet.pth").tensors(frames(), tuple(layers)).items():
        assert_equal_features(ours, published[tap])


def test_rest_of_resnet34_runs_from_a_stored_tap() -> None:
    """SYSTEMS.md 0.2: 2e-3 from a float16 tap, relative to the largest activation (2.0e-4 was measured)."""
    backbone = backbones.build("resnet34", weights="random", device="cpu")
    assert isinstance(backbone, Network)
    stored = backbone.forward(frames(), ("layer3",))["layer3"]
    whole = backbone.tensors(frames(), ("layer4",))["layer4"]
    layer4 = backbone.module.get_submodule("layer4")
    with torch.inference_mode():
        rest = layer4(torch.from_numpy(stored).float())
    assert float((rest - whole).abs().max() / whole.abs().max()) <= 2e-3


# Golden parameter counts: measured on the published models (SYSTEMS.md section 6).
PARAMETERS = {
    # The published model holds a mask token, and positions for 37x37 patches where ours has 16x16.
    "dinov2": 22_056_576 - 384 - (37 * 37 - 16 * 16) * 384,
    "clip": 87_849_216,
    "googlenet": 6_624_904 - 1024 * 1000 - 1000,
    "resnet18": 11_176_512 + 512 * 1000 + 1000,
    "resnet34": 21_797_672,
}


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_number_of_parameters_is_the_published_one(name: str) -> None:
    module = backbones.outline(name).module
    assert module is not None
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]
