"""RAFT of torchvision: flow by a trained network; taps in `flow_taps`.

RAFT: Recurrent All-Pairs Field Transforms for Optical Flow, Teed and Deng 2020, arXiv:2003.12039. `raft-small`, 1.0 M
parameters, and `raft-large`, 5.3 M; 12 updates, torchvision's default. One step is the pair (i, i + 1); frames are RGB,
squashed to 224x224 (the network needs multiples of 8) and scaled to [-1, 1], as torchvision's transform does.
"""

from __future__ import annotations

import functools

from reelbank.extract.backbones import flow_taps
from reelbank.extract.backbones.description import Backbone, BackboneInfo, BuildOptions, Definition
from reelbank.extract.backbones.resnet import torchvision_source
from reelbank.extract.inputs.preprocess import Preprocess

_FILES = {"raft-large": "raft_large_C_T_SKHT_V2-ff5fadd5.pth", "raft-small": "raft_small_C_T_V2-01064c6d.pth"}


def define(family: str, variant: str) -> Definition:
    """`raft-large` or `raft-small`."""
    info = BackboneInfo(
        name=f"{family}:{variant}",
        taps=flow_taps.flow_taps(),
        default_taps=("hof",),
        preprocess=Preprocess(squash_px=flow_taps.SIZE_PX, interpolation="bilinear"),
        step_frames=(0, 1),
        sources=(torchvision_source(_FILES[variant]),),
        default_batch=8,
    )
    return Definition(info=info, make=functools.partial(_make, info, variant.replace("-", "_")))


def _make(info: BackboneInfo, model: str, options: BuildOptions) -> Backbone:
    from reelbank.extract.backbones.raft_network import build_raft

    return build_raft(info, model, options)
