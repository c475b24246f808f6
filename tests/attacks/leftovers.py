"""SIGTERM, SIGINT and SIGKILL at any moment of every command that writes: what is left behind.

The first two leave nothing but what the command promises to keep. After SIGKILL the same command, run again, does its
work and clears away what the killed one left, in the system's temporary folder too.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attacks import Tried, full_disk
from attacks.commands import Commands, commands
from attacks.full_disk import WRITERS, snapshot

COUNT = 12
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` moments for every writer."""
    with tempfile.TemporaryDirectory() as name, _temporary(Path(name) / "tmp"), commands() as call:
        base = Path(name) / "base"
        base.mkdir()
        full_disk.prepare(base, call)
        for kind in WRITERS:
            yield attack_writer(kind, call, base, Path(name) / "disk", count, seed)
        left = [path.name for path in (Path(name) / "tmp").iterdir() if "reelbank" in path.name]
        yield Tried(kind="the system's temporary folder", tried=1, not_held=tuple(left))


@contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    """Commands called in the block take this folder for the system's temporary one."""
    folder.mkdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before


def attack_writer(kind: str, call: Commands, base: Path, folder: Path, count: int, seed: int) -> Tried:
    """`count` moments of one writer, drawn from the time that it takes."""
    writer, not_held, numbers = WRITERS[kind], [], random.Random(f"{seed} {kind}")
    folder.mkdir()
    writer.before(base, folder)
    whole = call(full_disk.arguments_of(writer.arguments, base, folder), base)
    names = set(snapshot(folder))
    shutil.rmtree(folder)
    facts = {"ended before": 0, "stopped": 0}
    for i in range(count):
        sent, seconds = SIGNALS[i % len(SIGNALS)], whole.seconds * numbers.random()
        folder.mkdir()
        try:
            problem, stopped = _attempt(kind, call, base, folder, names, sent, seconds)
        finally:
            shutil.rmtree(folder)
        facts["stopped" if stopped else "ended before"] += 1
        if problem:
            not_held.append(f"{kind}, {sent.name} after {seconds:.2f} s: {problem}")
    return Tried(kind=kind, tried=count, not_held=tuple(not_held), facts=facts)


def _attempt(
    kind: str, call: Commands, base: Path, folder: Path, whole: set[str], sent: signal.Signals, seconds: float
) -> tuple[str, bool]:
    """(what did not hold, whether the signal came in time). `whole` are the names that the ended command leaves."""
    writer = WRITERS[kind]
    writer.before(base, folder)
    before = snapshot(folder)
    line = full_disk.arguments_of(writer.arguments, base, folder)
    called = call(line, base, kill=(sent, seconds))
    if called.code in (0, 1):
        return "", False
    if sent == signal.SIGKILL:
        resume = writer.goes_on and (folder / writer.resumes).exists()
        again = call(full_disk.arguments_of(writer.goes_on, base, folder) if resume else line, base)
        if again.code not in (0, 1) and set(snapshot(folder)) != whole:  # done at the moment of the kill
            return f"does not go on: {again.code} {again.err[-300:]!r}", True
        return _hidden(folder), True
    # A signal that comes before the command has begun ends Python itself, which leaves nothing either.
    # Where the interrupt came inside exec() of a text (a dataclass being made), CPython remembers it: the command says
    # its sentence and cleans up, and the interpreter still ends by SIGINT.
    if called.code not in (2, 130, -sent, -signal.SIGINT, 1) and (fault := called.fault()):
        return fault, True
    if left := _hidden(folder):
        return left, True
    if writer.goes_on is None:
        after = snapshot(folder)
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        return (f"leaves or changes {changed[:3]}" if changed and set(after) != whole else ""), True
    return "", True


def _hidden(folder: Path) -> str:
    """What no command may leave."""
    left = [name for name in snapshot(folder) if name.endswith(".partial") or "/." in f"/{name}"]
    return f"leaves {left[:3]}" if left else ""
