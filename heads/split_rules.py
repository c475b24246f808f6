"""How clips are parted into training and others where the store's own split is not wanted. No numpy is loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from reelbank.heads.errors import TrainingError

OWN = "split"
"""The column of every store."""
DRAWN = ("groups", "random")
PARTS = ("test", "val")
FORMS = "split, the name of another text column, random:SHARE[:test] or groups:SHARE[:test]"


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """Which clips train.

    Attributes:
        text: as it was asked for.
        kind: `column`: a text column says it; `random`: clips are drawn, whatever their group; `groups`: whole groups.
        share: of all clips that is held out; of the drawn.
        part: what the clips are that are held out, `val` or `test`.
    """

    text: str = OWN
    kind: Literal["column", "groups", "random"] = "column"
    share: Fraction = Fraction(0)
    part: str = "val"

    @property
    def is_own(self) -> bool:
        """Whether it is the store's own split."""
        return self.text == OWN


def parse_split_rule(text: str) -> SplitRule:
    """The rule that --split-by names. Raises TrainingError for one that there is not."""
    kind, separator, rest = text.partition(":")
    if kind not in DRAWN or not separator:
        if not text:
            raise TrainingError(f"--split-by is empty; give {FORMS}")
        return SplitRule(text=text)
    share, _, part = rest.partition(":")
    try:
        held = Fraction(share)
    except (ValueError, ZeroDivisionError):
        held = Fraction(0)
    if not 0 < held < 1 or (part or "val") not in PARTS:
        raise TrainingError(f"--split-by {text!r}: expected {FORMS}, SHARE above 0 and below 1")
    return SplitRule(text=text, kind="groups" if kind == "groups" else "random", share=held, part=part or "val")
