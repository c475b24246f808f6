"""What is published holds what the tree holds: every package and data file, and nothing that was built.

`tests/versions.py` installs clone, sdist and wheel, and runs them.
"""

from __future__ import annotations

import configparser
import os
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


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as its use leaves it, in another place."""
    folder = tmp_path_factory.mktemp("clone") / "clone"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "build", "demo", "__pycache__", "*.egg-info"))
    for name in BUILT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


@pytest.fixture(scope="module")
def sdist(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked sdist."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", clone, folder)) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("reelbank-*/"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked wheel, made of the sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build("wheel", sdist, folder)) as archive:
        archive.extractall(folder / "lib")
    return folder / "lib"


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_sdist_holds_the_clone_and_nothing_built(clone: Path, sdist: Path) -> None:
    names = files_below(sdist)
    assert names.isdisjoint(BUILT)
    assert names >= {name for name in files_below(clone) - set(BUILT) if "egg-info" not in name}


def test_wheel_holds_the_packages_of_the_tree_with_their_data(wheel: Path) -> None:
    expected = files_of_tree(ROOT)
    assert {"reelbank/extract/py.typed", "reelbank/heads/runs/run.py", "reelbank/testing/__init__.py"} <= expected
    assert {name for name in files_below(wheel) if ".dist-info/" not in name} == expected


def test_wheel_holds_every_package_and_its_types(wheel: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    for package in settings["options"]["packages"].split():
        folder = wheel.joinpath(*package.split("."))
        assert package == "reelbank" or (folder / "__init__.py").is_file(), package
    for package in ("extract", "heads", "manifests", "store", "testing"):
        assert (wheel / "reelbank" / package / "py.typed").is_file(), package
    assert not (wheel / "reelbank" / "__init__.py").exists()
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
        "import reelbank.testing, reelbank.cli\n"
        "print(reelbank.testing.check_loss.__module__, reelbank.testing.__file__, reelbank.testing.__version__)\n"
        "from reelbank.heads.reports import html\n"
        "page = html.document(title='<t>', subtitle='', warnings=[], body=html.items(['<b>']))\n"
        "print(html.__file__, page.count('&lt;'), page.count('prefers-color-scheme'))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=120)
    first, second = done.stdout.splitlines()
    file, version = wheel / "reelbank" / "testing" / "__init__.py", settings["metadata"]["version"]
    assert first.split() == ["reelbank.testing.losses", str(file), version]
    # Templates and style are in it, too.
    assert second.split() == [str(wheel / "reelbank" / "heads" / "reports" / "html.py"), "3", "1"]


USERS_MYPY = """
[mypy]
strict = true
follow_imports = skip
[mypy-reelbank.*]
follow_imports = silent
[mypy-numpy.*]
follow_imports_for_stubs = true
"""
"""Libraries are not followed, and numpy's stubs neither: reading them took most of the time and changes no line."""


def test_users_mypy_sees_types_not_any(wheel: Path, tmp_path: Path) -> None:
    """mypy takes what is on PYTHONPATH as it takes site-packages: untyped unless there is a py.typed."""
    (tmp_path / "mypy.ini").write_text(USERS_MYPY)
    (tmp_path / "user.py").write_text(
        "from reelbank.manifests import Clip, read\n"
        "from reelbank.store import TapSpec\n"
        "reveal_type(read)\n"
        "reveal_type(Clip(clip_id='a', video='a.mp4').split)\n"
        "reveal_type(TapSpec(name='a', dtype='float16', axes=(), shape=()).shape)\n"
        "from reelbank.manifests import nothing_of_that_name\n"
        "from reelbank.store import __version__\n"
        "reveal_type(__version__)\n"
        "from pathlib import Path\n"
        "from reelbank.store.exchange.options import ImportConfig\n"
        "config = ImportConfig(tap='a', manifest='m.csv', target_columns=['kcal'])\n"
        "reveal_type(config.tap)\n"
        "reveal_type(config.manifest)\n"
        "ImportConfig(tap=3, manifest=Path('m.csv'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mypy", "--cache-dir", "cache", "user.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(wheel)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert "-> reelbank.manifests.manifest.Manifest" in done.stdout, done.stdout + done.stderr
    assert 'user.py:4: note: Revealed type is "str"' in done.stdout
    assert 'user.py:5: note: Revealed type is "tuple[int, ...]"' in done.stdout
    assert 'user.py:8: note: Revealed type is "str"' in done.stdout
    # What a field takes and what it holds are two types.
    assert 'user.py:12: note: Revealed type is "tuple[str, ...]"' in done.stdout
    assert 'user.py:13: note: Revealed type is "pathlib.Path | None"' in done.stdout
    assert 'Argument "tap" to "ImportConfig" has incompatible type "int"; expected "str | Iterable' in done.stdout
    assert 'Module "reelbank.manifests" has no attribute "nothing_of_that_name"' in done.stdout
