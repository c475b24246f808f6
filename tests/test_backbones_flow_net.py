"""The convolutions of OpticalFlowNet as a backbone: it reads the fields of `flow`, and has the weights of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline import run, store_of
from safetensors.torch import save_file

import reelbank.store
from reelbank.extract import backbones
from reelbank.extract.backbones.description import BackboneError
from reelbank.extract.backbones.flow_trunk import FlowTrunk, fields_of
from reelbank.extract.backbones.identity import rest_digest
from reelbank.extract.backbones.network import Network
from reelbank.extract.run.steps import plan_steps
from reelbank.testing import backbones as suite

NAME = "flow-net"


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


def test_channels_are_the_fields_of_flow_in_px_x_before_y(network: Network) -> None:
    """x0, y0, x1, y1, ...: of a texture that moves right, then down (SYSTEMS.md 5.3)."""
    flow = backbones.build("flow", device="cpu")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (30, 30), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    texture = (coarse[:240, :240] // 2 + rng.integers(0, 128, (240, 240), dtype=np.uint8) // 2).astype(np.uint8)
    places = [(8, 8), *((8, 8 - 2 * min(i, 4)) for i in range(1, 5)), *((8 - 2 * i, 0) for i in range(1, 5))]
    frames = np.stack([texture[top : top + 224, left : left + 224] for top, left in places])
    channels = fields_of(torch.from_numpy(frames[None]))
    assert channels.shape == (1, 16, 224, 224)
    pairs = np.stack([frames[:-1], frames[1:]], axis=1)
    stored = flow.forward(pairs, ("flow",))["flow"]  # (8, 2, 224, 224)
    np.testing.assert_array_equal(channels[0].numpy(), stored.reshape(16, 224, 224).astype(np.float32))
    means = channels[0].mean(dim=(1, 2))
    assert (means[0:8:2] > 1).all() and (means[1:8:2].abs() < 0.5).all(), "first to the right"
    assert (means[9::2] > 1).all() and (means[8::2].abs() < 0.5).all(), "then down"
    given = network.normalise(frames[None])
    torch.testing.assert_close(given, channels, rtol=1e-6, atol=1e-6)


def test_tap_is_what_the_two_convolutions_give(network: Network) -> None:
    frames = suite.steps(network.info, 2)
    assert frames.shape == (2, 9, 224, 224)
    found = network.tensors(frames, ("pool2",))["pool2"]
    trunk = FlowTrunk()
    trunk.load_state_dict(network.module.state_dict())
    with torch.no_grad():
        expected = trunk(fields_of(torch.from_numpy(frames)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.std() > 1e-3


def test_weights_are_those_of_a_run_with_the_cut_of_its_fields(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk = FlowTrunk(clip_px=0.5)
    tensors = {f"head.net.{name}": value for name, value in trunk.state_dict().items()}
    none = {"kind": "none"}
    entry = {"prefix": "head.net.", "weights": none, "sha256": rest_digest({}, none)}
    header = {"head": "flow-net", "backbones": {NAME: entry}}
    folder = tmp_path / "run"
    folder.mkdir()
    save_file(
        {**tensors, "head.fc1.weight": torch.zeros(2)},
        folder / "best.safetensors",
        metadata={"reelbank": json.dumps(header)},
    )
    (folder / "results.json").write_text("{}")
    backbone = backbones.build(NAME, weights=folder, device="cpu")
    assert backbone.module is not None and backbone.weights["kind"] == "run"
    assert float(backbone.module.state_dict()["clip_px"]) == 0.5
    assert isinstance(backbone, Network)
    frames = suite.steps(backbone.info, 1)
    with torch.no_grad():
        expected = trunk(fields_of(torch.from_numpy(frames)).clamp(-0.5, 0.5))
    torch.testing.assert_close(backbone.tensors(frames)["pool2"], expected, rtol=1e-4, atol=1e-5)


def test_published_weights_are_not_asked_for_in_vain() -> None:
    with pytest.raises(BackboneError, match="'flow-net' has no published weights; give --weights RUN, a run of"):
        backbones.build(NAME, device="cpu")


def test_store_has_the_first_nine_frames(tmp_path: Path, synth_set: Path, network: Network) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    video = sorted((synth_set / "videos").iterdir())[0]
    (folder / "manifest.csv").write_text(f"clip_id,video\na,{video}\n")
    run(folder, model=(NAME,), weights="random", sampling=("position:0",), workers=1, batch=1)
    run(folder, model=("flow",), sampling=("consecutive:9:zero",), tap=("flow",), workers=1, batch=9)
    store = reelbank.store.open(store_of(folder, NAME))
    assert store.clips.status.tolist() == [1], store.clips.reason.tolist()
    fields = reelbank.store.open(store_of(folder, "flow")).read("flow", 0)[0, :8].reshape(1, 16, 224, 224)
    assert np.abs(fields).max() > 0
    with torch.no_grad():
        expected = network.module(torch.from_numpy(fields.astype(np.float32)))
    np.testing.assert_allclose(store.read("pool2", 0)[0], expected.numpy(), rtol=2e-3, atol=2e-3)


def test_clip_of_fewer_frames_is_refused() -> None:
    with pytest.raises(ValueError, match=f"{NAME} reads 9 frames per step, the clip has 8"):
        plan_steps(backbones.describe(NAME), np.arange(1), 0, 8)
