"""A small transformer over the steps of frozen maps: where to look and in which order things happen, below 3 M numbers.

Per step, learnt queries each take a mean of the map's cells, weighted by attention (Attention-based Deep Multiple
Instance Learning, Ilse et al. 2018, arXiv:1802.04712; of several queries: Set Transformer, Lee et al. 2019,
arXiv:1810.00825). With x_p a cell of a map less the map's mean over its deviation, and m_p the motion map there:

    s_qp = w_q . x_p + b_qp + a_q log(m_p + 0.05)       v_q = sum over p of softmax_p(s_q) x_p

The vectors of all queries are projected to one token per step. Differences of neighbouring tokens are a second stream:
taking and putting down show the same pictures, and only their order tells them apart. Both carry a learnt embedding of
their time in the clip, from 0 at its first step to 1 at its last, so that clips of any number of steps can be read.
Layers are pre-norm (On Layer Normalization in the Transformer Architecture, Xiong et al. 2020, arXiv:2002.04745), the
tokens are pooled by attention, and a linear layer per output follows.

Options:
    motion: reads motion maps, the prior above; a_q is learnt and begins at 1. At 0 there is none.
    flow: reads histograms of flow, whose signed square roots, projected, are added to the token of their step.
    patches: reads means of patch tokens of another backbone, which are normalised as maps are and added likewise.
    differences: the second stream.
    order: whether steps have times. Without it a clip is a set of frames, and there are no differences: what is gained
        by it is what the order of frames tells.
    layers, width: of the transformer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HeadShape
from reelbank.heads.models.map_transformer_plan import FLOW, MAPS, MOTION, NUM_HEADS, PATCHES
from reelbank.heads.models.plans import ArrayShape

NUM_QUERIES = 4
NUM_TIMES = 16
"""Times that an embedding is learnt of; between them it is interpolated."""
PRIOR_FLOOR = 0.05
"""Added to motion maps: a place where nothing moves may still be looked at."""
TOKEN_DROPOUT, LAYER_DROPOUT, DROPOUT = 0.1, 0.1, 0.5
INIT_STD = 0.02


class PlaceAttention(nn.Module):
    """Cells (B, T, P, C), prior (B, T, P) or None -> (B, T, Q, C): what each query sees of each step."""

    def __init__(self, num_cells: int, channels: int, *, with_prior: bool) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(NUM_QUERIES, channels) / math.sqrt(channels))
        self.places = nn.Parameter(torch.zeros(NUM_QUERIES, num_cells))
        self.prior = nn.Parameter(torch.ones(NUM_QUERIES)) if with_prior else None

    def forward(self, cells: Tensor, prior: Tensor | None) -> tuple[Tensor, Tensor]:
        """(seen (B, T, Q, C), attention (B, T, Q, P)); `cells` are normalised, `prior` is a logarithm."""
        scores = torch.matmul(self.queries, cells.transpose(-1, -2)) + self.places  # (B, T, Q, P)
        if self.prior is not None and prior is not None:
            scores = scores + self.prior[:, None] * prior.unsqueeze(-2)
        attention = scores.softmax(dim=-1)
        return attention @ cells, attention


class Layer(nn.Module):
    """A pre-norm transformer layer, (B, L, W) with the bias (B, 1, 1, L) of what may be looked at -> (B, L, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(LAYER_DROPOUT), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(LAYER_DROPOUT)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """See the class."""
        split = self.qkv(self.attention_norm(tokens)).unflatten(-1, (3, NUM_HEADS, -1))  # (B, L, 3, heads, W / heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
        tokens = tokens + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        added: Tensor = tokens + self.dropout(self.mlp(self.mlp_norm(tokens)))
        return added


class MapTransformer(nn.Module):
    """The head; see the module."""

    def __init__(self, shape: HeadShape, options: Mapping[str, Any]) -> None:
        super().__init__()
        of_maps, width = shape.arrays[MAPS], options["width"]
        num_cells, channels = cells_of(of_maps)
        self.places = PlaceAttention(num_cells, channels, with_prior=options["motion"])
        self.project = nn.Linear(NUM_QUERIES * channels, width)
        self.beside = nn.ModuleDict(
            {name: nn.Linear(shape.arrays[name].shape[0], width) for name in (FLOW, PATCHES) if options[name]}
        )
        has_order = options["order"]
        self.difference = nn.Linear(width, width) if options["differences"] and has_order else None
        self.times = nn.Parameter(torch.randn(NUM_TIMES, width) * INIT_STD) if has_order else None
        self.token_dropout = nn.Dropout(TOKEN_DROPOUT)
        self.layers = nn.ModuleList(Layer(width) for _ in range(options["layers"]))
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, NUM_HEADS, bias=False)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifiers = nn.ModuleDict({name: nn.Linear(width, size) for name, size in shape.outputs.items()})
        for name, other in shape.arrays.items():
            _refuse_other_steps(name, other.num_steps, of_maps.num_steps)
        if options["motion"]:
            side_of(of_maps.shape)

    def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{maps: (B, T, C, H, W) or (B, T, P, C), motion: (B, T, 28, 28), others: (B, T, D)} -> {output: (B, K)}."""
        vector = self.dropout(self.vector(arrays, masks))
        return {name: linear(vector) for name, linear in self.classifiers.items()}

    def vector(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """What the classifiers read, before their dropout (B, W)."""
        mask = masks[MAPS]
        seen, _ = self._look(arrays, masks)
        tokens = self.project(seen.flatten(2))  # (B, T, W)
        for name, project in self.beside.items():
            _refuse_other_steps(name, arrays[name].shape[1], mask.shape[1])
            tokens = tokens + project(_evened(name, arrays[name])) * masks[name].unsqueeze(-1)
        tokens, mask = self._streams(tokens, mask)
        bias = torch.zeros(mask.shape, dtype=tokens.dtype, device=mask.device)
        # The lowest finite number, not -inf: a clip without valid steps must not become NaN.
        bias = bias.masked_fill(~mask, torch.finfo(tokens.dtype).min)
        tokens = self.token_dropout(tokens)
        for layer in self.layers:
            tokens = layer(tokens, bias[:, None, None])
        tokens = self.norm(tokens)
        weights = (self.score(tokens).transpose(1, 2) + bias.unsqueeze(1)).softmax(dim=-1)  # (B, heads, L)
        parts = tokens.unflatten(-1, (NUM_HEADS, -1))  # (B, L, heads, W / heads)
        pooled: Tensor = torch.einsum("bhl,blhw->bhw", weights, parts).flatten(1)
        return pooled

    def seen_places(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Where each query looks at each step: (B, T, Q, P), cells row by row; each sums to 1."""
        return self._look(arrays, masks)[1]

    def _look(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        maps = arrays[MAPS]
        cells = maps.flatten(3).transpose(2, 3) if maps.ndim == 5 else maps  # (B, T, P, C)
        prior = None
        if self.places.prior is not None:
            moving = arrays[MOTION]
            _refuse_other_steps(MOTION, moving.shape[1], maps.shape[1])
            rows, columns = side_of(maps.shape[2:])
            means = F.adaptive_avg_pool2d(moving, (rows, columns)).flatten(2)
            # A step without a map has none.
            prior = (means.clamp(min=0) + PRIOR_FLOOR).log() * masks[MOTION].unsqueeze(-1)
        found: tuple[Tensor, Tensor] = self.places(F.layer_norm(cells, cells.shape[-2:]), prior)
        return found

    def _streams(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of steps with their times, and those of differences after them; with the mask of both."""
        if self.times is None:
            return tokens, mask
        counts = mask.sum(dim=1, keepdim=True)
        times = (mask.cumsum(dim=1) - 1) / (counts - 1).clamp(min=1)  # (B, T), 0 to 1
        stream = tokens + embedding_at(times, self.times)
        if self.difference is None:
            return stream, mask
        both = mask[:, 1:] & mask[:, :-1]
        between = (times[:, 1:] + times[:, :-1]) / 2
        changes = self.difference(tokens[:, 1:] - tokens[:, :-1]) + embedding_at(between, self.times)
        return torch.cat([stream, changes], dim=1), torch.cat([mask, both], dim=1)


def embedding_at(times: Tensor, learnt: Tensor) -> Tensor:
    """The embedding of times (B, L) from 0 to 1, linear between those that are learnt (16, W): (B, L, W)."""
    place = times.clamp(0, 1).to(learnt.dtype) * (NUM_TIMES - 1)
    before = place.floor().clamp(max=NUM_TIMES - 2)
    share, index = (place - before).unsqueeze(-1), before.long()
    return (1 - share) * learnt[index] + share * learnt[index + 1]


def cells_of(maps: ArrayShape) -> tuple[int, int]:
    """(cells, channels) of one step: of a map (C, H, W), or of patch tokens (P, C). Raises TrainingError for others."""
    if len(maps.shape) == 3:
        return maps.shape[1] * maps.shape[2], maps.shape[0]
    if len(maps.shape) == 2:
        return maps.shape[0], maps.shape[1]
    raise TrainingError(
        f"map-transformer reads maps (C, H, W) or tokens (P, C), and {maps.name} has {maps.shape}: give another --tap"
    )


def side_of(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the cells of one step (C, H, W) or (P, C). Raises TrainingError for tokens of no square."""
    if len(shape) == 3:
        return shape[1], shape[2]
    side = math.isqrt(shape[0])
    if side * side != shape[0]:
        raise TrainingError(f"a motion map lies on a square, and maps have {shape[0]} tokens; leave motion out")
    return side, side


def _evened(name: str, values: Tensor) -> Tensor:
    """Vectors (B, T, D) without the few large values that would drown the others."""
    return values.sign() * values.abs().sqrt() if name == FLOW else F.layer_norm(values, values.shape[-1:])


def _refuse_other_steps(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise TrainingError(
            f"map-transformer reads {name} step by step beside the maps, and it has {found} steps where they have "
            f"{wanted}; featurize both with the same --sampling"
        )


def build(shape: HeadShape, options: Mapping[str, Any]) -> nn.Module:
    """The head for `shape`; see the module for its options."""
    return MapTransformer(shape, options)
