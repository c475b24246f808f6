"""Heads on maps: what it brings to begin at stored `layer3` maps, and what reading them block by block costs.

Ego-RNN on ResNet-34 with random weights. Clips are a few rendered videos, again and again under other names, so that
pixels, maps and their compression are those of a run. Both sides of an epoch train the same head on the same numbers;
peaks of memory are those of a process of its own, above what it had before it read anything.
"""

from __future__ import annotations

import math
import shutil
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.benchmarks.decode import ours as decoded
from reelbank.benchmarks.measuring import Stage, interleaved, main
from reelbank.benchmarks.memory import status_mb
from reelbank.benchmarks.rendering import properties, render
from reelbank.heads import TrainConfig
from reelbank.store.cores import available_cores, free_memory_bytes
from reelbank.store.devices import cpu_threads
from reelbank.store.processes import worker_context
from reelbank.store.testing import write_store

VIDEO = "h264-10s"
NUM_VAL = 2
POLL_SECONDS = 0.002
NUM_CLASSES = 61
SPARE = 1.3
"""Of what a step is projected to take must be free, or it is not run."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        videos, frames: rendered videos, and the frames of each.
        steps: frames of a clip that are read.
        fed: clips of a batch that is read or decoded.
        stages, trained, epochs: of Ego-RNN, clips of an epoch, one batch; how many epochs are timed.
        convlstm: clips, steps and channels of the ConvLSTM.
        streamed: clips of the epoch that has `limit_mb` of memory for its arrays and takes `batch` at once.
        stepped: head and stage of the step whose peak is asked about, two numbers of clips that are measured, and the
            one that is asked about.
        alone: peaks are measured in processes of their own; else in this one, where they mean nothing.
    """

    videos: int
    frames: int
    steps: int
    fed: int
    stages: tuple[str, ...]
    trained: int
    epochs: int
    convlstm: tuple[int, int, int]
    streamed: int
    limit_mb: int
    batch: int
    stepped: tuple[str, str, int, int, int]
    alone: bool
    repeats: int


SIZES = {
    "tiny": Size(
        videos=2, frames=4, steps=2, fed=2, stages=("1",), trained=2, epochs=1, convlstm=(1, 3, 8), streamed=16,
        limit_mb=2, batch=2, stepped=("map-transformer", "1", 1, 2, 3), alone=False, repeats=1,
    ),
    "normal": Size(
        videos=4, frames=90, steps=16, fed=32, stages=("1", "2"), trained=8, epochs=2, convlstm=(4, 16, 512),
        streamed=128, limit_mb=60, batch=8, stepped=("ego-rnn", "2", 2, 4, 32), alone=True, repeats=3,
    ),
    "full": Size(
        videos=8, frames=300, steps=16, fed=32, stages=("1", "2"), trained=32, epochs=5, convlstm=(16, 16, 512),
        streamed=341, limit_mb=100, batch=8, stepped=("ego-rnn", "2", 4, 8, 32), alone=True, repeats=5,
    ),
}  # fmt: skip


def measure(scale: str, work: Path) -> Stage:
    """All rows."""
    size, stage, folder = SIZES[scale], Stage(), work / "egocentric"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    videos = [render(work, VIDEO, num_frames=size.frames, seed=seed) for seed in range(size.videos)]
    stage.inputs = {f"video {i}": properties(path) for i, path in enumerate(videos)}
    stage.inputs["clips"] = {
        "steps": size.steps, "fed": size.fed, "trained": size.trained, "streamed": size.streamed,
        "stepped": list(size.stepped[2:]),
    }  # fmt: skip
    with cpu_threads(available_cores()):
        made = Made.of(folder, videos, size)
        _feed(stage, made, videos, size)
        for number in size.stages:
            _epoch(stage, made, number, size)
        _convlstm(stage, size)
    with cpu_threads(1):
        _streamed(stage, made, size)
    _step_memory(stage, size)
    shutil.rmtree(folder)
    return stage


@dataclass(frozen=True, kw_only=True)
class Made:
    """Stores of the same clips.

    Attributes:
        from_frames: a trainer of stage 1 on their frames of 224 px.
        maps: (videos, T, 256, 14, 14) float16 of those frames: the tap `layer3`.
        record: which weights they are of.
    """

    folder: Path
    frames: Path
    from_frames: Any
    maps: npt.NDArray[np.float16]
    record: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, videos: list[Path], size: Size) -> Made:
        """Decodes the videos, and computes their maps by the very network that the head holds."""
        import torch

        from reelbank.heads.examples.batches import scaled

        pictures = np.stack([decoded(path, size.steps) for path in videos])
        frames = write_maps(folder / "frames.zarr", "rgb", pictures, size.trained, backbone="frames")
        prepared, trainer = trainer_of(frames, "1", size.trained)
        mask = torch.ones(1, size.steps, dtype=torch.bool)
        with torch.no_grad():
            trainer.head.eval()
            maps = [
                trainer.head.maps(scaled(one, "pixels"), mask)["conv4"].half().numpy()
                for one in torch.from_numpy(pictures).unsqueeze(1)
            ]
        record = prepared.start.bases["net"].weights
        return cls(folder=folder, frames=frames, from_frames=trainer, maps=np.stack(maps), record=record)

    def store(self, clips: int) -> Path:
        """The tap `layer3` of so many training clips, compressed as `featurize` does it."""
        path = self.folder / f"layer3-{clips}.zarr"
        if not path.exists():
            write_maps(path, "layer3", self.maps, clips, backbone="resnet34", weights=self.record, codec="zstd-1")
        return path


def write_maps(path: Path, tap: str, values: npt.NDArray[Any], clips: int, **options: Any) -> Path:
    """A store of `clips` training clips and NUM_VAL of validation, which have the videos in turn."""
    count = clips + NUM_VAL
    rows = [
        {"clip_id": f"c{i:05d}", "label": "ab"[i % 2], "split": "train" if i < clips else "val"} for i in range(count)
    ]
    write_store(path, {tap: [values[i % len(values)] for i in range(count)]}, rows, **options)
    return path


def _config(store: Path, stage: str, batch: int, **values: Any) -> TrainConfig:
    given = {
        "head": "ego-rnn", "head_option": ("weights=random",), "init_from": () if stage == "1" else ("none",), **values
    }  # fmt: skip
    return TrainConfig.of(
        store=(store,), stage=stage, target="none", batch=batch, epochs=1000, early_stop_epochs=0, report=False,
        **{"device": "cpu", **given},
    )  # fmt: skip


def trainer_of(store: Path, stage: str, batch: int, **values: Any) -> tuple[Any, Any]:
    """(what is prepared, its trainer)."""
    from reelbank.heads.examples.prepared import prepare
    from reelbank.heads.training.job import make_job
    from reelbank.heads.training.trainer import Trainer

    prepared = prepare(_config(store, stage, batch, **values))
    return prepared, Trainer(make_job(prepared, prepared.partitions[0]))


def _feed(stage: Stage, made: Made, videos: list[Path], size: Size) -> None:
    """One batch as a head reads it, against decoding its frames; one thread."""
    import torch

    from reelbank.heads.examples.prepared import prepare

    one = size.fed * made.maps[0].nbytes
    prepared = prepare(_config(made.store(size.fed), "1", size.fed))
    held: Any = prepared.resident(np.arange(size.fed))
    batches = replace(held, held=None, budget=4 * one)  # read anew, though all of it would fit
    order = torch.randperm(size.fed)
    clips = [videos[i % len(videos)] for i in range(size.fed)]
    with cpu_threads(1):
        times = interleaved(
            {
                "maps": lambda: deque(batches.batches(order, size.fed), maxlen=1),
                "frames": lambda: [decoded(path, size.steps) for path in clips],
            },
            size.repeats,
        )
    stage.compare(
        "egocentric.feed", f"a batch of {size.fed} clips of {size.steps} frames: `layer3` from the store",
        times["maps"], "decoding the frames (fast resize), one thread", times["frames"], ">= 10",
        f"{one / 1e6:.0f} MB; what ResNet-34 up to there would take is not counted",
    )  # fmt: skip


def _epoch(stage: Stage, made: Made, number: str, size: Size) -> None:
    """An epoch of a stage, validation included, from maps and from frames."""
    from_maps = trainer_of(made.store(size.trained), number, size.trained)[1]
    from_frames = made.from_frames if number == "1" else trainer_of(made.frames, number, size.trained)[1]
    losses: dict[str, float] = {}

    def run(name: str, trainer: Any) -> None:
        losses.setdefault(name, trainer.run_epoch().train_loss)

    actions: dict[str, Callable[[], Any]] = {
        "maps": lambda: run("maps", from_maps),
        "frames": lambda: run("frames", from_frames),
    }
    times = interleaved(actions, size.epochs, warm=size.epochs > 1)
    if not math.isclose(losses["maps"], losses["frames"], rel_tol=0.05):
        raise AssertionError(f"stage {number}: both sides should train on the same numbers, {losses = }")
    stage.compare(
        f"egocentric.stage-{number}", f"an epoch of Ego-RNN, stage {number}, from `layer3`", times["maps"],
        "the same from stored frames, all of ResNet-34 in the head", times["frames"],
        {"1": ">= 1.5", "2": ">= 1.25"}[number],
        f"{size.trained} training clips of {size.steps} frames, {NUM_VAL} of validation",
    )  # fmt: skip


def _convlstm(stage: Stage, size: Size) -> None:
    """Forward and backward of a ConvLSTM on maps of 7x7."""
    import torch

    from reelbank.heads.models.layers.convlstm import ConvLSTM

    batch, steps, channels = size.convlstm
    torch.manual_seed(0)
    ours, sequence = ConvLSTM(channels, channels), torch.randn(batch, steps, channels, 7, 7)
    gates = [
        [torch.nn.Parameter(part.detach().clone()) for part in weight.chunk(4)]
        for weight in (ours.input.weight, ours.recurrent.weight, ours.input.bias)
        if weight is not None
    ]

    def plain() -> Any:
        """A convolution of input and of state for each gate, in each step."""
        of_input, of_state, biases = gates
        hidden = cell = sequence.new_zeros(batch, channels, 7, 7)
        for step in range(steps):
            entering, kept, leaving, candidate = (
                torch.nn.functional.conv2d(sequence[:, step], w, b, padding=1)
                + torch.nn.functional.conv2d(hidden, u, padding=1)
                for w, u, b in zip(of_input, of_state, biases, strict=True)
            )
            cell = kept.sigmoid() * cell + entering.sigmoid() * candidate.tanh()
            hidden = leaving.sigmoid() * cell.tanh()
        return cell

    torch.testing.assert_close(plain(), ours(sequence)[1], rtol=1e-3, atol=1e-4)
    times = interleaved(
        {"ours": lambda: ours(sequence)[1].mean().backward(), "plain": lambda: plain().mean().backward()}, size.repeats
    )
    stage.compare(
        "egocentric.convlstm", "ConvLSTM, forward and backward: the input of all steps at once",
        times["ours"], "eight convolutions in each step", times["plain"], None,
        f"{batch} clips, {steps} steps, {channels} channels of 7x7",
    )  # fmt: skip


def _streamed(stage: Stage, made: Made, size: Size) -> None:
    """An epoch that is read in blocks against one that is held: seconds, and what each takes of memory."""
    store, batch = made.store(size.streamed), size.batch
    whole, budget = (size.streamed + NUM_VAL) * made.maps[0].nbytes, size.limit_mb * 1e6
    small: dict[str, Any] = {"head": "map-transformer", "head_option": ("width=64", "layers=1")}
    read, held = (
        trainer_of(store, "1", batch, memory=limit / 1e9, **small)[1] for limit in (budget, 1.1 * whole)
    )  # fmt: skip
    assert read.job.resident.held is None and held.job.resident.held is not None
    times = interleaved({"read": read.run_epoch, "held": held.run_epoch}, size.repeats, warm=size.repeats > 1)
    del held
    what = f"{size.streamed} clips of {size.steps} frames, batch {batch}, one thread"
    stage.compare(
        "egocentric.streamed", f"an epoch of a small map-transformer read in blocks, {what}", times["read"],
        "the same held in memory", times["held"], None, f"{whole / 1e6:.0f} MB of maps, blocks of {size.limit_mb} MB",
    )  # fmt: skip
    if not Path("/proc/self/status").is_file():
        stage.skip("egocentric.streamed-memory", "memory of the same", "its limit", "this system has no /proc", "<= 1")
        return
    # One batch, held: what any training of this head takes.
    base = _peak(size, _epoch_mb, made.store(batch), batch, 1.1 * whole / 1e9, small)
    blocks, all_of_it = (_peak(size, _epoch_mb, store, batch, m / 1e9, small) for m in (budget, 1.1 * whole))
    stage.quality(
        "egocentric.streamed-memory", "memory of the same above that of a training on one batch, share of its limit",
        (blocks - base) / size.limit_mb, f"--memory of {size.limit_mb} MB", "<= 1",
        f"{blocks - base:.0f} MB; held {all_of_it - base:.0f} MB; a training on one batch {base:.0f} MB",
    )  # fmt: skip


def _epoch_mb(store: Path, batch: int, memory_gb: float, values: Mapping[str, Any]) -> float:
    """The most memory that this process has of its own in two epochs, in MB, as often as it is looked at.

    Pages of files that are mapped are not its own: the system takes them back when it needs them.
    """
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(POLL_SECONDS):
            peak = max(peak, status_mb("RssAnon"))

    with cpu_threads(1):
        _, trainer = trainer_of(store, "1", batch, memory=memory_gb, **values)
        watching = threading.Thread(target=watch)
        watching.start()
        trainer.run_epoch()
        trainer.run_epoch()
    done.set()
    watching.join()
    return peak


def _step_memory(stage: Stage, size: Size) -> None:
    """What one training step takes; of as many clips as there is memory for, else by a line through two numbers."""
    head, number, few, more, asked = size.stepped
    what = f"GB of memory of a training step of {head}, stage {number}, {asked} clips of {size.steps} frames"
    if not Path("/proc/self/status").is_file():
        stage.skip("egocentric.step-memory", what, "", "this system has no /proc")
        return
    first, second = (_peak(size, _step_mb, head, number, clips, size.steps) for clips in (few, more))
    expected = second + (second - first) / (more - few) * (asked - more)
    free = (free_memory_bytes() or 0) / 1e6
    if free > SPARE * expected:
        found = _peak(size, _step_mb, head, number, asked, size.steps)
        note = f"the line through both says {expected / 1e3:.3g}"
    else:
        found, note = expected, f"projected, not measured: {free / 1e3:.3g} GB were free"
    note = f"{few} clips {first / 1e3:.3g}, {more} clips {second / 1e3:.3g}; {note}"
    stage.quality("egocentric.step-memory", what, found / 1e3, "`layer3`, float32, its optimiser", None, note)


def _step_mb(head_name: str, number: str, clips: int, steps: int) -> float:
    """The peak of two steps on made-up maps, in MB; the second has the state of the optimiser."""
    import torch

    from reelbank.heads.models import HeadShape, build_head
    from reelbank.heads.models.plans import ArrayShape
    from reelbank.heads.training.groups import set_training, trained_groups
    from reelbank.heads.training.optimization import make_grouped_optimizer

    config = _config(Path("a.zarr"), number, clips, head=head_name, head_option=())
    plan, trained = config.head.plan, config.head.trained_stage
    assert plan is not None
    name = plan.inputs[0].name
    array = ArrayShape(backbone="resnet34", tap="layer3", shape=(256, 14, 14), dtype="float16", num_steps=steps)
    shape = HeadShape(taps={}, outputs={"label": NUM_CLASSES}, num_steps=steps, arrays={name: array})
    before = status_mb("VmHWM")
    head = build_head(head_name, shape)
    groups = trained_groups(head, trained, config.optimizer)
    set_training(head, trained)
    optimizer = make_grouped_optimizer(groups, config.optimizer)
    mask = torch.ones(clips, steps, dtype=torch.bool)
    for _ in range(2):
        logits = head({name: torch.rand(clips, steps, *array.shape)}, {name: mask})["label"]
        loss: Any = torch.nn.functional.cross_entropy(logits, torch.arange(clips) % NUM_CLASSES)
        loss.backward()
        optimizer.step()
    return status_mb("VmHWM") - before


def _peak(size: Size, function: Callable[..., float], *arguments: Any) -> float:
    """What `function` measures, in a process that has done nothing before."""
    if not size.alone:
        return function(*arguments)
    with ProcessPoolExecutor(1, mp_context=worker_context()) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    main("egocentric", measure, __doc__)
