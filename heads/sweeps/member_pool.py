"""Members of a sweep in a pool of processes, each on its own threads, sharing the mapped features."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from pathlib import Path

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.runs.run import train_with
from reelbank.store.cores import available_cores
from reelbank.store.processes import UNGUARDED, NoMainGuard, stop_server, worker_context

Done = Callable[[int, str | None], None]  # (position of the member, None or why it could not be trained)
Note = Callable[[str], None]  # a sentence about the whole that must not be passed over

MEMBER_MODULES = ("torch", "torch._dynamo", "reelbank.heads.runs.run")
"""What takes a member's process seconds to import; optimisers import `_dynamo` when they are made."""

_cache: FeatureCache | None = None


def unheard(text: str) -> None:
    """A `Note` that nobody waits for."""


def train_in_processes(
    configs: Sequence[TrainConfig], folder: Path, workers: int, done: Done, note: Note = unheard
) -> None:
    """Trains every configuration; with one worker in this process.

    Args:
        folder: of the features that the processes share.
        workers: processes; 0: cores divided by the threads of a member.
        done: called in this process as soon as a member has ended.
        note: called with what concerns several members; there is nothing here.

    Raises:
        TrainingError: a process died.
        NoMainGuard: the processes import a script that starts them.
    """
    count = workers or max(1, available_cores() // configs[0].run.threads)
    if min(count, len(configs)) == 1:
        cache = FeatureCache(folder)
        for position, config in enumerate(configs):
            done(position, train_member(config, cache))
        return
    context = worker_context()
    ours, theirs = context.Pipe()
    pool = ProcessPoolExecutor(
        min(count, len(configs)), mp_context=context, initializer=_start_worker, initargs=(folder, theirs)
    )
    try:
        futures: dict[Future[str | None], int] = {
            pool.submit(_work, config): position for position, config in enumerate(configs)
        }
        for future in as_completed(futures):
            done(futures[future], future.result())
        pool.shutdown()
    except BrokenProcessPool as error:
        pool.shutdown()
        if UNGUARDED in [process.exitcode for process in context.started]:
            raise NoMainGuard from None
        raise TrainingError(
            "a process of the sweep died (killed, or out of memory); what was finished is kept: "
            "run again with --resume, with fewer --workers if memory was short"
        ) from error
    except KeyboardInterrupt:
        stop_server()
        raise
    finally:
        ours.close()  # after an error the members under way are given up; their last checkpoints stay
        pool.shutdown(cancel_futures=True)
        theirs.close()


def train_member(config: TrainConfig, cache: FeatureCache) -> str | None:
    """Trains one member; None, or why it could not be trained."""
    try:
        train_with(config, cache)
    except TrainingError as error:
        return str(error)
    return None


def _start_worker(folder: Path, parent: Connection) -> None:
    global _cache
    _cache = FeatureCache(folder)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: Connection) -> None:
    """A sweep that was killed or given up must not leave processes that go on training."""
    wait([parent])
    os._exit(1)


def _work(config: TrainConfig) -> str | None:
    assert _cache is not None
    return train_member(config, _cache)
