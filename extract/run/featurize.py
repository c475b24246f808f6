"""Stage 1: from a manifest to stores of features."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from reelbank.extract import backbones
from reelbank.extract.config import FeaturizeConfig
from reelbank.extract.errors import DiskFullError
from reelbank.extract.run import todo as planning
from reelbank.extract.run.commit import Committer
from reelbank.extract.run.forwarding import Forwarder
from reelbank.extract.run.messages import ClipJob, Finished, ModelJob, Note, WorkerSetup
from reelbank.extract.run.pool import Pool
from reelbank.extract.run.report import FeaturizeReport, StoreReport, pace
from reelbank.extract.run.sizing import expected_steps, plan_notes, refuse_what_no_disk_holds
from reelbank.extract.run.todo import Todo
from reelbank.extract.video.on_device import WORKERS as DECODING_WORKERS
from reelbank.extract.video.on_device import check_decoder
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.cores import available_cores
from reelbank.store.devices import resolve_device, unseen_gpu
from reelbank.store.files import only_writer, scratch
from reelbank.store.layout import DONE
from reelbank.store.processes import import_ahead, leave_if_importing
from reelbank.store.spec import FeatureSpec
from reelbank.store.writer import remove_unfinished

WORKER_MODULES = ("torch", "cv2", "reelbank.extract.run.worker")


@with_bar("featurize")
def featurize(
    config: FeaturizeConfig, progress: Progress | None = None, *, like: Mapping[str, FeatureSpec] | None = None
) -> FeaturizeReport:
    """Extracts what is missing; finished clips are never done twice.

    A script that calls this needs the `if __name__ == "__main__":` guard, because workers import it.

    Args:
        config: what to extract.
        progress: called with each step of the run.
        like: {model: the spec that its features must have}; None takes what the config gives.

    Returns:
        What was done and what failed, per store; failed clips are rows of the ledger with their reason.

    Raises:
        ManifestError: no usable manifest.
        WeightsError, BackboneError: a model cannot be built.
        SpecMismatch: a store holds other features, or a model gives others than `like` says; nothing was changed.
        DiskFullError, ExtractionError: the run stopped; what was finished is kept.
        NoMainGuard: the script has none; it ends with a sentence.
    """
    leave_if_importing()
    started = time.monotonic()
    resolve_device(config.device)  # asked for, it must be here, also where no model uses it
    manifest = planning.read_manifest(config)
    chosen = planning.select(manifest, config)
    import_ahead([*WORKER_MODULES, *(name for model in config.model for name in backbones.libraries(model))])
    with ExitStack() as stack:
        store = config.store_path(config.model[0])
        folder = stack.enter_context(scratch(store.parent, f"{store.name}.weights", elsewhere=True))
        jobs = [planning.make_job(config, model, folder, (like or {}).get(model)) for model in config.model]
        decode_device = _decode_device(config, jobs)
        if config.square_pixels and not any(job.spec.square_pixels for job in jobs):
            raise ValueError("--square-pixels: none of the models reads videos; leave it out")
        committers = []
        todos: list[Todo] = []
        unlocked: list[str] = []
        for job in jobs:
            _check_writable(job.store)
            if not (job.store / "zarr.json").is_file():  # before anything of the run is made
                refuse_what_no_disk_holds(job, len(chosen))
        for job in jobs:
            unlocked += [said] if (said := stack.enter_context(only_writer(job.store))) else []
            writer = planning.open_writer(job, manifest, _full_weights(job, config))
            remove_unfinished(job.store)
            rows = writer.sync_manifest(manifest)
            todos.append(planning.plan_store(writer, manifest, rows, chosen, config))
            refuse_what_no_disk_holds(job, len(todos[-1].rows))
            committers.append(Committer(writer, job, todos[-1]))
        clips = planning.clip_jobs(manifest, jobs, todos)
        remote = {model: job for model, job in enumerate(jobs) if _runs_in_parent(job, config)}
        workers = min(config.workers or default_workers(bool(remote), decode_device), max(1, len(clips)))
        run = _Extraction(jobs, committers, total=len(clips), progress=progress, started=started)
        pool = Pool(
            WorkerSetup(
                models=tuple(jobs),
                max_pixels=config.max_pixels,
                keep_damaged=config.damaged == "keep",
                square_pixels=config.square_pixels,
                decode_device=decode_device,
            ),
            workers,
            deadline_seconds=config.deadline_seconds,
            on_note=run.hear,
            forwarder=Forwarder(remote, run.hear) if remote and clips else None,
        )
        if not any(job.device.startswith("cuda") for job in jobs) and (unseen := unseen_gpu()):
            run.note(unseen)
        if decode_device is not None:
            run.note(f"videos are decoded on {decode_device}, which does not tell of damaged frames")
        for sentence in (*unlocked, *filter(None, [manifest.warning])):
            run.note(sentence)
        for job, todo, committer in zip(jobs, todos, committers, strict=True):
            for sentence in todo.damaged:
                run.note(f"{job.store.name}: {sentence}")
            viewed = sum(job.spec.view_split in ("all", manifest.clips[i].split) for i in todo.rows.values())
            counts = expected_steps(job.sampling, [manifest.clips[i] for i in todo.rows.values()])
            for sentence in plan_notes(job, len(todo.rows), viewed, counts, committer.writer.geometry):
                run.announce(sentence)
        run.extract(pool, clips)
        return FeaturizeReport(
            stores=tuple(
                StoreReport.of(job, committer, todo)
                for job, committer, todo in zip(jobs, committers, todos, strict=True)
            ),
            notes=(*manifest.notes, *run.notes),
            num_clips=len(chosen),
            num_workers=workers,
            num_forwarding=1 if len(remote) == len(jobs) else workers + bool(remote),
            wall_seconds=time.monotonic() - started,
            extract_seconds=run.extract_seconds,
            worker_seconds=pool.worker_seconds,
            tally=pool.tally,
        )


def _runs_in_parent(job: ModelJob, config: FeaturizeConfig) -> bool:
    """Each model for itself: beside one of a GPU, one of a CPU would have a single thread of the parent."""
    return config.forward == "parent" or (config.forward == "auto" and job.device != "cpu")


def _decode_device(config: FeaturizeConfig, jobs: list[ModelJob]) -> str | None:
    """The GPU that decodes videos, None where FFmpeg does. Raises ExtractionError where it cannot."""
    decoding = [job.device for job in jobs if job.spec.decoder is not None]
    if config.decode == "cpu" or not decoding:
        return None
    device = next((name for name in decoding if name.startswith("cuda")), resolve_device(config.device))
    check_decoder(device)
    return device


def default_workers(has_remote: bool, decode_device: str | None) -> int:
    """One process per core that decodes and forwards on one thread beats overlapping the two on a CPU.

    Where there are several, one is left for a parent that feeds a GPU.
    """
    cores = available_cores()
    cores = cores - 1 if has_remote and cores > 2 else cores
    return cores if decode_device is None else min(cores, DECODING_WORKERS)


class _Extraction:
    """One pass over the clips: listens to the pool, commits on a thread, tells the caller."""

    def __init__(
        self,
        jobs: list[ModelJob],
        committers: list[Committer],
        *,
        total: int,
        progress: Progress | None,
        started: float,
    ) -> None:
        self._jobs, self._committers = jobs, committers
        self._progress = progress
        self._total, self._started = total, started
        self._left: dict[int, int] = {}
        self._finished = 0
        self._failed: set[int] = set()
        self.notes: list[str] = []
        self.extract_seconds = 0.0

    def announce(self, text: str) -> None:
        """Says something that the report need not repeat."""
        self._tell(None, text)

    def hear(self, note: Note) -> None:
        """Passes on what a worker or a model says."""
        self.note(note.text)
        for committer in self._committers:
            if note.batch is not None and committer.model == note.model:
                committer.batch_was_halved(note.batch)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._tell(None, text)

    def extract(self, pool: Pool, clips: list[ClipJob]) -> None:
        """Runs the clips and commits them; on any error what is staged is committed first, if it can be."""
        self._left = {clip.index: len(clip.rows) for clip in clips}
        began = time.monotonic()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit") as thread:
            pending: list[Future[None]] = []
            try:
                self._tell(pool, "")
                for event in pool.run(clips):
                    if isinstance(event, Finished):
                        self._committers[event.model].add(event.outcome)
                        self._count(event.index, event.outcome.status != DONE)
                    else:
                        job, reason = event
                        for model, _ in job.rows:
                            self._committers[model].fail(job, model, reason)
                            self._count(job.index, True)
                    for committer in self._committers:
                        for unit in committer.full_units():
                            pending.append(thread.submit(committer.commit, unit, committer.take(unit)))
                    pending = _settled(pending)
                    self._tell(pool, "")
            except DiskFullError:
                raise
            except BaseException:
                self._commit_rest(thread, pending)
                raise
            self._commit_rest(thread, pending)
        self.extract_seconds = time.monotonic() - began
        self._tell(pool, "")

    def _commit_rest(self, thread: ThreadPoolExecutor, pending: list[Future[None]]) -> None:
        for committer in self._committers:
            for unit in committer.staged_units():
                pending.append(thread.submit(committer.commit, unit, committer.take(unit)))
        for future in pending:
            future.result()

    def _count(self, index: int, failed: bool) -> None:
        self._left[index] -= 1
        if self._left[index] == 0:
            self._finished += 1
        if failed:
            self._failed.add(index)

    def _tell(self, pool: Pool | None, text: str) -> None:
        if self._progress is not None:
            tally, seconds = None if pool is None else pool.tally, time.monotonic() - self._started
            self._progress(
                Event(
                    stage="extract",
                    done=self._finished,
                    total=self._total,
                    message=pace(tally, self._finished, seconds, len(self._failed)),
                    values={"failed": len(self._failed)},
                    note=text,
                )
            )


def _settled(pending: list[Future[None]]) -> list[Future[None]]:
    """Those that are not done; raises what went wrong in one that is."""
    waiting = []
    for future in pending:
        if future.done():
            future.result()
        else:
            waiting.append(future)
    return waiting


def _full_weights(job: ModelJob, config: FeaturizeConfig) -> dict[str, Any]:
    return {"asked": config.weights_asked, **dict(job.spec.weights), "sources": _sources(job.model)}


def _sources(model: str) -> list[dict[str, Any]]:
    return list(backbones.describe(model).to_json()["weights"])


def _check_writable(store: Path) -> None:
    """Raises OSError naming the folder if nothing can be written there."""
    folder = store.parent if str(store.parent) else Path()
    if not folder.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, f"the folder of the store {store} does not exist; make it first", str(folder)
        )
    if store.exists() and not store.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "the store is a file; choose another --out", str(store))
