"""The first run on a GPU: its tests, a profile of the forward loop and the benchmarks, as JSON files in one folder.

`python benchmarks/gpu_first_run.py`, about 40 minutes. A part that fails or takes too long is written down, and the
next one begins.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from reelbank.benchmarks.measuring import INPUTS, SCALES
from reelbank.extract.doctor import examine

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "gpu-first-run"
LIMIT_MINUTES = {"tests": 15, "profile": 5, "benchmarks": 25}
PROFILED_STEPS = {"tiny": 64, "normal": 4096, "full": 16384}
TOP = 25


def tests(out: Path, scale: str) -> dict[str, Any]:
    """`tests/test_gpu.py`, where a skip for want of a GPU is a failure."""
    report = out / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    if scale == "tiny":
        command += ["-k", "neighbour and resnet18"]
    environment = {**os.environ, "REELBANK_REQUIRE_CUDA": "1"}
    ended = _limited([*command, str(ROOT / "tests" / "test_gpu.py")], "tests", environment)
    suite = ET.parse(report).getroot().find("testsuite") if report.exists() else None
    if suite is None:
        return {"status": ended}
    wrong = {
        case.get("name", ""): f"{outcome.tag}: {outcome.get('message', '')}"[:500]
        for case in suite.findall("testcase")
        for outcome in case
        if outcome.tag in ("failure", "error", "skipped")
    }
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    return {"status": ended, **counts, "not_passed": wrong}


def profile(out: Path, scale: str) -> dict[str, Any]:
    """What the device does while the pipeline feeds it: share of the time with a kernel running, and the top ones."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    from reelbank.benchmarks import gpu

    model = gpu.SIZES[scale].models[0]
    job = gpu.job_of(model, out / "profile")
    fed = gpu.Fed(job, out / "profile", PROFILED_STEPS[scale])
    fed()  # warm
    on_gpu = gpu.DEVICE.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    started = time.perf_counter()
    # The forward pass has a thread of its own.
    everywhere = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with profiled(activities=activities, experimental_config=everywhere) as recorded:
        fed()
        if on_gpu:
            torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    fed.close()
    events = recorded.key_averages()
    spent = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    top = sorted(events, key=lambda event: getattr(event, spent), reverse=True)[:TOP]
    kernels = sum(event.self_device_time_total for event in events) / 1e6
    return {
        "model": model, "batch": job.batch, "steps": PROFILED_STEPS[scale], "seconds": seconds,
        "device_busy": kernels / seconds if on_gpu else None,
        "top": [{"name": event.key, "calls": event.count, "seconds": getattr(event, spent) / 1e6} for event in top],
    }  # fmt: skip


def benchmarks(out: Path, scale: str) -> dict[str, Any]:
    """`benchmarks/gpu.py`, whose rows go to `gpu.json` of the folder."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--scale", scale, "--out", str(out)]
    return {"status": _limited([*command, "--work", str(INPUTS)], "benchmarks", dict(os.environ))}


PARTS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "tests": tests, "profile": profile, "benchmarks": benchmarks,
}  # fmt: skip


def _limited(command: list[str], part: str, environment: dict[str, str]) -> str:
    """`ended with status N`, or that it was stopped."""
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=60 * LIMIT_MINUTES[part], check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {LIMIT_MINUTES[part]} minutes"
    return f"ended with status {done.returncode}"


def _machine() -> dict[str, Any]:
    found = examine().to_json()
    return {topic: found[topic] for topic in ("device", "versions", "cores")}


def main() -> int:
    """Exit status: 0 where every part ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these (default: {', '.join(PARTS)})")
    parser.add_argument("--scale", choices=SCALES, default="normal", help="how much is measured (default: normal)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the JSON files")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {"scale": arguments.scale, **_machine()}
    good = True
    for name in arguments.parts or PARTS:
        print(f"--- {name}", flush=True)
        started = time.perf_counter()
        try:
            found = PARTS[name](arguments.out, arguments.scale)
        except Exception as error:  # noqa: BLE001  # the other parts are worth their time
            found = {"status": f"{type(error).__name__}: {error}"}
        summary[name] = found | {"minutes": round((time.perf_counter() - started) / 60, 2)}
        good = good and found.get("status", "ended with status 0") == "ended with status 0"
        (arguments.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"written to {arguments.out}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
