"""The table of backbones for a person: taps, shapes, bytes, weights, licence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from reelbank.extract.backbones import BACKBONES, BackboneError, BackboneInfo, describe, family_names, names
from reelbank.manifests.registry import meant

COLUMNS = ("backbone", "one step reads", "taps (* default): shape, bytes per step", "weights", "licence of weights")


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Backbones of one family that have everything in common but their weights."""

    infos: tuple[BackboneInfo, ...]

    def cells(self) -> tuple[str, str, tuple[str, ...], str, str]:
        first = self.infos[0]
        taps = tuple(_tap(tap, first) for tap in first.to_json()["taps"])
        files = ", ".join(info.sources[0].file_name for info in self.infos if info.sources) or "none needed"
        licences = ", ".join(dict.fromkeys(s.licence for info in self.infos for s in info.sources[:1])) or "-"
        return ", ".join(info.name for info in self.infos), _reads(first), taps, files, licences


def rows() -> list[tuple[str, str, tuple[str, ...], str, str]]:
    """One row per family and set of taps, in the order of COLUMNS; the third cell is one text per tap."""
    found: list[tuple[str, str, tuple[str, ...], str, str]] = []
    for family, row in sorted(BACKBONES.items()):
        groups: dict[Any, list[BackboneInfo]] = {}
        for info in map(describe, family_names(family, row)):
            key = str((info.taps, info.default_taps, info.frames_shape, info.preprocess))
            groups.setdefault(key, []).append(info)
        found += [_Group(infos=tuple(group)).cells() for group in groups.values()]
        if row.open_variants:
            found.append((f"{family}:{row.open_variants}", "1 frame", (row.summary,), "as named", "as stated there"))
    return found


def markdown() -> str:
    """The table of the docs."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for name, reads, taps, weights, licence in rows():
        # What is typed on a command line stands in code; a family of open variants ends in words.
        coded = name if " " in name.replace(", ", "") else ", ".join(f"`{part}`" for part in name.split(", "))
        lines.append(f"| {coded} | {reads} | {'; '.join(taps)} | {weights} | {licence} |")
    return "\n".join(lines)


def text(width: int | None = None, part: str = "") -> str:
    """The table without the names of weights files, and a sentence per family.

    Args:
        width: in characters; None for the terminal's.
        part: only rows that have a backbone whose name holds this.

    Raises:
        BackboneError: no name holds `part`; what could be meant is named.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Backbones", title_justify="left", show_lines=True)
    backbone, reads, taps, _, licence = COLUMNS
    for column in (backbone, reads, taps, licence):
        table.add_column(column, overflow="fold")
    to_json(part)  # raises for a name that nothing holds
    shown = [row for row in rows() if part.lower() in row[0].lower()]
    for name, read, stored, _, granted in shown:
        table.add_row(*map(Text, (name, read, "\n".join(stored), granted)))
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    families = {name.partition(":")[0] for row in shown for name in row[0].split(", ")}
    summaries = [f"{name}: {row.summary}" for name, row in sorted(BACKBONES.items()) if name in families]
    plugins = [line for line in _plugin_lines() if part.lower() in line.partition(": ")[0].lower()]
    return "\n".join([*([captured.get().rstrip()] if shown else []), *summaries, *plugins])


def to_json(part: str = "") -> dict[str, Any]:
    """{name: description}; that of a plug-in has its `origin`, and `problem` where it cannot be used.

    With `part` only those whose name holds it. Raises BackboneError, with what could be meant, where none does.
    """
    found = {name: describe(name).to_json() for name in names()}
    for name, origin, described in _plugins():
        found[name] = {"origin": origin}
        found[name] |= {"problem": described} if isinstance(described, str) else described.to_json()
    kept = {name: described for name, described in found.items() if part.lower() in name.lower()}
    if not kept and not any(part.lower() in family.lower() for family in BACKBONES):  # of open ones no name is listed
        raise BackboneError(f"no backbone's name holds {part!r}; {meant(part, found)}`reelbank backbones` lists all")
    return kept


def _plugins() -> Iterator[tuple[str, str, BackboneInfo | str]]:
    """(name, origin, description or what is wrong) of every backbone that an installed package adds."""
    for entry in BACKBONES.listed():
        if entry.row is None:
            yield entry.name, entry.origin, entry.problem
            continue
        for name in family_names(entry.name, entry.row):
            try:
                yield name, entry.origin, describe(name)
            except ValueError as error:
                yield name, entry.origin, str(error)


def _plugin_lines() -> list[str]:
    lines = []
    for name, origin, described in _plugins():
        if isinstance(described, str):
            lines.append(f"{name}: cannot be used: {described}")
            continue
        taps = "; ".join(_tap(tap, described) for tap in described.to_json()["taps"])
        try:
            reads = _reads(described)
        except BackboneError as error:  # its preprocessing gives no fixed size
            lines.append(f"{name}: cannot be used: {error}")
        else:
            lines.append(f"{name}: plug-in, {origin}; one step reads {reads}; taps {taps}")
    return lines


def _tap(tap: dict[str, Any], info: BackboneInfo) -> str:
    mark = "*" if tap["name"] in info.default_taps else ""
    dtype = "" if tap["dtype"] == "float16" else f" {tap['dtype']}"
    return f"{tap['name']}{mark} {_by(tap['shape'])}{dtype}, {tap['bytes_per_step']:,}"


def _reads(info: BackboneInfo) -> str:
    if info.source == "annotations":
        return "1 row of annotations"
    height, width = info.image_size
    size = f"{height} px" if height == width else f"{height}x{width} px"
    number = len(info.step_frames)
    kind = {"flow": "flow image pair", "motion_maps": "motion map", "video": "frame"}[info.source]
    return f"{number} {kind}{'s' if number > 1 else ''} of {size}"


def _by(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
