"""The CNN + LSTM networks: their published layers, parity with the plain layers, padding, a training from frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layer_counts import TABLES, assert_rows
from torch import Tensor, nn

from reelbank.heads import predict, train_head
from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.batches import scaled
from reelbank.heads.models import HeadShape, build_head, plan_of
from reelbank.heads.models.listing import describe_head
from reelbank.heads.models.plans import ArrayShape
from reelbank.heads.runs.checkpoints import Predictor
from reelbank.store.testing import write_store

NAME = "cnn-lstm"
NETS: dict[str, tuple[tuple[str, ...], int]] = {
    "hmdb51_cnn_lstm_model1": (("net=1",), 501_619),
    "hmdb51_cnn_lstm_model2": ((), 502_067),
    "hmdb51_cnn_lstm_model3_32_64_128": (("net=3",), 696_275),
    "hmdb51_cnn_lstm_model3_64_128_256": (("net=3", "width=256"), 1_686_643),
}
"""{their name in the tables: (options, numbers)}."""


def built(**options: Any) -> Any:
    array = ArrayShape(backbone="frames:112", tap="rgb", shape=(3, 16, 16), dtype="uint8", num_steps=4)
    shape = HeadShape(taps={}, outputs={"label": 5}, num_steps=0, arrays={"frames": array})
    return build_head(NAME, shape, options)


def frames_of(lengths: tuple[int, ...], size: int = 16) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(len(lengths), max(lengths), 3, size, size, generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"frames": frames * mask[..., None, None, None]}, {"frames": mask}


@pytest.mark.parametrize("what", NETS)
def test_layers_are_the_published_ones(what: str) -> None:
    options, total = NETS[what]
    facts = describe_head(NAME, options, outputs=51)
    assert facts["parameters"]["total"] == TABLES[what]["total"] == total
    given = {name: int(value) for name, _, value in (option.partition("=") for option in options)}
    with torch.device("meta"):
        head = build_head(NAME, HeadShape(taps={}, outputs={"label": 51}, num_steps=0), given)
    assert_rows(what, head, {"fc": "classifiers.label"})
    assert facts["stages"][0]["trained"] == total


def test_quoted_names_are_convolutions_and_batch_norms() -> None:
    layers = {name for name, _ in built().named_parameters() if name.startswith("cnn.")}
    assert layers == {f"cnn.{i}.{kind}" for i in (0, 1, 4, 5, 8, 9) for kind in ("weight", "bias")}


def _plain(net: int) -> nn.Sequential:
    def block(before: int, channels: int) -> list[nn.Module]:
        norm = [] if net == 1 else [nn.BatchNorm2d(channels)]
        return [nn.Conv2d(before, channels, 3, padding=1), *norm, nn.ReLU() if net == 1 else nn.LeakyReLU(0.01)]

    layers: list[nn.Module] = []
    for before, channels in ((3, 32), (32, 64), (64, 128)):
        layers += block(before, channels) + (block(channels, channels) if net == 3 else [])
        layers += [nn.MaxPool2d(2), *([nn.Dropout(0.3)] if net == 3 else [])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("net", [1, 2, 3])
@pytest.mark.parametrize("training", [False, True])
def test_it_equals_the_plain_layers(net: int, training: bool) -> None:
    head = built(net=net).train(training)
    torch.manual_seed(0)
    for name, value in head.state_dict().items():
        if name.endswith(("running_mean", "cnn.1.bias")):
            value.normal_()
    plain, lstm, linear = _plain(net).train(training), nn.LSTM(128, 256, batch_first=True), nn.Linear(256, 5)
    plain.load_state_dict(head.cnn.state_dict())
    lstm.load_state_dict(head.lstm.state_dict())
    linear.load_state_dict(head.classifiers["label"].state_dict())
    arrays, masks = frames_of((4, 4, 4), 24)
    torch.manual_seed(1)
    found = head(arrays, masks)["label"]
    torch.manual_seed(1)
    vectors = plain(arrays["frames"].flatten(0, 1)).unflatten(0, (3, 4))
    expected = linear(lstm(vectors)[0][:, -1])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_padding_changes_neither_answer_nor_batch_norm() -> None:
    head = built()
    arrays, masks = frames_of((4, 2, 1))
    dirty = {"frames": torch.where(masks["frames"][..., None, None, None], arrays["frames"], torch.tensor(7.0))}
    head.train()
    found = [head(one, masks)["label"] for one in (arrays, dirty)]
    assert torch.equal(*found)
    head.eval()
    together = head(dirty, masks)["label"]
    for clip, length in enumerate((4, 2, 1)):
        alone = head({"frames": arrays["frames"][clip : clip + 1, :length]}, {"frames": torch.ones(1, length) > 0})
        torch.testing.assert_close(alone["label"][0], together[clip])


def test_dropout_is_on_what_the_lstm_gives() -> None:
    head, (arrays, masks) = built(dropout=0.3).train(), frames_of((4, 4))
    seen: list[Tensor] = []
    head.classifiers["label"].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    head(arrays, masks)
    assert 0.1 < (seen[0] == 0).float().mean() < 0.5
    head.eval()(arrays, masks)
    assert not (seen[1] == 0).any()


def test_frames_are_read_over_255_and_no_more() -> None:
    stored = torch.arange(12, dtype=torch.uint8).view(1, 1, 2, 2, 3) * 20
    found = scaled(stored, "unit")
    assert found.shape == (1, 1, 3, 2, 2)
    torch.testing.assert_close(found[0, 0, 1], stored[0, 0, :, :, 1] / 255)


@pytest.mark.parametrize("net", [1, 2, 3])
def test_maps_of_cam_are_the_last_before_the_global_pool(net: int) -> None:
    plan, head = plan_of(NAME, {"net": net}), built(net=net)
    assert plan is not None
    seen: list[Tensor] = []
    head.get_submodule(plan.cam["frames"]).register_forward_hook(lambda *given: seen.append(given[2]))
    head.cnn[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    head.eval()(*frames_of((2, 2)))
    assert seen[0].shape == (4, 128, 2, 2) and torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("option", "said"),
    [("net=4", "the networks are 1, 2, 3"), ("width=6", "multiple of 4"), ("dropout=1.0", "below 1")],
)
def test_networks_that_there_are_not_are_refused(option: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        describe_head(NAME, (option,))


def test_it_is_trained_from_stored_frames_and_applied(tmp_path: Path) -> None:
    """Two colours; clips of one to three frames."""
    rng = np.random.default_rng(0)
    clips = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "split": ("train", "train", "val")[i % 3]} for i in range(18)]
    frames = []
    for i in range(len(clips)):
        picture = rng.integers(0, 120, (1 + i % 3, 16, 16, 3), dtype=np.uint8)
        picture[..., i % 2] += 120
        frames.append(picture)
    store = write_store(tmp_path / "s.zarr", {"rgb": frames}, clips, backbone="frames:112")
    config = TrainConfig.of(
        store=(store.path,), head=NAME, target="none", report=False, epochs=12, lr=1e-3, run=tmp_path / "run"
    )
    assert (config.optimizer.batch, config.optimizer.name, config.optimizer.weight_decay) == (8, "adam", 0.0)
    assert TrainConfig.of(store=(store.path,), head=NAME).optimizer.lr == 1e-4
    result = train_head(config)
    assert result.results["splits"]["val"]["metrics"]["accuracy"]["value"] == 1.0
    assert Predictor.load(tmp_path / "run" / "best.safetensors").shape.arrays["frames"].shape == (3, 16, 16)
    assert len(predict(tmp_path / "run", store.path).clip_ids) == len(clips)
