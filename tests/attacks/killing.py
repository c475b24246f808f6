"""Kills a process of a `featurize` at a chosen change below its store, wherever the process was forked from.

The fork server of the attack imports this module, so every worker has the hook. What to kill stands in the file that
PLAN names, and is read by each process at its first change.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

PLAN = "REELBANK_KILL_PLAN"
"""Environment variable: JSON file {store, role, at, both, parent}."""
WRITING = os.O_WRONLY | os.O_RDWR


class Counter:
    """The changes of one process below the store, in its `role`; one without a role counts nothing."""

    def __init__(self) -> None:
        self.role = "worker"
        self._pid = 0
        self._count = 0
        self._plan: dict[str, Any] = {}
        self._is_inside = False

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit event, which comes before its operation."""
        if self._is_inside or not self.role:
            return
        self._is_inside = True
        try:
            path = _changed(event, arguments)
            if path is not None:
                self._met(path)
        finally:
            self._is_inside = False

    def _met(self, path: Path) -> None:
        if self._pid != os.getpid():
            self._pid, self._count = os.getpid(), 0
            self._plan = json.loads(Path(os.environ[PLAN]).read_text())
        if not path.is_relative_to(self._plan["store"]):
            return
        self._count += 1
        if self._plan["role"] == "count":
            with Path(os.environ[PLAN]).with_suffix(f".{self.role}").open("a") as file:
                file.write(f"{os.getpid()}\n")
        elif self._plan["role"] == self.role and self._count == self._plan["at"]:
            try:
                os.close(os.open(Path(os.environ[PLAN]).with_suffix(".killed"), os.O_CREAT | os.O_EXCL))
            except FileExistsError:  # another worker was first: one kill is asked for
                return
            if self._plan["both"]:
                os.kill(self._plan["parent"], signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


def _changed(event: str, arguments: tuple[Any, ...]) -> Path | None:
    """What the operation changes, None for one that reads."""
    folder = -1
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, (str, bytes, os.PathLike)) or not flags & WRITING:
            return None
    elif event == "os.rename":
        path = arguments[1]
    elif event in ("os.remove", "os.rmdir"):
        path, folder = arguments
    elif event == "os.mkdir":
        path, _, folder = arguments
    else:
        return None
    place = Path(os.fsdecode(path))
    if folder not in (-1, None):
        place = Path(f"/proc/self/fd/{folder}").readlink() / place
    return place.absolute()


COUNTER = Counter()
if PLAN in os.environ:
    sys.addaudithook(COUNTER.heard)
