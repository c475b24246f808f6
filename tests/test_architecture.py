"""What holds the folders apart: import arrows, the packaging of the root, sizes and names of files."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("extract", "heads", "manifests", "store")
ARROWS = {
    "extract": ("extract", "manifests", "store"),
    "heads": ("extract.backbones", "heads", "store"),
    "manifests": ("manifests",),
    "store": ("manifests", "store"),
}
TOP_LEVEL = ("README.md", "cli.py", "extract", "heads", "manifests", "setup.cfg", "store", "tests")
MAX_LINES = {"cli.py": 600}
"""Limits of single files: the root may hold no second module that the commands' options could move to."""
DEFAULT_MAX_LINES = 400
NAMES_THAT_SAY_NOTHING = {"base", "common", "helper", "helpers", "misc", "util", "utils"}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name below reelbank) of every import of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name.removeprefix("reelbank.")) for name in names if name.startswith("reelbank."))


def _stage_files() -> list[Path]:
    return list(sources(*STAGES))


@pytest.mark.parametrize("path", _stage_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    stage = path.relative_to(ROOT).parts[0]
    for line, name in imported(path):
        allowed = any(name == target or name.startswith(f"{target}.") for target in ARROWS[stage])
        assert allowed, f"{path.relative_to(ROOT)}:{line}: {stage} may not import reelbank.{name}"


def test_arrow_test_sees_imports_of_every_form(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    lines = (
        "import reelbank.store",
        "def f():",
        "    from reelbank import heads",
        "    from reelbank.extract import scan",
    )
    file.write_text("\n".join(lines))
    assert [name for _, name in imported(file)] == ["store", "heads", "extract.scan"]


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("reelbank.heads", ("av", "torch", "zarr")),
        ("reelbank.extract", ("av", "torch", "zarr")),
        ("reelbank.manifests", ("av", "torch", "zarr")),
        ("reelbank.store", ("av", "torch")),
    ],
)
def test_import_of_a_stage_loads_no(module: str, forbidden: tuple[str, ...]) -> None:
    assert _loaded(f"import {module}", forbidden) == []


def test_every_module_of_heads_loads_no_av() -> None:
    modules = [".".join(("reelbank", *path.relative_to(ROOT).with_suffix("").parts)) for path in sources("heads")]
    names = [name.removesuffix(".__init__") for name in modules]
    assert _loaded(f"import {', '.join(names)}", ("av",)) == []


def _loaded(statement: str, names: tuple[str, ...]) -> list[str]:
    script = f"import sys\n{statement}\nprint(*[name for name in {names!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return run.stdout.split()


def test_packages_of_setup_cfg_are_the_folders_with_an_init() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = settings["options"]["packages"].split()
    found = {"reelbank"}
    for stage in STAGES:
        for init in (ROOT / stage).rglob("__init__.py"):
            found.add(".".join(("reelbank", *init.parent.relative_to(ROOT).parts)))
    assert sorted(listed) == sorted(found)


def test_root_holds_only_cli_and_no_init() -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["cli.py"]


def test_fixed_top_level_is_there() -> None:
    assert [name for name in TOP_LEVEL if not (ROOT / name).exists()] == []


def test_files_stay_small() -> None:
    long = {}
    for path in [ROOT / "cli.py", *sources(*STAGES, "benchmarks", "docs")]:
        name, count = str(path.relative_to(ROOT)), len(path.read_text(encoding="utf-8").splitlines())
        if count > MAX_LINES.get(name, DEFAULT_MAX_LINES):
            long[name] = count
    assert long == {}


def test_file_names_say_what_is_inside() -> None:
    names = [path for path in sources(*STAGES, "benchmarks", "docs") if path.stem in NAMES_THAT_SAY_NOTHING]
    assert names == []
