"""How many cores this process may use, one budget for decoding, the forward pass and sweeps; and how much memory."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 2**60
"""Version 1 has no word for no limit: it is the largest number of whole pages."""


def available_cores() -> int:
    """Cores that the affinity mask and the container's quota allow, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_cores()
    return max(1, min(cores, int(quota) if quota else cores))


def memory_bytes() -> int | None:
    """Memory that this machine has, or its container may take; None where the system does not tell."""
    known = [limit for limit in (_physical_bytes(), _limit_bytes()) if limit is not None]
    return min(known, default=None)


def free_memory_bytes() -> int | None:
    """Memory that a process may still take here; None where the system does not tell."""
    known = [_available_bytes()]
    limit, used = _limit_bytes(), _said("memory.current") or _said("memory/memory.usage_in_bytes")
    if limit is not None and used.isdecimal():
        # The page cache counts as used, though the kernel gives it up when it is asked to.
        known.append(max(0, limit - int(used) + _cached_bytes()))
    return min((one for one in known if one is not None), default=None)


def _available_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return memory_bytes()
    sizes = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    found = sizes.get("MemAvailable")
    return int(found[0]) * 1024 if found else memory_bytes()


def _cached_bytes() -> int:
    """Pages of files that the container's memory holds and can give up."""
    lines = (_said("memory.stat") or _said("memory/memory.stat")).splitlines()
    entries = dict(line.partition(" ")[::2] for line in lines)
    return sum(int(entries[name]) for name in ("inactive_file", "active_file") if entries.get(name, "").isdecimal())


def _quota_cores() -> float | None:
    quota, _, period = _said("cpu.max").partition(" ")
    if not quota:
        quota, period = _said("cpu/cpu.cfs_quota_us"), _said("cpu/cpu.cfs_period_us")
    try:
        return float(quota) / float(period) if float(quota) > 0 and float(period) > 0 else None
    except ValueError:  # `max`, or nothing
        return None


def _limit_bytes() -> int | None:
    told = _said("memory.max") or _said("memory/memory.limit_in_bytes")
    return int(told) if told.isdecimal() and 0 < int(told) < UNLIMITED_BYTES else None


def _said(name: str) -> str:
    """A setting of the container, '' where there is none: a version that is not used may leave empty files."""
    try:
        return (CGROUP / name).read_text().strip()
    except (OSError, ValueError):
        return ""


def _physical_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
