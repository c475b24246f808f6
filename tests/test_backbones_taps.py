"""From a stored tap the rest of a network computes what the whole network does, and derived taps are their formula."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reelbank.extract import backbones
from reelbank.extract.backbones import dinov2, ego_rnn, googlenet, lite, resnet, timm_models, tv3d
from reelbank.extract.backbones.description import BackboneError
from reelbank.extract.backbones.network import Network
from reelbank.extract.weights import torchvision_shim

VIDEO_NETWORKS = tuple(name for name in backbones.names() if name.startswith("tv3d:"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@functools.cache
def network(name: str) -> Network:
    backbone = backbones.build(name, weights="random", device="cpu")
    assert isinstance(backbone, Network)
    return backbone


def uncalibrated(name: str) -> Network:
    """With its library's initialisation: what is compared needs no lifelike features, and a calibration takes long."""
    outline = backbones.outline(name)
    assert isinstance(outline, Network)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = outline.architecture.create().eval()
    return dataclasses.replace(outline, module=module, device="cpu")


@functools.cache
def whole(name: str) -> dict[str, Tensor]:
    backbone = network(name)
    return backbone.tensors(frames(backbone), tuple(backbone.taps))


def frames(backbone: Network) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    size = backbone.info.image_size[0]
    coarse = rng.integers(0, 256, (2, size // 8 + 1, size // 8 + 1, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size]


def error_of(ours: Tensor, exact: Tensor) -> float:
    """The largest difference relative to the largest activation."""
    assert ours.shape == exact.shape
    return float((ours.double() - exact.double()).abs().max() / exact.double().abs().max())


Rest = Callable[[Any, Tensor], Tensor]


def _resnet_rest(tap: str, wanted: str) -> Rest:
    return lambda module, value: resnet.rest(module, tap, value, [wanted])[wanted]


def _lite_rest(tap: str, wanted: str) -> Rest:
    return lambda module, value: lite.rest(module, tap, value, [wanted])[wanted]


# (backbone, stored tap, tap computed from it, the rest of the network)
CASES: list[tuple[str, str, str, Rest]] = [
    *[
        (name, tap, wanted, _resnet_rest(tap, wanted))
        for name in ("resnet18", "resnet34", "resnet50")
        for tap, wanted in (
            *(("stem", "layer1"), ("layer1", "layer2"), ("layer2", "layer4"), ("layer3", "layer4")),
            *(("layer3", "logits"), ("layer4", "pool"), ("pool", "logits")),
        )
    ],
    *[("resnet34", tap, f"ego-{kind}", _resnet_rest(tap, f"ego-{kind}"))
      for tap in ("layer2", "layer3") for kind in ("attended", "attended-postbn")],
    ("googlenet", "inception5b", "pool", googlenet.rest),
    *[("lite", tap, wanted, _lite_rest(tap, wanted))
      for tap, wanted in (("stem", "stage1"), ("stage4", "stage6"), ("stage7", "pool"), ("pool", "logits"))],
    *[(name, "patch", "mean-patch", lambda _, value: dinov2.rest(value)) for name in ("dinov2", "dinov3")],
    ("timm:test_vit", "tokens", "pool", timm_models.rest),
    *[(f"timm:{name}", "map", "pool", timm_models.rest)
      for name in ("test_resnet", "test_convnext", "swin_tiny_patch4_window7_224")],
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tap", "wanted", "rest"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_rest_of_the_network_from_a_stored_tap_equals_the_whole(name: str, tap: str, wanted: str, rest: Rest) -> None:
    """SYSTEMS.md 0.2: 1e-5 from float32, 2e-3 from float16."""
    module, values = network(name).module, whole(name)
    with torch.inference_mode():
        assert error_of(rest(module, values[tap]), values[wanted]) <= 1e-5
        assert error_of(rest(module, values[tap].half().float()), values[wanted]) <= 2e-3


def test_heads_can_train_the_rest_of_a_resnet() -> None:
    module = network("resnet18").module
    values = {tap: value.clone() for tap, value in whole("resnet18").items()}
    parameters = [parameter.requires_grad_() for parameter in module.get_submodule("layer4").parameters()]
    try:
        resnet.rest(module, "layer3", values["layer3"], ["pool"])["pool"].sum().backward()
        assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in parameters)
    finally:
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(False)


def test_rest_refuses_what_comes_before_its_tap() -> None:
    module = network("resnet34").module
    with pytest.raises(BackboneError, match="tap 'layer2' cannot be computed from 'layer3', which comes after it"):
        resnet.rest(module, "layer3", whole("resnet34")["layer3"], ["layer2"])
    with pytest.raises(BackboneError, match="'ego-attended' cannot be computed from 'layer4'; give layer3"):
        resnet.rest(module, "layer4", whole("resnet34")["layer4"], ["ego-attended"])
    with pytest.raises(BackboneError, match="tap 'stage2' cannot be computed from 'stage3', which comes after it"):
        lite.rest(network("lite").module, "stage3", whole("lite")["stage3"], ["stage2"])


# Ego-RNN: arXiv:1807.11794, written out position by position (SYSTEMS.md 2.3).


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{field}"].view(1, -1, 1, 1) for field in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def published_attention(state: dict[str, Tensor], layer3: Tensor) -> dict[str, Tensor]:
    z = layer3
    for block in range(2):
        name, stride = f"layer4.{block}", 2 if block == 0 else 1
        y = functional.conv2d(z, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = functional.conv2d(norm(y, state, f"{name}.bn1").clamp(min=0), state[f"{name}.conv2.weight"], padding=1)
        if block == 0:
            shortcut = functional.conv2d(z, state[f"{name}.downsample.0.weight"], stride=2)
            z = norm(shortcut, state, f"{name}.downsample.1")
        z = (norm(y, state, f"{name}.bn2") + z).clamp(min=0)
    h = functional.conv2d(z, state["layer4.2.conv1.weight"], padding=1)
    h = functional.conv2d(norm(h, state, "layer4.2.bn1").clamp(min=0), state["layer4.2.conv2.weight"], padding=1)
    f, fn = (norm(h, state, "layer4.2.bn2") + z).clamp(min=0), h + z
    attended, postbn, winners = torch.zeros_like(f), torch.zeros_like(f), []
    for frame in range(len(f)):
        scores = state["fc.weight"] @ f[frame].mean(dim=(1, 2)) + state["fc.bias"]
        winner = int(scores.argmax())
        winners.append(winner)
        evidence = [float(state["fc.weight"][winner] @ f[frame, :, y, x]) for y in range(7) for x in range(7)]
        shares = np.exp(np.array(evidence) - max(evidence))
        shares /= shares.sum()
        for position, share in enumerate(shares):
            y, x = divmod(position, 7)
            attended[frame, :, y, x] = fn[frame, :, y, x] * share
            postbn[frame, :, y, x] = f[frame, :, y, x] * share
    return {"layer4": f, "ego-attended": attended, "ego-attended-postbn": postbn, "winners": torch.tensor(winners)}


def test_attended_maps_equal_the_formula() -> None:
    module, values = network("resnet34").module, whole("resnet34")
    # Two rows of strong evidence, so that the winning class and a peaked softmax count.
    state = {key: value.clone() for key, value in module.state_dict().items()}
    state["fc.weight"] *= 20
    strong = copy.deepcopy(module)
    strong.load_state_dict(state)
    with torch.inference_mode():
        expected = published_attention(state, values["layer3"])
        ours = ego_rnn.attend(strong, values["layer3"])
        logits = strong.get_submodule("fc")(expected["layer4"].mean(dim=(2, 3)))
    assert torch.equal(logits.argmax(dim=1), expected.pop("winners"))
    assert ours.keys() == expected.keys()
    for tap, value in expected.items():
        assert error_of(ours[tap], value) <= 1e-5
    shares = (ours["ego-attended-postbn"].double().sum(1) / expected["layer4"].double().sum(1)).flatten(1)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=0)
    assert float(shares.max()) > 2 / 49, "attention is flat: the test would not see a missing softmax"


# torchvision's video networks.


@pytest.mark.parametrize("name", VIDEO_NETWORKS)
def test_description_of_a_video_network_is_what_torchvision_publishes(name: str) -> None:
    torchvision_shim.ensure()
    from torchvision.models import get_model_weights

    info = backbones.describe(name)
    entry = get_model_weights(name.removeprefix("tv3d:")).KINETICS400_V1  # type: ignore[attr-defined]
    published = entry.transforms()
    resize, crop = published.resize_size, published.crop_size
    preprocess = info.preprocess
    assert [preprocess.short_side_px] == resize if len(resize) == 1 else preprocess.squash_size == tuple(resize)
    assert preprocess.crop_size == tuple(crop)
    assert published.interpolation.value == preprocess.interpolation.removesuffix("-aliased")
    assert info.sources[0].url == entry.url
    backbone = backbones.outline(name)
    assert isinstance(backbone, Network)
    assert (*backbone.architecture.mean,) == (*published.mean,)
    assert (*backbone.architecture.std,) == (*published.std,)
    assert sum(p.numel() for p in backbone.module.parameters()) == entry.meta["num_params"]
    assert len(info.step_frames) == 16


@pytest.mark.parametrize("size", [(100, 180), (240, 320)])
def test_frames_of_a_video_network_are_prepared_as_torchvision_does(size: tuple[int, int]) -> None:
    torchvision_shim.ensure()
    import av
    from torchvision.models.video import R3D_18_Weights

    from reelbank.extract.inputs.preprocess import make
    from reelbank.extract.video.frame import Frame

    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    backbone = uncalibrated("tv3d:r3d_18")
    info = backbone.info
    frame = Frame(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
    ours = backbone.normalise(np.stack([make(info.preprocess)(frame)] * 16)[None])
    clip = torch.from_numpy(pixels).permute(2, 0, 1).expand(16, -1, -1, -1)
    published = R3D_18_Weights.KINETICS400_V1.transforms()(clip)[None]
    assert ours.shape == published.shape == (1, 3, 16, 112, 112)
    torch.testing.assert_close(ours, published, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["tv3d:r3d_18", "tv3d:mc3_18", "tv3d:s3d"])
def test_video_network_equals_torchvision(name: str) -> None:
    """On small clips, which convolutions take as well; s3d pools 7x7 of the 1/32 of its input."""
    backbone = uncalibrated(name)
    num_frames, size_px = (16, 224) if name == "tv3d:s3d" else (4, 32)
    x = torch.randn(1, 3, num_frames, size_px, size_px, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        values = backbone.architecture.run(backbone.module, x, frozenset({"pool", "logits"}))
        if name != "tv3d:s3d":
            torch.testing.assert_close(values["logits"], backbone.module(x), rtol=0, atol=0)
        assert error_of(tv3d.rest(backbone.module, values["pool"]), values["logits"]) <= 1e-5
        assert error_of(tv3d.rest(backbone.module, values["pool"].half().float()), values["logits"]) <= 2e-3
    assert values["pool"].shape == (1, *backbone.taps["pool"].shape)


@pytest.mark.parametrize("name", ["tv3d:mvit_v2_s", "tv3d:swin3d_t"])
def test_pool_of_a_video_transformer_is_the_input_of_its_classifier(name: str) -> None:
    backbone = backbones.outline(name)
    assert isinstance(backbone, Network)
    logits = tv3d.rest(backbone.module, torch.empty(2, 768, device="meta"))
    assert logits.shape == (2, 400)
