"""Targets of training: class numbers and Gaussian-softened bins.

Bins (SYSTEMS.md 1.6, after Vid2Burn, arXiv 2209.04232): bin n of Bn stands for the value
low + n * (high - low) / (Bn - 1), so that the first bin is `low` and the last is `high`. A value y becomes

    loc = (y - low) * (Bn - 1) / (high - low);   p[n] = exp(-(n - loc)^2 / (2 sigma^2)) / sum

with sigma in bins. The sum is taken over the bins there are, so p is a distribution at the borders too. With labels
`density` the divisor is sigma sqrt(2 pi) instead, the formula as it is printed: near a border p then sums to less than
1, at it to 0.54 (for sigma 5), and an odd number of bins such as 1001 gives whole targets a bin of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reelbank.heads.errors import TrainingError

UNITS: Mapping[str, str] = {"kcal": "kcal/h"}
NARROWEST_RANGE = 1e-30
DEFAULT_RANGES: Mapping[str, tuple[float, float]] = {"kcal": (0.0, 1000.0)}


@dataclass(frozen=True, kw_only=True)
class Bins:
    """How a numeric target is cut into bins.

    Attributes:
        target: column name.
        num_bins: Bn.
        low, high: values of the first and the last bin, in target units.
        sigma_bins: standard deviation of the softened label, in bins.
        labels: `soft`, `density` or `hard` (all mass on one bin).
    """

    target: str
    num_bins: int
    low: float
    high: float
    sigma_bins: float
    labels: str = "soft"

    @property
    def unit(self) -> str:
        """Unit of the target where its name tells, else the empty string."""
        return UNITS.get(self.target, "")

    def to_json(self) -> dict[str, Any]:
        """The fields and the unit as JSON types."""
        return asdict(self) | {"unit": self.unit}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bins:
        """The bins that `to_json` wrote."""
        return cls(**{name: value for name, value in data.items() if name != "unit"})

    def values(self) -> np.ndarray:
        """Value of every bin in target units, float64 (K,)."""
        return np.linspace(self.low, self.high, self.num_bins)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Bin of each value, int64; a value halfway between two bins goes to the lower one."""
        loc = (values - self.low) * (self.num_bins - 1) / (self.high - self.low)
        return np.clip(np.ceil(loc - 0.5), 0, self.num_bins - 1).astype(np.int64)

    def distributions(self, values: np.ndarray) -> np.ndarray:
        """The label of each value as a distribution: (N,) -> float64 (N, K); values are clipped to the range.

        Labels `density` sum to less than 1 near the borders.
        """
        if self.labels == "hard":
            hard: np.ndarray = np.eye(self.num_bins)[self.nearest(values)]
            return hard
        loc = (np.clip(values, self.low, self.high) - self.low) * (self.num_bins - 1) / (self.high - self.low)
        bins = np.arange(self.num_bins)
        weights = np.exp(-((bins[None] - loc[:, None]) ** 2) / (2 * self.sigma_bins**2))
        if self.labels == "density":
            density: np.ndarray = weights / (self.sigma_bins * math.sqrt(2 * math.pi))
            return density
        soft: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
        return soft


def estimate_of_logits(logits: Tensor, bin_values: Tensor, kind: str) -> Tensor:
    """The value (B,) that each predicted distribution stands for: `heads.judging.metrics.point_estimate` in torch."""
    if kind == "argmax":
        return bin_values[logits.argmax(dim=1)]
    q = logits.softmax(dim=1)
    if kind == "expectation":
        return q @ bin_values
    sums = q.cumsum(dim=1)
    return bin_values[(sums >= 0.5 * sums[:, -1:]).to(torch.uint8).argmax(dim=1)]


def make_bins(
    target: str,
    train_values: np.ndarray,
    *,
    num_bins: int,
    value_range: tuple[float, float] | None,
    sigma_bins: float,
    labels: str,
) -> Bins:
    """The bins for a training part.

    Args:
        train_values: float64, the target of every training clip.
        value_range: (low, high); None takes 0 to 1000 for `kcal`, else the training range.

    Raises:
        TrainingError: NaN or values outside the range among the training clips, or all values equal.
    """
    if missing := int((~np.isfinite(train_values)).sum()):
        raise TrainingError(
            f"target {target!r} is empty or not finite in {missing} of {len(train_values)} training clips; "
            "fill them in the manifest, leave those clips out, or pass --target none"
        )
    lowest, highest = float(train_values.min()), float(train_values.max())
    low, high = value_range or DEFAULT_RANGES.get(target, (lowest, highest))
    if outside := int(((train_values < low) | (train_values > high)).sum()):
        raise TrainingError(
            f"target {target!r}: {outside} of {len(train_values)} training clips lie outside {low:g}:{high:g} "
            f"(they go from {lowest:g} to {highest:g}); widen it with --range LOW:HIGH"
        )
    if low == high:
        raise TrainingError(
            f"target {target!r} is {low:g} for every training clip: nothing to learn; pass --target none or --range"
        )
    bins = Bins(target=target, num_bins=num_bins, low=low, high=high, sigma_bins=sigma_bins, labels=labels)
    if high - low < NARROWEST_RANGE or len(np.unique(bins.values())) < num_bins:
        raise TrainingError(
            f"target {target!r}: {num_bins} bins from {low:.17g} to {high:.17g} are closer together than numbers can "
            "be; give the target as a difference from its usual value or in another unit, or pass --target none"
        )
    return bins


def class_numbers(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Position of each label in `names`, int64; -1 for a label that training never saw."""
    position = {name: index for index, name in enumerate(names)}
    return np.array([position.get(label, -1) for label in labels], dtype=np.int64)


def class_distributions(numbers: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """One-hot rows, smoothed: (1 - e) * onehot + e / K (arXiv 1512.00567). (B,) int64 -> (B, K) float32."""
    onehot = torch.nn.functional.one_hot(numbers, num_classes).to(torch.float32)
    return onehot if smoothing == 0 else onehot * (1 - smoothing) + smoothing / num_classes


def balanced_weights(numbers: np.ndarray, num_classes: int) -> np.ndarray:
    """N / (K * clips of the class), float32 (K,): as scikit-learn's `balanced`. Classes without clips get 0."""
    counts = np.bincount(numbers, minlength=num_classes)
    weights = np.zeros(num_classes, dtype=np.float32)
    weights[counts > 0] = len(numbers) / (num_classes * counts[counts > 0])
    return weights
