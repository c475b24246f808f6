"""The models in the parent process, fed by decoding workers: for a GPU, which one process should own.

Steps are copied from the workers' rings into pinned batch memory; a thread gives full batches to the device, the next
one before it fetches the last (the waiting releases the interpreter lock), while the main thread fills others and
stages results. The memory of a batch is filled again only after its features were fetched.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Any

import numpy as np

from reelbank.extract.run.assembly import Batch, ClipSink, Features, Model
from reelbank.extract.run.messages import (
    Dropped,
    Fed,
    Finished,
    Items,
    ModelJob,
    Note,
    Opened,
    Refused,
    Tally,
    ToForwarder,
)
from reelbank.extract.run.payloads import Pixels
from reelbank.extract.run.ring import Ring
from reelbank.extract.run.steps import StepPlan
from reelbank.store.errors import StoreError
from reelbank.store.staging import stage_failure

SPARE_BUFFERS = 2
"""Of each model beside those that its device works on: one is filled, one is handed out."""
Key = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Result:
    """What came back for one batch: its features, or the error that stopped the thread."""

    lane: _Lane
    batch: Batch
    features: Features | None
    error: BaseException | None
    seconds: float


class _Lane:
    """One model with its batches: one being filled, others on their way or free."""

    def __init__(self, job: ModelJob, note: Callable[[Note], None]) -> None:
        self.model = Model(job, note)
        info = self.model.backbone.info
        shape = (job.batch, *info.frames_shape)
        self.item_shape = (len(info.step_frames), *_frame_shape(info.frames_shape, len(info.step_frames)))
        self.dtype = info.payload_dtype
        self.item_bytes = int(np.prod(self.item_shape)) * np.dtype(self.dtype).itemsize
        self.in_flight = _in_flight(job)
        self.free = [Batch(_pinned(shape, self.dtype, job.device)) for _ in range(self.in_flight + SPARE_BUFFERS)]
        self.filling: Batch | None = None


class Forwarder:
    """Collects steps of all workers into batches, forwards them, stages the clips."""

    def __init__(self, jobs: Mapping[int, ModelJob], note: Callable[[Note], None]) -> None:
        """Builds the models and starts the thread. `jobs` is {number of the model in the run: job}."""
        self.tally = Tally()
        self.jobs = jobs
        self._lanes = {model: _Lane(job, note) for model, job in jobs.items()}
        self.slot_bytes = max(lane.item_bytes for lane in self._lanes.values())
        self._sinks: dict[Key, ClipSink] = {}
        self._fed: dict[Key, Fed] = {}
        self._finished: list[Finished] = []
        self._busy = 0
        self._todo: queue.SimpleQueue[tuple[_Lane, Batch] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
        self.wakeup, self._alarm = Pipe(duplex=False)
        self._thread = threading.Thread(target=self._work, name="forward", daemon=True)
        self._thread.start()

    def handle(self, message: ToForwarder, ring: Ring) -> None:
        """Takes one message of the worker that owns `ring`. Raises what a forward pass raised."""
        key = message.index, message.model
        match message:
            case Opened():
                plan = StepPlan(frame_index=message.frame_index, reads=message.reads, item_of=message.item_of)
                job = self.jobs[message.model]
                self._sinks[key] = ClipSink(job.store, message.row, job.spec.taps, plan, message.num_views)
            case Items():
                lane, sink = self._lanes[message.model], self._sinks[key]
                for _ in range(message.count):
                    self._room(lane).add(sink, ring.peek(lane.item_shape, lane.dtype))  # type: ignore[arg-type]  # iterates frames
                    ring.release()
                    if lane.filling is not None and lane.filling.is_full:
                        self._submit(lane)
            case Fed():
                self._fed[key] = message
                self._finish_complete()
            case Dropped():
                self._drop(key)
            case Refused():
                self._drop(key)
                self._fail(message, message.row, message.ledger)

    def forget(self, index: int) -> None:
        """Drops a clip whose worker died; it will be opened again."""
        for key in [key for key in self._sinks if key[0] == index]:
            self._drop(key)

    def flush(self) -> None:
        """Forwards batches that are not full."""
        for lane in self._lanes.values():
            if lane.filling is not None:
                self._submit(lane)

    def collect(self) -> list[Finished]:
        """Clips that finished since the last call. Raises what a forward pass raised."""
        while self.wakeup.poll():
            self.wakeup.recv_bytes()
        while not self._results.empty():
            self._settle(self._results.get())
        found, self._finished = self._finished, []
        return found

    def close(self) -> None:
        """Stops the thread."""
        self._todo.put(None)
        self._thread.join()
        self.wakeup.close()
        self._alarm.close()

    # -- inside -----------------------------------------------------------------------------------------

    def _room(self, lane: _Lane) -> Batch:
        while lane.filling is None:
            if lane.free:
                lane.filling = lane.free.pop()
            else:
                self._settle(self._results.get())
        return lane.filling

    def _submit(self, lane: _Lane) -> None:
        batch, lane.filling = lane.filling, None
        assert batch is not None
        batch.pad()
        self._busy += 1
        self._todo.put((lane, batch))

    def _settle(self, result: _Result) -> None:
        self._busy -= 1
        if result.error is not None:
            raise result.error
        assert result.features is not None
        self.tally.forward_seconds += result.seconds
        self.tally.steps_forwarded += len(result.batch.sinks)
        started = time.perf_counter()
        result.batch.hand_out(result.features)
        result.lane.free.append(result.batch)
        self._finish_complete()
        self.tally.write_seconds += time.perf_counter() - started

    def _finish_complete(self) -> None:
        for key, fed in list(self._fed.items()):
            sink = self._sinks[key]
            if not sink.is_complete:
                continue
            del self._sinks[key], self._fed[key]
            try:
                outcome = sink.finish(fed.identity, fed.ledger, fed.times_seconds, fed.thumbnail, fed.file_stat)
            except StoreError as error:
                self._fail(fed, sink.row, {**fed.ledger, "reason": str(error)})
                continue
            assert outcome is not None
            self._finished.append(Finished(index=fed.index, model=fed.model, outcome=outcome))

    def _fail(self, message: Fed | Refused, row: int, ledger: Mapping[str, Any]) -> None:
        store = self.jobs[message.model].store
        outcome = stage_failure(store, row, message.identity, ledger, message.file_stat)
        self._finished.append(Finished(index=message.index, model=message.model, outcome=outcome))

    def _drop(self, key: Key) -> None:
        self._fed.pop(key, None)
        if (sink := self._sinks.pop(key, None)) is not None:
            sink.abandon()

    def _work(self) -> None:
        """Launches batches in their order and fetches them in the same: none waits while another could be launched."""
        flying: deque[tuple[_Lane, Batch]] = deque()
        begun = 0.0  # when the device, or this thread, turned to the oldest batch
        while True:
            if flying and (self._todo.empty() or len(flying) >= flying[0][0].in_flight):
                lane, batch = flying.popleft()
                features, error = None, None
                try:
                    features = batch.forward(lane.model)
                except Exception as raised:  # noqa: BLE001  # it is raised again in the main thread
                    error = raised
                now = time.perf_counter()
                self._results.put(_Result(lane=lane, batch=batch, features=features, error=error, seconds=now - begun))
                self._alarm.send_bytes(b"r")
                begun = now
                continue
            if (work := self._todo.get()) is None:
                return
            if not flying:
                begun = time.perf_counter()
            lane, batch = work
            if lane.in_flight > 1:
                batch.launch(lane.model)
            flying.append(work)


def _in_flight(job: ModelJob) -> int:
    """Batches that are given to the device before the first is fetched; a CPU works in the thread that waits."""
    return job.tuning.in_flight if job.device.startswith("cuda") else 1


def _frame_shape(frames_shape: tuple[int, ...], frames_per_step: int) -> tuple[int, ...]:
    return frames_shape if frames_per_step == 1 else frames_shape[1:]


def _pinned(shape: tuple[int, ...], dtype: str, device: str) -> Pixels:
    """Batch memory; page-locked for a GPU, so that the copy to it is asynchronous."""
    if not device.startswith("cuda"):
        return np.zeros(shape, dtype=dtype)
    import torch

    pixels: Pixels = torch.zeros(shape, dtype=getattr(torch, dtype), pin_memory=True).numpy()
    return pixels
