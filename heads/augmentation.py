"""Feature augmentation: more training rows from the same features (SYSTEMS.md 1.11). One method, one row of `METHODS`.

Every method adds one copy of each training clip to a set that stays the same over the epochs: four methods make five
times the rows. A copy is computed where it is read and follows from (clip id, method and amount, seed) alone, so it is
the same in any order, batch and process. It is made from the normalised sequence (T, D), before pooling over time;
labels stay. Validation and test clips have no copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reelbank.heads.errors import TrainingError

if TYPE_CHECKING:  # the command's options are checked with this table, and `--help` loads no torch
    import torch
    from torch import Tensor


def noise(values: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """values + N(0, deviation) per element."""
    import torch

    drawn = torch.randn(values.shape, generator=generator)
    return values + drawn.to(values.device, non_blocking=values.is_cuda) * deviation


def dropout(values: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Each element becomes 0 with probability `rate`; the others are not scaled up."""
    import torch

    kept = torch.rand(values.shape, generator=generator) >= rate
    return values * kept.to(values.device, values.dtype, non_blocking=values.is_cuda)


def scaling(values: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """The whole clip times one factor, uniform in (1 - spread, 1 + spread)."""
    import torch

    factor = 1 + spread * (2 * float(torch.rand((), generator=generator, dtype=torch.float64)) - 1)
    return values * factor


def shift(values: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """The sequence moved by s steps, uniform in {-most .. most}: zero rows come in, what leaves is lost."""
    import torch

    steps = int(torch.randint(-int(most), int(most) + 1, (), generator=generator))
    steps = max(-len(values), min(len(values), steps))
    moved = torch.zeros_like(values)
    if steps > 0:
        moved[steps:] = values[:-steps]
    elif steps < 0:
        moved[:steps] = values[-steps:]
    else:
        moved.copy_(values)
    return moved


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table.

    Attributes:
        apply: (values (T, D) float32, amount, generator on the CPU) -> (T, D).
        amount: the default: of the publication's first trial, where it gives one.
        least, below: the amounts there are, least <= amount < below.
        whole: whether the amount counts steps.
    """

    apply: Callable[[Tensor, float, torch.Generator], Tensor]
    amount: float
    least: float
    below: float
    whole: bool = False


METHODS: Mapping[str, Method] = {
    "dropout": Method(apply=dropout, amount=0.1, least=0.0, below=1.0),
    "noise": Method(apply=noise, amount=0.1, least=0.0, below=float("inf")),
    "scaling": Method(apply=scaling, amount=0.1, least=0.0, below=1.0),
    "shift": Method(apply=shift, amount=2, least=0, below=10_000, whole=True),
}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One method with its amount."""

    method: str
    amount: float

    @property
    def text(self) -> str:
        """`noise=0.1`: what `parse` reads, and what the copy is seeded by."""
        return f"{self.method}={self.amount:g}"

    def copy_of(self, values: Tensor, clip_id: str, seed: int) -> Tensor:
        """The copy of a clip's normalised steps (T, D); `values` is left as it is."""
        import torch

        path = f"{clip_id}\x1f{self.text}\x1f{seed}".encode()
        number = int.from_bytes(hashlib.sha256(path).digest()[:8], "little") >> 1
        # Drawn on the CPU: the same copy whatever device trains.
        generator = torch.Generator().manual_seed(number)
        return METHODS[self.method].apply(values, self.amount, generator)


def parse(texts: Sequence[str]) -> tuple[Augmentation, ...]:
    """The augmentations of `--augment METHOD[=AMOUNT]`. Raises TrainingError for a method or an amount there is not."""
    made: list[Augmentation] = []
    for text in texts:
        name, separator, given = text.partition("=")
        if name not in METHODS:
            raise TrainingError(f"--augment {text!r}: no method {name!r}; choose from {', '.join(sorted(METHODS))}")
        method = METHODS[name]
        try:
            amount = float(given) if separator else float(method.amount)
        except ValueError:
            raise TrainingError(f"--augment {text!r}: {given!r} is no number, e.g. {name}={method.amount:g}") from None
        if not method.least <= amount < method.below or (method.whole and amount != int(amount)):
            kind = "a whole number" if method.whole else "a number"
            raise TrainingError(
                f"--augment {text!r}: the amount of {name} is {kind} from {method.least:g} to below {method.below:g}"
            )
        made.append(Augmentation(method=name, amount=amount))
    names = [one.text for one in made]
    if len(set(names)) < len(names):
        raise TrainingError(f"--augment gives {', '.join(names)}: a method with the same amount twice adds nothing")
    return tuple(made)
