"""The parts of the docs that programs write are what code and measurements say, and every page is in the site."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from attacks import ATTACKS, table
from click.testing import CliRunner
from docs_pages import ROOT, commands_of

from reelbank import cli
from reelbank.benchmarks import readme
from reelbank.benchmarks.measuring import RESULTS
from reelbank.docs import click_pages, docstrings, evidence, evidence_heads, generate
from reelbank.store import console

MAX_README_LINES = 120
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """{name: text} of the generated parts."""
    folder = tmp_path_factory.mktemp("reference")
    generate.write(folder)
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}


def sections(text: str) -> dict[str, str]:
    """{heading: what follows it}."""
    found = re.split(r"^#{2,4} (.*)$", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("line", [name for name, _ in commands_of(cli.main)])
def test_every_command_has_a_section_with_every_option_of_its_help(line: str, parts: dict[str, str]) -> None:
    text = CliRunner().invoke(cli.main, [*line.split(), "--help"], terminal_width=200).output
    offered = set(re.findall(r"^ {2}(?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)) - {"--help", "--version"}
    found = sections(parts["commands"])
    section = "\n".join(text for heading, text in found.items() if heading.partition(": ")[0] == line)
    described = dict(re.findall(r"^`([^`]*)`\n: (.+)$", section, re.MULTILINE))
    assert {names.split()[0].split("/")[0] for names in described} == offered
    assert [names for names, sentence in described.items() if len(sentence) < 5] == []


def test_option_without_help_or_default_is_shown_as_it_is() -> None:
    @click.command()
    @click.option("--size", type=int, default=3, show_default=True, help="how *big*", multiple=True)
    @click.option("--name", required=True)
    def cut() -> None:
        """Cut <it>."""

    page = click_pages.page(click.Group(commands={"cut": cut}), click_pages.Program(name="tool"))
    assert "| [`tool cut`](#cut) | Cut \\<it\\>. |" in page
    assert "`--size INTEGER`\n: how \\*big\\*. May be repeated. Default: `3`." in page
    assert "`--name TEXT`\n: Must be given." in page


def test_options_stand_under_the_heading_of_their_group() -> None:
    @click.command()
    @click.option("--size", cls=console.GroupedOption, group="Form", help="a")
    @click.option("--name", help="b")
    @click.option("--depth", cls=console.GroupedOption, group="Form", help="c")
    def cut() -> None:
        """Cut."""

    page = click_pages.page(
        click.Group(commands={"cut": cut}), click_pages.Program(name="tool", scripts=frozenset({"cut"}))
    )
    assert re.findall(r"^(?:#.*|`--\S+)", page, re.MULTILINE) == [
        "## cut",
        "### cut: Form",
        "`--size",
        "`--depth",
        "### cut: Other options",
        "`--name",
    ]
    assert "The same as `tool cut`." in page


def test_reference_names_what_the_tables_hold(parts: dict[str, str]) -> None:
    expected = {
        "heads": [*generate.HEADS, *generate.LOSSES, *generate.METRICS],
        "manifest": [*generate.GUARDED_SPLITS, *generate.PATH_COLUMNS, "group", "start_seconds"],
        "python": ["FeaturizeConfig", "TrainConfig", "ManifestError", "open(path: Path | str) -> Store"],
        "recipes": list(generate.RECIPES),
        "run-directory": ["config.json", "metrics.jsonl", "predictions.csv", "results.json"],
        "store-format": ["features/cls", "mean/cls", "clips/status", "checksums/layer3", "thumbnails/rgb", "sampling"],
    }
    for name, words in expected.items():
        assert [word for word in words if f"`{word}" not in parts[name]] == [], name


def test_class_without_the_section_that_the_reference_shows_is_an_error() -> None:
    class Bare:
        """It says nothing of its attributes."""

    with pytest.raises(ValueError, match="Bare has no section Attributes:"):
        docstrings.attributes(Bare)
    with pytest.raises(ValueError, match="has no docstring"):
        docstrings.summary(lambda: None)


def test_every_generated_part_is_included_by_its_page() -> None:
    for name in generate.PAGES:
        page = (REFERENCE / f"{name}.md").read_text(encoding="utf-8")
        assert f"```{{include}} ../../build/reference/{name}.md\n```" in page


def test_every_page_stands_in_the_table_of_contents() -> None:
    listed = set(re.findall(r"^[a-z0-9/-]+$", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    there = {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in there if not page.startswith("example")} - {"index"} == listed


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_README_LINES
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("path", [readme.PAGE, readme.README], ids=["page", "README"])
def test_tables_of_benchmarks_are_those_of_the_results(path: Path, tmp_path: Path) -> None:
    copies = {name: tmp_path / name.name for name in (readme.PAGE, readme.README)}
    for name, copy in copies.items():
        copy.write_text(name.read_text())
    readme.regenerate(RESULTS, copies[readme.PAGE], copies[readme.README])
    assert copies[path].read_text() == path.read_text(), "run python benchmarks/readme.py"


@pytest.mark.parametrize(("path", "made", "markers"), [
    (table.README, table.summary, table.SUMMARY), (table.PAGE, table.details, table.DETAILS),
], ids=["README", "page"])  # fmt: skip
def test_tables_of_attacks_are_those_of_their_results(
    path: Path, made: Callable[[Path], str], markers: tuple[str, str], tmp_path: Path
) -> None:
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    readme.replace(copy, made(table.RESULTS), *markers)
    assert copy.read_text() == path.read_text(), "run python -m attacks.table"
    assert set(table.found(table.RESULTS)) == set(ATTACKS), "an attack without results in tests/attacks/results"


def test_table_of_attacks_adds_runs_and_says_what_did_not_hold(tmp_path: Path) -> None:
    for seed, bad in ((1, []), (2, ["x"])):
        row = {"kind": "a bit", "tried": 1000, "not_held": bad, "facts": {"noticed": 900}}
        data = {"attack": "bit_flips", "seed": seed, "tried": [row]}
        (tmp_path / f"bit_flips-{seed}.json").write_text(json.dumps(data))
    assert table.summary(tmp_path).endswith("seeds: 2,000 flipped bits of stores. What did not hold: 1.")
    assert table.details(tmp_path).endswith("| `bit_flips` (1, 2) | a bit | 2,000 | 1 | 1,800 noticed |")


@pytest.mark.parametrize("path", evidence.TABLES, ids=lambda path: path.name)
def test_tables_of_evidence_are_those_of_its_results(path: Path) -> None:
    found = json.loads(evidence.RESULT.read_text())
    assert evidence.renewed(path, found) == path.read_text(), "run docs/evidence.py"
    found["fight"][0]["accuracy"] = 0.123
    found["defaults"][0]["new"][0] = 0.123
    assert evidence.renewed(path, found) != path.read_text()


def test_cosines_of_evidence_are_of_each_step_less_the_mean_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips are matched by id; what all steps share (here 100) does not count."""
    steps = {"a": np.array([[101.0, 100], [99, 100]]), "b": np.array([[100.0, 101], [100, 99]])}
    turned = steps | {"b": steps["b"][::-1]}

    def opened(path: Path) -> SimpleNamespace:
        held, order = (turned, ["b", "a"]) if path.name == "after" else (steps, ["a", "b"])
        return SimpleNamespace(
            default_tap="pool",
            column=lambda name: np.array(order),
            done_rows=lambda: np.arange(2),
            read=lambda tap, row: held[order[row]][None],
        )

    monkeypatch.setattr(evidence_heads.store, "open", opened)
    assert evidence_heads._cosines(Path("before"), Path("after")) == pytest.approx([-1.0, 0.0])
    assert evidence_heads._cosines(Path("before"), Path("before")) == pytest.approx([1.0, 1.0])


def test_no_default_is_worse_than_its_baseline_with_intervals_apart() -> None:
    """The promise of README's table; `python docs/evidence.py defaults` measures it."""
    rows = json.loads(evidence.RESULT.read_text())["defaults"]
    assert len(rows) == 5
    for row in rows:
        _, low, high = row["new"]
        assert low < row["constant"] if row["metric"] == "mae" else high > row["constant"], row["id"]
