"""What is published holds what the tree holds: every package and data file, and nothing that was built.

`tests/versions.py` installs clone, sdist and wheel, and runs them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from versions import ROOT, files_of_tree

BUILT = ("build/types/x.py", "demo/synth/x.csv", ".venv/x.py", "tests/__pycache__/x.pyc", "docs/x.pyc", "runs/x.json")
"""Left in a clone by its use."""


def build(kind: str, source: Path, into: Path) -> Path:
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(into)!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return into / run.stdout.split()[-1]


def test_sdist_and_the_wheel_made_of_it_hold_the_tree_and_nothing_built(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    clone, made = tmp_path / "clone", tmp_path / "made"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "build", "demo", "__pycache__", "*.egg-info"))
    expected = files_of_tree(clone)
    assert {"reelbank/extract/py.typed", "reelbank/heads/runs/run.py", "reelbank/testing/__init__.py"} <= expected
    for name in BUILT:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("x")
    made.mkdir()
    with tarfile.open(build("sdist", clone, made)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(made, filter="data")
    assert names.isdisjoint(BUILT)
    for path in (*clone.iterdir(), *(clone / "docs").rglob("*.*"), *(clone / "tests").glob("*.py")):
        name = path.relative_to(clone).as_posix()
        assert name in names or name in BUILT or "egg-info" in name or path.is_dir(), name
    with zipfile.ZipFile(build("wheel", next(made.glob("reelbank-*/")), made)) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected
