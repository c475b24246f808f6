"""The container image: what Dockerfile and .dockerignore name is there. Nothing here builds it: that needs Docker."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, its arguments) of a Dockerfile."""
    lines = (line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#"))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def problems(text: str) -> list[str]:
    """What a Dockerfile names that is not there, and hosts that it names."""
    found = [f"a host: {line}" for line in text.splitlines() if re.search(r"://|\b[\w-]+\.(com|dev|io|org)/", line)]
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = re.findall(r"^(\S+) =", settings["options.entry_points"]["console_scripts"], re.MULTILINE)
    for name, rest in instructions(text):
        if name == "FROM" and not re.fullmatch(r"python:3\.\d+-slim", rest):
            found.append(f"FROM {rest}: not an official image by its plain name")
        if name == "COPY":
            *sources, _ = rest.split()
            found += [f"COPY {source}: not there" for source in sources if not (ROOT / source).exists()]
        if name == "ENTRYPOINT" and json.loads(rest)[0] not in scripts:
            found.append(f"ENTRYPOINT {rest}: no command of setup.cfg")
    missing = {"FROM", "COPY", "ENTRYPOINT"} - {name for name, _ in instructions(text)}
    return found + [f"no {name}" for name in sorted(missing)]


def test_dockerfile_names_only_what_is_there() -> None:
    assert problems((ROOT / "Dockerfile").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("FROM python:3.11-slim", "FROM ghcr.io/x/python:3.11", "a host"),
        ("FROM python:3.11-slim", "FROM python:3.11-slim-bookworm", "not an official image"),
        ("COPY constraints.txt ./", "COPY requirements.txt ./", "COPY requirements.txt: not there"),
        ('ENTRYPOINT ["reelbank"]', 'ENTRYPOINT ["reelbanc"]', "no command of setup.cfg"),
        ('ENTRYPOINT ["reelbank"]', "", "no ENTRYPOINT"),
        ("ARG TORCH_INDEX=", "ARG TORCH_INDEX=https://x.org/whl", "a host"),
    ],
)
def test_wrong_dockerfile_would_be_found(right: str, wrong: str, problem: str) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert text.count(right) == 1
    assert any(problem in found for found in problems(text.replace(right, wrong)))


def ignored(names: list[str], patterns: list[str]) -> list[str]:
    """The files that Docker leaves out: a pattern without `**/` counts from the root, with all that lies below."""
    left_out = []
    for name in names:
        parts = Path(name).parts
        starts = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        ends = [
            part for pattern in patterns if pattern.startswith("**/") for part in parts if fnmatch(part, pattern[3:])
        ]
        if ends or any(start in patterns for start in starts):
            left_out.append(name)
    return left_out


def test_image_holds_every_file_of_git() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a clone")
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    names = listed.stdout.splitlines()
    assert len(names) > 400
    assert [name for name in ignored(names, patterns) if not name.startswith(".github/")] == []
    made = [".venv/bin/python", "a/__pycache__/b.pyc", "reelbank.egg-info/PKG-INFO", "x/flow.zarr/zarr.json", "build/x"]
    assert ignored(made, patterns) == made
