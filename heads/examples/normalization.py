"""Normalisation of features before a head: statistics of the training clips, kept in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reelbank.heads.examples.features import Features

FLOOR = 0.1  # of the usual deviation; lower where more than 100 clips show that a dimension is that narrow


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
    themselves are not read. No dimension is divided by much less than what is usual among the others (`scale_of`).
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
        means[key] = torch.from_numpy(mean.astype(np.float32))
        scales[key] = torch.from_numpy(scale_of(mean, std, len(rows)).astype(np.float32))
    return Normalization(kind=kind, mean=means, scale=scales)


def scale_of(mean: np.ndarray, std: np.ndarray, num_clips: int) -> np.ndarray:
    """What each dimension (D,) is divided by: its deviation, or a floor made of the usual one, the median.

    A dimension that hardly changes in n training clips may change in the next: divided by 1e-7 it would outweigh all
    others. One clip in n that differs by the usual deviation makes a deviation of that / sqrt(n), so what is less than
    that, and less than `FLOOR`, is not known. A dimension that does not change at all is taken to be as the others.
    """
    # Below the rounding of a float16 feature a deviation is noise; below float32's range the scale would be 0.
    constant = std <= np.maximum(1e-6 * np.abs(mean), np.finfo(np.float32).tiny)
    usual = float(np.median(std[~constant])) if not constant.all() else 1.0
    least = usual * min(FLOOR, num_clips**-0.5)
    return np.where(constant, usual, np.maximum(std, least))
