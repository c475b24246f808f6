"""How long a run will take here and what it will need: a few of its clips are extracted, and thrown away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reelbank.extract import backbones
from reelbank.extract.config import FeaturizeConfig
from reelbank.extract.inputs.sources import paths_of
from reelbank.extract.run import todo as planning
from reelbank.extract.run.featurize import default_workers
from reelbank.extract.run.forwarding import Forwarder
from reelbank.extract.run.messages import ClipJob, Finished, ModelJob, Tally, WorkerSetup
from reelbank.extract.run.pool import Pool
from reelbank.extract.run.report import stage_seconds
from reelbank.extract.run.sizing import expected_steps, plan_notes
from reelbank.extract.weights.files import cached_file
from reelbank.manifests import Manifest
from reelbank.manifests.events import Event, Progress
from reelbank.store.cores import memory_bytes
from reelbank.store.description import readable
from reelbank.store.files import regular
from reelbank.store.layout import DONE

MOST_CLIPS = 8
ENOUGH_SECONDS = 6.0
"""Of extraction; then no further clip is begun, and the whole stays under about 20 s."""
DEADLINE_SECONDS = 10.0
"""Without news of a clip that is tried."""
MOST_TIMED_BYTES = 50 * 2**20
"""A larger file is timed only where there are none below: it is read as a whole, to be hashed."""
MOST_RANDOM_PARAMETERS = 100_000_000
"""A network above this whose weights are not here is not timed: to draw random ones takes longer than the rest."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What the extraction of a few clips took.

    Attributes:
        tally: seconds of its stages.
        num_clips: those that were done; 0 where none could be.
        num_bytes: of their files.
        start_seconds: before the first clip was begun, and between them.
        peak_bytes: memory of the worker; None where the system does not tell.
    """

    tally: Tally
    num_clips: int
    num_bytes: int
    start_seconds: float
    peak_bytes: int | None


def estimate(config: FeaturizeConfig, progress: Progress | None = None) -> list[tuple[str, str]]:
    """What `featurize` would take with `config` on this machine, as sentences, each with its topic.

    Every store is taken to be new. A model whose weights are not here is timed with random ones.

    Raises:
        ManifestError, ValueError: the manifest, or what of it is asked for, cannot be used.
        ExtractionError: a model cannot be built or run.
    """
    manifest = planning.read_manifest(config)
    chosen = planning.select(manifest, config).tolist()
    found = []
    for model in config.model:
        absent = _to_fetch(model, config)
        found += [("weights", f"{model}: {absent} is not here; the run fetches it first")] if absent else []
        with tempfile.TemporaryDirectory(prefix="reelbank-") as folder:
            out = str(Path(folder) / "{model}.zarr")
            asked = replace(config, model=(model,), out=out, weights="random" if absent else config.weights)
            if absent and _num_parameters(model) > MOST_RANDOM_PARAMETERS:
                found.append(("estimate", f"{model}: no time is told before its weights are here"))
                continue
            job = planning.make_job(asked, model, Path(folder))
            timed = _time(asked, job, manifest, chosen, progress)
        found += _sentences(replace(job, store=config.store_path(model)), manifest, chosen, timed, bool(absent))
    return found


def _to_fetch(model: str, config: FeaturizeConfig) -> str:
    """The published weights file that a run would have to fetch; empty where it has what it needs."""
    sources = backbones.describe(model).sources[:1]
    wanted = sources if config.weights_asked == "pretrained" else ()
    return next((source.file_name for source in wanted if cached_file(source) is None), "")


def _num_parameters(model: str) -> int:
    module = backbones.outline(model).module
    return 0 if module is None else sum(one.numel() for one in module.parameters())


def _time(
    config: FeaturizeConfig, job: ModelJob, manifest: Manifest, chosen: Sequence[int], progress: Progress | None
) -> Timed:
    """Extracts a few clips into the store of `job`, which is thrown away."""
    tell = progress or (lambda event: None)
    sample = _sample(job, manifest, chosen)
    remote = {0: job} if job.device != "cpu" else {}
    setup = WorkerSetup(models=(job,), max_pixels=config.max_pixels)
    forwarder = Forwarder(remote, lambda note: None) if remote else None
    pool = Pool(setup, 1, deadline_seconds=DEADLINE_SECONDS, on_note=lambda note: None, forwarder=forwarder)
    began, num_bytes, num_done, peak, tally = time.monotonic(), 0, 0, None, Tally()
    tell(Event(stage="estimate", done=0, total=len(sample), message=f"{job.model}: a few clips are timed"))
    running = pool.run(clip for clip, _ in sample)
    try:
        for done, event in enumerate(running, start=1):
            if isinstance(event, Finished) and event.outcome.status == DONE:
                num_done += 1
                num_bytes += next(size for clip, size in sample if clip.index == event.index)
                tally = replace(pool.tally)  # without what is done of a clip that will not be finished
            peak = max(filter(None, (peak, *map(_peak_bytes, pool.pids))), default=None)
            tell(Event(stage="estimate", done=done, total=len(sample), message=f"{job.model}: a few clips are timed"))
            if time.monotonic() - began > ENOUGH_SECONDS:
                break
        seconds = time.monotonic() - began
    finally:
        running.close()
    if forwarder is not None:
        tally = pool.tally
    return Timed(
        tally=tally,
        num_clips=num_done,
        num_bytes=num_bytes,
        start_seconds=max(0.0, seconds - sum(stage_seconds(pool.tally).values())),
        peak_bytes=peak,
    )


def _sample(job: ModelJob, manifest: Manifest, chosen: Sequence[int]) -> list[tuple[ClipJob, int]]:
    """(clip, bytes of its files) of a few clips, spread over the sizes of files that are soon read."""
    source = backbones.describe(job.model).source
    sized = sorted((_bytes_of(paths), i) for i in chosen if (paths := paths_of(source, manifest, manifest.clips[i])))
    small = [one for one in sized if 0 < one[0] <= MOST_TIMED_BYTES] or sized[:1]
    places = sorted({round(k * (len(small) - 1) / (MOST_CLIPS - 1)) for k in range(MOST_CLIPS)})
    return [
        (
            ClipJob(
                index=row,
                clip=manifest.clips[i],
                paths={source: paths_of(source, manifest, manifest.clips[i])},
                rows=((0, row),),
                root=manifest.root if manifest.confined else None,
            ),
            size,
        )
        for row, (size, i) in enumerate(small[place] for place in places)
    ]


def _bytes_of(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _peak_bytes(pid: int) -> int | None:
    """The most memory that a process has had, as Linux tells it."""
    try:
        lines = regular(Path(f"/proc/{pid}/status")).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _sentences(
    job: ModelJob, manifest: Manifest, chosen: Sequence[int], timed: Timed, is_random: bool
) -> list[tuple[str, str]]:
    clips = [manifest.clips[i] for i in chosen]
    num_viewed = sum(job.spec.view_split in ("all", clip.split) for clip in clips)
    notes = plan_notes(job, len(clips), num_viewed, expected_steps(job.sampling, clips))
    found = [("bytes", note) for note in notes]
    if not timed.num_clips:
        return [*found, ("estimate", f"{job.model}: none of the clips that were tried gives features; no time is told")]
    workers = min(default_workers(job.device != "cpu", None), len(clips))
    source = backbones.describe(job.model).source
    all_bytes = sum(_bytes_of(paths_of(source, manifest, clip)) for clip in clips)
    # What reading costs grows with the files, what the model costs with the clips.
    larger = all_bytes / timed.num_bytes if timed.num_bytes and all_bytes else len(clips) / timed.num_clips
    reading = timed.tally.decode_seconds * larger
    rest = (timed.tally.prepare_seconds + timed.tally.write_seconds) * len(clips) / timed.num_clips
    forward = timed.tally.forward_seconds * len(clips) / timed.num_clips
    extraction = (
        (reading + rest + forward) / workers if job.device == "cpu" else max((reading + rest) / workers, forward)
    )
    stages = stage_seconds(timed.tally)
    took = f"{sum(stages.values()):.1f} s of one worker just now, mostly {max(stages, key=lambda name: stages[name])}"
    found.append(
        (
            "estimate",
            f"{job.model}: about {_duration(extraction + timed.start_seconds)} for {len(clips)} clips with {workers} "
            f"worker{'s' * (workers != 1)} on {job.device}; {timed.num_clips} of them took {took}"
            + (", on random weights" if is_random else ""),
        )
    )
    if timed.peak_bytes is not None:
        has = f"; this machine has {readable(memory)}" if (memory := memory_bytes()) else ""
        needs = (
            f"{readable(timed.peak_bytes * (workers + 1))}: {workers} and the parent, {readable(timed.peak_bytes)} each"
        )
        found.append(("memory", f"{job.model}: at most about {needs}{has}"))
    return found


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
