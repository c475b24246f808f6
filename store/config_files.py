"""Options from a file: `--config run.toml`, or the record that a run keeps of its own (`--config RUN/config.json`).

What is given on the command line wins. A value goes through the same conversion as one that is typed, so a wrong one is
the same error, with the file's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Wrapped = TypeVar("Wrapped", bound=Callable[..., Any])

RECORD = "config"
"""Where a record (`config.json` of a run, `results.json` of a probe) holds the options."""
PLACE = ("out", "overwrite", "resume", "run")
"""Options that say where results lie: a record's own are left out, or a replay would be refused or replace the run."""
MOST_NAMED = 8
_META, _RECORD_META = "reelbank.config_file", "reelbank.config_record"


def config_option(command: Wrapped) -> Wrapped:
    """A decorator that gives a click command --config."""
    return click.option(
        "--config", type=click.Path(path_type=Path), is_eager=True, expose_value=False, callback=_read,
        help="TOML file of options by their long names, or config.json of a run, which is done again; "
        "what is given beside it wins.",
    )(command)  # fmt: skip


def _read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Makes the values of a file the defaults of a command."""
    if path is None or ctx.resilient_parsing:
        return
    ctx.meta[_META] = path
    found, record = _load(path, ctx, param)
    ctx.meta[_RECORD_META] = record
    options = [one for one in ctx.command.params if isinstance(one, click.Option) and hasattr(one, "group")]
    names = {_dashed(name): one for one in options for name in (one.name or "", *one.opts)}
    given: dict[str, Any] = {}
    for key, value in found.items():
        option = names.get(_dashed(key))
        if option is None:
            wrong = click.NoSuchOption(f"--{_dashed(key)}", ctx=ctx)
            wrong.add_note(f"{path} has {key!r}")
            raise wrong
        name = option.name or ""
        if record and name in PLACE:
            continue
        if name in given:
            raise click.BadParameter(f"{path} has {option.opts[0]} twice", ctx, param)
        given[name] = _as_typed(value, option, ctx)
    ctx.default_map = given


def _load(path: Path, ctx: click.Context, param: click.Parameter) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(options of a file, the whole file if it is a record, else empty)."""
    import tomllib  # not for every --help

    from reelbank.manifests.files import regular
    from reelbank.store.files import json_object

    try:
        if path.is_dir():
            raise ValueError(f"it is a folder; did you mean {path / 'config.json'}?")
        data = regular(path).read_bytes()
        found: Mapping[str, Any] = json_object(data) if path.suffix == ".json" else tomllib.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise click.BadParameter(f"{path}: {said}", ctx, param) from None
    if path.suffix == ".json" and isinstance(options := found.get(RECORD), Mapping):
        return options, found
    return found, {}


def _dashed(name: str) -> str:
    return name.lstrip("-").replace("_", "-")


def _as_typed(value: Any, option: click.Option, ctx: click.Context) -> Any:
    """A value of the file as it would be typed: numbers as text, so that 1.5 is no whole number there either."""
    if value is None or (isinstance(value, bool) and option.is_flag):
        return value
    if isinstance(value, Mapping):
        raise click.BadParameter("a table; options stand at the top of the file", ctx, option)
    if isinstance(value, list):
        if option.multiple:
            return [_text(item) for item in value]
        if option.metavar != "A:B":
            raise click.BadParameter(f"{value!r}: one value is needed, not a list", ctx, option)
        return ":".join(map(_text, value))
    return [_text(value)] if option.multiple else _text(value)


def _text(value: Any) -> str:
    return (
        value if isinstance(value, str) else json.dumps(value) if isinstance(value, bool | int | float) else str(value)
    )


def _of_source(ctx: click.Context, source: ParameterSource) -> list[click.Option]:
    return [
        one for one in ctx.command.params
        if isinstance(one, click.Option) and one.name and ctx.get_parameter_source(one.name) is source
    ]  # fmt: skip


def given_names(ctx: click.Context) -> set[str]:
    """The options that a person gave, by name: on the command line or in a file that is no record."""
    typed = _of_source(ctx, ParameterSource.COMMANDLINE)
    written = [] if ctx.meta.get(_RECORD_META) else _of_source(ctx, ParameterSource.DEFAULT_MAP)
    return {str(option.name) for option in (*typed, *written)}


def recorded_names(ctx: click.Context) -> set[str]:
    """The options that a record of an earlier run gave, by name, and nobody typed."""
    written = _of_source(ctx, ParameterSource.DEFAULT_MAP) if ctx.meta.get(_RECORD_META) else []
    return {str(option.name) for option in written}


def changed_since(ctx: click.Context, now: Mapping[str, Any]) -> str:
    """A last line, with the break before it, where a replay found other data than its record had, or other plug-ins.

    Args:
        now: the record of the new run.
    """
    said = {"data_digest": "clips, labels or spec of the stores", "plugins": "the source of plug-ins"}
    record = ctx.meta.get(_RECORD_META) or {}
    changed = [what for key, what in said.items() if record.get(key, now.get(key)) != now.get(key)]
    return f"\nNo replay: {' and '.join(changed)} differ from those of {ctx.meta[_META]}" if changed else ""


def note_file(ctx: click.Context, error: click.ClickException) -> None:
    """Gives an error a note for every option of a file that it speaks of: where it comes from."""
    if _META not in ctx.meta:
        return
    message = error.format_message()
    for option in _of_source(ctx, ParameterSource.DEFAULT_MAP):
        flag, value = option.opts[0], (ctx.default_map or {})[option.name or ""]
        paths = (value if isinstance(value, list) else [value]) if isinstance(option.type, click.Path) else []
        if lost := [path for path in paths if path and path in message]:
            error.add_note(
                f"{flag} {lost[0]} is from {ctx.meta[_META]}; if it lies elsewhere now, give {flag} beside it"
            )
        elif flag in message.replace("=", " ").replace("'", " ").split():
            error.add_note(f"{flag} is from {ctx.meta[_META]}")


def origins(ctx: click.Context) -> dict[str, Any]:
    """{file, from_file, from_command_line: options}: where the options of a call come from. Empty without a file."""
    if _META not in ctx.meta:
        return {}
    sources = {"from_file": ParameterSource.DEFAULT_MAP, "from_command_line": ParameterSource.COMMANDLINE}
    named = {
        key: [one.opts[0] for one in _of_source(ctx, source) if hasattr(one, "group")]
        for key, source in sources.items()
    }
    return {"options": {"file": str(ctx.meta[_META]), **named}}


def origins_text(ctx: click.Context) -> str:
    """`origins` as a last line, which begins with the line's break."""
    if not (found := origins(ctx)):
        return ""
    file, from_file, typed = found["options"].values()
    named = ", ".join(from_file) if len(from_file) <= MOST_NAMED else f"{len(from_file)} of them"
    beside = f"; of the command line: {', '.join(typed)}" if typed else ""
    return f"\nOptions: of {file}: {named or 'none'}{beside}; others are the defaults"
