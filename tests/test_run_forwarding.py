"""Models in the parent process, fed through shared memory, give the same store as models in each worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import damage, render
from numpy.typing import NDArray
from pipeline import assert_same_store, copy_set, read_lines, run, store_of, write_lines

import reelbank.store
from reelbank.extract import FeaturizeConfig, backbones
from reelbank.extract.errors import ExtractionError
from reelbank.extract.run import featurize as featurizing
from reelbank.extract.run import forwarding, todo
from reelbank.extract.run import ring as rings
from reelbank.extract.run.assembly import Batch, ClipSink, Model
from reelbank.extract.run.messages import Note
from reelbank.extract.run.ring import MAX_SLOTS, MIN_SLOTS, Ring, make_ring, num_slots
from reelbank.extract.run.steps import StepPlan
from reelbank.store import verify

MODELS = ("flow:dis", "googlenet", "frames")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a worker: the bits of a CPU forward pass may depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_parent_and_workers_give_the_same_bits(synth_set: Path, tmp_path: Path) -> None:
    in_worker = copy_set(synth_set, tmp_path / "worker", slice(0, 4))
    in_parent = copy_set(synth_set, tmp_path / "parent", slice(0, 4))
    sampling = ("uniform:3", "frames=consecutive:70")
    options = {"model": MODELS, "weights": "random", "sampling": sampling, "batch": 4}  # clips cross batches
    run(in_worker, **options)
    report = run(in_parent, forward="parent", **options)
    assert report.tally.opens == 4
    assert report.num_forwarding == 1
    for model in MODELS:
        assert_same_store(store_of(in_worker, model), store_of(in_parent, model))
        assert verify(store_of(in_parent, model)).problems == ()


@pytest.mark.parametrize("remote", ["frames:112", "flow:dis"])
def test_models_beside_each_other_in_the_parent_and_in_workers(
    remote: str, synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dinov2` on a GPU beside `flow` on the CPU: a model in the parent, the others in each worker."""
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 7))
    (folder / read_lines(folder)[1][2].split(",")[1]).write_text("no video")
    models = ("flow:dis", "frames:112")
    run(folder, model=models, batch=3)
    monkeypatch.setattr(featurizing, "_runs_in_parent", lambda job, config: job.model == remote)
    (folder / "mixed").mkdir()
    report = run(folder, model=models, batch=3, out=str(folder / "mixed/{model}.zarr"))
    assert report.num_forwarding == 3
    for model in models:
        assert_same_store(store_of(folder, model), mixed := store_of(folder / "mixed", model))
        assert reelbank.store.open(mixed).clips.status.tolist() == [1, 1, 2, 1, 1, 1, 1]
        assert verify(mixed).problems == ()


@pytest.mark.parametrize(
    ("forward", "device", "is_remote"),
    [
        ("auto", "cpu", False), ("auto", "cuda:0", True), ("auto", "cuda:1", True), ("parent", "cpu", True),
        ("worker", "cuda:0", False), ("worker", "cpu", False),
    ],
)  # fmt: skip
def test_each_model_is_placed_by_its_own_device(forward: str, device: str, is_remote: bool, tmp_path: Path) -> None:
    config = FeaturizeConfig(model=("frames:112",), out=str(tmp_path / "x.zarr"), forward=forward)
    job = replace(todo.make_job(config, "frames:112", tmp_path), device=device)
    assert featurizing._runs_in_parent(job, config) is is_remote


@pytest.mark.parametrize(("cores", "has_remote", "workers"), [(1, True, 1), (2, True, 2), (8, True, 7), (8, False, 8)])
def test_workers_leave_a_core_to_a_parent_that_feeds_a_gpu(
    cores: int, has_remote: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(featurizing, "available_cores", lambda: cores)
    assert featurizing.default_workers(has_remote, None) == workers


def test_failures_and_more_steps_than_slots(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "all", slice(0, 4))
    header, rows = read_lines(folder)
    (folder / "videos" / "bad.mp4").write_text("no video")
    columns = header.split(",")
    cells = dict.fromkeys(columns, "") | {"clip_id": "bad", "video": "videos/bad.mp4", "split": "train"}
    write_lines(folder, header, [rows[0], ",".join(cells.values()), *rows[1:]])
    report = run(folder, model=("frames:112",), forward="parent", sampling=("all",), workers=1)
    store = reelbank.store.open(path := store_of(folder, "frames:112"))
    assert store.clips.status.tolist() == [1, 2, 1, 1, 1]
    assert store.num_steps.sum() > MAX_SLOTS
    assert list(report.stores[0].failures) == ["bad"]
    assert verify(path).problems == ()


@pytest.fixture(scope="module")
def damaged_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """240 clips, two of three damaged where only decoding tells; and the status that each must get."""
    folder = tmp_path_factory.mktemp("damaged")
    damage(render(folder, "h264-no-b"), folder / "damaged.mp4", num_damaged=5)  # one of every 4 is read
    status = [1 if i % 3 == 1 else 2 for i in range(240)]
    for i, end in enumerate(status):
        (folder / f"{i}.mp4").hardlink_to(folder / ("h264-no-b.mp4" if end == 1 else "damaged.mp4"))
    write_lines(folder, "clip_id,video,split", [f"{i},{i}.mp4,train" for i in range(240)])
    return folder, status


@pytest.mark.parametrize("forward", ["worker", "parent"])
def test_a_set_of_damaged_clips_ends_no_run(damaged_set: tuple[Path, list[int]], forward: str) -> None:
    folder, status = damaged_set
    (folder / forward).mkdir()
    report = run(
        folder, model=("frames:112",), forward=forward, out=str(folder / forward / "{model}.zarr"),
        sampling=("uniform:16",), batch=5,
    )  # fmt: skip
    store = reelbank.store.open(path := report.stores[0].store)
    assert store.clips.status.tolist() == status
    assert set(store.clips.failures()) == {str(store.clips.reason[0])}
    assert "damaged at " in store.clips.reason[0]
    assert len(report.stores[0].failures) == 160
    assert verify(path).problems == ()
    assert [entry.name for entry in (path / "staging").iterdir()] == ["zarr.json"]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[NDArray[np.uint8]], None]:
    """Makes `frames` refuse every batch that holds this frame. For models in this process."""

    def refuse(guilty: NDArray[np.uint8]) -> None:
        backbone = type(backbones.build("frames:112", weights="random"))
        forward = backbone.forward

        def refusing(self: Any, frames: NDArray[np.uint8], taps: Any = None) -> Any:
            if (frames == guilty).reshape(len(frames), -1).all(axis=1).any():
                raise ValueError("a value is NaN under fp16")
            return forward(self, frames, taps)

        monkeypatch.setattr(backbone, "forward", refusing)

    return refuse


def test_only_the_clip_that_the_model_refuses_fails(refuse: Callable[..., None], tmp_path: Path) -> None:
    config = FeaturizeConfig(model=("frames:112",), out=str(tmp_path / "x.zarr"), batch=6)
    model = Model(todo.make_job(config, "frames:112", tmp_path), lambda text: None)
    plan = StepPlan(frame_index=np.arange(2), reads=np.arange(2)[:, None], item_of=np.arange(2))
    sinks = [ClipSink(model.job.store, row, model.job.spec.taps, plan) for row in range(3)]
    batch = Batch(np.zeros((6, *model.backbone.info.frames_shape), np.uint8))
    for value, row in ((10, 0), (11, 1), (20, 0), (77, 2), (12, 1), (30, 2)):  # clips of two workers meet
        batch.add(sinks[row], [np.full(batch.pixels.shape[1:], value, np.uint8)])
    expected = model.forward(batch.pixels)
    refuse(np.full(batch.pixels.shape[1:], 77, np.uint8))

    batch.hand_out(features := batch.forward(model))
    for name, values in features.items():
        np.testing.assert_array_equal(values[[0, 1, 2, 4]], expected[name][[0, 1, 2, 4]])
    assert [sink.is_complete for sink in sinks] == [True] * 3
    for sink in sinks[:2]:
        outcome = sink.finish({}, {}, np.arange(2.0), None, None)
        assert outcome is not None
        assert outcome.status == 1
    with pytest.raises(ValueError, match="a value is NaN under fp16"):
        sinks[2].finish({}, {}, np.arange(2.0), None, None)


def test_one_refused_clip_of_a_run_in_the_parent(refuse: Callable[..., None], synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 5))
    run(folder, model=("frames:112",))
    before = reelbank.store.open(store_of(folder, "frames:112"))
    refuse(before.read("rgb", 3)[0, 1].copy())
    run(folder, model=("frames:112",), forward="parent", out=str(folder / "again.zarr"))
    store = reelbank.store.open(folder / "again.zarr")
    assert store.clips.status.tolist() == [1, 1, 1, 2, 1]
    assert store.clips.reason[3] == "a value is NaN under fp16"
    for row in (0, 1, 2, 4):
        np.testing.assert_array_equal(store.read("rgb", row), before.read("rgb", row))
    assert verify(folder / "again.zarr").problems == ()


def _in_flight(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Lets `count` batches be under way, as on a GPU; the numbers of batches that were, after every launch.

    The first launch waits until `count` batches are submitted: workers may decode slower than a batch is done.
    """
    under_way: list[int] = [0]
    monkeypatch.setattr(forwarding, "_in_flight", lambda job: count)
    launch, forward, submit = Batch.launch, Batch.forward, forwarding.Forwarder._submit
    submitted = threading.Semaphore(0)

    def counted(forwarder: forwarding.Forwarder, lane: Any) -> None:
        submit(forwarder, lane)
        submitted.release()

    monkeypatch.setattr(forwarding.Forwarder, "_submit", counted)

    def launched(batch: Batch, model: Model) -> None:
        if len(under_way) == 1:
            for _ in range(count):
                submitted.acquire(timeout=60)
        under_way.append(under_way[-1] + 1)
        launch(batch, model)

    def fetched(batch: Batch, model: Model) -> Any:
        under_way.append(under_way[-1] - 1)
        return forward(batch, model)

    monkeypatch.setattr(Batch, "launch", launched)
    monkeypatch.setattr(Batch, "forward", fetched)
    return under_way


def test_batches_under_way_at_once_give_the_same_bits(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next batch is launched before the last is fetched; its memory is filled again only after that."""
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 4))
    options = {"model": ("resnet18", "frames:112"), "weights": "random", "batch": 3}
    run(folder, **options)
    under_way = _in_flight(monkeypatch, 3)
    (folder / "again").mkdir()
    run(folder, **options, forward="parent", out=str(folder / "again/{model}.zarr"))
    assert max(under_way) == 3
    assert under_way[-1] == 0
    for model in options["model"]:
        assert_same_store(store_of(folder, model), store_of(folder / "again", model))


LAUNCHED = {"model": ("resnet18",), "weights": "random", "batch": 4, "forward": "parent"}


@pytest.fixture(scope="module")
def undisturbed(synth_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips and the store of a run whose batches do not fail."""
    folder = copy_set(synth_set, tmp_path_factory.mktemp("undisturbed") / "set", slice(0, 3))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(folder, **LAUNCHED)
    torch.set_num_threads(threads)
    return folder


@pytest.mark.parametrize(
    ("error", "late"),
    [
        (RuntimeError("CUDA out of memory"), True), (RuntimeError("CUDA out of memory"), False), (MemoryError(), False),
        (ValueError("NaN under fp16"), True),
    ],
)  # fmt: skip
def test_batch_whose_launch_fails_is_done_again(
    error: Exception, late: bool, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the failure shows when the work is given to the device or when it is fetched."""
    launch, launches = Model.launch, []

    def failing(model: Model, frames: NDArray[np.uint8]) -> Any:
        launches.append(len(frames))
        if len(launches) % 2 == 0:
            return launch(model, frames)
        if not late:
            raise error

        def fail() -> Any:
            raise error

        return fail

    monkeypatch.setattr(Model, "launch", failing)
    _in_flight(monkeypatch, 2)
    report = run(undisturbed, **LAUNCHED, out=str(tmp_path / "again.zarr"))
    assert not report.has_failures
    assert launches == [4, 4, 4]
    assert_same_store(store_of(undisturbed, "resnet18"), tmp_path / "again.zarr")


def test_every_pass_of_a_halved_batch_has_the_same_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the last steps of a batch of 5, passed as 2, 2 and 1, would have other bits on a GPU."""
    config = FeaturizeConfig(model=("frames:112",), out=str(tmp_path / "x.zarr"), batch=5)
    model = Model(todo.make_job(config, "frames:112", tmp_path), lambda text: None)
    backbone, sizes = type(model.backbone), []
    forward = backbone.forward

    def full(self: Any, frames: NDArray[np.uint8], taps: Any = None) -> Any:
        sizes.append(len(frames))
        if len(frames) > 2:
            raise MemoryError
        return forward(self, frames, taps)

    frames = np.random.default_rng(0).integers(0, 256, (5, *model.backbone.info.frames_shape), np.uint8)
    monkeypatch.setattr(backbone, "forward", full)
    for _ in range(2):
        np.testing.assert_array_equal(model.forward(frames)["rgb"], frames)
    assert sizes == [5, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "Unable to find an engine to execute this computation",
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory",
    ],
)  # fmt: skip
def test_every_text_of_a_full_memory_halves_the_batch(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FeaturizeConfig(model=("frames:112",), out=str(tmp_path / "x.zarr"), batch=8)
    notes: list[Note] = []
    model = Model(todo.make_job(config, "frames:112", tmp_path), notes.append)
    backbone, sizes = type(model.backbone), []
    forward = backbone.forward

    def full(self: Any, frames: NDArray[np.uint8], taps: Any = None) -> Any:
        sizes.append(len(frames))
        if len(frames) > 2:
            raise RuntimeError(text)
        return forward(self, frames, taps)

    frames = np.random.default_rng(0).integers(0, 256, (8, *model.backbone.info.frames_shape), np.uint8)
    expected = model.forward(frames)["rgb"]
    monkeypatch.setattr(backbone, "forward", full)
    np.testing.assert_array_equal(model.forward(frames)["rgb"], expected)
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert [note.text for note in notes] == [f"frames:112: out of memory, batch halved to {n}" for n in (4, 2)]
    assert [note.batch for note in notes] == [4, 2]


@pytest.mark.parametrize("forward", ["worker", "parent"])
def test_a_step_that_does_not_fit_alone_is_one_sentence(
    forward: str, synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    message = "frames:112: one step alone does not fit into the memory of cpu; free it, or choose a smaller model"
    if forward == "worker":
        config = FeaturizeConfig(model=("frames:112",), out=str(tmp_path / "x.zarr"), batch=2)
        model = Model(todo.make_job(config, "frames:112", tmp_path), lambda note: None)
        monkeypatch.setattr(type(model.backbone), "forward", _full)
        with pytest.raises(ExtractionError, match=message):
            model.forward(np.zeros((2, *model.backbone.info.frames_shape), np.uint8))
        return
    monkeypatch.setattr(type(backbones.build("frames:112", weights="random")), "forward", _full)
    with pytest.raises(ExtractionError, match=message):
        run(folder, model=("frames:112",), forward="parent")


def _full(self: Any, frames: NDArray[np.uint8], taps: Any = None) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")


def test_the_commit_record_keeps_the_batch_that_a_full_memory_left(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = type(backbones.build("frames:112", weights="random"))
    forward = backbone.forward

    def full(self: Any, frames: NDArray[np.uint8], taps: Any = None) -> Any:
        if len(frames) > 3:
            raise MemoryError
        return forward(self, frames, taps)

    folder = copy_set(synth_set, tmp_path / "set", slice(0, 3))
    run(folder, model=("frames:112",), batch=8, out=str(folder / "sound.zarr"))
    monkeypatch.setattr(backbone, "forward", full)
    report = run(folder, model=("frames:112",), batch=8, forward="parent")
    assert report.notes[-1] == "frames:112: out of memory, batch halved to 2"
    records = [
        json.loads((path / "commits/00000000.json").read_text())
        for path in (folder / "sound.zarr", folder / "frames-112.zarr")
    ]
    assert [record["runs"][0].get("least_batch") for record in records] == [None, 2]
    assert [record["runs"][0]["batch"] for record in records] == [8, 8]


def test_ring_keeps_order_and_bounds() -> None:
    ring = Ring(12, slots := 8)
    other = Ring(12, slots, name=ring.name)
    try:
        for turn in range(3):
            for i in range(slots):
                assert not other.is_full
                other.write([np.full((2, 3), turn + i, np.uint8), np.full((2, 3), i, np.uint8)])
            assert other.is_full
            for i in range(slots):
                first, second = ring.peek((2, 2, 3), "uint8")
                assert (first == turn + i).all() and (second == i).all()
                del first, second
                ring.release()
    finally:
        other.close(unlink=False)
        ring.close(unlink=True)


def test_rings_are_sized_by_bytes_and_by_the_memory_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "memory_bytes", lambda: None)
    assert num_slots(224 * 224 * 3, 2) == MAX_SLOTS
    assert num_slots(1 << 20, 2) == 16
    assert num_slots(1 << 30, 2) == MIN_SLOTS
    monkeypatch.setattr(rings, "memory_bytes", lambda: 256 << 20)
    assert num_slots(1 << 20, 2) == 16
    assert num_slots(1 << 20, 4) == 8
    assert num_slots(1 << 20, 64) == MIN_SLOTS


PRIVATE = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o "size=$1" none /dev/shm && shift && exec "$@"', "sh")
"""Runs a command that sees a shared memory of a size of its own, as in a container."""


def _in_private_memory(size: str, *code: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PRIVATE, size, sys.executable, "-c", *code], capture_output=True, text=True, check=False, timeout=300
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("a private mount needs root")
    return done


def test_short_shared_memory_gives_fewer_slots_then_a_sentence() -> None:
    code = """
import sys
from reelbank.extract.run.ring import make_ring
for i in range(9):
    ring = make_ring(20_000, 9)
    print(ring.slots, flush=True)
"""
    done = _in_private_memory("2m", code)
    slots = [int(word) for word in done.stdout.split()]
    assert slots[0] == MAX_SLOTS
    assert sorted(slots, reverse=True) == slots
    assert 1 < len(set(slots)) < 9
    sentence = next(line for line in done.stderr.splitlines() if "ExtractionError: " in line)
    assert "no room in shared memory: each of 9 workers hands over steps of 20.0 kB, 4 at least" in sentence
    assert "docker run --shm-size=1g" in sentence
    assert "--forward worker" in sentence


def test_a_run_in_the_shared_memory_of_a_container(synth_set: Path, tmp_path: Path) -> None:
    """Pages that are not there when they are written kill the writer, and good clips were said to have failed."""
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 6))
    code = "import sys; from reelbank.cli import main; sys.argv[0] = 'reelbank'; main()"
    arguments = (
        "featurize", "--model", "frames:256", "--manifest", str(folder / "manifest.csv"), "--sampling", "uniform:8",
        "--forward", "parent", "--workers", "2", "--out",
    )  # fmt: skip
    done = _in_private_memory("3500k", code, *arguments, str(folder / "x.zarr"))
    assert done.returncode == 0, done.stderr
    assert reelbank.store.open(folder / "x.zarr").clips.status.tolist() == [1] * 6
    assert verify(folder / "x.zarr").problems == ()
    refused = _in_private_memory("1m", code, *arguments, str(folder / "y.zarr"))
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "Error: no room in shared memory" in refused.stderr
    assert "docker run --shm-size=1g" in " ".join(refused.stderr.split())


def test_a_ring_without_room_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(descriptor: int, offset: int, num_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = set(rings.SHARED_MEMORY.iterdir())
    with pytest.raises(ExtractionError, match="no room in shared memory"):
        make_ring(1000, 2)
    assert set(rings.SHARED_MEMORY.iterdir()) <= before
