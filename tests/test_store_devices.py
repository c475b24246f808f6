"""One rule for `--device`, here with a torch that says which GPUs there are."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from pipeline import copy_set, run, store_of

from reelbank.extract import FeaturizeConfig, backbones, doctor
from reelbank.extract.backbones.network import exact_arithmetic
from reelbank.heads import ProbeConfig, TrainConfig, predict, train_head
from reelbank.store import devices
from reelbank.store.devices import DeviceError, check_precision, device_facts, resolve_device, unseen_gpu


@pytest.mark.parametrize(
    ("name", "count", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_device_that_is_here_is_taken(name: str, count: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, count)
    assert resolve_device(name) == device


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:2", 2)])
def test_a_gpu_that_is_not_here_is_refused(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, count)
    with pytest.raises(DeviceError, match=rf"--device {name}: torch .* sees {count} GPUs; pass --device cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:", "cuda:x", "CPU", "", "mps:0"])
def test_a_name_that_is_none_is_refused_by_every_stage(name: str) -> None:
    for ask in (
        lambda: resolve_device(name),
        lambda: FeaturizeConfig(model=("flow",), device=name),
        lambda: TrainConfig.of(store=("s",), device=name),
    ):
        with pytest.raises(DeviceError, match=f"--device {name!r} is not one of auto, cpu, cuda, cuda:N, mps$"):
            ask()


def test_a_torch_built_for_cpus_is_not_loaded_to_say_that_there_is_no_gpu() -> None:
    code = (
        "import sys; from reelbank.store.devices import check_precision, device_facts, resolve_device\n"
        "found = resolve_device('auto'); check_precision('cpu', 'bf16'); device_facts('cpu'), resolve_device('cpu')\n"
        "loaded = 'torch' in sys.modules\n"
        "import torch; print(loaded, found == resolve_device('auto'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    is_for_cpus = importlib.metadata.version("torch").endswith("+cpu")
    assert done.stdout.split() == [str(not is_for_cpus), "True"]


def test_an_apple_gpu_is_taken_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps") == "mps"
    assert resolve_device("auto") == "cpu"
    with pytest.raises(DeviceError, match=r"--device cuda: torch .* sees 0 GPUs"):
        resolve_device("cuda")


def test_an_apple_gpu_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"^--device mps: torch .* sees no GPU of Apple; pass --device cpu$"):
        backbones.build("resnet18", weights="random", device="mps")


def test_bf16_on_metal_needs_macos_14(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: (major, minor) <= (13, 6))
    monkeypatch.setattr(devices.platform, "mac_ver", lambda: ("13.6", ("", "", ""), "arm64"))
    with pytest.raises(DeviceError, match=r"bf16: Metal has it from macOS 14 on, this is 13.6; pass --precision fp16"):
        check_precision("mps", "bf16")
    check_precision("mps", "fp16")
    check_precision("mps", "fp32")
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: True)
    check_precision("mps", "bf16")


def test_heads_and_probes_refuse_a_device_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is there: not torch's error in the middle of a training."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    sentence = "--device mps: heads and probes compute in float64, which Metal does not have; pass --device cpu"
    for ask in (
        lambda: TrainConfig.of(store=("s",), device="mps"),
        lambda: ProbeConfig(store=Path("s"), kmeans=4, device="mps"),
        lambda: predict("run", "s", device="mps"),
    ):
        with pytest.raises(DeviceError, match=sentence):
            ask()


def _card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    """One GPU of a compute capability, as torch tells it."""
    _gpus(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "device", lambda name: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=None: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda name=None: capability)
    # As torch answers: with emulation, which is its default, every card does bf16.
    supported = lambda including_emulation=True: including_emulation or capability >= (8, 0)  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)


def test_bf16_is_refused_by_a_card_that_would_emulate_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _card(monkeypatch, (7, 5))
    with pytest.raises(
        DeviceError, match=r"--precision bf16: Tesla T4 \(compute capability 7.5\) cannot, .* --precision fp16"
    ):
        backbones.build("resnet18", weights="random", device="cuda", precision="bf16")
    check_precision("cuda:0", "fp16")
    check_precision("cpu", "bf16")
    _card(monkeypatch, (8, 0))
    check_precision("cuda:0", "bf16")


def test_what_the_bits_of_a_gpu_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_facts("cpu") == {}
    _card(monkeypatch, (7, 5))
    facts = device_facts("cuda:0")
    assert facts["gpu"] == "Tesla T4"
    assert facts["capability"] == "7.5"
    assert set(facts) == {"gpu", "capability", "cuda", "cudnn"}
    monkeypatch.setattr(devices.platform, "mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))
    assert device_facts("mps") == {"gpu": "Apple Metal (mps)", "macos": "15.5"}


@pytest.mark.filterwarnings("ignore:Please use the new API settings to control TF32")  # torch 2.9 with CUDA
def test_the_arithmetic_of_a_gpu_is_that_of_cudnn_without_tf32() -> None:
    """`cudnn.flags` has `enabled=False` as its default: every forward pass of a GPU went without it."""
    matmul, before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        with exact_arithmetic():
            assert torch.backends.cudnn.enabled
            assert torch.backends.cudnn.deterministic
            assert not torch.backends.cudnn.benchmark
            assert not torch.backends.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32 == before
    finally:
        torch.set_float32_matmul_precision(matmul)


@pytest.mark.parametrize(
    ("has_file", "has_tool", "cuda", "hidden", "cause"),
    [
        (False, False, None, None, None),
        (True, False, None, None, r"build without CUDA; install"),
        (False, True, None, None, r"build without CUDA"),
        (True, True, "12.8", "", r"CUDA_VISIBLE_DEVICES='' hides it"),
        (True, True, "12.8", "-1", r"CUDA_VISIBLE_DEVICES='-1' hides it"),
        (True, True, "12.8", "0", r"driver may be older than CUDA 12.8"),
        (True, True, "12.8", "GPU-8932f937", r"driver may be older than CUDA 12.8"),
        (True, False, "12.8", None, r"driver may be older than CUDA 12.8"),
        (False, True, "12.8", None, r"docker run --gpus all"),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_said_with_its_cause(
    has_file: bool, has_tool: bool, cuda: str | None, hidden: str | None, cause: str | None,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file = tmp_path / "nvidia0"
    file.touch() if has_file else None
    monkeypatch.setattr(devices, "NVIDIA", file)
    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if has_tool else None)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    _gpus(monkeypatch, 0)
    said = unseen_gpu()
    if cause is None:
        assert said is None
        assert doctor._devices() == ["cpu only; torch sees no GPU"]
        return
    assert said is not None
    assert re.search(cause, said)
    assert doctor._devices() == [said]
    with pytest.raises(DeviceError, match=r"sees 0 GPUs \(there is a GPU here that torch does not see"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"
    _gpus(monkeypatch, 1)
    assert unseen_gpu() is None


def test_every_stage_says_that_a_gpu_is_not_seen(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(devices, "NVIDIA", tmp_path / "nvidia0")
    folder = copy_set(synth_set, tmp_path / "set")
    report = run(folder, workers=1)
    assert any("there is a GPU here that torch does not see" in note for note in report.notes)
    config = TrainConfig.of(store=(store_of(folder),), head="linear", epochs=1, report=False, run=tmp_path / "run")
    trained = train_head(config)
    assert any("There is a GPU here that torch does not see" in note for note in trained.results["notes"])


def _gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_free_bytes_count_what_torch_keeps_for_reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def told(value: object) -> Callable[[str], object]:
        return lambda device: asked.append(device) or value  # type: ignore[func-returns-value]

    monkeypatch.setattr(torch.cuda, "mem_get_info", told((1000, 8000)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", told(500))
    monkeypatch.setattr(torch.cuda, "memory_allocated", told(300))
    assert devices.free_bytes("cuda:1") == 1200
    assert asked == ["cuda:1"] * 3
    monkeypatch.setattr(devices, "memory_bytes", lambda: 77)
    assert devices.free_bytes("cpu") == 77


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("no text that is known"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("a shape"), False),
    ],
)
def test_errors_of_a_full_memory_are_known(error: Exception, full: bool) -> None:
    assert devices.is_out_of_memory(error) == full


def test_memory_is_given_back_to_the_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    devices.release_memory("cpu")
    assert not emptied
    devices.release_memory("cuda:0")
    assert emptied == [1]
