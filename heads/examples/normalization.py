"""Normalisation of features before a head: statistics of the training clips, kept in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reelbank.heads.examples.features import Features


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """How each feature vector is normalised.

    Attributes:
        kind: `zscore`, `l2` (each step; a pooled head reads means of such steps, `Features.unit_steps`) or `none`.
        mean, scale: {key: (D,) float32}, empty unless zscore.
    """

    kind: str
    mean: Mapping[str, Tensor]
    scale: Mapping[str, Tensor]

    def apply(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """{key: (B, T, D) any float dtype} -> the same as normalised float32; padded steps are zero."""
        result = {}
        for key, array in features.items():
            values = array.to(torch.float32)
            if self.kind == "zscore":
                values = (values - self.mean[key]) / self.scale[key]
            elif self.kind == "l2":
                values = torch.nn.functional.normalize(values, dim=-1)
            result[key] = values if values.shape[1] == 1 else values * mask.unsqueeze(-1)
        return result

    def to(self, device: torch.device) -> Normalization:
        """The same statistics on `device`."""
        return Normalization(
            kind=self.kind,
            mean={key: value.to(device) for key, value in self.mean.items()},
            scale={key: value.to(device) for key, value in self.scale.items()},
        )


def fit_normalization(features: Features, rows: np.ndarray, kind: str) -> Normalization:
    """Statistics of the clips at `rows`, over all their steps.

    zscore: mean and standard deviation per dimension over all steps of the training clips (SYSTEMS.md 1.3). The total
    variance is the mean of the clips' variances plus the variance of their means, both weighted by steps, so the steps
    themselves are not read. A dimension that never changes is only shifted.
    """
    if kind != "zscore":
        return Normalization(kind=kind, mean={}, scale={})
    weights = features.num_steps[rows].astype(np.float64)
    weights /= weights.sum()
    means: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for key in features.arrays:
        mean = weights @ features.means[key][rows]
        spread = features.variances[key][rows] + (features.means[key][rows] - mean) ** 2
        std = np.sqrt(weights @ spread)
        # Below the rounding of a float16 feature a deviation is noise: dividing by it would blow it up.
        constant = std <= 1e-6 * np.maximum(np.abs(mean), 1.0)
        means[key] = torch.from_numpy(mean.astype(np.float32))
        scales[key] = torch.from_numpy(np.where(constant, 1.0, std).astype(np.float32))
    return Normalization(kind=kind, mean=means, scale=scales)
