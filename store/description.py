"""What is in a store, for a person."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.store.layout import FAILED
from reelbank.store.reader import Store
from reelbank.store.staging import num_staged


def random_weights_warning(backbones: Iterable[str]) -> str:
    """What every message, file, page and picture about features of untrained `backbones` says; '' for none."""
    names = ", ".join(sorted(set(backbones)))
    return (
        names and f"RANDOM WEIGHTS: {names} was never trained; numbers from it say nothing about the published model."
    )


MAX_LISTED = 20
MAX_EXAMPLES = 3
MAX_VIEWS_LISTED = 9


@dataclass(frozen=True, kw_only=True)
class Description:
    """The facts about one store.

    Attributes:
        taps: {name: (shape of one step, dtype, codec)}.
        splits: {split: (clips done, clips)} of clips in the manifest.
        failures: {clip id: reason} of clips in the manifest.
        num_staged: clips that a run finished and did not write into the arrays yet.
        num_bytes: of features/ on disk.
        absent: {array: its fill value} of what this version would have stored; it reads as fill.
        unknown: arrays and root attributes of a later version, which stay as they are.
    """

    path: str
    num_clips: int
    counts: dict[str, int]
    taps: dict[str, tuple[tuple[int, ...], str, str]]
    num_steps: tuple[int, int]
    splits: dict[str, tuple[int, int]]
    failures: dict[str, str]
    num_staged: int
    spec: dict[str, Any]
    spec_digest: str
    provenance: dict[str, Any]
    unit_clips: int
    num_bytes: int
    weights_are_random: bool
    absent: dict[str, str]
    unknown: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return dict(vars(self))

    def text(self) -> str:
        """The facts, a line each."""
        weights = self.spec["weights"]
        origin = weights["kind"] + (f" (seed {weights['seed']})" if "seed" in weights else "")
        origin += f" (began with {weights['base']} weights)" if "base" in weights else ""
        if weights["kind"] == "none":
            origin = "none needed"
        elif weights["kind"] == "imported":
            made = f", made there with {weights['of'].get('kind')} weights" if "of" in weights else ""
            origin = f"features imported from {weights.get('source')}{made}"
        else:
            origin = f"{origin}, sha256 {weights.get('sha256') or 'unknown'}"
        least, most = self.num_steps
        steps = f"{least}" if least == most else f"{least} to {most}"
        lines = [
            f"{self.path}: {self.spec['backbone']}, {self.num_clips} clips, {readable(self.num_bytes)} of features",
            "  clips     "
            + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.counts.items() if count),
            "  splits    " + ", ".join(f"{name} {done}/{total}" for name, (done, total) in self.splits.items()),
            f"  steps     {steps} per clip, sampling {self.spec['sampling']}",
            *([f"  views     {_views_text(self.spec)}"] if len(self.spec["views"]) > 1 else []),
            *(
                f"  tap       {name}: {'x'.join(map(str, shape))} {dtype} per step"
                + (f", {codec}" if codec != "none" else "")
                for name, (shape, dtype, codec) in self.taps.items()
            ),
            f"  weights   {origin}",
            *([f"  plug-in   {_plugin_text(plugin)}"] if (plugin := self.provenance.get("plugin")) else []),
            f"  spec      {self.spec_digest[:16]}, resize {self.spec['resize']}, {self.spec['precision']}",
            f"  made by   {self.provenance.get('command', '')} at {self.provenance.get('created', '')}",
        ]
        if self.num_staged:
            lines.append(
                f"  staged    {self.num_staged} clips, of a run that goes on or was interrupted; featurize takes them"
            )
        lines += [f"  failed    {line}" for line in failure_lines(self.failures, f"{self.path} --json")]
        if self.absent:
            lines.append("  absent    " + ", ".join(f"{name} (read as {fill})" for name, fill in self.absent.items()))
        if self.unknown:
            lines.append(f"  unknown   {', '.join(self.unknown)}: of a later version, kept as they are")
        if self.weights_are_random:
            lines.append(random_weights_warning([self.spec["backbone"]]))
        return "\n".join(lines)


def failure_lines(failures: Mapping[str, str], more: str) -> list[str]:
    """A line per kind of reason, the most frequent first.

    Args:
        failures: {clip id: reason}. Reasons that differ in numbers, paths and quoted names are of one kind, which the
            first of them stands for.
        more: what `reelbank store info` is to be called with for all of them.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for clip, reason in failures.items():
        kinds[_VARYING.sub("#", reason)].append(clip)
    lines = []
    for clips in sorted(kinds.values(), key=len, reverse=True)[:MAX_LISTED]:
        named = ", ".join(map(repr, clips[:MAX_EXAMPLES])) + (", ..." if len(clips) > MAX_EXAMPLES else "")
        who = f"clip {named}" if len(clips) == 1 else f"{len(clips)} clips, {named}"
        lines.append(f"{who}: {failures[clips[0]]}")
    if len(kinds) > MAX_LISTED:
        lines.append(f"... and for {len(kinds) - MAX_LISTED} other reasons: reelbank store info {more}")
    return lines


_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\d[\d.]*")


def _plugin_text(plugin: dict[str, Any]) -> str:
    package = f" of {plugin['distribution']} {plugin['version']}" if plugin["distribution"] else ""
    return f"{plugin['target']}{package}, source sha256 {plugin['sha256']}"


def _views_text(spec: dict[str, Any]) -> str:
    views, split = spec["views"], spec["view_split"]
    names = ", ".join(views[:MAX_VIEWS_LISTED])
    more = f" and {len(views) - MAX_VIEWS_LISTED} more, see --json" if len(views) > MAX_VIEWS_LISTED else ""
    who = "every clip" if split == "all" else f"clips of split {split}, the first for others"
    return f"{len(views)} for {who}: {names}{more}"


def readable(count: float) -> str:
    """Bytes with a decimal unit: 5.9 MB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def describe(path: Path | str) -> Description:
    """The facts about the store at `path`. Raises StoreError."""
    store = Store(path)
    present = store.clips.in_manifest == 1
    done = store.done_rows()
    steps = store.num_steps[done]
    splits = store.column("split") if store.num_clips else np.array([], dtype=object)
    names = store.column("clip_id") if store.num_clips else splits
    failed = present & (store.clips.status == FAILED)
    isdone = np.isin(np.arange(store.num_clips), done)
    return Description(
        path=str(path),
        num_clips=store.num_clips,
        counts=store.clips.counts(),
        taps={tap.name: (tap.shape, tap.dtype, tap.codec) for tap in store.spec.taps},
        num_steps=(int(steps.min(initial=0 if not len(steps) else int(steps.max()))), int(steps.max(initial=0))),
        splits={
            str(name): (int((isdone & (splits == name)).sum()), int((present & (splits == name)).sum()))
            for name in dict.fromkeys(splits[present].tolist())
        },
        failures={
            str(names[row]): str(store.clips.reason[row]) or "why is not stored"
            for row in np.flatnonzero(failed).tolist()
        },
        num_staged=num_staged(store.path),
        spec=store.spec.to_json(),
        spec_digest=store.spec_digest,
        provenance=store.provenance,
        unit_clips=store.geometry.unit_clips,
        num_bytes=sum(math.ceil(p.stat().st_size) for p in (store.path / "features").rglob("c/**/*") if p.is_file()),
        weights_are_random=store.weights_are_random,
        absent=store.absent,
        unknown=(*store.unknown, *(f"attribute {name}" for name in store.unknown_attributes)),
    )
