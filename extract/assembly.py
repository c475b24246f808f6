"""From decoded frames to staged features: batches across clips, and the steps of each clip in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.extract import backbones
from reelbank.extract.jobs import ModelJob, Tally
from reelbank.extract.preprocess import make
from reelbank.store.spec import TapSpec
from reelbank.store.staging import ClipStage, Outcome

Pixels = NDArray[np.uint8]


class Engine:
    """One backbone with its batch: steps of several clips share a forward pass.

    Every pass has the same shape (the last is padded with zeros), and a step's features do not depend on
    its place in the batch, so it does not matter which clips met in one.
    """

    def __init__(self, job: ModelJob, tally: Tally, note: Callable[[str], None]) -> None:
        """Builds the backbone. Raises WeightsError or BackboneError if it cannot be built."""
        self.job = job
        self.backbone = backbones.build(
            job.model,
            weights=str(job.spec.weights.get("kind")),
            device=job.device,
            precision=job.spec.precision,
            state_file=job.state_file,
        )
        self.prepare = make(self.backbone.preprocess, job.spec.resize)
        self.taps: tuple[TapSpec, ...] = job.spec.taps
        self._tally, self._note = tally, note
        self._batch = job.batch
        self._buffer = np.zeros((job.batch, *self.backbone.info.frames_shape), dtype=np.uint8)
        self._routes: list[tuple[ClipFeatures, int]] = []

    def add(self, clip: ClipFeatures, item: int, frames: Sequence[Pixels]) -> None:
        """Queues one step; `frames` are the preprocessed frames it reads."""
        slot = self._buffer[len(self._routes)]
        if len(frames) == 1:
            slot[...] = frames[0]
        else:
            for i, frame in enumerate(frames):
                slot[i] = frame
        self._routes.append((clip, item))
        if len(self._routes) == len(self._buffer):
            self.flush()

    def flush(self) -> None:
        """Forwards what waits, padded to the full batch, and hands the features to their clips."""
        if not self._routes:
            return
        self._buffer[len(self._routes) :] = 0
        routes, self._routes = self._routes, []
        started = time.perf_counter()
        features = self._forward(self._buffer)
        self._tally.forward_seconds += time.perf_counter() - started
        self._tally.steps_forwarded += len(routes)
        started = time.perf_counter()
        position = 0
        for clip, group in groupby(routes, key=lambda route: route[0]):
            count = len(list(group))
            clip.deliver({name: values[position : position + count] for name, values in features.items()})
            position += count
        self._tally.write_seconds += time.perf_counter() - started

    def _forward(self, frames: Pixels) -> dict[str, NDArray[Any]]:
        """One pass; out of memory halves the batch for the rest of the run, and says so."""
        names = [tap.name for tap in self.taps]
        parts = []
        start = 0
        while start < len(frames):
            part = frames[start : start + self._batch]
            try:
                parts.append(self.backbone.forward(part, names))
            except (MemoryError, RuntimeError) as error:
                if self._batch == 1 or not _is_out_of_memory(error):
                    raise
                self._batch = max(1, self._batch // 2)
                self._note(f"{self.job.model}: out of memory, batch halved to {self._batch}")
                continue
            start += len(part)
        return parts[0] if len(parts) == 1 else {n: np.concatenate([p[n] for p in parts]) for n in names}


class ClipFeatures:
    """One clip under one model: which frames it needs, and its steps as they come back.

    A frame that the sampling repeats is forwarded once. Where steps stand in frame order (all samplings but
    a looping `consecutive`) features go straight to disk, so memory does not grow with the clip.
    """

    def __init__(
        self,
        engine: Engine,
        row: int,
        frame_index: NDArray[np.int64],
        first: int,
        stop: int,
        identity: Mapping[str, str],
    ) -> None:
        """Plans the clip.

        Args:
            engine: of the model.
            row: of the model's store.
            frame_index: (T,) frames of the video, one per step, in step order.
            first, stop: the clip's frames are first..stop-1.
            identity: of the clip, kept with the staged features.

        Raises:
            ValueError: the clip has fewer frames than one step of this backbone reads.
        """
        offsets = engine.backbone.step_frames
        reach = max(offsets)
        if stop - first <= reach:
            raise ValueError(
                f"{engine.job.model} reads {reach + 1} frames per step, the clip has {stop - first}; "
                "leave it out of this model or lengthen it"
            )
        # A last anchor has no next frame: it takes the last pair.
        starts, inverse = np.unique(np.minimum(frame_index, stop - 1 - reach), return_inverse=True)
        self.engine, self.row, self.identity = engine, row, identity
        self.frame_index = frame_index
        self._abandoned = False
        self._reads = starts[:, None] + np.asarray(offsets)
        self.wanted: NDArray[np.int64] = np.unique(self._reads)
        self.middle = int(self._reads[inverse[len(inverse) // 2], 0])
        self._inverse = inverse
        self._in_order = bool((np.diff(inverse) >= 0).all())
        self._repeats = np.bincount(inverse, minlength=len(starts))
        self._next_item = 0
        self._delivered = 0
        self._recent: dict[int, Pixels] = {}
        self._held: dict[str, list[NDArray[Any]]] = {tap.name: [] for tap in engine.taps}
        self._stage = ClipStage(engine.job.store, row, engine.taps)

    @property
    def is_fed(self) -> bool:
        """Whether every step of the clip is in a batch or beyond."""
        return self._next_item == len(self._reads)

    @property
    def is_complete(self) -> bool:
        """Whether every step has come back."""
        return self._delivered == len(self._reads)

    def feed(self, index: int, pixels: Pixels) -> None:
        """Takes the preprocessed frame `index` of `wanted`; frames come in ascending order."""
        self._recent[index] = pixels
        while self._next_item < len(self._reads) and self._reads[self._next_item, -1] <= index:
            item = self._next_item
            reads = self._reads[item].tolist()
            self._next_item += 1
            self.engine.add(self, item, [self._recent[i] for i in reads])
            oldest = self._reads[self._next_item, 0] if not self.is_fed else index + 1
            for old in [i for i in self._recent if i < oldest]:
                del self._recent[old]

    def deliver(self, features: Mapping[str, NDArray[Any]]) -> None:
        """Takes the next features (n, *shape) of every tap, in item order."""
        count = len(next(iter(features.values())))
        repeats = self._repeats[self._delivered : self._delivered + count]
        self._delivered += count
        if self._abandoned:  # the clip failed after these steps were queued
            return
        for tap in self.engine.taps:
            values = features[tap.name]
            if self._in_order:
                self._stage.append(tap, values if (repeats == 1).all() else np.repeat(values, repeats, axis=0))
            else:
                self._held[tap.name].append(values.copy())

    def finish(
        self,
        ledger: Mapping[str, Any],
        times_seconds: NDArray[np.float64],
        thumbnail: Pixels | None,
        file_stat: tuple[int, int] | None,
    ) -> Outcome:
        """Stages the complete clip; `times_seconds` (T,) are those of its steps."""
        if not self._in_order:
            for tap in self.engine.taps:
                self._stage.append(tap, np.concatenate(self._held[tap.name])[self._inverse])
        return self._stage.finish(self.identity, ledger, times_seconds, self.frame_index, thumbnail, file_stat)

    def abandon(self) -> None:
        """Throws the features away; steps that are still in a batch are dropped when they come back."""
        self._stage.discard()
        self._abandoned = True
        self._recent.clear()


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
