"""The parent of the worker processes: hands out clips, watches over them, survives their deaths.

Every worker has a pipe of its own: a process that is killed while it holds a shared queue's lock would hang
the rest.
"""

from __future__ import annotations

import errno
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

from reelbank.extract.errors import DiskFullError, ExtractionError
from reelbank.extract.run.dispatch import Dispatch
from reelbank.extract.run.forwarding import Forwarder
from reelbank.extract.run.messages import (
    DRAIN,
    Alive,
    ClipJob,
    Decoded,
    Drained,
    Dropped,
    Fatal,
    Fed,
    Finished,
    Items,
    Message,
    Note,
    Opened,
    Ready,
    Refused,
    Started,
    Tally,
    WorkerSetup,
)
from reelbank.extract.run.ring import Ring, make_ring
from reelbank.extract.run.worker import work
from reelbank.store.processes import UNGUARDED, NoMainGuard, worker_context

CLIPS_AHEAD = 2
MAX_CRASHES = 2
KILLED = {
    -int(getattr(signal, name)): f"{name}: {said}"
    for name, said in (("SIGBUS", "shared memory was full"), ("SIGKILL", "most likely memory ran out"))
    if hasattr(signal, name)
}
"""{exit code: what it says} of deaths that need not be the fault of any clip."""
POLL_SECONDS = 0.5


class Pool:
    """Runs clips through `num_workers` processes."""

    def __init__(
        self,
        setup: WorkerSetup,
        num_workers: int,
        *,
        deadline_seconds: float,
        on_note: Callable[[Note], None],
        forwarder: Forwarder | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            setup: what every worker gets.
            num_workers: processes.
            deadline_seconds: without news of a clip that is being decoded.
            on_note: gets sentences for a person.
            forwarder: the models, if they run in this process; it is closed at the end of `run`.
        """
        self._forwarder = forwarder
        self._setup, self._num_workers = setup, num_workers
        self._deadline_seconds, self._on_note = deadline_seconds, on_note
        self._context = worker_context()
        self._workers: list[_Process] = []
        self._todo = Dispatch(())
        self._alone: deque[ClipJob] = deque()
        self.tally = Tally()
        self.worker_seconds = 0.0

    def run(self, jobs: Iterable[ClipJob]) -> Generator[Finished | tuple[ClipJob, str], None, None]:
        """Yields what finished, as it finishes; closed before its end, it stops the workers.

        Yields:
            Finished for a clip under one model, or (job, reason) for a clip that killed its workers or hung.

        Raises:
            ExtractionError, DiskFullError: the run cannot go on. Workers are stopped.
            NoMainGuard: the workers import a script that starts them.
        """
        self._todo = Dispatch(jobs)
        try:
            for _ in range(min(self._num_workers, len(self._todo))):
                self._start()
            while self._todo or self._alone or any(worker.in_flight for worker in self._workers):
                self._hand_out()
                yield from self._listen()
                yield from self._forwarded()
                yield from self._give_up_hung()
        finally:
            self._stop(list(self._workers))
            if self._forwarder is not None:
                self.tally += self._forwarder.tally
                self._forwarder.close()

    @property
    def pids(self) -> list[int]:
        """Ids of the worker processes that there are now."""
        return [worker.process.pid for worker in self._workers]

    # -- inside -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        setup, ring = self._setup, None
        if self._forwarder is not None:
            ring = make_ring(self._forwarder.slot_bytes, self._num_workers)
            setup = replace(
                setup, remote=frozenset(self._forwarder.jobs), ring_name=ring.name, ring_slot_bytes=ring.slot_bytes,
                ring_slots=ring.slots,
            )  # fmt: skip
        process = self._context.Process(target=work, args=(theirs, setup), daemon=True)
        process.start()
        theirs.close()
        self._workers.append(_Process(process, ours, ring))

    def _hand_out(self) -> None:
        if self._alone and not self._todo and not any(worker.in_flight for worker in self._workers):
            self._stop(self._workers[1:])
            if not self._workers:
                self._start()
            self._workers[0].send(self._alone.popleft())
        while len(self._workers) < self._num_workers and self._todo:
            self._start()
        for worker in self._workers:
            while worker.num_undecoded < CLIPS_AHEAD and (job := self._todo.next_for(worker)) is not None:
                worker.send(job)
            if not self._todo and worker.num_undecoded == 0 and worker.waits_for(self._is_local):
                worker.drain()
        if self._forwarder is not None and not self._todo and not any(w.num_undecoded for w in self._workers):
            self._forwarder.flush()

    def _is_local(self, model: int) -> bool:
        return self._forwarder is None or model not in self._forwarder.jobs

    def _listen(self) -> Iterator[Finished | tuple[ClipJob, str]]:
        sources = [worker.connection for worker in self._workers]
        if self._forwarder is not None:
            sources.append(self._forwarder.wakeup)
        ready = wait(sources, timeout=POLL_SECONDS)
        for worker in [w for w in self._workers if w.connection in ready]:
            try:
                while worker.connection.poll():
                    yield from self._handle(worker, worker.connection.recv())
            except (EOFError, ConnectionResetError):
                yield from self._bury(worker, None)

    def _forwarded(self) -> Iterator[Finished]:
        for message in self._forwarder.collect() if self._forwarder is not None else ():
            for worker in self._workers:
                if message.index in worker.in_flight:
                    worker.finish(message)
            yield message

    def _handle(self, worker: _Process, message: Message) -> Iterator[Finished | tuple[ClipJob, str]]:
        worker.last_news = time.monotonic()
        match message:
            case Ready():
                worker.is_ready = True
            case Started(index=index):
                worker.current = index
            case Decoded(index=index, is_sequential=is_sequential):
                worker.current = None
                self._todo.learn(index, is_sequential)
                if index in worker.in_flight:
                    worker.decoded.add(index)
            case Alive(tally=tally):
                self.tally += tally
            case Finished():
                worker.finish(message)
                yield message
            case Drained(tally=tally):
                self.tally += tally
                worker.is_draining = False
            case Note():
                self._on_note(message)
            case Opened() | Items() | Fed() | Dropped() | Refused():
                assert self._forwarder is not None and worker.ring is not None
                self._forwarder.handle(message, worker.ring)
            case Fatal(kind="disk-full", text=text):
                raise DiskFullError(errno.ENOSPC, text)
            case Fatal(text=text):
                raise ExtractionError(text)

    def _give_up_hung(self) -> Iterator[Finished | tuple[ClipJob, str]]:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.current is not None and now - worker.last_news > self._deadline_seconds:
                yield from self._bury(
                    worker, f"deadline: no new frame for {self._deadline_seconds:g} s; the worker was stopped"
                )

    def _bury(self, worker: _Process, hung: str | None) -> Iterator[Finished | tuple[ClipJob, str]]:
        """Takes a dead or hung worker's clips back: the one it worked on is blamed, the others are done again."""
        self._workers.remove(worker)
        worker.process.kill() if hung else None
        worker.process.join()
        code = worker.process.exitcode
        killed = not hung and code in KILLED
        told = f"{code} ({KILLED[code]})" if killed else str(code)
        worker.close()
        self.worker_seconds += time.monotonic() - worker.started
        if not worker.is_ready:
            if code == UNGUARDED:
                raise NoMainGuard
            raise ExtractionError(f"a worker process died while starting, exit code {told}; see its output above")
        # A death outside decoding (in a forward pass) may be the fault of any clip in the batch.
        blamed = {worker.current} if worker.current is not None else set(worker.in_flight)
        again = []
        for index, job in worker.in_flight.items():
            if self._forwarder is not None:
                self._forwarder.forget(index)
            crashes = job.crashes + (index in blamed)
            if index in blamed and killed:
                if job.alone:
                    yield job, f"its worker process was killed twice, then with nothing beside it: exit code {told}"
                else:
                    self._alone.append(replace(job, alone=True))
            elif index in blamed and (hung or crashes >= MAX_CRASHES):
                yield job, hung or f"crashed: its worker process died {crashes} times, last with exit code {code}"
            else:
                again.append(replace(job, crashes=crashes))
        self._todo.take_back(worker, again)
        if not hung:
            self._on_note(Note(text=f"a worker process died with exit code {told}; its clips are done again"))

    def _stop(self, workers: Sequence[_Process]) -> None:
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.close()
            self.worker_seconds += time.monotonic() - worker.started
            self._workers.remove(worker)


class _Process:
    """One worker process as its parent sees it."""

    def __init__(self, process: Any, connection: Any, ring: Ring | None) -> None:
        self.process, self.connection, self.ring = process, connection, ring
        self.in_flight: dict[int, ClipJob] = {}
        self.decoded: set[int] = set()
        self.current: int | None = None
        self.is_ready = self.is_draining = False
        self.started = self.last_news = time.monotonic()

    @property
    def num_undecoded(self) -> int:
        return len(self.in_flight) - len(self.decoded)

    def waits_for(self, counts: Callable[[int], bool]) -> bool:
        """Whether a clip that it has is not finished by a model that `counts`."""
        return any(counts(model) for job in self.in_flight.values() for model, _ in job.rows)

    def send(self, job: ClipJob) -> None:
        self.in_flight[job.index] = job
        self._post(job)

    def drain(self) -> None:
        if not self.is_draining:
            self.is_draining = True
            self._post(DRAIN)

    def finish(self, message: Finished) -> None:
        job = self.in_flight[message.index]
        rest = tuple(pair for pair in job.rows if pair[0] != message.model)
        if rest:
            self.in_flight[message.index] = replace(job, rows=rest)
        else:
            del self.in_flight[message.index]
            self.decoded.discard(message.index)

    def ask_to_stop(self) -> None:
        if self.in_flight:  # the run failed: what it works on is lost anyway
            self.process.kill()
        else:
            self._post(None)

    def close(self) -> None:
        self.connection.close()
        if self.ring is not None:
            self.ring.close(unlink=True)

    def _post(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return  # it died; reading from it says so
