"""Code from outside: an entry point of an installed package, or `module:attribute` of a module that can be imported.

A plug-in is loaded when it is used or listed, never before. Whatever goes wrong in its code becomes a sentence that
names the plug-in, its module and what was being done. What it computed is kept with its identity: module, package,
version and the sha256 of its source.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""`module:attribute` as it may be asked for."""

INSTALLED_FOLDERS = ("site-packages", "dist-packages")


class PluginError(ValueError):
    """A plug-in that cannot be found or imported, lacks something, fails, or gives another shape than it says."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One thing from outside, not loaded yet.

    Attributes:
        kind: what it is used as: `backbone`, `head`, ...
        name: as it is asked for.
        target: `module:attribute`.
        distribution, version: of the package that it is installed with; None for a module that belongs to none.
    """

    kind: str
    name: str
    target: str
    distribution: str | None = None
    version: str | None = None

    @property
    def module(self) -> str:
        return self.target.partition(":")[0]

    @property
    def origin(self) -> str:
        """Where it comes from, for a person: `reelbank_example.head:HEAD of reelbank-example 1.0`."""
        return self.target if self.distribution is None else f"{self.target} of {self.distribution} {self.version}"

    @property
    def label(self) -> str:
        """What an error begins with: kind, name and, where the name does not say it, origin."""
        return f"{self.kind} {self.name!r}" + ("" if self.origin == self.name else f" ({self.origin})")

    def load(self) -> Any:
        """What `target` names. Raises PluginError if its module does not import or lacks the attribute."""
        return load_target(self.target, self.label)

    def wrong(self, what: str) -> PluginError:
        """The error that says what is wrong with this plug-in: `what` begins with the field or function."""
        return PluginError(f"{self.label}: {what}")

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        """Around a call into the plug-in's code: whatever it raises names the plug-in, its module and `what`."""
        try:
            yield
        except (ValueError, OSError, RuntimeError) as error:
            # Sentences of ours, and what callers handle (out of memory is a RuntimeError): left as they are.
            error.add_note(f"in {what} of {self.label}")
            raise
        except Exception as error:
            raise self.wrong(f"{what} failed: {type(error).__name__}: {error}") from error

    def identity(self) -> dict[str, Any]:
        """What provenance keeps of it, as JSON types."""
        files = source_files(self.module)
        return {
            "kind": self.kind,
            "name": self.name,
            "target": self.target,
            "distribution": self.distribution,
            "version": self.version,
            "sha256": sha256_of(files),
            "files": sorted(files),
        }

    @property
    def sha256(self) -> str:
        """Of the source of its module and of the modules beside it that it imports."""
        return sha256_of(source_files(self.module))


def outside(kind: str, target: str) -> Plugin | None:
    """The plug-in that `module:attribute` names, or None if there is no such module.

    A module that cannot be found otherwise is looked for in the working folder, which then stays at the end of
    `sys.path`: a file there hides no installed module, and processes that are started later find it too.
    """
    module = target.partition(":")[0]
    if not _is_there(module):
        return None
    distribution = _distribution(module.partition(".")[0]) if _is_installed(_origin_of(module)) else None
    from importlib import metadata

    return Plugin(
        kind=kind,
        name=target,
        target=target,
        distribution=distribution,
        version=None if distribution is None else metadata.version(distribution),
    )


@functools.cache
def _distribution(package: str) -> str | None:
    """The distribution that brought a top-level package; reading what every one holds takes a while."""
    from importlib.metadata import packages_distributions

    return next(iter(packages_distributions().get(package, ())), None)


def load_target(target: str, what: str) -> Any:
    """What `module:attribute` names.

    Args:
        what: that it is loaded for, to begin an error with.

    Raises:
        PluginError: the module does not import, or has no such attribute.
    """
    name, _, attribute = target.partition(":")
    _is_there(name)  # also in a process that has not looked in the working folder yet
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise PluginError(f"{what}: module {name} does not import: {type(error).__name__}: {error}") from error
    try:
        return functools.reduce(getattr, attribute.split("."), module)
    except AttributeError:
        there = sorted(key for key, value in vars(module).items() if _is_own(value, name) and not key.startswith("_"))
        has = f"it defines {', '.join(there)}" if there else "it defines nothing that could be meant"
        raise PluginError(f"{what}: module {name} ({module.__file__}) has no {attribute!r}; {has}") from None


def _is_own(value: object, module: str) -> bool:
    return getattr(value, "__module__", getattr(type(value), "__module__", None)) == module


def _is_there(module: str) -> bool:
    """Whether `module` can be found, in the working folder too."""
    if _spec(module) is not None:
        return True
    folder = str(Path.cwd())
    if folder in sys.path:
        return False
    sys.path.append(folder)
    importlib.invalidate_caches()
    if _spec(module) is not None:
        return True
    sys.path.remove(folder)
    return False


def _spec(module: str) -> Any:
    """The module's spec, None if it is not found. Raises PluginError if a package above it does not import."""
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            return None
        raise PluginError(f"module {module}: the package above it does not import: {error}") from error
    except ValueError:  # a module without a spec, as `__main__` of a script
        return sys.modules.get(module)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise PluginError(f"module {module}: the package above it does not import: {text}") from error


def _origin_of(module: str) -> Path | None:
    spec = _spec(module)
    origin = getattr(spec, "origin", None) or getattr(spec, "__file__", None)
    return None if origin in (None, "built-in", "frozen") else Path(str(origin))


def _is_installed(file: Path | None) -> bool:
    return file is not None and any(part in INSTALLED_FOLDERS for part in file.parts)


def source_files(module: str) -> dict[str, Path]:
    """The source of a module and of the modules beside it that it imports: {path below their folder: file}.

    Followed are imports from the module's own package; for a module that is not installed, also modules of the same
    folder. Imports inside functions count. Libraries do not: their versions are kept elsewhere.

    Raises:
        PluginError: the module has no file, so that nothing can tell later whether it has changed.
    """
    first = _origin_of(module)
    if first is None or not first.is_file():
        raise PluginError(f"module {module} has no source file whose hash could be kept; put the plug-in into a file")
    parts = module.split(".")
    root = first.parents[len(parts) if first.name == "__init__.py" else len(parts) - 1]
    top = None if not _is_installed(first) else parts[0]
    found: dict[str, Path] = {}
    open_names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    while open_names:
        name = open_names.pop()
        if top is not None and name.partition(".")[0] != top:
            continue
        stem = root.joinpath(*name.split("."))
        package = stem / "__init__.py"
        file = package if package.is_file() else stem.with_name(f"{stem.name}.py")
        if name == module:
            file = first
        key = file.relative_to(root).as_posix()
        if key in found or not file.is_file():
            continue
        found[key] = file
        if file.suffix == ".py":
            own = name if file == package else name.rpartition(".")[0]
            open_names += _imported(file, own)
    return found


def _imported(file: Path, package: str) -> list[str]:
    """Every module that a file may import, with the packages above each; `package` is the file's own."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []  # its bytes are hashed all the same
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            names += [start, *(f"{start}.{alias.name}" for alias in node.names)]
    parts = [name.split(".") for name in names if name]
    return [".".join(part[: i + 1]) for part in parts for i in range(len(part))]


def sha256_of(files: dict[str, Path]) -> str:
    """sha256 (hex) over the names and bytes of source files, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(files):
        content = hashlib.sha256(files[name].read_bytes()).hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()
