"""Features that do not fit a GPU stay on the host, and training reads them there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import KINDS
from planted import config, planted_store

from reelbank.heads.examples import resident as resident_module
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.prepared import Prepared, prepare
from reelbank.heads.examples.resident import FEATURES_SHARE, home_of
from reelbank.heads.training.job import make_job

GPU, HOST = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("store") / "s.zarr", num=48)


@pytest.mark.parametrize(
    ("device", "free", "home"),
    [(GPU, 2000, GPU), (GPU, 1999, HOST), (HOST, 1, HOST), (GPU, None, GPU)],
)
def test_features_lie_where_there_is_room(
    device: torch.device, free: int | None, home: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_module, "free_bytes", lambda name: free if name == str(device) else 0)
    assert FEATURES_SHARE == 0.5
    where, note = home_of(1000, device)
    assert where == home
    said = (
        "The features take 1.0 kB and cuda:0 has 2.0 kB free, 50% of it for features: they stay in the memory of the "
        "host, and each batch is moved."
    )
    assert note == (said if where != device else "")


def _prepared(
    store: Path, monkeypatch: pytest.MonkeyPatch, free: int, cache: FeatureCache | None = None, **options: Any
) -> Prepared:
    """What is prepared for training on a GPU with `free` bytes."""
    monkeypatch.setattr(resident_module, "free_bytes", lambda name: free)
    config_type = type(config().run)
    monkeypatch.setattr(config_type, "device_here", property(lambda self: "cuda:0"))
    return prepare(config(store=(store,), bins=11, **options), None, cache)


@pytest.mark.parametrize(
    ("options", "num_bytes"),
    [
        ({"head": "mlp"}, 48 * 6 * 4),
        ({"head": "mlp", "pool": "mean+std"}, 48 * 12 * 4),
        ({"head": "mlp", "augment": ("noise=0.1", "dropout=0.1")}, 3 * 48 * 6 * 4),
        ({"head": "attentive"}, 48 * 4 * 6 * 2),  # as stored: float16, 4 steps
        ({"head": "attentive", "augment": ("noise=0.1",)}, 48 * 4 * 6 * 2),  # copies are made at each read
    ],
)
def test_the_place_of_features_is_decided_once_and_said(
    options: dict[str, Any], num_bytes: int, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = _prepared(store, monkeypatch, 2 * num_bytes, **options)
    assert there.home == GPU
    cache = FeatureCache()
    here = _prepared(store, monkeypatch, 2 * num_bytes - 1, cache, **options)
    assert here.home == HOST
    assert {*here.notes} - {*there.notes} == {home_of(num_bytes, GPU)[1]}
    again = _prepared(store, monkeypatch, 2 * num_bytes, cache, **options)  # there is more room now
    assert (again.home, again.notes) == (HOST, here.notes)


def test_taps_of_two_stores_lie_side_by_side_too(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (store, planted_store(tmp_path / "t.zarr", num=48, seed=3, backbone="other"))
    monkeypatch.setattr(resident_module, "free_bytes", lambda name: 10**9)
    found = prepare(config(store=asked, head="mlp", bins=11))
    assert found.features.num_bytes(needs_steps=False) == 2 * 2 * 48 * 6 * 4


@pytest.mark.parametrize(
    "options", [{"head": "attentive"}, {"head": "conv-aggregation", "segments": "segments:2:stride=1"}], ids=str
)
def test_a_batch_is_gathered_where_the_features_lie_and_given_on_the_device(
    options: dict[str, Any], store: Path
) -> None:
    made = prepare(config(store=(store,), bins=11, **options))
    job = make_job(made, made.partitions[0])
    away = replace(
        job.resident,
        mask=job.resident.mask.to("meta"),
        normalization=job.resident.normalization.to(torch.device("meta")),
    )
    index = torch.tensor([3, 0, 3])
    arrays, mask = away.batch(index)
    expected, _ = job.resident.batch(index)
    assert mask.device.type == arrays["cls"].device.type == "meta"
    assert (arrays["cls"].shape, arrays["cls"].dtype) == (expected["cls"].shape, torch.float32)
    assert (away.home, away.index_device) == (HOST, HOST)


def test_steps_read_features_where_they_lie_and_work_on_the_gpu_without_waiting(store: Path) -> None:
    script = Path(__file__).with_name("fake_gpu.py")
    done = subprocess.run([sys.executable, script, store], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 2 * len(KINDS)
