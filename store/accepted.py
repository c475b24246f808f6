"""What a config takes for its fields beside what they hold: text for a path, one value for several.

`store: ManyPaths` holds a tuple of Path and takes text or Path, one or several. Type checkers see both sides; at run
time the annotation is what the field holds. `accepted` brings a value into that type.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin

Held = TypeVar("Held")
Given = TypeVar("Given")
One = TypeVar("One")
StrPath = str | os.PathLike[str]

if TYPE_CHECKING:

    class Takes(Generic[Held, Given]):
        """A field that holds one type and takes another: to type checkers a descriptor."""

        def __get__(self, instance: Any, owner: Any = None) -> Held: ...
        def __set__(self, instance: Any, value: Given) -> None: ...

    Many = Takes[tuple[One, ...], One | Iterable[One]]
    OnePath = Takes[Path, StrPath]
    ManyPaths = Takes[tuple[Path, ...], StrPath | Iterable[StrPath]]
    MaybePath = Takes[Path | None, StrPath | None]
    MaybeText = Takes[str | None, StrPath | None]
else:
    Many = tuple[One, ...]
    OnePath = Path
    ManyPaths = tuple[Path, ...]
    MaybePath = Path | None
    MaybeText = str | None


class WrongKind(Exception):
    """A value that cannot be brought into a field's type: which (of several the first), and what is expected."""

    def __init__(self, value: Any, expected: str) -> None:
        super().__init__(f"{value!r} must be {expected}")


def accepted(value: Any, hint: Any) -> Any:
    """`value` in the type of a field.

    Args:
        value: what was given.
        hint: bool, int, float, str or Path; a tuple of one of them; each also `| None`.

    Raises:
        WrongKind: it is something else.
    """
    kinds = (hint,) if get_origin(hint) is tuple else get_args(hint) or (hint,)
    if value is None and NoneType in kinds:
        return None
    kind = next(one for one in kinds if one is not NoneType)
    if get_origin(kind) is not tuple:
        return _one(value, kind)
    items = get_args(kind)
    if items[-1] is Ellipsis:
        return tuple(_one(item, items[0]) for item in _several(value))
    if not isinstance(value, tuple | list) or len(value) != len(items):
        raise WrongKind(value, f"a tuple of {len(items)} numbers")
    return tuple(_one(item, item_kind) for item, item_kind in zip(value, items, strict=True))


def paths_of(name: str, given: StrPath | Iterable[StrPath], error: type[Exception]) -> tuple[Path, ...]:
    """One path or several of the argument `name`, as text or Path. Raises `error` for what is neither."""
    try:
        found: tuple[Path, ...] = accepted(given, tuple[Path, ...])
    except WrongKind as wrong:
        raise error(f"{name}: {wrong}, or several") from None
    return found


def _several(value: Any) -> Iterable[Any]:
    """`value` if it is several values in an order of their own, else that value alone."""
    is_one = isinstance(value, str | bytes | os.PathLike | Mapping | Set) or not isinstance(value, Iterable)
    return (value,) if is_one else value


def _one(value: Any, kind: type) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise WrongKind(value, "True or False")
    if kind in (int, float):
        number, called = (Integral, "a whole number") if kind is int else (Real, "a number")
        if isinstance(value, bool) or not isinstance(value, number):
            raise WrongKind(value, called)
        # A number of numpy has no place in JSON; one of Python stays what it is, 1 as 1.
        return value.item() if hasattr(value, "item") else value
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise WrongKind(value, "a path, as text or Path" if kind is Path else "text")
    return Path(text) if kind is Path else text
