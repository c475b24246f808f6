"""Format v1: which arrays a store has, their shapes and how they are cut into units.

Row i of every array is clip i. A unit is a run of consecutive rows; every array over clips is cut at the
same unit boundaries, so two writers of two units never touch the same file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from reelbank.store.errors import StoreError
from reelbank.store.files import read_json, write_json
from reelbank.store.spec import FeatureSpec, TapSpec

FORMAT_VERSION = 1
MISSING, DONE, FAILED = 0, 1, 2

SHARD_TARGET_BYTES = 32 << 20
CHUNK_LIMIT_BYTES = 16 << 20
MAX_UNIT_CLIPS = 512
# Clips whose number of steps is not known beforehand (`all`, `every`, `fps`): the step axis is cut into blocks.
VECTOR_CHUNK_STEPS, MAP_CHUNK_STEPS, CHUNKS_PER_SHARD = 128, 32, 8

THUMBNAIL_SHAPE = (72, 96, 3)

LEDGER: Mapping[str, tuple[str, Any]] = {
    "status": ("uint8", 0),
    "reason": ("str", ""),
    "attempts": ("uint8", 0),
    "num_steps": ("int64", 0),
    "num_views": ("int64", 0),
    "in_manifest": ("uint8", 0),
    "num_frames": ("int64", 0),
    "duration_seconds": ("float64", math.nan),
    "width_px": ("int64", 0),
    "height_px": ("int64", 0),
    "rate_fps": ("float64", math.nan),
    "content_hash": ("str", ""),
    "decode_seconds": ("float64", math.nan),
}
"""What is known of each clip: {array under clips/: (dtype, fill value)}."""

FRAME_BOX = ("top_px", "left_px", "height_px", "width_px")
"""Where the network's input of view 0 holds the frame rather than padding: the columns of clips/frame_box."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a store is cut.

    Attributes:
        unit_clips: K, rows of one unit.
        fixed_steps: steps of every clip, or None where clips differ.
        shard_steps: steps of one shard; the step axis may grow past it.
    """

    unit_clips: int
    fixed_steps: int | None
    shard_steps: int

    def unit_of(self, row: int) -> int:
        """Unit that holds `row`."""
        return row // self.unit_clips

    def rows_of(self, unit: int, num_clips: int) -> range:
        """Rows of `unit` in a store of `num_clips` rows."""
        return range(unit * self.unit_clips, min((unit + 1) * self.unit_clips, num_clips))


def plan_geometry(spec: FeatureSpec, fixed_steps: int | None, num_clips: int) -> Geometry:
    """Cuts a store so that one shard of its largest tap is some tens of MB."""
    step_bytes = max(math.prod(tap.shape) * np.dtype(tap.dtype).itemsize for tap in spec.taps)
    if fixed_steps is not None:
        shard_steps = fixed_steps
    else:
        shard_steps = max(chunk_steps(tap, None) for tap in spec.taps) * CHUNKS_PER_SHARD
    clip_bytes = step_bytes * shard_steps * len(spec.views)
    unit = max(1, min(MAX_UNIT_CLIPS, SHARD_TARGET_BYTES // clip_bytes))
    return Geometry(unit_clips=unit, fixed_steps=fixed_steps, shard_steps=shard_steps)


def chunk_steps(tap: TapSpec, fixed_steps: int | None) -> int:
    """Steps of one chunk: all of them where they are fixed and small, else a block."""
    step_bytes = math.prod(tap.shape) * np.dtype(tap.dtype).itemsize
    if fixed_steps is not None and fixed_steps * step_bytes <= CHUNK_LIMIT_BYTES:
        return fixed_steps
    if fixed_steps is not None:
        fits = max(1, CHUNK_LIMIT_BYTES // step_bytes)
        return max(n for n in range(1, fits + 1) if fixed_steps % n == 0)
    return VECTOR_CHUNK_STEPS if tap.is_vector else MAP_CHUNK_STEPS


def tap_dimensions(tap: TapSpec) -> tuple[str, ...]:
    """Names of the axes of `features/<tap>` (xarray refuses one name with two sizes, so they carry the tap)."""
    return ("clip", "view", "step", *(f"{tap.name}_{axis}" for axis in tap.axes))


def column_array(name: str) -> str:
    """Array under manifest/ that holds the column `name`; a name can never leave the folder."""
    safe = quote(name, safe=" ")
    return safe + "_" if safe in {"clip", "view", "step"} else safe.replace(".", "%2E")


def create(
    path: Path,
    spec: FeatureSpec,
    geometry: Geometry,
    provenance: Mapping[str, Any],
) -> None:
    """Makes an empty store of zero clips. Raises StoreError if something is already there."""
    import zarr
    from zarr.codecs import ZstdCodec

    if path.exists() and any(path.iterdir()):
        raise StoreError(f"{path} is already there and is not a reelbank store; choose another --out")
    group = zarr.create_group(path, overwrite=False)
    unit, steps, views = geometry.unit_clips, geometry.shard_steps, len(spec.views)
    first_steps = geometry.fixed_steps or steps

    def sharded(
        name: str, tail: tuple[int, ...], chunk_tail: tuple[int, ...], shard_tail: tuple[int, ...],
        dtype: str, codec: str, dimensions: tuple[str, ...],
    ) -> None:  # fmt: skip
        group.create_array(
            name, shape=(0, *tail), shards=(unit, *shard_tail), chunks=(1, *chunk_tail), dtype=dtype,
            compressors=ZstdCodec(level=1) if codec == "zstd-1" else None, filters=None,
            fill_value=0, dimension_names=dimensions,
        )  # fmt: skip

    def plain(name: str, tail: tuple[int, ...], dtype: str, fill: Any, dimensions: tuple[str, ...]) -> None:
        group.create_array(
            name, shape=(0, *tail), chunks=(unit, *tail), dtype=str if dtype == "str" else dtype,
            fill_value=fill, dimension_names=dimensions,
        )  # fmt: skip

    for tap in spec.taps:
        block = chunk_steps(tap, geometry.fixed_steps)
        sharded(
            f"features/{tap.name}", (views, first_steps, *tap.shape), (1, block, *tap.shape),
            (views, steps, *tap.shape), tap.dtype, tap.codec, tap_dimensions(tap),
        )  # fmt: skip
        plain(f"checksums/{tap.name}", (views,), "uint32", 0, ("clip", "view"))
        if tap.is_vector:
            for kind in ("mean", "std"):
                names = ("clip", "view", f"{tap.name}_{tap.axes[0]}")
                plain(f"{kind}/{tap.name}", (views, *tap.shape), "float32", math.nan, names)
    for name, (dtype, fill) in LEDGER.items():
        plain(f"clips/{name}", (), dtype, fill, ("clip",))
    plain("clips/frame_box", (len(FRAME_BOX),), "int64", 0, ("clip", "box"))
    plain("clips/step_seconds", (first_steps,), "float64", math.nan, ("clip", "step"))
    plain("clips/frame_index", (first_steps,), "int64", -1, ("clip", "step"))
    sharded(
        "thumbnails/rgb", THUMBNAIL_SHAPE, THUMBNAIL_SHAPE, THUMBNAIL_SHAPE, "uint8", "zstd-1",
        ("clip", "thumbnail_y", "thumbnail_x", "rgb"),
    )  # fmt: skip
    group.create_group("manifest")
    for folder in ("commits", "staging"):
        # zarr-python warns about folders it does not know; an empty scalar array makes them known.
        group.create_array(folder, shape=(), dtype="uint8", attributes={"about": "plain files of the writer"})
    write_root(
        path,
        {
            "format_version": FORMAT_VERSION,
            "spec": spec.to_json(),
            "spec_digest": spec.digest,
            "geometry": vars(geometry),
            "provenance": dict(provenance),
            "columns": {},
            "target_names": [],
            "manifest_digest": "",
            "num_clips": 0,
        },
    )


def write_root(path: Path, attributes: Mapping[str, Any]) -> None:
    """Replaces the root attributes; readers take the number of clips from here, so it is written last."""
    write_json(path / "zarr.json", {"attributes": dict(attributes), "node_type": "group", "zarr_format": 3})


def read_root(path: Path) -> dict[str, Any]:
    """The root attributes. Raises StoreError if `path` is not a store of this format."""
    if not path.exists():
        raise StoreError(f"no store at {path}; featurize makes one")
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path} holds no zarr.json: it is not a store")
    attributes = read_json(path / "zarr.json").get("attributes", {})
    version = attributes.get("format_version")
    if version is None or "spec" not in attributes:
        raise StoreError(f"{path} is a Zarr group, but not one that reelbank wrote")
    if version != FORMAT_VERSION:
        raise StoreError(f"{path} has format version {version}; this reelbank reads version {FORMAT_VERSION}")
    return dict(attributes)


def all_arrays(path: Path, spec: FeatureSpec) -> list[str]:
    """Names of every array over clips except those under manifest/."""
    names = [f"features/{t.name}" for t in spec.taps] + [f"checksums/{t.name}" for t in spec.taps]
    names += [f"{kind}/{t.name}" for t in spec.taps if t.is_vector for kind in ("mean", "std")]
    names += [f"clips/{name}" for name in LEDGER]
    return [*names, "clips/frame_box", "clips/step_seconds", "clips/frame_index", "thumbnails/rgb"]


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
