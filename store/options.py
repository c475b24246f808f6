"""Configs: frozen dataclasses whose fields are also the options of a command.

Name, default, choices and help of an option stand in one place, the field. A config may be made of parts, each a config
of its own; to a command, to JSON and to keywords it is flat, so a field's name is unique among all parts. This lies in
`store` because both stages have configs and neither may import the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_type_hints

from reelbank.store.accepted import WrongKind, accepted

if TYPE_CHECKING:
    import click

Command = TypeVar("Command", bound=Callable[..., Any])
Config = TypeVar("Config")


def option(
    default: Any,
    flag: str,
    text: str,
    choices: Sequence[str] | None = None,
    *,
    multiple: bool = False,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    name: str = "",
    more: str = "",
    group: str = "",
) -> Any:
    """A field of a config.

    Args:
        default: `dataclasses.MISSING` where the option must be given.
        flag: the option's name, `--batch`.
        text: help with unit and, where the default is no plain value, what it is.
        choices: the values there are.
        multiple: whether the option may be repeated; the field is then a tuple.
        least: the smallest value that can be used.
        most: the largest.
        above: what a value must be greater than; it must then be finite, too.
        name: of the option where it is not the field's.
        more: what may be given beside `choices`, in capitals; the config checks it. Empty: nothing else.
        group: heading in the command's help that begins here, or is gone on with: those after it stand there too.
    """
    metadata = {
        "help": text,
        "flag": flag,
        "choices": tuple(choices) if choices else None,
        "multiple": multiple,
        "least": least,
        "most": most,
        "above": above,
        "name": name,
        "more": more,
        "group": group,
    }
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


MAX_SEED = 2**32 - 1
"""Largest seed that every library takes."""
MAX_LISTED_WIDTH = 60
"""Choices in the help of one option, in characters: more would not fit beside its name."""
MAX_CPUS = 1024
"""Most worker processes or threads: a larger number is a slip of the hand."""


def check_options(config: Any, error: type[Exception]) -> None:
    """Brings every value of `config` into its field's type (text into a Path, one value into a tuple; see `accepted`).

    For every `__post_init__`, before it looks at a value.

    Raises `error`, naming the flag, for a value of another kind, no choice or out of bounds.
    """
    hints = get_type_hints(type(config))
    for entry in fields(config):
        if "flag" not in (meta := entry.metadata):
            continue
        try:
            held = accepted(getattr(config, entry.name), hints[entry.name])
        except WrongKind as wrong:
            named = meta["name"] or entry.name  # what to look for in a call: not always the flag's name
            aside = "" if meta["flag"] == f"--{named.replace('_', '-')}" else f" (the field {named})"
            many = ", or several" if meta["multiple"] else ""
            raise error(f"{meta['flag']} {wrong}{many}{aside}") from None
        object.__setattr__(config, entry.name, held)  # a config is frozen for all but its making
        for value in held if meta["multiple"] else () if held is None else (held,):
            _check_value(value, meta, error)


def _check_value(value: Any, meta: Mapping[str, Any], error: type[Exception]) -> None:
    flag, choices, least, most, above = (meta[key] for key in ("flag", "choices", "least", "most", "above"))
    if choices and value not in choices and not meta["more"]:
        raise error(f"{flag} {value!r} is not one of {', '.join(sorted(choices))}")
    if least is not None and not value >= least:
        raise error(f"{flag} {value} must be {least} or more")
    if most is not None and value > most:
        raise error(f"{flag} {value} must be {most} or less")
    if above is not None and not above < value < float("inf"):
        raise error(f"{flag} {value} must be above {above}")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a config.

    Attributes:
        part: the config that has it as a field: the one asked about or a part of it.
        path: names of the parts that lead there.
        type: the field's type.
    """

    part: type
    path: tuple[str, ...]
    type: Any
    entry: Field[Any]

    @property
    def name(self) -> str:
        """Its name among all options of a config."""
        return self.entry.metadata["name"] or self.entry.name

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return str(self.entry.metadata["flag"])

    @property
    def group(self) -> str:
        """The heading that it stands under in the help: its own, else that of the field before it; empty: none."""
        heading = ""
        for entry in fields(self.part):
            heading = entry.metadata.get("group") or heading
            if entry.name == self.entry.name:
                break
        return heading

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The values there are; None where it is no choice."""
        found: tuple[str, ...] | None = self.entry.metadata["choices"]
        return found

    @property
    def default(self) -> Any:
        """Its default; `dataclasses.MISSING` where it must be given."""
        return self.entry.default


def options(config: type) -> Mapping[str, Option]:
    """{name: option} of `config` and its parts, in their order."""
    return _options(config)


@cache
def _options(config: Any) -> Mapping[str, Option]:
    return {one.name: one for one in _walk(config, ())}


def _walk(config: type, path: tuple[str, ...]) -> Iterator[Option]:
    hints = get_type_hints(config)
    for entry in fields(config):
        hint = hints[entry.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from _walk(hint, (*path, entry.name))
        else:
            yield Option(part=config, path=path, type=hint, entry=entry)


def from_options(config: type[Config], values: Mapping[str, Any]) -> Config:
    """`config` from flat values, its parts made of those that are theirs.

    Raises TypeError for a name that is no option, and what the parts raise.
    """
    known = options(config)
    if unknown := sorted(set(values) - set(known)):
        raise TypeError(f"{config.__name__} has no option {unknown[0]!r}")
    hints = get_type_hints(config)
    given: dict[str, Any] = {known[name].entry.name: value for name, value in values.items() if not known[name].path}
    for entry in fields(config):  # type: ignore[arg-type]
        if is_dataclass(hints[entry.name]):
            own = {name: value for name, value in values.items() if known[name].path[:1] == (entry.name,)}
            given[entry.name] = from_options(hints[entry.name], own)
    return config(**given)


def with_options(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy of `config` with flat `values`; parts without a new value stay the same objects."""
    known = options(type(config))
    if unknown := sorted(set(values) - set(known)):
        raise TypeError(f"{type(config).__name__} has no option {unknown[0]!r}")
    changed: dict[str, Any] = {known[name].entry.name: value for name, value in values.items() if not known[name].path}
    for part in sorted({known[name].path[0] for name in values if known[name].path}):
        own = {name: value for name, value in values.items() if known[name].path[:1] == (part,)}
        changed[part] = with_options(getattr(config, part), own)
    return replace(config, **changed)  # type: ignore[type-var]


class Flat:
    """What a config that is made of parts can do with the fields of all of them."""

    @classmethod
    def of(cls, **values: Any) -> Self:
        """A configuration from the fields of its parts. Raises TypeError for a name that is none."""
        return from_options(cls, values)

    def but(self, **values: Any) -> Self:
        """A copy with other values of fields of its parts. Raises TypeError for a name that is none."""
        return with_options(self, values)

    def to_json(self) -> dict[str, Any]:
        """Every field of every part as JSON types: paths as text, tuples as lists."""
        return {name: _plain(value) for name, value in flat(self).items()}


def flat(config: Any) -> dict[str, Any]:
    """{name: value} of every option of `config`, in their order."""
    values = {}
    for name, one in options(type(config)).items():
        owner = config
        for part in one.path:
            owner = getattr(owner, part)
        values[name] = getattr(owner, one.entry.name)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def named_values(
    texts: Sequence[str], defaults: Mapping[str, Any], *, flag: str, owner: str, error: type[ValueError]
) -> dict[str, Any]:
    """Options given as NAME=VALUE, each in the type of its default.

    Args:
        texts: what was given by `flag`.
        defaults: {name: default} of the options that `owner` has.
        owner: what has them, for the message: `head 'mlp'`.

    Raises `error` for an option that is not there or given twice, or a value of another type.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise error(f"{flag} {text!r} is not of the form NAME=VALUE")
        if name not in defaults:
            raise error(f"{flag} {name}: {owner} has no such option; it has {', '.join(sorted(defaults)) or 'none'}")
        if name in values:
            raise error(f"{flag} {name} of {owner} is given twice")
        try:
            values[name] = _in_type_of(defaults[name], value)
        except (KeyError, ValueError):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}[type(defaults[name])]
            raise error(f"{flag} {name}: {owner} wants {wanted}, not {value!r}") from None
    return values


def _in_type_of(default: Any, text: str) -> Any:
    """`text` as a bool, int or float where `default` is one; else as it is."""
    if isinstance(default, bool):
        return {"true": True, "false": False}[text.lower()]
    return type(default)(text) if isinstance(default, int | float) else text


def options_of(config: type, *others: type) -> Callable[[Command], Command]:
    """A decorator that gives a click command one option per field of the configs, in their order, each once.

    What must be given is what `config` needs; the fields of `others` are optional.
    """

    def decorate(command: Command) -> Command:
        found = {name: one for other in others for name, one in options(other).items()}
        for one in reversed({**options(config), **found}.values()):
            needed = one.default is MISSING and one.name in options(config)
            command = _click_option(one, required=needed)(command)
        return command

    return decorate


def _click_option(one: Option, *, required: bool) -> Callable[[Command], Command]:
    import click

    from reelbank.store.console import GroupedOption

    meta = one.entry.metadata
    text = str(one.type)
    default = None if one.default is MISSING else one.default
    settings: dict[str, Any] = {"help": meta["help"], "default": default, "required": required}
    flag = one.flag
    if one.type is bool:
        if default:
            flag = f"{flag}/--no-{flag.removeprefix('--')}"
        settings["is_flag"] = True
    elif meta["choices"] and meta["more"]:
        listed = "|".join([*sorted(meta["choices"]), meta["more"]])
        named = f"{one.name.upper()}|{meta['more']}"  # the help says which command lists them
        settings["metavar"] = f"[{listed if len(listed) <= MAX_LISTED_WIDTH else named}]"
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
    return click.option(flag, one.name, cls=GroupedOption, group=one.group, **settings)


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
