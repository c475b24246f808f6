"""The device of a run: which is asked for, whether it is here, what fits into it. torch is loaded on use."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reelbank.store.cores import memory_bytes

NVIDIA = Path("/dev/nvidia0")
"""A device file of the driver of NVIDIA; WSL2 has none, but `nvidia-smi`."""
OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed", "cufft_alloc_failed", "unable to find an engine",
)  # fmt: skip
"""What PyTorch and the libraries below it say when a batch does not fit, in lower case. cuDNN finds no engine (or
algorithm) to execute a convolution where none fits into what is left."""


class DeviceError(ValueError):
    """A device that has no such name, or that this machine does not have."""


def check_device_name(name: str) -> None:
    """Raises DeviceError unless `name` is `auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", name):
        raise DeviceError(f"--device {name!r} is not one of auto, cpu, cuda, cuda:N, mps")


def check_has_float64(name: str) -> None:
    """What heads and probes ask of a device. Raises DeviceError as `check_device_name`, and for `mps`."""
    check_device_name(name)
    if name == "mps":
        raise DeviceError(
            "--device mps: heads and probes compute in float64, which Metal does not have; pass --device cpu "
            "(features that mps made are read as any others)"
        )


def resolve_device(name: str) -> str:
    """The effective device, `cpu`, `cuda:N` or `mps`: `auto` is the first GPU of CUDA, else the CPU.

    `auto` is never `mps`: the features of a Mac would be others than those that its store has, and its heads need the
    CPU. Raises DeviceError for a name that is none, or a GPU that is not there.
    """
    check_device_name(name)
    if name == "cpu" or (name == "auto" and _is_built_for_cpu()):
        return "cpu"
    import torch

    if name == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"--device mps: torch {torch.__version__} sees no GPU of Apple; pass --device cpu")
    if name == "mps":
        return name
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda:0" if count else "cpu"
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        cause = f" ({unseen})" if (unseen := unseen_gpu()) else ""
        raise DeviceError(f"--device {name}: torch {torch.__version__} sees {count} GPUs{cause}; pass --device cpu")
    return f"cuda:{index}"


def _is_built_for_cpu() -> bool:
    """Whether torch need not be loaded to say that it sees no GPU: that takes more than a second."""
    if "torch" in sys.modules:
        return False
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False


def check_precision(device: str, precision: str) -> None:
    """Raises DeviceError if a GPU has no arithmetic of this kind: what emulates it is slower than fp32."""
    if precision != "bf16" or device == "cpu":
        return
    import torch

    if device == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise DeviceError(
            f"--precision bf16: Metal has it from macOS 14 on, this is {platform.mac_ver()[0]}; pass --precision fp16"
        )
    if not device.startswith("cuda"):
        return
    with torch.cuda.device(device):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise DeviceError(
                f"--precision bf16: {torch.cuda.get_device_name(device)} "
                f"(compute capability {capability(device)}) cannot, 8.0 is the least; pass --precision fp16"
            )


def capability(device: str) -> str:
    """Compute capability of a GPU, as `7.5`."""
    import torch

    return ".".join(map(str, torch.cuda.get_device_capability(device)))


def device_facts(device: str) -> dict[str, str]:
    """What the bits of a GPU depend on beside torch's version: model, capability, CUDA and cuDNN, or macOS.

    Nothing for a CPU.
    """
    if device == "mps":
        return {"gpu": "Apple Metal (mps)", "macos": platform.mac_ver()[0]}
    if not device.startswith("cuda"):
        return {}
    import torch

    return {
        "gpu": torch.cuda.get_device_name(device),
        "capability": capability(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }


def unseen_gpu() -> str | None:
    """A sentence if this machine has a GPU that torch does not see, with the likely cause; else None."""
    if not NVIDIA.exists() and shutil.which("nvidia-smi") is None:
        return None
    import torch

    if torch.cuda.is_available():
        return None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        cause = f"this torch ({torch.__version__}) is a build without CUDA; install the one that pytorch.org names"
    elif hidden is not None and (hidden.strip() in ("", "-1") or not hidden.strip()[0].isalnum()):
        cause = f"CUDA_VISIBLE_DEVICES={hidden!r} hides it"
    elif not NVIDIA.exists():
        cause = "the driver gives no device; a container needs `docker run --gpus all`"
    else:
        cause = f"its driver may be older than CUDA {torch.version.cuda}, which this torch needs; see nvidia-smi"
    return f"there is a GPU here that torch does not see: {cause}"


def free_bytes(device: str) -> int | None:
    """Bytes of a GPU that a process may still take, of a CPU all its memory (`memory_bytes`); None where none tells.

    What torch keeps of freed tensors counts as free: it gives them out again.
    """
    if not device.startswith("cuda"):
        return memory_bytes()
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, of the host or of a GPU, did not suffice."""
    import torch

    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(said in text for said in OUT_OF_MEMORY)


def release_memory(device: str) -> None:
    """Gives back what nothing refers to any more, for another attempt after memory ran out."""
    import torch

    gc.collect()  # an exception's frames may hold tensors in a circle
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """`count` torch threads inside, the caller's number after."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
