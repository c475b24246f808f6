"""`python fake_gpu.py STORE`: steps of every head on a GPU that is not there, its features there or on the host.

torch's fake tensors know where they lie, refuse what mixes devices, and raise where a program waits for a number. The
device is one that torch lets Python register, for the whole process: hence a script.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from planted import config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

from reelbank.heads.examples.prepared import prepare
from reelbank.heads.sweeps.stack import Stack
from reelbank.heads.training.job import Job, make_job
from reelbank.heads.training.trainer import Trainer, forward

GPU, HOST = torch.device("privateuseone", 0), torch.device("cpu")
KINDS: list[dict[str, Any]] = [
    {"head": "mlp"},
    {"head": "linear", "loss": "jsd", "class_weights": "balanced"},
    {"head": "additive"},
    {"head": "mlp", "augment": ("noise=0.1",), "trunk": "shared"},
    {"head": "attentive"},
    {"head": "attentive", "segments": "segments:2:stride=1"},
    {"head": "conv-aggregation"},
]


def main(store: Path) -> None:
    """Trains every kind on fake tensors."""
    backend_registration._setup_privateuseone_for_python_backend("gpu")
    nn.Module.to = _module_to  # type: ignore[method-assign,assignment]  # torch's own cannot swap fake parameters
    for kind in KINDS:
        prepared = prepare(config(store=(store,), bins=11, batch=8, **kind))
        real = make_job(prepared, prepared.partitions[0])
        for home in (GPU, HOST):
            with FakeTensorMode(allow_non_fake_inputs=True):
                _train(_moved(real, home))
            print(kind, home.type)


def _train(job: Job) -> None:
    trainer = Trainer(job)
    order = trainer._train
    assert order.device == job.resident.index_device
    assert job.resident.vectors().device == job.resident.home if job.resident.mask.shape[1] == 1 else True
    assert trainer._gradient(order[:8]).device == GPU
    logits = forward(trainer.head, job.resident, trainer._val)
    assert {one.device for one in logits.values()} == {GPU}
    stack = Stack([Trainer(job) for _ in range(3)], 3)
    losses = stack._step(torch.stack([order[:8]] * 3), stack._update_at([0.1, 0.2, 0.3]))
    assert (losses.device, losses.shape) == (GPU, (3,))
    assert stack._validate().device == GPU


def _moved(job: Job, home: torch.device) -> Job:
    """`job` on the GPU, its features on `home`; the numbers are left behind."""
    labels = {name: _fake(value) for name, value in vars(job.labels).items() if isinstance(value, Tensor)}
    resident = job.resident
    index = resident.step_index
    return replace(
        job,
        device=GPU,
        labels=replace(job.labels, **labels),
        resident=replace(
            resident,
            arrays={key: _fake(array, home) for key, array in resident.arrays.items()},
            mask=_fake(resident.mask),
            step_index=None if index is None else _fake(index, home),
            normalization=replace(
                resident.normalization,
                mean={key: _fake(value) for key, value in resident.normalization.mean.items()},
                scale={key: _fake(value) for key, value in resident.normalization.scale.items()},
            ),
        ),
    )


def _fake(tensor: Tensor, device: torch.device = GPU) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)


def _module_to(module: nn.Module, device: torch.device) -> nn.Module:
    for part in module.modules():
        for name, value in part._parameters.items():
            part._parameters[name] = None if value is None else nn.Parameter(_fake(value))
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else _fake(value)
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1]))
