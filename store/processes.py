"""How worker processes start: forked from a server that has imported their libraries and done nothing else.

The process that asks for workers is never forked (fork with Zarr, CUDA or any other threads deadlocks), and the
seconds that torch and its like take to import are paid once for all workers, while the asking process does other
things. This lies in `store` because both stages have workers and neither may import the other.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

HAS_FORK_SERVER = sys.platform != "darwin" and "forkserver" in multiprocessing.get_all_start_methods()
START_METHOD = "forkserver" if HAS_FORK_SERVER else "spawn"
"""Not on macOS: a server that has loaded torch has used frameworks of the system that do not survive a fork."""


WORKER_NAME = "reelbank worker"
UNGUARDED = 86
"""Exit status of a worker that was made to do all of its parent's work again while it imported the parent's script."""


ASKED = "REELBANK_IMPORT_AHEAD"
"""The variable that tells the server what it imports."""
_asked: list[str] = []
"""Modules that this process asked for, in their order: a server that is started again imports them all."""


class NoMainGuard(SystemExit, RuntimeError):
    """A script starts workers while they import it. A script that does not catch it ends with its sentence alone."""

    def __init__(self) -> None:
        super().__init__(
            "reelbank: worker processes import the script that starts them, and this one would start them again: put "
            'its calls under `if __name__ == "__main__":` (in a notebook nothing is needed)'
        )


class _Context:
    """A multiprocessing context whose processes are known as workers from their first moment on.

    Attributes:
        started: its processes that run or ended as UNGUARDED, for their exit status: a broken pool forgets them.
    """

    def __init__(self) -> None:
        self._context: Any = multiprocessing.get_context(START_METHOD)
        self.started: list[Any] = []

    def Process(self, **settings: Any) -> Any:
        self.started = [one for one in self.started if one.exitcode in (None, UNGUARDED)]
        self.started.append(self._context.Process(name=WORKER_NAME, **settings))
        return self.started[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def worker_context() -> Any:
    """The multiprocessing context of all workers."""
    return _Context()


def leave_if_importing() -> None:
    """Ends a worker that only imports its parent's script, which has no main guard, before it does the work again.

    Whoever waits for the worker raises NoMainGuard. For every long call, as its first line.
    """
    worker = multiprocessing.current_process()
    if worker.name == WORKER_NAME and getattr(worker, "_inheriting", False):
        os._exit(UNGUARDED)


def import_ahead(modules: Sequence[str]) -> None:
    """Starts the server and lets it import `modules`; returns at once.

    Without effect where a server runs already or the system cannot fork: workers then import for themselves. What
    cannot be imported ends no server: it fails again, and is told, where it is needed.
    """
    _asked.extend(name for name in modules if name not in _asked)
    if START_METHOD == "forkserver":
        from multiprocessing import forkserver, resource_tracker

        multiprocessing.get_context(START_METHOD).set_forkserver_preload([__name__])  # which reads ASKED
        resource_tracker.ensure_running()  # it unblocks SIGINT when it starts
        # Ctrl-C reaches every process of the terminal. The server would print where its imports were; it and the
        # workers keep the mask and end with the process that asked for them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.environ[ASKED] = " ".join(_asked)
        try:
            forkserver.ensure_running()
        finally:
            del os.environ[ASKED]
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def stop_server() -> None:
    """Ends the server at once, for a caller that is interrupted; workers that run are left to themselves.

    Else it would start, when its imports are done, a worker whose queues are gone by then, which prints a traceback.
    """
    if START_METHOD == "forkserver":
        from multiprocessing import forkserver

        pid = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


for _name in os.environ.pop(ASKED, "").split():  # in the server; multiprocessing itself would end it at a RuntimeError
    with suppress(Exception):
        importlib.import_module(_name)
