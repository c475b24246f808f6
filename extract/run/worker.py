"""One worker process: takes clips, decodes each once, forwards it through every model, stages the features."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.extract.errors import DecodeError, ExtractionError, PlanMismatch
from reelbank.extract.inputs import frame_choice
from reelbank.extract.inputs.intervals import clip_frames
from reelbank.extract.inputs.preprocess import common_box, thumbnail
from reelbank.extract.inputs.sources import Source, refuse_outside
from reelbank.extract.run.allocator import keep_freed_memory
from reelbank.extract.run.assembly import ClipFrames, Feed, LocalModel
from reelbank.extract.run.content import stat_of
from reelbank.extract.run.messages import (
    DRAIN,
    Alive,
    ClipJob,
    Decoded,
    Drained,
    Fatal,
    Finished,
    Note,
    Ready,
    Refused,
    Started,
    Tally,
    WorkerSetup,
)
from reelbank.extract.run.opened import OpenFiles
from reelbank.extract.run.payloads import ClipViews
from reelbank.extract.run.process import die_with_parent, limit_threads
from reelbank.extract.run.ring import RemoteModel, Ring, RingWriter
from reelbank.extract.run.steps import plan_steps
from reelbank.extract.video.opening import Limits
from reelbank.extract.video.plan import VideoScan
from reelbank.manifests.files import not_written
from reelbank.store.errors import StoreError
from reelbank.store.staging import Outcome
from reelbank.store.writer import clip_identity

ALIVE_SECONDS = 1.0


def work(connection: Any, setup: WorkerSetup) -> None:
    """The process's main function: answers ClipJobs and DRAIN on `connection` until it gets None."""
    try:
        threading.Thread(target=die_with_parent, daemon=True).start()
        limit_threads()
        keep_freed_memory()
        worker = Worker(connection, setup)
        connection.send(Ready())
        while (job := connection.recv()) is not None:
            if job == DRAIN:
                worker.drain()
            else:
                worker.take(job)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the parent is gone, or a person pressed Ctrl-C and the parent says so
    except OSError as error:
        full = not_written(error)
        connection.send(Fatal(kind="disk-full" if full else "error", text=str(full or traceback.format_exc())))
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
        known = isinstance(error, ValueError | ExtractionError)
        connection.send(Fatal(kind="error", text=str(error) if known else traceback.format_exc()))


class Worker:
    """The state of one worker: its engines and the clips that wait in their batches."""

    def __init__(self, connection: Any, setup: WorkerSetup) -> None:
        self._connection, self._setup = connection, setup
        self._tally, self._sent = Tally(), Tally()
        writer = None
        if setup.ring_name is not None:
            writer = RingWriter(Ring(setup.ring_slot_bytes, setup.ring_slots, name=setup.ring_name), connection)
        self._engines: list[Feed] = []
        for model, job in enumerate(setup.models):
            if writer is not None and model in setup.remote:
                self._engines.append(RemoteModel(model, job, writer))
            else:
                self._engines.append(LocalModel(job, self._tally, self._note))
        self._waiting: list[_ClipRun] = []
        limits = Limits(frame_px=setup.max_pixels, news=self._news)
        self._files = OpenFiles(setup, limits)
        self._last_news = time.monotonic()

    def take(self, job: ClipJob) -> None:
        """Opens each source of one clip once and puts its steps into the batches."""
        self._connection.send(Started(index=job.index))
        is_sequential = False
        reads = [(self._engines[model].info.source, self._engines[model].job.spec.time_origin) for model, _ in job.rows]
        for one in dict.fromkeys(reads):  # stores that count from different starts choose different frames
            rows = tuple(row for row, read in zip(job.rows, reads, strict=True) if read == one)
            is_sequential |= self._take_source(one[0], replace(job, rows=rows))
        self._connection.send(Decoded(index=job.index, is_sequential=is_sequential))

    def _take_source(self, source: str, job: ClipJob) -> bool:
        """Decodes and forwards; whether its next frames cost all before them, but for who stands at them already."""
        self._last_news = time.monotonic()
        clip = _ClipRun(source, job, self._engines)
        started = time.perf_counter()
        before = self._tally.prepare_seconds + self._tally.forward_seconds + self._tally.write_seconds
        try:
            try:
                self._decode(clip)
            except PlanMismatch:
                clip.abandon()
                clip = _ClipRun(source, job, self._engines)
                self._decode(clip, count=True)
        except OSError as error:
            if not_written(error):
                raise
            clip.fail(f"cannot be read: {error.strerror or error}")
        except ValueError as error:
            clip.fail(_reason(error))
        after = self._tally.prepare_seconds + self._tally.forward_seconds + self._tally.write_seconds
        seconds = time.perf_counter() - started - (after - before)
        self._tally.decode_seconds += seconds
        clip.decode_seconds = seconds
        self._waiting.append(clip)
        self._send_tally()  # before the parent may count the run as finished
        self._report_finished()
        return clip.is_sequential

    def drain(self) -> None:
        """Empties the batches and closes the files."""
        self._files.close()
        for engine in self._engines:
            engine.flush()
        self._report_finished()
        assert not self._waiting, [clip.job.clip.clip_id for clip in self._waiting]
        self._connection.send(Drained(tally=self._take_tally()))

    # -- inside -----------------------------------------------------------------------------------------

    def _decode(self, clip: _ClipRun, *, count: bool = False) -> None:
        with _border():
            refuse_outside(clip.paths, clip.job.root)
            opened = clip.open(self._files, self._news, count=count)
        before = replace(opened.cost)
        try:
            with _border():
                clip.choose(opened.scan(), keep_damaged=self._setup.keep_damaged)
            self._feed(clip, opened)
        except DecodeError:
            raise  # of the file, which can be gone on with
        except BaseException:
            opened.close()
            raise
        finally:
            cost, clip.is_sequential = opened.cost, opened.is_sequential
            # The errors of the scan are those of every clip of the file, whichever of them made it.
            clip.note_errors(cost.errors - before.errors + before.scan_errors)
            self._tally.opens += cost.opens - before.opens
            self._tally.frames_decoded += cost.frames_decoded - before.frames_decoded

    def _feed(self, clip: _ClipRun, opened: Source) -> None:
        features = clip.features
        if not features:
            return
        needs = {model: f.plan.wanted for model, f in features.items()}
        wanted = np.unique(np.concatenate(list(needs.values())))
        middles = {f.plan.middle for f in features.values()}
        with _border():
            frames = opened.frames(wanted)
        while (found := _next_of(frames)) is not None:
            index, frame = found
            started = time.perf_counter()
            forwarded = self._tally.forward_seconds + self._tally.write_seconds
            prepared: dict[Any, Any] = {}
            takers = [one for model, one in features.items() if _holds(needs[model], index)]
            with _border():
                clip.note(index, frame)
                if index in middles and clip.source == "video":
                    clip.thumbnails[index] = thumbnail(frame)
                for one in takers:
                    if one.views.key not in prepared:
                        prepared[one.views.key] = one.views(frame)
            for one in takers:
                one.take(index, prepared[one.views.key])
            spent = time.perf_counter() - started
            self._tally.prepare_seconds += spent - (self._tally.forward_seconds + self._tally.write_seconds - forwarded)
            if time.monotonic() - self._last_news > ALIVE_SECONDS:
                self._report_finished()
                self._send_tally()

    def _report_finished(self) -> None:
        """Stages every clip whose steps have all come back, and tells the parent."""
        started = time.perf_counter()
        for clip in self._waiting:
            for model, outcome in clip.finish_complete():
                self._connection.send(Finished(index=clip.job.index, model=model, outcome=outcome))
        self._waiting = [clip for clip in self._waiting if clip.is_pending]
        self._tally.write_seconds += time.perf_counter() - started

    def _news(self) -> None:
        """Tells the parent, once in a while, that reading goes on: its deadline is for what is stuck."""
        if time.monotonic() - self._last_news > ALIVE_SECONDS:
            self._send_tally()

    def _send_tally(self) -> None:
        self._connection.send(Alive(tally=self._take_tally()))
        self._last_news = time.monotonic()

    def _take_tally(self) -> Tally:
        """What was added since the last message; the worker's own tally only grows."""
        new = self._tally - self._sent
        self._sent = replace(self._tally)
        return new

    def _note(self, note: Note) -> None:
        self._connection.send(note)


class _ClipRun:
    """One source of a clip on its way through every model that reads it."""

    def __init__(self, source: str, job: ClipJob, engines: list[Feed]) -> None:
        self.source, self.job = source, job
        self.paths = job.paths[source]
        self.features: dict[int, ClipFrames] = {}
        self.thumbnails: dict[int, Any] = {}
        self.decode_seconds = 0.0
        self.is_sequential = False
        self._engines = engines
        self._failed: dict[int, Outcome | None] = {}
        self._reported: set[int] = set()
        self._ledger: dict[str, Any] = {}
        self._content = ""
        self._stat = stat_of(self.paths)
        self._scan: VideoScan | None = None
        self._damaged: set[int] = set()
        self._sizes_px: dict[int, set[tuple[int, int]]] = {}

    @property
    def is_pending(self) -> bool:
        return len(self._reported) < len(self.job.rows)

    def open(self, sources: OpenFiles, news: Callable[[], None], *, count: bool) -> Source:
        """Hashes what it is read from and opens it, unless the last clip had that done."""
        self._content = sources.content(self.source, self.paths, self._stat, news)
        return sources.open(self.source, self.paths, self._stat, self.job.clip, count=count)

    def note_errors(self, num_errors: int) -> None:
        """What FFmpeg reported; nothing is known of what it did not read."""
        if self._scan is not None and self._scan.stream_index >= 0:
            self._ledger["decode_errors"] = num_errors

    def note(self, index: int, frame: Any) -> None:
        """Keeps a frame's size (of flow, a pair's); marks one that is damaged and kept, or next to a missing one."""
        ones = frame if isinstance(frame, tuple) else (frame,)
        if self.source != "annotations":
            self._sizes_px[index] = {(one.height_px, one.width_px) for one in ones}
        damaged = any(getattr(one, "damage", "") for one in ones)
        if damaged or (self._scan is not None and index in self._scan.lost):
            self._damaged.add(index)

    def choose(self, scan: VideoScan, *, keep_damaged: bool) -> None:
        """Picks the frames of every model. A model that cannot use the clip fails alone."""
        clip, spec = self.job.clip, self._engines[self.job.rows[0][0]].job.spec
        first_frame_seconds = scan.first_frame_seconds
        self._scan = scan = scan if spec.time_origin is None else scan.from_file_start()
        self._ledger = {"width_px": scan.width_px, "height_px": scan.height_px, "rate_fps": float(scan.rate_fps)}
        if scan.stream_index >= 0 or scan.pictures:
            self._ledger |= {"end_known": int(scan.end_known), "time_source": scan.time_source}
            self._ledger["first_frame_seconds"] = first_frame_seconds
        if scan.stream_index >= 0:
            self._ledger |= {"pixel_aspect": float(scan.pixel_aspect), "transfer": scan.transfer}
        scan.check_whole(clip.end_seconds)
        first, stop = clip_frames(
            scan.times_seconds,
            scan.duration_seconds,
            clip_id=clip.clip_id,
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
            past_end=spec.past_end,
        )
        scan.check_complete(first, stop, keep_damaged=keep_damaged)
        start = max(scan.times_seconds[0], -np.inf if clip.start_seconds is None else clip.start_seconds)
        end = min(scan.duration_seconds, np.inf if clip.end_seconds is None else clip.end_seconds)
        duration = float(end - start)
        self._ledger |= {"num_frames": stop - first, "duration_seconds": duration}
        for model, row in self.job.rows:
            engine = self._engines[model]
            try:
                choice = frame_choice.choose(
                    engine.job.sampling,
                    scan.times_seconds[first:stop],
                    duration,
                    clip_id=clip.clip_id,
                    seed=engine.job.spec.seed,
                    past_end=engine.job.spec.past_end,
                    start_seconds=float(start),
                )
                plan = plan_steps(engine.info, choice.frame_index + first, first, stop)
                views = ClipViews(engine.info, engine.job.spec, engine.prepare, clip.clip_id, clip.split)
                sink = engine.open(self.job.index, row, plan, len(views.names))
                self.features[model] = ClipFrames(engine, sink, plan, views)
            except ValueError as error:
                self._fail_model(model, row, _reason(error))

    def fail(self, reason: str) -> None:
        """The clip is lost for every model that is not done with it."""
        for model, row in self.job.rows:
            done = self.features[model].sink.is_complete if model in self.features else False
            if model not in self._failed and not done:
                self._fail_model(model, row, reason)

    def finish_complete(self) -> list[tuple[int, Outcome]]:
        """Outcomes that are new since the last call."""
        found = []
        for model, row in self.job.rows:
            if model in self._reported:
                continue
            if model in self._failed:
                self._reported.add(model)
                outcome = self._failed[model]
            elif (one := self.features.get(model)) is not None and one.sink.is_complete:
                assert self._scan is not None
                ledger = {**self._ledger, "decode_seconds": self.decode_seconds, "content_hash": self._content}
                ledger["repeated_steps"] = one.plan.num_repeated
                if sizes := set().union(*(self._sizes_px.get(i, ()) for i in one.plan.wanted.tolist())):
                    box = common_box(one.feed.info.preprocess, sizes)
                    ledger |= {"frame_box": box, "num_frame_sizes": len(sizes)}
                if self._damaged:
                    items = [not self._damaged.isdisjoint(reads) for reads in one.plan.reads.tolist()]
                    ledger["step_damaged"] = [int(items[item]) for item in one.plan.item_of.tolist()]
                times = self._scan.times_seconds[one.plan.frame_index]
                picture = self.thumbnails.get(one.plan.middle)
                self._reported.add(model)
                try:
                    outcome = one.sink.finish(self._identity(one.feed), ledger, times, picture, self._stat)
                except StoreError as error:
                    outcome = self._fail_model(model, row, str(error))
            else:
                continue
            if outcome is not None:  # else the process of the model reports it
                found.append((model, outcome))
        return found

    def abandon(self) -> None:
        for one in self.features.values():
            one.sink.abandon()

    def _fail_model(self, model: int, row: int, reason: str) -> Outcome | None:
        engine = self._engines[model]
        if model in self.features:
            self.features.pop(model).sink.abandon()
        reason = reason.removeprefix(f"clip {self.job.clip.clip_id!r}: ")  # the row names the clip
        ledger = {**self._ledger, "reason": reason, "content_hash": self._content}
        outcome = engine.refuse(
            Refused(
                index=self.job.index, model=model, row=row, identity=self._identity(engine), ledger=ledger,
                file_stat=self._stat,
            )
        )  # fmt: skip
        self._failed[model] = outcome
        return outcome

    def _identity(self, engine: Feed) -> Mapping[str, str]:
        return clip_identity(self.job.clip, engine.job.spec.digest, self._content)


@contextmanager
def _border() -> Iterator[None]:
    """Around all that is read of one clip: the libraries raise errors of dozens of kinds over damaged files."""
    try:
        yield
    except (ExtractionError, OSError, ValueError):
        raise
    except Exception as error:  # whatever it is, it is this clip's: the others must go on
        text = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"damaged or of another format ({type(error).__name__}: {text})") from error


def _next_of(frames: Iterator[tuple[int, Any]]) -> tuple[int, Any] | None:
    with _border():
        return next(frames, None)


def _holds(ascending: NDArray[np.int64], index: int) -> bool:
    position = int(np.searchsorted(ascending, index))
    return position < len(ascending) and int(ascending[position]) == index


def _reason(error: ValueError) -> str:
    """What the ledger keeps: the row names the clip and its file already."""
    if not isinstance(error, DecodeError):
        return str(error)
    return error.reason if error.frame_index is None else f"frame {error.frame_index}: {error.reason}"
