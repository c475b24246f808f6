"""Sampling: the rule that picks frames of a clip.

One frozen dataclass per rule; `parse` reads the text form, `str` gives the canonical text back,
`reelbank.extract.inputs.frame_choice` applies the rule to the frames of one clip.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, assert_never

CONSECUTIVE_STARTS = ("centre", "random", "zero")

FORMS = (
    "all",
    "consecutive:N[:centre|random|zero]",
    "every:K",
    "first:N",
    "fps:F",
    "position:P[,P...] (0 to 1)",
    "random:N",
    "uniform:N[:open]",
    "RULE+RULE (the frames of both)",
)


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """`num_steps` frames spread evenly: floor(linspace(0, N-1, num_steps)).

    Attributes:
        num_steps: T, at least 1.
        open: leave the endpoint out of the linspace, so that the last frame is never taken.
    """

    num_steps: int
    open: bool = False

    def __post_init__(self) -> None:
        _check_count("uniform", self.num_steps)

    def __str__(self) -> str:
        return f"uniform:{self.num_steps}" + (":open" if self.open else "")


@dataclass(frozen=True, kw_only=True)
class Consecutive:
    """`num_steps` frames in a row; shorter clips loop from their first frame.

    Attributes:
        num_steps: T, at least 1.
        start: `random` (uniform in 0..N-T, from the hash of clip id and seed), `centre` ((N-T)//2) or `zero`.
    """

    num_steps: int
    start: str = "random"

    def __post_init__(self) -> None:
        _check_count("consecutive", self.num_steps)
        if self.start not in CONSECUTIVE_STARTS:
            raise ValueError(f"start {self.start!r} of a consecutive sampling is not one of {CONSECUTIVE_STARTS}")

    def __str__(self) -> str:
        return f"consecutive:{self.num_steps}:{self.start}"


@dataclass(frozen=True, kw_only=True)
class Position:
    """One frame per relative position p: floor(p N), clamped to the last frame.

    Attributes:
        positions: values from 0 to 1, in the order in which the steps are stored.
    """

    positions: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.positions or not all(0.0 <= position <= 1.0 for position in self.positions):
            raise ValueError(f"positions {self.positions}: expected one or more values from 0 to 1")

    def __str__(self) -> str:
        return "position:" + ",".join(_number(position) for position in self.positions)


@dataclass(frozen=True, kw_only=True)
class Random:
    """`num_steps` frames drawn without replacement from the hash of clip id and seed, in the order of time.

    A clip with fewer frames gives each of them as often as the others, or once more.

    Attributes:
        num_steps: T, at least 1.
    """

    num_steps: int

    def __post_init__(self) -> None:
        _check_count("random", self.num_steps)

    def __str__(self) -> str:
        return f"random:{self.num_steps}"


@dataclass(frozen=True, kw_only=True)
class Every:
    """Every `stride_frames`-th frame, from the first."""

    stride_frames: int

    def __post_init__(self) -> None:
        _check_count("every", self.stride_frames)

    def __str__(self) -> str:
        return f"every:{self.stride_frames}"


@dataclass(frozen=True, kw_only=True)
class First:
    """The first `num_steps` frames; all of a clip that has fewer, each once, whatever is done past the end.

    Attributes:
        num_steps: T at most, at least 1.
    """

    num_steps: int

    def __post_init__(self) -> None:
        _check_count("first", self.num_steps)

    def __str__(self) -> str:
        return f"first:{self.num_steps}"


@dataclass(frozen=True, kw_only=True)
class All:
    """Every frame."""

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True, kw_only=True)
class Fps:
    """round(duration F) steps at the times k / F, each the nearest frame (the earlier one of two).

    At least one step, so that a clip shorter than half a period still has a feature. `round` is Python's:
    halves go to the even number.

    Attributes:
        rate_fps: F, steps per second of the clip; above the video's rate frames repeat.
    """

    rate_fps: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_fps) and self.rate_fps > 0):
            raise ValueError(f"rate {self.rate_fps:g} per second: expected a finite rate above 0")

    def __str__(self) -> str:
        return f"fps:{_number(self.rate_fps)}"


Rule = Uniform | Consecutive | Position | Random | Every | First | All | Fps


@dataclass(frozen=True, kw_only=True)
class Union:
    """The frames that any of several rules chooses, in the order of time, each once.

    The number of steps varies from clip to clip: at most what the rules give together, less where they choose the same
    frames, and never more than the clip has. So where a clip has fewer frames than a rule asks for, what that rule
    would repeat is not repeated here, and `repeat` gives the frames that `pad` gives or some of them; `error` refuses
    the clip as the rule would. What a rule draws is what it draws alone.

    Attributes:
        parts: two or more different rules, none of them a union.
    """

    parts: tuple[Rule, ...]

    def __post_init__(self) -> None:
        if nested := [part for part in self.parts if not isinstance(part, Rule)]:
            raise ValueError(f"a union is made of rules, found {nested[0]!r} among them; name its rules one by one")
        if len(self.parts) < 2 or len(set(self.parts)) < len(self.parts):
            named = ", ".join(map(str, self.parts)) or "none"
            raise ValueError(f"a union takes two or more different rules, found {named}")

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))


Sampling = Rule | Union


def parse(text: str) -> Sampling:
    """Reads the text form of a sampling; the forms are listed in `FORMS`.

    Raises:
        ValueError: an unknown form, or a value out of its range.
    """
    parts = re.split(r"\+(?![0-9])", text)  # that of 1e+2 joins nothing
    try:
        rules = [_rule(part) for part in parts]
        known = tuple(rule for rule in rules if rule is not None)
        if len(known) == len(parts):
            return known[0] if len(known) == 1 else Union(parts=known)
    except ValueError as error:
        raise ValueError(f"sampling {text!r}: {error}; the forms are {'; '.join(FORMS)}") from error
    what = f"sampling {text!r}" + (f": {parts[rules.index(None)]!r}" if len(parts) > 1 else "")
    raise ValueError(f"{what} is not one of the forms {'; '.join(FORMS)}")


def _rule(text: str) -> Rule | None:
    """The rule that is no union; None for a form that there is not. Raises ValueError for a value out of its range."""
    match = re.fullmatch(r"(\w+)(?::(.*))?", text.strip(), flags=re.ASCII)
    name, value = (match[1], match[2]) if match else ("", None)
    match name, value:
        case "all", None:
            return All()
        case "uniform", str():
            count, separator, rest = value.partition(":")
            if not separator or rest == "open":
                return Uniform(num_steps=_integer(count), open=bool(separator))
        case "consecutive", str():
            count, separator, rest = value.partition(":")
            return Consecutive(num_steps=_integer(count), start=rest if separator else "random")
        case "position", str():
            return Position(positions=tuple(float(part) for part in value.split(",")))
        case "random", str():
            return Random(num_steps=_integer(value))
        case "every", str():
            return Every(stride_frames=_integer(value))
        case "first", str():
            return First(num_steps=_integer(value))
        case "fps", str():
            return Fps(rate_fps=float(value))
    return None


def fixed_steps(sampling: Sampling) -> int | None:
    """T where every clip has the same number of steps (but for `pad`), else None."""
    match sampling:
        case Uniform() | Consecutive() | Random():
            return sampling.num_steps
        case Position():
            return len(sampling.positions)
        case Every() | First() | All() | Fps() | Union():
            return None
    assert_never(sampling)


def most_steps(sampling: Sampling) -> int | None:
    """The steps that no clip has more of; None where their number grows with the clip."""
    if isinstance(sampling, First):
        return sampling.num_steps
    if not isinstance(sampling, Union):
        return fixed_steps(sampling)
    counts = [most_steps(part) for part in sampling.parts]
    return None if None in counts else sum(filter(None, counts))


MAX_STEPS = 1_000_000


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} takes a whole number of at least 1, found {value!r}")
    if value > MAX_STEPS:
        raise ValueError(f"{name} takes {MAX_STEPS:,} at most, found {value:,}")


def _integer(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _number(value: float) -> str:
    # repr is the shortest text that reads back to the same float.
    return repr(int(value)) if value == int(value) else repr(value)
