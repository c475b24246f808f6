"""What users may rely on: the public modules and their names, with their types, in a checkout and in a wheel."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import sys
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
