"""Every crash point: a kill at each moment of writing a store; what was written by then is there, and nothing else.

Where the kill comes between a rename and the flush of its folder, the next run must see to that: when it has finished,
nothing that lies in the store may be such that a power cut takes it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attacks import Tried
from attacks.disk import WAYS, File, Moment
from attacks.power_cut import SCENARIOS, grow, problems, rerun, written

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


Problems = Callable[[Moment, str, int, Path], list[str]]


def wrong_states(moments: Sequence[Moment], states: int, seed: int, root: Path, problems: Problems) -> list[str]:
    """What `problems` finds in `states` states: kills at different moments first, then power cuts.

    Args:
        moments: of what was written.
        root: where each state is laid out.
        problems: (moment, way, its seed, empty folder) -> a sentence for each thing that does not hold.
    """
    draw, kills = random.Random(seed), different(moments)
    plan = [(i, "killed", 0) for i in draw.sample(kills, min(len(kills), states // 2))]
    while len(plan) < states:
        plan.append((draw.randrange(len(moments)), draw.choice((*WAYS, *["random"] * 3)), draw.randrange(2**31)))
    failed = []
    for place, way, own in plan:
        state = root / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        where = f"{way} (seed {own}) before {place} ({moments[place].what})"
        failed += [f"{where}: {text}".replace(str(root), "") for text in problems(moments[place], way, own, state)]
    return failed


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


def unflushed(moment: Moment) -> list[str]:
    """What a power cut may take of what lies on the disk at `moment`, less what is staged."""
    found: list[str] = []

    def walk(number: int, place: str) -> None:
        folder = moment.folders[number]
        for name, child in folder.current.items():
            if name == "staging":
                continue
            if folder.durable.get(name) != child:
                found.append(f"{place}/{name}")
            if child in moment.folders:
                walk(child, f"{place}/{name}")
            elif moment.files[child].durable != moment.files[child].current:
                found.append(f"the content of {place}/{name}")

    walk(0, "")
    return found


def try_unflushed(name: str, most: int, seed: int) -> Tried:
    """Tries kills before the flush of a folder, all of a scenario or `most` that are drawn, and runs again."""
    failed: list[str] = []
    with written(name) as (scenario, moments, empty):
        whats = [moment.what for moment in moments]
        points = [i for i, what in enumerate(whats) if what.startswith("sync") and ".partial" not in what]
        if most < len(points):
            points = random.Random(seed).sample(points, most)
        for place in points:
            left = unflushed(rerun(scenario, moments[place], "killed", 0, empty())[-1])
            if left:
                failed.append(f"killed before {place} ({moments[place].what}), then run again: {left} may be lost")
    return Tried(kind=f"{name}, killed before a flush", tried=len(points), not_held=tuple(failed))


def attack(count: int, seed: int) -> Iterator[Tried]:
    """A kill at every moment of each scenario; with a smaller `count` at as many of each as make it up."""
    for name in SCENARIOS:
        yield try_crash_points(name, count // len(SCENARIOS), seed)
        if SCENARIOS[name].write is grow:  # a merge that was killed is made anew
            yield try_unflushed(name, count // len(SCENARIOS), seed)
