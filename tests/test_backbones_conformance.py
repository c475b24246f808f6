"""What holds for every row of BACKBONES: declared taps, the same answer twice, no influence between rows."""

from __future__ import annotations

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

NAMES = backbones.names()
NETWORKS = tuple(name for name in NAMES if backbones.describe(name).needs_weights)
_BATCH = 4


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@functools.cache
def built(name: str, precision: str = "fp32") -> Backbone:
    return backbones.build(name, weights="random", seed=3, device="cpu", precision=precision)


def steps(info: BackboneInfo, num_steps: int = _BATCH, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Steps of a smooth random texture; the second frame of a pair is moved, by another amount in each step."""
    rng = np.random.default_rng(seed)
    size = info.image_size[0]
    coarse = rng.integers(0, 256, (num_steps, size // 16 + 2, size // 16 + 2, 3), dtype=np.uint8)
    frames = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :size, :size]
    frames = (frames // 2 + rng.integers(0, 128, frames.shape, dtype=np.uint8) // 2).astype(np.uint8)
    if len(info.step_frames) == 1:
        return frames
    gray = frames[..., 0]
    return np.stack([np.stack([g, np.roll(g, i + 1, axis=i % 2)]) for i, g in enumerate(gray)])


def assert_close(single: npt.NDArray[Any], row: npt.NDArray[Any]) -> None:
    """2e-3 of the largest value: another batch size sums in another order, then float16 rounds (5e-4)."""
    scale = float(np.abs(row.astype(np.float64)).max())
    np.testing.assert_allclose(single / scale, row / scale, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_taps_have_the_declared_shape_dtype_and_content(name: str) -> None:
    backbone = built(name)
    features = backbone.forward(steps(backbone.info), tuple(backbone.taps))
    assert tuple(features) == tuple(backbone.taps)
    for tap, feature in features.items():
        spec = backbone.taps[tap]
        assert feature.shape == (_BATCH, *spec.shape)
        assert feature.dtype == np.dtype(spec.dtype)
        assert np.isfinite(feature).all()
        assert all(np.any(row) for row in feature), "a step is all zeros"
        assert all(np.any(row != feature[0]) for row in feature[1:]), "different steps, same feature"


@pytest.mark.parametrize("name", NAMES)
def test_forward_gives_the_default_taps_and_the_same_bits_twice(name: str) -> None:
    backbone = built(name)
    frames = steps(backbone.info)
    first, second = backbone.forward(frames), backbone.forward(frames)
    assert tuple(first) == tuple(second) == backbone.default_taps
    for tap in first:
        np.testing.assert_array_equal(first[tap], second[tap])


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
    whole = backbone.forward(frames, taps)
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
    whole, single = backbone.forward(frames, taps), backbone.forward(frames[2:3], taps)
    for tap in taps:
        assert_close(single[tap][0], whole[tap][2])


@pytest.mark.parametrize("name", NAMES)
def test_each_tap_alone_equals_all_taps_together(name: str) -> None:
    backbone = built(name)
    frames = steps(backbone.info, 2)
    together = backbone.forward(frames, tuple(backbone.taps))
    for tap in backbone.taps:
        alone = backbone.forward(frames, [tap])
        assert list(alone) == [tap]
        np.testing.assert_array_equal(alone[tap], together[tap])


@pytest.mark.parametrize("name", NETWORKS)
def test_bf16_keeps_the_direction_of_the_features(name: str) -> None:
    """DESIGN's limits on calibrated random weights: a cosine of 0.999 for ViTs, 0.99 for CNNs."""
    limit = 0.999 if name.startswith(("clip", "dinov2")) else 0.99
    exact, rounded = built(name), built(name, "bf16")
    frames = steps(exact.info, 2)
    a, b = (k.forward(frames, tuple(exact.taps)) for k in (exact, rounded))
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
    assert isinstance(backbone, Network)
    assert not any(p.requires_grad for p in backbone.module.parameters())
    assert not any(layer.training for layer in backbone.module.modules())


@pytest.mark.parametrize("name", NAMES)
def test_state_file_gives_a_worker_the_same_backbone(name: str, tmp_path: Path) -> None:
    backbone = built(name)
    backbones.save_state(backbone, tmp_path / "state.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    worker = backbones.build(name, device="cpu", state_file=tmp_path / "state.safetensors")
    assert worker.weights == backbone.weights
    frames = steps(backbone.info, 2)
    for tap, feature in worker.forward(frames).items():
        np.testing.assert_array_equal(feature, backbone.forward(frames)[tap])


def test_state_file_of_another_backbone_is_refused(tmp_path: Path) -> None:
    backbones.save_state(built("resnet18"), tmp_path / "state")
    with pytest.raises(BackboneError, match="holds the state of backbone 'resnet18', not 'resnet34'"):
        backbones.build("resnet34", device="cpu", state_file=tmp_path / "state")


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", ["dinov3", "flow:raft", "clip:", "dinov2:vits14-reg:x"])
def test_unknown_name_lists_the_choices_sorted(name: str) -> None:
    with pytest.raises(BackboneError, match="choose one of clip, dinov2, dinov2:vits14-reg, flow, flow:dis, frames"):
        backbones.describe(name)


def test_unknown_tap_lists_the_taps_there_are() -> None:
    backbone = built("resnet18")
    with pytest.raises(BackboneError, match="no tap 'cls'; choose from layer1, layer2, layer3, layer4, logits, pool"):
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
    with pytest.raises(BackboneError, match="device 'tpu' is not known"):
        backbones.build("resnet18", weights="random", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(BackboneError, match="sees 0 GPUs"):
            backbones.build("resnet18", weights="random", device="cuda")
