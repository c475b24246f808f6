"""Class activation attention on the end of a ResNet-34, trainable: where the network sees what it recognises.

Attention is All We Need: Nailing Down Object-centric Attention for Egocentric Activity Recognition,
Sudhakaran and Lanz 2018, arXiv:1807.11794; class activation maps: Zhou et al. 2015, arXiv:1512.04150.

With z the input of layer4's last block, h its second convolution's output before batch norm:

    F  = relu(bn2(h) + z)
    Fn = h + z
    s  = fc(mean over positions of F),  c = argmax(s)
    M  = sum over channels l of fc.weight[c, l] F[l]        (H, W)
    A  = softmax of M over its positions

and the attended map is Fn A (`prebn`, what the published implementation computes) or F A (`postbn`, the formula as the
paper writes it). The argmax is not differentiated; gradients flow through fc.weight, F and Fn.

`reelbank.extract.backbones.ego_rnn` computes the same from a frozen network, for stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

KINDS = ("postbn", "prebn")
"""Which map the attention is multiplied with: after the last batch norm and ReLU, or before."""


@dataclass(frozen=True, kw_only=True)
class Attended:
    """What `attend` computes.

    Attributes:
        attended: (B, C, H, W), what the recurrent network reads.
        features: F, (B, C, H, W), after the ReLU and without attention.
        attention: A, (B, H, W); a clip's values sum to 1.
        scores: s, (B, 1000), logits of the classes that the network was first trained for.
        winner: c, (B,), the class whose evidence is the attention.
    """

    attended: Tensor
    features: Tensor
    attention: Tensor
    scores: Tensor
    winner: Tensor


def attend(layer4: nn.Sequential, fc: nn.Linear, layer3: Tensor, kind: str) -> Attended:
    """Attended maps from the tap `layer3`, by one pass through `layer4`; batch norms as their mode says.

    Args:
        layer4: of torchvision's ResNet-18 or -34: its last block has two convolutions and no downsampling.
        fc: the classifier of the same network.
        layer3: (B, 256, 14, 14).
        kind: one of KINDS.

    Raises:
        ValueError: another kind, or a last block of another form.
    """
    if kind not in KINDS:
        raise ValueError(f"attention {kind!r} is not one of {', '.join(KINDS)}")
    blocks: list[Any] = list(layer4)
    *first, last = blocks
    if hasattr(last, "conv3") or last.downsample is not None:
        raise ValueError("the last block has a third convolution or downsampling; attention reads ResNet-18 or -34")
    z = layer3
    for block in first:
        z = block(z)
    h = last.conv2(last.relu(last.bn1(last.conv1(z))))
    features = torch.relu(last.bn2(h) + z)
    scores = fc(features.mean(dim=(2, 3)))
    winner = scores.argmax(dim=1)
    # A product and a sum, which autocast leaves alone, in float32 at least: evidence is an exponent of the softmax,
    # where an error of a half-precision product would be a factor.
    weights = _single(fc.weight)[winner]  # (B, C)
    evidence = (weights[:, :, None, None] * _single(features)).sum(dim=1)  # (B, H, W)
    attention = evidence.flatten(1).softmax(dim=1).reshape_as(evidence)
    seen = _single(h + z if kind == "prebn" else features)
    return Attended(
        attended=seen * attention.unsqueeze(1), features=features, attention=attention, scores=scores, winner=winner
    )


def unattended(layer4: nn.Sequential, layer3: Tensor) -> Tensor:
    """F, (B, 512, 7, 7), from the tap `layer3`: what the recurrent network reads where there is no attention."""
    features: Tensor = layer4(layer3)
    return features


def _single(value: Tensor) -> Tensor:
    """In float32, or as it is if it is more exact."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
