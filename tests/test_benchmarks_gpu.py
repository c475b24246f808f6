"""The GPU's benchmark and its first run, on a CPU at the tiny scale: what they measure there means nothing."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reelbank.benchmarks import gpu, gpu_first_run
from reelbank.extract.backbones import Tuning

TESTS = Path(__file__).parent / "test_gpu.py"


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "TUNED", {"one batch at a time": (Tuning(in_flight=1), None)})
    yield
    torch.set_num_threads(before)


def test_rows_are_those_that_are_skipped_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = gpu.measure("tiny", tmp_path)
    kinds = {row.id.split(".")[1] for row in stage.rows}
    assert kinds == {"decode", "egocentric", "files", "forward", "parity", "sweep", "tuning"}
    assert [row.id for row in stage.rows if row.ratio is None] == ["gpu.decode.timm:test_vit"]
    (exact,) = [row.ratio for row in stage.rows if row.id == "gpu.parity.timm:test_vit.fp32"]
    assert exact == 0  # the same device
    monkeypatch.setattr(gpu, "DEVICE", "cuda:77")
    skipped = gpu.measure("tiny", tmp_path)
    assert {row.id.split(".")[1] for row in skipped.rows} == {"egocentric", "files", "forward", "sweep"}
    assert all("--device cuda:77: torch" in row.note for row in skipped.rows)


def test_first_run_writes_down_what_ended_and_what_did_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(out: Path, scale: str) -> dict[str, str]:
        raise RuntimeError("no card")

    monkeypatch.setitem(gpu_first_run.PARTS, "tests", broken)
    monkeypatch.setattr(sys, "argv", ["first", "tests", "profile", "--scale", "tiny", "--out", str(tmp_path)])
    assert gpu_first_run.main() == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["tests"]["status"] == "RuntimeError: no card"
    assert summary["profile"]["steps"] == 64
    assert summary["profile"]["top"][0]["seconds"] > 0


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REELBANK_GPU", "REELBANK_REQUIRE_CUDA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("_no_settings")
def test_tests_of_a_gpu_are_skipped_without_one_or_fail_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """What their module does, without a pytest of its own: that has nothing to add but seconds."""
    with pytest.raises(pytest.skip.Exception, match="--device cuda:0: torch") as skipped:
        runpy.run_path(str(TESTS))
    assert skipped.value.allow_module_level
    monkeypatch.setenv("REELBANK_REQUIRE_CUDA", "1")
    try:
        required = runpy.run_path(str(TESTS))
    except pytest.skip.Exception as error:  # which would skip this test, too
        pytest.fail(f"skipped where it is required: {error}")
    with pytest.raises(AssertionError, match="--device cuda:0: torch"):
        required["test_device_is_here"]()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("_no_settings")
def test_tests_of_a_gpu_run_on_a_cpu() -> None:
    chosen = "device_is_here or (neighbour and timm:test_vit-fp32)"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, str(TESTS)]
    done = subprocess.run(
        command, env=os.environ | {"REELBANK_GPU": "cpu"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
