"""The class activation attention of Ego-RNN on the end of a ResNet-34: of the stored taps, and of heads that train it.

Attention is All We Need: Nailing Down Object-centric Attention for Egocentric Activity Recognition,
Sudhakaran and Lanz 2018, arXiv:1807.11794; class activation maps: Zhou et al. 2015, arXiv:1512.04150.

With z the input of layer4's last block, h its second convolution's output before batch norm:

    F  = relu(bn2(h) + z)                    the tap `layer4`, which O-RNN reads unattended
    Fn = h + z
    s  = fc(mean over positions of F),  c = argmax(s)
    M  = sum over channels l of fc.weight[c, l] F[l]        (7, 7)
    A  = softmax of M over its 49 positions

`ego-attended` (512, 7, 7) is Fn A, what the published implementation computes; `ego-attended-postbn` is F A,
the formula as the paper writes it. The argmax is not differentiated; gradients flow through fc.weight, F and Fn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reelbank.store.spec import TapSpec

if TYPE_CHECKING:
    from torch import Tensor

KINDS = {"prebn": "ego-attended", "postbn": "ego-attended-postbn"}
"""{which map the attention is multiplied with, before the last batch norm and ReLU or after: its tap}."""
TAPS = frozenset(KINDS.values())


def taps() -> tuple[TapSpec, ...]:
    """Both attended maps."""
    axes = ("channel", "height", "width")
    return tuple(
        TapSpec(name=name, dtype="float16", axes=axes, shape=(512, 7, 7), codec="zstd-1") for name in sorted(TAPS)
    )


@dataclass(frozen=True, kw_only=True)
class Attention:
    """What `attention` computes.

    Attributes:
        before: Fn, (B, C, H, W), before the last batch norm and ReLU.
        features: F, (B, C, H, W).
        values: A, (B, H, W), in float32 at least; a clip's values sum to 1.
        scores: s, (B, 1000), logits of the classes that the network was first trained for.
        winner: c, (B,), the class whose evidence is the attention.
    """

    before: Tensor
    features: Tensor
    values: Tensor
    scores: Tensor
    winner: Tensor

    def attended(self, kind: str) -> Tensor:
        """What a recurrent network reads, (B, C, H, W), of one of KINDS."""
        seen = {"prebn": self.before, "postbn": self.features}[kind]
        return _in_single(seen) * self.values.unsqueeze(1)


def attention(layer4: Any, fc: Any, layer3: Tensor) -> Attention:
    """Attention by one pass through `layer4`; batch norms as their mode says.

    Args:
        layer4: of torchvision's ResNet-18 or -34: its last block has two convolutions and no downsampling.
        fc: the classifier of the same network.
        layer3: (B, 256, 14, 14), that tap.
    """
    import torch

    *blocks, last = layer4
    z = layer3
    for block in blocks:
        z = block(z)
    h = last.conv2(last.relu(last.bn1(last.conv1(z))))
    features = torch.relu(last.bn2(h) + z)
    scores = fc(features.mean(dim=(2, 3)))
    winner = scores.argmax(dim=1)
    # A product and a sum, which autocast leaves alone, in float32 at least: evidence is an exponent of the softmax,
    # where an error of a half-precision product would be a factor.
    weights = _in_single(fc.weight)[winner]  # (B, C)
    evidence = (weights[:, :, None, None] * _in_single(features)).sum(dim=1)  # (B, H, W)
    values = evidence.flatten(1).softmax(dim=1).reshape_as(evidence)
    return Attention(before=h + z, features=features, values=values, scores=scores, winner=winner)


def attend(module: Any, layer3: Tensor) -> dict[str, Tensor]:
    """The attended maps and `layer4` from the tap `layer3` (B, 256, 14, 14) of `module`, torchvision's ResNet-34."""
    found = attention(module.layer4, module.fc, layer3)
    return {"layer4": found.features} | {tap: found.attended(kind) for kind, tap in KINDS.items()}


def _in_single(value: Tensor) -> Tensor:
    """In float32, or as it is if it is more exact."""
    import torch

    return value.to(torch.promote_types(value.dtype, torch.float32))
