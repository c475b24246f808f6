"""The main line as other systems run it: workers are spawned, and nothing tells which cores may be used."""

from __future__ import annotations

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
