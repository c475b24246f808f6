"""What a stranger may write where reelbank reads: values of JSON that nobody expects, and bytes of binary headers."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEEP = 10**5
ESCAPES = "\x1b]0;title\x07\x1b[31mred\u202etxt\r\x9b2J"
"""A window title, a colour, a text that runs backwards, an overwritten line, a cleared screen."""
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What no text from a file may bring to a terminal."""
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 255, 10**6, 10**12, 2**31, 2**63, 2**64, -(2**63), 10**400),
    *(0.5, -1.5, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "0", "../../x", "/etc/passwd", "..", "a/b", "\0", "\ud800", ESCAPES, "x" * 10**5),
    *("[red]x[/red]", "[link=file:///etc/passwd]x", "$\\frac{", "</script><script>alert(1)</script>", "=1+1"),
    *([], {}, [[]], [None], [-1], [0], [10**12], {"a": 1}, [1, "a"], {"name": "x", "configuration": {}}),
)  # fmt: skip


def places(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in JSON data, containers first."""
    found = [prefix]
    if isinstance(data, dict | list):
        for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
            found += places(value, (*prefix, key))
    return found


def mutated(data: Any, draw: random.Random) -> tuple[Any, str]:
    """A copy of JSON data with one thing changed, and what was changed."""
    data = copy.deepcopy(data)
    # Near the root a change reaches most; of the rest one per depth is as likely as any other depth.
    ways = [way for way in places(data) if way]
    if not ways:
        return draw.choice(NASTY), "the whole"
    depth = draw.choice(sorted({len(way) for way in ways}))
    way = draw.choice([way for way in ways if len(way) == depth])
    holder = data
    for key in way[:-1]:
        holder = holder[key]
    key, value = way[-1], holder[way[-1]]
    kind = draw.choice(("value", "value", "value", "drop", "type", "scale", "name", "twice", "other"))
    where = "/".join(map(str, way))
    if kind == "drop":
        del holder[key]
    elif kind == "type":
        holder[key] = draw.choice((str(value), [value], {"value": value}, len(str(value)), None))
    elif kind == "scale" and isinstance(value, int | float):
        holder[key] = value * draw.choice((-1, 1000, 10**9, 0, 0.1))
    elif kind == "name" and isinstance(holder, dict):
        holder[str(draw.choice([one for one in NASTY if isinstance(one, str)]))] = holder.pop(key)
    elif kind == "twice" and isinstance(holder, list):
        holder.insert(key, value)
    elif kind == "other":
        other = data
        for one in draw.choice(ways):
            other = other[one]
        holder[key] = copy.deepcopy(other)
    else:
        holder[key] = draw.choice(NASTY)
    return data, f"{kind} at {where}"


def text_of(data: Any) -> str:
    """JSON as a hostile hand writes it: NaN, halves of surrogate pairs and integers of any length included."""
    return json.dumps(data)


def _twice(text: str, draw: random.Random) -> str:
    """A key that is there twice."""
    return text.replace("{", '{"shape": [1], "attributes": {}, "format_version": 1, ', 1) if "{" in text else text * 2


SPOILT: dict[str, Callable[[str, random.Random], str]] = {
    "empty": lambda text, draw: "",
    "cut": lambda text, draw: text[: draw.randrange(len(text) or 1)],
    "deep": lambda text, draw: '{"attributes": ' * DEEP + "1" + "}" * DEEP,
    "deep list": lambda text, draw: "[" * DEEP,
    "long number": lambda text, draw: f'{{"format_version": {"9" * 5000}}}',
    "twice": _twice,
    "list": lambda text, draw: "[1, 2]",
    "null": lambda text, draw: "null",
    "text": lambda text, draw: '"x"',
    "NUL": lambda text, draw: text.replace('"', "\0", 1),
    "latin-1": lambda text, draw: text.replace('"', '"\udce9', 1),
    "big": lambda text, draw: text[:-1] + "," * bool(text[:-1]) + f'"x": "{"y" * 10**7}"' + "}",
}
"""JSON that is spoilt as a text."""


def mutate_json(path: Path, draw: random.Random) -> str:
    """Changes one thing in a JSON file, or in one line of a file of JSON lines; what it was."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    place = draw.randrange(len(lines))
    if draw.random() < 0.15:
        what = draw.choice(sorted(SPOILT))
        lines[place] = SPOILT[what](lines[place], draw)
    else:
        data, what = mutated(json.loads(lines[place]), draw)
        lines[place] = text_of(data)
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    return what


def mutate_csv(path: Path, draw: random.Random) -> str:
    """Puts a nasty text into a cell, drops one, or spoils the bytes."""
    lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    row = draw.randrange(len(lines))
    cell = draw.randrange(len(lines[row]))
    what = draw.choice(("value", "drop", "bytes", "quote", "empty"))
    if what == "value":
        lines[row][cell] = draw.choice([str(one) for one in NASTY])
    elif what == "drop":
        del lines[row][cell]
    elif what == "quote":
        lines[row][cell] = '"' + lines[row][cell]
    elif what == "empty":
        lines = []
    data = "\n".join(map(",".join, lines)).encode("utf-8", "surrogatepass")
    path.write_bytes(data.replace(b",", b"\xe9,", 3) if what == "bytes" else data)
    return f"{what} at {row}, {cell}"


def mutate_bytes(path: Path, draw: random.Random, header: int = 512) -> str:
    """Changes bytes, most of them in the header or at the end, where formats keep what says where the rest is."""
    data = bytearray(path.read_bytes())
    kind = draw.choice(("bytes", "bytes", "cut", "ones", "zeros", "length", "end", "more"))
    place = draw.randrange(min(header, len(data)) or 1)
    if kind == "cut":
        del data[draw.randrange(len(data) or 1) :]
    elif kind == "more":
        data += bytes(draw.randrange(1, 4096))
    elif kind == "length":
        data[:8] = draw.choice((0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1)).to_bytes(8, "little")
    elif kind in ("ones", "zeros"):
        data[place : place + 8] = (b"\xff" if kind == "ones" else b"\0") * 8
    else:
        for _ in range(draw.randrange(1, 5)):
            at = (
                -1 - draw.randrange(min(header, len(data))) if kind == "end" else draw.randrange(min(header, len(data)))
            )
            data[at] = draw.randrange(256)
    path.write_bytes(data)
    return f"{kind} at {place}"


def _parsed(text: str) -> Any:
    """The JSON that a text is, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def mutate_safetensors(path: Path, draw: random.Random) -> str:
    """Changes the JSON header, the JSON that reelbank keeps in it, or the bytes of a safetensors file."""
    if draw.random() < 0.2:
        return mutate_bytes(path, draw)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    inner = header.get("__metadata__", {})
    if inner and draw.random() < 0.8:
        name = draw.choice(sorted(inner))
        found, what = mutated(_parsed(inner[name]), draw)
        inner[name] = text_of(found)
        what = f"{name}: {what}"
    else:
        header, what = mutated(header, draw)
    written = text_of(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + data[8 + length :])
    return what


MUTATORS: dict[str, Callable[[Path, random.Random], str]] = {
    ".csv": mutate_csv,
    ".json": mutate_json,
    ".jsonl": mutate_json,
    ".safetensors": mutate_safetensors,
}
"""By suffix; every other file is changed byte by byte."""


def mutate(path: Path, draw: random.Random) -> str:
    """Changes one thing in a file of any kind that reelbank reads; what it was."""
    return MUTATORS.get(path.suffix, mutate_bytes)(path, draw)
