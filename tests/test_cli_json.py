"""Every command of the click tree takes --json and puts exactly one JSON document on stdout, whatever happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from planted import planted_store

from reelbank import cli
from reelbank.manifests.datasets import READERS

pytestmark = pytest.mark.usefixtures("pictures_not_rendered")


def leaves(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """(words after `reelbank`, command) of every command that is no group."""
    if isinstance(command, click.Group):
        for word in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), word)
            assert found is not None
            yield from leaves(found, f"{name} {word}".strip())
    else:
        yield name, command


COMMANDS = dict(leaves(cli.main))
WORKS = {
    "analyses": "", "backbones": "", "completion": "zsh",
    "doctor": "", "heads": "", "losses": "", "metrics": "", "recipes": "",
    "featurize": "--model flow:dis --sampling uniform:2 --workers 1",
    "train-head": "--store flow-dis.zarr --epochs 1 --run run", "predict": "--run run --store flow-dis.zarr",
    "probe": "--store flow-dis.zarr --kmeans 4 --out probe", "find": "--store flow-dis.zarr --clip clip_00001",
    "manifest csv": "manifest.csv --map video=video --root . --out mapped.csv",
    "manifest folder": "classes --out folder.csv", "manifest synth": "more --clips 2",
    "manifest synth-gtea61": "ego --clips 1",
    "manifest synth-hmdb51": "drifting --subjects 3 --clips-per-class 3",
    "manifest synth-stanford40": "stills --images-per-class 2",
    "store info": "flow-dis.zarr", "store verify": "flow-dis.zarr", "store upgrade": "flow-dis.zarr",
    "store export": "flow-dis.zarr out.h5 --format hdf5", "store import": "out.h5 back.zarr",
    "store diff": "flow-dis.zarr back.zarr",
    "store merge": "all.zarr back.zarr copy.zarr", "store retry": "flow-dis.zarr",
}  # fmt: skip
"""{command: arguments that it works with}, in their order; readers of official layouts run through what `csv` does."""
ELSEWHERE = {"explain"}
"""Commands that need a head on frames: test_runs_explained.py runs them with --json."""


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_use_is_one_document_with_the_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, [*name.split(), "--json", "--no-such-option"])
    assert result.exit_code == cli.WRONG_USE
    assert "--no-such-option" in document(result)["error"]
    assert document(result)["error"] in result.stderr


def test_every_command_works_with_json(synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name for name in COMMANDS if name.partition(" ")[2] not in READERS} <= {*WORKS, *ELSEWHERE}
    shutil.copytree(synth_set, tmp_path / "set", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "set")
    for name in ("left", "right"):
        Path("classes", name).mkdir(parents=True)
        shutil.copy2("videos/clip_00001.mp4", f"classes/{name}/{name}.mp4")
    for name, line in WORKS.items():
        if name == "store merge":
            shutil.copytree("back.zarr", "copy.zarr")
        result = CliRunner().invoke(cli.main, [*name.split(), *line.split(), "--json"])
        # 1 is what `diff` says of an import, whose provenance differs.
        assert result.exit_code in (cli.OK, cli.SOME_FAILED if name == "store diff" else cli.OK), result.output
        assert document(result) and "error" not in document(result), name


def test_last_line_names_everything_that_lies_in_a_folder(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planted_store(tmp_path / "s.zarr", num=48)
    for line, folder in (
        ("train-head --store s.zarr --epochs 1 --run run", "run"), ("probe --store s.zarr --kmeans 4 --out p", "p"),
        ("train-head --store s.zarr --epochs 1 --repeats 2 --run sweep --workers 1", "sweep"),
    ):  # fmt: skip
        result = CliRunner().invoke(cli.main, line.split())
        assert result.exit_code == cli.OK, result.output
        last = result.stdout.splitlines()[-1]
        assert last.startswith(f"In {folder}: ")
        assert all(path.name in last for path in Path(folder).iterdir())
    assert "members/ (" in last
    made = CliRunner().invoke(cli.main, ["manifest", "synth", "set", "--clips", "2"])
    assert all(str(path) in made.stdout for path in Path("set").iterdir())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("store info nothing.zarr", "no store at nothing.zarr"),  # the library's sentence
        ("manifest csv nothing.csv", "nothing.csv"),
        ("predict --run run", "give either videos or --store"),  # click's
        ("nothing", "No such command"),
    ],
)
def test_errors_are_json_after_json(line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, [*line.split(), "--json"])
    assert result.exit_code == cli.WRONG_USE
    assert said in document(result)["error"]


def test_fault_of_the_program_is_json_and_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any, **more: Any) -> None:
        raise TypeError("ours")

    monkeypatch.setattr("reelbank.extract.doctor.examine", fails)
    result = CliRunner().invoke(cli.main, ["doctor", "--json"])
    assert (document(result), type(result.exception)) == ({"error": "TypeError: ours"}, TypeError)
