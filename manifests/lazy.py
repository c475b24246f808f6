"""Public names of a package that load on first use.

Every stage's `__init__` says its public names three times, each for another reader: in an `if TYPE_CHECKING` block
for type checkers and editors, in `__all__` for people, and in the table given to `lazy` for the interpreter. A test
holds the three equal. This lies in `manifests`, the lowest stage, because all four need it.

Each of them has `__version__`, too: `reelbank` itself is a namespace, which can have no attribute of its own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, public: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of `package`, whose public names are imported when they are first asked for.

    Args:
        package: the package's `__name__`.
        public: {name: module that has it}.
    """

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return _version()
        if name not in public:
            # What the interpreter itself asks for (`__path__` of a module, `__wrapped__`) needs no list.
            listed = "" if name.startswith("__") else f"; it has {', '.join(sorted(public))}"
            raise AttributeError(f"module {package!r} has no attribute {name!r}{listed}")
        return getattr(importlib.import_module(public[name]), name)

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return __getattr__, __dir__


def _version() -> str:
    """The version that is installed. Raises AttributeError where it is not: a tree on PYTHONPATH has none."""
    from importlib import metadata  # a third of what `--help` takes

    try:
        return metadata.version("reelbank")
    except metadata.PackageNotFoundError:
        raise AttributeError(
            "reelbank is not installed, so it has no version: `pip install -e .` in its tree"
        ) from None
