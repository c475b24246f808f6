"""Index lists over stored steps: overlapping segments are read by index, so that nothing is stored twice.

A rule is written `segments:LENGTH` with `:starts=guard`, `:starts=guard:hop=H` or `:stride=S` after it.

guard (the default, SYSTEMS.md 1.3): a segment every `hop` steps from 0 on; one that would run past the end is replaced
by the last LENGTH steps, and one more such segment ends the list. 90 steps in segments of 16 give the starts 0, 10,
..., 70, 74, 74: 160 indices that cover every step 1 to 4 times.

stride: a segment every S steps as long as it fits, so the last steps may be in none.

A clip no longer than a segment is one segment of the steps it has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reelbank.store.errors import StoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_HOP_STEPS = 10
EXAMPLES = "segments:16:starts=guard or segments:16:stride=8"
_FORM = re.compile(r"segments:(?P<length>\d+)(:starts=guard(:hop=(?P<hop>\d+))?|:stride=(?P<stride>\d+))?")


@dataclass(frozen=True, kw_only=True)
class SegmentRule:
    """Segments of `length_steps` that begin every `spacing_steps`.

    Attributes:
        guarded: True adds last segments so that every step is covered (`starts=guard`), False drops what does not fit.
    """

    length_steps: int
    spacing_steps: int = DEFAULT_HOP_STEPS
    guarded: bool = True

    def __post_init__(self) -> None:
        if self.length_steps < 1 or self.spacing_steps < 1:
            raise StoreError(f"{self.text!r}: segments and the steps between their starts must be 1 or more")
        if self.guarded and self.spacing_steps > self.length_steps:
            raise StoreError(
                f"{self.text!r}: segments of {self.length_steps} steps every {self.spacing_steps} leave gaps; "
                f"add :hop=H with H at most {self.length_steps}, or use :stride={self.spacing_steps}"
            )

    @property
    def text(self) -> str:
        """The rule as `parse_segments` reads it."""
        hop = "" if self.spacing_steps == DEFAULT_HOP_STEPS else f":hop={self.spacing_steps}"
        tail = f"starts=guard{hop}" if self.guarded else f"stride={self.spacing_steps}"
        return f"segments:{self.length_steps}:{tail}"

    def starts(self, num_steps: int) -> list[int]:
        """First step of each segment of a clip of `num_steps` steps; none of an empty clip."""
        last = num_steps - self.length_steps
        if last <= 0:
            return [0] if num_steps > 0 else []
        if not self.guarded:
            return list(range(0, last + 1, self.spacing_steps))
        return [*(min(start, last) for start in range(0, num_steps, self.spacing_steps)), last]

    def indices(self, num_steps: int) -> NDArray[np.int64]:
        """(S,) the stored steps that the segments read, one segment after the other."""
        import numpy as np

        starts = np.array(self.starts(num_steps), dtype=np.int64)
        return (starts[:, None] + np.arange(min(self.length_steps, num_steps))).ravel()

    def multiplicities(self, num_steps: int) -> NDArray[np.int64]:
        """(num_steps,) how often each stored step is read: the weights that make a mean over segments."""
        import numpy as np

        return np.bincount(self.indices(num_steps), minlength=num_steps)

    def table(self, num_steps: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The index lists of clips of `num_steps` (B,): indices (B, S), 0 where padded, and mask (B, S)."""
        import numpy as np

        lists = {int(count): self.indices(int(count)) for count in np.unique(num_steps)}
        longest = max((len(entry) for entry in lists.values()), default=0)
        indices = np.zeros((len(num_steps), longest), dtype=np.int64)
        mask = np.zeros((len(num_steps), longest), dtype=bool)
        for count, entry in lists.items():
            rows = num_steps == count
            indices[rows, : len(entry)] = entry
            mask[rows, : len(entry)] = True
        return indices, mask


def parse_segments(text: str) -> SegmentRule:
    """The rule that `text` asks for. Raises StoreError saying how a rule is written."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise StoreError(f"{text!r} is no rule of segments; write {EXAMPLES}")
    values: dict[str, Any] = {"length_steps": int(found["length"])}
    if found["stride"]:
        values |= {"spacing_steps": int(found["stride"]), "guarded": False}
    elif found["hop"]:
        values["spacing_steps"] = int(found["hop"])
    elif values["length_steps"] < DEFAULT_HOP_STEPS:
        values["spacing_steps"] = max(1, values["length_steps"])
    return SegmentRule(**values)
