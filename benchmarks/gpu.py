"""On a GPU: the pipeline against the bare model, what each of its settings brings, and a stacked sweep.

`forward`: steps from a ring through the pipeline's own batches, its thread and its staging, against the bare model on
resident tensors. `files`: `featurize` from video files, once its workers are warm, against the lower of what all cores
decode and what the bare model does. `tuning`: the same as `forward` with one setting changed. `parity`: features
against those of the CPU in fp32. `egocentric`: an epoch of a head on maps, in seconds. Without a GPU every row is
skipped; REELBANK_GPU names another device than cuda:0.
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.benchmarks.decode import ours as decode_all
from reelbank.benchmarks.egocentric import trainer_of, write_maps
from reelbank.benchmarks.measuring import Stage, interleaved, main
from reelbank.benchmarks.rendering import properties, render
from reelbank.benchmarks.sweep import GRID, vector_store
from reelbank.benchmarks.train import NUM_BINS
from reelbank.extract import FeaturizeConfig, backbones
from reelbank.extract import featurize as run_featurize
from reelbank.extract.backbones import Tuning
from reelbank.extract.errors import ExtractionError
from reelbank.extract.run import todo
from reelbank.extract.run.forwarding import Forwarder
from reelbank.extract.run.messages import ModelJob
from reelbank.extract.run.ring import RemoteModel, RingWriter, make_ring
from reelbank.extract.run.steps import plan_steps
from reelbank.extract.video.on_device import check_decoder
from reelbank.heads import SweepConfig, sweep
from reelbank.manifests.events import Event
from reelbank.store.cores import available_cores
from reelbank.store.devices import DeviceError, cpu_threads, device_facts, resolve_device
from reelbank.store.processes import worker_context

DEVICE = os.environ.get("REELBANK_GPU", "cuda:0")
NUM_STEPS = 16


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured: `steps` of a pass through the pipeline, `clips` from files, `decoded` per core.

    `ego` is head, stage and training clips of the epoch on maps.
    """

    models: tuple[str, ...]
    steps: int
    repeats: int
    clips: int
    decoded: int
    sweep_clips: int
    epochs: int
    members: tuple[str, ...]
    ego: tuple[str, str, int]


EGO = ("ego-rnn", "2", 341)
"""Head, stage, and as many training clips as the split of GTEA 61 has whose test subject is S2."""
_MODELS = ("dinov2", "dinov2:vitl14", "clip", "googlenet")
SIZES = {
    "tiny": Size(
        models=("timm:test_vit",),
        steps=32,
        repeats=1,
        clips=4,
        decoded=2,
        sweep_clips=54,
        epochs=1,
        members=GRID[:1],
        ego=("map-transformer", "1", 2),
    ),
    "normal": Size(
        models=_MODELS,
        steps=8192,
        repeats=3,
        clips=2000,
        decoded=40,
        sweep_clips=2476,
        epochs=5,
        members=GRID,
        ego=EGO,
    ),
    "full": Size(
        models=_MODELS,
        steps=32768,
        repeats=5,
        clips=8000,
        decoded=200,
        sweep_clips=2476,
        epochs=20,
        members=GRID,
        ego=EGO,
    ),
}
TUNED: dict[str, tuple[Tuning, int | None]] = {
    "cast in every pass": (Tuning(cast_weights=False), None),
    "one batch at a time": (Tuning(in_flight=1), None),
    "three batches at a time": (Tuning(in_flight=3), None),
    "CUDA graphs": (Tuning(graphs=True), None),
    "batch 16": (Tuning(), 16),
    "batch 64": (Tuning(), 64),
    "batch 128": (Tuning(), 128),
    "batch 256": (Tuning(), 256),
}
BARE = "bare model"
LIMIT = "the lower of what all cores decode and the bare model"
EGO_MEASURE = "seconds of an epoch of {}, stage {}, {} clips of 16 frames from `layer3`, batch 32"
ONE_BY_ONE = "the same members one after another on the GPU"


def measure(scale: str, work: Path) -> Stage:
    """All GPU rows."""
    import torch

    stage, size = Stage(), SIZES[scale]
    try:
        resolve_device(DEVICE)
    except DeviceError as error:
        _skip(stage, str(error))
        return stage
    stage.machine = dict(device_facts(DEVICE))
    if DEVICE.startswith("cuda"):
        stage.machine["gpu_memory_gib"] = round(torch.cuda.get_device_properties(DEVICE).total_memory / 2**30, 1)
    clip = render(work, "mpeg4-avi")
    stage.inputs["mpeg4-avi"] = properties(clip)
    decode_rate = _decode_rate(clip, size.decoded)
    folder = work / "gpu"
    for model in size.models:
        job = job_of(model, folder)
        bare_rate, share = _forward(job, folder, size)
        note = f"bare {bare_rate:.0f} steps/s, batch {job.batch}"
        stage.quality(f"gpu.forward.{model}", "steps in memory to features, share of", share, BARE, ">= 0.95", note)
        reached = _files(job, folder, clip, size.clips)
        note = f"{reached:.0f} steps/s; cores decode {decode_rate:.0f}, bare model {bare_rate:.0f}"
        limit = min(decode_rate, bare_rate)
        stage.quality(
            f"gpu.files.{model}", "video files to features, share of", reached / limit, LIMIT, ">= 0.95", note
        )
        _parity(stage, model)
    _decode(stage, job_of(size.models[0], folder), folder, clip, size.clips)
    _tuning(stage, job_of(size.models[0], folder), folder, size)
    for batch, target in ((4, ">= 20"), (256, None)):
        _sweep(stage, work, batch, target, size)
    _egocentric(stage, work, scale, size)
    return stage


def _skip(stage: Stage, why: str) -> None:
    for model in _MODELS:
        stage.skip(f"gpu.forward.{model}", "steps in memory to features, share of", BARE, why, ">= 0.95")
        stage.skip(f"gpu.files.{model}", "video files to features, share of", LIMIT, why, ">= 0.95")
    for batch, target in ((4, ">= 20"), (256, None)):
        stage.skip(f"gpu.sweep.{batch}", f"36 x 3 members, batch {batch}", ONE_BY_ONE, why, target)
    head, number, clips = EGO
    stage.skip(f"gpu.egocentric.{head}", EGO_MEASURE.format(head, number, clips), "", why)


def job_of(model: str, folder: Path) -> ModelJob:
    """What `featurize --precision bf16` makes of the model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = FeaturizeConfig(
        model=(model,), weights="random", device=DEVICE, precision="bf16", out=str(folder / "features.zarr")
    )
    return todo.make_job(config, model, folder)


def _forward(job: ModelJob, folder: Path, size: Size) -> tuple[float, float]:
    """(steps per second of the bare model, the pipeline's share of that)."""
    import torch

    backbone: Any = backbones.build(
        job.model, device=job.device, precision=job.spec.precision, state_file=job.state_file, tuning=job.tuning
    )
    passes = max(1, size.steps // job.batch)
    resident = backbone.normalise(_frames(job, job.batch))
    taps = frozenset(backbone.info.default_taps)

    def bare() -> None:
        with torch.inference_mode(), torch.autocast(torch.device(DEVICE).type, torch.bfloat16):
            for _ in range(passes):
                backbone.architecture.run(backbone.module, resident, taps)
        if DEVICE.startswith("cuda"):
            torch.cuda.synchronize()

    fed = Fed(job, folder, passes * job.batch)
    times = interleaved({"bare": bare, "fed": fed}, size.repeats)
    fed.close()
    return passes * job.batch / times["bare"].median, times["bare"].median / times["fed"].median


def _frames(job: ModelJob, count: int) -> np.ndarray:
    info = backbones.describe(job.model)
    random = np.random.default_rng(0)
    return random.integers(0, 255, (count, *info.frames_shape), dtype=info.payload_dtype)


class Fed:
    """Steps of made-up clips through a ring, the forwarding thread and staging: all of a run but decoding."""

    def __init__(self, job: ModelJob, folder: Path, num_steps: int) -> None:
        self._forwarder = Forwarder({0: job}, lambda note: print(note.text))
        self._job, self._folder, self._clips = job, folder, num_steps // NUM_STEPS
        self._ring = make_ring(self._forwarder.slot_bytes, 1)
        self._frames = _frames(job, NUM_STEPS)
        self._plan = plan_steps(backbones.describe(job.model), np.arange(NUM_STEPS), 0, NUM_STEPS + 1)

    def __call__(self) -> None:
        """Returns when the last clip is staged."""
        messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        feeder = threading.Thread(target=self._feed, args=(RingWriter(self._ring, _Pipe(messages)),))
        feeder.start()
        finished, told = 0, False
        while finished < self._clips:
            try:
                message = messages.get(timeout=0.001)
                if message is None:
                    told = True
                else:
                    self._forwarder.handle(message, self._ring)
            except queue.Empty:
                if told:
                    self._forwarder.flush()
            finished += len(self._forwarder.collect())
        feeder.join()
        shutil.rmtree(self._job.store / "staging", ignore_errors=True)

    def close(self) -> None:
        """Ends the thread and gives the ring back."""
        self._forwarder.close()
        self._ring.close(unlink=True)

    def _feed(self, writer: RingWriter) -> None:
        model = RemoteModel(0, self._job, writer)
        for clip in range(self._clips):
            sink = model.open(clip, clip, self._plan, 1)
            for frame in self._frames:
                model.add(sink, [frame] if len(self._plan.reads[0]) == 1 else list(frame))
            sink.finish({"clip_id": str(clip)}, {}, np.arange(NUM_STEPS, dtype=np.float64), None, None)
        writer.announce()
        writer.send(None)


@dataclass(frozen=True)
class _Pipe:
    messages: queue.SimpleQueue[Any]

    def send(self, message: Any) -> None:
        self.messages.put(message)


def _tuning(stage: Stage, job: ModelJob, folder: Path, size: Size) -> None:
    """Each setting against the default, in turns."""
    steps = size.steps // 2
    usual = Fed(job, folder, steps)
    for name, (tuning, batch) in TUNED.items():
        if tuning.graphs and not DEVICE.startswith("cuda"):
            continue
        other = Fed(replace(job, tuning=tuning, batch=batch or job.batch), folder, steps)
        times = interleaved({"usual": usual, "other": other}, size.repeats)
        other.close()
        stage.quality(
            f"gpu.tuning.{name.replace(' ', '-')}", f"{job.model}, {name}, speed against", times["usual"].median
            / times["other"].median, f"the default (batch {job.batch})", None,
        )  # fmt: skip
    usual.close()


def _decode(stage: Stage, job: ModelJob, folder: Path, clip: Path, num_clips: int) -> None:
    """Videos decoded by the GPU against all cores, both with the model on the GPU."""
    row = f"gpu.decode.{job.model}", "from video files, decoded on the GPU: speed against", "decoded by all cores"
    try:
        check_decoder(DEVICE)
    except ExtractionError as error:
        stage.skip(*row, str(error))
        return
    rates = {decode: _files(job, folder, clip, num_clips, decode) for decode in ("cuda", "cpu")}
    id, measure, peer = row
    stage.quality(id, measure, rates["cuda"] / rates["cpu"], peer, None, f"{rates['cuda']:.0f} steps/s")


def _parity(stage: Stage, model: str) -> None:
    """Largest difference from the CPU's fp32 in units of the feature's standard deviation."""
    on_cpu: Any = backbones.build(model, weights="random", device="cpu")
    frames = np.random.default_rng(1).integers(0, 255, (4, *on_cpu.info.frames_shape), dtype=np.uint8)
    taps = on_cpu.default_taps
    expected = on_cpu.forward(frames, taps)
    for precision in ("fp32", "fp16", "bf16"):
        try:
            backbone: Any = backbones.build(model, weights="random", device=DEVICE, precision=precision)
        except DeviceError as error:
            stage.skip(f"gpu.parity.{model}.{precision}", "features against the CPU's", "CPU, fp32", str(error))
            continue
        found = backbone.forward(frames, taps)
        worst = max(
            float(np.abs(found[tap].astype(np.float64) - expected[tap]).max() / expected[tap].astype(np.float64).std())
            for tap in taps
        )
        stage.quality(
            f"gpu.parity.{model}.{precision}", f"{model} in {precision}: largest difference in standard deviations",
            worst, "CPU, fp32", None,
        )  # fmt: skip


def _decode_some(clip: Path, count: int) -> int:
    return sum(len(decode_all(clip, NUM_STEPS, "exact")) for _ in range(count))


def _decode_rate(clip: Path, per_core: int) -> float:
    """Steps per second that all cores decode together, each as busy as the others."""
    cores = available_cores()
    with ProcessPoolExecutor(cores, mp_context=worker_context()) as pool:
        list(pool.map(_decode_some, [clip] * cores, [1] * cores))  # imports
        started = time.perf_counter()
        decoded = sum(pool.map(_decode_some, [clip] * cores, [per_core] * cores))
        return decoded / (time.perf_counter() - started)


def _files(job: ModelJob, folder: Path, clip: Path, num_clips: int, decode: str = "cpu") -> float:
    """Steps per second of the public call from files, over the clips after the first quarter."""
    manifest = folder / "manifest.csv"
    lines = [f"c{i:05d},{clip.resolve()},train,x" for i in range(num_clips)]
    manifest.write_text("\n".join(["clip_id,video,split,label", *lines]) + "\n")
    seen: list[tuple[float, int]] = []

    def watch(event: Event) -> None:
        if event.stage == "extract" and event.done:
            seen.append((time.perf_counter(), event.done))

    run_featurize(
        FeaturizeConfig(
            model=(job.model,), manifest=manifest, root=Path("/"), weights="random", out=str(folder / "files.zarr"),
            precision="bf16", device=DEVICE, sampling=(f"uniform:{NUM_STEPS}",), decode=decode,
        ),
        watch,
    )  # fmt: skip
    begun = next(entry for entry in seen if entry[1] >= num_clips // 4)
    (ended, done), (started, before) = seen[-1], begun
    shutil.rmtree(folder / "files.zarr")
    return NUM_STEPS * (done - before) / max(ended - started, 1e-9)


def _sweep(stage: Stage, work: Path, batch: int, target: str | None, size: Size) -> None:
    """Some epochs of 36 configurations x 3 seeds; the peer trains 4 of them and is multiplied."""
    store = vector_store(work, size.sweep_clips)
    config = SweepConfig.of(
        store=(store,), head="mlp", trunk="shared", loss="ce", bins=NUM_BINS, batch=batch, epochs=size.epochs,
        early_stop_epochs=0, report=False, device=DEVICE, sweep=size.members, repeats=3, executor="stacked",
    )  # fmt: skip
    few = config.but(sweep=("lr=1e-3,3e-4,1e-4,3e-5",), repeats=1, executor="processes", workers=1)
    members = 3 * int(np.prod([axis.count(",") + 1 for axis in size.members]))

    def run(this: SweepConfig) -> None:
        folder = work / "gpu-sweep"
        shutil.rmtree(folder, ignore_errors=True)
        sweep(this.but(run=folder))

    actions: dict[str, Callable[[], Any]] = {"stacked": lambda: run(config), "single": lambda: run(few)}
    times = interleaved(actions, min(2, size.repeats))
    stage.compare(
        f"gpu.sweep.{batch}", f"{members} members, batch {batch}, {size.epochs} epochs", times["stacked"].median,
        ONE_BY_ONE, times["single"].median * members / 4, target, f"peer scaled down: 4 of {members} members",
    )  # fmt: skip


def _egocentric(stage: Stage, work: Path, scale: str, size: Size) -> None:
    """Seconds of an epoch of a head on made-up maps, validation included."""
    head, number, clips = size.ego
    folder, steps = work / "gpu-maps", NUM_STEPS if scale != "tiny" else 2
    shutil.rmtree(folder, ignore_errors=True)
    record: Any = {"kind": "none"}
    if head == "ego-rnn":
        with cpu_threads(1):  # the last bits of random weights depend on it
            record = backbones.build("resnet34", weights="random", device="cpu").weights
    maps = np.maximum(np.random.default_rng(0).normal(size=(4, steps, 256, 14, 14)), 0).astype(np.float16)
    store = write_maps(
        folder / "layer3.zarr", "layer3", maps, clips, backbone="resnet34", weights=record, codec="zstd-1"
    )  # fmt: skip
    options = ("weights=random",) if head == "ego-rnn" else ()
    _, trainer = trainer_of(store, number, 32, device=DEVICE, head=head, head_option=options)
    # An epoch waits for the device itself, when it reads its numbers.
    seconds = interleaved({"epoch": trainer.run_epoch}, size.repeats)["epoch"].median
    shutil.rmtree(folder)
    stage.quality(f"gpu.egocentric.{head}", EGO_MEASURE.format(head, number, clips), seconds, "float32, Adam", None)


if __name__ == "__main__":
    main("gpu", measure, __doc__)
