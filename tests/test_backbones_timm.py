"""`timm:NAME` is timm's model with timm's preprocessing and timm's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reelbank.extract import backbones
from reelbank.extract.backbones.description import BackboneError
from reelbank.extract.backbones.network import Network
from reelbank.extract.inputs.preprocess import make
from reelbank.extract.video.frame import Frame
from reelbank.extract.weights import torchvision_shim

# Tokens, maps, maps with the channels last and tables of positions that no file holds.
MODELS = ("test_convnext", "test_resnet", "test_vit", "test_vit4")


def library() -> Any:
    torchvision_shim.ensure()
    import timm

    return timm


@pytest.mark.parametrize("name", MODELS)
def test_saved_model_gives_the_features_of_timm(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = library().create_model(name, pretrained=False).eval()  # with its classifier
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, tmp_path / "net.safetensors")
    backbone = backbones.build(f"timm:{name}", weights=tmp_path / "net.safetensors", device="cpu")
    assert isinstance(backbone, Network)
    frames = np.random.default_rng(0).integers(0, 256, (2, *backbone.info.frames_shape), dtype=np.uint8)
    with torch.inference_mode():
        features = module.forward_features(backbone.normalise(frames))
        pooled = module.forward_head(features, pre_logits=True)
    ours = backbone.tensors(frames, tuple(backbone.taps))
    torch.testing.assert_close(ours["pool"], pooled.flatten(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours["map" if features.ndim == 4 else "tokens"], features, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["timm:swin_tiny_patch4_window7_224", "dinov3"])
def test_tables_that_no_file_holds_are_made_again(name: str, tmp_path: Path) -> None:
    made = backbones.build(name, weights="random", device="cpu")
    backbones.save_state(made, tmp_path / "state")
    again = backbones.build(name, device="cpu", state_file=tmp_path / "state")
    assert made.module is not None
    assert again.module is not None
    tables = dict(made.module.named_buffers())
    assert set(tables) - set(made.module.state_dict()), "nothing is tested"
    for key, table in again.module.named_buffers():
        assert torch.equal(table, tables[key]), key


@pytest.mark.parametrize(
    "name", ["convnext_tiny.fb_in22k", "convnext_tiny.fb_in22k_ft_in1k_384", "resnet50.a1_in1k", "test_vit"]
)
def test_preprocessing_is_that_of_timm(name: str) -> None:
    """Within 2 levels of 255: the kernels of PIL and torch round differently."""
    import av

    timm = library()
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    ramp = np.linspace(0, 255, 320)[None, :, None] * np.linspace(0.2, 1, 240)[:, None, None]
    pixels = np.broadcast_to(ramp, (240, 320, 3)).astype(np.uint8).copy()
    published = timm.data.create_transform(**config)(Image.fromarray(pixels))
    backbone = backbones.outline(f"timm:{name}")
    assert isinstance(backbone, Network)
    prepared = make(backbone.preprocess)(Frame(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.architecture.mean, backbone.architecture.std))
    ours = (torch.from_numpy(prepared).permute(2, 0, 1) / 255 - mean) / std
    assert ours.shape == published.shape
    assert float(((ours - published) * std).abs().max()) <= 2 / 255


def test_weights_and_licence_are_those_timm_states() -> None:
    sources = backbones.describe("timm:convnext_tiny.fb_in22k").sources
    assert [source.url for source in sources] == [
        "https://huggingface.co/timm/convnext_tiny.fb_in22k/resolve/main/model.safetensors",
        "https://dl.fbaipublicfiles.com/convnext/convnext_tiny_22k_224.pth",
    ]
    assert [source.file_name for source in sources] == [
        "convnext_tiny.fb_in22k.safetensors",
        "convnext_tiny.fb_in22k.pth",
    ]
    assert {source.licence for source in sources} == {"apache-2.0"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_tinny", "has no model 'convnext_tinny'; the nearest names are .*convnext_tiny"),
        ("resnet50.nosuch", r"the nearest names are .*resnet50\."),
        ("nosuch", r"has no model 'nosuch'; .*timm.list_models\(\)"),
        ("hf-hub:someone/something", "has no model"),
        ("vit_base_patch16_sapiens2", r"reads config.input_size = \(3, 1024, 768\); only square"),
    ],
)
def test_model_that_cannot_be_had_is_refused_with_near_names(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        backbones.describe(f"timm:{name}")
