"""A tree of click commands as Markdown: a section per command, an entry per option."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from reelbank.docs.docstrings import escaped, table


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """(names from the root, command) of every command below `group`, groups before what they hold."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def page(root: click.Group, program: str, scripts: frozenset[str]) -> str:
    """The overview and all sections.

    Args:
        root: the group of everything.
        program: what it is called on the command line.
        scripts: commands that are also programs of their own; they come first.
    """
    found = list(commands(root))
    # Stable: a group keeps what it holds behind it.
    found.sort(key=lambda entry: (entry[0][0] not in scripts, isinstance(root.commands[entry[0][0]], click.Group)))
    rows = [
        (f"[`{_typed(path, program, scripts)}`](#{'-'.join(path)})", escaped(command.get_short_help_str(200)))
        for path, command in found
        if not isinstance(command, click.Group)
    ]
    return "\n\n".join([table(("command", "does"), rows), *(_section(*entry, program, scripts) for entry in found)])


def _typed(path: tuple[str, ...], program: str, scripts: frozenset[str]) -> str:
    return " ".join(path if path[0] in scripts else (program, *path))


def _section(path: tuple[str, ...], command: click.Command, program: str, scripts: frozenset[str]) -> str:
    typed = _typed(path, program, scripts)
    context = click.Context(command, info_name=typed)
    parts = [f"{'#' * (len(path) + 1)} {' '.join(path)}", escaped(_help(command))]
    if isinstance(command, click.Group):
        return "\n\n".join(parts)
    usage = " ".join([typed, *command.collect_usage_pieces(context)])
    parts.append(f"```text\n{usage}\n```")
    if path[0] in scripts:
        parts.append(f"The same as `{program} {' '.join(path)}`.")
    for title, options in option_groups(command):
        parts += [f"**{escaped(title)}**"] if title else []
        parts += [_option(option, context) for option in options]
    return "\n\n".join(parts)


def _help(command: click.Command) -> str:
    """The help as paragraphs of one line each; `\\b`, which keeps click from wrapping, is not shown."""
    text = (command.help or "").replace("\b", "")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def option_groups(command: click.Command) -> list[tuple[str, list[click.Option]]]:
    """(title, options) in their order; one group without a title where a command does not part its options."""
    groups: dict[str, list[click.Option]] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            groups.setdefault(str(getattr(parameter, "group", "") or ""), []).append(parameter)
    return list(groups.items())


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
