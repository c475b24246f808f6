"""One pattern for every table: backbones, heads, losses, metrics, readers of data sets, probes.

A table maps a name to a row, and a row names its code as `module:function`, which is loaded on first use. Beside the
rows written here a table knows those that installed packages add under its group of entry points, and takes
`module:attribute` for code that is not packaged. As a Mapping it holds the rows written here only: what is listed in
a help text, or tested for every row, does not depend on what else is installed.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from reelbank.manifests.plugins import TARGET, Plugin, PluginError, load_target, outside

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Row = TypeVar("Row")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Found(Generic[Row]):
    """A row with the name it was asked by; `plugin` is None for the rows of this package."""

    kind: str
    name: str
    row: Row
    plugin: Plugin | None = None

    def load(self, target: str) -> Any:
        """What `target`, a field of the row, names. Raises PluginError where a plug-in does not have it."""
        if self.plugin is None:
            module, _, attribute = target.partition(":")
            return getattr(import_module(module), attribute)
        return load_target(target, self.plugin.label)


@dataclass(frozen=True, kw_only=True)
class Listed(Generic[Row]):
    """One line of a listing: a plug-in's name, where it comes from, its row or why there is none."""

    name: str
    origin: str
    row: Row | None
    problem: str = ""


class Registry(Mapping[str, Row]):
    """A table of rows by name.

    Args:
        rows: {name: row} of this package.
        kind: what a row is, in the singular: `head`.
        group: of the entry points that add rows: `reelbank.heads`.
        row_type: what a plug-in's attribute must be.
        error: what is raised for a name that is not known.
        from_function: makes a row of a plug-in that is a function: (its target, the function) -> row.
        function: how such a function is written, for the message where something else was found.
        guarded: (plug-in, its row) -> the row whose functions say of which plug-in they are where they fail.
    """

    def __init__(
        self,
        rows: Mapping[str, Row],
        *,
        kind: str,
        group: str,
        row_type: type[Row],
        error: type[ValueError],
        from_function: Callable[[str, Callable[..., Any]], Row] | None = None,
        function: str = "",
        guarded: Callable[[Plugin, Row], Row] | None = None,
    ) -> None:
        self._rows = dict(rows)
        self.kind, self.group = kind, group
        self._row_type, self._error = row_type, error
        self._from_function, self._function, self._guarded = from_function, function, guarded
        self._outside: dict[Plugin, Row] = {}

    def __getitem__(self, name: str) -> Row:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, name: str) -> Row:
        """The row of `name`, wherever it comes from; see `find`."""
        return self.find(name).row

    def find(self, name: str) -> Found[Row]:
        """The row of a name of this table, of an installed package's, or of `module:attribute`, in that order.

        Raises:
            ValueError: of the table's own class where nothing has that name; what could be meant is listed.
            PluginError: the plug-in does not import, is no row, or has a name that is taken.
        """
        found = self.registered(name)
        if found is None and TARGET.fullmatch(name):
            found = self.from_module(name)
        if found is None:
            raise self._error(f"no {self.kind} {name!r}; {self.choices(name)}")
        return found

    def registered(self, name: str) -> Found[Row] | None:
        """The row of a name of this table or of an installed package's; None where neither has it."""
        given = [plugin for plugin in self.plugins() if plugin.name == name]
        if name in self._rows:
            if given:
                raise PluginError(self._clash(given[0]))
            return Found(kind=self.kind, name=name, row=self._rows[name])
        if len(given) > 1:
            origins = " and ".join(plugin.origin for plugin in given)
            raise PluginError(
                f"{self.kind} {name!r} is registered twice, as {origins}; remove one package, or ask for one of them "
                "as module:attribute"
            )
        return self._loaded(given[0]) if given else None

    def from_module(self, target: str) -> Found[Row] | None:
        """The row that `module:attribute` names; None where there is no such module."""
        plugin = outside(self.kind, target)
        return None if plugin is None else self._loaded(plugin)

    def plugin(self, name: str) -> Plugin | None:
        """Where `name` comes from; None for this package."""
        return self.find(name).plugin

    def names(self) -> tuple[str, ...]:
        """Every registered name, sorted: those of this table and of installed packages."""
        return tuple(sorted({*self._rows, *(plugin.name for plugin in self.plugins())}))

    def plugins(self) -> tuple[Plugin, ...]:
        """What installed packages register under this table's group, by name; nothing is loaded."""
        return tuple(
            Plugin(
                kind=self.kind,
                name=entry.name,
                target=entry.value.partition("[")[0].replace(" ", ""),
                distribution=None if entry.dist is None else entry.dist.name,
                version=None if entry.dist is None else entry.dist.version,
            )
            for entry in _entries(self.group, tuple(sys.path))
        )

    def listed(self) -> list[Listed[Row]]:
        """Every plug-in of an installed package, loaded; what cannot be used is listed with the reason."""
        found = []
        for plugin in self.plugins():
            try:
                registered = self.registered(plugin.name)
            except ValueError as error:
                found.append(Listed[Row](name=plugin.name, origin=plugin.origin, row=None, problem=str(error)))
            else:
                row = None if registered is None else registered.row
                found.append(Listed[Row](name=plugin.name, origin=plugin.origin, row=row))
        return found

    def to_json(self) -> dict[str, dict[str, Any]]:
        """{name: description, options where rows have them, and origin or problem of a plug-in}."""
        found = {name: _described(row) for name, row in sorted(self.items())}
        for entry in self.listed():
            if entry.row is not None:
                found[entry.name] = _described(entry.row) | {"origin": entry.origin}
            else:
                found.setdefault(entry.name, {})
                found[entry.name] |= {"origin": entry.origin, "problem": entry.problem}
        return found

    def text(self) -> str:
        """The same for a terminal, a line each."""
        lines = [f"{name:<18}{_described(row)['description']}" for name, row in sorted(self.items())]
        return "\n".join([*lines, *self.plugin_lines()])

    def plugin_lines(self) -> list[str]:
        """A line per plug-in of an installed package: what it is and where it comes from, or why it cannot be used."""
        return [
            f"{entry.name:<18} cannot be used: {entry.problem}"
            if entry.row is None
            else f"{entry.name:<18}{_described(entry.row)['description']} (plug-in: {entry.origin})"
            for entry in self.listed()
        ]

    def choices(self, name: str) -> str:
        """What could have been meant by a name that is not known."""
        module = name.partition(":")[0]
        text = f"{meant(name, self.names())}choose one of {', '.join(self.names())}"
        if module.endswith(".py") and module != name:
            return f"{text}; module:function takes a module's name, not its file: {name.replace('.py:', ':')}"
        if TARGET.fullmatch(name):
            return f"{text}; as module:function: no module {module} can be imported, nor lies in this folder"
        return f"{text}, or give module:function of your own"

    def _clash(self, plugin: Plugin) -> str:
        return (
            f"{self.kind} {plugin.name!r} is one of reelbank's own and also registered as {plugin.origin}; rename the "
            f"latter's entry point or uninstall it, or ask for it as {plugin.target}"
        )

    def _loaded(self, plugin: Plugin) -> Found[Row]:
        if plugin not in self._outside:
            if not NAME.fullmatch(plugin.name) and plugin.name != plugin.target:
                raise plugin.wrong("its entry point's name may hold letters, digits, '.', '_' and '-' only")
            row = self._row_of(plugin, plugin.load())
            self._outside[plugin] = row if self._guarded is None else self._guarded(plugin, row)
        return Found(kind=self.kind, name=plugin.name, row=self._outside[plugin], plugin=plugin)

    def _row_of(self, plugin: Plugin, loaded: Any) -> Row:
        if isinstance(loaded, self._row_type):
            return loaded
        if self._from_function is not None and callable(loaded) and not isinstance(loaded, type):
            return self._from_function(plugin.target, loaded)
        wanted = f"a {self._row_type.__name__} of {self._row_type.__module__}"
        if self._from_function is not None:
            wanted += f" or a function {self._function}"
        raise plugin.wrong(f"{plugin.target.partition(':')[2]} is a {type(loaded).__name__}, expected {wanted}")


def _described(row: Any) -> dict[str, Any]:
    """What a listing says of a row of any table."""
    described: dict[str, Any] = {"description": row.summary}
    return described | ({"options": dict(row.options)} if isinstance(getattr(row, "options", None), Mapping) else {})


def first_line(function: Callable[..., Any]) -> str:
    """The first line of a function's docstring: the summary of a plug-in that is a function."""
    lines = (function.__doc__ or "").strip().splitlines()
    return lines[0].rstrip(".") if lines else "no description: its function has no docstring"


def file_name(name: str) -> str:
    """A name as a part of a file's name: what separates a family from its variant, and a module, becomes `-`."""
    return re.sub(r"[:/\\]", "-", name)


@lru_cache(maxsize=64)
def _entries(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group; `path` is what the answer depends on."""
    from importlib.metadata import entry_points  # a third of what `--help` takes

    return tuple(sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)))


def meant(name: str, names: Iterable[str]) -> str:
    """`did you mean 'dinov2'? ` where one of `names` is spelt nearly so, or several stand in one; else nothing."""
    known = {_letters(one): one for one in names}
    several = [known.get(_letters(one), "") for one in name.split(",")]
    if len(several) > 1 and all(several):
        return f"give each by itself: {' and '.join(several)}; "
    close = difflib.get_close_matches(_letters(name), known, n=1, cutoff=0.8)
    return f"did you mean {known[close[0]]!r}? " if close else ""


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
