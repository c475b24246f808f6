"""Keypoint R-CNN: pooling and suppression by their definitions, and the whole of it against torchvision's own."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from reelbank.extract import backbones
from reelbank.extract.backbones import keypoint_detector, keypoint_rcnn
from reelbank.extract.backbones.description import BuildOptions
from reelbank.extract.backbones.network import Network
from reelbank.extract.backbones.pose import pose_taps
from reelbank.extract.inputs.keypoints import annotated_slots, slots_of
from reelbank.extract.weights import calibration

CANVAS_PX = (96, 128)
# Sums in another order, in float32; coordinates are up to 128 px.
TOLERANCE = 1e-3
NUM_PROPOSALS = 60


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(autouse=True)
def _few_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand boxes on so small a picture only cost time."""
    monkeypatch.setattr(keypoint_detector, "_PROPOSALS", NUM_PROPOSALS)


@functools.cache
def built() -> Network:
    definition = keypoint_rcnn.define("pose:keypoint-rcnn", pose_taps(), CANVAS_PX)
    backbone = definition.make(BuildOptions(weights="random", seed=3, device="cpu"))
    assert isinstance(backbone, Network)
    return backbone


def images(num_images: int = 2) -> npt.NDArray[np.uint8]:
    return calibration.cloud_images(7, *CANVAS_PX)[:num_images]


def sampled(level: Tensor, x: float, y: float) -> Tensor:
    """Bilinear value (C,) of a map (1, C, H, W) at a position clamped to it."""
    height, width = level.shape[2:]
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    across, down = x - left, y - top
    upper = level[0, :, top, left] * (1 - across) + level[0, :, top, right] * across
    lower = level[0, :, bottom, left] * (1 - across) + level[0, :, bottom, right] * across
    return upper * (1 - down) + lower * down


def test_pool_is_the_mean_of_two_by_two_samples_on_the_level_of_the_size() -> None:
    generator = torch.Generator().manual_seed(1)
    levels = [torch.randn(1, 3, 128 >> i, 160 >> i, generator=generator) for i in range(4)]  # strides 4 to 32
    boxes = torch.tensor(
        [
            [10.3, 20, 50, 90.7],
            [0, 0, 640, 512],
            [600, 500, 640, 512],
            [30, 30, 30.4, 30.2],
            [100, 50, 400, 460],
            [40, 30, 155, 145],
        ]
    )
    found = keypoint_detector.pool(levels, boxes, 2)
    # Side of the box to level: 224 px is the fourth, stride 16, half of that the one before.
    for row, (box, level) in enumerate(zip(boxes.tolist(), (0, 3, 0, 0, 2, 1), strict=True)):
        scale = 4 << level
        x0, y0, x1, y1 = (value / scale for value in box)
        width, height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
        for j, i in np.ndindex(2, 2):
            samples = [
                sampled(levels[level], x0 + (i + a) / 2 * width, y0 + (j + b) / 2 * height)
                for a in (0.25, 0.75)
                for b in (0.25, 0.75)
            ]
            torch.testing.assert_close(found[row, :, j, i], torch.stack(samples).mean(0), rtol=1e-5, atol=1e-5)


def test_nms_keeps_what_overlaps_no_better_box() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 4], [20, 20, 30, 30], [0, 0, 10, 10]])
    scores = torch.tensor([0.8, 0.9, 0.7, 0.1, 0.2])
    assert keypoint_detector.nms(boxes, scores, 0.5).tolist() == [1, 2, 3]
    assert keypoint_detector.nms(boxes, scores, 0.3).tolist() == [1, 3]
    assert keypoint_detector.nms(boxes[:0], scores[:0], 0.5).tolist() == []


def torchvisions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torchvision's network; its two operators in Python where the compiled ones are missing."""
    keypoint_detector.create()  # makes torchvision importable
    import torchvision

    if not torchvision.extension._has_ops():
        # Both names are functions of the package; the module of the same name is only in sys.modules.
        python = getattr(sys.modules["torchvision.ops.roi_align"], "_roi_align")  # noqa: B009
        python = getattr(python, "__wrapped__", python)

        def roi_align(level: Tensor, rois: Tensor, **options: Any) -> Tensor:
            height, width = options["output_size"]
            parts = [
                python(level, part, options["spatial_scale"], height, width, options["sampling_ratio"], False)
                for part in rois.split(64)
            ]
            return torch.cat(parts)

        monkeypatch.setattr("torchvision.ops.poolers.roi_align", roi_align)
        monkeypatch.setattr("torchvision.ops.boxes.nms", keypoint_detector.nms)
    with torch.device("meta"):
        whole: Any = torchvision.models.detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    whole.load_state_dict(built().module.state_dict(), assign=True)
    for layer in whole.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 0.0  # as torchvision sets it for the published file
    whole.rpn._post_nms_top_n["testing"] = NUM_PROPOSALS
    whole.roi_heads.detections_per_img = 2
    return whole.eval()


def test_the_person_is_the_best_one_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = built()
    whole = torchvisions(monkeypatch)
    from torchvision.models.detection.image_list import ImageList

    found = backbone.forward(images(), tuple(backbone.taps))
    from_layout, to_slot = slots_of("coco17")
    for index in range(2):
        x = backbone.normalise(images()[index : index + 1])
        with torch.inference_mode():
            features = whole.backbone(x)
            proposals, _ = whole.rpn(ImageList(x, [CANVAS_PX]), features)
            people, _ = whole.roi_heads(features, proposals, [CANVAS_PX])
        best = {key: value[0].numpy() for key, value in people[0].items()}
        np.testing.assert_allclose(found["box"][index], best["boxes"], atol=TOLERANCE)
        np.testing.assert_allclose(found["score"][index], best["scores"], atol=TOLERANCE)
        np.testing.assert_allclose(
            found["keypoints"][index][to_slot], best["keypoints"][from_layout, :2], atol=TOLERANCE
        )
        scores = best["keypoints_scores"][from_layout]
        np.testing.assert_allclose(found["keypoint_scores"][index][to_slot], scores, atol=TOLERANCE)


def test_heatmaps_are_the_logits_of_the_person_in_the_slots_of_coco() -> None:
    backbone = built()
    features = backbone.forward(images(), tuple(backbone.taps))
    present = annotated_slots("coco17")
    assert present.sum() == 15
    np.testing.assert_array_equal(features["presence"], np.broadcast_to(present, (2, 25)))
    from_layout, to_slot = slots_of("coco17")
    for index in range(2):
        with torch.inference_mode():
            person = keypoint_detector.detect(backbone.module, backbone.normalise(images()[index : index + 1]))
        assert person is not None
        assert (person.logits < 0).any()
        wanted = person.logits.numpy()[from_layout].clip(0).astype(np.float16)
        np.testing.assert_array_equal(features["heatmaps"][index, to_slot], wanted)
    for name in ("heatmaps", "keypoints", "keypoint_scores"):
        assert not features[name][:, ~present].any(), name


def test_batches_give_the_bits_of_single_images() -> None:
    backbone = built()
    taps = tuple(backbone.taps)
    whole = backbone.forward(images(), taps)
    for index in range(2):
        single = backbone.forward(images()[index : index + 1], taps)
        for tap in taps:
            np.testing.assert_array_equal(single[tap][0], whole[tap][index])


def test_an_image_without_a_person_gives_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = built()
    monkeypatch.setattr(keypoint_detector, "_BOX_MIN_SCORE", 0.9999999)
    features = backbone.forward(images(1), tuple(backbone.taps))
    for tap, feature in features.items():
        assert not feature.any(), tap


def test_the_canvas_needs_no_padding_and_the_weights_are_the_published_ones() -> None:
    info = backbones.describe("pose:keypoint-rcnn")
    assert all(side % 32 == 0 for side in info.image_size)
    assert info.frames_shape == (*info.image_size, 3)
    # A 16:9 video fills the canvas but for a few px.
    assert info.preprocess.valid_box(1080, 1920) == (0, 3, 320, 569)
    (source,) = info.sources
    assert source.sha256_prefix == "fc266e95"
    # torchvision states 59,137,258 parameters for the file; its frozen norms count none of theirs there.
    norms = sum(
        p.numel() for m in built().module.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters()
    )
    assert sum(p.numel() for p in built().module.parameters()) - norms == 59_137_258
