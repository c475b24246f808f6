"""How a store is cut: rows into units, steps into shards and chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from reelbank.store.errors import StoreError
from reelbank.store.spec import TapSpec

CHUNK_LIMIT_BYTES = 16 << 20
# Clips whose number of steps is not known beforehand (`all`, `every`, `fps`): the step axis is cut into blocks.
VECTOR_CHUNK_STEPS, MAP_CHUNK_STEPS, CHUNKS_PER_SHARD = 128, 32, 8
CHUNK_COST_BYTES = 16 << 10
"""What one more chunk costs a reader, as bytes."""
UNKNOWN_COUNTS = (9, 18, 37, 75, 150, 300)
"""Steps that clips may have where nothing is known of them: no power of two, which every chunk would fit."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a store is cut.

    Attributes:
        unit_clips: K, rows of one unit.
        fixed_steps: steps of every clip, or None where clips differ.
        shard_steps: steps of one shard; the step axis may grow past it.
        chunk_steps: {tap: steps of one chunk}, each a divisor of `shard_steps`; None: 128 of vectors and 32 of maps, as
            in earlier stores, or what `fixed_steps` gives.
    """

    unit_clips: int
    fixed_steps: int | None
    shard_steps: int
    chunk_steps: Mapping[str, int] | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Geometry:
        """The geometry in root attributes; fields of a later version are ignored. Raises StoreError if one lacks."""
        if missing := [f.name for f in fields(cls) if f.name not in data and f.default is MISSING]:
            raise StoreError(f"the store's geometry has no {missing[0]}: it is damaged")
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})

    def unit_of(self, row: int) -> int:
        """Unit that holds `row`."""
        return row // self.unit_clips

    def rows_of(self, unit: int, num_clips: int) -> range:
        """Rows of `unit` in a store of `num_clips` rows."""
        return range(unit * self.unit_clips, min((unit + 1) * self.unit_clips, num_clips))


def least_padded(tap: TapSpec, shard_steps: int, counts: Sequence[int]) -> int:
    """The steps of a chunk with which clips of so many steps take least, where a chunk costs CHUNK_COST_BYTES more."""
    step_bytes, numbers = tap.step_bytes, Counter(counts)
    fitting = [n for n in range(1, shard_steps + 1) if shard_steps % n == 0 and n * step_bytes <= CHUNK_LIMIT_BYTES]

    def cost(steps: int) -> int:
        chunks = sum(-(-count // steps) * times for count, times in numbers.items())
        return chunks * (steps * step_bytes + CHUNK_COST_BYTES)

    return min(fitting or [1], key=cost)


def stored_steps(geometry: Geometry, tap: TapSpec, count: int) -> int:
    """Steps that a clip of `count` takes with the zeros behind its last one."""
    steps = (geometry.chunk_steps or {}).get(tap.name) or chunk_steps(tap, geometry.fixed_steps)
    return -(-count // steps) * steps


def chunk_steps(tap: TapSpec, fixed_steps: int | None) -> int:
    """Steps of one chunk: all of them where they are fixed and small, else a block."""
    step_bytes = tap.step_bytes
    if fixed_steps is not None and fixed_steps * step_bytes <= CHUNK_LIMIT_BYTES:
        return fixed_steps
    if fixed_steps is not None:
        fits = max(1, CHUNK_LIMIT_BYTES // step_bytes)
        return max(n for n in range(1, fits + 1) if fixed_steps % n == 0)
    return VECTOR_CHUNK_STEPS if tap.is_vector else MAP_CHUNK_STEPS
