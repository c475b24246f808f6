"""Ego-RNN: ResNet-34, class activation attention, ConvLSTM, and what else was tried on it (SYSTEMS.md 2.3, 2.6 to 2.9).

Attention is All We Need: Nailing Down Object-centric Attention for Egocentric Activity Recognition, Sudhakaran and
Lanz 2018, arXiv:1807.11794. Per frame the end of ResNet-34 with attention on its last maps, a ConvLSTM over the frames,
the mean over 7x7 of its cell state after the last of them, dropout, one linear layer per output. It holds ResNet-34
from the tap on that it reads: `layer3` serves all that trains conv5, maps before it are larger than frames.

Options:
    attention: `cam`, or `none`: O-RNN.
    attended: the maps that are multiplied by the attention: `prebn` (public implementation) or `postbn` (the formula).
    pooled: `cell` or `hidden` state.
    all_of_conv5: stage 2 trains all of layer4, not its 3x3 convolutions alone.
    motion: `conv5`, `conv4`, `conv3`: a motion segmentation head on these maps of 7, 14, 28 px; `none`. Joint encoding
        of appearance and motion features with self-supervision, Planamente, Bottino and Caputo 2020.
    motion_loss: `binary` or `regression`; motion_target: `bw` or `gray` (regression alone); pixelwise: its dense layer
        is a 1x1 convolution.
    discriminator: whether the clip moves or shows one frame throughout; gradients of the standing sequence reach
        `conv5`, or `convlstm` alone; `none`.
    repflow: a representation flow layer after conv3 (Piergiovanni and Ryoo 2019), without attention;
        repflow_learnt: whether its three scalars are trained, repflow_compat: `none` or `public`.
    weights: of ResNet-34 where a store holds frames, which say none: `pretrained`, `random` or a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reelbank.extract.backbones import ego_rnn, resnet
from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HeadShape
from reelbank.heads.models.ego_rnn_plan import SIZES, entry_of
from reelbank.heads.models.layers.convlstm import ConvLSTM
from reelbank.heads.models.layers.motion_segmentation import MotionHead, motion_target
from reelbank.heads.models.layers.motion_segmentation import pixel_cross_entropy as _pixel_cross_entropy
from reelbank.heads.models.layers.motion_segmentation import pixel_squared_error as _pixel_squared_error
from reelbank.heads.models.layers.representation_flow import RepresentationFlow
from reelbank.heads.models.layers.static_dynamic import StaticDynamic, static_dynamic_cross_entropy, static_sequence

WIDTH = 512
DROPOUT = 0.7
FRAMES = "frames"
CHANNELS = {"conv3": 128, "conv4": 256, "conv5": 512}


class EgoRNN(nn.Module):
    """The network from the tap `frames` on; see the module."""

    def __init__(self, shape: HeadShape, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.entry = entry_of(shape.arrays[FRAMES].tap)
        self.net = resnet34_from(self.entry)
        self.seen = nn.Identity()  # conv5 as the ConvLSTM reads it: no module of ResNet-34 gives the attended maps
        self.convlstm = ConvLSTM(WIDTH, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifiers = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in shape.outputs.items()})
        self.level, self._attended = options["motion"], options["attended"]
        self._attention, self._pooled = options["attention"] == "cam", options["pooled"]
        self._static = options["discriminator"]
        self.motion = None
        if self.level != "none":
            channels, size = CHANNELS[self.level], SIZES[self.level]
            self.motion = MotionHead(channels, size, options["motion_loss"], options["pixelwise"])
        self.discriminator = StaticDynamic(WIDTH) if self._static != "none" else None
        self.flow = None
        if options["repflow"]:
            self.flow = RepresentationFlow(learnt=options["repflow_learnt"], compat=options["repflow_compat"])

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{frames: (B, T, C, H, W)}, {frames: mask (B, T)} -> {output: (B, K)}.

        In training also `motion` (B, T, 2, s, s) or (B, T, s, s), and `dynamic` (B, 2, 2): logits of the sequence as it
        is and of one frame that stands.
        """
        vector, further = self.vector_and_further(arrays, masks)
        return {name: linear(self.dropout(vector)) for name, linear in self.classifiers.items()} | further

    def vector_and_further(
        self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`vector`, and in training what the further losses judge: `motion` and `dynamic`, where there are such."""
        frames, mask = arrays[FRAMES], masks[FRAMES]
        maps = self.maps(frames, mask)
        sequence, mask = self._sequence(maps, mask)
        vector = self._pool(sequence, mask)
        further = {}
        if self.training and self.motion is not None:
            further["motion"] = _by_clip(self.motion(maps[self.level]), frames)
        if self.training and self.discriminator is not None:
            chosen = (torch.rand(len(mask), device=mask.device) * mask.sum(dim=1)).long()
            own = sequence.detach() if self._static == "convlstm" else sequence
            still = self._pool(static_sequence(own, mask, chosen), mask)
            further["dynamic"] = torch.stack([self.discriminator(vector), self.discriminator(still)], dim=1)
        return vector, further

    def vector(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """What the classifier reads, before its dropout (B, 512)."""
        return self._pool(*self._sequence(self.maps(arrays[FRAMES], masks[FRAMES]), masks[FRAMES]))

    def attention(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Where each frame (B, T, C, H, W) is looked at: (B, T, 7, 7), each sums to 1.

        Raises TrainingError where that is not known: of maps that are attended already, or without attention.
        """
        if not self._attention:
            raise TrainingError("attention=none: this head looks at all of a frame alike")
        if self.entry == "attended":
            raise TrainingError(
                "the stored maps are attended already; attention is seen from layer3 or frames: explain a run that was "
                "trained on one of these (--tap layer3)"
            )
        maps = self.maps(frames, mask)
        found = ego_rnn.attention(self.net.layer4, self.net.fc, maps["conv4"])
        return _by_clip(found.values, frames)

    def maps(self, frames: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """{`conv3`, `conv4`, `conv5`, `attended`: (B T, C, H, W)} of what comes after the tap that is read."""
        value, net = frames.flatten(0, 1), self.net
        if self.entry == "attended":
            return {"attended": value}
        found = {}
        if self.entry == "frames":
            value = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(value)))))
        if self.entry in ("frames", "layer1"):
            value = net.layer2(value)
        if self.entry != "layer3":
            found["conv3"] = value
            value = net.layer3(value if self.flow is None else self._flowed(value, mask))
        found["conv4"] = value
        if self._attention:
            last = ego_rnn.attention(net.layer4, net.fc, value)
            return {**found, "conv5": last.features, "attended": last.attended(self._attended)}
        features = net.layer4(value)
        return {**found, "conv5": features, "attended": features}

    def _flowed(self, maps: Tensor, mask: Tensor) -> Tensor:
        assert self.flow is not None
        flowed: Tensor = self.flow(_by_clip(maps, mask), mask)
        return flowed.flatten(0, 1)

    def _sequence(self, maps: Mapping[str, Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the ConvLSTM reads (B, T, 512, 7, 7) and its mask; flow has a step less."""
        if self.flow is not None:
            mask = mask[:, 1:]
        return _by_clip(self.seen(maps["attended"]), mask), mask

    def _pool(self, sequence: Tensor, mask: Tensor) -> Tensor:
        hidden, cell = self.convlstm(sequence, mask)
        state = cell if self._pooled == "cell" else hidden
        pooled: Tensor = state.mean(dim=(2, 3))
        return pooled


def _by_clip(values: Tensor, like: Tensor) -> Tensor:
    """(B T, ...) as (B, T, ...), as many clips and steps as `like` (B, T, ...) has."""
    return values.reshape(*like.shape[:2], *values.shape[1:])


BEFORE = {
    "frames": (),
    "layer1": ("conv1", "bn1", "relu", "maxpool", "layer1"),
    "layer2": ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2"),
    "layer3": ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"),
}
"""{tap that is read: modules of ResNet-34 that come before it}."""


def resnet34_from(entry: str) -> Any:
    """torchvision's ResNet-34 without the modules before `entry`; their tensors mean nothing yet."""
    if entry == "attended":
        return nn.Module()
    net: Any = resnet.create("resnet34")
    for name in BEFORE[entry]:
        delattr(net, name)
    return net


def motion_binary_loss(logits: Tensor, target: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, T, 2, s, s), target (B, T, s, s), mask (B, T) -> (B,): see `pixel_cross_entropy`."""
    assert target is not None and mask is not None
    return _pixel_cross_entropy(logits, target, mask)


def motion_regression_loss(values: Tensor, target: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, T, s, s), target (B, T, s, s) or of 28 px, mask (B, T) -> (B,): see `pixel_squared_error`."""
    assert target is not None and mask is not None
    size = values.shape[-1]
    if target.shape[-1] != size:
        target = motion_target(target, size, "gray")
    return _pixel_squared_error(values, target, mask)


def static_dynamic_loss(logits: Tensor, target: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, 2, 2): logits of a sequence as it is (class 1) and of one frame that stands (class 0) -> (B,)."""
    return static_dynamic_cross_entropy(logits[:, 0], logits[:, 1])


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return EgoRNN(shape, options)
