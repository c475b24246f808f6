"""Parts of docstrings as Markdown, for the generated pages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

# Outside of `code`, these would mean something in Markdown.
_SPECIAL = re.compile(r"([\\*_<>\[\]{}|])")
_ATTRIBUTE = re.compile(r"^ {4}(?P<names>[a-z_]+(?:, [a-z_]+)*): (?P<text>.*)$")


def escaped(text: str) -> str:
    """`text` as Markdown that shows it as it is; what stands between backticks stays code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner
        return _SPECIAL.sub(r"\\\1", text.replace("`", "\\`"))
    return "`".join(part if number % 2 else _SPECIAL.sub(r"\\\1", part) for number, part in enumerate(parts))


def summary(thing: Any) -> str:
    """The first paragraph of a docstring on one line.

    Raises:
        ValueError: there is none.
    """
    text = inspect.getdoc(thing)
    if not text:
        raise ValueError(f"{getattr(thing, '__name__', thing)!r} has no docstring; the reference shows its first line")
    return " ".join(text.split("\n\n")[0].split())


def attributes(cls: type) -> dict[str, str]:
    """{attribute: what it is} of the section `Attributes:` of a class.

    Raises:
        ValueError: there is no such section.
    """
    lines = (inspect.getdoc(cls) or "").splitlines()
    if "Attributes:" not in lines:
        raise ValueError(f"{cls.__name__} has no section Attributes: in its docstring; the reference shows it")
    found: dict[str, str] = {}
    names: tuple[str, ...] = ()
    for line in lines[lines.index("Attributes:") + 1 :]:
        if match := _ATTRIBUTE.match(line):
            names = tuple(match["names"].split(", "))
            found |= dict.fromkeys(names, match["text"].strip())
        elif line.startswith(" " * 8):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        elif line.strip():
            break
    return found


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; the cells are Markdown already."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
