"""Configs: frozen dataclasses whose fields are also the options of a command.

Name, default, choices and help of an option stand in one place, the field. This lies in `store` because both stages
have configs and neither may import the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

if TYPE_CHECKING:
    import click

Command = TypeVar("Command", bound=Callable[..., Any])


def option(
    default: Any, flag: str, text: str, choices: Sequence[str] | None = None, *, multiple: bool = False, more: str = ""
) -> Any:  # fmt: skip
    """A field of a config.

    Args:
        default: `dataclasses.MISSING` where the option must be given.
        flag: the option's name, `--batch`.
        text: help with unit and, where the default is no plain value, what it is.
        choices: the values there are.
        more: what may be given beside `choices`, in capitals; the config checks it. Empty: nothing else.
        multiple: whether the option may be repeated; the field is then a tuple.
    """
    metadata = {"help": text, "flag": flag, "choices": tuple(choices) if choices else None, "multiple": multiple}
    metadata["more"] = more
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def options_of(config: type) -> Callable[[Command], Command]:
    """A decorator that gives a click command one option per field of `config`, in their order."""

    def decorate(command: Command) -> Command:
        hints = get_type_hints(config)
        for entry in reversed(fields(config)):
            command = _click_option(entry, hints[entry.name])(command)
        return command

    return decorate


def _click_option(entry: Field[Any], hint: Any) -> Callable[[Command], Command]:
    import click

    meta = entry.metadata
    text = str(hint)
    default = None if entry.default is MISSING else entry.default
    settings: dict[str, Any] = {"help": meta["help"], "default": default, "required": entry.default is MISSING}
    flag = meta["flag"]
    if hint is bool:
        if default:
            flag = f"{flag}/--no-{flag.removeprefix('--')}"
        settings["is_flag"] = True
    elif meta["choices"] and meta["more"]:
        settings["metavar"] = f"[{'|'.join([*sorted(meta['choices']), meta['more']])}]"
    elif meta["choices"]:
        settings["type"] = click.Choice(sorted(meta["choices"]))
    elif "tuple[float, float]" in text:
        settings |= {"callback": _pair, "metavar": "A:B"}
        settings["default"] = None if default is None else f"{default[0]:g}:{default[1]:g}"
    elif "Path" in text:
        settings["type"] = click.Path(path_type=Path)
    elif "int" in text:
        settings["type"] = int
    elif "float" in text:
        settings["type"] = float
    settings["multiple"] = meta["multiple"]
    settings["show_default"] = default is not None and default != () and default is not False
    return click.option(flag, entry.name, **settings)


def _pair(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """Two numbers as A:B."""
    import click

    if value is None:
        return None
    try:
        low, high = (float(part) for part in value.split(":"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not of the form A:B, e.g. 0:1000", ctx, param) from None
    return low, high
