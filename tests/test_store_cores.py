"""How much a container allows, in both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reelbank.store import cores

UNLIMITED = "9223372036854771712"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": ""}, None),
        ({"cpu.max": "", "cpu/cpu.cfs_quota_us": "", "cpu/cpu.cfs_period_us": ""}, None),
        ({"cpu.max": "x y z"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "0"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000"}, None),
    ],
    ids=str,
)
def test_the_quota_of_cores(
    files: dict[str, str], expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _written(files, tmp_path, monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cores.available_cores() == (8 if expected is None else int(expected))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"memory.max": "max"}, None),
        ({"memory.max": "67108864"}, 67108864),
        ({"memory.max": ""}, None),
        ({"memory.max": "none of your business"}, None),
        ({"memory/memory.limit_in_bytes": UNLIMITED}, None),
        ({"memory/memory.limit_in_bytes": "67108864\n"}, 67108864),
        ({"memory.max": "0"}, None),
    ],
    ids=str,
)
def test_the_limit_of_memory(
    files: dict[str, str], expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _written(files, tmp_path, monkeypatch)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert cores.memory_bytes() == (physical if expected is None else expected)


def test_a_system_without_an_affinity_mask_counts_its_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _written({}, tmp_path, monkeypatch)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores.available_cores() == os.cpu_count()


def _written(files: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(cores, "CGROUP", folder)
