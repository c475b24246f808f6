"""The Tab key: what a shell is told of a line that is not finished, and the scripts that let it ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from planted import planted_store

from reelbank import cli
from reelbank.extract import backbones
from reelbank.heads.models import HEADS
from reelbank.heads.recipes import RECIPES
from reelbank.manifests.datasets import READERS
from reelbank.manifests.rendered import RENDERED
from reelbank.store import completion


def offers(command: click.Command, line: Sequence[str], incomplete: str = "") -> list[str]:
    """What follows the words of `line`."""
    asked = ShellComplete(command, {}, "reelbank", "_REELBANK_COMPLETE")
    return [item.value for item in asked.get_completions(list(line), incomplete)]


@pytest.mark.parametrize(
    ("line", "incomplete", "expected"),
    [
        ("featurize --model", "din", [name for name in backbones.names() if name.startswith("din")]),
        ("train-head --head", "", sorted(HEADS)),
        ("train-head --loss", "j", ["jsd", "jsd-sum"]),
        ("train-head --recipe", "calories/t", [name for name in RECIPES if name.startswith("calories/t")]),
        ("train-head --figures", "p", ["pdf", "png"]),
        ("train-head --store flow.zarr --tap", "", ["cls"]),
        ("probe --store flow.zarr --tap", "c", ["cls"]),
        ("featurize --model resnet18 --tap", "layer", ["layer1", "layer2", "layer3", "layer4"]),
        ("train-head --store", "", ["flow.zarr", "sub/other.zarr"]),
        ("train-head --store nope.zarr --tap", "", []),
        ("predict --run", "", ["runs/one"]),
        ("predict --store", "s", ["sub/other.zarr"]),
        ("store info", "f", ["flow.zarr"]),
        ("store diff flow.zarr", "", ["flow.zarr", "sub/other.zarr"]),
        ("store merge new.zarr", "fl", ["flow.zarr"]),
        ("backbones", "goo", ["googlenet"]),
        ("recipes", "calories/b", ["calories/beyond"]),
        ("manifest", "", sorted([*READERS, *RENDERED])),
        ("completion", "", ["bash", "fish", "zsh"]),
        ("", "train", ["train-head"]),
        ("train-head", "--learn", []),
        ("train-head", "--early", ["--early-stop"]),
    ],
)
def test_names_are_offered(
    line: str, incomplete: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planted_store(tmp_path / "flow.zarr", num=24)
    shutil.copytree("flow.zarr", "sub/other.zarr")
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/config.json").write_text("{}")
    assert sorted(offers(cli.main, line.split(), incomplete)) == sorted(expected)


def test_a_line_that_cannot_be_read_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken.zarr"
    broken.mkdir()
    (broken / "zarr.json").write_text("{")
    assert offers(cli.main, ["train-head", "--store", str(broken), "--tap"]) == []
    assert offers(cli.main, ["train-head", "--config", str(tmp_path / "nope.toml"), "--loss"], "kl") == ["kld"]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_script_asks_every_program(shell: str) -> None:
    result = CliRunner().invoke(cli.main, ["completion", shell])
    assert result.exit_code == cli.OK
    for name in ("_REELBANK", "_FEATURIZE", "_TRAIN_HEAD", "_PROBE"):
        assert f"{name}_COMPLETE={shell}_complete" in result.stdout
    if program := shutil.which(shell):
        checked = subprocess.run([program, "-n"], input=result.stdout, text=True, capture_output=True, timeout=60)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_program_of_its_own_answers_a_shell() -> None:
    """As the script for bash asks: by variables, through the console script."""
    script = "import sys; sys.argv = ['train-head']; from reelbank.cli import train_head_main; train_head_main()"
    asked = {"_TRAIN_HEAD_COMPLETE": "bash_complete", "COMP_WORDS": "train-head --loss k", "COMP_CWORD": "2"}
    run = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **asked}, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "plain,kld\n", "")
