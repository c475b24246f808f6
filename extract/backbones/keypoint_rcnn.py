"""Poses estimated from video: torchvision's Keypoint R-CNN with a ResNet-50 FPN, trained on COCO.

Mask R-CNN, He et al. 2017, arXiv:1703.06870. `keypoint_detector` is the network; the best-scoring person of
each frame is taken, found or not found by torchvision's own threshold of 0.05.

The whole frame is scaled to fit a canvas of 320x576 px and centred in it on black: nobody at the edge of a wide
or upright video is lost. (torchvision scales the short side to 800 px, pads right and below, and after the
normalisation: scores on other sizes differ from the published ones.) Coordinates are px of that canvas; with
(top, left, height, width) = `preprocess.valid_box(video height, video width)` a point of the video is
((x - left) video width / width, (y - top) video height / height).

Taps; 17 COCO points in the 25 slots of `keypoints.SLOTS`, without the eyes:
  `keypoints` (25, 2) float32: x, y; 0, 0 where absent.
  `presence`  (25,) bool: the 15 slots that COCO has if a person was found, else none.
  `box`       (4,) float32: the person's box x0, y0, x1, y1 as predicted, not square; zeros if none was found.
  `heatmaps`  (25, 56, 56) float16: the logits of the keypoint head over that box, negative ones set to 0.
  `keypoint_scores` (25,) float32: the logit at each keypoint.
  `score`     (1,) float32: of the box, 0 to 1.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneInfo,
    BuildOptions,
    Definition,
    taps_by_name,
)
from reelbank.extract.backbones.resnet import torchvision_source
from reelbank.extract.inputs import heatmaps
from reelbank.extract.inputs.keypoints import NUM_SLOTS, annotated_slots, slots_of
from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.store.spec import TapSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

CANVAS_PX = (320, 576)
"""(height, width): multiples of 32, so that the network pads nothing."""

_LAYOUT = "coco17"
_MAX_FLOAT16 = 65504.0


def define(name: str, taps: Mapping[str, TapSpec], canvas_px: tuple[int, int] = CANVAS_PX) -> Definition:
    """Keypoint R-CNN under `name`.

    Args:
        name: of the backbone.
        taps: those that every source of poses has.
        canvas_px: (height, width), multiples of 32.
    """
    info = BackboneInfo(
        name=name,
        taps={
            **taps,
            **taps_by_name(
                TapSpec(name="keypoint_scores", dtype="float32", axes=("slot",), shape=(NUM_SLOTS,)),
                TapSpec(name="score", dtype="float32", axes=("person",), shape=(1,)),
            ),
        },
        default_taps=("keypoints", "presence", "box", "keypoint_scores", "score"),
        preprocess=Preprocess(fit_px=canvas_px, interpolation="bilinear"),
        sources=(torchvision_source("keypointrcnn_resnet50_fpn_coco-fc266e95.pth"),),
    )
    return Definition(info=info, make=functools.partial(_make, info))


def _make(info: BackboneInfo, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones import keypoint_detector
    from reelbank.extract.backbones.network import Architecture, build_network

    architecture = Architecture(
        text="torchvision keypointrcnn_resnet50_fpn, batch norm without epsilon",
        create=keypoint_detector.create,
        convert=lambda state: state,
        run=_run,
        channels_last=True,
    )
    return build_network(info, architecture, options)


def _run(module: Any, x: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    import torch

    from reelbank.extract.backbones.keypoint_detector import detect

    from_layout, to_slot = (torch.from_numpy(indices).to(x.device) for indices in slots_of(_LAYOUT))
    found_slots = torch.from_numpy(annotated_slots(_LAYOUT)).to(x.device)
    values = {
        "keypoints": x.new_zeros(len(x), NUM_SLOTS, 2),
        "presence": torch.zeros(len(x), NUM_SLOTS, dtype=torch.bool, device=x.device),
        "box": x.new_zeros(len(x), 4),
        "heatmaps": x.new_zeros(len(x), NUM_SLOTS, heatmaps.SIZE, heatmaps.SIZE),
        "keypoint_scores": x.new_zeros(len(x), NUM_SLOTS),
        "score": x.new_zeros(len(x), 1),
    }
    for index in range(len(x)):
        # One image at a time: a choice among boxes could turn over on the last bit, in which batches differ.
        person = detect(module, x[index : index + 1])
        if person is None:
            continue
        values["presence"][index] = found_slots
        values["box"][index] = person.box
        values["score"][index] = person.score
        values["keypoints"][index, to_slot] = person.keypoints[from_layout]
        values["keypoint_scores"][index, to_slot] = person.keypoint_scores[from_layout]
        values["heatmaps"][index, to_slot] = person.logits[from_layout].clamp(0.0, _MAX_FLOAT16)
    return values
