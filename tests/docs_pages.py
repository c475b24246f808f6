"""What README, the pages and the notebook of docs/ show: command blocks with their marks, and code in running text.

A fenced block of the language `bash` holds command lines. It is run by the tests, in order, unless a comment before it
says what it needs: `<!-- needs: data, weights -->`. A page says in what folder its commands begin:
`<!-- starts with: rendered set -->`. A block that is a file of the reader's says which: `<!-- file: mine.py -->`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]

NEEDS: Mapping[str, str] = {
    "data": "videos or tables of the reader's own, or a published set",
    "gpu": "a GPU of NVIDIA or Apple",
    "plug-in": "a package that the page makes: another test installs it and runs these blocks (test_plugins_howto.py)",
    "install": "a fresh clone, or the network: it makes the environment that the tests run in",
    "time": "minutes or hours",
    "weights": "published weights",
}
"""{mark of a block that is not run: what the tests do not have}."""

LANGUAGES = ("bash", "python", "text")
STARTS = ("an empty folder", "class folders", "rendered set", "stores")
PROGRAMS = ("reelbank", "featurize", "train-head", "probe")

OTHER_OPTIONS: Mapping[str, str] = {"--full": "benchmarks/run.py", "--scale": "benchmarks/run.py"}
"""{option in running text that belongs to no command: the script that has it}."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)")
_MARK = re.compile(r"^\s*<!-- (?P<kind>needs|starts with|file): (?P<words>.*) -->$")
_CODE = re.compile(r"`([^`]+)`")
_STATUS = re.compile(r"# exit status (\d)$")
_OPTION = re.compile(r"^--?[a-z][a-z-]*")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        place: `docs/tutorial.md:12`, for messages.
        language: what stands after the fence.
        needs: marks of NEEDS.
        lines: what it holds.
        file: what it is written as, in the folder of the commands; empty: it is no file.
    """

    place: str
    language: str
    needs: tuple[str, ...]
    lines: tuple[str, ...]
    file: str = ""

    def commands(self) -> list[tuple[list[str], int]]:
        """(words, exit status) of each command line; lines that end in a backslash are joined.

        The exit status is 0 unless the line says `# exit status N`; other comments are gone.
        """
        found = []
        for line in "\n".join(self.lines).replace("\\\n", " ").splitlines():
            said = _STATUS.search(line)
            status = int(said[1]) if said else 0
            found += [(words, status) for words in _parted(shlex.split(line, comments=True)) if words]
        return found


@dataclass(frozen=True, kw_only=True)
class Page:
    """README or a page of docs/.

    Attributes:
        name: path below the root.
        starts: what lies in the folder that its commands begin in, of STARTS.
        blocks: in order.
        code: (line, content) of every piece of code in running text.
    """

    name: str
    starts: str
    blocks: tuple[Block, ...]
    code: tuple[tuple[int, str], ...]


def paths() -> list[Path]:
    """README, every page that a person wrote, the notebook; CHANGELOG may name what is gone."""
    top = (ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"))
    return [*top, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "docs" / "colab.ipynb"]


def read(path: Path) -> Page:
    """A page. Raises ValueError, with file and line, for a mark or a language that is not in the lists above."""
    name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    if path.suffix == ".ipynb":
        return _notebook(name, json.loads(path.read_text(encoding="utf-8"))["cells"])
    starts, needs, written = STARTS[0], tuple[str, ...](), ""
    blocks, code = [], []
    fence, held, first = "", list[str](), 0
    text: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        opened = _FENCE.match(line)
        if fence:
            if line.strip() == "```":
                language = fence.removeprefix("```")
                if not language.startswith("{"):  # a directive of MyST
                    _check(language, LANGUAGES, f"{name}:{first}", "the language of a block")
                    place = f"{name}:{first}"
                    blocks.append(Block(place=place, language=language, needs=needs, lines=tuple(held), file=written))
                fence, held, needs, written = "", [], (), ""
            else:
                held.append(line)
        elif opened:
            fence, first = f"```{opened['language']}", number
        elif mark := _MARK.match(line):
            if mark["kind"] == "needs":
                needs = tuple(word.strip() for word in mark["words"].split(","))
                for word in needs:
                    _check(word, tuple(NEEDS), f"{name}:{number}", "what a block needs")
            elif mark["kind"] == "file":
                written = mark["words"]
            else:
                starts = mark["words"]
                _check(starts, STARTS, f"{name}:{number}", "what a page starts with")
        elif line.strip():
            if needs or written:
                raise ValueError(f"{name}:{number}: `<!-- needs: ... -->` must stand right before a block")
            text.append((number, line))
    # A piece of code may go over the end of a line.
    lines_of = [number for number, line in text for _ in line + "\n"]
    joined = "".join(line + "\n" for _, line in text)
    for found in _CODE.finditer(joined):
        code.append((lines_of[found.start()], " ".join(found[1].split())))
    return Page(name=name, starts=starts, blocks=tuple(blocks), code=tuple(code))


def _notebook(name: str, cells: list[dict[str, Any]]) -> Page:
    """A notebook as a page: a cell of `!` and `%cd` lines is a block of bash, tags say what a cell needs."""
    blocks, code = [], []
    for number, cell in enumerate(cells, start=1):
        text, place = "".join(cell["source"]), f"{name}:{number}"
        if cell["cell_type"] == "markdown":
            code += [(number, " ".join(found[1].split())) for found in _CODE.finditer(text)]
            continue
        needs, lines = tuple(cell["metadata"].get("tags", ())), tuple(text.splitlines())
        for word in needs:
            _check(word, tuple(NEEDS), place, "what a cell needs")
        shell = [line.startswith(("!", "%cd ")) for line in lines]
        if any(shell) != all(shell):
            raise ValueError(f"{place}: commands and Python in one cell; give each its own")
        given = tuple(line[1:] for line in lines) if any(shell) else lines
        blocks.append(Block(place=place, language="bash" if any(shell) else "python", needs=needs, lines=given))
    return Page(name=name, starts=STARTS[0], blocks=tuple(blocks), code=tuple(code))


def _check(word: str, known: tuple[str, ...], place: str, what: str) -> None:
    if word not in known:
        raise ValueError(f"{place}: {word!r} is not {what}; choose one of {', '.join(known)}")


def _parted(words: list[str]) -> Iterator[list[str]]:
    """Commands of one line that are joined by &&."""
    command: list[str] = []
    for word in [*words, "&&"]:
        if word == "&&":
            yield command
            command = []
        else:
            command.append(word)


def without_container(words: list[str]) -> list[str]:
    """The command that `docker run` gives to an image of reelbank; other lines as they are."""
    images = [i for i, word in enumerate(words) if re.fullmatch(r"reelbank(-\w+)?", word)]
    return ["reelbank", *words[images[0] + 1 :]] if words[:2] == ["docker", "run"] and images else words


def resolve(main: click.Group, words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line calls, and its arguments. Raises ValueError for a command that is not there."""
    rest = words[1:] if words[0] == "reelbank" else list(words)
    command: click.Command = main
    while isinstance(command, click.Group):
        if not rest or rest[0] not in command.commands:
            known = ", ".join(sorted(command.commands))
            raise ValueError(f"{' '.join(words)!r}: no such command; {command.name} has {known}")
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def parse(main: click.Group, words: list[str]) -> dict[str, Any]:
    """The values of a command line, without running it. Raises ValueError where click does not take it."""
    command, rest = resolve(main, words)
    try:
        return command.make_context(command.name, list(rest)).params
    except click.ClickException as error:
        raise ValueError(f"{' '.join(words)!r}: {error.format_message()}") from error


def options_of(command: click.Command) -> set[str]:
    """Every spelling of every option, `--help` among them."""
    found = {"--help", "-h"}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def commands_of(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """(`store info`, command) of every command that does something."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def problems_in_text(page: Page, main: click.Group) -> list[str]:
    """Commands and options in running text that are not there.

    Text may show a part of a line (`train-head --folds 5`, `--folds 5`, `reelbank store`), so only names are looked at.
    """
    every = {"--help", "-h", "--version", *OTHER_OPTIONS}
    for _, command in commands_of(main):
        every |= options_of(command)
    found = []
    for number, code in page.code:
        words = code.split()
        known, where = every, "no command has it"
        if words[0] in PROGRAMS and words[1:2] != ["="]:
            group: click.Command = main
            for word in words[1:] if words[0] == "reelbank" else words:
                if not isinstance(group, click.Group) or word.startswith("-") or word.isupper():
                    break
                if word not in group.commands:
                    found.append(f"{page.name}:{number}: `{code}`: there is no command {word!r}")
                    break
                group = group.commands[word]
            if not isinstance(group, click.Group):
                known, where = options_of(group), f"{group.name} does not have it"
        elif not words[0].startswith("-"):
            continue
        for word in words:
            option = _OPTION.match(word)
            if option and option[0] not in known:
                found.append(f"{page.name}:{number}: `{code}`: {option[0]}: {where}")
    return found
