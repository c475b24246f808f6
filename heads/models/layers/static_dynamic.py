"""A discriminator on the recurrent network's vector: was it fed with a sequence, or with one step over and over?

It makes the recurrent network encode what changes. SYSTEMS.md 2.8: a dynamic pass reads the sequence (class 1), a
static pass one step of it repeated (class 0).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STATIC, DYNAMIC = 0, 1


def static_sequence(sequence: Tensor, mask: Tensor | None, index: Tensor) -> Tensor:
    """One step of each clip, repeated as long as the sequence is.

    Args:
        sequence: (B, T, ...).
        mask: (B, T) bool, which steps are valid; None: all.
        index: (B,) int64, which step of each clip.

    Returns:
        (B, T, ...), a view without memory of its own; `mask` holds for it too.

    Raises:
        ValueError: an index past the sequence or of a padded step.
    """
    batch, num_steps = sequence.shape[:2]
    outside = (index < 0) | (index >= num_steps)
    if bool(outside.any()):
        raise ValueError(f"step {int(index[outside][0])} was asked for, of clips with {num_steps} steps")
    clips = torch.arange(batch, device=index.device)
    if mask is not None and not bool(mask[clips, index].all()):
        clip = int((~mask[clips, index]).nonzero()[0, 0])
        raise ValueError(f"clip {clip} of the batch: step {int(index[clip])} is padding; draw one of its valid steps")
    return sequence[clips, index].unsqueeze(1).expand_as(sequence)


class StaticDynamic(nn.Module):
    """The discriminator: (B, width) -> logits (B, 2), class 1 is a real sequence. One linear layer, no dropout."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)

    def forward(self, pooled: Tensor) -> Tensor:
        """pooled (B, width), the recurrent network's vector -> (B, 2)."""
        logits: Tensor = self.linear(pooled)
        return logits


def static_dynamic_cross_entropy(dynamic: Tensor, static: Tensor) -> Tensor:
    """Cross-entropy in nats of each clip's two passes, their mean: its mean over B clips is that over 2B outputs.

    Args:
        dynamic: logits (B, 2) of the sequences.
        static: logits (B, 2) of one step repeated.

    Returns:
        (B,).
    """
    losses = [
        F.cross_entropy(logits, torch.full((len(logits),), label, device=logits.device), reduction="none")
        for logits, label in ((dynamic, DYNAMIC), (static, STATIC))
    ]
    return (losses[0] + losses[1]) / 2
