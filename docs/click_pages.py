"""A tree of click commands as Markdown: a section per command, an entry per option."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from reelbank.docs.docstrings import escaped, table
from reelbank.store.console import headed
from reelbank.store.examples import EXAMPLES


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """(names from the root, command) of every command below `group`, groups before what they hold."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@dataclass(frozen=True, kw_only=True)
class Program:
    """How commands are typed and shown.

    Attributes:
        name: what the group of everything is called on the command line.
        scripts: commands that are also programs of their own; they come first.
    """

    name: str
    scripts: frozenset[str] = frozenset()


def page(root: click.Group, program: Program) -> str:
    """The overview and all sections."""
    found = list(commands(root))
    # Stable: a group keeps what it holds behind it.
    found.sort(
        key=lambda entry: (entry[0][0] not in program.scripts, isinstance(root.commands[entry[0][0]], click.Group))
    )
    rows = [
        (f"[`{_typed(path, program)}`](#{'-'.join(path)})", escaped(command.get_short_help_str(200)))
        for path, command in found
        if not isinstance(command, click.Group)
    ]
    return "\n\n".join([table(("command", "does"), rows), *(_section(*entry, program) for entry in found)])


def _typed(path: tuple[str, ...], program: Program) -> str:
    return " ".join(path if path[0] in program.scripts else (program.name, *path))


def _section(path: tuple[str, ...], command: click.Command, program: Program) -> str:
    typed, level = _typed(path, program), "#" * (len(path) + 1)
    context = click.Context(command, info_name=typed)
    parts = [f"{level} {' '.join(path)}", escaped(_help(command))]
    if isinstance(command, click.Group):
        return "\n\n".join(parts)
    usage = " ".join([typed, *command.collect_usage_pieces(context)])
    parts.append(f"```text\n{usage}\n```")
    if path[0] in program.scripts:
        parts.append(f"The same as `{program.name} {' '.join(path)}`.")
    if examples := EXAMPLES.get(" ".join(path), ()):
        lines = [word for about, line in examples for word in (f"# {about}" if about else "", line) if word]
        parts.append("```text\n{}\n```".format("\n".join(lines)))
    groups = headed([item for item in command.params if isinstance(item, click.Option) and not item.hidden])
    for heading, options in groups.items():
        if len(groups) > 1:
            parts.append(f"{level}# {' '.join(path)}: {heading}")
        parts += [_option(option, context) for option in options]
    return "\n\n".join(filter(None, parts))


def _help(command: click.Command) -> str:
    """The help as paragraphs of one line each; `\\b`, which keeps click from wrapping, is not shown."""
    text = (command.help or "").replace("\b", "")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _option(option: click.Option, context: click.Context) -> str:
    """An entry of a definition list."""
    names = "/".join((*option.opts, *option.secondary_opts))
    value = "" if option.is_flag or option.count else f" {option.make_metavar(context)}"
    text, notes = _without_default(option.help or ""), []
    if option.required:
        notes.append("Must be given.")
    if option.multiple:
        notes.append("May be repeated.")
    extra: dict[str, Any] = dict(option.get_help_extra(context))
    if "range" in extra:
        notes.append(f"Range: `{extra['range']}`.")
    if "default" in extra:
        notes.append(f"Default: `{extra['default']}`.")
    sentence = escaped(text)
    if sentence and not sentence.endswith("."):
        sentence += "."
    return f"`{names}{value}`\n: {' '.join(filter(None, [sentence, *notes]))}"


def _without_default(text: str) -> str:
    """Help that was written with `[default: ...]` in it, the default as a sentence."""
    before, bracket, default = text.partition("[default: ")
    return f"{before.strip().rstrip('.')}. Default: {default.rstrip('] ')}" if bracket else " ".join(text.split())
