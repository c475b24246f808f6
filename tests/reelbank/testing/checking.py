"""How the suites name what they check and which check failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

Subject = TypeVar("Subject")


def name_of(given: str | Callable[..., Any]) -> str:
    """The name that a thing is asked for by: `given` itself, or `module:function` of a function."""
    return given if isinstance(given, str) else f"{given.__module__}:{given.__qualname__}"


def run(checks: Mapping[str, Callable[[Subject], None]], subject: Subject, what: str) -> None:
    """Every check on `subject`; the first that fails is named."""
    for name, check in checks.items():
        with named(what, name):
            check(subject)


@contextmanager
def named(what: str, check: str) -> Iterator[None]:
    """Adds to whatever is raised inside what was checked, and for what."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while checking that {what} keeps to: {check.replace('_', ' ')}")
        raise
