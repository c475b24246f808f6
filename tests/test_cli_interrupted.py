"""Ctrl-C at any moment, among the imports too: one line, exit status 130, nothing half written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from planted import planted_store

from reelbank import cli
from reelbank.store.console import STOPPED

PRESSED = """
import builtins, os, signal, sys
real = builtins.__import__
def imported(name, *more, **rest):
    if name == {name!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *more, **rest)
builtins.__import__ = imported
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from reelbank.cli import main
main()
"""


@pytest.mark.parametrize(
    "name", ["contextlib", "click", "reelbank.heads.request", "reelbank.extract", "rich.console", "torch"]
)
def test_ctrl_c_while_a_library_is_imported_is_one_line(name: str, synth_set: Path, tmp_path: Path) -> None:
    line = ["featurize", "--model", "resnet18", "--weights", "random", "--manifest", str(synth_set / "manifest.csv")]
    done = subprocess.run(
        [sys.executable, "-c", PRESSED.format(name=name), *line],
        capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (STOPPED, "", 1), done.stderr
    assert done.stderr.startswith("Error: stopped")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_sweep_starts_its_processes_is_one_line_with_the_way_on(tmp_path: Path) -> None:
    planted_store(tmp_path / "s.zarr", num=48)
    line = ["train-head", "--store", "s.zarr", "--sweep", "lr=0.1,0.01,0.001", "--run", "sweep", "--workers", "2"]
    start = PRESSED.format(name="nothing")
    sweep = subprocess.Popen(
        [sys.executable, "-c", start, *line, "--executor", "processes", "--epochs", "90000", "--early-stop", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while sweep.poll() is None and not (tmp_path / "sweep/config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    os.killpg(sweep.pid, signal.SIGINT)
    _, said = sweep.communicate(timeout=60)
    assert (sweep.returncode, len(said.splitlines())) == (STOPPED, 1), said
    assert "go on with the same command and --run sweep --resume" in said


def test_stop_before_a_run_is_begun_names_no_run_and_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reelbank.heads.sweeps.sweep.sweep", pressed)
    result = CliRunner().invoke(cli.main, ["train-head", "--store", "s.zarr", "--repeats", "2", "--json"])
    assert result.exit_code == STOPPED
    assert json.loads(result.stdout) == {"error": "stopped; nothing was written"}
