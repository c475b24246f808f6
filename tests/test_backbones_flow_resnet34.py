"""The flow net: its channels, its stem made of one of images, the plain network of torchvision, and a store of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from pipeline import run, store_of
from torch import Tensor, nn

import reelbank.store
from reelbank.extract import backbones
from reelbank.extract.backbones import flow_resnet34, resnet
from reelbank.extract.backbones.network import Network
from reelbank.extract.run.steps import plan_steps
from reelbank.extract.weights import torchvision_shim
from reelbank.extract.weights.files import WeightsError
from reelbank.testing import backbones as suite

NAME = "flow-resnet34"
NUM_PAIRS = 8  # of the clip below


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def network() -> Network:
    backbone = backbones.build(NAME, weights="random", device="cpu")
    assert isinstance(backbone, Network)
    return backbone


def torchvision_resnet34() -> nn.Module:
    torchvision_shim.ensure()
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module: nn.Module = torchvision.models.resnet34(weights=None)
    return module.eval()


def test_it_has_the_parameters_of_the_published_net_without_its_classifier(network: Network) -> None:
    """SYSTEMS.md 2.4: 21,337,917 with Linear(512, 61), whose stem has 31,360."""
    assert sum(tensor.numel() for tensor in network.module.parameters()) == 21_337_917 - (512 + 1) * 61
    stem = network.module.get_parameter("conv1.weight")
    assert (tuple(stem.shape), stem.numel()) == ((64, 10, 7, 7), 31_360)
    assert "fc.weight" not in network.module.state_dict()


def test_channels_are_x_and_y_of_each_pair_normalised_as_one_gray_channel(network: Network) -> None:
    stacks = np.random.default_rng(0).integers(0, 256, (2, 5, 2, 224, 224), np.uint8)
    given = network.normalise(stacks).numpy()
    assert given.shape == (2, 10, 224, 224)
    mean, std = (0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3
    assert (round(mean, 12), round(std, 12)) == (0.449, 0.226)
    for pair in range(5):
        for component in range(2):  # x1, y1, x2, y2, ...
            expected = (stacks[:, pair, component] / 255 - mean) / std
            np.testing.assert_allclose(given[:, 2 * pair + component], expected, rtol=1e-5, atol=1e-6)


def test_taps_are_those_of_torchvisions_network(network: Network) -> None:
    plain = torchvision_resnet34()
    plain.conv1 = nn.Conv2d(10, 64, 7, 2, 3, bias=False)
    plain.fc = nn.Identity()
    plain.load_state_dict(network.module.state_dict())
    seen: dict[str, Tensor] = {}
    for tap in ("layer3", "layer4"):
        plain.get_submodule(tap).register_forward_hook(lambda *given, tap=tap: seen.update({tap: given[2]}))
    stacks = suite.steps(network.info, 2)
    with torch.inference_mode():
        seen["pool"] = plain.eval()(network.normalise(stacks))
    ours = network.tensors(stacks, tuple(network.taps))
    assert list(network.taps) == ["pool", "layer3", "layer4"]
    assert network.default_taps == ("pool",)
    for tap, value in ours.items():
        assert float((value - seen[tap]).abs().max()) <= 1e-5 * float(seen[tap].abs().max()), tap
    # What a run trains: the rest from a stored tap.
    with torch.inference_mode():
        again = resnet.rest(network.module, "layer3", ours["layer3"], ["layer4", "pool"])
    for tap in ("layer4", "pool"):
        assert float((again[tap] - ours[tap]).abs().max()) <= 1e-5 * float(ours[tap].abs().max()), tap


def test_file_of_images_gives_every_channel_the_mean_stem(tmp_path: Path) -> None:
    plain = torchvision_resnet34()
    torch.save(plain.state_dict(), tmp_path / "images.pth")
    backbone = backbones.build(NAME, weights=tmp_path / "images.pth", device="cpu")
    assert backbone.weights["kind"] == "file"
    assert backbone.module is not None
    found, given = backbone.module.state_dict(), plain.state_dict()
    mean = (given["conv1.weight"][:, 0] + given["conv1.weight"][:, 1] + given["conv1.weight"][:, 2]) / 3
    for channel in range(10):
        torch.testing.assert_close(found["conv1.weight"][:, channel], mean)
    for name in found.keys() - {"conv1.weight"}:
        assert torch.equal(found[name], given[name]), name
    assert given.keys() - found.keys() == {"fc.weight", "fc.bias"}


def test_file_of_flow_is_taken_as_it_is_and_another_stem_refused(network: Network, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    torch.save(state | {"fc.weight": torch.zeros(61, 512), "fc.bias": torch.zeros(61)}, tmp_path / "flow.pth")
    backbone = backbones.build(NAME, weights=tmp_path / "flow.pth", device="cpu")
    assert backbone.module is not None
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.module.state_dict().items())
    torch.save(state | {"conv1.weight": torch.zeros(64, 2, 7, 7)}, tmp_path / "pair.pth")
    with pytest.raises(WeightsError, match=r"conv1\.weight \(64, 2, 7, 7\) instead of \(64, 10, 7, 7\)"):
        backbones.build(NAME, weights=tmp_path / "pair.pth", device="cpu")


def test_published_file_is_that_of_resnet34() -> None:
    info = backbones.describe(NAME)
    assert info.sources == backbones.describe("resnet34").sources
    assert (info.source, info.step_frames, info.frames_shape) == ("flow", (0, 1, 2, 3, 4), (5, 2, 224, 224))
    assert flow_resnet34.NUM_CHANNELS == 10


def images(folder: Path, num_pairs: int) -> npt.NDArray[np.uint8]:
    """A clip `a` of flow images (T, 2, 256, 256), and its manifest."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(90, 166, (num_pairs, 2, 16, 16), dtype=np.uint8)
    made = coarse.repeat(16, axis=2).repeat(16, axis=3)
    for number, pair in enumerate(made, start=1):
        for component, image in zip("xy", pair, strict=True):
            path = folder / component / f"flow_{component}_{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    (folder / "manifest.csv").write_text("clip_id,video,split,label,rate_fps,flow_x,flow_y\na,rgb,train,x,15,x,y\n")
    return made


def test_store_has_a_stack_for_every_start_also_mirrored(tmp_path: Path, network: Network) -> None:
    crops = images(tmp_path, NUM_PAIRS)[:, :, 16:240, 16:240]
    run(tmp_path, model=(NAME,), weights="random", sampling=("all",), views="flip-always", workers=1, batch=4)
    store = reelbank.store.open(store_of(tmp_path, NAME))
    assert store.clips.status.tolist() == [1], store.clips.reason.tolist()
    stored = store.read("pool", 0)
    assert stored.shape == (2, NUM_PAIRS, 512)
    mirrored = crops[..., ::-1].copy()
    mirrored[:, 0] = 255 - mirrored[:, 0]  # x points the other way
    for view, pairs in enumerate((crops, mirrored)):
        stacks = np.stack([pairs[start : start + 5] for start in range(NUM_PAIRS - 4)])
        expected = network.forward(stacks)["pool"].astype(np.float64)
        # The last starts have no 5 pairs: they take the last stack.
        steps = expected[np.minimum(np.arange(NUM_PAIRS), NUM_PAIRS - 5)]
        np.testing.assert_allclose(stored[view], steps, rtol=0, atol=2e-3 * float(np.abs(steps).max()))


def test_clip_of_fewer_pairs_than_a_stack_is_refused() -> None:
    with pytest.raises(ValueError, match=f"{NAME} reads 5 frames per step, the clip has 4"):
        plan_steps(backbones.describe(NAME), np.arange(4), 0, 4)
    assert plan_steps(backbones.describe(NAME), np.arange(5), 0, 5).reads.tolist() == [[0, 1, 2, 3, 4]]
