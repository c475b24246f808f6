"""The convolutions of OpticalFlowNet on the first flow fields of a clip, as a training run left them (SYSTEMS.md 5.4).

One step reads 9 consecutive native frames, gray and squashed to 224 x 224, and the 8 fields between them, by the
method of `flow` and rounded as its tap is: 16 channels, x0, y0, x1, y1, ..., in px. `--sampling position:0` stores that
of the first frames, which the head `flow-net` reads.

Tap `pool2` (64, 56, 56). There are no published weights: `--weights RUN` takes those of a run of `flow-net` or
`two-stream`. A clip of fewer than 9 frames fails.
"""

from __future__ import annotations

import functools

from reelbank.extract.backbones.description import (
    Backbone,
    BackboneError,
    BackboneInfo,
    BuildOptions,
    Definition,
    map_tap,
    taps_by_name,
)
from reelbank.extract.backbones.flow import GRAY_PAIR

NUM_PAIRS = 8


def define(family: str, variant: str) -> Definition:
    """The network under its only name."""
    info = BackboneInfo(
        name=family,
        taps=taps_by_name(map_tap("pool2", 64, 56)),
        default_taps=("pool2",),
        preprocess=GRAY_PAIR,
        step_frames=tuple(range(NUM_PAIRS + 1)),
    )
    return Definition(info=info, make=functools.partial(_make, info))


def _make(info: BackboneInfo, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.flow_trunk import ARCHITECTURE
    from reelbank.extract.backbones.network import OUTLINE_DEVICE, build_network

    asked = options.weights == "pretrained" and options.state_file is None
    if asked and options.device != OUTLINE_DEVICE:
        raise BackboneError(
            f"backbone {info.name!r} has no published weights; give --weights RUN, a run of the head flow-net or "
            "two-stream, or --weights random"
        )
    return build_network(info, ARCHITECTURE, options)
