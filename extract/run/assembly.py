"""From decoded frames to staged features: complete steps in batches, and a clip's features in step order.

Both halves of a clip under one model: `ClipFrames` sits where frames are decoded and queues complete steps;
`ClipSink` sits where the model runs and stages what comes back. In one process they meet through `LocalModel`, with
the model in another process through `ring.RemoteModel` and `forwarding.Forwarder`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelbank.extract import backbones
from reelbank.extract.backbones import Backbone, BackboneError, BackboneInfo
from reelbank.extract.errors import ExtractionError
from reelbank.extract.run.messages import ModelJob, Note, Refused, Tally
from reelbank.extract.run.payloads import ClipViews, Pixels, Prepare, preparer
from reelbank.extract.run.steps import StepPlan
from reelbank.store.devices import is_out_of_memory
from reelbank.store.errors import StoreError
from reelbank.store.spec import TapSpec
from reelbank.store.staging import ClipStage, Outcome, stage_failure

Features = Mapping[str, NDArray[Any]]


class ClipSink:
    """Where the features of one clip under one model arrive, in item order, and are staged in step order.

    All views of an item come one after another. Only a looping `consecutive` is held in memory; all else goes straight
    to disk.
    """

    def __init__(self, store: Path, row: int, taps: tuple[TapSpec, ...], plan: StepPlan, num_views: int = 1) -> None:
        self.row, self._taps, self._plan, self._num_views = row, taps, plan, num_views
        self._in_order = plan.is_in_order
        self._repeats = np.bincount(plan.item_of, minlength=len(plan.reads))
        self._delivered = 0
        self._abandoned = False
        self._refusal = ""
        self._held: dict[tuple[str, int], list[NDArray[Any]]] = {}
        self._stage = ClipStage(store, row, taps, num_views)

    @property
    def is_complete(self) -> bool:
        """Whether every item has come back."""
        return self._delivered == len(self._repeats) * self._num_views

    def deliver(self, features: Features) -> None:
        """Takes the next features (n, *shape) of every tap."""
        count, delivered = len(next(iter(features.values()))), self._delivered
        self._delivered += count
        if self._abandoned:  # the clip failed after these items were queued
            return
        for view in range(self._num_views):
            start = (view - delivered) % self._num_views
            for tap in self._taps:
                if len(values := features[tap.name][start :: self._num_views]):
                    self._stage_view(tap, view, (delivered + start) // self._num_views, values)

    def finish(
        self,
        identity: Mapping[str, str],
        ledger: Mapping[str, Any],
        times_seconds: NDArray[np.float64],
        thumbnail: Pixels | None,
        file_stat: tuple[int, int] | None,
    ) -> Outcome | None:
        """Stages the complete clip; `times_seconds` (T,) are those of its steps.

        Raises:
            StoreError: its features hold NaN or Inf, or the model refused it.
        """
        if self._refusal:
            raise StoreError(self._refusal)
        if not self._in_order:
            for tap in self._taps:
                for view in range(self._num_views):
                    self._stage.append(tap, np.concatenate(self._held[tap.name, view])[self._plan.item_of], view)
        return self._stage.finish(identity, ledger, times_seconds, self._plan.frame_index, thumbnail, file_stat)

    def _stage_view(self, tap: TapSpec, view: int, first_item: int, values: NDArray[Any]) -> None:
        """Takes the next features of one view, or keeps them where steps do not follow their items' order."""
        if not self._in_order:
            self._held.setdefault((tap.name, view), []).append(values.copy())
            return
        repeats = self._repeats[first_item : first_item + len(values)]
        self._stage.append(tap, values if (repeats == 1).all() else np.repeat(values, repeats, axis=0), view)

    def abandon(self) -> None:
        """Throws the features away; items that are still in a batch are dropped when they come back."""
        self._stage.discard()
        self._abandoned = True

    def refuse(self, reason: str) -> None:
        """The model cannot take it: `finish` will say why."""
        self.abandon()
        self._refusal = self._refusal or reason


class Batch:
    """Steps of several clips that share a forward pass of a fixed shape; the last one is padded with zeros.

    A step's features do not depend on its place in the batch, so it does not matter which clips met in one.
    """

    def __init__(self, pixels: Pixels) -> None:
        """`pixels` (B, *frames_shape) is the memory to fill."""
        self.pixels = pixels
        self.sinks: list[ClipSink] = []
        self._refusals: dict[ClipSink, str] = {}
        self._begun: Callable[[], Features] | None = None

    @property
    def is_full(self) -> bool:
        return len(self.sinks) == len(self.pixels)

    def add(self, sink: ClipSink, frames: Sequence[Pixels]) -> None:
        """Takes one item; `frames` are the preprocessed frames it reads."""
        slot = self.pixels[len(self.sinks)]
        if len(frames) == 1:
            slot[...] = frames[0]
        else:
            for i, frame in enumerate(frames):
                slot[i] = frame
        self.sinks.append(sink)

    def pad(self) -> None:
        """Clears what is not filled."""
        self.pixels[len(self.sinks) :] = 0

    def launch(self, model: Model) -> None:
        """Begins the forward pass where the device works by itself; `pixels` stay as they are until `forward`."""
        try:
            self._begun = model.launch(self.pixels)
        except (ValueError, MemoryError, RuntimeError):
            self._begun = None  # `forward` meets it again, and knows what to do

    def forward(self, model: Model) -> Features:
        """Features of the whole batch; what raises ValueError is done again clip by clip, each in its own slots.

        A clip that is refused alone, too, fails when it is handed out; its features are zeros.
        """
        begun, self._begun = self._begun, None
        if begun is not None:
            try:
                return begun()
            except (ValueError, MemoryError, RuntimeError):
                pass  # once more, from the start
        try:
            return model.forward(self.pixels)
        except BackboneError:
            raise  # no clip is to blame
        except ValueError:
            slots: dict[ClipSink, list[int]] = {}
            for slot, sink in enumerate(self.sinks):
                slots.setdefault(sink, []).append(slot)
            features = model.nothing(len(self.pixels))
            for sink, own in slots.items():
                alone = np.zeros_like(self.pixels)
                alone[own] = self.pixels[own]
                try:
                    for name, values in model.forward(alone).items():
                        features[name][own] = values[own]
                except ValueError as error:
                    self._refusals[sink] = str(error)
            return features

    def hand_out(self, features: Features) -> None:
        """Gives each clip its features (those of padding go nowhere) and empties the batch."""
        for sink, reason in self._refusals.items():
            sink.refuse(reason)
        self._refusals.clear()
        position = 0
        sinks, self.sinks = self.sinks, []
        for sink, group in groupby(sinks):
            count = len(list(group))
            sink.deliver({name: values[position : position + count] for name, values in features.items()})
            position += count


class Model:
    """A backbone that halves its batch when memory runs out."""

    def __init__(self, job: ModelJob, note: Callable[[Note], None]) -> None:
        """Builds the backbone. Raises WeightsError or BackboneError if it cannot be built."""
        self.job = job
        self._plugin = backbones.plugin(job.model)
        if self._plugin is not None and self._plugin.sha256 != job.spec.plugin_sha256:
            raise self._plugin.wrong("its source has changed since this run began; run the same command again")
        self.backbone: Backbone = backbones.build(
            job.model,
            weights=str(job.spec.weights.get("kind")),
            device=job.device,
            precision=job.spec.precision,
            state_file=job.state_file,
            tuning=job.tuning,
        )
        self._names = [tap.name for tap in job.spec.taps]
        self._batch, self._note = job.batch, note

    def nothing(self, num_steps: int) -> dict[str, NDArray[Any]]:
        """Zeros in the place of the features of `num_steps` steps."""
        return {tap.name: np.zeros((num_steps, *tap.shape), dtype=tap.dtype) for tap in self.job.spec.taps}

    def launch(self, frames: Pixels) -> Callable[[], Features] | None:
        """Begins the forward pass of a batch and returns what waits for it; None where `forward` has to do it all."""
        begin: Any = getattr(self.backbone, "launch", None)
        if begin is None or self._plugin is not None or self._batch < self.job.batch:
            return None
        launched: Callable[[], Features] = begin(frames, self._names)
        return launched

    def forward(self, frames: Pixels) -> Features:
        """Features of a batch; out of memory halves the batch for the rest of the run, and says so."""
        parts: list[Features] = []
        start = 0
        while start < len(frames):
            part = frames[start : start + self._batch]
            try:
                parts.append(self._features_of_part(part))
            except (MemoryError, RuntimeError) as error:
                if self._batch == 1 and is_out_of_memory(error):
                    what = f"{self.job.model}: one step alone does not fit into the memory of {self.job.device}"
                    raise ExtractionError(f"{what}; free it, or choose a smaller model or another --device") from error
                if not is_out_of_memory(error):
                    if self._plugin is None or isinstance(error, ExtractionError):
                        raise
                    raise ExtractionError(str(self._plugin.wrong(f"forward failed: {error}"))) from error
                self._batch //= 2
                text = f"{self.job.model}: out of memory, batch halved to {self._batch}"
                self._note(Note(text=text, model=self.job.model, batch=self._batch))
                continue
            start += len(part)
        return parts[0] if len(parts) == 1 else {n: np.concatenate([p[n] for p in parts]) for n in self._names}

    def _features_of_part(self, part: Pixels) -> Features:
        """Features of at most `_batch` steps, by a forward pass of that many: the shape of a pass changes the bits."""
        if (short := self._batch - len(part)) <= 0 or self._batch == self.job.batch:
            return self._features(part)
        padded = np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)])
        return {name: values[: len(part)] for name, values in self._features(padded).items()}

    def _features(self, frames: Pixels) -> Features:
        if self._plugin is None:
            return self.backbone.forward(frames, self._names)
        try:
            with self._plugin.running("forward"):
                features = self.backbone.forward(frames, self._names)
            backbones.check_features(self._plugin, self.backbone, features, self._names, len(frames))
        except ValueError as error:
            # No clip is to blame, and several may stand in the batch: the run ends with the sentence.
            raise ExtractionError("; ".join([str(error), *getattr(error, "__notes__", ())])) from error
        return features


class Feed(Protocol):
    """Where a decoding process puts complete steps."""

    job: ModelJob
    info: BackboneInfo
    prepare: Prepare

    def open(self, index: int, row: int, plan: StepPlan, num_views: int) -> Sink: ...
    def add(self, sink: Any, frames: Sequence[Pixels]) -> None: ...
    def flush(self) -> None: ...
    def refuse(self, refused: Refused) -> Outcome | None: ...


class Sink(Protocol):
    """The part of `ClipSink` that a decoding process sees."""

    @property
    def is_complete(self) -> bool: ...
    def finish(
        self,
        identity: Mapping[str, str],
        ledger: Mapping[str, Any],
        times_seconds: NDArray[np.float64],
        thumbnail: Pixels | None,
        file_stat: tuple[int, int] | None,
    ) -> Outcome | None: ...
    def abandon(self) -> None: ...


class LocalModel:
    """The model in the process that decodes: one of its own per core is fastest on a CPU."""

    def __init__(self, job: ModelJob, tally: Tally, note: Callable[[Note], None]) -> None:
        """Builds the backbone. Raises WeightsError or BackboneError if it cannot be built."""
        self.job = job
        self._model = Model(job, note)
        self.info = self._model.backbone.info
        self.prepare = preparer(self.info, job.spec.resize)
        self._tally = tally
        self._batch = Batch(np.zeros((job.batch, *self.info.frames_shape), dtype=self.info.payload_dtype))

    def open(self, index: int, row: int, plan: StepPlan, num_views: int) -> Sink:
        """Where the features of one clip will go."""
        return ClipSink(self.job.store, row, self.job.spec.taps, plan, num_views)

    def add(self, sink: ClipSink, frames: Sequence[Pixels]) -> None:
        """Queues one item of a clip; a full batch is forwarded at once."""
        self._batch.add(sink, frames)
        if self._batch.is_full:
            self.flush()

    def flush(self) -> None:
        """Forwards what waits and hands the features to their clips."""
        if not self._batch.sinks:
            return
        self._batch.pad()
        started = time.perf_counter()
        self._tally.steps_forwarded += len(self._batch.sinks)
        features = self._batch.forward(self._model)
        self._tally.forward_seconds += time.perf_counter() - started
        started = time.perf_counter()
        self._batch.hand_out(features)
        self._tally.write_seconds += time.perf_counter() - started

    def refuse(self, refused: Refused) -> Outcome | None:
        """Stages the failure of a clip."""
        return stage_failure(self.job.store, refused.row, refused.identity, refused.ledger, refused.file_stat)


class ClipFrames:
    """One clip under one model where it is decoded: collects frames and queues complete steps."""

    def __init__(self, feed: Feed, sink: Sink, plan: StepPlan, views: ClipViews) -> None:
        self.feed, self.sink, self.plan, self.views = feed, sink, plan, views
        self._next_item = 0
        self._recent: dict[int, Sequence[Pixels]] = {}

    def take(self, index: int, views: Sequence[Pixels]) -> None:
        """Takes the frame `index` of `plan.wanted`, prepared for each view; frames come in ascending order."""
        reads = self.plan.reads
        self._recent[index] = views
        while self._next_item < len(reads) and reads[self._next_item, -1] <= index:
            wanted = reads[self._next_item].tolist()
            self._next_item += 1
            for view in range(len(views)):
                self.feed.add(self.sink, [self._recent[i][view] for i in wanted])
            oldest = reads[self._next_item, 0] if self._next_item < len(reads) else index + 1
            for old in [i for i in self._recent if i < oldest]:
                del self._recent[old]
