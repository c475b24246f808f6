"""The attended maps of Ego-RNN, taps of ResNet-34: what its ConvLSTM reads when the backbone is frozen.

Attention is All We Need: Nailing Down Object-centric Attention for Egocentric Activity Recognition,
Sudhakaran and Lanz 2018, arXiv:1807.11794; class activation maps: Zhou et al. 2015, arXiv:1512.04150.

With z the input of layer4's last block, h its second convolution's output before batch norm:

    F  = relu(bn2(h) + z)                    the tap `layer4`, which O-RNN reads unattended
    Fn = h + z
    c  = argmax(fc(mean over positions of F))
    M  = sum over channels l of fc.weight[c, l] F[l]        (7, 7)
    A  = softmax of M over its 49 positions

`ego-attended` (512, 7, 7) is Fn A, what the published implementation computes; `ego-attended-postbn` is F A,
the formula as the paper writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reelbank.store.spec import TapSpec

if TYPE_CHECKING:
    from torch import Tensor

TAPS = frozenset({"ego-attended", "ego-attended-postbn"})


def taps() -> tuple[TapSpec, ...]:
    """Both attended maps."""
    axes = ("channel", "height", "width")
    return tuple(
        TapSpec(name=name, dtype="float16", axes=axes, shape=(512, 7, 7), codec="zstd-1") for name in sorted(TAPS)
    )


def attend(module: Any, layer3: Tensor) -> dict[str, Tensor]:
    """The attended maps and `layer4` from the tap `layer3`.

    Args:
        module: torchvision's ResNet-34.
        layer3: (B, 256, 14, 14).
    """
    import torch

    *blocks, last = module.layer4
    z = layer3
    for block in blocks:
        z = block(z)
    h = last.conv2(last.relu(last.bn1(last.conv1(z))))
    features = torch.relu(last.bn2(h) + z)
    winner = module.fc(features.mean(dim=(2, 3))).argmax(dim=1)  # (B,)
    # A product and a sum, which autocast leaves in float32: evidence is an exponent of the softmax below, where an
    # error of a half-precision product would be a factor.
    weights = module.fc.weight.float()[winner]  # (B, 512)
    evidence = (weights[:, :, None, None] * features.float()).sum(dim=1)  # (B, 7, 7)
    attention = evidence.flatten(1).softmax(dim=1).reshape_as(evidence).unsqueeze(1)
    return {
        "layer4": features,
        "ego-attended": (h + z).float() * attention,
        "ego-attended-postbn": features.float() * attention,
    }
