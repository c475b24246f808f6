"""What users may rely on: the public modules and their names, with their types, in a checkout and in a wheel."""

from __future__ import annotations

import ast
import configparser
import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from reelbank.docs.generate import PUBLIC

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("extract", "heads", "manifests", "store")
LAZY = (*(f"reelbank.{stage}" for stage in STAGES), "reelbank.testing")


def source_of(module: str) -> Path:
    parts = module.split(".")[1:]
    folder = ROOT / "tests" / "reelbank" if parts[0] == "testing" else ROOT
    file = folder.joinpath(*parts)
    return file / "__init__.py" if file.is_dir() else file.with_suffix(".py")


def test_public_modules_are_those_with_all_and_stand_in_the_docs() -> None:
    found = []
    for path in [file for folder in (*STAGES, "tests/reelbank") for file in sorted((ROOT / folder).rglob("*.py"))]:
        if re.search(r"^__all__", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(
                ".".join(("reelbank", *(part for part in parts if part not in ("tests", "reelbank", "__init__"))))
            )
    assert sorted(found) == sorted(PUBLIC), "a module with `__all__` is public and stands in docs/generate.py"


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_every_exported_member_is_there_sorted_and_documented(module: str) -> None:
    loaded = importlib.import_module(module)
    exported = list(loaded.__all__)
    assert exported == sorted(exported, key=_by_case)
    assert set(exported) <= set(dir(loaded))
    for name in exported:
        assert getattr(loaded, name).__doc__, f"{module}.{name} has no docstring"


def _by_case(name: str) -> tuple[bool, bool, str]:
    """CONSTANTS, Classes, functions: the order that ruff gives `__all__`."""
    return (not name.isupper(), name[0].islower(), name)


@pytest.mark.parametrize("module", LAZY)
def test_checkers_and_the_interpreter_see_the_same_names(module: str) -> None:
    """The TYPE_CHECKING block of a lazy package names what its table does, from the same modules."""
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    table = next(node for node in ast.walk(block) if isinstance(node, ast.Dict))
    assert typed == ast.literal_eval(table)
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(typed) | own == set(importlib.import_module(module).__all__)


def test_unknown_name_lists_what_there_is() -> None:
    import reelbank.heads

    with pytest.raises(AttributeError, match=r"module 'reelbank.heads' has no attribute 'train'; it has .*train_head"):
        _ = reelbank.heads.train


@pytest.mark.parametrize("module", LAZY)
def test_every_package_has_the_version_that_is_installed(module: str) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    assert importlib.import_module(module).__version__ == settings["metadata"]["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unpacked wheel, built from what git would have; nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if files.returncode:
        pytest.skip("not a git checkout")
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps", "--no-index"]
    command = [*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run(command, check=True, timeout=300)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "lib")
    return folder / "lib"


def test_wheel_holds_every_package_and_its_types(wheel: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    for package in settings["options"]["packages"].split():
        folder = wheel.joinpath(*package.split("."))
        assert package == "reelbank" or (folder / "__init__.py").is_file(), package
    for package in (*STAGES, "testing"):
        assert (wheel / "reelbank" / package / "py.typed").is_file(), package
    assert not (wheel / "reelbank" / "__init__.py").exists()
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
        "import reelbank.testing, reelbank.cli\n"
        "print(reelbank.testing.check_loss.__module__, reelbank.testing.__file__, reelbank.testing.__version__)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=120)
    file, version = wheel / "reelbank" / "testing" / "__init__.py", settings["metadata"]["version"]
    assert done.stdout.split() == ["reelbank.testing.losses", str(file), version]


def test_users_mypy_sees_types_not_any(wheel: Path, tmp_path: Path) -> None:
    """mypy takes what is on PYTHONPATH as it takes site-packages: untyped unless there is a py.typed."""
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
    options = ["--strict", "--cache-dir", "cache", "--config-file", "", "--follow-imports", "silent"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mypy", *options, "user.py"],
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


def test_lower_bounds_are_what_setup_cfg_says() -> None:
    """`make versions` installs them; a requirement without one lower bound would be tried with its newest version."""
    import versions

    bounds = versions.lowest((ROOT / "setup.cfg").read_text(encoding="utf-8"))
    assert "numpy==2.0.2" in bounds
    assert not [line for line in bounds if line.startswith("torch")]
    assert len(bounds) == len({line.partition("==")[0] for line in bounds}) > 12
    with pytest.raises(ValueError, match=r"'zarr' has no lower bound"):
        versions.lowest("[options]\ninstall_requires =\n  # a comment\n  numpy>=2\n  zarr\n")
    assert versions.lowest("[options]\ninstall_requires =\n  a-b>=1.2; platform_system != 'X'\n") == ["a-b==1.2"]


def test_torch_of_the_lowest_versions_is_the_pinned_pair() -> None:
    import versions

    pins = versions.pinned_torch((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert sorted(line.partition("==")[0] for line in pins) == ["torch", "torchvision"]


def test_a_python_that_is_not_here_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import versions

    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert versions.python_of("3.99") is None
    held = tmp_path / "versions/3.99.1/bin/python3.99"
    held.parent.mkdir(parents=True)
    held.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    held.chmod(0o755)
    assert versions.python_of("3.99") == str(held)


def test_quick_tests_are_there() -> None:
    import versions

    assert [name for name in versions.QUICK if not (ROOT / "tests" / f"test_{name}.py").is_file()] == []
