"""`featurize --device mps`: what Metal is given and how its answer is tried, on a CPU that stands in for it."""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline import copy_set, run, store_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import reelbank.store
from reelbank.extract import backbones, doctor
from reelbank.extract.backbones import metal
from reelbank.extract.backbones.description import BackboneError
from reelbank.extract.backbones.network import Network
from reelbank.testing import backbones as suite

NETWORKS = [name for name in backbones.names() if suite.is_network(name)]
CLIPS = [name for name in NETWORKS if len(backbones.describe(name).step_frames) > 1]
IMAGES = [name for name in NETWORKS if name not in CLIPS]


class Metal:
    """A device `mps` whose tensors are those of the CPU. What Metal cannot take or gets wrong is an AssertionError."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_copies = 0
        to, tensor = torch.Tensor.to, torch.tensor

        def moved(value: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
            targets = [str(target) for target in (*args, *options.values()) if isinstance(target, str | torch.device)]
            if "mps" not in targets:
                return to(value, *args, **options)
            assert value.dtype is not torch.float64
            assert not options.get("non_blocking")
            # `Module.to` gives device, dtype, non_blocking.
            assert args[2:3] in ((), (False,))
            assert value.dtype is torch.uint8 or value.is_contiguous()
            self.num_copies += 1
            return value.clone()

        def made(*args: Any, device: Any = None, **options: Any) -> torch.Tensor:
            return tensor(*args, device="cpu" if str(device) == "mps" else device, **options)

        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: True)
        monkeypatch.setattr(torch.Tensor, "to", moved)
        monkeypatch.setattr(torch, "tensor", made)
        monkeypatch.setattr(platform, "mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Metal:
    return Metal(monkeypatch)


@pytest.mark.parametrize("name", ["resnet18", "timm:test_vit"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_network_on_metal_gives_what_it_gives_on_the_cpu(name: str, precision: str, mac: Metal) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *backbones.describe(name).frames_shape), np.uint8)
    on_metal = backbones.build(name, weights="random", device="mps", precision=precision)
    assert on_metal.device == "mps"
    assert isinstance(on_metal, Network)
    assert on_metal.normalise(frames).is_contiguous()
    assert all(value.is_contiguous() for value in on_metal.module.parameters())
    assert mac.num_copies > 3
    expected = backbones.build(name, weights="random", device="cpu").forward(frames)
    for tap, value in on_metal.forward(frames).items():
        np.testing.assert_allclose(value, expected[tap], rtol=0.02, atol=0.02)


def test_a_network_that_bf16_rounds_far_on_a_cpu_too_is_taken(mac: Metal, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lite` with random weights is 0.3 away from fp32. A CPU in bf16 stands for Metal, which is none here."""
    exact = backbones.build("lite", weights="random", device="cpu")
    assert isinstance(exact, Network)
    rounded, expected = dataclasses.replace(exact, precision="bf16"), metal.reference(exact)
    with pytest.raises(BackboneError, match=r"tap 'stage\d' of lite in bf16 .* rounding explains 0.25\)"):
        metal.check(rounded, "bf16", expected, {})
    metal.check(rounded, "bf16", expected, metal.features(rounded))
    given: list[Any] = []
    monkeypatch.setattr(metal, "check", lambda *arguments: given.append(arguments))
    backbones.build("timm:test_vit", weights="random", device="mps", precision="bf16")
    assert given[0][3].keys() == given[0][2].keys()


def test_featurize_runs_the_network_in_its_own_process_and_keeps_what_the_bits_depend_on(
    mac: Metal, synth_set: Path, tmp_path: Path
) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 3))
    report = run(folder, model=("resnet18",), weights="random", device="mps", sampling=("uniform:2",))
    assert not report.has_failures
    assert report.num_forwarding == 1
    store = store_of(folder, "resnet18")
    (record,) = (json.loads(path.read_text()) for path in (store / "commits").glob("0*.json"))
    text = json.dumps(record)
    assert '"device": "mps"' in text
    assert '"gpu": "Apple Metal (mps)", "macos": "15.5"' in text
    assert len(reelbank.store.open(store).done_rows()) == 3


@pytest.mark.parametrize("name", CLIPS)
def test_a_backbone_whose_step_reads_several_frames_is_refused(name: str, mac: Metal) -> None:
    with pytest.raises(
        BackboneError, match=rf"--device mps: a step of {name} reads \d+ frames, .*; pass --device cpu$"
    ):
        backbones.build(name, weights="random", device="mps")


def test_operators_run_on_the_cpu_whatever_the_device(mac: Metal) -> None:
    assert backbones.build("flow:dis", device="mps").device == "cpu"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda value: value.flip(0), r"tap 'pool' of resnet18 in fp32 is not what .* pass --device cpu$"),
        (lambda value: value * float("nan"), r"tap 'pool' of resnet18 in fp32 is not what .* \(nan of its"),
        (lambda value: value[None].expand(0, 0), r"Metal does not run resnet18 \(.*\); pass --device cpu$"),
    ],
)
def test_what_metal_computes_otherwise_than_the_cpu_is_refused(
    wrong: Any, message: str, mac: Metal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_right = Network._values

    def run_wrong(self: Network, frames: Any, taps: Any = None) -> Any:
        values = run_right(self, frames, taps)
        return {tap: wrong(value) for tap, value in values.items()} if self.device == "mps" else values

    monkeypatch.setattr(Network, "_values", run_wrong)
    with pytest.raises(BackboneError, match=f"^--device mps: {message}"):
        backbones.build("resnet18", weights="random", device="mps")


def test_an_operator_that_metal_lacks_is_one_sentence(mac: Metal, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(self: Network, frames: Any, taps: Any = None) -> Any:
        if self.device == "mps":
            raise NotImplementedError("The operator 'aten::x' is not implemented for MPS.\nSet a variable.")
        return {}

    monkeypatch.setattr(Network, "forward", lacks)
    with pytest.raises(BackboneError, match=r"does not run resnet18 \(The operator 'aten::x' .* for MPS.\); pass"):
        backbones.build("resnet18", weights="random", device="mps")


def test_a_network_with_float64_is_refused(mac: Metal) -> None:
    double = backbones.build("resnet18", weights="random", device="cpu")
    assert double.module is not None
    double.module.fc.double()  # type: ignore[operator, union-attr]
    with pytest.raises(BackboneError, match=r"^--device mps: fc.weight of resnet18 is float64, .*; pass --device cpu$"):
        metal.reference(double)


def test_a_state_file_is_not_tried_again(mac: Metal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbones.save_state(backbones.build("resnet18", weights="random", device="mps"), tmp_path / "state")
    monkeypatch.setattr(metal, "check", None)
    assert backbones.build("resnet18", device="mps", state_file=tmp_path / "state").device == "mps"


class _Float64(TorchDispatchMode):
    """The operators that made a tensor of float64."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype is torch.float64 for leaf in tree_leaves(result)):
            self.found.add(str(func))
        return result


@pytest.mark.parametrize("name", [name for name in IMAGES if name != "pose:keypoint-rcnn"])
def test_no_network_of_images_has_or_makes_float64(name: str) -> None:
    """Metal refuses it. Keypoint R-CNN chooses boxes by their numbers, which an outline has none of."""
    outlined = backbones.outline(name)
    assert isinstance(outlined, Network)
    assert [key for key, value in outlined.module.state_dict().items() if value.dtype is torch.float64] == []
    with _Float64() as mode:
        outlined.tensors(np.zeros((1, *outlined.info.frames_shape), np.uint8), tuple(outlined.taps))
    assert mode.found == set()


def test_float64_would_be_found() -> None:
    with _Float64() as mode:
        torch.zeros(2).double().sum()
    assert mode.found == {"aten._to_copy.default", "aten.sum.default"}


def test_doctor_says_how_an_apple_gpu_is_asked_for(mac: Metal) -> None:
    assert doctor._devices() == ["cpu; a GPU of Apple is here, and is asked for by featurize --device mps"]
