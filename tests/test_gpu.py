"""What only a GPU can show: its features beside the CPU's, its bits, its memory, its trainings.

Skipped where there is none, unless REELBANK_REQUIRE_CUDA=1. REELBANK_GPU names another device: `mps`, `cuda:1`, or
`cpu`, where every test that needs no GPU of its own runs too, so that none rots.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import damage, render
from pipeline import assert_same_store, copy_set, run, store_of, write_lines
from planted import config, planted_store

import reelbank.store
from reelbank.extract import FeaturizeConfig, backbones
from reelbank.extract.backbones import Tuning
from reelbank.extract.run import todo
from reelbank.heads import TrainingError, train_head
from reelbank.heads.judging import intervals
from reelbank.heads.runs.directory import read_json
from reelbank.heads.sweeps.stacked import TOLERANCE, train_stacked
from reelbank.heads.training.trainer import Trainer
from reelbank.store import verify
from reelbank.store.devices import DeviceError, resolve_device
from reelbank.testing import backbones as suite

DEVICE = os.environ.get("REELBANK_GPU", "cuda:0")
REQUIRED = os.environ.get("REELBANK_REQUIRE_CUDA") == "1"
IS_CUDA = DEVICE.startswith("cuda")

NAMES = (
    *("clip", "clip:rn50", "dinov2", "dinov3", "flow:raft-small", "googlenet", "lite", "pose:keypoint-rcnn"),
    *("resnet18", "resnet34", "resnet50", "timm:test_convnext", "timm:test_vit", "tv3d:r3d_18"),
)
QUICK = ("resnet18", "timm:test_vit")
"""What runs on a CPU too."""
LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.99, "bf16": 0.95}
"""Of the features of each step and those of the CPU in fp32, on calibrated random weights."""


def _missing() -> str | None:
    try:
        resolve_device(DEVICE)
    except DeviceError as error:
        return str(error)
    return None


if (missing := _missing()) is not None and not REQUIRED:
    pytest.skip(missing, allow_module_level=True)

needs_cuda = pytest.mark.skipif(not IS_CUDA, reason="of CUDA only")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_device_is_here() -> None:
    assert missing is None, missing


def _build(name: str, *, device: str = DEVICE, precision: str = "fp32", tuning: Tuning | None = None) -> Any:
    return backbones.build(name, weights="random", device=device, precision=precision, tuning=tuning)


def _of_this_device(names: tuple[str, ...]) -> tuple[str, ...]:
    return names if IS_CUDA else QUICK


def _refused(error: DeviceError) -> None:
    """A card of before 8.0 has no bf16."""
    if "--precision bf16" not in str(error):
        raise error
    pytest.skip(str(error))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", _of_this_device(NAMES))
def test_features_are_those_of_the_cpu(name: str, precision: str) -> None:
    on_cpu = _build(name, device="cpu")
    frames = suite.steps(on_cpu.info, 4)
    taps = on_cpu.default_taps
    expected = on_cpu.forward(frames, taps)
    try:
        backbone = _build(name, precision=precision, tuning=Tuning())
    except DeviceError as error:
        _refused(error)
    for tap, feature in backbone.forward(frames, taps).items():
        ours, theirs = (values.reshape(len(frames), -1).astype(np.float64) for values in (feature, expected[tap]))
        if on_cpu.taps[tap].dtype == "bool":
            continue
        length = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosine = (ours * theirs).sum(axis=1) / np.where(length > 0, length, 1)
        same = (ours == theirs).all(axis=1)
        assert (same | (cosine >= LEAST_COSINE[precision])).all(), f"{tap}: {cosine}"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", _of_this_device(NAMES))
def test_bits_of_a_step_depend_on_no_neighbour_and_no_place(name: str, precision: str) -> None:
    backbone = _build(name, precision=precision, tuning=Tuning())
    frames = suite.steps(backbone.info, 8)
    before = backbone.forward(frames)
    again = backbone.forward(frames)
    turned = backbone.forward(np.ascontiguousarray(frames[::-1]))
    alone = np.zeros_like(frames)
    alone[5] = frames[2]
    moved = backbone.forward(alone)
    for tap, feature in before.items():
        np.testing.assert_array_equal(feature, again[tap], err_msg=f"{tap}: twice")
        np.testing.assert_array_equal(feature, turned[tap][::-1], err_msg=f"{tap}: turned round")
        np.testing.assert_array_equal(feature[2], moved[tap][5], err_msg=f"{tap}: beside nothing")


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(graphs=True), Tuning(cast_weights=False, graphs=True)])
@pytest.mark.parametrize("name", [name for name in _of_this_device(NAMES) if not name.startswith(("flow:", "pose:"))])
def test_tuning_changes_no_bit(name: str, tuning: Tuning) -> None:
    """Weights cast once, and passes replayed from a graph, over two batches and in between another one's shape."""
    plain = _build(name, precision="fp16", tuning=Tuning(cast_weights=False))
    tuned = _build(name, precision="fp16", tuning=tuning)
    frames = suite.steps(plain.info, 6)
    for batch in (frames[:4], frames[2:], frames[:2], frames[2:]):
        expected, waiting = plain.forward(batch), tuned.launch(batch)
        tuned.launch(batch[::-1].copy())  # under way at once
        for tap, feature in waiting().items():
            np.testing.assert_array_equal(feature, expected[tap], err_msg=tap)


def _set(source: Path, folder: Path, clips: int) -> dict[str, Any]:
    copy_set(source, folder, slice(0, clips))
    return {"model": ("resnet18", "flow:dis"), "weights": "random", "device": DEVICE, "sampling": ("uniform:8",)}


def test_killed_run_goes_on_to_the_same_bits(synth_set: Path, tmp_path: Path) -> None:
    """On the device and, for flow, in the workers at once; killed as soon as one unit is committed."""
    options = _set(synth_set, folder := tmp_path / "set", 24) | {"batch": 16}
    (folder / "whole").mkdir()
    run(folder, **options, out=str(folder / "whole/{model}.zarr"))
    code = f"""
from pathlib import Path
from pipeline import run
from reelbank.store import layout
if __name__ == "__main__":
    layout.MAX_UNIT_CLIPS = 5
    run(Path({str(folder)!r}), **{options!r})
"""
    script = tmp_path / "killed.py"
    script.write_text(code)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": paths})
    commits = store_of(folder, "resnet18") / "commits"
    while started.poll() is None and not any(commits.glob("0*.json")):
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    run(folder, **options)
    for model in options["model"]:
        assert_same_store(store_of(folder, model), store_of(folder / "whole", model))
        assert verify(store_of(folder, model)).problems == ()


def test_damaged_clips_fail_alone(tmp_path: Path) -> None:
    damage(render(tmp_path, "h264-no-b"), tmp_path / "damaged.mp4", num_damaged=5)
    status = [1 if i % 3 == 1 else 2 for i in range(60)]
    for i, end in enumerate(status):
        (tmp_path / f"{i}.mp4").hardlink_to(tmp_path / ("h264-no-b.mp4" if end == 1 else "damaged.mp4"))
    write_lines(tmp_path, "clip_id,video,split", [f"{i},{i}.mp4,train" for i in range(60)])
    options = {"model": ("resnet18",), "weights": "random", "device": DEVICE, "sampling": ("uniform:16",)}
    report = run(tmp_path, **options)
    assert reelbank.store.open(report.stores[0].store).clips.status.tolist() == status
    assert verify(report.stores[0].store).problems == ()


def test_what_the_bits_depend_on_is_kept(synth_set: Path, tmp_path: Path) -> None:
    options = _set(synth_set, tmp_path / "set", 2)
    run(tmp_path / "set", **options)
    record = store_of(tmp_path / "set", "resnet18") / "commits/00000000.json"
    (facts,) = json.loads(record.read_text())["runs"]
    assert facts["device"] == DEVICE
    assert facts["batch"] >= 16
    assert not IS_CUDA or {"gpu", "capability", "cuda", "cudnn"} <= set(facts)


@needs_cuda
def test_full_memory_halves_the_batch_and_says_so(synth_set: Path, tmp_path: Path) -> None:
    options = _set(synth_set, tmp_path / "set", 8) | {"model": ("resnet50",), "sampling": ("all",)}
    run(tmp_path / "set", **options, out=str(tmp_path / "set/sound.zarr"), batch=64)
    share = 1.5 * 2**30 / torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share, torch.device(DEVICE).index or 0)
    try:
        report = run(tmp_path / "set", **options, batch=1024)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, torch.device(DEVICE).index or 0)
    assert not report.has_failures
    assert any("out of memory, batch halved to" in note for note in report.notes)
    found, sound = (
        reelbank.store.open(path) for path in (store_of(tmp_path / "set", "resnet50"), tmp_path / "set/sound.zarr")
    )
    for row in range(8):
        ours, theirs = (store.read("pool", row)[0].astype(np.float64) for store in (found, sound))
        np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.02)


@needs_cuda
def test_gpu_decoder_gives_the_same_frames_in_near_pixels(tmp_path: Path) -> None:
    pytest.importorskip("torchcodec")
    for name in ("h264", "h264-mkv-vfr", "h264-rotated-90", "hevc"):
        render(tmp_path, name)
    files = sorted(path for path in tmp_path.iterdir())
    write_lines(tmp_path, "clip_id,video,split", [f"{path.stem},{path.name},train" for path in files])
    options: dict[str, Any] = {"model": ("frames:112",), "sampling": ("uniform:8",), "device": DEVICE}
    run(tmp_path, **options, out=str(tmp_path / "cpu.zarr"))
    report = run(tmp_path, **options, decode="cuda", out=str(tmp_path / "gpu.zarr"))
    assert not report.has_failures, report.text()
    ours, theirs = (reelbank.store.open(tmp_path / name) for name in ("cpu.zarr", "gpu.zarr"))
    for row in range(len(files)):
        difference = np.abs(ours.read("rgb", row).astype(int) - theirs.read("rgb", row))
        assert difference.mean() < 4, f"{files[row].name}: {difference.mean()} levels"


@needs_cuda
def test_batch_follows_the_memory(tmp_path: Path) -> None:
    settings = FeaturizeConfig(model=("dinov2",), weights="random", device=DEVICE, out=str(tmp_path / "x.zarr"))
    batch = todo.make_job(settings, "dinov2", tmp_path).batch
    assert 64 <= batch <= 256


@pytest.mark.parametrize("head", ["mlp", "attentive", "conv-aggregation"])
def test_stacked_members_are_those_trained_alone(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "mps":
        pytest.skip("heads are trained on the CPU beside it")
    monkeypatch.setattr(intervals, "RESAMPLES", 4)
    store = planted_store(tmp_path / "s.zarr", num=48)
    options = {"head": head, "bins": 11, "batch": 8, "epochs": 4, "early_stop_epochs": 0, "device": DEVICE}
    points = [{"lr": lr, "seed": seed} for lr in (0.003, 0.001) for seed in (0, 1)]
    configs = [config(store=(store,), run=tmp_path / f"m{i}", **options, **point) for i, point in enumerate(points)]
    told: list[Any] = []
    train_stacked(configs, tmp_path, 1, lambda position, error: told.append((position, error)), print)
    assert told == [(position, None) for position in range(4)]
    for i, point in enumerate(points):
        train_head(config(store=(store,), run=tmp_path / f"alone{i}", **options, **point))
        ours, theirs = (
            [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
            for name in (f"m{i}", f"alone{i}")
        )
        for one, other in zip(ours, theirs, strict=True):
            assert one["val_loss"] == pytest.approx(other["val_loss"], rel=10 * TOLERANCE)


@needs_cuda
def test_training_that_does_not_fit_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Trainer) -> Any:
        torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)

    monkeypatch.setattr(Trainer, "run_epoch", full)
    store = planted_store(tmp_path / "s.zarr", num=48)
    with pytest.raises(TrainingError, match=r"memory.*--batch"):
        train_head(config(store=(store,), run=tmp_path / "m", device=DEVICE, epochs=1))
    assert not (tmp_path / "m" / "results.json").exists()
    assert read_json(tmp_path / "m" / "config.json")
