"""Attempts of `attacks.hostile` in a process without threads: it forks, and a child of pytest's could wait for ever.

Reads {"some": [[kind, name, command]], "patterns": [...]} from stdin, writes {what: [what does not hold, ends]}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from attacks import hostile
from attacks.hostile_inputs import TABLE


def _written_outside() -> None:
    (Path.cwd().parent / "outside").write_text("x")


def _calls() -> None:
    import socket

    with socket.socket() as one:
        one.settimeout(0.1)
        one.connect(("127.0.0.1", 9))


def _says_nothing() -> None:
    raise ValueError("it is wrong")


def _steers() -> None:
    import click

    click.echo("\x1b[2J")


HARMS: dict[str, Callable[[], object]] = {
    "KeyError": lambda: dict[str, int]()["x"],
    "signal 9": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "written: ": _written_outside,
    "os.system": lambda: os.system("true"),
    "socket.connect": _calls,
    "names none of": _says_nothing,
    "reaches the terminal": _steers,
}
"""{what the attack must say: what a command does}."""


def main() -> None:
    asked = json.load(sys.stdin)
    found = {}
    with hostile.sound_folder() as root:
        for kind, name, command in asked["some"]:
            change = TABLE[kind][name][0]
            _, wrong, ends = hostile.attempt(root / "sound", root / "m", change, (command,), hostile.SOUND)
            found[name] = [wrong, ends]
        for pattern in asked["patterns"]:
            found[pattern] = [list(hostile.try_mutants(root, pattern, count=2, seed=25).not_held), []]
        for said, harm in HARMS.items():
            hostile.COMMANDS = {"harm": harm}
            _, wrong, ends = hostile.attempt(root / "sound", root / "m", lambda folder: None, ("harm",), hostile.SOUND)
            (root / "outside").unlink(missing_ok=True)
            found[said] = [wrong, ends]
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
