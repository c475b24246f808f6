"""Which tensors a network has, as one number that both stages compute alike.

A run that trained the end of a backbone keeps that end alone; the digest of what it left out says whether the rest is
found again. `extract` also names a network by the digest of all its tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names, dtypes, shapes and bytes of tensors, wherever they lie and in whatever order.

    For each tensor, by its name: one line of JSON, [name, dtype as torch writes it without `torch.`, shape], and its
    elements in row-major order, little-endian.
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        line = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        digest.update(f"{line}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def rest_digest(state: Mapping[str, Tensor], weights: Mapping[str, Any]) -> str:
    """What the tensors of a network are known by that a run does not hold, as they still are as `weights` says.

    Of random weights it is the sha256 of their recipe: their last bits differ between machines.
    """
    return str(weights["sha256"]) if state and weights["kind"] == "random" else tensors_digest(state)
