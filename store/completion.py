"""What the Tab key offers: names of the tables, stores and runs here, taps of what the line names.

For the command line alone (`console`, `cli.py`), which knows all stages: tables are named as `module:attribute` and
loaded when a shell asks. What cannot be read offers nothing, because a shell shows no error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "fish", "zsh")
PROGRAMS = ("reelbank", "featurize", "train-head", "probe")
"""The console scripts."""


def _named(table: str) -> Callable[[click.Context], Iterable[str]]:
    """The names of a table, those that installed packages add among them; nothing of a package is loaded for it."""

    def listed(ctx: click.Context) -> Iterable[str]:
        module, _, attribute = table.partition(":")
        found = getattr(import_module(module), attribute)
        names: Iterable[str] = found() if callable(found) else found.names() if hasattr(found, "names") else found
        return names

    return listed


def _stores(ctx: click.Context) -> Iterable[str]:
    return _folders("*.zarr", "*/*.zarr")


def _runs(ctx: click.Context) -> Iterable[str]:
    return (str(Path(found).parent) for found in _folders("*/config.json", "*/*/config.json"))


def _folders(*patterns: str) -> list[str]:
    return [str(found) for pattern in patterns for found in sorted(Path().glob(pattern))]


def _taps(ctx: click.Context) -> Iterable[str]:
    """Those of the stores or models that stand before it on the line."""
    stores, models = (_given(ctx, name) for name in ("store", "model"))
    for path in stores:
        yield from import_module("reelbank.store").open(path).taps
    for name in models:
        yield from import_module("reelbank.extract.backbones").describe(name).taps


def _given(ctx: click.Context, name: str) -> Sequence[Any]:
    value = ctx.params.get(name) or ()
    return value if isinstance(value, tuple) else (value,)


OFFERS: Mapping[str, Callable[[click.Context], Iterable[str]]] = {
    "--analysis": _named("reelbank.heads.probes:PROBES"),
    "--class-loss": _named("reelbank.heads.losses:LOSSES"),
    "--head": _named("reelbank.heads.models:HEADS"),
    "--loss": _named("reelbank.heads.losses:LOSSES"),
    "--metric": _named("reelbank.heads.judging.metrics:METRICS"),
    "--model": _named("reelbank.extract.backbones:names"),
    "--recipe": _named("reelbank.heads.recipes:RECIPES"),
    "--run": _runs,
    "--store": _stores,
    "--tap": _taps,
}
"""{option: what there is of it}. An argument says of which of them it is."""


def offered(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What may stand for `incomplete`; empty where nothing is known."""
    from click.shell_completion import CompletionItem

    key = getattr(param, "offers", param.opts[0])
    if key not in OFFERS:
        return []
    try:
        return [CompletionItem(name) for name in OFFERS[key](ctx) if name.startswith(incomplete)]
    except (OSError, ValueError):
        return []


def scripts(shell: str) -> str:
    """What a shell must read for the Tab key to work, of every program."""
    from click.shell_completion import get_completion_class

    found: type[Any] = get_completion_class(shell)  # type: ignore[assignment]
    made = (found(None, {}, name, f"_{name.replace('-', '_').upper()}_COMPLETE") for name in PROGRAMS)
    # Not `source()`, which starts a bash to ask for its version.
    return "\n".join(one.source_template % one.source_vars() for one in made)
