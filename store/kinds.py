"""Is JSON from elsewhere what its reader expects? Said once, as data, before anything of it is used."""

from __future__ import annotations

import math
from typing import Any

MAX_SHOWN = 60
"""Letters of a value that is none."""
REAL = "real"
"""Any number, also NaN and the infinities; `float` is a finite one."""


def check_kinds(data: Any, kind: Any, where: str) -> None:
    """Raises ValueError naming the first value that is of another kind.

    Args:
        data: JSON.
        kind: a type; None; REAL; `[kind]`, a list of such; `(kind, ...)`, one of them; or a dict of the keys that must
            be there, `key?` for one that may be absent and `*` for all others.
        where: how messages call it.
    """
    match kind:
        case dict():
            if not isinstance(data, dict):
                raise _other(data, where)
            _check_keys(data, kind, where)
        case [inner] if isinstance(kind, list):
            if not isinstance(data, list):
                raise _other(data, where)
            for place, value in enumerate(data):
                check_kinds(value, inner, f"{where}[{place}]")
        case tuple():
            if not any(_fits(data, one, where) for one in kind):
                raise _other(data, where)
        case _:
            if not _is_kind(data, kind):
                raise _other(data, where)


def _check_keys(data: dict[Any, Any], kind: dict[str, Any], where: str) -> None:
    known = {name.removesuffix("?") for name in kind}
    for name, inner in kind.items():
        key = name.removesuffix("?")
        if name == "*":
            for other in data.keys() - known:
                check_kinds(data[other], inner, f"{where}.{other}" if where else str(other))
        elif key in data:
            check_kinds(data[key], inner, f"{where}.{key}" if where else key)
        elif name == key:
            raise ValueError(f"{where or 'it'} has no {key!r}")


def _fits(data: Any, kind: Any, where: str) -> bool:
    try:
        check_kinds(data, kind, where)
    except ValueError:
        return False
    return True


def _is_kind(data: Any, kind: Any) -> bool:
    if kind is None:
        return data is None
    if isinstance(data, int) and not -(2**63) <= data < 2**63:  # no array holds it
        return kind is object
    if kind in (float, REAL):
        is_number = isinstance(data, int | float) and not isinstance(data, bool)
        return is_number and (kind is REAL or abs(data) < math.inf)
    return isinstance(data, kind) and (kind is not int or not isinstance(data, bool))


def _other(data: Any, where: str) -> ValueError:
    return ValueError(f"{where or 'it'} is {str(data)[:MAX_SHOWN]!r} ({type(data).__name__})")
