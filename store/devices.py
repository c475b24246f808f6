"""The device of a run: which is asked for, whether it is here, how many threads a CPU has. torch is loaded on use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class DeviceError(ValueError):
    """A device that has no such name, or that this machine does not have."""


def check_device_name(name: str) -> None:
    """Raises DeviceError unless `name` is `auto`, `cpu`, `cuda` or `cuda:N`."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise DeviceError(f"--device {name!r} is not one of auto, cpu, cuda, cuda:N")


def resolve_device(name: str) -> str:
    """The effective device, `cpu` or `cuda:N`: `auto` is the first GPU, else the CPU.

    Raises DeviceError for a name that is none, or a GPU that is not there.
    """
    import torch

    check_device_name(name)
    if name == "cpu":
        return name
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda:0" if count else "cpu"
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        raise DeviceError(f"--device {name}: torch {torch.__version__} sees {count} GPUs; pass --device cpu")
    return f"cuda:{index}"


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
