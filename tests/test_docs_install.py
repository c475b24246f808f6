"""`make demo` and `make venv` install what they need once, say what is waited for, and what to do where pip fails."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from docs_pages import ROOT


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_install", ROOT / "docs" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (191.8 MB)", "torch-2.13.0 (191.8 MB)"),
        ("  Using cached zarr-3.1.6-py3-none-any.whl (295 kB)", "zarr-3.1.6 (295 kB)"),
        (
            "  Downloading https://files.org/a/b/nvidia_cublas-13.1-py3-none-x.whl (1.1 GB)",
            "nvidia_cublas-13.1 (1.1 GB)",
        ),
        ("Processing /opt/nothing/av-18.1.0-cp311-abi3-manylinux_2_28_x86_64.whl (from x)", "av-18.1.0 (0.0 MB)"),
        ("Installing collected packages: a, b, c", "unpacking 3 packages"),
        ("Collecting torch==2.13.0", None),
    ],
)
def test_lines_of_pip_say_what_is_waited_for(line: str, told: str | None, installer: ModuleType) -> None:
    found = installer.told(line)
    assert (found and found[0]) == told


@pytest.mark.parametrize(
    ("said", "what_to_do"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/zarr/\n"
         "ERROR: No matching distribution found for zarr", "the package index was not reached"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build of this for Python"),
        ("ERROR: Package 'x' requires a different Python: 3.10.1 not in '>=3.11'", "PYTHON=python3.11"),
        ("The virtual environment was not created because ensurepip is not available.", "apt-get install python3-venv"),
        ("something new", "install.log"),
    ],
)  # fmt: skip
def test_failing_install_says_what_to_do(said: str, what_to_do: str, installer: ModuleType, tmp_path: Path) -> None:
    assert what_to_do in installer.reason(said, tmp_path / "v")


def fake(venv: Path, body: str) -> None:
    """An environment whose Python is a script of the shell."""
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "pip").touch()
    python = venv / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)


def test_large_downloads_get_a_line_and_the_rest_goes_to_the_log(
    installer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(
        tmp_path,
        'echo "$@"; echo " Downloading torch-2.13.0-cp311.whl (191.8 MB)"; echo " Downloading a-1-py3.whl (2 kB)"',
    )
    installer.install(tmp_path, ".")
    shown = capsys.readouterr().out
    assert "torch-2.13.0 (191.8 MB)" in shown
    assert "a-1" not in shown
    log = (tmp_path / "install.log").read_text()
    assert "-m pip install" in log and "a-1-py3.whl" in log


def test_failing_pip_ends_with_its_error_and_a_sentence(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(tmp_path, 'sleep 1.2; echo "ERROR: [Errno 28] No space left on device" >&2; exit 1')
    monkeypatch.setattr(installer, "QUIET_SECONDS", 1)
    with pytest.raises(SystemExit, match=r"^ERROR: .*\nreelbank is not installed: the disk is full: .* GB are free"):
        installer.install(tmp_path, ".")
    assert "install ..." in capsys.readouterr().out


def test_older_python_is_one_sentence_before_anything_is_made(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    older = "sys.version, sys.version_info = '3.9.2 (main)', (3, 9, 2)"
    old.write_text(f"#!{sys.executable}\nimport sys\n{older}\nexec(sys.argv[2])\n")
    old.chmod(0o755)
    for python, said in (
        (old, f"reelbank needs Python 3.11 or later, and {old} is 3.9.2."),
        ("no-python", "There is no no-python"),
    ):
        done = make("demo", f"PYTHON={python}", f"VENV={tmp_path / 'v'}")
        assert done.returncode != 0
        assert done.stderr.startswith(said)
        assert len([line for line in done.stderr.splitlines() if not line.startswith("make")]) == 1
    assert not (tmp_path / "v").exists()


def test_demo_installs_what_running_needs_and_once(tmp_path: Path) -> None:
    demo, venv = (make("-n", target, f"VENV={tmp_path}").stdout for target in ("demo", "venv"))
    assert f"docs/install.py {tmp_path} .\n" in demo
    assert "[dev" not in demo
    assert f"docs/install.py {tmp_path} .\n" in venv and f"docs/install.py {tmp_path} '.[dev,docs]'" in venv
    (tmp_path / ".running").touch()
    assert "install.py" not in make("-n", "demo", f"VENV={tmp_path}").stdout
    assert "install.py" in make("-n", "venv", f"VENV={tmp_path}").stdout
