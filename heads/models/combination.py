"""Predictors of single outputs, each on some of the taps, whose probabilities are averaged: the heads auto and trees.

Which parts there are is decided by inner validation (`reelbank.heads.fitting.choosing`) and kept in the options of the
trained head; parts are fitted, not trained by gradients. A part maps the pooled vectors (B, D) of its taps, side by
side in sorted order, to probabilities (B, K).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HeadShape, trees
from reelbank.heads.models.pooled import pooled_vector

LEAST, LEAST_OF_LABELS = 1e-12, 1e-6  # of a probability whose logarithm is taken; a sigmoid is not exact so close to 1


class Constant(nn.Module):
    """The same probabilities for every clip: what is left where features tell nothing."""

    probabilities: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("probabilities", torch.full((outputs,), 1 / outputs))

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        return self.probabilities.expand(len(vectors), -1)


class Linear(nn.Module):
    """A linear layer, then a softmax, or a sigmoid per label where clips have several."""

    def __init__(self, width: int, outputs: int, *, independent: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(width, outputs)
        self.independent = independent

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        logits: Tensor = self.layer(vectors)
        return logits.sigmoid() if self.independent else logits.softmax(dim=1)


class Normal(nn.Module):
    """A linear layer gives the place of a target among its bins; around it a normal distribution of one width."""

    width_bins: Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)
        self.outputs = outputs
        self.register_buffer("width_bins", torch.ones(()))

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        bins = torch.arange(self.outputs, device=vectors.device, dtype=vectors.dtype)
        place = self.layer(vectors).clamp(0, self.outputs - 1)  # (B, 1)
        q: Tensor = (-((bins - place) ** 2) / (2 * self.width_bins**2)).softmax(dim=1)
        return q


PARTS: Mapping[str, Callable[[int, int, Mapping[str, Any]], nn.Module]] = {
    "constant": lambda width, outputs, options: Constant(outputs),
    "linear": lambda width, outputs, options: Linear(width, outputs, independent=bool(options["independent"])),
    "normal": lambda width, outputs, options: Normal(width, outputs),
    "trees": trees.build,
}
"""Kind of part -> what makes an empty one of (D, K, its options)."""


class Combination(nn.Module):
    """{output: mean of the probabilities of its parts}, as logits.

    Args:
        shape: of the head.
        parts: {output: [{"kind", "taps", "options"}]}.
        independent: whether the classes are judged each by itself.
        widening: standard deviation in bins by which the target's distribution is spread; 0: not at all.
    """

    def __init__(
        self,
        shape: HeadShape,
        parts: Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        independent: bool,
        widening: float = 0.0,
    ) -> None:
        super().__init__()
        if set(parts) != set(shape.outputs) or not all(parts.values()):
            raise TrainingError(f"the outputs are {sorted(shape.outputs)}, there are parts for {sorted(parts)}")
        self.independent, self.widening = independent, widening
        self.taps = {output: [tuple(part["taps"]) for part in given] for output, given in parts.items()}
        self.parts = nn.ModuleDict()
        for output, given in parts.items():
            made = nn.ModuleList()
            for part in given:
                if part["kind"] not in PARTS or not set(part["taps"]) <= set(shape.taps):
                    raise TrainingError(f"no part {part['kind']!r} on the taps {part['taps']} of {sorted(shape.taps)}")
                width = sum(shape.taps[tap] for tap in part["taps"])
                made.append(PARTS[part["kind"]](width, shape.outputs[output], part["options"]))
            self.parts[output] = made

    def check(self) -> None:
        """Raises ValueError where the arrays of a part, read from a file, do not fit each other."""
        for part in self.parts.modules():
            if isinstance(part, trees.Trees):
                part.check()

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """features {tap: (B, T, D)}, mask (B, T) -> {output: (B, K)}."""
        logits = {}
        for output, parts in self.parts.items():
            # A constant reads no tap, only how many clips there are.
            read = [
                pooled_vector({tap: features[tap] for tap in taps}, mask) if taps else mask
                for taps in self.taps[output]
            ]
            given = zip(parts, read, strict=True)  # type: ignore[call-overload]
            mean = torch.stack([part(vectors) for part, vectors in given]).mean(dim=0)
            if output == "target":
                mean = trees.smoothed(mean, self.widening)
            logits[output] = as_logits(mean, independent=self.independent and output == "label")
        return logits


def as_logits(p: Tensor, *, independent: bool) -> Tensor:
    """Probabilities (B, K) as what a softmax, or a sigmoid per label, turns into them again."""
    return p.logit(eps=LEAST_OF_LABELS) if independent else p.clamp(min=LEAST).log()


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape` with the `parts` of `options`, empty until they are fitted or loaded."""
    if not options.get("parts"):
        raise TrainingError("this head is fitted by `train-head`; it cannot be built without its parts")
    return Combination(
        shape, options["parts"], independent=bool(options["independent"]), widening=float(options["widening"])
    )
