"""What a store says of itself, held against sense and against what is on the disk before anything believes it.

A store may come from anywhere: a number in it must not decide how much memory a reader asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reelbank.store.errors import StoreError
from reelbank.store.kinds import check_kinds
from reelbank.store.spec import FeatureSpec

_TEXT = (str, None)
_PLUGIN = {"target": str, "distribution": _TEXT, "version": _TEXT, "sha256": str, "*": object}
ROOT_KINDS: Mapping[str, Any] = {
    "geometry": {
        "unit_clips": int,
        "fixed_steps": (int, None),
        "shard_steps": int,
        "chunk_steps?": (None, {"*": int}),
        "*": object,
    },
    "provenance": {"plugin?": (None, _PLUGIN), "command?": str, "created?": str, "*": object},
    "num_clips": int,
    "manifest_digest": str,
    "spec_digest": str,
    "target_names": [str],
    "columns": {"*": str},
}
MAX_UNIT_CLIPS = 2**16
MAX_SHARD_BYTES = 2**28
"""Of a shard with more than one clip: eight times what a writer makes."""
MAX_STEPS, MAX_STEP_BYTES = 2**28, 2**31
"""Of one clip, which a shard of its own may hold: ten weeks at 40 frames per second."""
COUNTED_CLIPS = 2**20
"""Stores of more clips are held against the chunks of clip_id that are there."""


def check_root(path: Path, root: Mapping[str, Any]) -> None:
    """Raises StoreError naming the root attribute that cannot be one of a store."""
    check_kinds(root, dict(ROOT_KINDS), "")
    spec, geometry = FeatureSpec.from_json(root["spec"]), root["geometry"]
    for name, array in root["columns"].items():
        if not array.strip(".") or "/" in array or "\\" in array or "\0" in array:
            raise _wrong(path, f"columns[{name!r}]", array)
    for name in ("unit_clips", "fixed_steps", "shard_steps"):
        if geometry[name] is not None and geometry[name] < 1:
            raise _wrong(path, name, geometry[name])
    chunks = geometry.get("chunk_steps")
    if chunks is not None and (
        set(chunks) != {tap.name for tap in spec.taps}
        or any(steps < 1 or geometry["shard_steps"] % steps for steps in chunks.values())
    ):
        raise _wrong(path, "chunk_steps", chunks)
    unit, steps = geometry["unit_clips"], max(geometry["shard_steps"], geometry["fixed_steps"] or 1)
    step_bytes = max(tap.step_bytes for tap in spec.taps)
    if unit > MAX_UNIT_CLIPS:
        raise _wrong(path, "unit_clips", unit)
    if steps > MAX_STEPS or step_bytes > MAX_STEP_BYTES:
        raise _wrong(path, "shard_steps", steps)
    if unit > 1 and unit * steps * step_bytes * len(spec.views) > MAX_SHARD_BYTES:
        raise _wrong(path, "unit_clips", unit)
    num_clips = root["num_clips"]
    if num_clips < 0 or (num_clips > COUNTED_CLIPS and num_clips > unit * _num_chunks(path)):
        raise _wrong(path, "num_clips", num_clips)


def _num_chunks(path: Path) -> int:
    """Chunks of clip_id, none of which can be empty."""
    folder = path / "manifest" / "clip_id" / "c"
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def _wrong(path: Path, name: str, value: Any) -> StoreError:
    return StoreError(f"{path / 'zarr.json'} has {name} = {str(value)[:60]!r}: the store is damaged")


def check_steps(path: Path, tap: str, shape: tuple[int, ...], num_steps: Any, num_views: Any) -> None:
    """Raises StoreError where the ledger gives a clip more steps or views than the features of `tap` have.

    Args:
        shape: (clip, view, step, *axes) of the array.
        num_steps, num_views: (num_clips,) of the ledger.
    """
    for name, values, axis in (("num_views", num_views, 1), ("num_steps", num_steps, 2)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) <= shape[axis]:
            raise StoreError(
                f"{path}: clips/{name} goes from {int(values.min())} to {int(values.max())}, but features/{tap} has "
                f"{shape[axis]}: the store is damaged"
            )
