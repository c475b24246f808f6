"""How two stores differ: specs, clips, manifest columns, and how close their features are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.agreement import Agreement
from reelbank.store.layout import DONE
from reelbank.store.reader import Store
from reelbank.store.spec import differences

MAX_NAMED = 5
STATUS_NAMES = {0: "missing", 1: "done", 2: "failed"}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs between the stores `a` and `b`.

    Attributes:
        spec: {field: (in a, in b)}.
        only_in_a, only_in_b: clip ids of clips of the manifest.
        status: {clip id: (in a, in b)}.
        columns: {manifest column: (clips in which it differs, first of them, its value in a, in b)}; a column that
            only one store has counts all common clips.
        steps: {clip id: (steps in a, in b)}; the features of the common steps are compared.
        taps: {tap: cosine_min (over steps), cosine_median (over clips), max_abs, num_steps, num_different_clips}.
        taps_apart: {tap: why it was not compared}.
        num_common: clips in both; `num_compared` of them are done in both.
    """

    a: str
    b: str
    spec: dict[str, tuple[Any, Any]]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    status: dict[str, tuple[str, str]]
    columns: dict[str, tuple[int, str, Any, Any]]
    steps: dict[str, tuple[int, int]]
    taps: dict[str, dict[str, float]]
    taps_apart: dict[str, str]
    num_common: int
    num_compared: int

    @property
    def equal(self) -> bool:
        """Whether nothing differs; where the features come from (provenance) is not compared."""
        apart = (self.spec, self.only_in_a, self.only_in_b, self.status, self.columns, self.steps, self.taps_apart)
        return not any(apart) and not any(entry["num_different_clips"] for entry in self.taps.values())

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON types."""
        return {"equal": self.equal, **vars(self)}

    def text(self) -> str:
        """The findings, a line each."""
        lines = [f"a: {self.a}", f"b: {self.b}"]
        # A tap that one store has not is said once, below, not field by field.
        alone = tuple(f"taps[{name}]." for name, why in self.taps_apart.items() if why.startswith("only"))
        lines += [
            f"  spec      {name}: a {ours!r}, b {theirs!r}"
            for name, (ours, theirs) in self.spec.items()
            if not name.startswith(alone)
        ]
        for which, names in (("a", self.only_in_a), ("b", self.only_in_b)):
            if names:
                lines.append(f"  clips     {len(names)} only in {which}: {_few(names)}")
        if self.status:
            few = [f"{name!r} (a {ours}, b {theirs})" for name, (ours, theirs) in list(self.status.items())[:MAX_NAMED]]
            lines.append(f"  status    {len(self.status)} clips differ: {', '.join(few)}{_more(len(self.status))}")
        for name, (count, clip, ours, theirs) in self.columns.items():
            lines.append(f"  manifest  {name} differs in {count} clips, first {clip!r}: a {ours!r}, b {theirs!r}")
        if self.steps:
            clip, (ours, theirs) = next(iter(self.steps.items()))
            lines.append(f"  steps     {len(self.steps)} clips differ, first {clip!r}: a {ours}, b {theirs}")
        lines += [f"  tap       {name}: {why}" for name, why in self.taps_apart.items()]
        for name, entry in self.taps.items():
            if entry["num_different_clips"]:
                lines.append(
                    f"  tap       {name}: cosine {entry['cosine_min']:.6f} at least, {entry['cosine_median']:.6f} in "
                    f"the median, greatest difference {entry['max_abs']:.3g}, in {entry['num_different_clips']:.0f} "
                    f"of {self.num_compared} clips"
                )
            elif self.num_compared:
                lines.append(f"  tap       {name}: equal in {self.num_compared} clips")
        verdict = "equal" if self.equal else "different"
        return "\n".join([*lines, f"{verdict}: {self.num_common} clips in both, {self.num_compared} done in both"])


@with_bar("diff")
def diff(a: Path | str, b: Path | str, progress: Progress | None = None) -> Difference:
    """Compares the stores at `a` and `b`. Clips that have left their manifest take no part.

    Features with the same checksums and sizes are not read; `verify` says whether bytes still match them.

    Args:
        progress: called with an Event: clips compared of clips to compare.

    Raises:
        StoreError: a path that is no store.
    """
    first, second = Store(a), Store(b)
    rows_a, rows_b = _rows(first), _rows(second)
    common = [clip_id for clip_id in rows_a if clip_id in rows_b]
    status, both_done, steps = {}, [], {}
    for clip_id in common:
        x, y = rows_a[clip_id], rows_b[clip_id]
        ours, theirs = int(first.clips.status[x]), int(second.clips.status[y])
        if ours != theirs:
            status[clip_id] = STATUS_NAMES[ours], STATUS_NAMES[theirs]
        elif ours == DONE:
            both_done.append((x, y))
            if first.num_steps[x] != second.num_steps[y]:
                steps[clip_id] = int(first.num_steps[x]), int(second.num_steps[y])
    taps, apart = _compare_taps(first, second, both_done, progress)
    return Difference(
        a=str(a),
        b=str(b),
        spec=differences(first.spec, second.spec),
        only_in_a=tuple(clip_id for clip_id in rows_a if clip_id not in rows_b),
        only_in_b=tuple(clip_id for clip_id in rows_b if clip_id not in rows_a),
        status=status,
        columns=_columns(first, second, [(rows_a[clip_id], rows_b[clip_id]) for clip_id in common]),
        steps=steps,
        taps=taps,
        taps_apart=apart,
        num_common=len(common),
        num_compared=len(both_done),
    )


def _rows(store: Store) -> dict[str, int]:
    """{clip id: row} of the clips of the manifest."""
    if not store.num_clips:
        return {}
    names = store.column("clip_id")
    return {str(names[row]): int(row) for row in np.flatnonzero(store.clips.in_manifest == 1)}


def _columns(a: Store, b: Store, common: list[tuple[int, int]]) -> dict[str, tuple[int, str, Any, Any]]:
    found: dict[str, tuple[int, str, Any, Any]] = {}
    if not common:
        return found
    rows_a, rows_b = (np.array(rows, dtype=np.int64) for rows in zip(*common, strict=True))
    names = a.column("clip_id")
    for name in sorted(set(a.column_names) | set(b.column_names)):
        if name not in a.column_names or name not in b.column_names:
            values = ("(no such column)",) * 2
            ours = a.column(name)[rows_a[0]] if name in a.column_names else values[0]
            theirs = b.column(name)[rows_b[0]] if name in b.column_names else values[0]
            found[name] = len(common), str(names[rows_a[0]]), _plain(ours), _plain(theirs)
            continue
        x, y = a.column(name)[rows_a], b.column(name)[rows_b]
        differ = x != y
        if x.dtype.kind == "f" and y.dtype.kind == "f":
            differ &= ~(np.isnan(x) & np.isnan(y))
        places = np.flatnonzero(differ)
        if len(places):
            i = int(places[0])
            found[name] = len(places), str(names[rows_a[i]]), _plain(x[i]), _plain(y[i])
    return found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _compare_taps(
    a: Store, b: Store, rows: list[tuple[int, int]], progress: Progress | None
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    apart = {}
    for name in sorted(set(a.taps) | set(b.taps)):
        if name not in a.taps or name not in b.taps:
            apart[name] = f"only in {'a' if name in a.taps else 'b'}"
        elif a.taps[name].shape != b.taps[name].shape:
            apart[name] = f"a {a.taps[name].shape} per step, b {b.taps[name].shape}"
    shared = [name for name in a.taps if name in b.taps and name not in apart]
    found = {name: Agreement() for name in shared}
    different = dict.fromkeys(shared, 0)
    for done, (x, y) in enumerate(rows, start=1):
        for name in shared:
            different[name] += _compare_clip(a, b, name, x, y, found[name])
        if progress is not None:
            progress(Event(stage="diff", done=done, total=len(rows)))
    return {name: found[name].to_json() | {"num_different_clips": different[name]} for name in shared}, apart


def _compare_clip(a: Store, b: Store, tap: str, x: int, y: int, found: Agreement) -> bool:
    """Adds one clip to `found`; whether its features differ in either their number or their values."""
    steps = int(a.num_steps[x]), int(b.num_steps[y])
    views = int(a.clips.num_views[x]), int(b.clips.num_views[y])
    same_dtype = a.taps[tap].dtype == b.taps[tap].dtype
    differs = steps[0] != steps[1] or views[0] != views[1]
    for view in range(min(views)):
        if not differs and same_dtype and a.checksums(tap)[x, view] == b.checksums(tap)[y, view]:
            found.add_equal(steps[0])
            continue
        for ours, theirs in _aligned(a.blocks(tap, x, view), b.blocks(tap, y, view)):
            differs |= not np.array_equal(ours, theirs)
            found.add(ours, theirs)
        found.end_clip()
    return differs


def _aligned(a: Any, b: Any) -> Any:
    """Pairs of blocks of the same steps, whatever blocks the two come in; ends with the shorter."""
    ours = theirs = np.empty((0,))
    while True:
        ours = ours if len(ours) else next((block for block in a if len(block)), ours)
        theirs = theirs if len(theirs) else next((block for block in b if len(block)), theirs)
        count = min(len(ours), len(theirs))
        if not count:
            return
        yield ours[:count], theirs[:count]
        ours, theirs = ours[count:], theirs[count:]


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:MAX_NAMED])) + _more(len(names))


def _more(count: int) -> str:
    return f" and {count - MAX_NAMED} more" if count > MAX_NAMED else ""
