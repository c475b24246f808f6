"""The networks of `raft`, run on pairs of frames."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reelbank.extract.backbones import flow_taps
from reelbank.extract.backbones.description import BackboneError, BackboneInfo, BuildOptions
from reelbank.extract.backbones.network import Architecture, Launched, Network, build_network

_NUM_UPDATES = 12
_PREFIX = "raft."


def build_raft(info: BackboneInfo, model: str, options: BuildOptions) -> Network:
    """torchvision's `raft_small` or `raft_large` with the weights that `options` ask for."""
    architecture = Architecture(
        text=f"torchvision {model}, {_NUM_UPDATES} updates",
        create=functools.partial(_create, model),
        convert=_convert,
        run=_run,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    built = build_network(info, architecture, options)
    return RaftFlow(**{field.name: getattr(built, field.name) for field in fields(built) if field.init})


@dataclass(frozen=True, kw_only=True)
class RaftFlow(Network):
    """A network whose only output is the field, of which all taps are made."""

    def forward(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Flow of RGB pairs (B, 2, H, W, 3) uint8.

        Raises:
            BackboneError: the field has NaN or Inf, which would look like motion in `flow-8bit`.
        """
        wanted = self.wanted_taps(frames, taps)
        field = super().tensors(frames, ("flow",))["flow"].float().cpu().numpy()
        if not np.isfinite(field).all():
            raise BackboneError(
                f"backbone {self.name!r} gave NaN or Inf in precision {self.precision}; use fp32 or other weights"
            )
        return flow_taps.features(self, flow_taps.bounded(field), wanted)

    def launch(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> Launched:
        """All is done before it returns: what follows the field is made on the CPU."""
        features = self.forward(frames, taps)
        return lambda: features

    def tensors(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The stored features on the device: histograms and images are made on the CPU."""
        return {tap: torch.from_numpy(value).to(self.device) for tap, value in self.forward(frames, taps).items()}


class _Pairs(nn.Module):
    """RAFT on pairs in one tensor, as every network here takes its input."""

    def __init__(self, raft: nn.Module) -> None:
        super().__init__()
        self.raft = raft

    def forward(self, pairs: Tensor, num_updates: int = 1) -> Tensor:
        """Flow (B, 2, H, W) in px of normalised pairs (B, 3, 2, H, W).

        One update by default: the pass that calibrates random weights needs no more, batch norm comes before them.
        """
        before, after = (frame.contiguous() for frame in pairs.unbind(2))
        last: Tensor = self.raft(before, after, num_flow_updates=num_updates)[-1]
        return last


def _create(model: str) -> nn.Module:
    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    from torchvision.models import optical_flow

    return _Pairs(getattr(optical_flow, model)(weights=None))


def _convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of torchvision's own files; a state that has our prefix keeps it."""
    return {key if key.startswith(_PREFIX) else _PREFIX + key: value for key, value in state.items()}


def _run(module: Any, pairs: Tensor, taps: frozenset[str]) -> dict[str, Tensor]:
    """Pair by pair on a CPU: no slower there, and the size of the batch shows in no bit and no gray level."""
    if not len(pairs):
        return {"flow": pairs.new_zeros((0, 2, *pairs.shape[3:]))}
    parts = torch.split(pairs, 1) if pairs.device.type == "cpu" else (pairs,)
    return {"flow": torch.cat([module(part, num_updates=_NUM_UPDATES) for part in parts])}
