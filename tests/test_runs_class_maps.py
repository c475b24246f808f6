"""Grad-CAM: by the formula on nets worked out by hand, over which pictures it is drawn, what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from reelbank.cli import main
from reelbank.heads import ExplainConfig, TrainConfig, TrainingError, explain, predict, train_head
from reelbank.heads.models import HEADS, HeadShape, build_head, plan_of
from reelbank.heads.models.plans import ArrayShape
from reelbank.heads.reports.attention_maps import heat_over, spread_to
from reelbank.heads.reports.flow_colors import flow_picture
from reelbank.heads.runs.class_maps import class_maps
from reelbank.heads.runs.grad_cam import cam_input, grad_cams, mean_grad_cams
from reelbank.store.testing import write_store

COUNT, STEPS, SIDE = 12, 3, 8
CLIPS = [{"clip_id": f"clip_{i:02d}", "label": "ab"[i % 2], "split": "train" if i < 8 else "val"} for i in range(COUNT)]
HEAD, BARE = "array_head:ROW", "array_head:WITHOUT_CAM"
pytestmark = pytest.mark.usefixtures("pictures_not_rendered")


class Hand(nn.Module):
    """1x1 convolution of 2 channels to 2, ReLU, mean over places and steps, a linear layer to 3 classes."""

    MIXED = ((1.0, -1.0), (0.5, 2.0))
    WEIGHTS = ((3.0, -0.5), (-1.0, 0.5), (-3.0, -1.0))

    def __init__(self, after: Callable[[Tensor], Tensor] = lambda logits: logits) -> None:
        super().__init__()
        self.conv, self.relu, self.linear = nn.Conv2d(2, 2, 1, bias=False), nn.ReLU(), nn.Linear(2, 3)
        self.after = after
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor(self.MIXED)[:, :, None, None])
            self.linear.weight.copy_(torch.tensor(self.WEIGHTS))
            self.linear.bias.zero_()

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen = self.relu(self.conv(arrays["maps"].flatten(0, 1)))
        return {"label": self.after(self.linear(seen.mean(dim=(0, 2, 3))))[None]}


def given(steps: int = 2) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    values = torch.rand(1, steps, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    return {"maps": values}, {"maps": torch.ones(1, steps, dtype=torch.bool)}


def by_hand(values: Tensor) -> np.ndarray:
    """(3, T, h, w): here d y_c / d A_k is the weight over the number of places and steps."""
    mixed = np.einsum("kj,tjhw->tkhw", np.array(Hand.MIXED), values[0].double().numpy())
    seen = np.maximum(mixed, 0)
    return np.maximum(np.einsum("ck,tkhw->cthw", np.array(Hand.WEIGHTS), seen), 0) / (seen[:, 0].size)


def test_map_is_that_of_the_closed_form_and_of_the_logit_before_softmax() -> None:
    arrays, masks = given()
    found = grad_cams(Hand(), "relu", arrays, masks, (0, 1, 2)).numpy()
    expected = by_hand(arrays["maps"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    assert expected[0].any() and expected[1].any()
    assert not found[2].any(), "no weight of class 2 is above 0"
    # What a probability's gradient gives has another shape, not only another scale: of class 1 the weights' difference
    # to their mean under p.
    probable = grad_cams(Hand(lambda logits: logits.softmax(0)), "relu", arrays, masks, (1,)).numpy()
    assert not np.allclose(spread_to(probable[0, 0], (4, 5)), spread_to(found[1, 0], (4, 5)), atol=0.03)


def test_head_is_left_as_it_was() -> None:
    head = Hand().train()
    head.conv.weight.requires_grad_(False)
    arrays, masks = given()
    first = grad_cams(head, "conv", arrays, masks, (0,))
    assert head.training
    assert [one.requires_grad for one in head.parameters()] == [False, True, True]
    assert all(one.grad is None for one in head.parameters())
    assert not head.conv._forward_hooks
    assert torch.equal(first, grad_cams(head, "conv", arrays, masks, (0,)))


def test_what_follows_the_module_may_work_in_place() -> None:
    head = Hand()
    arrays, masks = given()
    plain = grad_cams(head, "conv", arrays, masks, (0,))
    head.relu = nn.ReLU(inplace=True)
    assert torch.equal(plain, grad_cams(head, "conv", arrays, masks, (0,)))


def test_modules_without_maps_are_refused() -> None:
    arrays, masks = given()
    with pytest.raises(TrainingError, match="no module 'layer9'"):
        grad_cams(Hand(), "layer9", arrays, masks, (0,))
    with pytest.raises(TrainingError, match=r"module 'linear' gave outputs of \[\(3,\)\]"):
        grad_cams(Hand(), "linear", arrays, masks, (0,))

    class Twice(Hand):
        def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {"label": super().forward(arrays, masks)["label"] + super().forward(arrays, masks)["label"]}

    with pytest.raises(TrainingError, match="expected one"):
        grad_cams(Twice(), "relu", arrays, masks, (0,))
    head = Hand()
    with torch.no_grad():
        head.linear.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="gradients at module 'relu' are not finite"):
        mean_grad_cams([head], "relu", arrays, masks, (0,), masks["maps"][0])


def test_only_valid_steps_have_maps_and_of_several_heads_the_mean_is_taken() -> None:
    arrays, masks = given(3)
    other = Hand()
    with torch.no_grad():
        other.linear.weight.mul_(3)
    mask = torch.tensor([True, False, True])
    found = mean_grad_cams([Hand(), other], "relu", arrays, masks, (1,), mask)
    np.testing.assert_allclose(found, 2 * by_hand(arrays["maps"])[1:2, [0, 2]], rtol=1e-5, atol=1e-9)


def test_large_map_is_bilinear_and_from_0_to_1_and_one_without_contrast_is_0() -> None:
    values = np.array([[0.0, 2.0], [4.0, 1.0]])
    expected = nn.functional.interpolate(torch.from_numpy(values)[None, None], size=(6, 10), mode="bilinear")[0, 0]
    large = spread_to(values, (6, 10))
    scaled = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(large, scaled, atol=1e-6)
    assert (large.min(), large.max()) == (0, 1)
    for flat in (np.zeros((7, 7)), np.full((7, 7), 3.5)):
        assert not spread_to(flat, (6, 10)).any()
    np.testing.assert_allclose(spread_to(1e-12 * values, (6, 10)), large, atol=1e-6)
    with pytest.raises(ValueError, match="1 of 4 values of the map are not finite"):
        spread_to(np.array([[0, np.nan], [1, 2]]), (6, 10))
    image = np.full((6, 10, 3), 100, np.uint8)
    assert (heat_over(spread_to(np.zeros((7, 7)), (6, 10)), image) == [50, 50, 50 + round(0.3 * 128)]).all()


@pytest.mark.parametrize("kind", ["bytes", "px"])
def test_flow_is_white_where_nothing_moves_and_its_hue_is_the_direction(kind: str) -> None:
    fields = np.zeros((4, 2, 3), np.float32)
    fields[[0, 2], 0, 0] = 5  # to the right
    fields[[1, 3], 0, 1] = 5  # down
    fields[[0, 2], 0, 2] = -5  # to the left
    fields[[0, 2], 1, 2] = 2.5  # half as far
    values = fields if kind == "px" else np.round(128 + fields * 255 / 40).astype(np.uint8)
    picture = flow_picture(values).astype(int)
    assert picture[1, 0].tolist() == [255, 255, 255]
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[0, 2].tolist() == [0, 255, 255]
    assert picture[0, 1, 1] == 255 and picture[0, 1, 2] == 0
    np.testing.assert_allclose(picture[1, 2], [255, 127, 127], atol=3)
    noise = np.zeros((2, 2, 2), np.float32)
    noise[0] = 0.1
    assert flow_picture(noise)[0, 0].tolist() == [255, 229, 229]
    with pytest.raises(ValueError, match="expected"):
        flow_picture(np.zeros((3, 4, 4)))


# --- heads of this package


SHAPES = {
    "frames": ArrayShape(backbone="resnet34", tap="layer3", shape=(256, 14, 14), dtype="float16", num_steps=2),
    "flow": ArrayShape(backbone="flow-resnet34", tap="layer3", shape=(256, 14, 14), dtype="float16", num_steps=1),
}


@pytest.mark.parametrize("name", ["ego-rnn", "ego-two-stream", "flow-resnet34"])
def test_heads_have_a_map_of_each_step_of_their_inputs(name: str) -> None:
    plan = plan_of(name, {})
    assert plan is not None
    shape = HeadShape(taps={}, outputs={"label": 2}, num_steps=0, arrays=SHAPES)
    torch.manual_seed(0)
    head = build_head(name, shape).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    arrays = {key: torch.rand(1, one.num_steps, *one.shape) for key, one in SHAPES.items()}
    masks = {key: torch.ones(1, one.num_steps, dtype=torch.bool) for key, one in SHAPES.items()}
    before = head(arrays, masks)["label"]
    assert plan.cam
    for key, module in plan.cam.items():
        maps = grad_cams(head, module, arrays, masks, (0, 1))
        assert maps.shape == (2, SHAPES[key].num_steps, 7, 7)
        assert maps.any()
    assert torch.equal(before, head(arrays, masks)["label"])


def test_input_is_pictures_unless_another_is_asked_for() -> None:
    two = plan_of("ego-two-stream", {})
    assert cam_input("ego-two-stream", two) == "frames"
    assert cam_input("ego-two-stream", two, "flow") == "flow"
    assert cam_input("flow-resnet34", plan_of("flow-resnet34", {})) == "flow"
    with pytest.raises(TrainingError, match="--input sound: head 'ego-two-stream' has a Grad-CAM of flow, frames"):
        cam_input("ego-two-stream", two, "sound")
    with pytest.raises(TrainingError, match=r"'mlp' reads vectors, .* is of cnn-lstm, ego-rnn, ego-two-stream"):
        cam_input("mlp", None)
    with pytest.raises(TrainingError, match="'map-transformer' with these options names no module"):
        cam_input("map-transformer", plan_of("map-transformer", {}))
    with pytest.raises(TrainingError, match="names no module"):
        cam_input("ego-two-stream", plan_of("ego-two-stream", {"fuse": "average"}))
    said = {name for name in HEADS if (plan := plan_of(name, {})) is not None and plan.cam}
    assert said >= {"ego-rnn", "ego-two-stream", "flow-resnet34"}


# --- runs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of frames and of fields of the same clips, and a run on each; `plain` has no module for it."""
    folder = tmp_path_factory.mktemp("mapped")
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (STEPS, SIDE, SIDE, 3), dtype=np.uint8) for _ in range(COUNT)]
    fields = [rng.integers(0, 256, (7, 2, SIDE, SIDE), dtype=np.uint8) for _ in range(COUNT)]
    write_store(folder / "frames.zarr", {"rgb": frames}, CLIPS, backbone="frames", frames=[[0, 10, 20]] * COUNT)
    write_store(
        folder / "fields.zarr", {"fields": fields}, CLIPS, backbone="flow:images-8",
        frames=[[*range(0, 21, 3)]] * COUNT,
    )  # fmt: skip
    given: dict[str, Any] = {"target": "none", "epochs": 1, "report": False}
    for run, store, head, options in (
        ("seen", "frames", HEAD, ()), ("moved", "fields", HEAD, ("stacks=true",)), ("plain", "frames", BARE, ()),
    ):  # fmt: skip
        asked = {**given, "head": head, "head_option": options}
        train_head(TrainConfig.of(store=(folder / f"{store}.zarr",), run=folder / run, **asked))
    return folder


def explained(made: Path, run: str = "seen", **asked: Any) -> Any:
    given = {"clip": "clip_01", "gradcam": True, "out": made / "out.png", **asked}
    return explain(ExplainConfig(run=made / run, **given))


def test_maps_of_a_run_are_those_of_its_head_over_its_frames(made: Path) -> None:
    result = explained(made, clip=("clip_05", "clip_01"), maps=made / "maps.npz", classes=("b", "a"))
    said = predict(made / "seen", made / "frames.zarr")
    assert said.predicted is not None
    for place, number in enumerate((5, 1)):
        (one,) = result.clips[place].runs
        assert [of_class.name for of_class in one.classes] == ["b", "a"]
        assert (one.input, one.frames.tolist(), len(one.pictures)) == ("maps", [0, 10, 20], STEPS)
        assert one.prediction["predicted"] == said.predicted[number]
        expected = said.probabilities["label"][number]
        assert [of_class.probability for of_class in one.classes] == pytest.approx([expected[1], expected[0]], abs=1e-6)
        assert one.prediction["true_probability"] == pytest.approx(expected[number % 2], abs=1e-6)
        for of_class in one.classes:
            assert of_class.values.shape == (STEPS, SIDE, SIDE)
            drawn = [
                heat_over(spread_to(v, (SIDE, SIDE)), image)
                for v, image in zip(of_class.values, one.pictures, strict=True)
            ]
            assert np.array_equal(np.stack(one.overlays(of_class)), np.stack(drawn))
    with np.load(made / "maps.npz") as stored:
        assert stored["classes-1-0"].tolist() == ["b", "a"]
        assert np.array_equal(stored["gradcam-1-0"][1], result.clips[1].runs[0].classes[1].values)


def test_without_a_class_the_predicted_one_is_shown(made: Path) -> None:
    (one,) = explained(made).clips[0].runs
    assert [of_class.name for of_class in one.classes] == [one.prediction["predicted"]]


def test_stack_has_one_map_over_its_flow_in_colours_or_over_the_frame_of_its_middle(made: Path) -> None:
    result = explained(made, "moved", clip="clip_02")
    (one,) = result.clips[0].runs
    # Of 7 images the middle stack begins at the first; its middle is image 2, of frame 6.
    assert (one.frames.tolist(), one.source, one.classes[0].values.shape) == ([6], "flow", (1, SIDE, SIDE))
    over = explained(made, "moved", clip="clip_02", frames=made / "frames.zarr")
    assert over.clips[0].runs[0].source.endswith("frames.zarr")
    assert any("1 of 1 pictures are of the nearest frame" in note for note in over.notes)
    assert any(note.startswith("Flow: hue says") for note in result.notes)


def test_rows_are_of_each_run_and_class_over_what_the_run_reads_itself(made: Path) -> None:
    """The function that a recipe calls: three models and two classes, one picture and one file of maps."""
    runs = [made / "seen", made / "moved"]
    result = class_maps(runs, ["clip_09", "clip_02"], ["a", "b"], picture=made / "all.png", maps=made / "all.npz")
    for clip in result.clips:
        assert [(Path(one.run).name, one.input, one.source == "flow") for one in clip.runs] == [
            ("seen", "maps", False), ("moved", "stacks", True),
        ]  # fmt: skip
        assert all([of_class.name for of_class in one.classes] == ["a", "b"] for one in clip.runs)
    with Image.open(made / "all.png") as picture:
        assert picture.format == "PNG"
    with np.load(made / "all.npz") as stored:
        assert {*stored} >= {f"gradcam-{i}-{j}" for i in range(2) for j in range(2)}
        assert stored["runs"].tolist() == [str(run) for run in runs]
        assert stored["gradcam-0-1"].shape == (2, 1, SIDE, SIDE)


def test_map_that_is_0_is_drawn_as_0_and_said(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*given: Any) -> np.ndarray:
        maps = np.zeros((len(given[4]), STEPS, SIDE, SIDE), np.float32)
        maps[1:, 0, 0, 0] = 1
        return maps

    monkeypatch.setattr("reelbank.heads.runs.class_maps.mean_grad_cams", nothing)
    result = explained(made, classes=("a", "b"))
    first, second = result.clips[0].runs[0].classes
    assert (first.is_zero, second.is_zero, second.num_zero) == (True, False, STEPS - 1)
    assert "clip_01, seen: the map of a is 0 everywhere: no place there speaks for it." in result.notes
    assert (
        f"clip_01, seen: the map of b is 0 throughout {STEPS - 1} of {STEPS} steps: no place there speaks for it."
        in (result.notes)
    )
    assert "a, probability" in result.text() and "(0 everywhere)" in result.text()
    plain = heat_over(np.zeros((SIDE, SIDE), np.float32), result.clips[0].runs[0].pictures[0])
    assert np.array_equal(result.clips[0].runs[0].overlays(first)[0], plain)


@pytest.mark.parametrize(
    ("run", "asked", "said"),
    [
        ("seen", {"classes": "aa"}, r"seen: --class 'aa' is none of the 2 classes of this run; the nearest are 'a'"),
        ("seen", {"input": "stacks"}, r"seen: --input stacks: head 'array_head:ROW' has a Grad-CAM of maps"),
        ("seen", {"clip": "clip_99"}, r"--clip 'clip_99': .*frames.zarr has no such clip"),
        ("plain", {}, r"plain: head 'array_head:WITHOUT_CAM' with these options names no module"),
    ],
)
def test_what_is_not_there_is_refused(run: str, asked: dict[str, Any], said: str, made: Path) -> None:
    with pytest.raises(TrainingError, match=said):
        explained(made, run, **asked)


def test_run_that_predicts_no_class_is_refused(made: Path, tmp_path: Path) -> None:
    clips = [{**clip, "kcal": float(i)} for i, clip in enumerate(CLIPS)]
    frames = [np.full((STEPS, SIDE, SIDE, 3), i, np.uint8) for i in range(COUNT)]
    write_store(tmp_path / "k.zarr", {"rgb": frames}, clips, backbone="frames")
    asked = {"head": HEAD, "label": "none", "target": "kcal", "bins": 5, "keep": "best", "epochs": 1, "report": False}
    train_head(TrainConfig.of(store=(tmp_path / "k.zarr",), run=tmp_path / "run", **asked))
    with pytest.raises(TrainingError, match="Grad-CAM is of a class, and this run predicts none"):
        explain(ExplainConfig(run=tmp_path / "run", clip="clip_01", gradcam=True))


@pytest.mark.parametrize("asked", [{"classes": ("a",)}, {"input": "maps"}])
def test_options_of_grad_cam_need_it(asked: dict[str, Any]) -> None:
    flag = "--class" if "classes" in asked else "--input"
    with pytest.raises(ValueError, match=re.escape(f"{flag} belongs to --gradcam")):
        ExplainConfig(run=Path("r"), clip=("a",), **asked)


def test_command_writes_a_picture_of_its_own_name(made: Path) -> None:
    line = ["explain", "--run", str(made / "seen"), "--clip", "clip_01", "--gradcam", "--class", "a", "--json"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["picture"] == str(made / "seen" / "gradcam-clip_01.png")
    assert Path(found["picture"]).is_file()
    (one,) = found["clips"][0]["runs"]
    assert [of_class["class"] for of_class in one["classes"]] == ["a"]
    said = CliRunner().invoke(main, line[:-1])
    assert "Grad-CAM of a, probability" in said.stdout and f"Picture: {found['picture']}" in said.stdout
