"""Keypoint R-CNN on one image after the other, for the best person only.

Mask R-CNN, He et al. 2017, arXiv:1703.06870, with the modules and weights of torchvision, and its rules of
inference. Two differences, neither of which changes what is found for the best-scoring person: the last
non-maximum suppression is left out (the best box always survives it), and keypoints are computed for one box
instead of a hundred, which is where most of the time went. Suppression and RoI pooling are written with plain
torch functions, so that the network runs where torchvision's compiled operators do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Constants of torchvision's KeypointRCNN in inference.
_PROPOSALS_PER_LEVEL, _PROPOSALS, _PROPOSAL_NMS_IOU, _PROPOSAL_MIN_PX = 1000, 1000, 0.7, 1e-3
_PERSON, _BOX_MIN_SCORE, _BOX_MIN_PX = 1, 0.05, 1e-2
_BOX_CELLS, _KEYPOINT_CELLS, _SAMPLES = 7, 14, 2
# Level of an RoI: Feature Pyramid Networks, Lin et al. 2017, arXiv:1612.03144, eq. 1.
_CANONICAL_PX, _CANONICAL_LEVEL, _FIRST_LEVEL, _LEVEL_EPS = 224, 4, 2, 1e-6
_POOLED_MAPS = ("0", "1", "2", "3")
# torchvision runs the published weights without epsilon. This one is lost beside any float32 variance, but not 0,
# which torch refuses while the statistics of random weights are calibrated.
_NO_EPS = 1e-30


@dataclass(frozen=True, kw_only=True)
class Person:
    """The best person of an image.

    Attributes:
        box: (4,) x0, y0, x1, y1 in px of the network's input.
        score: (1,) of the box, 0 to 1.
        keypoints: (17, 2) x, y in the same px.
        keypoint_scores: (17,) the logit at each keypoint.
        logits: (17, 56, 56) over the box.
    """

    box: Tensor
    score: Tensor
    keypoints: Tensor
    keypoint_scores: Tensor
    logits: Tensor


def create() -> nn.Module:
    """The network with torchvision's names of tensors and its initialisation. Also on the meta device."""
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    import torchvision

    whole: Any = torchvision.models.detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    for layer in whole.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = _NO_EPS
    return _Detector(whole)


class _Detector(nn.Module):
    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.backbone: Any = whole.backbone
        self.rpn: Any = whole.rpn
        self.roi_heads: Any = whole.roi_heads

    def forward(self, x: Tensor) -> Mapping[str, Tensor]:
        """The maps of the ResNet, which has all the batch norms: the calibration of random weights needs no more."""
        maps: Mapping[str, Tensor] = self.backbone.body(x)
        return maps


def detect(module: Any, image: Tensor) -> Person | None:
    """The person with the highest score in an image (1, 3, H, W), H and W multiples of 32; None if none is found."""
    features: dict[str, Tensor] = {name: level.float() for name, level in module.backbone(image).items()}
    height_px, width_px = image.shape[-2:]
    proposals = _proposals(module.rpn, features, height_px, width_px)
    heads = module.roi_heads
    levels = [features[name] for name in _POOLED_MAPS]
    pooled = pool(levels, proposals, _BOX_CELLS)  # (K, 256, 7, 7)
    class_logits, deltas = heads.box_predictor(heads.box_head(pooled))
    boxes = heads.box_coder.decode(deltas.float(), [proposals])[:, _PERSON]  # (K, 4)
    boxes = _clip(boxes, height_px, width_px)
    scores = class_logits.float().softmax(-1)[:, _PERSON]
    scores = torch.where(_large_enough(boxes, _BOX_MIN_PX), scores, 0.0)
    best = int(scores.argmax()) if len(scores) else 0
    if not len(scores) or not scores[best] > _BOX_MIN_SCORE:
        return None
    box = boxes[best : best + 1]
    pooled = pool(levels, box, _KEYPOINT_CELLS)  # (1, 256, 14, 14)
    logits = heads.keypoint_predictor(heads.keypoint_head(pooled)).float()  # (1, 17, 56, 56)
    from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

    keypoints, keypoint_scores = heatmaps_to_keypoints(logits, box)
    return Person(
        box=box[0],
        score=scores[best : best + 1],
        keypoints=keypoints[0, :, :2],
        keypoint_scores=keypoint_scores[0],
        logits=logits[0],
    )


def _proposals(rpn: Any, features: Mapping[str, Tensor], height_px: int, width_px: int) -> Tensor:
    """Boxes (K, 4), at most 1000, by decreasing objectness."""
    objectness, deltas = rpn.head(list(features.values()))
    boxes, scores = [], []
    for anchors, level_scores, level_deltas in zip(
        _anchors(rpn, features, height_px, width_px), objectness, deltas, strict=True
    ):
        # (1, A, H, W) and (1, 4 A, H, W) to one row per anchor, in the anchors' order.
        flat = level_scores.float().permute(0, 2, 3, 1).reshape(-1)
        num_anchors, (rows, columns) = level_scores.shape[1], level_scores.shape[2:]
        moves = level_deltas.float().view(num_anchors, 4, rows, columns).permute(2, 3, 0, 1).reshape(-1, 4)
        top = flat.topk(min(_PROPOSALS_PER_LEVEL, len(flat))).indices
        decoded = rpn.box_coder.decode(moves[top], [anchors[top]])[:, 0]
        decoded = _clip(decoded, height_px, width_px)
        large = _large_enough(decoded, _PROPOSAL_MIN_PX)
        decoded, kept_scores = decoded[large], flat[top][large].sigmoid()
        kept = nms(decoded, kept_scores, _PROPOSAL_NMS_IOU)
        boxes.append(decoded[kept])
        scores.append(kept_scores[kept])
    order = torch.cat(scores).argsort(descending=True, stable=True)[:_PROPOSALS]
    return torch.cat(boxes)[order]


def _anchors(rpn: Any, features: Mapping[str, Tensor], height_px: int, width_px: int) -> Sequence[Tensor]:
    """The anchors (N, 4) of each level."""
    generator = rpn.anchor_generator
    maps = list(features.values())
    generator.set_cell_anchors(maps[0].dtype, maps[0].device)
    sizes = [level.shape[-2:] for level in maps]
    strides = [(height_px // rows, width_px // columns) for rows, columns in sizes]
    anchors: Sequence[Tensor] = generator.grid_anchors(sizes, strides)
    return anchors


def nms(boxes: Tensor, scores: Tensor, max_iou: float) -> Tensor:
    """Indices of the boxes that overlap no better one by more than `max_iou`, by decreasing score."""
    order = scores.argsort(descending=True, stable=True)
    low, high = boxes[order, :2], boxes[order, 2:]
    areas = (high - low).prod(1)
    overlap = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).prod(2)
    # One copy to the CPU: what follows is a thousand small steps.
    rivals = (overlap / (areas[:, None] + areas - overlap) > max_iou).cpu().numpy()
    alive = np.ones(len(rivals), np.bool_)
    for index, row in enumerate(rivals):
        if alive[index]:
            alive[index + 1 :] &= ~row[index + 1 :]
    return order[torch.from_numpy(alive).to(order.device)]


def pool(levels: Sequence[Tensor], boxes: Tensor, num_cells: int) -> Tensor:
    """RoI align: each box (K, 4) in px, cut from the level that suits its size as (K, C, num_cells, num_cells).

    Mask R-CNN, section 3, with two samples per cell and axis and, as torchvision's models were trained, without
    the half-pixel shift. A cell is a weighted sum of 16 places of the map: four samples, four neighbours each.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    wanted = torch.floor(_CANONICAL_LEVEL + torch.log2(sides / _CANONICAL_PX) + _LEVEL_EPS)
    wanted = wanted.clamp(_FIRST_LEVEL, _FIRST_LEVEL + len(levels) - 1).long() - _FIRST_LEVEL
    result = boxes.new_zeros(len(boxes), num_cells * num_cells, levels[0].shape[1])
    for index, level in enumerate(levels):
        rows = torch.nonzero(wanted == index)[:, 0]
        if not len(rows):
            continue
        _, channels, height, width = level.shape
        at = boxes[rows] / 2.0 ** (_FIRST_LEVEL + index)
        x, x_weights = _samples(at[:, 0], at[:, 2], num_cells, width)  # (k, cells, 4)
        y, y_weights = _samples(at[:, 1], at[:, 3], num_cells, height)
        places = y[:, :, None, :, None] * width + x[:, None, :, None, :]  # (k, cells, cells, 4, 4)
        shares = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
        result[rows] = nn.functional.embedding_bag(
            places.reshape(-1, 16),
            level[0].permute(1, 2, 0).reshape(height * width, channels),
            mode="sum",
            per_sample_weights=shares.reshape(-1, 16),
        ).view(len(rows), -1, channels)
    return result.transpose(1, 2).reshape(len(boxes), -1, num_cells, num_cells)


def _samples(low: Tensor, high: Tensor, num_cells: int, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis of a map: the neighbours of each cell's two samples and their shares, both (k, cells, 4)."""
    num_samples = num_cells * _SAMPLES
    centers = (torch.arange(num_samples, device=low.device) + 0.5) / num_samples
    positions = (low[:, None] + (high - low).clamp(min=1.0)[:, None] * centers).clamp(0, size - 1)
    before = positions.floor()
    share = (positions - before) / _SAMPLES
    places = torch.stack([before, (before + 1).clamp(max=size - 1)], dim=-1).long()
    shares = torch.stack([1 / _SAMPLES - share, share], dim=-1)
    shape = (len(low), num_cells, 2 * _SAMPLES)
    return places.reshape(shape), shares.reshape(shape)


def _clip(boxes: Tensor, height_px: int, width_px: int) -> Tensor:
    limits = boxes.new_tensor([width_px, height_px, width_px, height_px])
    return boxes.clamp(min=0).minimum(limits)


def _large_enough(boxes: Tensor, min_px: float) -> Tensor:
    return ((boxes[:, 2:] - boxes[:, :2]) >= min_px).all(1)
