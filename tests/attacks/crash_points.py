"""Every crash point: a kill at each moment of writing a store; what was written by then is there, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from attacks import Tried
from attacks.disk import File, Moment
from attacks.power_cut import SCENARIOS, problems, written

COUNT = 1_000_000
"""More than there are: every moment of every scenario."""


def different(moments: Sequence[Moment]) -> list[int]:
    """Of moments in a row at which the same lies on the disk, the last: by then the most had been reported.

    A sync, for instance, changes nothing for a process that is killed.
    """
    return [i for i in range(len(moments)) if i + 1 == len(moments) or not _same(moments[i], moments[i + 1])]


def _same(one: Moment, other: Moment) -> bool:
    names = {number: folder.current for number, folder in one.folders.items()}
    if names != {number: folder.current for number, folder in other.folders.items()}:
        return False
    nothing = File()
    numbers = {number for entries in names.values() for number in entries.values()}
    return all(one.files.get(n, nothing).current == other.files.get(n, nothing).current for n in numbers)


def try_crash_points(name: str, most: int, seed: int) -> Tried:
    """Tries a kill at every moment of a scenario, or at `most` that are drawn."""
    failed: list[str] = []
    with written(name) as (scenario, moments, empty):
        points = different(moments)
        tried = len(moments)
        if most < len(moments):
            points = random.Random(seed).sample(points, min(most, len(points)))
            tried = len(points)
        for place in points:
            texts = problems(scenario, moments[place], "killed", 0, empty())
            failed += [f"killed before {place} ({moments[place].what}): {text}" for text in texts]
    facts = {"moments": len(moments), "different states": len(points)}
    return Tried(kind=f"{name}, killed", tried=tried, not_held=tuple(failed), facts=facts)


def attack(count: int, seed: int) -> Iterator[Tried]:
    """A kill at every moment of each scenario; with a smaller `count` at as many of each as make it up."""
    for name in SCENARIOS:
        yield try_crash_points(name, count // len(SCENARIOS), seed)
