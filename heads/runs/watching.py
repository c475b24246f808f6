"""What a person learns of trainings under way: how far each is, and where to go on after Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reelbank.heads.config import TrainConfig
from reelbank.store.files import regular

WATCH_SECONDS = 10.0
SHOWN = 3  # runs named at once


@contextmanager
def watched(configs: Sequence[TrainConfig], ended: Container[Path], tell: Callable[[str], None]) -> Iterator[None]:
    """Inside, `tell` hears every WATCH_SECONDS which of the runs are training, and at which epoch.

    For trainings that only say when they end, in this process or in others: their epochs are read from metrics.jsonl.
    Nothing is heard of members that are trained at once, which write theirs at the end. `ended` holds the directories
    of runs that are over, also of those that failed; it may grow. `tell` is called in a thread of its own.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            if text := epochs_text(configs, ended):
                tell(text)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def epochs_text(configs: Sequence[TrainConfig], ended: Container[Path] = ()) -> str:
    """'kld-700/seed=0: epoch 120 of 700' for every run that has begun and is not over yet; '' for none."""
    found = []
    for config in configs:
        run = config.run.given_directory
        if run in ended or (run / "results.json").exists():
            continue
        try:
            done = regular(run / "metrics.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            continue
        name = "/".join(run.parts[-2:])
        found.append(f"{name}: epoch {done} of {config.optimizer.epochs * max(1, config.data.folds)}")
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
