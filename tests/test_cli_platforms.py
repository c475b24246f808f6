"""The main line as other systems run it: workers are spawned, and nothing tells which cores may be used."""

from __future__ import annotations

import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline import assert_same_store, copy_set, run, store_of

from reelbank.store import processes, verify

LINE = """
import os, sys
del os.sched_getaffinity
from reelbank.store import processes
processes.START_METHOD = "spawn"
if __name__ == "__main__":
    from reelbank.cli import main
    sys.argv[0] = "reelbank"
    main()
"""


def test_the_line_with_spawned_workers(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 6))
    script = tmp_path / "line.py"
    script.write_text(LINE)

    def line(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, str(script), *arguments], cwd=folder, capture_output=True, text=True, check=True
        )

    line("featurize", "--model", "flow:dis", "--sampling", "uniform:4", "--forward", "parent", "--out", "spawned.zarr")
    run(folder)
    assert_same_store(folder / "spawned.zarr", store_of(folder))
    assert verify(folder / "spawned.zarr").problems == ()


@pytest.mark.parametrize(("platform", "method"), [("linux", "forkserver"), ("darwin", "spawn"), ("win32", "spawn")])
def test_how_workers_start(platform: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    monkeypatch.setattr(sys, "platform", platform)
    if platform == "win32":
        monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    try:
        found = importlib.reload(processes).START_METHOD
        assert found == method
    finally:
        monkeypatch.undo()
        importlib.reload(processes)


WINDOWS = """
import runpy, sys
sys.platform = "win32"
sys.modules["fcntl"] = None
"""
"""As Python begins on Windows, as far as reelbank can tell."""

SENTENCE = "reelbank runs on Linux and macOS, not on Windows itself, which lacks the file locks that it needs: "


def _on_windows(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WINDOWS + program], capture_output=True, text=True, check=False)


def _scripts() -> list[str]:
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    return [line.partition("= ")[2] for line in settings["options.entry_points"]["console_scripts"].split("\n") if line]


@pytest.mark.parametrize("script", [*_scripts(), "-m"])
def test_commands_stop_on_windows_with_a_sentence_that_names_wsl2(script: str) -> None:
    module, _, function = script.partition(":")
    as_pip_writes_it = f"from {module} import {function}\nsys.exit({function}())"
    module_run = "runpy.run_module('reelbank.cli', run_name='__main__')"
    done = _on_windows(module_run if script == "-m" else as_pip_writes_it)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {SENTENCE}install WSL2 (`wsl --install`")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("stage", ["extract", "heads", "manifests", "store", "testing"])
def test_import_stops_on_windows_with_the_same_sentence(stage: str) -> None:
    done = _on_windows(f"import reelbank.{stage}")
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {SENTENCE}install WSL2")
