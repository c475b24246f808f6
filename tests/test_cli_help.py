"""The help of every command: options under headings, examples that work, readable where it is shown, quick."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import docs_pages
import pytest
from click.testing import CliRunner
from test_cli_json import COMMANDS
from test_docs_commands import accept

from reelbank import cli
from reelbank.extract.config import FeaturizeConfig
from reelbank.heads.explain_config import ExplainConfig
from reelbank.heads.predict_config import PredictConfig
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.search_config import FindConfig
from reelbank.heads.request import CONFIGS
from reelbank.store import console
from reelbank.store.examples import EXAMPLES
from reelbank.store.exchange.options import ExportConfig, ImportConfig
from reelbank.store.options import options

MOST_UNDER_ONE_HEADING = 9
"""A list of more options than this is not read: those of a command with more stand under headings."""
SCRIPTS = ("featurize", "train-head", "probe")


def shown(line: str, width: int, **given: bool) -> str:
    result = CliRunner().invoke(
        cli.main, [*shlex.split(line), "--help"], terminal_width=width, max_content_width=width, **given
    )
    assert result.exit_code == cli.OK, result.output
    return result.stdout


@pytest.mark.parametrize(
    "config",
    [*CONFIGS, ExplainConfig, ExportConfig, FeaturizeConfig, FindConfig, ImportConfig, PredictConfig, ProbeConfig],
)
def test_every_option_of_a_config_has_a_heading(config: type) -> None:
    assert [one.flag for one in options(config).values() if not one.group] == []


@pytest.mark.parametrize("line", COMMANDS)
def test_no_heading_has_more_options_than_are_read(line: str) -> None:
    groups = console.headed([one for one in COMMANDS[line].params if isinstance(one, click.Option)])
    long = {heading: len(found) for heading, found in groups.items() if len(found) > MOST_UNDER_ONE_HEADING}
    assert long == {}


def test_option_goes_on_under_the_heading_before_it_and_others_come_last() -> None:
    def option(flag: str, group: str = "") -> click.Option:
        return console.GroupedOption([flag], group=group)

    a, b, c, d = option("--a", "One"), option("--b"), option("--c", "Two"), option("--d", "One")
    assert console.headed([a, b, c, d]) == {"One": [a, d], "Two": [c], "Other options": [b]}
    assert console.headed([b]) == {"Options": [b]}
    train = [one for config in CONFIGS for one in options(config).values()]
    assert {one.group for one in train if one.name in ("epochs", "keep", "seed")} == {"Epochs and seed"}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("line", ["", "manifest", "store", *COMMANDS])
def test_help_fits_its_width_without_colour_and_ends_with_examples(line: str, width: int) -> None:
    text = shown(line, width)
    assert [one for one in text.splitlines() if len(one) > width] == []
    assert "\x1b" not in text
    assert all(part.strip() for part in text.partition("Examples:")[1:])
    commands = [one.lstrip() for one in text.partition("Examples:")[2].splitlines() if not one.startswith("  #")]
    assert 1 <= len([one for one in commands if one]) <= 4


@pytest.mark.parametrize("line", ["train-head", "featurize", "probe", "store import"])
def test_help_of_a_command_with_many_options_names_each_heading_once(line: str) -> None:
    headings = re.findall(r"^(\S.*):$", shown(line, 80), re.MULTILINE)
    assert len(headings) == len(set(headings)) >= 5
    assert headings[-2:] == ["Other options", "Examples"]


@pytest.mark.parametrize("where", EXAMPLES)
def test_examples_are_taken_by_their_commands(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for about, line in EXAMPLES[where]:
        assert not about.endswith(".")
        words = shlex.split(line.partition(" > ")[0])
        assert words[0] in docs_pages.PROGRAMS
        if "--help" not in words:
            accept(words, monkeypatch)


def test_every_command_has_examples() -> None:
    assert {"", "manifest", "store", *COMMANDS} == set(EXAMPLES)


def test_help_is_coloured_on_a_terminal_unless_that_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    line = ["probe", "--help"]
    assert "\x1b[1mAnalyses" in CliRunner().invoke(cli.main, line, color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in CliRunner().invoke(cli.main, line, color=True).stdout


def test_bare_command_shows_its_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    for line in ([], ["store"]):
        result = CliRunner().invoke(cli.main, line, color=True)
        assert (result.exit_code, result.stdout) == (cli.WRONG_USE, "")
        assert "\x1b[1mExamples" in result.stderr


@pytest.mark.parametrize("line", ["", "store", *COMMANDS])
def test_every_command_says_the_same_versions(line: str) -> None:
    result = CliRunner().invoke(cli.main, [*line.split(), "--version"])
    assert result.exit_code == cli.OK
    assert re.fullmatch(r"reelbank \S+, torch \S+, Python 3\.\d+\.\d+\S*\n", result.stdout)
    assert result.stdout == CliRunner().invoke(cli.main, ["--version"]).stdout


@pytest.mark.parametrize("line", ["reelbank --version", "train-head --version", "featurize --help", "reelbank"])
def test_help_and_version_load_little(line: str) -> None:
    """What takes time to import is named by `-X importtime`; rich alone would be a third of the whole."""
    name, *words = line.split()
    call = "main" if name == "reelbank" else f"{name.replace('-', '_')}_main"
    script = f"import sys; from reelbank import cli; sys.argv = {[name, *words]!r}; cli.{call}()"
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode in (cli.OK, cli.WRONG_USE)
    loaded = set(re.findall(r"\| +(\w+)$", run.stderr, re.MULTILINE))
    assert loaded & {"click", "torch", "zarr", "av", "rich", "pandas", "matplotlib", "scipy"} == {"click"}
