"""From a decoding process to the process that forwards: preprocessed frames through shared memory.

One ring per worker, one writer and one reader. The writer waits while the ring is full, so memory is bounded; the
reader copies a slot into its batch and moves the tail on. Messages travel through the worker's pipe in the order
of the slots.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.extract import backbones
from reelbank.extract.errors import ExtractionError
from reelbank.extract.run.messages import Dropped, Fed, Items, ModelJob, Opened, Refused
from reelbank.extract.run.payloads import Pixels, preparer
from reelbank.extract.run.steps import StepPlan
from reelbank.store.cores import memory_bytes
from reelbank.store.description import readable
from reelbank.store.staging import Outcome

HEADER_BYTES = 16
MAX_SLOTS, MIN_SLOTS = 64, 4
RING_BYTES = 16 << 20
MEMORY_SHARE = 8
"""All rings together take at most this part of the memory: pages of shared memory count as the container's."""
SHARED_MEMORY = Path("/dev/shm")
ITEMS_PER_MESSAGE = 8
FULL_POLL_SECONDS = 0.0002


def num_slots(slot_bytes: int, num_rings: int) -> int:
    """Slots of each of `num_rings` rings."""
    memory = memory_bytes()
    budget = RING_BYTES if memory is None else min(RING_BYTES, memory // MEMORY_SHARE // num_rings)
    return max(MIN_SLOTS, min(MAX_SLOTS, budget // slot_bytes))


def make_ring(slot_bytes: int, num_rings: int) -> Ring:
    """A ring of its own memory, with fewer slots where shared memory is short.

    Raises:
        ExtractionError: there is no room for the least of them.
    """
    slots = num_slots(slot_bytes, num_rings)
    while slots >= MIN_SLOTS:
        try:
            return Ring(slot_bytes, slots)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
        slots = 0 if slots == MIN_SLOTS else max(MIN_SLOTS, slots // 2)
    # Not while the error is handled: a command would take it for a full disk.
    free = f"{SHARED_MEMORY} has {readable(shutil.disk_usage(SHARED_MEMORY).free)} free"
    asked = f"each of {num_rings} workers hands over steps of {readable(slot_bytes)}, {MIN_SLOTS} at least"
    raise ExtractionError(
        f"no room in shared memory: {asked}, and {free}; give the container more (docker run --shm-size=1g), take "
        "fewer --workers, or --forward worker, which needs none"
    )


class Ring:
    """Slots of preprocessed frames in shared memory, with the writer's head and the reader's tail in front."""

    def __init__(self, slot_bytes: int, slots: int, *, name: str | None = None) -> None:
        """Makes a ring, or opens the one called `name`.

        Raises:
            OSError: no room. A page that is not there when it is first written would kill the writer (SIGBUS).
        """
        size = HEADER_BYTES + slots * slot_bytes
        self.memory = SharedMemory(name=name, create=name is None, size=size if name is None else 0)
        self.name, self.slot_bytes, self.slots = self.memory.name, slot_bytes, slots
        if name is None:
            try:
                _reserve(SHARED_MEMORY / self.name, size)
            except OSError:
                self.memory.close()
                self.memory.unlink()
                raise
        self._ends: Any = np.ndarray((2,), dtype=np.int64, buffer=self.memory.buf)
        if name is None:
            self._ends[:] = 0

    @property
    def is_full(self) -> bool:
        return int(self._ends[0] - self._ends[1]) >= self.slots

    def write(self, frames: Sequence[Pixels]) -> None:
        """Puts one item into the next slot; there must be room."""
        offset = self._offset(0)
        for frame in frames:
            target: Any = np.ndarray(frame.shape, dtype=frame.dtype, buffer=self.memory.buf, offset=offset)
            target[...] = frame
            offset += frame.nbytes
        self._ends[0] += 1

    def peek(self, shape: tuple[int, ...], dtype: str) -> Pixels:
        """The oldest item, frames of `shape`; it stays valid until `release`."""
        return np.ndarray(shape, dtype=dtype, buffer=self.memory.buf, offset=self._offset(1))

    def release(self) -> None:
        """Gives the oldest slot back to the writer."""
        self._ends[1] += 1

    def close(self, *, unlink: bool) -> None:
        """Unmaps the memory; the process that made it also removes it."""
        del self._ends
        self.memory.close()
        if unlink:
            self.memory.unlink()

    def _offset(self, end: int) -> int:
        return HEADER_BYTES + int(self._ends[end]) % self.slots * self.slot_bytes


def _reserve(file: Path, num_bytes: int) -> None:
    if hasattr(os, "posix_fallocate") and file.exists():
        descriptor = os.open(file, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, num_bytes)
        finally:
            os.close(descriptor)


class RingWriter:
    """The ring as all models of one worker share it; announces items in slot order."""

    def __init__(self, ring: Ring, connection: Any) -> None:
        self._ring, self._connection = ring, connection
        self._key: tuple[int, int] | None = None
        self._count = 0

    def put(self, key: tuple[int, int], frames: Sequence[Pixels]) -> None:
        """Writes one item of (clip index, model)."""
        if key != self._key or self._count >= ITEMS_PER_MESSAGE:
            self.announce()
        while self._ring.is_full:
            self.announce()  # the reader must know of what fills the ring
            time.sleep(FULL_POLL_SECONDS)
        self._ring.write(frames)
        self._key = key
        self._count += 1

    def announce(self) -> None:
        """Tells the reader of the items written since the last message."""
        if self._key is not None and self._count:
            self._connection.send(Items(index=self._key[0], model=self._key[1], count=self._count))
        self._key, self._count = None, 0

    def send(self, message: Any) -> None:
        """A message that belongs after the items so far."""
        self.announce()
        self._connection.send(message)


class RemoteModel:
    """A model that runs in the parent: complete steps go there through the ring."""

    def __init__(self, model: int, job: ModelJob, writer: RingWriter) -> None:
        self.job = job
        self.info = backbones.describe(job.model)
        self.prepare = preparer(self.info, job.spec.resize)
        self._model, self._writer = model, writer

    def open(self, index: int, row: int, plan: StepPlan, num_views: int) -> RemoteSink:
        """Announces a clip."""
        self._writer.send(
            Opened(
                index=index, model=self._model, row=row,
                frame_index=plan.frame_index, reads=plan.reads, item_of=plan.item_of, num_views=num_views,
            )
        )  # fmt: skip
        return RemoteSink((index, self._model), len(plan.reads) * num_views, self._writer)

    def add(self, sink: RemoteSink, frames: Sequence[Pixels]) -> None:
        """Sends one item of a clip."""
        self._writer.put(sink.key, frames)
        sink.sent += 1

    def flush(self) -> None:
        """Lets the parent know of everything that was sent."""
        self._writer.announce()

    def refuse(self, refused: Refused) -> Outcome | None:
        """Has the parent stage the failure of a clip; it reports the outcome itself."""
        self._writer.send(refused)
        return None


class RemoteSink:
    """Stands for the `ClipSink` in the parent; complete here means sent."""

    def __init__(self, key: tuple[int, int], num_items: int, writer: RingWriter) -> None:
        self.key, self._num_items, self._writer = key, num_items, writer
        self.sent = 0

    @property
    def is_complete(self) -> bool:
        return self.sent == self._num_items

    def finish(
        self,
        identity: Mapping[str, str],
        ledger: Mapping[str, Any],
        times_seconds: NDArray[np.float64],
        thumbnail: Pixels | None,
        file_stat: tuple[int, int] | None,
    ) -> Outcome | None:
        """Hands over what the parent needs to stage the clip; it reports the outcome itself."""
        self._writer.send(
            Fed(
                index=self.key[0], model=self.key[1], identity=identity, ledger=ledger,
                times_seconds=times_seconds, thumbnail=thumbnail, file_stat=file_stat,
            )
        )  # fmt: skip
        return None

    def abandon(self) -> None:
        """The parent drops what it has."""
        self._writer.send(Dropped(index=self.key[0], model=self.key[1]))
