"""What holds for every row of BACKBONES: declared taps, the same answer twice, no influence between rows."""

from __future__ import annotations

import dataclasses
import functools
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from reelbank.extract import backbones
from reelbank.extract.backbones.description import Backbone, BackboneError, BackboneInfo
from reelbank.extract.backbones.network import Network
from reelbank.store.devices import DeviceError

ALL = backbones.names()

# Larger sizes of what is run below, and video networks: a pass on a CPU core takes 1 to 30 s. By shape only, on
# the meta device; that they compute the published thing is tested in test_backbones_layouts.py and _taps.py.
OUTLINED = tuple(
    name
    for name in ALL
    if name.startswith(("clip:vit", "dinov2:vitb", "dinov2:vitl", "dinov2:vitg", "dinov3:", "tv3d:"))
)
# One step only, for the same reason; their own files test them.
SLOW = ("flow:raft-large", "flow:raft-small", "pose:keypoint-rcnn")

# The smallest models of timm stand for the family: tokens, channels-first and channels-last maps.
TIMM = ("timm:test_convnext", "timm:test_resnet", "timm:test_vit")
NAMES = tuple(name for name in ALL if name not in (*OUTLINED, *SLOW)) + TIMM
NETWORKS = tuple(name for name in NAMES if backbones.describe(name).needs_weights)
FAMILIES = ("clip", "dinov2", "dinov3", "googlenet", "resnet18", "resnet34", "resnet50")
IMAGE_NETWORKS = tuple(name for name in NETWORKS if name.partition(":")[0] in FAMILIES)
_BATCH = 3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@functools.cache
def built(name: str, precision: str = "fp32") -> Backbone:
    try:
        return backbones.build(name, weights="random", seed=3, device="cpu", precision=precision)
    except BackboneError as error:
        # TV-L1 is in OpenCV's contributed modules, which the plain wheel lacks.
        if "was built without" not in str(error):
            raise
        pytest.skip(str(error))


def steps(info: BackboneInfo, num_steps: int = _BATCH, seed: int = 0) -> npt.NDArray[Any]:
    """Steps of a smooth random texture; later frames of a step are moved, by another amount in each step."""
    rng = np.random.default_rng(seed)
    if info.source == "annotations":
        return people(rng, num_steps)
    height, width = info.image_size
    coarse = rng.integers(0, 256, (num_steps, height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    frames = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    frames = (frames // 2 + rng.integers(0, 128, frames.shape, dtype=np.uint8) // 2).astype(np.uint8)
    shape = info.frames_shape
    if shape[-1] != 3:
        frames = frames[..., 0]
    if len(shape) == frames.ndim - 1:
        return frames
    moved = [[np.roll(image, (i + 1) * j, axis=i % 2) for j in range(shape[0])] for i, image in enumerate(frames)]
    square = np.s_[64:160, 64:160]  # moves against the rest, so that something is left without the camera's motion
    for i, images in enumerate(moved):
        for j, image in enumerate(images):
            image[square] = np.roll(frames[i][square], -(i + 2) * j, axis=i % 2)
    return np.stack([np.stack(step) for step in moved])


def people(rng: np.random.Generator, num_steps: int) -> npt.NDArray[np.float32]:
    """Annotations (B, 27, 3) of 25 points that are all there, with their box."""
    points = rng.uniform(50, 250, (num_steps, 25, 2)).astype(np.float32)
    corners = np.stack([points.min(axis=1) - 10, points.max(axis=1) + 10], axis=1)
    presence = np.ones((num_steps, 27, 1), np.float32)
    presence[:, 25:] = 0
    return np.concatenate([np.concatenate([points, corners], axis=1), presence], axis=2)


@functools.cache
def features_of(name: str) -> dict[str, npt.NDArray[Any]]:
    """All taps of the standard steps; computed once, several tests compare with it."""
    backbone = built(name)
    return backbone.forward(steps(backbone.info), tuple(backbone.taps))


def assert_close(single: npt.NDArray[Any], row: npt.NDArray[Any]) -> None:
    """2e-3 of the largest value: another batch size sums in another order, then float16 rounds (5e-4)."""
    single, row = single.astype(np.float64), row.astype(np.float64)
    scale = float(np.abs(row).max()) or 1.0
    np.testing.assert_allclose(single / scale, row / scale, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_taps_have_the_declared_shape_dtype_and_content(name: str) -> None:
    backbone = built(name)
    features = features_of(name)
    assert tuple(features) == tuple(backbone.taps)
    for tap, feature in features.items():
        assert_declared(backbone, tap, feature, _BATCH)
    # What a network gives depends on its input in every tap. An operator may give a constant (points that are all
    # there), and one of motion the same for two textures.
    of_motion = name not in NETWORKS and len(backbone.step_frames) > 1
    for tap in features if name in NETWORKS else () if of_motion else backbone.default_taps[:1]:
        feature = features[tap]
        assert all(np.any(row) for row in feature), "a step is all zeros"
        assert all(np.any(row != feature[0]) for row in feature[1:]), "different steps, same feature"


def assert_declared(backbone: Backbone, tap: str, feature: npt.NDArray[Any], num_steps: int) -> None:
    spec = backbone.taps[tap]
    assert feature.shape == (num_steps, *spec.shape)
    assert feature.dtype == np.dtype(spec.dtype)
    assert np.isfinite(feature).all()


@pytest.mark.parametrize("name", SLOW)
def test_taps_of_a_slow_network_have_the_declared_shape(name: str) -> None:
    backbone = built(name)
    for tap, feature in backbone.forward(steps(backbone.info, 1), tuple(backbone.taps)).items():
        assert_declared(backbone, tap, feature, 1)


@pytest.mark.parametrize("name", OUTLINED)
def test_taps_of_an_outlined_network_have_the_declared_shape(name: str) -> None:
    backbone = backbones.outline(name)
    assert isinstance(backbone, Network)
    frames = np.zeros((2, *backbone.info.frames_shape), np.uint8)
    tensors = backbone.tensors(frames, tuple(backbone.taps))
    assert {tap: tuple(value.shape) for tap, value in tensors.items()} == {
        tap: (2, *spec.shape) for tap, spec in backbone.taps.items()
    }
    assert all(parameter.is_meta for parameter in backbone.module.parameters()), "numbers were made"


@pytest.mark.parametrize("name", ALL)
def test_provenance_of_weights_is_stated(name: str) -> None:
    info = backbones.describe(name)
    for source in info.sources:
        assert source.url.startswith("https://")
        assert source.licence
        assert len(source.sha256 or "") in (0, 64)
        if "download.pytorch.org" in source.url:
            assert source.sha256_prefix == source.file_name.removesuffix(".pth").rsplit("-", 1)[-1]


@pytest.mark.parametrize("name", NAMES)
def test_forward_gives_the_default_taps_and_the_same_bits_twice(name: str) -> None:
    backbone = built(name)
    again = backbone.forward(steps(backbone.info))
    assert tuple(again) == backbone.default_taps
    for tap, feature in again.items():
        np.testing.assert_array_equal(feature, features_of(name)[tap])


@pytest.mark.parametrize("name", ["flow:dis", "resnet18"])
def test_a_second_build_gives_the_same_bits(name: str) -> None:
    backbone = built(name)
    again = backbones.build(name, weights="random", seed=3, device="cpu")
    assert again.weights == backbone.weights
    frames = steps(backbone.info, 2)
    for tap, feature in again.forward(frames).items():
        np.testing.assert_array_equal(feature, backbone.forward(frames)[tap])


@pytest.mark.parametrize("name", NAMES)
def test_place_in_the_batch_and_padding_do_not_change_a_bit(name: str) -> None:
    backbone = built(name)
    frames = steps(backbone.info)
    taps = tuple(backbone.taps)
    whole = features_of(name)
    rolled = backbone.forward(np.roll(frames, 1, axis=0), taps)
    padded = backbone.forward(np.concatenate([frames[:2], np.zeros_like(frames[2:])]), taps)
    for tap in taps:
        np.testing.assert_array_equal(np.roll(whole[tap], 1, axis=0), rolled[tap])
        np.testing.assert_array_equal(whole[tap][:2], padded[tap][:2])


@pytest.mark.parametrize("name", NAMES)
def test_batch_of_one_is_close_to_the_row_of_a_batch(name: str) -> None:
    backbone = built(name)
    frames = steps(backbone.info)
    taps = tuple(backbone.taps)
    whole, single = features_of(name), backbone.forward(frames[2:3], taps)
    for tap in taps:
        assert_close(single[tap][0], whole[tap][2])


@pytest.mark.parametrize("name", NAMES)
def test_each_tap_alone_equals_all_taps_together(name: str) -> None:
    backbone = built(name)
    for tap in backbone.taps:
        alone = backbone.forward(steps(backbone.info), [tap])
        assert list(alone) == [tap]
        np.testing.assert_array_equal(alone[tap], features_of(name)[tap])


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_bf16_keeps_the_direction_of_the_features(name: str) -> None:
    """DESIGN's limits on calibrated random weights: a cosine of 0.999 for ViTs, 0.99 for CNNs."""
    limit = 0.999 if name.startswith(("clip", "dinov")) and name != "clip:rn50" else 0.99
    exact = built(name)
    assert isinstance(exact, Network)
    a, b = features_of(name), dataclasses.replace(exact, precision="bf16").forward(steps(exact.info), tuple(exact.taps))
    for tap in exact.taps:
        assert not np.array_equal(a[tap], b[tap]), "bf16 was asked for and not used"
        assert mean_cosine(a[tap], b[tap]) >= limit, tap


def test_fp16_is_close_on_a_cpu_too() -> None:
    frames = steps(built("resnet18").info, 2)
    exact, rounded = (built("resnet18", precision).forward(frames)["pool"] for precision in ("fp32", "fp16"))
    assert mean_cosine(exact, rounded) >= 0.9999


def mean_cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    x, y = (v.astype(np.float64).reshape(len(v), -1) for v in (a, b))
    return float(np.mean((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)))


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_frozen_and_in_eval_mode(name: str) -> None:
    backbone = built(name)
    assert backbone.module is not None
    assert not any(p.requires_grad for p in backbone.module.parameters())
    assert not any(layer.training for layer in backbone.module.modules())


@pytest.mark.parametrize("name", NAMES)
def test_state_file_gives_a_worker_the_same_backbone(name: str, tmp_path: Path) -> None:
    backbone = built(name)
    backbones.save_state(backbone, tmp_path / "state.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    worker = backbones.build(name, device="cpu", state_file=tmp_path / "state.safetensors")
    assert worker.weights == backbone.weights
    for tap, feature in worker.forward(steps(backbone.info)).items():
        np.testing.assert_array_equal(feature, features_of(name)[tap])


def test_state_file_of_another_backbone_is_refused(tmp_path: Path) -> None:
    backbones.save_state(built("resnet18"), tmp_path / "state")
    with pytest.raises(BackboneError, match="holds the state of backbone 'resnet18', not 'resnet34'"):
        backbones.build("resnet34", device="cpu", state_file=tmp_path / "state")


@pytest.mark.parametrize("name", (*ALL, *TIMM))
def test_description_is_plain_data(name: str) -> None:
    info = backbones.describe(name)
    data = json.loads(json.dumps(info.to_json()))
    assert data["name"] == name
    assert data["taps"][0]["bytes_per_step"] > 0
    assert pickle.loads(pickle.dumps(info)) == info  # spawn workers get it this way
    assert set(info.default_taps) <= set(info.taps)
    assert all(source.licence for source in info.sources)


def test_descriptions_load_neither_torch_nor_decoder() -> None:
    code = (
        "import sys; from reelbank.extract import backbones; [backbones.describe(n) for n in backbones.names()];"
        "loaded = {'torch', 'timm', 'torchvision', 'av', 'cv2', 'zarr'} & set(sys.modules);"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("dinov4", "choose one of clip, dinov2, dinov3, flow, .*; `reelbank backbones` lists"),
        ("flow:raft", "flow has flow, flow:dis, .*flow:raft-small"),
        ("clip:", "clip has clip, clip:rn50, clip:vitb16, clip:vitb32-256, clip:vitl14"),
        ("dinov2:vits14-reg:x", "dinov2 has dinov2, .*dinov2:vits14-reg"),
        ("timm", "timm has timm:NAME of timm.list_models"),
        ("timm:", "timm has timm:NAME of timm.list_models"),
        ("tv3d", "tv3d has tv3d:mc3_18, tv3d:mvit_v2_s"),
    ],
)
def test_unknown_name_lists_what_could_be_meant_sorted(name: str, choices: str) -> None:
    with pytest.raises(BackboneError, match=f"backbone '{name}' is not known; {choices}"):
        backbones.describe(name)


@pytest.mark.parametrize("name", ["resnet18", "dinov2", "timm:test_vit"])
def test_outline_is_not_a_device_to_run_on(name: str) -> None:
    with pytest.raises(DeviceError, match="--device 'meta' is not one of auto, cpu"):
        backbones.build(name, weights="random", device="meta")


def test_unknown_tap_lists_the_taps_there_are() -> None:
    backbone = built("resnet18")
    with pytest.raises(BackboneError, match=r"no tap 'cls'; choose from layer1, .*, layer4, logits, pool, stem"):
        backbone.forward(steps(backbone.info, 1), ["cls"])


@pytest.mark.parametrize(("name", "shape"), [("resnet18", (2, 3, 224, 224)), ("flow", (2, 224, 224))])
def test_wrong_input_shape_is_shown(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(BackboneError, match=r"frames.shape = \(2, .*expected \(B, "):
        built(name).forward(np.zeros(shape, np.uint8))
    good = steps(built(name).info, 1)
    with pytest.raises(BackboneError, match="float32, expected"):
        built(name).forward(good.astype(np.float32))


def test_unknown_device_and_precision_are_refused() -> None:
    with pytest.raises(BackboneError, match="precision 'int8' is not one of bf16, fp16, fp32"):
        backbones.build("frames", precision="int8")
    with pytest.raises(DeviceError, match="--device 'tpu' is not one of auto, cpu"):
        backbones.build("resnet18", weights="random", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="sees 0 GPUs"):
            backbones.build("resnet18", weights="random", device="cuda")
