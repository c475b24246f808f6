"""The how-to of a plug-in, followed from its empty folder: every block is written or run, in the order of the page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import docs_pages
import pytest
from docs_pages import PROGRAMS, ROOT, Block

PAGE = docs_pages.read(ROOT / "docs" / "how-to" / "add.md")
PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index")
CALL = "import sys; from reelbank import cli; cli.main(sys.argv[1:], prog_name='reelbank')"


def path_of(blocks: tuple[Block, ...]) -> list[Block]:
    """Those from the first that makes the folder to the last that uses the package."""
    own = [i for i, block in enumerate(blocks) if "plug-in" in block.needs]
    return list(blocks[own[0] : own[-1] + 1])


def command(words: list[str], library: Path) -> list[str]:
    """A line of the page as it is run here: the package goes to `library`, as the environment is not the test's."""
    if words[:2] == ["pip", "install"]:
        assert words[2:] == ["-e", "."]
        return [sys.executable, *PIP, "--no-build-isolation", "--target", str(library), "."]
    if words[0] == "python":
        return [sys.executable, *words[1:], "-p", "no:cacheprovider"]
    assert words[0] in PROGRAMS
    return [sys.executable, "-c", CALL, *(words[1:] if words[0] == "reelbank" else words)]


def test_every_block_of_the_path_works_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, folder = tmp_path / "library", tmp_path / "work"
    folder.mkdir()
    inherited = [str(Path(one).resolve()) for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(library), str(ROOT / "tests"), *inherited])}
    environment.pop("REELBANK_MANIFEST", None)
    said = {}
    for block in path_of(PAGE.blocks):
        if block.file:
            (folder / block.file).write_text("\n".join(block.lines) + "\n")
            continue
        for words, status in block.commands():
            if words[0] == "mkdir":
                (folder / words[1]).mkdir()
            elif words[0] == "cd":
                folder /= words[1]
            else:
                run = subprocess.run(
                    command(words, library), cwd=folder, env=environment, capture_output=True, text=True, timeout=600
                )
                assert run.returncode == status, f"{block.place}: {' '.join(words)}\n{run.stdout}{run.stderr}"
                said[" ".join(words)] = run.stdout
    assert "3 passed" in said["python -m pytest -q"]
    assert "brightness: plug-in, brightness:ROW of mine 0.1" in said["reelbank backbones brightness"]
    assert "48 clips predicted" in said["reelbank predict --run runs/mine --store brightness.zarr"]


def test_no_block_of_the_path_is_passed_over() -> None:
    blocks = path_of(PAGE.blocks)
    assert [block.place for block in blocks if not block.file and "plug-in" not in block.needs] == []
    assert [block.file for block in blocks if block.file] == [
        "pyproject.toml", "brightness.py", "prototypes.py", "brier.py", "test_mine.py",
    ]  # fmt: skip
