"""A forest of extremely randomised trees (Geurts et al., 2006, doi 10.1007/s10994-006-6226-1) as tensors.

scikit-learn grows the trees (`reelbank.heads.fitting.forests`); what is kept of them are arrays that anybody can read
without running code, and that predict the same on every version: nodes with a feature, a threshold and two children,
and for each leaf the labels of the training clips that fell into it. A clip's distribution is the mean over the trees
of that of its leaf. For a target the columns are bins: the labels of the leaves, smoothed, are then the distribution of
the values of similar clips, whose median and quantiles can be read (quantile regression forests, Meinshausen, 2006).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

PRIOR_WEIGHT = 1.0
"""How many trees the frequencies of the training clips count as: no class is impossible."""
REACH = 4  # standard deviations that the kernel of a target's bins is cut at


@dataclass(frozen=True, kw_only=True)
class ForestSize:
    """What the arrays of a forest hold: numbers of trees, nodes, labels in leaves, and the longest way to a leaf."""

    trees: int
    nodes: int
    entries: int
    depth: int

    def to_json(self) -> dict[str, int]:
        """The sizes as JSON types."""
        return asdict(self)


class Trees(nn.Module):
    """Vectors (B, D) -> probabilities (B, K).

    The arrays: `feature`, `threshold`, `left`, `right` (nodes,): a clip goes left where its feature is at most the
    threshold; both children of a leaf are itself. `roots` (trees,). The labels of node n are `column`, `weight`
    [start[n], start[n + 1]); the weights of a leaf sum to 1 (with several labels per clip: each to at most 1).
    `prior` (K,): frequencies of the training clips.

    Args:
        width: D.
        outputs: K.
        size: of the arrays.
        sigma: standard deviation, in columns, by which the leaves' labels are smoothed; 0: columns are classes.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    roots: Tensor
    start: Tensor
    column: Tensor
    weight: Tensor
    prior: Tensor

    def __init__(self, width: int, outputs: int, size: ForestSize, sigma: float = 0.0) -> None:
        super().__init__()
        self.width, self.outputs, self.depth, self.sigma = width, outputs, size.depth, sigma
        self.register_buffer("feature", torch.zeros(size.nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(size.nodes))
        self.register_buffer("left", torch.zeros(size.nodes, dtype=torch.int64))
        self.register_buffer("right", torch.zeros(size.nodes, dtype=torch.int64))
        self.register_buffer("roots", torch.zeros(size.trees, dtype=torch.int64))
        self.register_buffer("start", torch.zeros(size.nodes + 1, dtype=torch.int64))
        self.register_buffer("column", torch.zeros(size.entries, dtype=torch.int64))
        self.register_buffer("weight", torch.zeros(size.entries))
        self.register_buffer("prior", torch.zeros(outputs))

    def check(self) -> None:
        """Raises ValueError where an array of a file points outside the others."""
        nodes, entries = len(self.feature), len(self.column)
        bounds = {
            "feature": self.width, "left": nodes, "right": nodes, "roots": nodes, "column": self.outputs,
            "start": entries + 1,
        }  # fmt: skip
        for name, bound in bounds.items():
            values = getattr(self, name)
            if len(values) and not (int(values.min()) >= 0 and int(values.max()) < bound):
                raise ValueError(f"{name} of its trees holds {int(values.min())} to {int(values.max())} of {bound}")
        if bool((self.start[1:] < self.start[:-1]).any()):
            raise ValueError("the labels of its trees' leaves do not follow one another")

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D) -> (B, K), rows that sum to 1 (with several labels per clip: probabilities of their own)."""
        leaves = self.leaves(vectors)  # (B, trees)
        first, count = self.start[leaves], self.start[leaves + 1] - self.start[leaves]
        # Entry e of leaf l lies at first[l] + e: all of them, clip by clip, without a loop over leaves.
        counts = count.flatten()
        ends = counts.cumsum(0)
        within = torch.arange(int(ends[-1]) if len(ends) else 0, device=vectors.device)
        places = within + torch.repeat_interleave(first.flatten() - (ends - counts), counts)
        clips = torch.repeat_interleave(torch.arange(len(vectors), device=vectors.device), count.sum(dim=1))
        summed = self.weight.new_zeros(len(vectors) * self.outputs)
        summed.index_add_(0, clips * self.outputs + self.column[places], self.weight[places])
        votes = self._smoothed(summed.view(len(vectors), self.outputs))
        return (votes + PRIOR_WEIGHT * self._smoothed(self.prior[None])) / (len(self.roots) + PRIOR_WEIGHT)

    def leaves(self, vectors: Tensor) -> Tensor:
        """The leaf of each clip in each tree, (B, D) -> int64 (B, trees)."""
        node = self.roots.expand(len(vectors), -1)
        for _ in range(self.depth):
            goes_left = vectors.gather(1, self.feature[node]) <= self.threshold[node]
            node = torch.where(goes_left, self.left[node], self.right[node])
        return node

    def _smoothed(self, votes: Tensor) -> Tensor:
        """Votes (B, K) for bins spread over their neighbours; none leaves the range."""
        if not self.sigma:
            return votes
        reach = min(math.ceil(REACH * self.sigma), self.outputs - 1)
        offsets = torch.arange(-reach, reach + 1, device=votes.device, dtype=votes.dtype)
        kernel = torch.exp(-(offsets**2) / (2 * self.sigma**2))
        # What a border cuts off goes to the bins that are there, as in the labels of training (`Bins.distributions`).
        inside = nn.functional.conv1d(torch.ones_like(votes[:1]).unsqueeze(1), kernel[None, None], padding=reach)
        scaled = votes / inside.squeeze(1)
        return nn.functional.conv1d(scaled.unsqueeze(1), kernel[None, None], padding=reach).squeeze(1)


def build(width: int, outputs: int, options: Mapping[str, Any]) -> Trees:
    """The empty forest of `options`: `size` (a ForestSize as JSON) and `sigma`."""
    return Trees(width, outputs, ForestSize(**options["size"]), float(options["sigma"]))
